"""From a sensor's samples to a model's input, the same for training and for the daemon.

A model sees acceleration in g, axes x y z, at its own rate, clipped to its own range. Everything
else that depends on the device (rate, range, loss) ends here.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Accel: TypeAlias = NDArray[np.float32]
Times: TypeAlias = NDArray[np.float64]

PREPROCESSING_VERSION = 1
BRIDGE_S = 1.0  # longest gap that is bridged by a straight line
TOGETHER_S = 0.004  # no recording is so fast: samples closer than that arrived in one burst
LONGEST_BURST_S = 6.0  # a longer silence is a hole, however many samples follow it
SUB_POINTS = 8  # points averaged per output period


def as_samples(seconds: float, *, rate_hz: float) -> int:
    """Turn a duration into a whole number of samples, at least 1."""
    return max(1, round(seconds * rate_hz))


class CausalResampler:
    """Bring samples at any rate to a fixed grid without looking into the future.

    Output k stands at ``k / rate_hz`` seconds and is the mean, over the period before it, of the
    straight lines between the input samples: an anti-alias filter when the input is faster, an
    interpolation when it is slower. Each output depends on its neighbouring samples alone, so any
    chunking of the input gives the same bits.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._before = (np.arange(SUB_POINTS) + 0.5) / SUB_POINTS  # in output periods before the grid point
        self.restart()

    def restart(self) -> None:
        """Forget the past: the next sample begins a new segment."""
        self._t = np.empty(0, np.float64)
        self._a = np.empty((0, 3), np.float32)
        self._next: int | None = None  # grid index of the next output

    def push(self, t_s: Times, accel_g: Accel) -> tuple[int, Accel]:
        """Take samples and return the outputs that they complete.

        Args:
            t_s: times, shape (n,), float64, seconds, rising.
            accel_g: shape (n, 3), float32, g, axes x y z.

        Returns:
            The grid index of the first output and the outputs, shape (m, 3), float32, g.
        """
        if len(t_s) == 0:
            return self._next or 0, np.empty((0, 3), np.float32)
        t = np.concatenate([self._t, t_s])
        a = np.concatenate([self._a, accel_g])
        if self._next is None:
            self._next = int(np.floor(t[0] * self._rate_hz)) + 1
        first, stop = self._next, int(np.floor(t[-1] * self._rate_hz)) + 1
        if stop <= first:
            self._t, self._a = t, a
            return first, np.empty((0, 3), np.float32)
        at = ((np.arange(first, stop)[:, None] - self._before) / self._rate_hz).ravel()
        right = np.clip(np.searchsorted(t, at, side="right"), 1, len(t) - 1)
        left = right - 1
        span = t[right] - t[left]
        weight = np.clip((at - t[left]) / np.where(span > 0, span, 1.0), 0.0, 1.0).astype(np.float32)[:, None]
        out = (a[left] + (a[right] - a[left]) * weight).reshape(-1, SUB_POINTS, 3).mean(axis=1, dtype=np.float32)
        keep = max(int(np.searchsorted(t, (stop - 1) / self._rate_hz, side="right")) - 1, 0)
        self._t, self._a, self._next = t[keep:], a[keep:], stop
        return first, out


def respace(arrival_s: Times, rate_hz: float | None = None) -> list[tuple[int, int, Times]]:
    """Turn arrival times, which come in bursts or repeat, into evenly spaced runs.

    A step much longer than the usual ones ends a run; where most samples arrive together, the usual
    steps are those from burst to burst. Within a run the samples are spread evenly, which is where
    they must have been. Whether the hole between two runs is bridged is the listener's decision
    (`BRIDGE_S`).

    Args:
        arrival_s: shape (n,), float64, seconds, in file order; may repeat or step back a little.
        rate_hz: the device's declared rate, where known; it spaces runs too short to measure.

    Returns:
        ``(start, stop, times)`` for each run: half-open row span and its even times in seconds.
    """
    n = len(arrival_s)
    if n == 0:
        return []
    forward = np.maximum.accumulate(arrival_s)
    steps = np.diff(forward)
    in_bursts = n > 1 and float(np.median(steps)) < TOGETHER_S
    known = np.sort(steps[(steps > 0) & (steps <= (LONGEST_BURST_S if in_bursts else BRIDGE_S))])
    usual_s = longest_s = BRIDGE_S
    if len(known):
        # From burst to burst: the step in which the middle of the time passes, however many samples lie in one.
        middle = int(np.searchsorted(known.cumsum(), known.sum() / 2))
        usual_s = float(known[middle]) if in_bursts else float(np.percentile(known, 98))
        longest_s = min(max(3 * usual_s, 4 * float(np.median(known))), BRIDGE_S)
        longest_s = max(longest_s, 1.75 * usual_s)
    cuts = np.concatenate([[0], np.flatnonzero(steps > longest_s) + 1, [n]])
    starts, stops = cuts[:-1], cuts[1:]
    # Rates are counted up to the last burst: how long that one took to gather, nobody knows.
    begins = np.flatnonzero(np.diff(forward, prepend=-np.inf) > (usual_s / 2 if in_bursts else -1.0))
    lasts = begins[np.searchsorted(begins, stops) - 1]
    counts, spans_s = lasts - starts, forward[lasts] - forward[starts]
    usual_hz = rate_hz or (counts.sum() / spans_s.sum() if spans_s.any() else 50.0)
    runs: list[tuple[int, int, Times]] = []
    for start, stop, count, span_s in zip(starts.tolist(), stops.tolist(), counts, spans_s, strict=True):
        # A run's own rate is trusted when it is long enough for the bursts at its ends not to matter.
        rate = count / span_s if span_s > max(2.0, 8 * usual_s) else usual_hz
        times = forward[start] + np.arange(stop - start) / rate
        if stop < n and times[-1] >= forward[stop]:
            times = np.linspace(forward[start], forward[stop], stop - start, endpoint=False)
        runs.append((start, stop, times))
    return runs
