"""Who is called, when, and with which words, until a person answers. Standard library only.

An `Escalation` lives for one incident. It is told what happened and what the time is, and answers
with the calls to make now; `deadline_s` says when to ask again. It sends nothing itself.

Whom it calls is one table, the ladder of `Policy`: the first rung at once, one more at each step,
all of them again and again, for ever. What it does then is another:

======== ============== =====================================================================
from     event          then
======== ============== =====================================================================
calling  due            call everybody reached so far; widen at each step; repeat for ever
calling  not accepted   the same page again after `retry_s`, until a transmitter takes it
calling  snoozed        quiet, and the ladder stands still; unless the person lies still
calling  snooze over    call at once
calling  acknowledged   answered: no more calls for help, but the time on the floor is still told
calling  doubted        the same calls, behind those that nobody doubts
calling  resolved       closed: withdraw the call
both     doubt is gone  tell those who were called: they may have taken their time
answered motion, floor  tell those who were called
answered resolved       closed
======== ============== =====================================================================

A transmitter's acceptance is not a person: it ends the retries, never the escalation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from edge.core.incident import Incident, Kind


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds; ``ladder`` has the groups of each rung in the order they are called."""

    ladder: tuple[tuple[str, ...], ...]
    steps_s: tuple[float, ...]
    repeat_every_s: float
    follow_up_s: tuple[float, ...] = ()
    retry_s: float = 5.0
    technical_repeat_s: float = 1800.0  # a single wearable that is blind is a chore, not an emergency
    lying_still_s: float = 180.0  # a fall so long ago with no movement since: no snooze holds it back


class Words(StrEnum):
    """What a call says; the text for the pager is made from it elsewhere."""

    ALARM = "alarm"
    ON_FLOOR = "on-floor"
    MOVING = "moving"
    UPRIGHT = "upright"
    AGAIN = "again"
    DOWN = "down"  # somebody is seen on the floor after a camera had doubted it
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Call:
    """Say ``words`` to each of ``groups`` now; ``number`` tells the rounds of one incident apart."""

    incident: str
    number: int
    words: Words
    groups: tuple[str, ...]
    minutes: int = 0  # on the floor
    retry: bool = False
    doubted: bool = False  # a camera saw somebody upright all the while


class Stage(StrEnum):
    """Where an escalation stands."""

    CALLING = "calling"
    ANSWERED = "answered"
    CLOSED = "closed"


# What a person does, and what follows; what is not here changes nothing.
_NEXT = {
    (Stage.CALLING, "acknowledged"): Stage.ANSWERED,
    (Stage.CALLING, "resolved"): Stage.CLOSED,
    (Stage.ANSWERED, "resolved"): Stage.CLOSED,
}


class Escalation:
    """One incident's calls; ``now_s`` is monotonic throughout."""

    def __init__(
        self,
        incident: Incident,
        policy: Policy,
        *,
        now_s: float,
        elapsed_s: float = 0.0,
        since_impact_s: float = 0.0,
        rounds: int = 0,
        motions: Iterable[str] = (),
        doubted: bool = False,
    ) -> None:
        """Begin; or go on after a restart, with what had passed, been called and been told until then."""
        self.incident = incident
        self.stage = Stage.CALLING
        self._policy = policy
        self._begun_s = now_s - elapsed_s
        self._impact_s = now_s - since_impact_s
        self._next_call_s = now_s  # at once: also after a restart, when nobody has answered yet
        self._rounds = rounds
        self._alarm_number = 0  # of the newest round of the alarm itself
        self._retry_s: dict[tuple[int, str], tuple[float, Call]] = {}
        seen = list(motions)  # in order
        self._motions = set(seen)  # each is told once
        self._still = not seen or seen[-1] == "still"  # also as long as nothing is known
        self._snoozed_s: tuple[float, float] | None = None  # from, until
        self._doubted = doubted
        self._on_floor = incident.kind in {Kind.FALL, Kind.LONG_LIE} and "upright" not in self._motions
        self._floor_told = sum(since_impact_s >= due for due in policy.follow_up_s)
        self._news: list[tuple[Words, tuple[str, ...]]] = []
        # One blind wearable or camera, or a fault that blinds nobody, asks the first group only; a home gone blind
        # is everybody's business.
        one = incident.wearable or incident.camera
        self._widens = incident.kind is not Kind.BLIND or (one is None and not incident.fault)
        self._repeat_s = policy.repeat_every_s if self._widens else policy.technical_repeat_s

    # -- what happened ------------------------------------------------------------------------

    def on_acknowledged(self) -> None:
        """Note that a person has taken the call."""
        self.stage = _NEXT.get((self.stage, "acknowledged"), self.stage)
        self._drop_outdated()

    def on_resolved(self, *, now_s: float) -> None:
        """Close; a call that nobody had answered is withdrawn."""
        withdraw = self.stage is Stage.CALLING and self._rounds > 0
        self.stage = _NEXT.get((self.stage, "resolved"), self.stage)
        self._drop_outdated()
        if withdraw:
            self._news.append((Words.CANCELLED, self.called(now_s)))

    def on_motion(self, motion: str, *, now_s: float) -> None:
        """Note what the wearable shows after the impact: ``moving``, ``still`` or ``upright``."""
        self._still = motion == "still"
        if self.stage is Stage.CLOSED or motion in self._motions:
            return
        self._motions.add(motion)
        self._on_floor = self._on_floor and motion != "upright"
        self._drop_outdated()
        if motion != "still":
            self._news.append((Words(motion), self.called(now_s)))

    def on_again(self, *, now_s: float, doubted: bool = False) -> None:
        """Note a further fall while nobody has answered: call at once."""
        if self.stage is Stage.CALLING:
            self._doubted = doubted
            if not self._on_floor:  # had got up: the time on the floor begins anew
                self._on_floor, self._impact_s, self._floor_told = True, now_s, 0
                self._motions.clear()
            self._news.append((Words.AGAIN, self.called(now_s)))

    def on_doubt(self, doubted: bool, *, now_s: float) -> None:
        """Note that a camera saw somebody upright all the while, or that this holds no longer."""
        if self._doubted and not doubted and self._rounds and self.stage is not Stage.CLOSED:
            self._news.append((Words.DOWN, self.called(now_s)))
        self._doubted = doubted

    def on_snoozed(self, until_s: float | None, *, now_s: float) -> None:
        """Note that staff asked for quiet until then, or that the quiet is over (None)."""
        if self._snoozed_s is not None:
            # The ladder stood still: those who are called last are not called first when it goes on.
            self._begun_s += max(min(now_s, self._snoozed_s[1]) - self._snoozed_s[0], 0.0)
            self._snoozed_s = None
            self._next_call_s = min(self._next_call_s, now_s)
        if until_s is not None and until_s > now_s and self.incident.kind is Kind.FALL:
            self._snoozed_s = (now_s, until_s)

    def on_ladder(self, ladder: tuple[tuple[str, ...], ...]) -> None:
        """Note that others are on duty now."""
        self._policy = replace(self._policy, ladder=ladder)

    def on_page(self, call: Call, group: str, *, accepted: bool, now_s: float) -> None:
        """Note whether any transmitter took the page to one group."""
        # A page may come back refused long after it was sent: a later round has taken its place.
        replaced = call.words is Words.ALARM and call.number < self._alarm_number
        if accepted or replaced or self._is_outdated(call.words):
            self._retry_s.pop((call.number, group), None)
        else:
            again = replace(call, groups=(group,), retry=True)
            self._retry_s[call.number, group] = (now_s + self._policy.retry_s, again)

    def _is_outdated(self, words: Words) -> bool:
        """Tell whether nobody needs to hear this any more: help is on its way, or up again, or all is over."""
        if self.stage is Stage.CLOSED:
            return words is not Words.CANCELLED
        if words is Words.ON_FLOOR:
            return not self._on_floor
        return self.stage is Stage.ANSWERED and words in {Words.ALARM, Words.AGAIN}

    def _drop_outdated(self) -> None:
        self._news = [news for news in self._news if not self._is_outdated(news[0])]
        self._retry_s = {k: v for k, v in self._retry_s.items() if not self._is_outdated(v[1].words)}

    # -- what to do ---------------------------------------------------------------------------

    def called(self, now_s: float) -> tuple[str, ...]:
        """Return the groups that are called by now: the first, then one more at each step."""
        steps = sum(now_s - self._begun_s >= step for step in self._policy.steps_s) if self._widens else 0
        rungs = self._policy.ladder[: steps + 1]
        return tuple(dict.fromkeys(group for rung in rungs for group in rung))

    def snoozed_until_s(self, now_s: float) -> float | None:
        """Return until when it is quiet; None when it is not, or no longer."""
        if self.stage is not Stage.CALLING or self._snoozed_s is None or now_s >= self._speaks_s():
            return None
        return self._snoozed_s[1]

    def _speaks_s(self) -> float:
        """Return when a snooze ends, or is broken through: whoever lies still is not being lifted."""
        if self._snoozed_s is None:
            return float("-inf")
        begun_s, until_s = self._snoozed_s
        still_s = self._impact_s + self._policy.lying_still_s if self._still and self._on_floor else until_s
        return min(until_s, max(still_s, begun_s))

    def due(self, *, now_s: float) -> list[Call]:
        """Return the calls to make now."""
        calls: list[Call] = []
        if self._snoozed_s is not None and self.stage is Stage.CALLING:
            if now_s < self._speaks_s():
                return []
            self.on_snoozed(None, now_s=now_s)
        if self.stage is Stage.CALLING and now_s >= self._next_call_s:
            self._rounds += 1
            # A new round replaces what was still being retried of the last.
            self._retry_s = {k: v for k, v in self._retry_s.items() if v[1].words is not Words.ALARM}
            calls.append(self._call(Words.ALARM, self.called(now_s)))
            self._alarm_number = self._rounds
            self._next_call_s = self._following_round(now_s)
        for words, groups in self._news:
            self._rounds += 1
            calls.append(self._call(words, groups))
        self._news.clear()
        if self.stage is not Stage.CLOSED and self._on_floor:
            on_floor_s = now_s - self._impact_s
            told = sum(on_floor_s >= due for due in self._policy.follow_up_s)
            if told > self._floor_told:
                self._floor_told = told
                self._rounds += 1
                calls.append(self._call(Words.ON_FLOOR, self.called(now_s), minutes=round(on_floor_s / 60)))
        for key, (at_s, call) in list(self._retry_s.items()):
            if now_s >= at_s:
                del self._retry_s[key]
                calls.append(call)
        return calls

    def deadline_s(self) -> float | None:
        """Return when to ask `due` again, or None when only news can change anything."""
        if self._snoozed_s is not None and self.stage is Stage.CALLING:
            return self._speaks_s()
        due_s = [at_s for at_s, _ in self._retry_s.values()]
        if self.stage is Stage.CALLING:
            due_s.append(self._next_call_s)
        if self.stage is not Stage.CLOSED and self._on_floor and self._floor_told < len(self._policy.follow_up_s):
            due_s.append(self._impact_s + self._policy.follow_up_s[self._floor_told])
        if self._news:
            return float("-inf")
        return min(due_s, default=None)

    def _following_round(self, now_s: float) -> float:
        """Return when to call next: the next repeat, or the next step if it comes first."""
        steps = [self._begun_s + step for step in self._policy.steps_s if self._widens]
        ahead = [at_s for at_s in steps if at_s > now_s + 1e-6]
        repeat_s = now_s + self._repeat_s
        # A repeat just before a step waits for it: one round then serves for both.
        near = [at_s for at_s in ahead if at_s <= repeat_s + self._repeat_s / 24]
        return near[0] if near else repeat_s

    def _call(self, words: Words, groups: tuple[str, ...], minutes: int = 0) -> Call:
        doubted = self._doubted and words in {Words.ALARM, Words.AGAIN}
        return Call(self.incident.incident, self._rounds, words, groups, minutes, doubted=doubted)
