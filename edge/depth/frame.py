"""A depth frame, the camera that took it, and the floor under it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Depth: TypeAlias = NDArray[np.uint16]  # shape (height, width), mm along the camera's z axis, 0 = no reading


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without distortion; lengths in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One depth image, which lives in memory alone."""

    depth_mm: Depth
    time_s: float  # when it was taken: the Pi's monotonic clock, or a recording's own time
    device_s: float | None = None  # the camera's own clock, where it has one
    temperature_c: float | None = None  # of the camera, where it tells


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane in camera axes (x right, y down, z forward, metres); its normal points to the camera's side."""

    a: float
    b: float
    c: float
    d: float  # the camera's height above it

    @classmethod
    def of(cls, a: float, b: float, c: float, d: float) -> Plane:
        """Return the plane ax + by + cz + d = 0, whatever the length and the side of the normal.

        Raises:
            ValueError: it is none.
        """
        length = math.hypot(a, b, c) * (1 if d >= 0 else -1)
        if not math.isfinite(length) or abs(length) < 1e-9:
            raise ValueError("a plane is [a, b, c, d] with a normal (a, b, c) that is not 0")
        return cls(a / length, b / length, c / length, d / length)


@dataclass(frozen=True, slots=True)
class Zone:
    """A bed or chair, drawn by the installer: who lies there is in bed."""

    kind: str  # "bed" or "chair"
    polygon_m: tuple[tuple[float, float], ...]  # corners of its surface, camera x and z
    height_m: float  # of its surface above the floor


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of one camera in its place."""

    intrinsics: Intrinsics
    fps: float = 30.0
    floor: Plane | None = None  # None: to be found
    zones: tuple[Zone, ...] = ()
