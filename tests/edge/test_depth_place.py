"""Zones as an installer draws them on the room's plan."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.depth.floor import find_floors
from edge.depth.frame import Intrinsics, Plane, Zone
from edge.depth.place import plan_text, polygon_of
from edge.depth.view import Rays, View, shrink, zone_corners
from tests.edge.depth_scene import Box, Scene

CAMERA = Intrinsics(160, 120, 140.0, 140.0, 79.5, 59.5)
SAMPLES = Path(os.environ.get("FALLWATCH_DATA", "/nowhere")) / "open3d-rgbd-samples.tar.xz"
BED = Box((-1.6, 2.6, 0.0), (-0.6, 4.4, 0.5))


@given(
    st.floats(-10, 90),
    st.floats(0.8, 3.0),
    st.lists(st.tuples(st.floats(-3, 3), st.floats(0.2, 5)), min_size=3, max_size=6),
    st.floats(0.1, 1.0),
)
def test_a_zone_drawn_on_the_plan_lies_where_it_was_drawn(
    tilt_deg: float, height_m: float, corners: list[tuple[float, float]], surface_m: float
) -> None:
    tilt = np.radians(tilt_deg)
    floor = Plane(0.0, -float(np.cos(tilt)), -float(np.sin(tilt)), height_m)
    zone = Zone("bed", tuple(polygon_of(corners, floor, surface_m)), surface_m)
    assert zone_corners(zone, floor) == pytest.approx(np.array(corners), abs=0.02)


def test_the_plan_shows_a_bed_where_it_stands_and_how_high_it_is() -> None:
    scene = Scene(camera=CAMERA, boxes=[BED], holes=0.0)
    view = View(Rays.of(CAMERA), scene.floor)
    lines = {line[:5].strip(): line[7:] for line in plan_text(view, shrink(scene.depth_mm()))[:-1]}
    row = lines["3.4"]
    assert "55555" in row
    assert row.count("5") <= 6
    assert "." in row


def test_a_plane_is_the_same_whichever_way_its_normal_points() -> None:
    assert Plane.of(0.0, 2.0, 0.0, -4.4) == Plane.of(0.0, -1.0, 0.0, 2.2)
    with pytest.raises(ValueError, match="normal"):
        Plane.of(0.0, 0.0, 0.0, 1.0)


@pytest.mark.skipif(not SAMPLES.is_file(), reason="FALLWATCH_DATA does not name a folder with open3d-rgbd-samples")
def test_the_floor_of_real_room_frames_is_told_from_wall_and_chair() -> None:
    lens = Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)  # of the PrimeSense family, which took them
    with tarfile.open(SAMPLES) as archive:
        names = sorted(n for n in archive.getnames() if "/depth/" in n and n.endswith(".png"))
        pictures = [file.read() for name in names if (file := archive.extractfile(name)) is not None]
    assert len(pictures) == 5
    for picture in pictures:
        depth = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
        assert depth is not None
        floor = find_floors(Rays.of(lens).points(shrink(depth.astype(np.uint16))))[0]
        assert floor.b < -0.99
        assert 0.4 < floor.d < 0.6
