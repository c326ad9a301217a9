"""Who is called and when, until a person answers: an hour of it takes a millisecond."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from edge.core.escalation import Call, Escalation, Policy, Stage, Words
from edge.core.incident import Incident, Kind

GROUPS = ("12", "20", "0", "99")
STEPS_S = (120.0, 240.0, 480.0)
FLOOR_S = (180.0, 300.0, 600.0)
POLICY = Policy(tuple((group,) for group in GROUPS), STEPS_S, 120.0, FLOOR_S)
HOUR_S = 3600.0
SCHEDULES = 10_000
LATE_S = 0.5  # so late the service may ask


def incident(kind: Kind = Kind.FALL, *, wearable: str | None = "0042", name: str = "a") -> Incident:
    return Incident(name, "site-7", kind, datetime(2026, 11, 22, 3, 14, tzinfo=UTC), wearable=wearable)


def play(
    escalation: Escalation, until_s: float, *, from_s: float = 0.0, accept: bool = True
) -> list[tuple[float, Call]]:
    """Ask whenever the escalation wants to be asked, and let the transmitter take or refuse all pages at once."""
    calls: list[tuple[float, Call]] = []
    now_s = from_s
    while (at_s := escalation.deadline_s()) is not None and at_s <= until_s:
        now_s = max(at_s, now_s)
        for call in escalation.due(now_s=now_s):
            calls.append((now_s, call))
            for group in call.groups:
                escalation.on_page(call, group, accepted=accept, now_s=now_s)
    return calls


def alarms(calls: list[tuple[float, Call]]) -> list[tuple[float, tuple[str, ...]]]:
    return [(at_s, call.groups) for at_s, call in calls if call.words is Words.ALARM and not call.retry]


def words(calls: list[tuple[float, Call]]) -> list[tuple[float, Words, int]]:
    return [(at_s, call.words, call.minutes) for at_s, call in calls if call.words is not Words.ALARM]


def test_an_unanswered_fall_is_called_again_and_wider_for_ever() -> None:
    calls = play(Escalation(incident(), POLICY, now_s=0.0), 24 * HOUR_S)
    rounds = alarms(calls)
    assert rounds[:6] == [
        (0, GROUPS[:1]),
        (120, GROUPS[:2]),
        (240, GROUPS[:3]),
        (360, GROUPS[:3]),
        (480, GROUPS),
        (600, GROUPS),
    ]
    assert [at_s for at_s, _ in rounds] == [120.0 * i for i in range(721)]
    assert all(groups == GROUPS for _, groups in rounds[4:])
    assert len({call.number for _, call in calls}) == len(calls)


def test_an_acknowledgement_stops_the_calls() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 130.0)
    escalation.on_acknowledged()
    assert escalation.stage is Stage.ANSWERED
    assert alarms(play(escalation, HOUR_S)) == []


def test_a_resolution_that_nobody_had_answered_withdraws_the_call_from_all_who_got_it() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 250.0)
    escalation.on_resolved(now_s=250.0)
    calls = play(escalation, HOUR_S)
    assert [(call.words, call.groups) for _, call in calls] == [(Words.CANCELLED, GROUPS[:3])]
    assert escalation.deadline_s() is None


def test_an_answered_call_is_closed_without_another_word() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 10.0)
    escalation.on_acknowledged()
    escalation.on_motion("moving", now_s=11.0)
    escalation.on_resolved(now_s=12.0)
    assert play(escalation, HOUR_S) == []
    assert escalation.deadline_s() is None


def test_what_was_resolved_before_anybody_was_called_is_not_withdrawn() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_resolved(now_s=0.0)
    assert play(escalation, HOUR_S) == []


def test_answering_one_fall_does_not_silence_another() -> None:
    ours, theirs = (Escalation(incident(name=name), POLICY, now_s=0.0) for name in "ab")
    ours.on_acknowledged()
    ours.on_resolved(now_s=1.0)
    assert play(ours, HOUR_S) == []
    assert len(alarms(play(theirs, HOUR_S))) == 31


def test_a_page_is_tried_every_five_seconds_until_a_transmitter_takes_it() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    refused = play(escalation, 21.0, accept=False)
    assert [at_s for at_s, _ in refused] == [0, 5, 10, 15, 20]
    assert {call.number for _, call in refused} == {1}
    assert [call.retry for _, call in refused] == [False, True, True, True, True]
    taken = play(escalation, 110.0)
    assert [at_s for at_s, _ in taken] == [25]


def test_one_group_that_refuses_does_not_page_the_others_again() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0, elapsed_s=1000.0, rounds=9)
    (call,) = escalation.due(now_s=0.0)
    assert call.groups == GROUPS
    for group in GROUPS:
        escalation.on_page(call, group, accepted=group != "20", now_s=1.0)
    (again,) = escalation.due(now_s=6.0)
    assert (again.groups, again.number, again.retry) == (("20",), call.number, True)


def test_a_refusal_that_comes_late_does_not_try_an_old_round_beside_the_new() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    (first,) = escalation.due(now_s=0.0)
    (second,) = escalation.due(now_s=120.0)
    escalation.on_page(first, "12", accepted=False, now_s=121.0)
    assert escalation.due(now_s=130.0) == []
    escalation.on_page(second, "12", accepted=False, now_s=131.0)
    assert [call.number for call in escalation.due(now_s=136.0)] == [second.number]


@pytest.mark.parametrize("end", ["acknowledged", "resolved"])
def test_a_refusal_that_comes_after_the_answer_is_not_tried_again(end: str) -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    (alarm,) = escalation.due(now_s=0.0)
    escalation.on_again(now_s=5.0)
    (again,) = escalation.due(now_s=5.0)
    escalation.on_motion("moving", now_s=6.0)
    (moving,) = escalation.due(now_s=6.0)
    if end == "acknowledged":
        escalation.on_acknowledged()
        expected = [Words.MOVING]  # those who come still want to know
    else:
        escalation.on_resolved(now_s=7.0)
        escalation.due(now_s=7.0)
        expected = []
    for call in (alarm, again, moving):
        escalation.on_page(call, "12", accepted=False, now_s=8.0)
    assert [call.words for call in escalation.due(now_s=100.0)] == expected


def test_news_that_waits_for_a_transmitter_is_still_told_after_the_acknowledgement() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 10.0)
    escalation.on_motion("upright", now_s=10.0)
    (upright,) = escalation.due(now_s=10.0)
    escalation.on_page(upright, "12", accepted=False, now_s=11.0)
    escalation.on_acknowledged()
    assert [call.words for call in escalation.due(now_s=20.0)] == [Words.UPRIGHT]


def test_the_time_on_the_floor_is_told_after_3_5_and_10_minutes_also_to_those_who_answered() -> None:
    escalation = Escalation(incident(), POLICY, now_s=2.0, since_impact_s=2.0)
    play(escalation, 60.0)
    escalation.on_acknowledged()
    assert words(play(escalation, HOUR_S)) == [
        (180, Words.ON_FLOOR, 3),
        (300, Words.ON_FLOOR, 5),
        (600, Words.ON_FLOOR, 10),
    ]


def test_who_got_up_is_on_the_floor_no_longer() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 200.0)
    escalation.on_motion("upright", now_s=200.0)
    escalation.on_motion("still", now_s=220.0)
    assert words(play(escalation, HOUR_S, from_s=200.0)) == [(200, Words.UPRIGHT, 0)]


def test_a_time_on_the_floor_that_no_transmitter_took_is_not_told_after_getting_up() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_acknowledged()
    (call,) = escalation.due(now_s=180.0)
    escalation.on_page(call, "12", accepted=False, now_s=181.0)
    escalation.on_motion("upright", now_s=182.0)
    escalation.on_page(call, "20", accepted=False, now_s=183.0)
    assert [call.words for call in escalation.due(now_s=200.0)] == [Words.UPRIGHT]


def test_each_motion_is_told_once_and_stillness_not_at_all() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 10.0)
    for motion in ("still", "moving", "still", "moving", "upright", "upright"):
        escalation.on_motion(motion, now_s=11.0)
    assert [said for _, said, _ in words(play(escalation, 12.0))] == [Words.MOVING, Words.UPRIGHT]


def test_a_further_fall_is_called_at_once_and_the_floor_is_timed_anew_only_after_getting_up() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 30.0)
    escalation.on_again(now_s=30.0)
    assert words(play(escalation, 190.0, from_s=30.0)) == [(30, Words.AGAIN, 0), (180, Words.ON_FLOOR, 3)]
    escalation.on_motion("upright", now_s=190.0)
    escalation.on_again(now_s=200.0)
    told = words(play(escalation, 400.0, from_s=200.0))
    assert told == [(200, Words.UPRIGHT, 0), (200, Words.AGAIN, 0), (380, Words.ON_FLOOR, 3)]


def test_a_doubted_fall_is_called_as_often_and_as_widely_as_any() -> None:
    sure = play(Escalation(incident(), POLICY, now_s=0.0), 24 * HOUR_S)
    doubted = play(Escalation(incident(), POLICY, now_s=0.0, doubted=True), 24 * HOUR_S)
    assert [(at_s, replace(call, doubted=False)) for at_s, call in doubted] == sure
    assert all(call.doubted == (call.words is Words.ALARM) for _, call in doubted)


def test_a_doubt_that_comes_later_is_in_the_next_round_and_no_news() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 10.0)
    escalation.on_doubt(True, now_s=10.0)
    ((at_s, call),) = play(escalation, 130.0, from_s=10.0)
    assert (at_s, call.words, call.doubted) == (120, Words.ALARM, True)


@pytest.mark.parametrize("answered", [False, True])
def test_a_doubt_that_is_taken_back_is_told_at_once_also_to_those_who_answered(answered: bool) -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0, doubted=True)
    play(escalation, 10.0)
    if answered:
        escalation.on_acknowledged()
    escalation.on_doubt(False, now_s=20.0)
    escalation.on_doubt(False, now_s=20.0)
    ((at_s, call),) = play(escalation, 100.0, from_s=20.0)
    assert (at_s, call.words, call.groups, call.doubted) == (20, Words.DOWN, GROUPS[:1], False)
    assert [call.doubted for _, call in play(escalation, 130.0) if call.words is Words.ALARM] == [False] * (
        not answered
    )


def test_a_doubt_that_is_taken_back_before_anybody_was_called_or_after_the_end_is_not_told() -> None:
    early = Escalation(incident(), POLICY, now_s=0.0, doubted=True)
    early.on_doubt(False, now_s=0.0)
    ((_, call),) = play(early, 10.0)
    assert (call.words, call.doubted) == (Words.ALARM, False)
    closed = Escalation(incident(), POLICY, now_s=0.0, doubted=True)
    play(closed, 10.0)
    closed.on_resolved(now_s=10.0)
    closed.on_doubt(False, now_s=11.0)
    assert [call.words for _, call in play(closed, HOUR_S)] == [Words.CANCELLED]


def test_a_further_fall_that_nobody_doubts_ends_the_doubt() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0, doubted=True)
    play(escalation, 10.0)
    escalation.on_again(now_s=20.0)
    said = [(call.words, call.doubted) for _, call in play(escalation, 130.0, from_s=20.0)]
    assert said == [(Words.AGAIN, False), (Words.ALARM, False)]


@pytest.mark.parametrize("kind", [Kind.HELP_BUTTON, Kind.BLIND])
def test_only_falls_and_long_lies_have_a_time_on_the_floor(kind: Kind) -> None:
    escalation = Escalation(incident(kind), POLICY, now_s=0.0)
    assert words(play(escalation, HOUR_S)) == []


def test_one_blind_wearable_asks_the_first_group_twice_an_hour() -> None:
    calls = play(Escalation(incident(Kind.BLIND), POLICY, now_s=0.0), 2 * HOUR_S)
    assert alarms(calls) == [(1800.0 * i, GROUPS[:1]) for i in range(5)]


def test_a_home_gone_blind_is_everybodys_business() -> None:
    calls = play(Escalation(incident(Kind.BLIND, wearable=None), POLICY, now_s=0.0), HOUR_S)
    assert alarms(calls)[4] == (480, GROUPS)


@pytest.mark.parametrize("elapsed_s", [0.0, 119.0, 240.0, 500.0, 1e6])
def test_after_a_restart_the_call_goes_out_at_once_and_no_step_is_taken_back(elapsed_s: float) -> None:
    escalation = Escalation(
        incident(), POLICY, now_s=50.0, elapsed_s=elapsed_s, since_impact_s=elapsed_s, rounds=7
    )
    (at_s, groups), *_ = rounds = alarms(play(escalation, 50.0 + HOUR_S))
    assert (at_s, groups) == (50, GROUPS[: 1 + sum(elapsed_s >= step for step in STEPS_S)])
    assert all(len(a) <= len(b) for (_, a), (_, b) in pairwise(rounds))


def test_after_a_restart_what_was_told_is_not_told_again() -> None:
    escalation = Escalation(
        incident(), POLICY, now_s=0.0, elapsed_s=200.0, since_impact_s=200.0, rounds=5, motions=["moving"]
    )
    escalation.on_acknowledged()
    escalation.on_motion("moving", now_s=1.0)
    calls = play(escalation, HOUR_S)
    assert words(calls) == [(100, Words.ON_FLOOR, 5), (400, Words.ON_FLOOR, 10)]
    assert min(call.number for _, call in calls) > 5


def test_a_home_with_one_group_and_no_steps_is_called_as_well() -> None:
    calls = play(Escalation(incident(), Policy((("7",),), (), 60.0), now_s=0.0), 600.0)
    assert alarms(calls) == [(60.0 * i, ("7",)) for i in range(11)]


# -- quiet -------------------------------------------------------------------------------------------


def test_a_fall_during_quiet_calls_at_its_end_and_the_ladder_begins_there() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_snoozed(600.0, now_s=0.0)
    escalation.on_motion("moving", now_s=1.0)
    assert escalation.snoozed_until_s(5.0) == 600.0
    rounds = alarms(play(escalation, 900.0))
    assert rounds == [(600, GROUPS[:1]), (720, GROUPS[:2]), (840, GROUPS[:3])]


def test_a_call_that_is_put_off_goes_on_where_it_was() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_motion("moving", now_s=1.0)
    assert [groups for _, groups in alarms(play(escalation, 250.0))] == [GROUPS[:1], GROUPS[:2], GROUPS[:3]]
    escalation.on_snoozed(550.0, now_s=250.0)
    assert alarms(play(escalation, 549.0)) == []
    assert alarms(play(escalation, 551.0)) == [(550, GROUPS[:3])]
    assert alarms(play(escalation, 800.0))[-1] == (780, GROUPS)  # 480 s of calling


def test_quiet_that_is_ended_calls_at_once() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_snoozed(600.0, now_s=0.0)
    escalation.on_snoozed(None, now_s=20.0)
    assert alarms(play(escalation, 30.0, from_s=20.0)) == [(20, GROUPS[:1])]


@pytest.mark.parametrize("kind", [Kind.LONG_LIE, Kind.HELP_BUTTON, Kind.BLIND])
def test_long_lies_buttons_and_blindness_break_through(kind: Kind) -> None:
    escalation = Escalation(incident(kind), POLICY, now_s=0.0)
    escalation.on_snoozed(600.0, now_s=0.0)
    assert len(escalation.due(now_s=0.0)) == 1


@pytest.mark.parametrize("motions", [[], ["moving", "still"]])
def test_whoever_lies_still_breaks_through(motions: list[str]) -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_snoozed(600.0, now_s=0.0)
    for motion in motions:
        escalation.on_motion(motion, now_s=10.0)
    assert play(escalation, 179.0) == []
    assert alarms(play(escalation, 181.0)) == [(180, GROUPS[:1])]


def test_an_answer_during_quiet_is_an_answer() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    escalation.on_snoozed(600.0, now_s=0.0)
    escalation.on_acknowledged()
    calls = play(escalation, HOUR_S)
    assert alarms(calls) == []
    assert words(calls) == [(at_s, Words.ON_FLOOR, minutes) for at_s, minutes in ((180, 3), (300, 5), (600, 10))]


def test_whoever_comes_on_duty_is_called_from_then_on() -> None:
    escalation = Escalation(incident(), POLICY, now_s=0.0)
    play(escalation, 130.0)
    escalation.on_ladder((("31",), ("0",)))
    assert alarms(play(escalation, 250.0)) == [(240, ("31", "0"))]


def test_a_fault_that_blinds_nobody_asks_the_first_group_only() -> None:
    facts = replace(incident(Kind.BLIND, wearable=None), fault=True)
    rounds = alarms(play(Escalation(facts, POLICY, now_s=0.0), 2 * HOUR_S))
    assert rounds == [(1800.0 * i, GROUPS[:1]) for i in range(5)]


# -- any schedule ------------------------------------------------------------------------------------


@dataclass
class Watched:
    """One escalation, raised at 0 s, in a random schedule, beside what must be true of it."""

    escalation: Escalation
    stage: Stage = Stage.CALLING
    up: bool = False
    last_round_s: float | None = None
    number: int = 0  # of the newest call
    alarm: int = 0  # of the newest round of the alarm itself
    reached: int = 0
    floor: list[int] = field(default_factory=list)
    refused: dict[tuple[int, str], tuple[float, Words]] = field(default_factory=dict)
    flying: list[tuple[float, Call]] = field(default_factory=list)
    withdrawn: int = 0

    def on_call(self, call: Call, now_s: float) -> None:
        assert call.incident == self.escalation.incident.incident
        steps = sum(now_s >= step for step in STEPS_S)
        if call.retry:
            (group,) = call.groups
            since_s, _ = self.refused.pop((call.number, group))
            assert 5.0 <= now_s - since_s <= 5.0 + LATE_S
        else:
            assert call.number > self.number  # each round is told apart
            self.number = call.number
        if self.stage is Stage.CLOSED:
            assert call.words is Words.CANCELLED
            self.withdrawn += not call.retry
        elif self.stage is Stage.ANSWERED:
            assert call.words not in {Words.ALARM, Words.AGAIN, Words.CANCELLED}
        if call.words is Words.ALARM and not call.retry:
            assert call.groups == GROUPS[: steps + 1]
            assert len(call.groups) >= self.reached
            self.reached, self.last_round_s, self.alarm = len(call.groups), now_s, call.number
            self.refused = {k: v for k, v in self.refused.items() if v[1] is not Words.ALARM}
        if call.words is Words.ON_FLOOR:
            assert not self.up
            if not call.retry:
                self.floor.append(call.minutes)

    def check(self, now_s: float) -> None:
        """What must be true at any time, however late anybody is."""
        if self.stage is Stage.CALLING:
            assert self.last_round_s is not None
            assert now_s - self.last_round_s <= 125.0
            assert self.reached >= 1 + sum(now_s - LATE_S >= step for step in STEPS_S)
        for since_s, said in self.refused.values():
            if not self.outdated(said):
                assert now_s - since_s <= 5.0 + LATE_S

    def outdated(self, said: Words) -> bool:
        if self.stage is Stage.CLOSED:
            return said is not Words.CANCELLED
        if said is Words.ON_FLOOR:
            return self.up
        return self.stage is Stage.ANSWERED and said in {Words.ALARM, Words.AGAIN}


def run_schedule(seed: int) -> None:
    """One incident: people, transmitters, motion, restarts and our own lateness at random."""
    rng = random.Random(seed)
    refusing = rng.choice([0.0, 0.0, 0.3, 0.3, 1.0])
    length_s = rng.choice([300.0] if refusing == 1.0 else [200.0, 700.0, 1200.0])
    w = Watched(Escalation(incident(), POLICY, now_s=0.0))
    plan = ["again", "moving", "upright", "restart", "doubt", "doubt gone"]
    plan += [] if rng.random() < 0.3 else ["acknowledge", "resolve"]  # or nobody ever comes
    events = sorted((rng.uniform(1, length_s), rng.choice(plan)) for _ in range(rng.randrange(6)))
    now_s = 0.0
    while now_s < length_s:
        deadline_s = w.escalation.deadline_s()
        wake_s = [length_s if deadline_s is None else deadline_s, *(e[0] for e in events[:1])]
        now_s = max(now_s, min([length_s, *wake_s, *(at_s for at_s, _ in w.flying)]) + rng.uniform(0, 0.2))
        for call in w.escalation.due(now_s=now_s):
            w.on_call(call, now_s)
            w.flying.append((now_s + rng.choice([0.1, 2.0, 8.0]), call))
        landed = [call for at_s, call in w.flying if at_s <= now_s]
        w.flying = [(at_s, call) for at_s, call in w.flying if at_s > now_s]
        for call in landed:
            for group in call.groups:
                accepted = rng.random() >= refusing
                w.escalation.on_page(call, group, accepted=accepted, now_s=now_s)
                if not accepted and not (call.words is Words.ALARM and call.number < w.alarm):
                    w.refused[call.number, group] = (now_s, call.words)
        w.check(now_s)
        while events and events[0][0] <= now_s:
            happen(w, events.pop(0)[1], now_s)
    if w.stage is not Stage.CLOSED and not w.up:
        assert w.floor == [3, 5, 10][: len(w.floor)]
        assert len(w.floor) >= sum(now_s >= due_s + LATE_S for due_s in FLOOR_S)
    assert w.withdrawn <= 1


def happen(w: Watched, event: str, now_s: float) -> None:
    match event:
        case "acknowledge":
            w.escalation.on_acknowledged()
            w.stage = Stage.ANSWERED if w.stage is Stage.CALLING else w.stage
        case "resolve":
            w.escalation.on_resolved(now_s=now_s)
            w.stage = Stage.CLOSED
        case "again":
            if not w.up:
                w.escalation.on_again(now_s=now_s)
        case "doubt" | "doubt gone":
            w.escalation.on_doubt(event == "doubt", now_s=now_s)
        case "moving" | "upright":
            w.escalation.on_motion(event, now_s=now_s)
            w.up = w.up or event == "upright"
        case "restart" if w.stage is not Stage.CLOSED:
            elapsed_s = now_s
            w.escalation = Escalation(
                w.escalation.incident,
                POLICY,
                now_s=now_s,
                elapsed_s=elapsed_s,
                since_impact_s=elapsed_s,
                rounds=w.number,
                motions=["upright"] * w.up,
            )
            w.refused, w.flying = {}, []
            if w.stage is Stage.ANSWERED:
                w.escalation.on_acknowledged()
            else:
                assert w.escalation.deadline_s() == now_s  # announced again at once
    assert w.escalation.stage is w.stage


@pytest.mark.parametrize("part", range(4))
def test_under_any_schedule_nobody_is_left_uncalled_and_nobody_who_answered_is_called(part: int) -> None:
    for seed in range(part * SCHEDULES // 4, (part + 1) * SCHEDULES // 4):
        try:
            run_schedule(seed)
        except Exception as error:
            raise AssertionError(f"schedule {seed}") from error
