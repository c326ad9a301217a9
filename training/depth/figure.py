"""A made-up person: joint angles in, joint positions out; and motions put together from poses.

Angles are radians, 0 upright with straight limbs; flexion is positive. A figure's own axes are x to its front,
y to its left, z to its head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from training.depth.body import CLEARANCE_M, FPS, JOINTS, Floats, J, Support, Track, floor_only, relax, smooth

_LIMB_ANGLES = ("sh", "ab", "el", "hip", "hab", "kn", "an")
ANGLES = ("spine", "side", "twist", "nod", *(f"{name}_{side}" for side in "lr" for name in _LIMB_ANGLES))
A = {name: i for i, name in enumerate(ANGLES)}
# Where each joint hangs: parent joint, whose turn moves it, offset in body heights (Winter 1990, rounded).
SPINE = {"navel": 0.10, "chest": 0.10, "neck": 0.09, "head": 0.088}
ARM = {"aside": 0.105, "down": 0.015, "upper": 0.186, "fore": 0.146, "hand": 0.085}
LEG = {"aside": 0.05, "down": 0.02, "thigh": 0.245, "shank": 0.246, "ahead": 0.095, "sole": 0.028}

Pose = Mapping[str, float]


def both(**angles: float) -> dict[str, float]:
    """Return a pose with the same angles left and right."""
    return {f"{name}_{side}": value for name, value in angles.items() for side in "lr"}


STAND = both(el=0.2, ab=0.08)
SIT = {"spine": 0.15, **both(hip=1.45, kn=1.45, sh=0.35, el=0.7, ab=0.1)}
KNEEL = both(kn=1.6, an=1.1, sh=0.3, el=0.5, ab=0.1)
FOURS = both(hip=1.45, kn=1.5, an=1.1, sh=1.5, el=0.1, ab=0.1)
CURLED = {"spine": 0.3, **both(hip=0.9, kn=1.2, sh=0.6, el=1.0)}
FLAT = both(ab=0.25, el=0.3, hab=0.06, an=0.5)
BENT = {"spine": 0.9, **both(hip=0.75, kn=0.35, sh=1.5, el=0.1)}
SQUAT = {"spine": 0.5, **both(hip=2.0, kn=2.2, an=-0.4, sh=1.2, el=0.3)}


def joints(angles: Floats, turn: Rotation, height_m: float) -> Track:
    """Return joint positions around a pelvis at the origin, shape (frames, joints, 3)."""

    def about(axis: str, values: Floats) -> Rotation:
        return Rotation.from_rotvec(values[:, None] * [axis == "x", axis == "y", axis == "z"])

    def at(name: str) -> Floats:
        return angles[:, A[name]]

    out = np.zeros((len(angles), len(JOINTS), 3))

    def hang(name: str, parent: str, rotation: Rotation, offset: tuple[float, float, float]) -> None:
        out[:, J[name]] = out[:, J[parent]] + rotation.apply(np.array(offset) * height_m)

    trunk = turn * about("z", at("twist")) * about("x", at("side")) * about("y", at("spine"))
    hang("navel", "pelvis", turn, (0, 0, SPINE["navel"]))
    hang("chest", "navel", trunk, (0, 0, SPINE["chest"]))
    hang("neck", "chest", trunk, (0, 0, SPINE["neck"]))
    hang("head", "neck", trunk * about("y", at("nod")), (0.01, 0, SPINE["head"]))
    for s, sign in (("l", 1), ("r", -1)):
        arm = trunk * about("y", -at(f"sh_{s}")) * about("x", sign * at(f"ab_{s}"))
        fore = arm * about("y", -at(f"el_{s}"))
        hang(f"shoulder_{s}", "neck", trunk, (0, sign * ARM["aside"], -ARM["down"]))
        hang(f"elbow_{s}", f"shoulder_{s}", arm, (0, 0, -ARM["upper"]))
        hang(f"wrist_{s}", f"elbow_{s}", fore, (0, 0, -ARM["fore"]))
        hang(f"hand_{s}", f"wrist_{s}", fore, (0, 0, -ARM["hand"]))
        thigh = turn * about("y", -at(f"hip_{s}")) * about("x", sign * at(f"hab_{s}"))
        shank = thigh * about("y", at(f"kn_{s}"))
        hang(f"hip_{s}", "pelvis", turn, (0, sign * LEG["aside"], -LEG["down"]))
        hang(f"knee_{s}", f"hip_{s}", thigh, (0, 0, -LEG["thigh"]))
        hang(f"ankle_{s}", f"knee_{s}", shank, (0, 0, -LEG["shank"]))
        hang(f"foot_{s}", f"ankle_{s}", shank * about("y", at(f"an_{s}")), (LEG["ahead"], 0, -LEG["sole"]))
    return out


class Motion:
    """A person who does one thing after another; `track` is what came of it."""

    def __init__(
        self, xy: tuple[float, float], yaw: float, rng: np.random.Generator, *, slow: float = 1.0
    ) -> None:
        self.rng, self.slow = rng, slow
        self.height_m = float(rng.uniform(1.42, 1.72))
        self.yaw, self.tip, self.xy, self.on = yaw, (0.0, 0.0), np.array(xy, float), 0.0
        self.pose = self._angles(STAND)
        self.frames: list[tuple[Floats, Rotation, Floats, float]] = []
        self.marks: dict[str, int] = {}

    @staticmethod
    def _angles(pose: Pose) -> Floats:
        out = np.zeros(len(ANGLES))
        for name, value in pose.items():
            out[A[name]] = value
        return out

    def _turn(self) -> Rotation:
        return Rotation.from_euler("ZYX", [self.yaw, *self.tip])

    def mark(self, name: str) -> None:
        """Remember this moment."""
        self.marks[name] = len(self.frames)

    def to(
        self,
        pose: Pose | None,
        seconds: float,
        *,
        tip: tuple[float, float] | None = None,
        yaw: float | None = None,
        xy: tuple[float, float] | Floats | None = None,
        on: float | None = None,
    ) -> Motion:
        """Move into a pose; ``tip`` leans the pelvis to the front and to the right, ``on`` is 1 on furniture."""
        before = self.pose, self._turn(), self.xy, self.on
        self.pose = self.pose if pose is None else self._angles(pose) + self.rng.normal(0, 0.06, len(ANGLES))
        self.tip, self.yaw = tip or self.tip, self.yaw if yaw is None else yaw
        self.xy = self.xy if xy is None else np.array(xy, float)
        self.on = self.on if on is None else on
        n = max(2, round(seconds * self.slow * FPS))
        s = np.linspace(0, 1, n + 1)[1:]
        s = s**3 * (10 - 15 * s + 6 * s**2)  # least jerk
        turns = Slerp([0, 1], Rotation.concatenate([before[1], self._turn()]))(s)
        for i, part in enumerate(s):
            mix = [(1 - part) * a + part * b for a, b in ((before[0], self.pose), (before[2], self.xy))]
            self.frames.append((mix[0], turns[i], mix[1], (1 - part) * before[3] + part * self.on))
        return self

    def hold(self, seconds: float) -> Motion:
        """Stay, as still as people do."""
        n = max(1, round(seconds * FPS))
        self.frames += [(self.pose, self._turn(), self.xy, self.on)] * n
        return self

    def face(self, yaw: float) -> Motion:
        """Turn on the spot."""
        yaw = self.yaw + (yaw - self.yaw + np.pi) % (2 * np.pi) - np.pi
        return self.to(None, 0.3 + abs(yaw - self.yaw) / 1.5, yaw=yaw)

    def walk(
        self, xy: tuple[float, float] | Floats, *, speed_mps: float = 0.8, arms: Pose | None = None
    ) -> Motion:
        """Turn to a place and walk there."""
        way = np.array(xy, float) - self.xy
        far = float(np.linalg.norm(way))
        if far < 0.05:
            return self
        self.face(float(np.arctan2(way[1], way[0])))
        speed = speed_mps / self.slow
        n = max(3, round((far / speed + 0.4) * FPS))
        s = np.linspace(0, 1, n + 1)[1:]
        s = s**2 * (3 - 2 * s) * 0.3 + 0.7 * s
        stride = 0.75 * self.height_m * np.clip(speed / 1.0, 0.5, 1.2) * 0.9
        swing = 0.5 * stride / (0.53 * self.height_m) * 0.55
        start = self.xy
        for part in s:
            phase = 2 * np.pi * part * far / stride
            ends = np.sin(np.pi * part) ** 0.3
            pose = dict(STAND)
            for side, sign in (("l", 1), ("r", -1)):
                up = max(0.0, np.sin(sign * phase + np.pi / 2 * sign))
                pose[f"hip_{side}"] = ends * (swing * sign * np.sin(phase) + 0.25 * up)
                pose[f"kn_{side}"] = ends * (0.08 + 0.7 * up)
                pose[f"sh_{side}"] = -ends * 0.7 * swing * sign * np.sin(phase)
            pose["spine"] = 0.05 + 0.25 * (self.slow - 1)
            self.frames.append((self._angles({**pose, **(arms or {})}), self._turn(), start + part * way, 0.0))
        self.xy, self.pose = start + way, self._angles({**STAND, **(arms or {})})
        return self

    def track(self, support: Support = floor_only, flat: Support | None = None) -> Track:
        """Return joint positions in the room; ``flat`` bears whatever its height, for who is on furniture."""
        n = len(self.frames)
        angles = np.array([f[0] for f in self.frames])
        for k in (25, 6):  # nobody holds quite still
            angles = angles + smooth(self.rng.normal(size=angles.shape), k) * np.sqrt(3.5 * k) * 0.018
        turn = Rotation.concatenate([f[1] for f in self.frames])
        sway = smooth(self.rng.normal(size=(n, 2)), 20) * np.sqrt(70) * 0.006
        track = joints(smooth(angles, 1.0), turn, self.height_m)
        track[..., :2] += (np.array([f[2] for f in self.frames]) + sway)[:, None]
        on = np.array([f[3] for f in self.frames])
        lift = (CLEARANCE_M - track[..., 2]).max(axis=1)
        if flat is not None:
            lift = (1 - on) * lift + on * (CLEARANCE_M + flat(track) - track[..., 2]).max(axis=1)
        track[..., 2] += smooth(lift, 1.5)[:, None]
        return relax(track, support, rounds=8)
