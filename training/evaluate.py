"""Event scores of a bundle on people, through the daemon's own resampler, detector and decision."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.core.detector import FallDetected
from edge.core.poisson import poisson_at_most
from edge.core.replay import replay
from models.card import Card, Decision
from models.preprocess import BRIDGE_S, Accel, Times
from models.scorer import Scorer
from training.readers import Trial

HIT_S = 30.0  # an alarm later than this after the impact is a miss
BETWEEN_FALLS_S = 20.0  # daily activity laid between two falls of a stream, so that one alarm cannot serve both
Runs = list[tuple[Times, Accel]]
NETWORK = "network"
UNSEEN = "unseen people"


class Fall(NamedTuple):
    """When a fall may have begun, and when it hit the ground: seconds of the stream, the second an estimate."""

    onset_s: float
    impact_s: float


@dataclass(frozen=True, slots=True)
class Stream:
    """Recordings of one person end to end, as one wearable would have sent them."""

    dataset: str
    person: str
    age_group: str
    runs: Runs
    falls: tuple[Fall, ...]
    activities: tuple[tuple[float, str], ...]  # when each begins
    daily_s: float  # seconds of daily activity in it


@dataclass(slots=True)
class Tally:
    """Events counted over streams."""

    falls: int = 0
    detected: int = 0
    within_10_s: int = 0
    false_alarms: int = 0
    daily_s: float = 0.0
    trials: int = 0  # daily trials replayed one by one
    alarming: int = 0
    delays_s: list[float] = field(default_factory=list)
    false_by_activity: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in ("falls", "detected", "within_10_s", "false_alarms", "daily_s", "trials", "alarming"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.delays_s += other.delays_s
        for activity, n in other.false_by_activity.items():
            self.false_by_activity[activity] = self.false_by_activity.get(activity, 0) + n

    def facts(self, seeds: int = 1) -> dict[str, object]:
        """Return the figures as a card or a report shows them.

        Args:
            seeds: how often each event is in here; the ranges count it once.
        """
        hours = self.daily_s / 3600
        low, high = wilson(self.detected / seeds, self.falls / seeds)
        at_most = poisson_at_most(round(self.false_alarms / seeds)) * seeds
        facts: dict[str, object] = {
            "falls": self.falls,
            "detected": self.detected,
            "sensitivity_95": [round(low, 3), round(high, 3)] if self.falls else None,
            "detected_within_10_s": self.within_10_s,
            "delay_s": {"p50": _quantile(self.delays_s, 0.5), "p95": _quantile(self.delays_s, 0.95)},
            "daily_hours": round(hours, 2),
            "false_alarms": self.false_alarms,
            "false_alarms_per_hour": round(self.false_alarms / hours, 3) if hours else None,
            "false_alarms_per_hour_at_most_95": round(at_most / hours, 3) if hours else None,
            "daily_trials": self.trials,
            "daily_trials_alarming": self.alarming,
            "false_by_activity": dict(sorted(self.false_by_activity.items(), key=lambda item: -item[1])),
        }
        return facts


class Collector(Scorer):
    """Keeps the windows that it is asked about, to be scored in one batch."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.windows: list[Accel] = []

    def score(self, windows: Accel) -> NDArray[np.float32]:
        """Keep the windows; say no fall."""
        self.windows.append(windows.copy())
        return np.zeros(len(windows), np.float32)


class Tape(Scorer):
    """Scores said before, said again in the same order: many decisions are tried on one pass."""

    def __init__(self, card: Card, said: Sequence[float]) -> None:
        self.card = card
        self._said = said
        self._at = 0

    def score(self, windows: Accel) -> NDArray[np.float32]:
        """Return the scores of the next windows."""
        self._at += len(windows)
        return np.array(self._said[self._at - len(windows) : self._at], np.float32)


class Scores(Protocol):
    """What turns windows into probabilities: a network, or what it is measured against."""

    def score(self, windows: Accel, /) -> NDArray[np.float32]:
        """Return the probability of a fall for each window."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """A stream or a trial with every window's score, in order."""

    stream: Stream
    single: bool  # one trial from a cold start, rather than a stitched stream
    scores: list[float]


@dataclass(frozen=True, slots=True)
class Run:
    """One method over one split of the people, from one seed."""

    method: str
    split: str  # "unseen people", or "without" the set that was left out
    seed: int
    scored: Sequence[Scored]
    thresholds: dict[str, float]  # person: chosen on others than them


def runs_of(times_s: Times, accel_g: Accel) -> Runs:
    """Split samples where a hole is too long to bridge."""
    cuts = np.flatnonzero(np.diff(times_s) > BRIDGE_S) + 1
    return list(zip(np.split(times_s, cuts), np.split(accel_g, cuts), strict=True))


def single(trial: Trial) -> Stream:
    """Return a trial as a stream of its own."""
    falls = () if trial.impact_s is None else (Fall(trial.onset_s, trial.impact_s),)
    daily_s = 0.0 if trial.is_fall else trial.duration_s
    runs = runs_of(trial.time_s, trial.accel_g)
    activities = ((0.0, trial.activity),)
    return Stream(trial.dataset, trial.person, trial.age_group, runs, falls, activities, daily_s)


def stitched(trials: Sequence[Trial]) -> Stream:
    """Lay all trials of one person and set end to end, with daily activity between the falls; always the same."""
    rng = np.random.default_rng(zlib.crc32(f"{trials[0].dataset} {trials[0].person}".encode()))
    daily = [t for t in trials if not t.is_fall]
    falls = [t for t in trials if t.is_fall]
    order: list[Trial] = []
    queue = [daily[i] for i in rng.permutation(len(daily))]
    share = max(1, len(queue) // max(len(falls), 1))
    for i in rng.permutation(len(falls)):
        between, span_s = queue[:share], sum(t.duration_s for t in queue[:share])
        del queue[:share]
        while daily and span_s < BETWEEN_FALLS_S:  # where a person has few daily trials they come again
            again = daily[int(rng.integers(len(daily)))]
            between.append(again)
            span_s += again.duration_s
        order += [*between, falls[i]]
    order += queue
    times: list[Times] = []
    found: list[Fall] = []
    activities: list[tuple[float, str]] = []
    now_s, daily_s = 0.0, 0.0
    for trial in order:
        times.append(trial.time_s - trial.time_s[0] + now_s)
        activities.append((now_s, trial.activity))
        if trial.impact_s is not None:
            shift_s = now_s - float(trial.time_s[0])
            found.append(Fall(trial.onset_s + shift_s, trial.impact_s + shift_s))
        else:
            daily_s += trial.duration_s
        now_s = float(times[-1][-1]) + 1 / trial.rate_hz
    runs = runs_of(np.concatenate(times), np.concatenate([t.accel_g for t in order]))
    first = trials[0]
    return Stream(first.dataset, first.person, first.age_group, runs, tuple(found), tuple(activities), daily_s)


def streams(trials: Iterable[Trial]) -> Iterator[tuple[Stream, bool]]:
    """Return each trial by itself (True), then each person's trials stitched, set by set."""
    by_person: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        by_person.setdefault((trial.dataset, trial.person), []).append(trial)
        yield single(trial), True
    for own in by_person.values():
        yield stitched(own), False


def score_people(trials: Iterable[Trial], scorer: Scorer) -> Iterator[Scored]:
    """Score each trial by itself and each person's stitched stream."""
    for stream, is_single in streams(trials):
        yield Scored(stream, is_single, scorer.score(windows_of(stream, scorer.card)).tolist())


def windows_of(stream: Stream, card: Card) -> Accel:
    """Return the windows that the daemon would score, in order: which these are depends on no score."""
    collector = Collector(card)
    replay(stream.runs, collector)
    return np.concatenate(collector.windows or [np.empty((0, card.window_samples, 3), np.float32)])


def alarms(scored: Scored, card: Card) -> list[FallDetected]:
    """Return what the daemon would have raised with this card's decision."""
    found = replay(scored.stream.runs, Tape(card, scored.scores))
    return [f for f in found if isinstance(f, FallDetected)]


def tally(scored: Scored, card: Card) -> Tally:
    """Match alarms with falls: one alarm per fall, from onset to 30 s past the impact."""
    stream, count = scored.stream, Tally()
    raised = [a.raised_s for a in alarms(scored, card)]
    used: set[int] = set()
    for onset_s, impact_s in stream.falls:
        count.falls += 1
        for i, at_s in enumerate(raised):
            if i not in used and onset_s <= at_s <= impact_s + HIT_S:
                used.add(i)
                count.detected += 1
                count.within_10_s += at_s <= impact_s + 10.0
                count.delays_s.append(at_s - impact_s)
                break
    false = [at_s for i, at_s in enumerate(raised) if i not in used]
    if scored.single:
        count.trials, count.alarming = int(not stream.falls), int(bool(false) and not stream.falls)
        return count
    count.false_alarms, count.daily_s = len(false), stream.daily_s
    for at_s in false:
        activity = [name for begin_s, name in stream.activities if begin_s <= at_s][-1]
        count.false_by_activity[activity] = count.false_by_activity.get(activity, 0) + 1
    return count


@dataclass(frozen=True, slots=True)
class Judged:
    """What the daemon would have done with one stream or trial of a run."""

    run: Run
    one: Scored
    count: Tally


def judge(runs: Sequence[Run], card: Card) -> list[Judged]:
    """Count events of every stream and trial, each person at their own threshold."""
    found = []
    cards = {t: with_threshold(card, t) for run in runs for t in run.thresholds.values()}
    with tqdm(total=sum(len(run.scored) for run in runs), desc="judge", leave=False, disable=None) as bar:
        for run in runs:
            for one in run.scored:
                own = cards[run.thresholds[one.stream.person]]
                found.append(Judged(run, one, _tally_or_nothing(one, own)))
                bar.update()
    return found


def _tally_or_nothing(one: Scored, card: Card) -> Tally:
    if max(one.scores, default=0.0) >= card.decision.suspect_threshold:
        return tally(one, card)
    # Nothing is suspected, so nothing is raised, and most streams need no replay.
    falls = one.stream.falls
    if one.single:
        return Tally(falls=len(falls), trials=int(not falls))
    return Tally(falls=len(falls), daily_s=one.stream.daily_s)


def grouped(counts: Iterable[tuple[str, Tally]]) -> dict[str, Tally]:
    """Return the sums of tallies by name."""
    found: dict[str, Tally] = {}
    for name, count in counts:
        found.setdefault(name, Tally()).add(count)
    return dict(sorted(found.items()))


def report(scored: Iterable[Scored], card: Card) -> dict[str, dict[str, Tally]]:
    """Return tallies: by set, then ``streams`` (stitched) and ``trials`` (each from a cold start)."""
    found: dict[str, dict[str, Tally]] = {}
    for one in scored:
        kinds = found.setdefault(one.stream.dataset, {"streams": Tally(), "trials": Tally()})
        kinds["trials" if one.single else "streams"].add(tally(one, card))
    return found


def choose_threshold(scored: Sequence[Scored], card: Card, weights: dict[str, float], *, target: float) -> float:
    """Return the lowest threshold at which at most ``target`` of the daily trials alarm.

    The share is the mean over sets, weighted; only people who are not tested may be given.
    """
    daily = [one for one in scored if one.single and not one.stream.falls and weights.get(one.stream.dataset)]
    total = sum(weights[d] for d in {one.stream.dataset for one in daily})
    chosen = 0.999
    for threshold in 1 / (1 + np.exp(-np.arange(6.0, -2.01, -0.25))):
        tried = with_threshold(card, float(threshold))
        share: dict[str, list[int]] = {}
        for one in daily:
            # No window reaches it: no alarm, and most trials need no replay.
            hit = max(one.scores, default=0.0) >= tried.decision.suspect_threshold and bool(alarms(one, tried))
            share.setdefault(one.stream.dataset, []).append(hit)
        if sum(weights[d] * float(np.mean(hits)) for d, hits in share.items()) / total > target:
            break
        chosen = float(threshold)
    return chosen


def with_threshold(card: Card, threshold: float) -> Card:
    """Return the card with another threshold, and the suspicion that goes with it."""
    suspect = suspect_for(threshold)
    decision: Decision = replace(card.decision, threshold=threshold, suspect_threshold=suspect)
    return replace(card, decision=decision)


def suspect_for(threshold: float, *, weaker: float = 1.5) -> float:
    """Return the weaker threshold: so much lower in log odds, so that it follows the network's confidence."""
    return 1 / (1 + math.exp(weaker - math.log(threshold / (1 - threshold))))


def wilson(hits: float, of: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    if of == 0:
        return 0.0, 1.0
    z, p = 1.96, hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def _quantile(values: list[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 2) if values else None
