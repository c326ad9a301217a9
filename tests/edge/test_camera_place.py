"""An installer finds the floor, reads the plan and marks the bed, by the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import pytest

from edge.depth.frame import Intrinsics, Plane, Zone
from edge.depth.view import zone_corners
from edge.journal import JOURNAL_FILE, Journal
from edge.settings import load_settings
from tests.edge.depth_scene import Box, Scene

CAMERA = Intrinsics(160, 120, 140.0, 140.0, 79.5, 59.5)
BED = Box((0.4, 2.6, 0.0), (1.4, 4.4, 0.5))
SETTINGS = """# as the installer wrote it
[home]
id = "site-7"
[[resident]]
id = "r12"
room = "12"
[[camera]]
id = "cam-12"
room = "12"
kind = "folder"
device = "{folder}"
width = 160
height = 120
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    scene = Scene(2.2, 25.0, boxes=[BED], camera=CAMERA)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(8):
        cv2.imwrite(str(folder / f"{i:06d}.png"), scene.depth_mm())
    (folder / "calib.json").write_text(json.dumps(asdict(CAMERA) | {"fps": 30}))
    (tmp_path / "fallwatch.toml").write_text(SETTINGS.format(folder=folder))
    Journal(tmp_path / JOURNAL_FILE).close()
    return tmp_path


def camera(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", "camera", *words, "--config", str(home / "fallwatch.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_floor_plan_and_bed_come_into_the_settings_and_comments_stay(home: Path) -> None:
    told = camera(home, "floor", "12", "--write")
    assert told.returncode == 0, told.stderr
    assert "2.2" in told.stdout
    assert "25 degrees" in told.stdout
    plan = camera(home, "plan", "12", "--state", str(home), "--by", "erin")
    assert plan.returncode == 0, plan.stderr
    assert "55555" in plan.stdout
    journal = Journal(home / JOURNAL_FILE)
    assert journal.last_note("camera-plan", room="12", by="erin") is not None
    journal.close()
    drawn = camera(home, "zone", "12", "bed", "0.4,2.6", "1.4,2.6", "1.4,4.4", "0.4,4.4", "--write")
    assert drawn.returncode == 0, drawn.stderr
    assert (home / "fallwatch.toml").read_text().startswith("# as the installer wrote it")
    (one,) = load_settings(home / "fallwatch.toml").camera
    floor = Plane(*one.floor)
    assert floor.d == pytest.approx(2.2, abs=0.05)
    drawn_zone = one.zone[0]
    zone = Zone(drawn_zone.kind, tuple((x, z) for x, z in drawn_zone.polygon_m), drawn_zone.height_m)
    for corner, wanted in zip(
        zone_corners(zone, floor).tolist(), ([0.4, 2.6], [1.4, 2.6], [1.4, 4.4], [0.4, 4.4]), strict=True
    ):
        assert corner == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("floor", "99"), 2, "no cameras in the settings"),
        (("zone", "12", "bed", "1,1", "2,2", "3,1"), 2, "camera floor 12 --write"),
        (("plan", "12", "--state", "/nowhere"), 1, "journal"),
    ],
)
def test_what_cannot_be_done_says_what_to_do_first(
    home: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    told = camera(home, *words)
    assert told.returncode == status
    assert said in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_corner_that_is_none_is_refused_and_the_file_stays(home: Path) -> None:
    camera(home, "floor", "12", "--write")
    before = (home / "fallwatch.toml").read_bytes()
    assert camera(home, "zone", "12", "bed", "1;2", "--write").returncode == 2
    assert camera(home, "zone", "12", "sofa", "1,1", "2,2", "3,1", "--write").returncode == 2
    assert (home / "fallwatch.toml").read_bytes() == before
