"""Whether a wearable's samples can be those of a sound sensor on a person."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from edge.core.supervision import Cause

FULL_SCALE = 32768
RAIL = 32700  # counts: the end of the range
FROZEN_S = 30.0  # a sound sensor's noise moves its last digit within this
MOVES_G = 0.2  # within a batch: a person moves it, so an axis that stands still meanwhile is dead
SATURATED_S = 20.0
SATURATED_PART = 0.25  # of the samples at the end of the range
SCALE_S = 20.0
SCALE_HOLD_S = 60.0  # once named, the scale must be right for so long: movement can hide it for a while
SCALE_EVERY = 5  # samples, of which one is looked at
# mean of |a| over `SCALE_S`: 26.9 h of daily trials leave it when jogging only
SCALE_LEAST_G, SCALE_MOST_G = 0.75, 1.75
LEAST_RATE_HZ = 10.0  # slower, nobody can tell a fall
PACE_S = 20.0  # stretch over which rate and clock are measured
PACE_TOLERANCE = 0.15
PAUSE_S = 2.0  # nothing came for so long: what comes now may be old
SETTLE_S = 10.0  # ... until that is through
JUMP_S = 5.0  # a device's clock does not leap so far
JUMP_HOLD_S = 60.0
TABLE_S = 1080.0  # nobody lies so still
TABLE_SPREAD_G = 0.03  # within a batch: noise of a sensor, no breath
TABLE_DRIFT_G = 0.02  # of the posture over all that time

Counts = NDArray[np.int16]


class SensorWatch:
    """Looks at each batch of one wearable; `cause` says what is wrong with them, if anything is."""

    def __init__(self, *, feels_skin: bool, tick_hz: float = 32768.0) -> None:
        """Begin; one that cannot feel whether it is worn is judged by how still it lies."""
        self._feels_skin = feels_skin
        self._tick_hz = tick_hz
        self.moved_s: float | None = None  # when it was last moved by more than its noise
        self._boot: int | None = None
        self._now_s = 0.0  # when the last batch came
        self._rate_hz = 0.0
        self._constant_s: list[float | None] = [None, None, None]  # since when each axis has not moved
        self._constant_at = [0, 0, 0]
        self._spread_g = 0.0  # most that any axis moved since the last one stood still
        self._railed_s: float | None = None
        self._twins_s: float | None = None  # since when two axes have said the same
        self._mean_g = 1.0
        self._scale_s: float | None = None  # since when the scale is off
        self._scale_off_s = 0.0  # when it last was
        self._pace: deque[tuple[float, int, int]] = deque()  # received, number, ticks
        self._newest = (-1, 0)
        self._settled_s = 0.0
        self._jumped_s: float | None = None
        self._table_s: float | None = None
        self._table_g: NDArray[np.float64] = np.zeros(3)

    def observe(
        self,
        counts: Counts,
        *,
        range_g: int,
        rate_hz: float,
        boot: int,
        first: int,
        tick: int,
        received_s: float,
    ) -> None:
        """Take a batch.

        Args:
            counts: shape (n, 3), int16, ``range_g / 32768`` g each, axes x y z.
            range_g: end of the range as the device declares it.
            rate_hz: as the device declares it.
            boot: number of the device's start.
            first: number of the first sample since then.
            tick: the device's clock at the first sample, wraps at 32 bits.
            received_s: monotonic.
        """
        if boot != self._boot:
            self._boot, self._newest = boot, (-1, 0)
            self._settled_s = received_s
            self._pace.clear()
        paused = received_s - self._now_s > PAUSE_S
        scale_g = range_g / FULL_SCALE
        low, high = counts.min(axis=0).tolist(), counts.max(axis=0).tolist()
        spread = [top - bottom for bottom, top in zip(low, high, strict=True)]
        if max(spread) * scale_g >= MOVES_G:
            self.moved_s = received_s
        self._look_for_dead_axes(low, spread, max(spread) * scale_g, received_s)
        self._look_for_twins(low, high, received_s)
        railed = min(low) <= -RAIL or max(high) >= RAIL
        if railed and np.count_nonzero(np.abs(counts.astype(np.int32)) >= RAIL) >= SATURATED_PART * len(counts):
            self._railed_s = received_s if self._railed_s is None else self._railed_s
        else:
            self._railed_s = None
        self._look_at_scale(counts, scale_g, rate_hz, received_s)
        self._look_at_pace(first, tick, received_s, paused=paused)
        if not self._feels_skin:
            self._look_for_a_table(counts, max(spread) * scale_g, scale_g, received_s)
        self._rate_hz = rate_hz
        self._now_s = received_s

    def cause(self) -> Cause | None:
        """Return what is wrong with the samples up to the last one."""
        now_s = self._now_s
        if 0 < self._rate_hz < LEAST_RATE_HZ:
            return Cause.WRONG_RATE
        if self._railed_s is not None and now_s - self._railed_s >= SATURATED_S:
            return Cause.SATURATED
        dead = [now_s - since_s >= FROZEN_S for since_s in self._constant_s if since_s is not None]
        if (len(dead) == 3 and all(dead)) or (any(dead) and self._spread_g >= MOVES_G):
            return Cause.FROZEN
        if self._twins_s is not None and now_s - self._twins_s >= FROZEN_S:
            return Cause.WRONG_AXES
        if self._scale_s is not None and self._scale_off_s - self._scale_s >= SCALE_S:
            return Cause.WRONG_SCALE
        return self._pace_cause() or self._table_cause()

    def _look_for_dead_axes(self, low: list[int], spread: list[int], spread_g: float, now_s: float) -> None:
        for axis in range(3):
            if spread[axis] or low[axis] != self._constant_at[axis]:
                self._constant_s[axis] = None if spread[axis] else now_s
            elif self._constant_s[axis] is None:
                self._constant_s[axis] = now_s
            self._constant_at[axis] = low[axis]
        none_dead = all(since_s is None for since_s in self._constant_s)
        self._spread_g = 0.0 if none_dead else max(self._spread_g, spread_g)

    def _look_for_twins(self, low: list[int], high: list[int], now_s: float) -> None:
        pairs = {(bottom, top) for bottom, top in zip(low, high, strict=True)}
        if len(pairs) == 3 or any(bottom == top for bottom, top in pairs):
            self._twins_s = None
        elif self._twins_s is None:  # even the noise of two axes is never the same for long
            self._twins_s = now_s

    def _look_at_scale(self, counts: Counts, scale_g: float, rate_hz: float, now_s: float) -> None:
        some = counts[::SCALE_EVERY].tolist()  # so few that plain Python is faster than numpy
        mean_g = sum(math.hypot(*sample) for sample in some) / len(some) * scale_g
        self._mean_g += (mean_g - self._mean_g) * min(len(counts) / (rate_hz * SCALE_S / 2), 1.0)
        if not SCALE_LEAST_G <= self._mean_g <= SCALE_MOST_G:
            self._scale_off_s = now_s
            self._scale_s = now_s if self._scale_s is None else self._scale_s
        elif self._scale_s is not None and now_s - self._scale_off_s >= (
            SCALE_HOLD_S if self._scale_off_s - self._scale_s >= SCALE_S else 0.0
        ):
            self._scale_s = None

    def _look_at_pace(self, first: int, tick: int, now_s: float, *, paused: bool) -> None:
        newest, newest_tick = self._newest
        if first <= newest:
            return  # late or doubled
        elapsed_s = ((tick - newest_tick + (1 << 31)) % (1 << 32) - (1 << 31)) / self._tick_hz
        if newest >= 0 and not paused and abs(elapsed_s - (now_s - self._now_s)) > JUMP_S:
            self._jumped_s = now_s
        self._newest = (first, tick)
        if paused:
            self._settled_s = now_s + SETTLE_S
            self._pace.clear()
        if now_s < self._settled_s or (self._pace and now_s - self._pace[-1][0] < PACE_S / 4):
            return
        ticks = self._pace[-1][2] if self._pace else tick
        self._pace.append((now_s, first, ticks + (tick - ticks + (1 << 31)) % (1 << 32) - (1 << 31)))
        if len(self._pace) > 5:
            self._pace.popleft()

    def _pace_cause(self) -> Cause | None:
        if self._jumped_s is not None and self._now_s - self._jumped_s < JUMP_HOLD_S:
            return Cause.CLOCK_WRONG
        if len(self._pace) < 5:
            return None
        (from_s, from_first, from_tick), (to_s, to_first, to_tick) = self._pace[0], self._pace[-1]
        samples_s = (to_first - from_first) / self._rate_hz
        real_s, device_s = to_s - from_s, (to_tick - from_tick) / self._tick_hz
        if abs(samples_s / real_s - 1) > PACE_TOLERANCE:
            return Cause.WRONG_RATE
        return Cause.CLOCK_WRONG if abs(device_s / real_s - 1) > PACE_TOLERANCE else None

    def _look_for_a_table(self, counts: Counts, spread_g: float, scale_g: float, now_s: float) -> None:
        posture_g = counts.mean(axis=0) * scale_g
        if spread_g > TABLE_SPREAD_G or float(np.abs(posture_g - self._table_g).max()) > TABLE_DRIFT_G:
            self._table_s, self._table_g = now_s, posture_g

    def _table_cause(self) -> Cause | None:
        lies = self._table_s is not None and self._now_s - self._table_s >= TABLE_S
        return Cause.NOT_WORN if lies and not self._feels_skin else None
