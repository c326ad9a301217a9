"""Recordings of one accelerometer: the CSV of the contract with all its real-life faults, and loggers' CWA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import cwa
from models.preprocess import BRIDGE_S, Accel, Times, respace

HEADER = ["time_s", "x_g", "y_g", "z_g"]
PLAUSIBLE_G = 200.0  # no body-worn sensor says more; such a row is damage
PLAUSIBLE_S = 1e10  # later than any clock of seconds
STEP_BACK_S = 2.0  # so far back a time may step where bursts overlap


class RecordingUnreadable(Exception):
    """A recording has no usable rows; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Run:
    """Evenly spaced samples without a hole between them."""

    t_s: Times  # shape (n,), float64, seconds from the recording's first sample
    accel_g: Accel  # shape (n, 3), float32, g, axes x y z


@dataclass(frozen=True, slots=True)
class Recording:
    """One accelerometer's recording, re-spaced."""

    runs: tuple[Run, ...]
    duration_s: float
    bad_rows: int = 0
    placement: str | None = None
    rate_hz: float | None = None
    range_g: float | None = None
    wearable: str | None = None

    @property
    def measured_rate_hz(self) -> float:
        """The samples' own rate: the declared one, else that of the longest run."""
        if self.rate_hz:
            return self.rate_hz
        longest = max(self.runs, key=lambda run: len(run.t_s))
        span = float(longest.t_s[-1] - longest.t_s[0])
        return (len(longest.t_s) - 1) / span if span > 0 else 50.0


def read_recording(path: Path | str) -> Recording:
    """Read a recording; bad rows are counted, times re-spaced, real gaps kept.

    A file that begins as a CWA file does is read as one (`edge.cwa`), whatever its name.

    Raises:
        RecordingUnreadable: the file cannot be opened, has no header, or has no usable row.
    """
    try:
        with Path(path).open("rb") as file:
            logged = file.read(2) in cwa.MAGIC
        if logged:
            return _of_cwa(path)
        text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise RecordingUnreadable(path, error.strerror or str(error)) from None
    comments: dict[str, str] = {}
    rows: list[tuple[float, float, float, float]] = []
    bad_rows = 0
    seen_header = False
    for line in filter(None, map(str.strip, text.splitlines())):
        # Not the csv module: one stray quotation mark would swallow all rows up to the next.
        fields = [field.strip(' \t"') for field in line.split(",")]
        if not seen_header:
            if line.startswith("#"):
                key, _, value = line.lstrip("#").partition(":")
                comments[key.strip().lower()] = value.strip()
            elif [field.lower() for field in fields] == HEADER:
                seen_header = True
            else:
                raise RecordingUnreadable(path, f"no header: the first line should be {','.join(HEADER)}")
            continue
        row = _row(fields)
        if row is None:
            bad_rows += 1
        else:
            rows.append(row)
    if not rows:
        raise RecordingUnreadable(path, f"no usable rows ({bad_rows} bad)" if seen_header else "is empty")
    table = np.array(rows, np.float64)
    rate_hz = _number(comments.get("rate_hz"), low=1.0, high=10_000.0)
    placement = comments.get("placement", "").lower()
    sound = _sound_times(table[:, 0])
    t_s, accel_g = _forward(table[sound, 0]), table[sound, 1:].astype(np.float32)
    runs = tuple(Run(times, accel_g[a:b]) for a, b, times in respace(t_s, rate_hz))
    return Recording(
        runs=runs,
        duration_s=round(float(max(runs[-1].t_s[-1], t_s[-1])), 3),
        bad_rows=bad_rows + len(table) - len(sound),
        placement=placement if placement in {"wrist", "waist"} else None,
        rate_hz=rate_hz,
        range_g=_number(comments.get("range_g"), low=0.5, high=PLAUSIBLE_G),
        wearable=comments.get("wearable"),
    )


def _of_cwa(path: Path | str) -> Recording:
    """Return what a logger recorded.

    Raises:
        OSError: the file cannot be opened.
        RecordingUnreadable: no block of it can be used.
    """
    read = cwa.read_cwa(path)
    if not read.runs:
        raise RecordingUnreadable(path, f"no usable rows ({read.bad_rows} bad)")
    return Recording(
        runs=tuple(Run(t_s, accel_g) for t_s, accel_g in read.runs),
        duration_s=round(float(read.runs[-1][0][-1]), 3),
        bad_rows=read.bad_rows,
        rate_hz=read.rate_hz,
        range_g=read.range_g,
        wearable=read.device,
    )


def _row(fields: list[str]) -> tuple[float, float, float, float] | None:
    try:
        time_s, x, y, z = map(float, fields)
    except ValueError:
        return None
    plausible = abs(time_s) <= PLAUSIBLE_S and all(abs(g) <= PLAUSIBLE_G for g in (x, y, z))  # NaN compares false
    return (time_s, x, y, z) if plausible else None


def _number(text: str | None, *, low: float, high: float) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if low <= value <= high else None


def _sound_times(t_s: Times) -> NDArray[np.intp]:
    """Return the rows that stand where their neighbours say: one that leaps off and back has a damaged digit."""
    before, after = np.diff(t_s, prepend=t_s[0]), np.diff(t_s, append=t_s[-1])
    leaps = (before > STEP_BACK_S) & (after < -STEP_BACK_S) | (before < -STEP_BACK_S) & (after > STEP_BACK_S)
    sound = np.flatnonzero(~leaps)
    steps_back = np.diff(t_s[sound]) < -STEP_BACK_S  # at the ends one step tells
    begin, end = int(steps_back[:1].any()), len(sound) - int(steps_back[1:][-1:].any())
    return sound[begin:end]


def _forward(t_s: Times) -> Times:
    """Count from the first row; a clock that was set back goes on after a hole."""
    steps = np.diff(t_s, prepend=t_s[0])
    steps[steps < -STEP_BACK_S] = 2 * BRIDGE_S
    return steps.cumsum()
