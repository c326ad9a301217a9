"""What a real sensor makes of noiseless depth: noise, holes, flying pixels, shadows, lost frames.

The stored clips are clean; this is applied when they are read, so each reading can differ. Sizes of the effects
are assumptions within what makers state, but for the share of holes, about 13 % in the Redwood room frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.depth.frame import Depth

Image: TypeAlias = NDArray[np.float32]  # (height, width)

KINDS = ("stereo", "structured-light", "tof")
EDGE_M = 0.03  # from the mean of its neighbours: a pixel there can be torn between near and far
_CELLS = 12  # pixels per cell of the coarse fields that holes are cut from
_BANK = 7  # frames of normal deviates, drawn once per clip; frames take theirs from random rows of it


@dataclass(frozen=True, slots=True)
class _Sensor:
    sigma_m: float  # at 1 m; of a time-of-flight sensor everywhere
    grows: bool  # with the square of the distance
    disparity_px_m: float  # focal length times baseline, 0 without one
    subpixel: float  # steps of disparity, px
    nearest_m: float
    farthest_m: float
    holes: float  # share of pixels without a return, but for edges and shadows
    flying: float  # share of edge pixels between near and far
    multipath: float


def _sensor(kind: str, rng: np.random.Generator) -> _Sensor:
    u = rng.uniform
    holes = float(np.clip(rng.gamma(4, 0.025), 0.02, 0.3))
    if kind == "tof":
        return _Sensor(
            u(0.01, 0.02) / 1.5, False, 0.0, 0.0, 0.2, u(5, 8), 0.6 * holes, u(0.3, 0.8), u(0.005, 0.03)
        )
    if kind == "stereo":
        return _Sensor(u(8e-4, 2e-3), True, u(9, 16), 1 / 16, 0.35, 8.0, holes, u(0.1, 0.4), 0.0)
    if kind == "structured-light":
        return _Sensor(u(1e-3, 2.5e-3), True, u(12, 18), 1 / 8, 0.45, u(5, 8), holes, u(0.05, 0.2), u(0, 0.005))
    raise ValueError(f"kind is one of {', '.join(KINDS)}")


def degrade(depth_mm: Depth, rng: np.random.Generator, kind: str) -> Depth:
    """Return a clip, shape (frames, height, width), as a sensor would have seen it.

    A frame that was lost shows the one before it once more.

    Raises:
        ValueError: there is no such kind of sensor.
    """
    sensor = _sensor(kind, rng)
    frames, height, width = depth_mm.shape
    bank = rng.standard_normal(_BANK * height * width, np.float32)
    # Neighbours share some of their noise.
    sheet = bank.reshape(-1, width)
    grains = (sensor.sigma_m * (2 * cv2.blur(sheet, (3, 3)) + 0.75 * sheet)).ravel()
    room = depth_mm[:: max(1, frames // 8)].max(axis=0).astype(np.float32) / 1000  # mostly without people
    surfaces, drift, dark = (_coarse(rng, height, width) for _ in range(3))
    warp = 1 + 0.004 * _fine(_coarse(rng, height, width), height, width)  # a lens that is not quite calibrated
    dull = _dull(rng, height, width)
    level, flies = NormalDist().inv_cdf(1 - sensor.holes), NormalDist().inv_cdf(sensor.flying)
    wears_black, thin_hair = rng.random() < 0.3, rng.random() < 0.5
    lost = np.asarray(rng.random(frames) < rng.uniform(0, 0.02))
    out = np.empty_like(depth_mm)
    for n in range(frames):
        if n and lost[n]:
            out[n] = out[n - 1]
            continue
        z = depth_mm[n].astype(np.float32)
        z *= 0.001
        noise = _take(bank, rng, height, width)
        mean = cv2.blur(z, (3, 3))
        edge = np.asarray(np.abs(z - mean) > EDGE_M)
        seen = z.copy()
        torn = np.flatnonzero(edge & (noise < flies))
        part = rng.random(len(torn), np.float32) * 1.5
        seen.flat[torn] += part * (mean.flat[torn] - z.flat[torn])
        if sensor.multipath:
            seen += cv2.addWeighted(cv2.blur(z, (41, 41)), sensor.multipath, z, -sensor.multipath, 0)
        drift = 0.9 * drift + 0.44 * rng.standard_normal(drift.shape, np.float32)
        field = _fine(0.92 * surfaces + 0.39 * cv2.blur(drift, (2, 2)), height, width)
        empty = field > level - (0.1 * (z - 3) if sensor.grows else 0.0)
        empty |= noise > dull
        empty |= edge & (noise > 0.5)
        if sensor.disparity_px_m:
            empty |= _shadow(z, sensor.disparity_px_m)
        if wears_black or thin_hair:
            _take_person(empty, (z < room - 0.08) & (z > 0), noise, dark if wears_black else None, thin_hair)
        grain = _take(grains, rng, height, width)
        seen *= warp
        if sensor.grows:
            seen += grain * (z * z)
        else:
            seen += grain
        empty |= (z < sensor.nearest_m) | (seen > sensor.farthest_m)
        if sensor.disparity_px_m:
            steps = sensor.disparity_px_m / sensor.subpixel
            np.divide(steps, np.maximum(seen, 0.1, out=seen), out=seen)
            np.divide(steps * 1000, np.rint(seen, out=seen), out=seen)
        else:
            seen *= 1000
        seen[empty] = 0
        out[n] = seen
    return out


def _take(bank: Image, rng: np.random.Generator, height: int, width: int) -> Image:
    start = int(rng.integers(len(bank) // width - height)) * width
    return bank[start : start + height * width].reshape(height, width)


def _coarse(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a coarse field of deviation about one."""
    return rng.standard_normal((height // _CELLS, width // _CELLS), np.float32)


def _fine(coarse: Image, height: int, width: int) -> Image:
    """Return it at full size, smooth; what smoothing takes of its deviation is given back."""
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * 1.5, np.float32)


def _dull(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return how surely a pixel returns light, as a threshold of noise; low where a floor is glossy."""
    out = np.full((height, width), 9, np.float32)
    for _ in range(rng.integers(0, 3)):
        centre = int(rng.uniform(0, width)), int(rng.uniform(0.55, 1) * height)
        axes = int(rng.uniform(5, 40)), int(rng.uniform(3, 14))
        cv2.ellipse(out, centre, axes, float(rng.uniform(-20, 20)), 0, 360, float(-rng.uniform(0.3, 2.0)), -1)
    return out


def _shadow(z: Image, disparity_px_m: float) -> NDArray[np.bool_]:
    """Return where something nearer hides the surface from the second eye or the projector, right of it."""
    disparity = disparity_px_m / np.maximum(z, 0.3)
    hidden = np.zeros(z.shape, bool)
    for step in range(1, 6):
        hidden[:, step:] |= disparity[:, :-step] > disparity[:, step:] + np.float32(step)
    return hidden


def _take_person(
    empty: NDArray[np.bool_],
    person: NDArray[np.bool_],
    noise: Image,
    dark: Image | None,
    thin_hair: bool,
) -> None:
    """Take returns from black clothes, whose patches move with the person, and from the hair of who is upright."""
    x, y, w, h = cv2.boundingRect(person.view(np.uint8))
    if w < 4 or h < 4:
        return
    box = slice(y, y + h), slice(x, x + w)
    if dark is not None:
        patch = cv2.resize(dark[: h // _CELLS + 2, : w // _CELLS + 2], (w, h), interpolation=cv2.INTER_LINEAR)
        empty[box] |= person[box] & (patch > 0.35) & (noise[box] > -1)
    if thin_hair and h > w:
        hair = slice(y, y + max(2, round(h * 0.07))), slice(x, x + w)
        empty[hair] |= person[hair] & (noise[hair] > -0.4)
