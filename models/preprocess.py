"""From a sensor's samples to a model's input, the same for training and for the daemon.

A model sees acceleration in g, axes x y z, at its own rate, clipped to its own range. Everything
else that depends on the device (rate, range, loss) ends here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Accel: TypeAlias = NDArray[np.float32]
Times: TypeAlias = NDArray[np.float64]

PREPROCESSING_VERSION = 1
BRIDGE_S = 1.0  # longest gap that is bridged by a straight line
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
        right = (
            np.clip(np.searchsorted(t, at, side="right"), 1, len(t) - 1) if len(t) > 1 else np.zeros(len(at), int)
        )
        left = np.maximum(right - 1, 0)
        span = t[right] - t[left]
        weight = np.clip((at - t[left]) / np.where(span > 0, span, 1.0), 0.0, 1.0).astype(np.float32)[:, None]
        out = (a[left] + (a[right] - a[left]) * weight).reshape(-1, SUB_POINTS, 3).mean(axis=1, dtype=np.float32)
        keep = max(int(np.searchsorted(t, (stop - 1) / self._rate_hz, side="right")) - 1, 0)
        self._t, self._a, self._next = t[keep:], a[keep:], stop
        return first, out


def respace(arrival_s: Times, rate_hz: float | None = None) -> list[tuple[int, int, Times]]:
    """Turn arrival times, which come in bursts or repeat, into evenly spaced runs.

    A step much longer than the stream's ordinary ones (bursts included) ends a run. Within a run
    the samples are spread evenly from its first to its last arrival, which is where they must have
    been. Whether the hole between two runs is bridged is the listener's decision (`BRIDGE_S`).

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
    ordinary = steps[(steps > 0) & (steps <= BRIDGE_S)]
    usual_hz = rate_hz or (np.count_nonzero(steps <= BRIDGE_S) / float(ordinary.sum()) if len(ordinary) else 50.0)
    longest = 3 * float(np.percentile(ordinary, 98)) if len(ordinary) else BRIDGE_S
    cuts = [0, *(np.flatnonzero(steps > min(max(longest, 4 / usual_hz), BRIDGE_S)) + 1).tolist(), n]
    runs: list[tuple[int, int, Times]] = []
    for start, stop in pairwise(cuts):
        count, span = stop - start, float(forward[stop - 1] - forward[start])
        # A run's own rate is trusted when it is long enough for the burst at its ends not to matter.
        rate = (count - 1) / span if span > 2.0 and count > 2 else usual_hz
        times = forward[start] + np.arange(count) / rate
        if stop < n and times[-1] >= forward[stop]:
            times = np.linspace(forward[start], forward[stop], count, endpoint=False)
        runs.append((start, stop, times))
    return runs
