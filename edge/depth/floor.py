"""Find the floor in the depth of an empty room, and tell it from walls, beds and tables."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

from edge.depth.background import Mask
from edge.depth.frame import Plane
from edge.depth.view import Image

Points = NDArray[np.float64]

TRIALS = 400
SAMPLE = 2500  # points looked at
NEAR_M = 0.02  # a floor point lies so near; noise grows with the distance squared
NEAR_PER_M2 = 0.004
LEAST_PART = 0.05  # of the points
HEIGHT_M = (0.3, 3.6)  # of a camera above the floor
MOST_ROLL = math.sin(math.radians(20.0))
BELOW_M = 0.12  # what lies so far below a plane shows that it is a bed or a table


def find_floors(points: Image, *, seed: int = 0, most: int = 4) -> list[Plane]:
    """Return the planes that may be the floor, the likeliest first.

    Args:
        points: shape (n, 3), metres, camera axes, of a room as empty as can be.
        seed: of the random trials; the same points and seed give the same planes.
        most: at most so many.
    """
    rng = random.Random(seed)  # noqa: S311 - numpy's own takes 3 MiB, which an eye has no other use for
    if len(points) < 50:
        return []
    some = points[rng.sample(range(len(points)), min(len(points), SAMPLE))].astype(np.float64)
    total = len(some)
    near_m = _near_m(some)
    found: list[tuple[float, Plane]] = []
    left = np.ones(total, bool)
    for _ in range(most):
        plane = _best(some, near_m, left, rng)
        if plane is None:
            break
        height = some @ plane[:3] + plane[3]
        for narrower in (1.0, 0.7, 0.5):
            refined = _fit(some, (np.abs(some @ plane[:3] + plane[3]) < near_m * narrower) & left, near_m)
            plane = refined if refined is not None and _may_be(refined) else plane
        height = some @ plane[:3] + plane[3]
        inside = np.abs(height) < near_m
        below = float((height < -BELOW_M - near_m).mean())
        score = float(inside.mean()) - 2.0 * below
        # Of two planes that nothing lies below, such as a floor and a wall, the one underfoot is likelier.
        upright = -plane[1] if abs(plane[2]) < 0.9 else 0.8
        if float((inside & left).mean()) >= LEAST_PART / 2:
            found.append((score * (0.4 + 0.6 * upright), Plane(*map(float, plane))))
        left &= ~inside
        if left.sum() < LEAST_PART * total:
            break
    found.sort(key=lambda pair: -pair[0])
    return [plane for score, plane in found if score > LEAST_PART / 4]


def _best(some: Points, near_m: Points, left: Points, rng: random.Random) -> Points | None:
    """Return the plane through three points with the most of the others in it and few below it."""
    pool = np.flatnonzero(left).tolist()
    first, second, third = (some[rng.choices(pool, k=TRIALS)] for _ in range(3))
    normal = np.cross(second - first, third - first)
    length = np.linalg.norm(normal, axis=1)
    normal = normal[length > 1e-3] / length[length > 1e-3][:, None]
    first = first[length > 1e-3]
    d = -(normal * first).sum(axis=1)
    normal, d = normal * np.sign(d)[:, None], np.abs(d)  # the camera is at height d on its side
    planes = np.concatenate([normal, d[:, None]], axis=1)
    planes = planes[[_may_be(plane) for plane in planes]]
    if not len(planes):
        return None
    height = some @ planes[:, :3].T + planes[:, 3]
    inside = ((np.abs(height) < near_m[:, None]) & left[:, None]).mean(axis=0)
    below = (height < -BELOW_M - near_m[:, None]).mean(axis=0)
    best = int((inside - 2.0 * below).argmax())
    chosen: Points = planes[best]
    return chosen


def _may_be(plane: Points) -> bool:
    """Tell whether a camera can stand so above a floor: not upside down, hardly rolled, at a height in reason."""
    a, b, c, d = plane
    level = abs(a) / max(math.hypot(a, b), 1e-9) if abs(c) < 0.9 else abs(a)
    return bool(HEIGHT_M[0] <= d <= HEIGHT_M[1] and level <= MOST_ROLL and b <= 0.15 and c <= 0.3)


def _fit(points: Points, there: Mask, near_m: Points) -> Points | None:
    """Return the least-squares plane, each point weighted by how well it is known; None through too few."""
    if np.count_nonzero(there) < 10:
        return None
    points, weight = points[there], 1.0 / near_m[there]
    middle = np.average(points, axis=0, weights=weight**2)
    normal = np.linalg.svd((points - middle) * weight[:, None], full_matrices=False)[2][2]
    d = float(-(normal @ middle))
    if d < 0:
        normal, d = -normal, -d
    return np.array([*normal, d])


def refit(points: Image) -> Plane | None:
    """Fit a plane to points that are known to be floor, None where they are too few."""
    exact = points.astype(np.float64)
    plane = _fit(exact, np.ones(len(exact), bool), _near_m(exact))
    return None if plane is None else Plane(*map(float, plane))


def _near_m(points: Points) -> Points:
    near_m: Points = NEAR_M + NEAR_PER_M2 * points[:, 2] ** 2
    return near_m


def apart(one: Plane, other: Plane) -> tuple[float, float]:
    """Return by how many degrees two planes are tilted against each other, and how far apart they are, metres."""
    cosine = one.a * other.a + one.b * other.b + one.c * other.c
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine)))), abs(one.d - other.d)
