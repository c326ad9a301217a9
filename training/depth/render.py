"""Render people in rooms as noiseless depth by MuJoCo, without any physics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.depth.frame import Depth
from training.depth.body import Body, Floats, Track, unit
from training.depth.room import HEIGHT, WIDTH, Box, Camera, Room

FAR_M = 8.0
SLOW_EVERY = 3  # frames: whose pixel is whose costs more than the depth itself
_AWAY = np.array([0.0, 0.0, -50.0])  # where what is not in the room waits


@dataclass(frozen=True, slots=True)
class Actor:
    """A person in a clip."""

    body: Body
    track: Track
    present: NDArray[np.bool_]  # (frames,)


@dataclass(frozen=True, slots=True)
class Prop:
    """A thing that is moved: a bag, laundry, a chair."""

    boxes: tuple[Box, ...]
    place: Floats  # (frames, 4): x, y, z, yaw


@dataclass(frozen=True, slots=True)
class Shot:
    """What a clip's camera saw."""

    depth_mm: Depth  # (frames, height, width)
    background_mm: Depth
    pixels: NDArray[np.int32]  # (frames, actors)


def shoot(room: Room, camera: Camera, actors: list[Actor], props: list[Prop]) -> Shot:
    """Render every frame, and the room without people as it was in the beginning."""
    frames = len(actors[0].track)
    poses = [_actor_poses(a) for a in actors] + [_prop_poses(p) for p in props]
    position = np.concatenate([p for p, _, _ in poses], axis=1)
    axes = np.concatenate([a for _, a, _ in poses], axis=1)
    size = np.concatenate([s for _, _, s in poses], axis=1)
    own = sum(p.shape[1] for p, _, _ in poses[: len(actors)])
    ends = np.cumsum([p.shape[1] for p, _, _ in poses[: len(actors)]])
    kinds = [k for a in actors for k in (*["capsule"] * len(a.body.radius_m), "ellipsoid")]
    kinds += ["box" for p in props for _ in p.boxes]
    model = mujoco.MjModel.from_xml_string(_xml(room, camera, kinds))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    first = model.ngeom - len(kinds)
    depth = np.empty((frames, HEIGHT, WIDTH), np.uint16)
    pixels = np.empty((frames, len(actors)), np.int32)
    with _renderer(model) as draw:
        data.geom_xpos[first : first + own] = _AWAY
        data.geom_xpos[first + own :] = position[0, own:]
        data.geom_xmat[first + own :] = axes[0, own:].reshape(-1, 9)
        model.geom_size[first:] = size[0]
        background = _depth_mm(draw(data))
        for n in range(frames):
            data.geom_xpos[first:] = position[n]
            data.geom_xmat[first:] = axes[n].reshape(-1, 9)
            model.geom_size[first:] = size[n]
            depth[n] = _depth_mm(draw(data))
            if len(poses) == 1:
                pixels[n] = (depth[n] != background).sum()
            elif n % SLOW_EVERY:
                pixels[n] = pixels[n - 1]
            else:
                ids = draw(data, ids=True) - first
                pixels[n] = np.histogram(ids, np.concatenate([[0], ends]) - 0.5)[0]
    return Shot(depth, background, pixels)


@contextmanager
def _renderer(model: Any) -> Iterator[Any]:
    renderer = mujoco.Renderer(model, HEIGHT, WIDTH)

    def draw(data: Any, *, ids: bool = False) -> NDArray[Any]:
        if ids:
            renderer.enable_segmentation_rendering()
        else:
            renderer.enable_depth_rendering()
        renderer.update_scene(data, camera="eye")
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
        ):
            renderer.scene.flags[flag] = 0
        image = renderer.render()
        renderer.disable_segmentation_rendering()
        renderer.disable_depth_rendering()
        return np.asarray(image[..., 0] if ids else image)

    try:
        yield draw
    finally:
        renderer.close()


def _depth_mm(depth_m: NDArray[np.float32]) -> Depth:
    return np.where(depth_m < FAR_M, np.rint(depth_m * 1000), 0).astype(np.uint16)


def _actor_poses(actor: Actor) -> tuple[Floats, Floats, Floats]:
    """Return positions (n, geoms, 3), axes (n, geoms, 3, 3) and sizes (n, geoms, 3) of capsules and head."""
    a, b = actor.body.capsules(actor.track)
    along = b - a
    length = np.linalg.norm(along, axis=-1)
    z = unit(along)
    z[length < 1e-6] = [0, 0, 1]
    x = unit(np.cross(z, np.where(np.abs(z[..., 2:]) < 0.9, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])))
    axes = np.stack([x, np.cross(z, x), z], axis=-1)
    size = np.zeros((*length.shape, 3))
    size[..., 0], size[..., 1] = actor.body.radius_m, length / 2
    head = actor.track[:, 4][:, None]
    position = np.concatenate([(a + b) / 2, head], axis=1)
    position[~actor.present] = _AWAY
    axes = np.concatenate([axes, actor.body.head_axes(actor.track)[:, None]], axis=1)
    size = np.concatenate([size, np.broadcast_to(actor.body.head_m, (len(head), 1, 3))], axis=1)
    return position, axes, size


def _prop_poses(prop: Prop) -> tuple[Floats, Floats, Floats]:
    n, k = len(prop.place), len(prop.boxes)
    yaw = prop.place[:, 3]
    c, s, o = np.cos(yaw), np.sin(yaw), np.zeros(n)
    turn = np.stack([np.stack([c, -s, o], -1), np.stack([s, c, o], -1), np.stack([o, o, o + 1], -1)], axis=1)
    centres = np.array([b.centre_m for b in prop.boxes])
    position = prop.place[:, None, :3] + np.einsum("nij,kj->nki", turn, centres)
    size = np.broadcast_to(np.array([b.half_m for b in prop.boxes]), (n, k, 3))
    return position, np.repeat(turn[:, None], k, axis=1), size


def _xml(room: Room, camera: Camera, kinds: list[str]) -> str:
    def numbers(*values: float) -> str:
        return " ".join(f"{v:.6f}" for v in values)

    boxes = "".join(
        f'<geom type="box" pos="{numbers(*b.centre_m)}" size="{numbers(*b.half_m)}" euler="0 0 {b.yaw:.6f}"/>'
        for b in room.boxes
    )
    actors = "".join(f'<geom type="{kind}" size=".1 .1 .1"/>' for kind in kinds)
    k = camera.intrinsics
    fovy = np.degrees(2 * np.arctan(HEIGHT / 2 / k.fy))
    axes = numbers(*camera.axes[0], *-camera.axes[1])
    return f"""<mujoco><compiler angle="radian"/><statistic extent="1" center="0 0 0"/>
    <visual><map znear="0.05" zfar="20"/>
    <quality offsamples="0" shadowsize="0" numslices="14" numstacks="8"/></visual>
    <worldbody><camera name="eye" pos="{numbers(*camera.position_m)}" xyaxes="{axes}" fovy="{fovy:.6f}"/>
    {boxes}{actors}</worldbody></mujoco>"""
