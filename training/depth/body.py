"""A person as joints and capsules: what poses become, whichever way they were found.

Positions are metres in room axes, x and y along the floor and z up; a track has shape (frames, joints, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats: TypeAlias = NDArray[np.float64]
Track: TypeAlias = Floats  # shape (frames, len(JOINTS), 3), m

FPS = 15.0
JOINTS = (
    *("pelvis", "navel", "chest", "neck", "head"),  # head: the middle of the skull
    *("shoulder_l", "elbow_l", "wrist_l", "hand_l", "shoulder_r", "elbow_r", "wrist_r", "hand_r"),
    *("hip_l", "knee_l", "ankle_l", "foot_l", "hip_r", "knee_r", "ankle_r", "foot_r"),
)
J = {name: i for i, name in enumerate(JOINTS)}
PELVIS, HEAD, NECK = J["pelvis"], J["head"], J["neck"]

# How near a joint comes to what the body lies on, m.
CLEARANCE_M = np.array(
    [0.10, 0.10, 0.10, 0.06, 0.10] + [0.06, 0.045, 0.035, 0.03] * 2 + [0.09, 0.055, 0.045, 0.035] * 2,
)
# Parts: from, to, radius in m.
_LIMBS = [
    part
    for s in "lr"
    for part in (
        (f"hip_{s}", f"shoulder_{s}", 0.085),
        (f"shoulder_{s}", f"elbow_{s}", 0.05),
        (f"elbow_{s}", f"wrist_{s}", 0.038),
        (f"wrist_{s}", f"hand_{s}", 0.035),
        (f"hip_{s}", f"knee_{s}", 0.078),
        (f"knee_{s}", f"ankle_{s}", 0.052),
        (f"ankle_{s}", f"foot_{s}", 0.04),
    )
]
PARTS = [
    *_LIMBS,
    ("hip_l", "hip_r", 0.105),
    ("pelvis", "chest", 0.11),
    ("shoulder_l", "shoulder_r", 0.07),
    ("neck", "head", 0.055),
]
BONES = np.array(
    [(J[a], J[b]) for a, b, _ in PARTS]
    + [(J[a], J[b]) for a, b in (("pelvis", "navel"), ("navel", "chest"), ("chest", "neck"), ("pelvis", "neck"))]
    + [
        (J[f"{a}_{s}"], J[b])
        for s in "lr"
        for a, b in (("shoulder", "neck"), ("shoulder", "chest"), ("hip", "pelvis"))
    ]
    + [(J["shoulder_l"], J["hip_r"]), (J["shoulder_r"], J["hip_l"])],
)
HEAD_RADII_M = np.array([0.076, 0.098, 0.118])  # across, to the front, up


@dataclass(frozen=True, slots=True)
class Body:
    """How stout one person is and what they wear."""

    from_: Floats  # (parts, joints): the weights of joints in a capsule's one end
    to: Floats  # and in its other
    radius_m: Floats  # (parts,)
    head_m: Floats  # (3,), the head's radii

    def capsules(self, track: Track) -> tuple[Floats, Floats]:
        """Return both ends of every capsule, each of shape (frames, parts, 3)."""
        return self.from_ @ track, self.to @ track

    def head_axes(self, track: Track) -> Floats:
        """Return the head's axes (across, to the front, up) as columns, shape (frames, 3, 3)."""
        up = unit(track[:, HEAD] - track[:, NECK])
        across = track[:, J["shoulder_r"]] - track[:, J["shoulder_l"]]
        front = unit(np.cross(up, across))
        return np.stack([np.cross(front, up), front, up], axis=-1)

    def top_m(self, track: Track) -> Floats:
        """Return the height of the top of the head, shape (frames,)."""
        reach = np.sqrt(((self.head_axes(track)[:, 2] * self.head_m) ** 2).sum(axis=1))
        return np.asarray(track[:, HEAD, 2] + reach, np.float64)


def unit(v: Floats) -> Floats:
    """Return vectors along the last axis at length one."""
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9), np.float64)


def dressed(rng: np.random.Generator) -> Body:
    """Return a body of random stoutness in trousers, a coat, or a skirt or dressing gown."""
    rows = [({a: 1.0}, {b: 1.0}, r) for a, b, r in PARTS]
    stout, wear = rng.uniform(0.9, 1.25), rng.choice(["trousers", "coat", "gown"], p=[0.6, 0.2, 0.2])
    radius = np.array([r for *_, r in rows]) * stout * rng.normal(1, 0.04, len(rows))
    if wear == "coat":
        trunk = [i for i, (a, *_) in enumerate(PARTS) if a.startswith(("hip", "pelvis", "shoulder", "elbow"))]
        radius[trunk] += rng.uniform(0.01, 0.03)
    if wear == "gown":
        knees = {"knee_l": 0.5, "knee_r": 0.5}
        rows += [
            ({"pelvis": 1.0}, knees, 0.0),
            (knees, {"knee_l": 0.2, "knee_r": 0.2, "ankle_l": 0.3, "ankle_r": 0.3}, 0.0),
        ]
        radius = np.append(radius, rng.uniform([0.11, 0.09], [0.17, 0.15]))
    weights = np.zeros((2, len(rows), len(JOINTS)))
    for i, (a, b, _) in enumerate(rows):
        for end, names in enumerate((a, b)):
            for name, weight in names.items():
                weights[end, i, J[name]] = weight
    return Body(weights[0], weights[1], radius, HEAD_RADII_M * rng.normal(1, 0.04) * [1, 1, rng.uniform(1, 1.1)])


def smooth(x: Floats, sigma: float) -> Floats:
    """Return values smoothed along time, the first axis."""
    return np.asarray(gaussian_filter1d(x, sigma, axis=0, mode="nearest"), np.float64)


Support: TypeAlias = Callable[[Floats], Floats]  # points (..., 3) to the height of what bears them, m


def floor_only(points: Floats) -> Floats:
    """Bear everything at the floor."""
    return np.zeros(points.shape[:-1])


def relax(
    track: Track, support: Support = floor_only, *, rounds: int = 12, length_of: Track | None = None
) -> Track:
    """Return a track whose bones keep their length and which sinks into nothing it lies on."""
    a, b = BONES.T
    model = track if length_of is None else length_of
    length = np.median(np.linalg.norm(model[:, a] - model[:, b], axis=2), axis=0)
    track = track.copy()
    for step in range(rounds):
        for i, j, rest in zip(a, b, length, strict=True):
            gap = track[:, j] - track[:, i]
            now = np.linalg.norm(gap, axis=1, keepdims=True)
            move = 0.5 * gap * (1 - rest / np.maximum(now, 1e-6))
            track[:, i] += move
            track[:, j] -= move
        if step >= rounds // 3:
            track[..., 2] = np.maximum(track[..., 2], support(track) + CLEARANCE_M)
    return track


def settled(track: Track, support: Support = floor_only, *, up_to_m: float = np.inf, sigma: float = 4.0) -> Track:
    """Return a track lowered or lifted so that the lowest part of it rests on what bears it."""
    float_m = (track[..., 2] - CLEARANCE_M - support(track)).min(axis=1)
    return np.asarray(track - smooth(np.minimum(float_m, up_to_m), sigma)[:, None, None] * [0, 0, 1], np.float64)
