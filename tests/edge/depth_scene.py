"""A made-up room in depth: floor, wall, boxes and people of ellipsoids, cast ray by ray."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.depth.frame import Depth, Frame, Intrinsics, Plane, Zone

Point = tuple[float, float, float]  # metres: right, away from the camera, up


@dataclass(frozen=True)
class Ellipsoid:
    """A part of a body."""

    centre: Point
    radii: Point


@dataclass(frozen=True)
class Box:
    """Furniture: two opposite corners."""

    low: Point
    high: Point


def upright(right: float, away: float, *, height: float = 1.7, floor: float = 0.0) -> list[Ellipsoid]:
    """Return somebody who stands, or sits where ``floor`` is below the seat."""
    tall = height
    return [
        Ellipsoid((right, away, floor + 0.47 * tall), (0.2, 0.15, 0.47 * tall)),
        Ellipsoid((right, away, floor + tall - 0.12), (0.1, 0.1, 0.12)),
    ]


def lying(right: float, away: float, *, floor: float = 0.0, along: float = 1.7) -> list[Ellipsoid]:
    """Return somebody who lies across the view."""
    return [
        Ellipsoid((right, away, floor + 0.13), (0.45 * along, 0.2, 0.13)),
        Ellipsoid((right + along / 2 - 0.05, away, floor + 0.11), (0.12, 0.1, 0.11)),
    ]


@dataclass
class Scene:
    """A camera on a wall, or on the ceiling with a tilt of 90 degrees, and what is before it."""

    height_m: float = 2.2
    tilt_deg: float = 25.0
    wall_m: float = 5.0
    boxes: list[Box] = field(default_factory=list)
    camera: Intrinsics = field(default_factory=lambda: Intrinsics(320, 240, 280.0, 280.0, 159.5, 119.5))
    noise_m: float = 0.0015  # at 1 m; grows with the square
    holes: float = 0.02
    seed: int = 1

    def __post_init__(self) -> None:
        tilt = math.radians(self.tilt_deg)
        # Rows: where the camera's x, y and z axes point, as right, away, up.
        self.axes = np.array(
            [
                [1, 0, 0],
                [0, -math.sin(tilt), -math.cos(tilt)],
                [0, math.cos(tilt), -math.sin(tilt)],
            ]
        )
        x = (np.arange(self.camera.width) - self.camera.cx) / self.camera.fx
        y = (np.arange(self.camera.height) - self.camera.cy) / self.camera.fy
        rays = np.stack([*np.meshgrid(x, y), np.ones((self.camera.height, self.camera.width))], axis=-1)
        self._rays = rays @ self.axes  # per metre of z
        self._rng = np.random.default_rng(self.seed)

    @property
    def floor(self) -> Plane:
        """The floor in camera axes."""
        a, b, c = self.axes[:, 2]
        return Plane(float(a), float(b), float(c), self.height_m)

    def zone(self, box: Box, kind: str = "bed") -> Zone:
        """Return the zone of a box as an installer gives it: corners of its surface, camera x and z."""
        top = box.high[2]
        corners = [
            (x, y, top)
            for x, y in zip(
                (box.low[0], box.high[0], box.high[0], box.low[0]),
                (box.low[1], box.low[1], box.high[1], box.high[1]),
                strict=True,
            )
        ]
        in_camera = (np.array(corners) - [0, 0, self.height_m]) @ self.axes.T
        return Zone(kind, tuple((float(x), float(z)) for x, _, z in in_camera), top)

    def clean(self, body: list[Ellipsoid] | None = None) -> NDArray[np.float64]:
        """Return the depth without noise, metres along z."""
        rays, eye = self._rays, np.array([0.0, 0.0, self.height_m])
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(rays[..., 2] < 0, -self.height_m / rays[..., 2], np.inf)
            z = np.fmin(z, np.where(rays[..., 1] > 0, self.wall_m / rays[..., 1], np.inf))
            for box in self.boxes:
                one, two = (np.array(box.low) - eye) / rays, (np.array(box.high) - eye) / rays
                enters, leaves = np.fmin(one, two).max(axis=-1), np.fmax(one, two).min(axis=-1)
                z = np.where((enters < leaves) & (enters > 0), np.fmin(z, enters), z)
        for part in body or []:
            scaled, origin = rays / part.radii, (eye - part.centre) / np.array(part.radii)
            a, b, c = (scaled**2).sum(-1), (scaled * origin).sum(-1), (origin**2).sum() - 1
            root = b * b - a * c
            hit = (-b - np.sqrt(np.maximum(root, 0))) / a
            z = np.where((root > 0) & (hit > 0), np.fmin(z, hit), z)
        return z

    def depth_mm(self, body: list[Ellipsoid] | None = None) -> Depth:
        """Return a frame with noise and holes."""
        z = self.clean(body)
        z = z + self._rng.normal(0, self.noise_m, z.shape) * z * z
        millimetres = np.where(np.isfinite(z) & (z < 8), z * 1000, 0)
        millimetres[self._rng.random(z.shape) < self.holes] = 0
        return millimetres.astype(np.uint16)

    def frame(self, time_s: float, body: list[Ellipsoid] | None = None) -> Frame:
        """Return a frame taken at that time."""
        return Frame(self.depth_mm(body), time_s)
