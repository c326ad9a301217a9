"""A room's cameras are paused for personal care: a small file that the command line writes and detect reads.

It ends by itself. It counts by the monotonic clock within one boot, and by the wall clock where that can be
believed, whichever is over first: so no step of a clock and no restart makes it longer than it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edge.clock import clock_ok, utc_now
from edge.core.incident import parse_utc, utc_text
from edge.runfile import read_runfile, write_runfile

PAUSE_MOST_S = 3600.0
FOLDER = "pauses"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that holds."""

    left_s: float
    by: str


def begin_pause(state: Path, room: str, length_s: float, by: str) -> bool:
    """Pause a room's cameras from now on, at most `PAUSE_MOST_S`; return whether that is on disk."""
    path = _file(state, room)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    length_s = min(max(length_s, 0.0), PAUSE_MOST_S)
    body = {"length_s": length_s, "by": by, "at": utc_text(utc_now()), "clock_ok": clock_ok()}
    return write_runfile(path, body)


def end_pause(state: Path, room: str) -> bool:
    """Let a room's cameras look again; return whether there was a pause.

    Raises:
        OSError: the disk refuses, and it goes on.
    """
    held = read_pause(state, room) is not None
    _file(state, room).unlink(missing_ok=True)
    return held


def read_pause(state: Path, room: str) -> Pause | None:
    """Return the pause that holds for a room, if one does; raises nothing."""
    try:
        body = read_runfile(_file(state, room))  # None where it is of another boot
        if body is None:
            return None
        length_s, passed_s = min(float(body["length_s"]), PAUSE_MOST_S), float(body["age_s"])
        if body["clock_ok"] is True and clock_ok():
            passed_s = max(passed_s, (utc_now() - parse_utc(body["at"])).total_seconds())
        left_s, by = length_s - passed_s, str(body["by"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Pause(left_s, by) if left_s > 0 else None


def _file(state: Path, room: str) -> Path:
    return state / FOLDER / f"{quote(room, safe='')}.json"
