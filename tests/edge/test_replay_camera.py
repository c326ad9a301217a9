"""A recorded depth folder through the daemon's observer and judge, by the command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.depth.frame import Calibration, Intrinsics
from edge.replay_camera import replay_folder
from models.card import newest
from models.scorer import Scorer
from tests.edge.depth_scene import Box, Ellipsoid, Scene, lying, upright

FPS = 10
CAMERA = Intrinsics(160, 120, 140.0, 140.0, 79.5, 59.5)
BED = Box((-1.6, 2.6, 0.0), (-0.7, 4.5, 0.5))


def record(folder: Path, scene: Scene, body: Callable[[float], list[Ellipsoid]], seconds: float) -> Path:
    """Write a recorded depth folder; return its calibration."""
    folder.mkdir()
    for i in range(round(seconds * FPS)):
        cv2.imwrite(str(folder / f"{i:06d}.png"), scene.depth_mm(body(i / FPS)))
    calib = folder.parent / f"{folder.name}.json"
    zones = [{"kind": "bed", "polygon_m": scene.zone(box).polygon_m, "height_m": 0.5} for box in scene.boxes]
    calib.write_text(json.dumps(asdict(scene.camera) | {"fps": FPS, "floor": None, "zones": zones}))
    return calib


def falls(t_s: float) -> list[Ellipsoid]:
    if t_s < 4.0:
        return upright(-0.4 + 0.2 * t_s, 3.0)
    down = min((t_s - 4.0) / 0.7, 1.0)
    return lying(0.4, 3.0) if down == 1.0 else upright(0.4, 3.0, height=1.7 - 1.3 * down)


def goes_to_bed(t_s: float) -> list[Ellipsoid]:
    if t_s < 4.0:
        return upright(0.6 - 0.2 * t_s, 3.4)
    return lying(-1.15, 3.4, floor=0.5, along=1.0) if t_s > 7.0 else upright(-0.6, 3.4, height=1.2)


def run(*options: object) -> tuple[int, list[dict[str, Any]], str]:
    """Run `fallwatch replay --json`; return its status, lines and errors."""
    command = [sys.executable, "-m", "edge.cli", "replay", "--json", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recorded") / "fall"
    return folder, record(folder, Scene(camera=CAMERA, boxes=[BED]), falls, 12.0)


def test_a_fall_is_found_and_each_frame_traced(fallen: tuple[Path, Path], tmp_path: Path) -> None:
    folder, calib = fallen
    status, [line], _ = run("--camera", calib, "--trace", tmp_path / "trace.csv", folder)
    assert status == 0
    assert (line["recording"], line["placement"], line["bad_rows"]) == (str(folder), "camera", 0)
    assert line["model"].startswith("camera-")
    [alarm] = line["alarms"]
    assert alarm["kind"] == "fall"
    assert alarm["impact_s"] == pytest.approx(4.5, abs=0.6)
    assert alarm["impact_s"] < alarm["raised_s"] < 9.0
    rows = list(csv.DictReader((tmp_path / "trace.csv").read_text().splitlines()))
    assert list(rows[0]) == [
        "frame",
        "time_s",
        "people",
        "head_m",
        "centroid_m",
        "speed_mps",
        "on_floor_s",
        "score",
    ]
    assert [int(row["frame"]) for row in rows] == list(range(120))
    assert {row["people"] for row in rows[5:]} == {"1"}
    assert float(rows[20]["head_m"]) == pytest.approx(1.65, abs=0.1)
    assert float(rows[-1]["on_floor_s"]) == pytest.approx(7.4, abs=1.0)
    assert min(float(row["speed_mps"]) for row in rows[30:55]) < -0.5


def test_who_goes_to_bed_is_no_fall(tmp_path: Path) -> None:
    calib = record(tmp_path / "bed", Scene(camera=CAMERA, boxes=[BED]), goes_to_bed, 14.0)
    status, [line], _ = run("--camera", calib, tmp_path / "bed")
    assert (status, line["alarms"]) == (0, [])


def test_bad_frames_are_counted_and_a_folder_without_any_is_an_error_of_its_own(
    fallen: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, calib = fallen
    (tmp_path / "empty").mkdir()
    status, lines, _ = run("--camera", calib, tmp_path / "empty", folder)
    assert status == 1
    assert "error" in lines[0]
    assert lines[1]["alarms"]
    for i in (3, 40):
        (folder / f"{i:06d}.png").write_bytes(b"\x89PNG no picture")
    _, [line], _ = run("--camera", calib, folder)
    assert line["bad_rows"] == 2
    assert len(line["alarms"]) == 1


def test_a_camera_that_goes_dark_is_said_to_be_blind(tmp_path: Path) -> None:
    calib = record(tmp_path / "dark", Scene(camera=CAMERA), lambda t: upright(0.02 * t, 3.0), 8.0)
    for i in range(80, 300):
        cv2.imwrite(str(tmp_path / "dark" / f"{i:06d}.png"), np.zeros((120, 160), np.uint16))
    _, [line], _ = run("--camera", calib, tmp_path / "dark")
    assert line["blind"], "it looks well while blind"


@pytest.mark.parametrize(
    "text", ["{", '{"width": 160}', '{"width": 0, "height": 1, "fx": 1, "fy": 1, "cx": 0, "cy": 0}']
)
def test_a_calibration_that_is_none_is_refused_by_name(text: str, tmp_path: Path) -> None:
    calib = tmp_path / "calib.json"
    calib.write_text(text)
    status, lines, errors = run("--camera", calib, tmp_path)
    assert (status, lines) == (2, [])
    assert "calib.json" in errors
    assert len(errors.splitlines()) == 1


def test_the_times_of_a_recording_count_from_its_first_frame(fallen: tuple[Path, Path]) -> None:
    folder, _ = fallen
    stamps = folder / "timestamps.csv"
    stamps.write_text("frame,time_s\n" + "".join(f"{i},{1000 + i / FPS}\n" for i in range(120)))
    calibration = Calibration(CAMERA, FPS, Scene(camera=CAMERA).floor)
    line = replay_folder(folder, calibration, Scorer(newest("camera")))
    stamps.unlink()
    assert line["alarms"][0]["impact_s"] == pytest.approx(4.5, abs=0.6)
