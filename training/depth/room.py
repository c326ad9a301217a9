"""Furnished rooms and the cameras in them. Room axes: x and y along the walls from one corner, z up, metres."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge.depth.frame import Intrinsics, Plane
from training.depth.body import HEAD, PELVIS, Floats, J, Track

WIDTH, HEIGHT = 320, 240  # pixels
APART_M = 0.3  # between furniture and the places a person passes


@dataclass(frozen=True, slots=True)
class Box:
    """A box, turned about z only."""

    centre_m: tuple[float, float, float]
    half_m: tuple[float, float, float]
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class Furniture:
    """One piece: its boxes around its own middle on the floor, and where it stands."""

    kind: str
    boxes: tuple[Box, ...]
    half_m: tuple[float, float]  # its footprint
    surface_m: float  # the height of what one sits or lies on
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    @property
    def placed(self) -> list[Box]:
        """Its boxes in room axes."""
        return [
            Box((*self.in_room(np.array(b.centre_m[:2])), b.centre_m[2]), b.half_m, b.yaw + self.yaw)
            for b in self.boxes
        ]

    def in_room(self, xy: Floats) -> tuple[float, float]:
        """Return a point given in its own axes in those of the room."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return float(self.x + c * xy[0] - s * xy[1]), float(self.y + s * xy[0] + c * xy[1])

    def local(self, points: Floats) -> Floats:
        """Return room points (..., 2 or 3) as its own x and y, shape (..., 2)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray((points[..., :2] - [self.x, self.y]) @ np.array([[c, -s], [s, c]]), np.float64)

    def covers(self, points: Floats, margin_m: float = 0.0) -> np.ndarray:
        """Return which points are over its footprint, or as near as a margin."""
        return np.asarray((np.abs(self.local(points)) < np.array(self.half_m) + margin_m).all(axis=-1))

    @property
    def corners_m(self) -> Floats:
        """The corners of its surface, shape (4, 3), in room axes."""
        w, d = self.half_m
        return np.array(
            [(*self.in_room(np.array(xy)), self.surface_m) for xy in ((w, d), (-w, d), (-w, -d), (w, -d))]
        )


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera in a room."""

    position_m: tuple[float, float, float]
    axes: Floats  # rows: right, down, forward, in room axes
    hfov_deg: float
    tilt_deg: float
    roll_deg: float
    ceiling: bool

    @property
    def intrinsics(self) -> Intrinsics:
        """Of its images; a pixel's number is its middle."""
        f = WIDTH / 2 / np.tan(np.radians(self.hfov_deg) / 2)
        return Intrinsics(WIDTH, HEIGHT, float(f), float(f), (WIDTH - 1) / 2, (HEIGHT - 1) / 2)

    @property
    def floor(self) -> Plane:
        """The floor in camera axes."""
        a, b, c = (float(v) for v in self.axes[:, 2])
        return Plane(a, b, c, float(self.position_m[2]))

    def seen_from(self, points: Floats) -> Floats:
        """Return points (..., 3) of the room in camera axes."""
        return np.asarray((points - np.array(self.position_m)) @ self.axes.T)

    def sees(self, points: Floats, margin: float = 0.03) -> np.ndarray:
        """Return which points fall into the image, a part of its width from the edge, and near enough."""
        k, p = self.intrinsics, self.seen_from(points)
        z = np.maximum(p[..., 2], 1e-6)
        u, v = k.fx * p[..., 0] / z + k.cx, k.fy * p[..., 1] / z + k.cy
        m = margin * WIDTH
        inside = (u > m) & (u < WIDTH - m) & (v > m) & (v < HEIGHT - m)
        return np.asarray(inside & (p[..., 2] > 0.4) & (p[..., 2] < 7.5))


@dataclass(frozen=True, slots=True)
class Room:
    """A box of a room."""

    width_m: float  # along x
    length_m: float  # along y
    height_m: float
    furniture: tuple[Furniture, ...] = ()

    @property
    def boxes(self) -> list[Box]:
        """Walls, floor and furniture. No ceiling: no camera here looks up so far that it matters."""
        w, d, h = self.width_m / 2, self.length_m / 2, self.height_m / 2
        t = 0.05
        walls = [
            Box((w, d, -t), (w + 1, d + 1, t)),
            Box((w, d, 2 * h + t), (w + 1, d + 1, t)),
            Box((-t, d, h), (t, d + 0.1, h)),
            Box((2 * w + t, d, h), (t, d + 0.1, h)),
            Box((w, -t, h), (w + 0.1, t, h)),
            Box((w, 2 * d + t, h), (w + 0.1, t, h)),
        ]
        return walls + [box for piece in self.furniture for box in piece.placed]

    def holds(self, points: Floats, margin_m: float = 0.2) -> bool:
        """Return whether all points are between the walls."""
        low, high = points[..., :2].min(axis=(0, 1)), points[..., :2].max(axis=(0, 1))
        return bool((low > margin_m).all() and (high < [self.width_m - margin_m, self.length_m - margin_m]).all())

    def support(self, points: Floats) -> Floats:
        """Return the height of what bears each point: a bed, a seat or the floor."""
        height = np.zeros(points.shape[:-1])
        for piece in self.furniture:
            if piece.kind in {"bed", "chair"}:
                # Under a bed is floor: only what is near or above the surface is borne by it.
                over = piece.covers(points) & (points[..., 2] > piece.surface_m - 0.2)
                height = np.where(over, piece.surface_m, height)
        return height


def empty_room(rng: np.random.Generator) -> Room:
    """Return a room of 3 x 3 to 5 x 6 m."""
    return Room(float(rng.uniform(3, 5)), float(rng.uniform(3, 6)), float(rng.uniform(2.35, 3.0)))


def make(kind: str, rng: np.random.Generator) -> Furniture:
    """Return a piece of furniture of random size, its back towards its own +y, at the origin."""
    u = rng.uniform
    if kind == "bed":
        w, d, top = u(0.45, 0.6), u(0.95, 1.05), u(0.42, 0.62)
        boxes = [
            Box((0, 0, top - 0.12), (w, d, 0.12)),  # mattress and blanket
            Box((0, d - 0.2, top + 0.04), (w * 0.7, 0.17, 0.05)),  # pillow
            Box((0, d, top / 2 + u(0.1, 0.25)), (w, 0.02, top / 2 + u(0.1, 0.2))),  # head board
        ]
        boxes += [
            Box((x * (w - 0.05), y * (d - 0.05), top / 4), (0.03, 0.03, top / 4)) for x in (-1, 1) for y in (-1, 1)
        ]
        return Furniture(kind, tuple(boxes), (w, d), top)
    if kind == "chair":
        w, top = u(0.21, 0.32), u(0.42, 0.5)
        boxes = [Box((0, 0, top - 0.03), (w, 0.23, 0.03)), Box((0, 0.23, top + 0.25), (w, 0.02, 0.27))]
        boxes += [Box((x * (w - 0.03), y * 0.2, top / 2), (0.02, 0.02, top / 2)) for x in (-1, 1) for y in (-1, 1)]
        if rng.random() < 0.4:  # an armchair
            boxes += [Box((x * w, 0, top / 2 + 0.1), (0.05, 0.23, top / 2 + 0.1)) for x in (-1, 1)]
        return Furniture(kind, tuple(boxes), (w, 0.25), top)
    if kind == "table":
        w, d, top = u(0.3, 0.7), u(0.25, 0.45), u(0.6, 0.76)
        boxes = [Box((0, 0, top), (w, d, 0.02))]
        boxes += [
            Box((x * (w - 0.04), y * (d - 0.04), top / 2), (0.025, 0.025, top / 2))
            for x in (-1, 1)
            for y in (-1, 1)
        ]
        return Furniture(kind, tuple(boxes), (w, d), top)
    w, d, h = {
        "wardrobe": (u(0.4, 0.9), u(0.25, 0.32), u(1.7, 2.1)),
        "cabinet": (u(0.2, 0.4), u(0.18, 0.25), u(0.45, 0.9)),
    }[kind]
    return Furniture(kind, (Box((0, 0, h / 2), (w, d, h / 2)),), (w, d), h)


def against_wall(piece: Furniture, room: Room, rng: np.random.Generator) -> Furniture:
    """Return a piece with its back to a wall."""
    wall = int(rng.integers(4))
    w, d = piece.half_m
    sideways = piece.kind == "bed" and rng.random() < 0.4  # along the wall
    yaw = wall * np.pi / 2 + (np.pi / 2 if sideways else 0)
    off = (w if sideways else d) + rng.uniform(0.01, 0.06)
    along = d if sideways else w
    span = room.width_m if wall % 2 == 0 else room.length_m
    s = rng.uniform(along + 0.05, max(along + 0.06, span - along - 0.05))
    x, y = [(s, room.length_m - off), (off, s), (s, off), (room.width_m - off, s)][wall]
    return replace(piece, x=float(x), y=float(y), yaw=float(yaw + rng.normal(0, 0.02)))


def clash(a: Furniture, b: Furniture) -> bool:
    """Return whether the circles and corners of two pieces say they overlap."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)), -1).reshape(-1, 2) * a.half_m
    points = np.array([a.in_room(xy) for xy in grid])
    return bool(b.covers(points, 0.05).any())


def furnish(
    room: Room, kinds: list[str], tracks: list[Track], camera: Camera | None, rng: np.random.Generator
) -> Room:
    """Add furniture at the walls where nobody passes and it hides nothing; what does not fit is left out."""
    passed = np.concatenate([t[::5].reshape(-1, 3) for t in tracks]) if tracks else np.zeros((0, 3))
    for kind in kinds:
        for _ in range(40):
            piece = against_wall(make(kind, rng), room, rng)
            if piece.covers(passed, APART_M if kind != "bed" else 0.15).any():
                continue
            if any(clash(piece, other) or clash(other, piece) for other in room.furniture):
                continue
            if camera and piece.covers(np.array(camera.position_m), 0.4):
                continue
            if camera and len(passed) and is_before(piece, camera, passed):
                continue
            room = replace(room, furniture=(*room.furniture, piece))
            break
    return room


def is_before(piece: Furniture, camera: Camera, points: Floats) -> bool:
    """Return whether a piece stands before a quarter of some points, shape (n, 3)."""
    eye = np.array(camera.position_m)
    part = np.linspace(0.1, 0.95, 12)[:, None, None]
    on_way = eye + part * (points[:: max(1, len(points) // 300)] - eye)
    # Who lies in bed is above it; what little of a bed stands higher hides nobody.
    top = piece.surface_m if piece.kind == "bed" else max(b.centre_m[2] + b.half_m[2] for b in piece.boxes)
    hidden = (piece.covers(on_way) & (on_way[..., 2] < top)).any(axis=0)
    return bool(hidden.mean() > 0.25)


def aim(eye: Floats, yaw: float, tilt_deg: float, roll_deg: float, hfov_deg: float, *, ceiling: bool) -> Camera:
    """Return a camera that looks along a heading (radians from x), tilted down."""
    tilt, roll = np.radians(tilt_deg), np.radians(roll_deg)
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0])
    forward = np.cos(tilt) * ahead - np.sin(tilt) * np.array([0, 0, 1])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    down = np.cross(forward, right)
    turned = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    axes = np.stack([*turned, forward])
    return Camera((float(eye[0]), float(eye[1]), float(eye[2])), axes, hfov_deg, tilt_deg, roll_deg, ceiling)


def some_camera(room: Room, track: Track, rng: np.random.Generator, *, ceiling: bool) -> Camera:
    """Return a camera as somebody might mount it for the place where a person is."""
    u = rng.uniform
    roll, hfov = float(u(-5, 5)), float(u(58, 90))
    spot = track[rng.integers(len(track)), PELVIS, :2]
    if ceiling:
        eye = np.array([*np.clip(spot + rng.normal(0, 0.4, 2), 0.4, [room.width_m - 0.4, room.length_m - 0.4]), 0])
        eye[2] = min(u(2.3, 2.9), room.height_m - 0.05)
        return aim(eye, float(u(0, 2 * np.pi)), float(u(80, 90)), roll, hfov, ceiling=True)
    s, wall = u(0.08, 0.92), int(rng.integers(4))
    edge = [(s, 0), (1, s), (s, 1), (0, s)][wall]
    eye = np.clip(
        np.array(edge) * [room.width_m, room.length_m], 0.06, [room.width_m - 0.06, room.length_m - 0.06]
    )
    eye = np.array([*eye, u(1.0, min(2.6, room.height_m - 0.1))])
    to = np.array([*spot, u(0.3, 0.9)]) - eye
    tilt = np.degrees(np.arctan2(-to[2], np.hypot(*to[:2]))) + rng.normal(0, 4)
    yaw = np.arctan2(to[1], to[0]) + rng.normal(0, 0.12)
    return aim(eye, float(yaw), float(np.clip(tilt, 0, 50)), roll, hfov, ceiling=False)


_CORE = [PELVIS, HEAD, J["knee_l"], J["knee_r"], J["ankle_l"], J["ankle_r"]]


def in_view(camera: Camera, track: Track) -> float:
    """Return how much of a person the camera has in view, at worst of those frames that matter."""
    seen = camera.sees(track[::4][:, _CORE])
    low = track[::4, PELVIS, 2] < 0.5
    most = float(seen[:, :2].all(axis=1).mean()) if not camera.ceiling else 0.8
    whole = float(seen.mean())
    lying = float(seen[low].mean()) if low.any() else 1.0
    return min(most, whole + 0.1, lying)


def turned(track: Track, yaw: float, xy: Floats) -> Track:
    """Return a track turned about the vertical and moved."""
    c, s = np.cos(yaw), np.sin(yaw)
    out = track.copy()
    out[..., :2] = track[..., :2] @ np.array([[c, s], [-s, c]]) + xy
    return out
