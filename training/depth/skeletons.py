"""Recorded people: the skeletons of SmartFallMM, stood on a level floor."""

from __future__ import annotations

import functools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from training.datasets import DataMissing
from training.depth.body import FPS, JOINTS, NECK, PELVIS, Floats, J, Track, relax, settled, smooth

ARCHIVES = ("smartfallmm-skeleton-falls.tar.xz", "smartfallmm-skeleton-adls.tar.xz")
_DAILY = {1: "drink", 2: "pick-up", 3: "jacket", 4: "step-up"}
ACTIVITIES = {**_DAILY, 10: "back-fall", 11: "front-fall", 12: "left-fall", 13: "right-fall", 14: "rotate-fall"}
_NAME = re.compile(r"(S\d+)A(\d+)T(\d+)\.csv$")
RECORDED_FPS = 30.0
FOOT_M = 0.035  # of the foot's joint above the floor it stands on

# Of the Azure Kinect's 32 joints those that a body here has; the head is the middle of the ears.
_KINECT = [0, 1, 2, 3, -1, 5, 6, 7, 9, 12, 13, 14, 16, 18, 19, 20, 21, 22, 23, 24, 25]
_EARS = (29, 31)


@dataclass(frozen=True, slots=True)
class Skeletons:
    """One trial of one person, level with the floor at z = 0 and 15 frames a second."""

    person: str
    activity: str
    trial: str
    is_fall: bool  # as the set files it
    track: Track


@functools.lru_cache(maxsize=1)
def read_skeletons(root: Path, of: str = "S") -> dict[str, Skeletons]:
    """Return the trials of people whose name begins so, by their own name, straight from the archives in a folder.

    Raises:
        DataMissing: an archive is not there.
    """
    raw: dict[str, Floats] = {}
    for archive in (root / name for name in ARCHIVES):
        if not archive.is_file():
            raise DataMissing(f"{archive.name} is not in {root}")
        raw |= dict(_tables(archive, of))
    people = sorted({name[:3] for name in raw})
    plane = {person: _floor([p for name, p in raw.items() if name.startswith(person)]) for person in people}
    found = {}
    for name in sorted(raw):
        person, activity, trial = re.split("[AT]", name)
        level = _levelled(raw[name], plane[person])
        found[name] = Skeletons(person, ACTIVITIES[int(activity)], trial, int(activity) >= 10, level)
    return found


def _tables(archive: Path, of: str) -> Iterator[tuple[str, Floats]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = _NAME.search(member.name)
            file = tar.extractfile(member) if name and name[1].startswith(of) else None
            if name and file:
                table = np.loadtxt(file, delimiter=",", ndmin=2)
                yield name[0].removesuffix(".csv"), table.reshape(len(table), 32, 3) / 1000


def _floor(trials: list[Floats]) -> Floats:
    """Fit the floor under the feet of who stands: camera y = a x + b z + c."""
    feet = np.concatenate([p[(p[:, [21, 25], 1].min(axis=1) - p[:, 0, 1]) > 0.65][:, [21, 25]] for p in trials])
    feet = feet.reshape(-1, 3)
    table = np.column_stack([feet[:, 0], feet[:, 2], np.ones(len(feet))])
    weight, plane = np.ones(len(feet)), np.zeros(3)
    for _ in range(20):  # a lifted foot counts little
        w = table * weight[:, None]
        # Feet on a line say nothing about the tilt across it: keep that small.
        plane = np.linalg.solve(w.T @ table + 5e-4 * len(feet) * np.diag([1, 1, 0]), w.T @ feet[:, 1])
        weight = 1 / (1 + ((feet[:, 1] - table @ plane) / 0.03) ** 2)
    return plane


def _levelled(kinect: Floats, plane: Floats) -> Track:
    a, b, c = plane
    down = np.array([-a, 1.0, -b]) / np.sqrt(1 + a * a + b * b)
    ahead = np.array([0.0, 0.0, 1.0]) - down[2] * down
    ahead /= np.linalg.norm(ahead)
    axes = np.stack([np.cross(down, ahead), ahead, -down])
    track = kinect[:, _KINECT]
    track[:, J["head"]] = kinect[:, _EARS].mean(axis=1)
    track = (track - [0, c, 0]) @ axes.T + [0, 0, FOOT_M]
    # Who lies is half hidden and jumps: smooth that longer.
    track = median_filter(track, size=(7, 1, 1), mode="nearest")
    low = smooth((track[:, PELVIS, 2] < 0.45).astype(float), 5)[:, None, None]
    track = (1 - low) * smooth(track, 1.5) + low * smooth(track, 7)
    track = track[:: round(RECORDED_FPS / FPS)]
    assert track.shape[1] == len(JOINTS)
    # Mattresses and a tilted fit leave some floating.
    track = relax(settled(relax(track), up_to_m=0.35))
    return np.asarray(track - [*track[:, PELVIS, :2].mean(axis=0), 0], np.float64)


def lying_on(track: Track, seconds: float, rng: np.random.Generator) -> Track:
    """Return a fall that ends, or pauses for a while, where the person lies stillest.

    While they lie they breathe, shift and move a limb now and then; a third gets up as recorded afterwards.
    """
    low = np.flatnonzero(track[:, PELVIS, 2] < 0.35)
    if not len(low):
        return track
    speed = np.linalg.norm(np.gradient(track, axis=0), axis=2).mean(axis=1)
    calm = smooth(speed, 4) + smooth(track[:, J["head"], 2], 4) * 0.05
    at = int(low[np.argmin(calm[low])])
    held = np.repeat(track[at : at + 1], round(seconds * FPS), axis=0)
    down = np.clip(np.arange(len(held)) / FPS / rng.uniform(0.8, 2.5), 0, 1)[:, None, None]
    held += rng.uniform(0.6, 1) * (3 * down**2 - 2 * down**3) * (_limp(held[:1]) - held[:1])
    held = stirring(held, rng)
    after = track[at:] if rng.random() < 1 / 3 else track[:0]
    return np.concatenate([track[:at], held, after])


def _limp(pose: Track) -> Track:
    """Return a pose whose limbs and head came down as muscles let go."""
    falls = np.where(np.arange(len(JOINTS)) < NECK, 0.004, 0.02)
    for _ in range(50):
        pose = relax(pose - falls[:, None] * [0, 0, 1], length_of=pose, rounds=3)
    return pose


def stirring(track: Track, rng: np.random.Generator, *, restless: float | None = None) -> Track:
    """Return a still body that breathes and moves a limb now and then."""
    n = len(track)
    t = np.arange(n) / FPS
    track = track.copy()
    breath = 0.006 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.35) * t + rng.random()))
    for joint, part in (("navel", 0.6), ("chest", 1.0), ("shoulder_l", 0.5), ("shoulder_r", 0.5), ("head", 0.3)):
        track[:, J[joint], 2] += part * (breath - breath[0])
    restless = rng.uniform(0, 1) ** 2 if restless is None else restless
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 1.0)[:, None]
    for limb, reach_m in (("arm", 0.16), ("arm", 0.16), ("leg", 0.10), ("leg", 0.10), ("head", 0.05)):
        side = rng.choice(["l", "r"])
        names = {"arm": [f"elbow_{side}", f"wrist_{side}", f"hand_{side}"], "head": ["head"]}.get(
            limb, [f"knee_{side}", f"ankle_{side}", f"foot_{side}"]
        )
        on = smooth((smooth(rng.normal(size=n + 1)[:n], 20) * np.sqrt(70) > 0.8).astype(float), 6)[:, None]
        path = smooth(rng.normal(size=(n, 3)), rng.uniform(5, 12))
        path *= reach_m * restless * on * fade / max(path.std(), 1e-6) * 0.7
        for k, name in enumerate(names):
            track[:, J[name]] += path * (k + 1) / len(names)
    return relax(track)
