"""Make depth clips with truth, each from one seed, and write one as a recorded depth folder."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.depth.frame import Depth
from training.datasets import data_root
from training.depth import limp, scripts, skeletons
from training.depth.body import FPS, PELVIS, Floats, J, dressed
from training.depth.render import Actor, Prop, shoot
from training.depth.room import (
    Box,
    Camera,
    Furniture,
    Room,
    empty_room,
    furnish,
    in_view,
    is_before,
    some_camera,
    turned,
)
from training.depth.scripts import Play
from training.depth.sensor import KINDS, degrade

LOW_M, HEAD_LOW_M = 0.35, 0.55  # pelvis and head of who is on the floor
CEILING_PART = 0.15  # of the clips
LONGEST_S = 40.0
IN_VIEW_PIXELS = 50  # of who counts as one of the people in view


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a clip shows, before it is rendered."""

    room: Room
    camera: Camera
    actors: list[Actor]  # the main person first
    props: list[Prop]
    person: str
    activity: str
    trial: str
    is_uncontrolled: bool  # how the person comes down, if they do
    source: str
    seed: int
    accel_g: Floats | None = None  # as in `Play`


def truth(scene: Scene) -> dict[str, NDArray[Any]]:
    """Return per frame what is true of the main person."""
    main = scene.actors[0]
    pelvis_m, head_m = main.track[:, PELVIS, 2], main.body.top_m(main.track)
    beds = [piece for piece in scene.room.furniture if piece.kind == "bed"]
    over = [bed.covers(main.track[:, PELVIS]) & (pelvis_m > bed.surface_m - 0.1) for bed in beds]
    in_bed = np.any([np.zeros(len(pelvis_m), bool), *over], axis=0)
    on_floor = (pelvis_m < LOW_M) & (head_m < HEAD_LOW_M) & ~in_bed & main.present
    return {
        "time_s": np.arange(len(pelvis_m)) / FPS,
        "pelvis_m": pelvis_m.astype(np.float32),
        "head_m": head_m.astype(np.float32),
        "on_floor": on_floor,
    }


def meta(scene: Scene, facts: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what is true of a clip as a whole."""
    low = np.flatnonzero((facts["pelvis_m"] < LOW_M) & scene.actors[0].present)
    fell = scene.is_uncontrolled and bool(len(low))
    camera, beds = scene.camera, [piece for piece in scene.room.furniture if piece.kind == "bed"]
    corners = [camera.seen_from(bed.corners_m) for bed in beds]
    return {
        "source": scene.source,
        "person": scene.person,
        "activity": scene.activity,
        "trial": scene.trial,
        "label": "fall" if fell else "adl",
        "fall_s": round(float(facts["time_s"][low[0]]), 3) if fell else None,
        "camera": {
            "height_m": camera.position_m[2],
            "tilt_deg": camera.tilt_deg,
            "roll_deg": camera.roll_deg,
            "hfov_deg": camera.hfov_deg,
            "ceiling": camera.ceiling,
        },
        "intrinsics": asdict(camera.intrinsics),
        "floor": list(astuple(camera.floor)),
        "zones": [
            {"kind": "bed", "polygon_m": corner[:, [0, 2]].round(4).tolist(), "height_m": bed.surface_m}
            for corner, bed in zip(corners, beds, strict=True)
        ],
        "beds_m": [corner.round(4).tolist() for corner in corners],  # the same corners with their y
        "seed": scene.seed,
        "frames": len(facts["time_s"]),
    }


def make_clip(scene: Scene) -> dict[str, Any]:
    """Render a scene; the result is what `np.savez_compressed` writes."""
    facts = truth(scene)
    shot = shoot(scene.room, scene.camera, scene.actors, scene.props)
    about = json.dumps(meta(scene, facts))
    felt = (
        {}
        if scene.accel_g is None
        else {"accel_waist_g": scene.accel_g[:, :3], "accel_wrist_g": scene.accel_g[:, 3:]}
    )
    return {
        **facts,
        **{
            name: g[: round(len(facts["time_s"]) / FPS * limp.ACCEL_HZ)].astype(np.float32)
            for name, g in felt.items()
        },
        "people": (shot.pixels >= IN_VIEW_PIXELS).sum(axis=1, dtype=np.int32),
        "pixels": shot.pixels[:, 0],
        "depth_mm": shot.depth_mm,
        "background_mm": shot.background_mm,
        "meta": about,
    }


# -- replayed --------------------------------------------------------------------------------------

_SEATED_M = (0.42, 0.68)  # the pelvis of who sits on a chair
_OTHERS = ["bed", "wardrobe", "table", "cabinet", "chair", "chair"]


def replayed(name: str, seed: int, root: Path) -> Scene:
    """Return a recorded trial in a room of its own, before a camera that sees its whole way."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    trial = skeletons.read_skeletons(root)[name]
    track = trial.track
    if trial.is_fall and rng.random() < 0.5:
        track = skeletons.lying_on(track, rng.uniform(3, 25), rng)
    track = track[: round(LONGEST_S * FPS)]
    ceiling = bool(rng.random() < CEILING_PART)
    best: tuple[float, Room, Camera, Floats] | None = None
    for _ in range(600):
        room = empty_room(rng)
        at = rng.uniform(0.3, 0.7, 2) * [room.width_m, room.length_m]
        placed = turned(track, rng.uniform(0, 2 * np.pi), at)
        if not room.holds(placed):
            continue
        camera = some_camera(room, placed, rng, ceiling=ceiling)
        score = in_view(camera, placed)
        if best is None or score > best[0]:
            best = score, room, camera, placed
        if score > 0.97:
            break
    if best is None:
        raise ValueError(f"{name} fits no room")
    _, room, camera, track = best
    hips = track[:, J["hip_l"]] - track[:, J["hip_r"]]
    if _SEATED_M[0] < np.median(track[:, PELVIS, 2]) < _SEATED_M[1] and not trial.is_fall:
        room = replace(room, furniture=(_seat(track, hips),))
    kinds = [str(k) for k in rng.permutation(_OTHERS)[: rng.integers(2, 6)]]
    if rng.random() < 0.7 and "bed" not in kinds:
        kinds.insert(0, "bed")
    room = furnish(room, kinds, [track], camera, rng)
    actor = Actor(dressed(rng), track, np.ones(len(track), bool))
    return Scene(
        room,
        camera,
        [actor],
        [],
        trial.person,
        trial.activity,
        name,
        is_uncontrolled=trial.is_fall,
        source="replayed",
        seed=seed,
    )


def _seat(track: Floats, hips: Floats) -> Furniture:
    """Return a stool under who was recorded sitting."""
    x, y, z = np.median(track[:, PELVIS], axis=0)
    left = np.median(hips, axis=0)
    top = float(z) - 0.12
    boxes = Box((0, 0, top - 0.03), (0.22, 0.2, 0.03)), Box((0, 0, top / 2), (0.05, 0.05, top / 2))
    return Furniture("stool", boxes, (0.22, 0.2), top, float(x), float(y), float(np.arctan2(left[1], left[0])))


# -- synthetic -------------------------------------------------------------------------------------

SCRIPTS: dict[str, tuple[int, Callable[[np.random.Generator], Play]]] = {  # with how many of 300
    "bed-lie": (25, scripts.bed_lie),
    "bed-sit": (10, scripts.bed_sit),
    "exercise": (20, scripts.exercise),
    "kneel": (10, scripts.kneel),
    "crawl": (10, scripts.crawl),
    "two-walk": (15, scripts.two_walk),
    "carer": (15, scripts.carer),
    "bag": (17, scripts.bag),
    "move-chair": (8, scripts.move_chair),
    "walk": (20, scripts.walk),
    "chair-sit": (20, scripts.chair_sit),
    "pick-up": (20, scripts.pick_up),
    "slow-slide": (30, scripts.slide),
    **{how: (20, partial(limp.fall, how)) for how in ("trip", "slip", "faint", "slump")},
}


def synthetic(activity: str, seed: int) -> Scene:
    """Return a made-up person who does one thing, before a camera that sees it."""
    rng = np.random.default_rng([seed, zlib.crc32(activity.encode())])
    ceiling = bool(rng.random() < CEILING_PART)
    best: tuple[float, Play, Camera] | None = None
    for _ in range(12):
        play = SCRIPTS[activity][1](rng)
        play.tracks = [track[: round(LONGEST_S * FPS)] for track in play.tracks]
        if not all(play.room.holds(track, 0.02) for track in play.tracks):
            continue
        for _ in range(60):
            camera = some_camera(play.room, play.tracks[0], rng, ceiling=ceiling)
            beside = any(piece.covers(np.array(camera.position_m), 0.3) for piece in play.room.furniture)
            hidden = any(is_before(piece, camera, play.tracks[0][-1]) for piece in play.room.furniture)
            score = in_view(camera, play.tracks[0]) - 0.2 * (beside + hidden)
            if best is None or score > best[0]:
                best = score, play, camera
        if best is not None and best[0] > 0.93:
            break
    if best is None:
        raise ValueError(f"{activity} with seed {seed} fits no room")
    _, play, camera = best
    kinds = [str(k) for k in rng.permutation(_OTHERS[1:])[: rng.integers(1, 5)]]
    if play.bed is None and rng.random() < 0.4:
        kinds.insert(0, "bed")
    props = [np.repeat(prop.place[:, None, :3], 2, axis=1) for prop in play.props]
    room = furnish(play.room, kinds, [*play.tracks, *props], camera, rng)
    actors = [Actor(dressed(rng), track, np.ones(len(track), bool)) for track in play.tracks]
    return Scene(
        room,
        camera,
        actors,
        play.props,
        f"made-up-{seed}",
        activity,
        f"{activity}-{seed}",
        is_uncontrolled=play.is_uncontrolled,
        source="synthetic",
        seed=seed,
        accel_g=play.accel_g,
    )


# -- files -----------------------------------------------------------------------------------------


def write_clip(path: Path, scene: Callable[[], Scene]) -> str:
    """Make one clip unless it is there, whole or not at all."""
    if not path.exists():
        part = path.with_suffix(".part")
        # As np.savez_compressed writes it, at the level that takes a third of the time.
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, value in make_clip(scene()).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)
        part.rename(path)
    return path.name


def jobs(options: argparse.Namespace) -> Iterator[tuple[Path, Callable[[], Scene]]]:
    """Yield files and what they show, mixed so that a part of them is a fair sample."""
    rng = np.random.default_rng(options.seed)
    if options.synthetic:
        many = {kind: round(options.synthetic * often / 300) for kind, (often, _) in SCRIPTS.items()}
        ranks = sorted(((n + rng.random()) / count, kind, n) for kind, count in many.items() for n in range(count))
        for _, kind, n in ranks:
            yield (
                options.out / f"{kind}-s{options.seed}-{n:03d}.npz",
                partial(synthetic, kind, options.seed * 100_000 + n),
            )
    if options.replayed:
        root = data_root()
        trials = skeletons.read_skeletons(root)
        # A few filed as falls never come down, or not in what is left of them.
        names = sorted(n for n, t in trials.items() if not t.is_fall or t.track[:, PELVIS, 2].min() < LOW_M)
        for view in range(options.replayed):
            for name in rng.permutation(names):
                seed = options.seed * 1000 + view
                yield options.out / f"{name}-v{view}-s{options.seed}.npz", partial(replayed, str(name), seed, root)


def _do(job: tuple[Path, Callable[[], Scene]]) -> str:
    return write_clip(*job)


def make_clips(argv: list[str]) -> None:
    """Make depth clips with truth: recorded skeletons in furnished rooms, and made-up people."""
    parser = argparse.ArgumentParser(prog="python -m training depth-clips", description=make_clips.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips; those in it are kept")
    parser.add_argument("--replayed", type=int, default=0, metavar="VIEWS", help="cameras per recorded trial")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="made-up clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    todo = list(jobs(options))
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for _ in tqdm(pool.imap_unordered(_do, todo), total=len(todo), unit="clip"):
            pass


def make_folder(argv: list[str]) -> None:
    """Write one clip as a recorded depth folder, as a sensor would have seen it, and what wearables felt."""
    parser = argparse.ArgumentParser(prog="python -m training depth-folder", description=make_folder.__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=[*KINDS, "clean"], default=KINDS[0], help="of sensor")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    with np.load(options.clip) as clip:
        depth_mm: Depth = clip["depth_mm"]
        about, time_s = json.loads(str(clip["meta"])), clip["time_s"]
        worn_g = {name: clip[f"accel_{name}_g"] for name in ("waist", "wrist") if f"accel_{name}_g" in clip}
    if options.kind != "clean":
        depth_mm = degrade(depth_mm, np.random.default_rng(options.seed), options.kind)
    options.folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(depth_mm):
        cv2.imwrite(str(options.folder / f"{n:06d}.png"), frame)
    rows = [f"{n},{t:.4f}" for n, t in enumerate(time_s)]
    (options.folder / "timestamps.csv").write_text("\n".join(["frame,time_s", *rows, ""]))
    for name, accel_g in worn_g.items():
        lines = [f"{n / limp.ACCEL_HZ:.2f},{x:.4f},{y:.4f},{z:.4f}" for n, (x, y, z) in enumerate(accel_g)]
        (options.folder / f"{name}.csv").write_text("\n".join(["time_s,x_g,y_g,z_g", *lines, ""]))
    calib = {**about["intrinsics"], "fps": FPS, "floor": about["floor"], "zones": about["zones"]}
    (options.folder / "calib.json").write_text(json.dumps(calib, indent=1))
