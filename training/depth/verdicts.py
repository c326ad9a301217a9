"""What the daemon would have done with each clip, counted by whatever may matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluate import wilson

FLOOR_PELVIS_M = 0.35  # somebody sits or lies on the floor; a bed is higher


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the daemon would have done with one clip."""

    clip: str
    person: str
    source: str
    activity: str
    label: str
    camera: dict[str, Any]
    sensor: str
    room_shown: bool
    found: bool  # the fall
    delay_s: float | None
    by_timer: bool
    false_alarm: bool  # in a daily clip, or well before the fall
    score: float  # the highest
    floor_s: float  # longest time on the floor: the pelvis lower than `FLOOR_PELVIS_M`
    floor_error_s: float | None  # that time on the floor as told minus as true, where there was any


def shares(verdicts: Iterable[Verdict], by: Callable[[Verdict], str]) -> dict[str, dict[str, Any]]:
    """Return falls found and daily clips that alarmed, by group, with 95 % Wilson intervals."""
    counts: dict[str, Counter[str]] = {}
    for v in verdicts:
        count = counts.setdefault(by(v), Counter())
        count[v.label] += 1
        count["found"] += v.found
        count["early"] += v.false_alarm and v.label == "fall"
        count["wrong"] += v.false_alarm and v.label == "adl"
        count["timer"] += v.by_timer
    return {
        name: {
            "falls": c["fall"],
            "found": c["found"],
            "found_95": [round(x, 4) for x in wilson(c["found"], c["fall"])],
            "by_timer": c["timer"],
            "daily": c["adl"],
            "alarming": c["wrong"],
            "alarming_95": [round(x, 4) for x in wilson(c["wrong"], c["adl"])],
            "alarms_before_fall": c["early"],
        }
        for name, c in sorted(counts.items())
    }


def camera_height(v: Verdict) -> str:
    """Return the group of a camera's height."""
    return "ceiling" if v.camera["ceiling"] else f"{np.floor(v.camera['height_m'] / 0.4) * 0.4:.1f} m"


def camera_tilt(v: Verdict) -> str:
    """Return the group of a camera's tilt."""
    return "ceiling" if v.camera["ceiling"] else f"{10 * (v.camera['tilt_deg'] // 10):02.0f} deg"
