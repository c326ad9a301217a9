"""One wearable's stream of samples at the model's rate, and what it says about falls.

A detector holds the last window, asks for a score at each hop, weighs what the scores say, and
after an alarm watches whether the person moves, lies still or is up again. Scoring itself happens
outside, batched over all wearables. Time is the stream's own, in grid steps of the model's rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from models.card import Card
from models.preprocess import Accel, as_samples

SILENT_S = 3.0  # a hole in the stream that lasts so long is silence
MOTION_S = 2.0  # stretch over which moving and lying still are told apart
UPRIGHT_AFTER_S = 20.0  # steady moving for so long after an impact: up again, as far as a wearable can tell
SETTLE_S = 6.0  # a change of motion counts once it has lasted
WATCH_S = 900.0  # how long after an alarm motion is reported
GREW_BY = 0.1  # a suspicion that has become so much more probable is told again ...
MOVED_S = 3.0  # ... and one whose impact is now thought to be so far from where it was


class Motion(StrEnum):
    """What the wearable shows after an impact."""

    MOVING = "moving"
    STILL = "still"
    UPRIGHT = "upright"


@dataclass(frozen=True, slots=True)
class FallDetected:
    """Staff must be told now. ``long_lie``: weak evidence, but nobody moved since."""

    impact_s: float
    raised_s: float
    probability: float
    long_lie: bool = False


@dataclass(frozen=True, slots=True)
class Suspected:
    """A suspicion began or grew: too weak to tell staff, unless another witness has one of its own."""

    impact_s: float
    at_s: float
    probability: float


@dataclass(frozen=True, slots=True)
class MotionChanged:
    """After an alarm the person began to move, lay still, or seems to be up."""

    impact_s: float
    at_s: float
    motion: Motion


Finding: TypeAlias = FallDetected | Suspected | MotionChanged


@dataclass(slots=True)
class _Suspicion:
    """Evidence being weighed."""

    impact_k: int
    peak_g: float
    last_k: int  # end of the latest
    for_fall: int = 0  # windows at or above the alarm threshold
    probability: float = 0.0
    told: tuple[float, int] | None = None  # probability and impact as last told


class Detector:
    """Slide a window over one wearable's samples; how they are chunked leaves the findings unchanged.

    Use: `push` samples, then for each window end in `due` score `window(end)` and hand the score
    to `decide`, in order.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._decision = card.decision
        self._keep = card.window_samples
        # Room for a while of samples, so that they are moved rarely; a window is always a view of it.
        self._held = np.empty((self._keep * 8, 3), np.float32)
        self._count = 0  # rows of _held in use
        self._end = 0  # grid index just after the last held sample
        self._segment: int | None = None  # grid index of the segment's first sample
        self._due = 0  # end of the next window to score
        self._scored = 0  # end of the last one
        self._suspicion: _Suspicion | None = None
        self._quiet_until = -1  # refractory, as a grid index
        self._alarm: _Suspicion | None = None
        self._still_since: int | None = None
        self._motion: Motion | None = None
        self._motion_since: tuple[Motion, int] | None = None

    # -- samples in ---------------------------------------------------------------------------

    def push(self, start: int, accel_g: Accel) -> None:
        """Take samples at the model's rate.

        Args:
            start: grid index of the first sample; where it does not follow the last, a new segment
                begins, held still for a window before its first sample so that it is scored at once.
            accel_g: shape (n, 3), float32, g, axes x y z.
        """
        n = len(accel_g)
        if n == 0:
            return
        if self._segment is None or start != self._end:
            self._begin_segment(start, accel_g[0])
        if self._count + n > len(self._held):
            # Whatever the next window to score needs stays.
            keep = self._end - min(self._due, self._end) + self._keep
            held = self._held if keep + n <= len(self._held) else np.empty((2 * (keep + n), 3), np.float32)
            held[:keep] = self._held[self._count - keep : self._count]
            self._held, self._count = held, keep
        self._held[self._count : self._count + n] = accel_g
        self._count += n
        self._end += n

    def _begin_segment(self, start: int, first_g: Accel) -> None:
        self._held[: self._keep] = first_g
        self._count = self._keep
        self._segment, self._end = start, start
        hop = self._card.hop_samples
        self._due = (start // hop + 1) * hop

    # -- windows out --------------------------------------------------------------------------

    def due(self) -> int | None:
        """Return the end of the next window to score, or None until enough samples came."""
        return self._due if self._segment is not None and self._end >= self._due else None

    @property
    def backlog_s(self) -> float:
        """How far scoring is behind the samples."""
        return 0.0 if self._segment is None else max(self._end - self._due, 0) / self._card.rate_hz

    def last(self) -> int | None:
        """Return the end of the newest window not yet scored, for a stream that ends between hops."""
        return None if self._segment is None or self._end <= max(self._scored, self._segment) else self._end

    def window(self, end: int) -> Accel:
        """Return the window that ends at grid index ``end``: a view, (window_samples, 3), float32, g."""
        stop = self._count - (self._end - end)
        return self._held[stop - self._keep : stop]

    # -- scores in, findings out --------------------------------------------------------------

    def decide(self, end: int, probability: float) -> list[Finding]:
        """Weigh the score of the window that ends at ``end``, and move on to the next."""
        self._scored, self._due = end, (end // self._card.hop_samples + 1) * self._card.hop_samples
        window = self.window(end)
        magnitude_g = np.sqrt(np.einsum("ij,ij->i", window, window))
        found: list[Finding] = []
        found += self._weigh(end, probability, magnitude_g)
        found += self._watch(end, magnitude_g)
        return found

    def on_silence(self, *, lasting: bool = True) -> list[Finding]:
        """Raise what is still being weighed when the stream ends or falls silent: silence is no good news.

        A hole that does not last leaves alone whoever lies still after weak evidence: that watch is longer
        than holes, and goes on behind it.
        """
        suspicion = self._suspicion
        if suspicion is None:
            return []
        fresh = self._end - suspicion.last_k <= self._samples(self._decision.weigh_s)
        return [self._raise(suspicion, self._end)] if lasting or fresh else []

    def _weigh(self, end: int, probability: float, magnitude_g: Accel) -> list[Finding]:
        decision = self._decision
        if end <= self._quiet_until:
            # Still the same event: it keeps quiet until its windows have passed.
            if probability >= decision.threshold:
                self._quiet_until = max(self._quiet_until, end + self._samples(decision.refractory_s))
            return []
        suspicion = self._suspicion
        if probability >= decision.suspect_threshold:
            peak = int(magnitude_g.argmax())
            # Not before the segment: what stands there is its first sample, held.
            peak_k, peak_g = max(end - len(magnitude_g) + peak, self._segment or 0), float(magnitude_g[peak])
            if suspicion is None:
                suspicion = self._suspicion = _Suspicion(peak_k, peak_g, end)
                self._still_since = None
            elif peak_g > suspicion.peak_g:
                suspicion.impact_k, suspicion.peak_g = peak_k, peak_g
            suspicion.last_k = end
            suspicion.probability = max(suspicion.probability, probability)
            suspicion.for_fall += probability >= decision.threshold
            if suspicion.for_fall >= decision.confirm_windows:
                return [self._raise(suspicion, end)]
        if suspicion is None:
            return []
        if self._still_for(end, magnitude_g) >= self._samples(decision.long_lie_still_s):
            return [self._raise(suspicion, end, long_lie=True)]
        weighed = end - suspicion.last_k > self._samples(decision.weigh_s)
        if weighed and self._still_since is None:
            self._suspicion = None
        return self._tell(suspicion, end)

    def _tell(self, suspicion: _Suspicion, end: int) -> list[Finding]:
        """Return the suspicion if it is new, or notably more than when it was last told."""
        told = suspicion.told
        if told is not None:
            moved_k = abs(suspicion.impact_k - told[1])
            if suspicion.probability < told[0] + GREW_BY and moved_k < self._samples(MOVED_S):
                return []
        suspicion.told = (suspicion.probability, suspicion.impact_k)
        impact_s = self.seconds(suspicion.impact_k)
        return [Suspected(impact_s, self.seconds(end), round(suspicion.probability, 4))]

    def _raise(self, suspicion: _Suspicion, end: int, *, long_lie: bool = False) -> FallDetected:
        self._suspicion, self._alarm = None, suspicion
        self._motion, self._motion_since = None, None
        self._quiet_until = end + self._samples(self._decision.refractory_s)
        return FallDetected(
            self.seconds(suspicion.impact_k), self.seconds(end), round(suspicion.probability, 4), long_lie
        )

    def _still_for(self, end: int, magnitude_g: Accel) -> int:
        """Return for how many samples nothing has moved, given the newest window."""
        if float(magnitude_g[-self._samples(MOTION_S) :].std()) >= self._decision.still_g:
            self._still_since = None
        elif self._still_since is None:
            self._still_since = end
        return 0 if self._still_since is None else end - self._still_since

    # -- after an alarm -----------------------------------------------------------------------

    def _watch(self, end: int, magnitude_g: Accel) -> list[Finding]:
        alarm = self._alarm
        if alarm is None:
            return []
        since_impact = end - alarm.impact_k
        if since_impact > self._samples(WATCH_S):
            self._alarm = None
            return []
        if since_impact < self._samples(MOTION_S + 1.0):
            return []  # the impact itself is still in view
        moving = float(magnitude_g[-self._samples(MOTION_S) :].std()) >= self._decision.still_g
        now = Motion.MOVING if moving else Motion.STILL
        if self._motion_since is None or self._motion_since[0] is not now:
            self._motion_since = (now, end)
        lasted = end - self._motion_since[1]
        if now is Motion.MOVING and lasted >= self._samples(UPRIGHT_AFTER_S):
            now = Motion.UPRIGHT
        if now is self._motion or (self._motion is Motion.UPRIGHT and now is Motion.MOVING):
            return []
        if lasted < self._samples(SETTLE_S):
            return []
        self._motion = now
        return [MotionChanged(self.seconds(alarm.impact_k), self.seconds(end), now)]

    # -- units --------------------------------------------------------------------------------

    def seconds(self, k: int) -> float:
        """Turn a grid index into seconds of the stream's own time."""
        return round(k / self._card.rate_hz, 3)

    def _samples(self, seconds: float) -> int:
        return as_samples(seconds, rate_hz=self._card.rate_hz)
