"""A camera's pixels as points above the floor: all that geometry needs is worked out once per floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.depth.frame import Depth, Intrinsics, Plane, Zone

Image = NDArray[np.float32]

WORK_WIDTH = 160  # pixels: a person 5 m away is still 50 of them tall
NEAREST_M, FARTHEST_M = 0.3, 8.0  # readings outside are none


def shrink(depth_mm: Depth) -> Image:
    """Return a frame at working size, in metres, without stray pixels; 0 where there is no reading."""
    stride = max(depth_mm.shape[1] // WORK_WIDTH, 1)
    small = cv2.medianBlur(np.ascontiguousarray(depth_mm[::stride, ::stride]), 3)
    depth_m = small.astype(np.float32)
    depth_m *= 1e-3
    depth_m[(depth_m < NEAREST_M) | (depth_m > FARTHEST_M)] = 0.0
    return depth_m


@dataclass(frozen=True, slots=True)
class Rays:
    """Where each pixel at working size looks: x and y per metre of z."""

    x: Image  # shape (1, width)
    y: Image  # shape (height, 1)

    @classmethod
    def of(cls, camera: Intrinsics) -> Rays:
        """Return the rays of a camera's frames once shrunk."""
        stride = max(camera.width // WORK_WIDTH, 1)
        across = np.arange(0, camera.width, stride, dtype=np.float32)
        down = np.arange(0, camera.height, stride, dtype=np.float32)
        return cls(((across - camera.cx) / camera.fx)[None, :], ((down - camera.cy) / camera.fy)[:, None])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width at working size."""
        return self.y.shape[0], self.x.shape[1]

    def points(self, depth_m: Image) -> Image:
        """Return the points of the pixels with a reading: shape (n, 3), metres, camera axes."""
        there = depth_m > 0
        z = depth_m[there]
        x, y = np.broadcast_to(self.x, self.shape)[there] * z, np.broadcast_to(self.y, self.shape)[there] * z
        return np.stack([x, y, z], axis=1)


def plan_axes(floor: Plane) -> tuple[Image, Image]:
    """Return two unit vectors along the floor: the camera's right, and away from the camera.

    Where a camera looks straight down, away is the top of its image.
    """
    normal = np.array([floor.a, floor.b, floor.c], np.float32)
    forward = np.array([0, 0, 1], np.float32) if abs(floor.c) < 0.95 else np.array([0, -1, 0], np.float32)
    forward -= normal * (normal @ forward)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, normal)  # x right, y down, z forward: forward x up = right
    if right[0] < 0:
        right = -right
    return right.astype(np.float32), forward


def looks_down(floor: Plane) -> bool:
    """Tell whether a camera hangs so that its y axis says little of height: from the ceiling."""
    return abs(floor.b) < 0.3


def zone_corners(zone: Zone, floor: Plane) -> Image:
    """Return a zone's corners in plan, shape (n, 2), metres right of and away from the camera.

    Its polygon is given in camera x and z; y is where its surface lies above the floor. To a camera that looks
    straight down z is that height, so the second figure is taken as metres towards the top of the image.
    """
    right, forward = plan_axes(floor)
    corners = np.asarray(zone.polygon_m, np.float32)
    if looks_down(floor):
        return corners
    x, z = corners[:, 0], corners[:, 1]
    y = (zone.height_m - floor.d - floor.a * x - floor.c * z) / floor.b
    points = np.stack([x, y, z], axis=1)
    return np.stack([points @ right, points @ forward], axis=1).astype(np.float32)


CELL_M = 0.1  # of the plan
CELLS = 128  # each way; the camera stands in the middle


class View:
    """The floor's own axes for each pixel: height, and place in plan."""

    def __init__(self, rays: Rays, floor: Plane, zones: tuple[Zone, ...] = ()) -> None:
        self.rays, self.floor = rays, floor
        right, forward = plan_axes(floor)
        # A point is z times its ray, so each of its coordinates is z times one image.
        self._up = (floor.a * rays.x + floor.b * rays.y + floor.c).astype(np.float32)
        self._right = (right[0] * rays.x + right[1] * rays.y + right[2]).astype(np.float32)
        self._forward = (forward[0] * rays.x + forward[1] * rays.y + forward[2]).astype(np.float32)
        self.zone_height_m: Image = np.zeros((CELLS, CELLS), np.float32)  # 0 outside zones
        for zone in zones:
            corners = np.round(zone_corners(zone, floor) / CELL_M + CELLS / 2 - 0.5).astype(np.int32)
            cv2.fillPoly(self.zone_height_m, [corners], max(zone.height_m, 0.01))

    def height_m(self, depth_m: Image) -> Image:
        """Return each pixel's height above the floor."""
        return self._up * depth_m + np.float32(self.floor.d)

    def plan(self, depth_m: Image, there: NDArray[np.bool_]) -> tuple[Image, Image, Image]:
        """Return place (right, away) and height of the pixels in ``there``: shape (n,) each, metres."""
        z = depth_m[there]
        return self._right[there] * z, self._forward[there] * z, self._up[there] * z + np.float32(self.floor.d)

    @property
    def tilt_deg(self) -> float:
        """How far the camera looks down from the level."""
        return math.degrees(math.asin(max(-1.0, min(1.0, -self.floor.c))))
