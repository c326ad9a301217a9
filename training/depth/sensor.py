"""stub"""

from __future__ import annotations

import numpy as np

from edge.depth.frame import Depth

KINDS = ("stereo", "structured-light", "tof")


def degrade(depth_mm: Depth, rng: np.random.Generator, kind: str) -> Depth:
    """."""
    return depth_mm
