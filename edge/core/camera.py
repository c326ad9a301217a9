"""What a camera's stream of observations says about falls.

Each person who is followed has a window of features of their own, which the network scores twice a second.
Whoever lies on the floor is timed beside that, so a slow slide needs no score to be found.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.core.detector import SETTLE_S, WATCH_S, FallDetected, Finding, Motion, MotionChanged, Suspected
from edge.core.seen import FEATURES, Person, Seen
from models.card import Card
from models.scorer import Scorer

Windows = NDArray[np.float32]

FLOOR_STILL_S = 20.0  # on the floor and hardly moving for so long
SUSPECT_FLOOR_S = 5.0  # a suspicion, and on the floor for so long ever since
FLOOR_S = 75.0  # on the floor for so long, whatever they do there: exercise is announced, or done sooner
STILL_PART = 0.06  # of the outline moves: more is limbs
STILL_OF_S = 10.0  # over so long
GAP_S = 1.0  # a longer hole between two frames begins a window anew
FORGET_S = 3.0  # a track not seen for so long does not come back under its number
LOW_M = 0.45  # the body's middle falls below this at the impact
UPRIGHT_M = 1.1  # a head so high is no longer on the floor
AGAIN_S = 10.0  # one alarm until somebody has been up for so long
DEFAULT_HZ = 10.0

_HEAD, _CENTROID, _MOVING = (FEATURES.index(name) for name in ("head_m", "centroid_m", "moving_part"))


@dataclass(slots=True)
class _Watched:
    """One person's window, and what is being weighed."""

    held: Windows  # shape (window_samples, features), the newest last
    next_k: int  # grid index of the next sample
    seen_s: float
    last: Person
    due: int = 0  # samples until the next score
    score: float = 0.0
    for_fall: int = 0
    suspect_s: float | None = None  # end of the last window that speaks for a fall
    impact_s: float = 0.0
    moving: float = 1.0  # smoothed over STILL_OF_S
    alarm_s: float | None = None  # impact of the alarm that is not over
    up_s: float | None = None  # since when up again
    motion: Motion | None = None
    motion_since: tuple[Motion, float] | None = None


@dataclass(slots=True)
class CameraJudge:
    """Weighs one camera's observations; times are those of `Seen`. Without a scorer only the timer alarms."""

    scorer: Scorer | None
    score: float = 0.0  # the newest, of the person who most looks like fallen
    _watched: dict[int, _Watched] = field(default_factory=dict)

    def observe(self, seen: Seen) -> list[Finding]:
        """Take one frame's observation and return what it settles."""
        found: list[Finding] = []
        due: list[_Watched] = []
        for person in seen.people:
            watched = self._sample(person, seen.time_s)
            if self.scorer is not None and watched.due <= 0:
                watched.due = self.scorer.card.hop_samples
                due.append(watched)
        found += self._score(due, seen.time_s)
        for person in seen.people:
            watched = self._watched[person.track]
            found += self._time(watched, person, seen.time_s)
            found += self._watch(watched, person, seen.time_s)
        for number in [n for n, w in self._watched.items() if seen.time_s - w.seen_s > FORGET_S]:
            found += self._settle(self._watched.pop(number))
        self.score = max((w.score for w in self._watched.values()), default=0.0)
        return found

    def on_silence(self) -> list[Finding]:
        """Raise what is being weighed: the camera fell silent, which is no good news."""
        found = [f for watched in self._watched.values() for f in self._settle(watched)]
        self._watched.clear()
        return found

    # -- samples ------------------------------------------------------------------------------

    def _sample(self, person: Person, now_s: float) -> _Watched:
        rate_hz = DEFAULT_HZ if self.scorer is None else self.scorer.card.rate_hz
        size = 1 if self.scorer is None else self.scorer.card.window_samples
        k = int(now_s * rate_hz)
        features = np.asarray(person.features, np.float32)
        watched = self._watched.get(person.track)
        if watched is None:
            watched = self._watched[person.track] = _Watched(np.tile(features, (size, 1)), k, now_s, person)
        elif now_s - watched.seen_s > GAP_S:
            watched.held[:], watched.next_k = features, k
        new = min(k + 1 - watched.next_k, size)
        if new > 0:
            watched.held[:-new] = watched.held[new:]
            watched.held[-new:] = features
            watched.next_k = k + 1
            watched.due -= new
        passed_s = min(max(now_s - watched.seen_s, 0.0), GAP_S)
        watched.moving += (person.features[_MOVING] - watched.moving) * passed_s / STILL_OF_S
        watched.seen_s, watched.last = now_s, person
        return watched

    def _score(self, due: list[_Watched], now_s: float) -> list[Finding]:
        if self.scorer is None or not due:
            return []
        found: list[Finding] = []
        decision = self.scorer.card.decision
        scores = self.scorer.score(np.stack([watched.held for watched in due])).tolist()
        for watched, score in zip(due, scores, strict=True):
            watched.score = score
            faded = watched.suspect_s is not None and now_s - watched.suspect_s > decision.weigh_s
            if faded and not watched.last.on_floor_s:  # who stays down has not answered it
                watched.suspect_s, watched.for_fall = None, 0
            if score < decision.suspect_threshold or watched.alarm_s is not None:
                continue
            if watched.suspect_s is None:
                watched.impact_s = _impact_s(watched, self.scorer.card, now_s)
                found.append(Suspected(round(watched.impact_s, 3), round(now_s, 3), round(score, 4)))
            watched.suspect_s = now_s
            watched.for_fall += score >= decision.threshold
            if watched.for_fall >= decision.confirm_windows:
                found.append(self._raise(watched, now_s))
        return found

    def _settle(self, watched: _Watched) -> list[Finding]:
        """Raise a suspicion about somebody who is no longer seen."""
        if watched.suspect_s is None or watched.alarm_s is not None:
            return []
        return [self._raise(watched, watched.seen_s)]

    def _raise(self, watched: _Watched, now_s: float, *, long_lie: bool = False) -> FallDetected:
        watched.suspect_s, watched.for_fall = None, 0
        watched.alarm_s, watched.up_s = watched.impact_s, None
        watched.motion, watched.motion_since = None, None
        return FallDetected(round(watched.impact_s, 3), round(now_s, 3), round(watched.score, 4), long_lie)

    # -- time on the floor --------------------------------------------------------------------

    def _time(self, watched: _Watched, person: Person, now_s: float) -> list[Finding]:
        if watched.alarm_s is not None or not person.on_floor_s:
            return []
        if watched.suspect_s is not None and person.on_floor_s >= SUSPECT_FLOOR_S:
            return [self._raise(watched, now_s)]
        still = person.on_floor_s >= FLOOR_STILL_S and watched.moving < STILL_PART
        if not still and person.on_floor_s < FLOOR_S:
            return []
        watched.impact_s = now_s - person.on_floor_s
        return [self._raise(watched, now_s, long_lie=True)]

    # -- after an alarm -----------------------------------------------------------------------

    def _watch(self, watched: _Watched, person: Person, now_s: float) -> list[Finding]:
        alarm_s = watched.alarm_s
        if alarm_s is None:
            return []
        up = not person.on_floor_s and person.head_m >= UPRIGHT_M
        if not up:
            watched.up_s = None
        elif watched.up_s is None:
            watched.up_s = now_s
        elif now_s - watched.up_s >= AGAIN_S:
            watched.alarm_s = None
        moving = watched.last.features[_MOVING] >= STILL_PART
        now = Motion.UPRIGHT if up else Motion.MOVING if moving else Motion.STILL
        if watched.motion_since is None or watched.motion_since[0] is not now:
            watched.motion_since = (now, now_s)
        lasted_s = now_s - watched.motion_since[1]
        if now is watched.motion or lasted_s < SETTLE_S or now_s - alarm_s > WATCH_S:
            return []
        watched.motion = now
        return [MotionChanged(round(alarm_s, 3), round(now_s, 3), now)]


def _impact_s(watched: _Watched, card: Card, now_s: float) -> float:
    """Return when the body's middle came down: the last time that it passed `LOW_M`, else its fastest descent."""
    height = watched.held[:, _CENTROID]
    passed = np.flatnonzero((height[:-1] > LOW_M) & (height[1:] <= LOW_M))
    at = int(passed[-1]) + 1 if len(passed) else int(watched.held[:, FEATURES.index("speed_mps")].argmin())
    return now_s - (len(height) - 1 - at) / card.rate_hz
