"""Where an installer's beds and chairs are: the room from above in figures, and zones drawn on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.depth.frame import Plane
from edge.depth.view import Image, View, looks_down, plan_axes

PLAN_CELL_M = 0.2  # as coarse as a bed can still be told


def polygon_of(
    corners_m: Sequence[tuple[float, float]], floor: Plane, height_m: float
) -> list[tuple[float, float]]:
    """Return a zone's polygon in camera x and z, from its corners in plan: the inverse of `zone_corners`.

    Args:
        corners_m: metres to the right of the camera and away from it, along the floor.
        floor: the camera's.
        height_m: of the zone's surface above the floor.
    """
    if looks_down(floor):
        return [(float(right), float(away)) for right, away in corners_m]
    right, forward = plan_axes(floor)
    normal = np.array([floor.a, floor.b, floor.c])
    points = [right * r + forward * a + normal * (height_m - floor.d) for r, a in corners_m]
    return [(round(float(p[0]), 3), round(float(p[2]), 3)) for p in points]


def plan_text(view: View, depth_m: Image) -> list[str]:
    """Return the room from above, one letter for 20 cm: ``.`` floor, a digit the height in decimetres, 9 or more.

    The first line is the farthest; a space is where nothing is seen. No person's shape survives such cells.
    """
    right, away, height = view.plan(depth_m, depth_m > 0)
    if not len(height):
        return []
    columns, rows = (np.floor(side / PLAN_CELL_M).astype(int) for side in (right, away))
    lines = []
    for row in range(int(np.quantile(rows, 0.995)), int(np.quantile(rows, 0.005)) - 1, -1):
        cells = ""
        for column in range(int(np.quantile(columns, 0.005)), int(np.quantile(columns, 0.995)) + 1):
            own = height[(rows == row) & (columns == column)]
            if len(own) < 3:
                cells += " "
            else:
                high = float(np.quantile(own, 0.9))
                cells += "." if high < 0.08 else str(min(max(round(high * 10), 1), 9))
        lines.append(f"{row * PLAN_CELL_M:5.1f} |{cells}")
    first = int(np.quantile(columns, 0.005)) * PLAN_CELL_M
    return [*lines, f"       from {first:.1f} m (negative: left of the camera), {PLAN_CELL_M:.1f} m a letter"]
