"""A recorded depth folder through the very observer and judge of the daemon, in the recording's own time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import cv2

from edge.core.camera import CameraJudge
from edge.core.detector import FallDetected, Finding
from edge.core.incident import Kind
from edge.core.seen import Seen
from edge.depth.frame import Calibration
from edge.depth.observer import Observer
from edge.depth.watch import FrameWatch
from edge.sources.depth.folder import Recording
from models.scorer import Scorer

LEARN_FRAMES = 60  # spread over the recording: an installed camera knows its room, a recording must show it
COLUMNS = ("frame", "time_s", "people", "head_m", "centroid_m", "speed_mps", "on_floor_s", "score")


def replay_folder(
    folder: Path, calibration: Calibration, scorer: Scorer | None, *, trace: Path | None = None
) -> dict[str, Any]:
    """Replay one folder and return the contract's line about it; ``blind`` says when and why nobody was seen.

    Raises:
        CameraGone: it has no usable frame.
        OSError: the trace cannot be written.
    """
    cv2.setNumThreads(1)
    recording = Recording(folder, calibration)
    count = max(sum(1 for _ in folder.glob("*.png")), 1)
    sample = [f.depth_mm for i, f in enumerate(recording) if i % max(count // LEARN_FRAMES, 1) == 0]
    observer, judge = Observer(calibration), CameraJudge(scorer)
    observer.learn(sample)
    del sample
    watch: FrameWatch | None = None
    found: list[Finding] = []
    blind: list[dict[str, Any]] = []
    first_s = last_s = 0.0
    with _writer(trace) as write:
        for frame in recording:
            last_s = frame.time_s
            if watch is None:
                first_s, watch = last_s, FrameWatch(calibration.fps, now_s=last_s)
            cause = watch.observe(frame, now_s=last_s)
            seen = observer.on_frame(frame)
            found += judge.observe(seen)
            _note(blind, cause or seen.cause, last_s - first_s)
            write.writerow(_row(recording.number, seen, judge.score))
    found += judge.on_silence()
    duration_s = round(last_s - first_s, 3)
    return {
        "recording": str(folder),
        "duration_s": duration_s,
        "placement": "camera",
        "model": None if scorer is None else scorer.card.name,
        "alarms": [
            {
                "kind": Kind.LONG_LIE if fall.long_lie else Kind.FALL,
                "impact_s": round(min(max(fall.impact_s - first_s, 0.0), duration_s), 3),
                "raised_s": round(min(max(fall.raised_s - first_s, fall.impact_s - first_s, 0.0), duration_s), 3),
                "probability": fall.probability,
            }
            for fall in found
            if isinstance(fall, FallDetected)
        ],
        "bad_rows": recording.bad_frames,
        "blind": blind,
    }


@contextmanager
def _writer(trace: Path | None) -> Iterator[Any]:
    """Yield a CSV writer with its header written; without a file one that keeps nothing."""
    file: TextIO
    with Path(trace or "/dev/null").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        yield writer


def _row(number: int, seen: Seen, score: float) -> list[Any]:
    """Return a frame's line: of several people the one who needs help most."""
    row: list[Any] = [number, round(seen.time_s, 4), len(seen.people), "", "", "", 0.0, round(score, 4)]
    if seen.people:
        one = seen.people[0]
        row[3:7] = [round(value, 3) for value in (one.head_m, one.centroid_m, one.speed_mps, one.on_floor_s)]
    return row


def _note(blind: list[dict[str, Any]], cause: str | None, at_s: float) -> None:
    if not cause:
        return
    if blind and blind[-1]["cause"] == str(cause) and at_s - blind[-1]["to_s"] < 1.0:
        blind[-1]["to_s"] = round(at_s, 3)
    else:
        blind.append({"cause": str(cause), "from_s": round(at_s, 3), "to_s": round(at_s, 3)})
