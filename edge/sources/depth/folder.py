"""A recorded depth folder: 16-bit PNGs in millimetres, for replay, or played at real time as a camera."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.clock import monotonic_s
from edge.depth.frame import Calibration, Depth, Frame, Intrinsics, Plane, Zone
from edge.sources.depth import CameraGone, Found, Wanted

KIND = "folder"
CALIBRATION = "calib.json"  # beside the pictures, where the settings tell no intrinsics
TIMES = "timestamps.csv"


class NoFrames(CameraGone):
    """A folder has not one usable frame."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(KIND, str(folder), reason)


def read_calibration(path: Path) -> Calibration:
    """Read what is known of the camera of a recording.

    Raises:
        ValueError: the file is not there or not so; the message names file and key.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        intrinsics = Intrinsics(
            *(int(_number(told, key)) for key in ("width", "height")),
            *(_number(told, key) for key in ("fx", "fy", "cx", "cy")),
        )
        fps = _number(told, "fps") if "fps" in told else Calibration.fps
        if min(intrinsics.width, intrinsics.height, intrinsics.fx, intrinsics.fy, fps) <= 0:
            raise ValueError("width, height, fx, fy and fps are above 0")
        floor = told.get("floor")
        plane = None if floor is None else Plane(*_numbers(floor, 4, "floor"))
        zones = tuple(_zone(zone) for zone in told.get("zones", ()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: no calibration of a camera: {error}") from None
    return Calibration(intrinsics, fps, plane, zones)


def _number(told: dict[str, Any], key: str) -> float:
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is a number")
    return float(value)


def _numbers(told: Any, count: int, name: str) -> list[float]:
    if not isinstance(told, list) or len(told) != count:
        raise ValueError(f"{name} is a list of {count} numbers")
    return [_number({name: value}, name) for value in told]


def _zone(told: dict[str, Any]) -> Zone:
    if told.get("kind") not in {"bed", "chair"}:
        raise ValueError('kind of a zone is "bed" or "chair"')
    corners = [_numbers(corner, 2, "polygon_m") for corner in told["polygon_m"]]
    if len(corners) < 3:
        raise ValueError("polygon_m has at least three corners")
    return Zone(str(told["kind"]), tuple((x, z) for x, z in corners), _number(told, "height_m"))


@dataclass(slots=True)
class Recording:
    """The frames of a folder, in the recording's own time, which only moves forward.

    ``bad_frames`` counts those that an iteration could not use: missing in the numbering or on disk, unreadable,
    of another size or depth of colour, without a time or not later than the one before.
    """

    folder: Path
    calibration: Calibration
    bad_frames: int = 0

    def __iter__(self) -> Iterator[Frame]:
        """Yield the usable frames.

        Raises:
            NoFrames: there is not one.
        """
        self.bad_frames = 0
        last_s, why = -math.inf, "no pictures 000000.png and so on"
        lens = self.calibration.intrinsics
        usable = 0
        for number, time_s in self._times():
            depth = _picture(self.folder / f"{number:06d}.png") if time_s is not None else None
            if time_s is None or not last_s < time_s < math.inf:
                why = f"{number:06d}.png has no time, or one not later than the frame before"
            elif depth is None:
                why = f"{number:06d}.png is missing, or no 16-bit grey PNG"
            elif depth.shape != (lens.height, lens.width):
                why = f"{number:06d}.png is {depth.shape[1]} x {depth.shape[0]}, not {lens.width} x {lens.height}"
            else:
                last_s = time_s
                usable += 1
                yield Frame(depth, time_s)
                continue
            self.bad_frames += 1
        if not usable:
            raise NoFrames(self.folder, why)

    def _times(self) -> Iterator[tuple[int, float | None]]:
        """Yield the number and the time of each frame that there is or should be."""
        there = sorted(
            int(path.stem) for path in self.folder.glob("*.png") if path.stem.isdecimal() and len(path.stem) == 6
        )
        table = self.folder / TIMES
        if not table.exists():
            if there:
                yield from ((n, (n - there[0]) / self.calibration.fps) for n in range(there[0], there[-1] + 1))
            return
        times: dict[int, float | None] = dict.fromkeys(there)
        with table.open(encoding="utf-8", errors="replace", newline="") as lines:
            for row in csv.DictReader(line.replace("\0", "") for line in lines):
                try:
                    number, time_s = int(Path(row["frame"]).stem), float(row["time_s"])
                except (KeyError, TypeError, ValueError, csv.Error):
                    self.bad_frames += 1
                    continue
                if 0 <= number < 1_000_000:
                    times[number] = time_s if math.isfinite(time_s) else None
        yield from sorted(times.items())


def _picture(path: Path) -> Depth | None:
    """Return a 16-bit picture, None when it is none."""
    try:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    except cv2.error:  # such as a header that speaks of a picture larger than any
        return None
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        return None
    return np.ascontiguousarray(image, dtype=np.uint16)


def find() -> list[Found]:
    """Return none: a folder is never plugged in."""
    return []


def open_one(wanted: Wanted) -> FolderCamera:
    """Play a folder at real time, over and over."""
    folder = Path(wanted.device)
    try:
        told = read_calibration(folder / CALIBRATION) if wanted.intrinsics is None else None
    except ValueError as error:
        raise CameraGone(KIND, wanted.device, str(error)) from None
    calibration = told or Calibration(wanted.intrinsics, wanted.fps)  # type: ignore[arg-type]  # one is there
    return FolderCamera(folder, calibration, looped=True)


class FolderCamera:
    """A recording as a camera that is there now; ``looped`` begins it anew at its end, else it is then gone."""

    def __init__(self, folder: Path, calibration: Calibration, *, looped: bool = False) -> None:
        self.recording = Recording(folder, calibration)
        self._looped = looped
        self._frames = iter(self.recording)
        self._next: Frame | None = next(self._frames)  # raises NoFrames
        self._shift_s = monotonic_s() - self._next.time_s
        self._due_s = monotonic_s()

    @property
    def intrinsics(self) -> Intrinsics:
        """As recorded."""
        return self.recording.calibration.intrinsics

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame when it is due, None when that is later than the timeout."""
        if self._next is None:
            raise CameraGone(KIND, str(self.recording.folder), "the recording is over")
        self._due_s = self._next.time_s + self._shift_s
        wait_s = self._due_s - monotonic_s()
        time.sleep(max(0.0, min(wait_s, timeout_s)))
        if wait_s > timeout_s:
            return None
        frame = Frame(self._next.depth_mm, self._due_s, device_s=self._due_s)
        self._next = next(self._frames, None)
        if self._next is None and self._looped:
            self._frames = iter(self.recording)
            self._next = next(self._frames)
            self._shift_s = self._due_s + 1.0 / self.recording.calibration.fps - self._next.time_s
        return frame

    def close(self) -> None:
        """Play no more."""
        self._next, self._looped = None, False
