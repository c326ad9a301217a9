"""Whether a camera's frames can be believed: a cause when nobody could be seen in them. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.core.supervision import Cause
from edge.depth.frame import Frame

SAMPLE_PIXELS = 4800  # enough that the noise of a live sensor shows in some of them, at any resolution


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """From when frames are not good enough, and how long they may be so."""

    gone_s: float = 3.0
    near_mm: int = 300  # nothing in a room comes so near to a camera on its wall
    covered_part: float = 0.9  # of the pixels nearer than that, or without a reading
    blocked_s: float = 5.0
    valid_part: float = 0.3  # fewer pixels with a reading are too few
    dark_s: float = 10.0
    frozen_s: float = 5.0
    rate_part: float = 2 / 3  # of the declared rate
    rate_over_s: float = 5.0  # measured so long
    rate_s: float = 5.0
    hot_c: float | None = None  # None: its heat is not looked at
    hot_s: float = 10.0
    well_s: float = 5.0  # good again only after so long without a fault


@dataclass(slots=True)
class _Fault:
    """One fault, which is named when it has lasted and taken back when it has been away."""

    cause: Cause
    after_s: float
    well_s: float
    since_s: float | None = None  # of the present state, bad or good
    bad: bool = False
    named: bool = False

    def observe(self, bad: bool, now_s: float) -> None:
        if self.since_s is None or bad is not self.bad:
            self.since_s, self.bad = now_s, bad
        if now_s - self.since_s >= (self.after_s if bad else self.well_s):
            self.named = bad


class FrameWatch:
    """Watch one camera; ``fps`` is what its settings declare."""

    def __init__(self, fps: float, limits: FrameLimits | None = None, *, now_s: float) -> None:
        limits = limits or FrameLimits()
        self._limits = limits
        self._fps = fps
        names = {
            Cause.CAMERA_GONE: limits.gone_s,
            Cause.CAMERA_BLOCKED: limits.blocked_s,
            Cause.CAMERA_FROZEN: limits.frozen_s,
            Cause.CAMERA_DARK: limits.dark_s,
            Cause.CAMERA_RATE: limits.rate_s,
            Cause.CAMERA_HOT: limits.hot_s,
        }
        self._faults = {cause: _Fault(cause, after_s, limits.well_s) for cause, after_s in names.items()}
        self._last_s = now_s  # of the last frame, or the beginning
        self._arrivals: deque[float] = deque()
        self._counted_from_s = now_s
        self._before: tuple[float, float | None] | None = None  # the frame's and the camera's own time
        self._sample: NDArray[np.uint16] | None = None
        self._has_seen = False  # it once had enough readings

    def observe(self, frame: Frame, *, now_s: float) -> Cause | None:
        """Take the frame that came now; return why nobody can be seen, the most telling cause alone."""
        limits = self._limits
        if now_s - self._last_s >= limits.gone_s:  # the time without frames is told as such, not as a rate
            self._faults[Cause.CAMERA_GONE].named = True
            self._faults[Cause.CAMERA_RATE].since_s = None
            self._arrivals.clear()
            self._counted_from_s = now_s
        self._last_s = now_s
        self._arrivals.append(now_s)
        sample = _sample(frame)
        pixels = max(sample.size, 1)
        covered = float(np.count_nonzero(sample < limits.near_mm)) / pixels  # 0, no reading, among them
        valid = float(np.count_nonzero(sample)) / pixels
        near = covered - (1.0 - valid)
        dark = valid < limits.valid_part
        self._has_seen |= not dark and covered < limits.covered_part
        # Without any reading from the start it may be broken or mis-set; only what comes over it covers it.
        blocked = covered >= limits.covered_part and (self._has_seen or near >= 0.5)
        hot = limits.hot_c is not None and (frame.temperature_c or -math.inf) > limits.hot_c
        self._tell(Cause.CAMERA_GONE, False, now_s)
        self._tell(Cause.CAMERA_BLOCKED, blocked, now_s)
        self._tell(Cause.CAMERA_DARK, dark, now_s)
        self._tell(Cause.CAMERA_FROZEN, self._stands_still(frame, sample, blank=blocked or dark), now_s)
        self._tell(Cause.CAMERA_HOT, hot, now_s)
        return self._now(now_s)

    def late(self, *, now_s: float) -> Cause | None:
        """Say the same when no frame has come until now."""
        gone = self._faults[Cause.CAMERA_GONE]
        if not gone.bad:
            gone.bad, gone.since_s = True, self._last_s
        self._tell(Cause.CAMERA_GONE, True, now_s)
        return self._now(now_s)

    def _tell(self, cause: Cause, bad: bool, now_s: float) -> None:
        self._faults[cause].observe(bad, now_s)

    def _now(self, now_s: float) -> Cause | None:
        over_s = self._limits.rate_over_s
        while self._arrivals and self._arrivals[0] <= now_s - over_s:
            self._arrivals.popleft()
        if now_s - self._counted_from_s >= over_s and now_s - self._last_s < self._limits.gone_s:
            slow = len(self._arrivals) < self._limits.rate_part * self._fps * over_s
            self._tell(Cause.CAMERA_RATE, slow, now_s)
        return next((fault.cause for fault in self._faults.values() if fault.named), None)

    def _stands_still(self, frame: Frame, sample: NDArray[np.uint16], *, blank: bool) -> bool:
        """Tell whether this frame is the last one again: by its clocks, or by every pixel looked at.

        A covered lens gives the same nothing each time, which is no news about the sensor.
        """
        clocks, before = (frame.time_s, frame.device_s), self._before
        same = not blank and self._sample is not None and np.array_equal(sample, self._sample)
        self._before, self._sample = clocks, sample
        if before is None:
            return False
        stopped = clocks[0] <= before[0]
        if clocks[1] is not None and before[1] is not None:
            stopped |= clocks[1] <= before[1]
        return stopped or same


def _sample(frame: Frame) -> NDArray[np.uint16]:
    """Return some pixels from all over the picture, an own copy."""
    height, width = frame.depth_mm.shape
    step = max(1, math.isqrt(height * width // SAMPLE_PIXELS))
    return frame.depth_mm[::step, ::step].copy()
