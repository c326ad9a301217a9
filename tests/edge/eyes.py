"""Made-up rooms as folders of depth images, and the settings of cameras that play them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2

from edge.depth.frame import Depth
from tests.edge.depth_scene import Scene

FPS = 10.0
CALIBRATION = {"width": 320, "height": 240, "fx": 280.0, "fy": 280.0, "cx": 159.5, "cy": 119.5, "fps": FPS}
CAMERA = """
[[camera]]
id = "cam-{room}"
room = "{room}"
kind = "folder"
device = "{folder}"
width = 320
height = 240
fps = 10
fx = 280.0
fy = 280.0
cx = 159.5
cy = 119.5
resident = "{resident}"
"""
CONSENT = """
[camera.consent]
kind = "consent"
given = 2020-01-01
review = 2999-01-01
"""


def write_folder(folder: Path, frames: Iterable[Depth]) -> Path:
    """Write a recording; there all at once, as a camera that is plugged in."""
    making = folder.with_name(f"{folder.name}.making")
    making.mkdir(parents=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(making / f"{number:06d}.png"), frame)
    (making / "calib.json").write_text(json.dumps(CALIBRATION), encoding="utf-8")
    making.rename(folder)
    return folder


def empty_room(folder: Path, frames: int = 10) -> Path:
    """Write an empty room, with the noise of a sensor."""
    scene = Scene()
    return write_folder(folder, [scene.depth_mm() for _ in range(frames)])


def take_away(folder: Path) -> None:
    """Unplug it."""
    away = folder.with_name(f"{folder.name}.away")
    folder.rename(away)
    shutil.rmtree(away)
