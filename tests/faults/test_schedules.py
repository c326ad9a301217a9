"""Nobody answers, two answer at once, handsets are off, quiet is forgotten, the service restarts: in any order.

The alarm service's own loop runs in virtual time on a real journal; what must be true of its pages is worked out
here from what happened, without asking the escalation.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from edge.channels import EspaSettings
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import SNOOZE_MOST_S
from edge.settings import EscalationSettings, HomeSettings, ResidentSettings, Settings
from edge.sinks import Page
from tests.faults.counts import FULL, SEED, count, folder_in_memory, tell
from tests.faults.virtual import AWAY_S, TURN_S, VirtualHome, virtual_home

SCHEDULES = count(200, 100_000)
EXAMPLES = count(15, 1000)
BATCH = 25
GROUPS = ("12", "20", "0", "99")
STEPS_S = (120.0, 240.0, 480.0)
REPEAT_S = 120.0
LATE_S = 5.0 + TURN_S  # 120 s +- 5, and the service looks five times a second
STILL_S = 180.0  # lying without a movement for so long breaks through quiet
RETRY_S = 6.0  # 5 s, and both turns
SOON_S = 0.5  # it looks five times a second
ALARM = re.compile(r"(FALL\?|LONG LIE\?|HELP) RM \d+( \d\d:\d\d)?")
STAFF = ("anna", "ben", "cleo")
HOME = Settings(
    HomeSettings("site-7"),
    resident=tuple(ResidentSettings(f"r{n}", room=str(n), wearable=f"{n:04d}") for n in (1, 2)),
    pager=(EspaSettings(url="tcp://127.0.0.1:1"),),
    escalation=EscalationSettings(groups=GROUPS, steps_s=STEPS_S, repeat_every_s=REPEAT_S),
)

pytestmark = pytest.mark.timeout(120 + SCHEDULES // 20)


@dataclass(frozen=True)
class Away:
    """When the service was not there, and whether the clock is believed since."""

    begin_s: float
    back_s: float
    reboot: bool
    ok: bool


@dataclass(frozen=True)
class Attempt:
    """A page of the alarm itself to one group, handed to a channel."""

    at_s: float
    number: str  # of the round
    group: str
    taken: bool


@dataclass
class Story:
    """What happened to one incident, in seconds since the beginning."""

    incident: str
    kind: Kind
    resident: str
    raised_s: float
    answers: list[tuple[float, str]] = field(default_factory=list)  # when, and over what
    motions: list[tuple[float, str]] = field(default_factory=list)  # "again" is one
    owners: set[str] = field(default_factory=set)  # as each who answered was told

    @property
    def answered_s(self) -> float | None:
        return min((at_s for at_s, _ in self.answers), default=None)


class Schedule:
    """Incidents of one home, what happens to them, and what must be true of the pages."""

    def __init__(self, home: VirtualHome) -> None:
        self.home = home
        self.begun_s = home.now_s
        self.stories: list[Story] = []
        self.quiet: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)  # by resident: from, until, ok
        self.breaks: list[Away] = []
        self.off: list[tuple[float, float]] = []  # handsets are off: from, until
        home.far.sent.clear()
        home.far.refusing = self._refuses

    def _refuses(self) -> bool:
        return any(begin <= self.home.now_s < end for begin, end in self.off)

    # -- what happens -------------------------------------------------------------------------

    def fall(self, kind: Kind, resident: str) -> Story:
        story = Story(self.home.fall(kind, resident=resident), kind, resident, self.home.now_s)
        self.stories.append(story)
        return story

    def acknowledge(self, story: Story, by: str, *, over: str) -> None:
        if over == "journal":
            owner = self.home.journal.acknowledge(story.incident, by)
            if owner is not None:
                story.owners.add(owner)
        else:
            self.home.put(("acknowledge", story.incident, by, "acknowledged"))
        story.answers.append((self.home.now_s, over))

    def resolve(self, story: Story) -> None:
        self.home.journal.resolve(story.incident, Outcome.FALL, "anna")
        story.answers.append((self.home.now_s, "journal"))

    def move(self, story: Story, motion: str) -> None:
        if motion == "again":
            self.home.journal.add(story.incident, "again", probability=0.9, since_impact_s=0.0)
        else:
            self.home.journal.add(story.incident, "motion", motion=motion)
        story.motions.append((self.home.now_s, motion))

    def snooze(self, resident: str, length_s: float) -> None:
        now_s = self.home.now_s
        if length_s > 0:
            self.home.journal.snooze(resident, length_s, "anna")
        else:
            self.home.journal.end_snooze(resident, "anna")
        spans = self.quiet[resident]
        if spans:
            spans[-1] = (spans[-1][0], min(spans[-1][1], now_s), spans[-1][2])  # the newest word counts
        spans.append((now_s, now_s + min(length_s, SNOOZE_MOST_S), self.home.clock.ok))

    def _die(self) -> None:
        """What was on its way to the service, and not in the journal, is lost: calls go on."""
        just_now_s = self.home.now_s - TURN_S
        for story in self.stories:
            if self.home.has_waiting(story.incident):
                story.answers = [
                    (at_s, over) for at_s, over in story.answers if over == "journal" or at_s < just_now_s
                ]

    def crash(self) -> None:
        self._die()
        self.breaks.append(Away(self.home.now_s, self.home.now_s + AWAY_S, reboot=False, ok=self.home.clock.ok))
        self.home.crash()

    def reboot(self, off_s: float, *, ok: bool) -> None:
        self._die()
        now_s = self.home.now_s
        self.breaks.append(Away(now_s, now_s + off_s + AWAY_S, reboot=True, ok=ok))
        self.home.reboot(off_s=off_s, ok=ok)

    def told(self) -> str:
        """Return what happened, for whoever looks into a broken promise."""
        pages = [f"{s.at_s:.1f} {s.page.page_id[-18:]} {s.page.text} {s.taken}" for s in self.home.far.sent]
        return "\n".join([f"quiet {dict(self.quiet)}, away {self.breaks}, handsets off {self.off}", *pages])

    # -- what must be true --------------------------------------------------------------------

    def check(self) -> None:
        for story in self.stories:
            self._check_owner(story)
            attempts = [
                Attempt(sent.at_s, *_round(sent.page), sent.taken)
                for sent in self.home.far.sent
                if sent.page.incident == story.incident and ALARM.fullmatch(sent.page.text)
            ]
            times_s = [attempt.at_s for attempt in attempts]
            for begin_s, end_s, exact in self._loud(story):
                within = [begin_s, *(t for t in times_s if begin_s - 0.01 <= t < end_s), end_s]
                if exact and end_s - begin_s >= SOON_S:
                    assert within[1] - begin_s <= SOON_S, f"{story}: called late in {begin_s, end_s}"
                gap_s = max(b - a for a, b in pairwise(within))
                assert gap_s <= REPEAT_S + LATE_S, f"{story}: {gap_s} s without a page in {begin_s, end_s}"
            if story.answered_s is not None:
                late = [t for t in times_s if t > story.answered_s + SOON_S]
                assert not late, f"{story}: called again after the answer, at {late}"
            self._check_width(story, attempts)
            self._check_retries(story, attempts)

    def _check_owner(self, story: Story) -> None:
        case = self.home.journal.case(story.incident)
        assert case is not None
        owners = {e.body["by"] for e in case.events if e.kind == "acknowledged"}
        assert len([e for e in case.events if e.kind == "acknowledged"]) <= 1
        assert story.owners <= owners

    def _check_width(self, story: Story, attempts: list[Attempt]) -> None:
        """Each round reaches all who are due by then, and nobody who was called before is left out."""
        rounds: dict[str, tuple[float, set[str]]] = {}
        for attempt in attempts:
            rounds.setdefault(attempt.number, (attempt.at_s, set()))[1].add(attempt.group)
        before: set[str] = set()
        trusted = all(away.ok for away in self.breaks)
        for at_s, groups in rounds.values():
            assert groups >= before or self.off, f"{story}: {groups} after {before}"
            before = groups
            quiet_s = sum(
                max(min(until, at_s) - max(begin, story.raised_s), 0.0) for begin, until, _ in self._spans(story)
            )
            for step_s, group in zip((0.0, *STEPS_S), GROUPS, strict=True):
                if trusted and at_s - story.raised_s - quiet_s >= step_s + 1.0:
                    assert group in groups, f"{story}: {group} is not called at {at_s}"
                if not self.off and at_s - story.raised_s < step_s - 1.0:
                    assert group not in groups, f"{story}: {group} is called too early, at {at_s}"
        if not (self.breaks or self._spans(story) or self.off):
            gaps_s = [b - a for a, b in pairwise(at_s for at_s, _ in rounds.values())]
            assert all(abs(gap_s - REPEAT_S) <= LATE_S for gap_s in gaps_s), f"{story}: {gaps_s}"

    def _check_retries(self, story: Story, attempts: list[Attempt]) -> None:
        """A page that no transmitter took goes out again within seconds, until one takes it or nobody needs it."""
        end_s = story.answered_s or self.home.now_s
        for refused in [attempt for attempt in attempts if not attempt.taken]:
            begin_s, soon_s = refused.at_s, refused.at_s + RETRY_S
            later = [attempt for attempt in attempts if begin_s < attempt.at_s <= soon_s]
            again = any(attempt.group == refused.group for attempt in later)
            newer = any(attempt.number != refused.number for attempt in later)
            away = any(away.begin_s <= soon_s and begin_s <= away.back_s for away in self.breaks)
            quiet = any(begin <= soon_s and begin_s <= until for begin, until, _ in self._spans(story))
            assert again or newer or away or quiet or soon_s >= end_s, f"{story}: {refused} was not tried again"

    def _spans(self, story: Story) -> list[tuple[float, float, bool]]:
        return self.quiet[story.resident] if story.kind is Kind.FALL else []

    def _loud(self, story: Story) -> Iterator[tuple[float, float, bool]]:
        """Yield the times in which people must be called: open, unanswered, not quiet, the service there.

        The third says whether the time begins just there; else it may have begun before.
        """
        end_s = story.answered_s if story.answered_s is not None else self.home.now_s
        silent = [(away.begin_s, away.back_s, True) for away in self.breaks]
        for begin, until, believed in self._spans(story):
            silent += self._silence(story, begin, until, believed=believed)
        at_s, exact = story.raised_s, True
        for begin, until, ends_there in sorted(silent):
            if until - begin < SOON_S:  # over before the service looked
                continue
            if at_s < begin <= end_s:
                yield at_s, begin, exact
            if until > at_s:
                at_s, exact = until, ends_there
        if at_s < end_s:
            yield at_s, end_s, exact

    def _silence(
        self, story: Story, begin_s: float, until_s: float, *, believed: bool
    ) -> Iterator[tuple[float, float, bool]]:
        """Yield the times in which a snooze may keep an incident quiet.

        It lasts over a reboot where the clock was believed before and is now, and until somebody lies still.
        """
        inside = [away for away in self.breaks if begin_s <= away.begin_s < until_s]
        rebooted = False
        for from_s, away in [(begin_s, None), *((away.back_s, away) for away in inside)]:
            rebooted = rebooted or (away is not None and away.reboot)
            if rebooted and not (believed and away is not None and away.ok):
                return
            broken_s = max(self._lies_still_from(story, from_s), from_s)
            # How long it was off nobody knows where the clock is not believed: it may be counted from there.
            lost_s = [a.back_s for a in self.breaks if not a.ok and story.raised_s < a.back_s <= broken_s]
            latest_s = max([broken_s, *(back_s + STILL_S + SOON_S for back_s in lost_s)])
            next_s = min((a.begin_s for a in inside if a.begin_s > from_s), default=until_s)
            # Who moves before the service, which counts late, finds them lying long enough is being lifted to it.
            moved = lost_s and any(broken_s <= moved_s <= latest_s for moved_s, _ in story.motions)
            if moved:
                latest_s = next_s
            yield from_s, min(next_s, latest_s), not lost_s and not inside
            if latest_s < next_s:
                return

    @staticmethod
    def _lies_still_from(story: Story, after_s: float) -> float:
        """Return when somebody has lain for 180 s and does not move, first after a moment."""
        impact_s, on_floor, still = story.raised_s, True, True
        changes = [*story.motions, (float("inf"), "end")]
        at_s = story.raised_s
        for change_s, motion in changes:
            breaks_s = max(impact_s + STILL_S, at_s, after_s)
            if on_floor and still and breaks_s + SOON_S < change_s:  # a movement may come before the service looks
                return breaks_s
            at_s = change_s
            if motion == "again":
                if not on_floor:
                    on_floor, impact_s = True, change_s
            else:
                still = motion == "still"
                on_floor = on_floor and motion != "upright"
        return float("inf")


def _round(page: Page) -> tuple[str, str]:
    """Return number and group of a page of a call."""
    _, number, group, _ = page.page_id.split("/")
    return number, group


KINDS = (Kind.FALL, Kind.FALL, Kind.LONG_LIE, Kind.HELP_BUTTON)
TROUBLES = ("motion", "motion", "again", "snooze", "crash", "reboot", "off")
ANSWERS = ("answer", "race", "resolve", "answer-and-die")


def plan(schedule: Schedule, rng: random.Random) -> float:
    """Say what happens in a random schedule; return when it ends."""
    home, begun_s = schedule.home, schedule.begun_s
    length_s = rng.choice([300.0, 300.0, 700.0, 1500.0])
    first_s = begun_s + rng.uniform(1.0, 30.0)
    for resident in ["r1", "r2"][: rng.choice([1, 2, 2])]:
        at_s = first_s + (rng.choice([0.0, rng.uniform(0.0, 200.0)]) if resident == "r2" else 0.0)
        home.at(at_s, partial(schedule.fall, rng.choice(KINDS), resident))
    acts = TROUBLES if rng.random() < 0.3 else TROUBLES + ANSWERS  # or nobody ever comes
    for at_s in sorted(rng.uniform(first_s + 0.5, begun_s + length_s) for _ in range(rng.randrange(7))):
        home.at(at_s, partial(happen, schedule, rng.choice(acts), rng))
    return begun_s + length_s


def happen(schedule: Schedule, what: str, rng: random.Random) -> None:
    open_ones = [story for story in schedule.stories if schedule.home.is_open(story.incident)]
    if not open_ones:
        return
    story = rng.choice(open_ones)
    match what:
        case "motion" if story.answered_s is None:
            schedule.move(story, rng.choice(["still", "moving", "upright"]))
        case "again" if story.answered_s is None and story.kind is Kind.FALL:
            schedule.move(story, "again")
        case "snooze":
            schedule.snooze(story.resident, rng.choice([0.0, 60.0, 600.0, 900.0, 1e6]))
        case "crash":
            schedule.crash()
        case "reboot":
            schedule.reboot(rng.uniform(15.0, 120.0), ok=rng.random() < 0.5)
        case "off":
            schedule.off.append((schedule.home.now_s, schedule.home.now_s + rng.uniform(1.0, 200.0)))
        case "answer":
            schedule.acknowledge(story, rng.choice(STAFF), over=rng.choice(["journal", "mqtt"]))
        case "race":
            for by in rng.sample(STAFF, 3):
                schedule.acknowledge(story, by, over=rng.choice(["journal", "mqtt"]))
        case "resolve":
            schedule.resolve(story)
        case "answer-and-die":
            schedule.acknowledge(story, "anna", over="journal")
            schedule.crash()


def run_batch(seed: int, schedules: int) -> int:
    """Run schedules one after the other in one home; return how many pages were handed over."""
    pages = 0
    with folder_in_memory() as folder, virtual_home(HOME, folder, random.Random(seed)) as home:
        home.tells_record = False
        for number in range(seed, seed + schedules):
            rng = random.Random(number)
            schedule = Schedule(home)
            home.run(plan(schedule, rng))
            try:
                schedule.check()
            except AssertionError as error:
                raise AssertionError(f"schedule {number}: {error}\n{schedule.told()}") from None
            pages += len(home.far.sent)
            clean_up(home)
    return pages


def clean_up(home: VirtualHome) -> None:
    home.forget_acts()  # else a snooze of this schedule comes in the next, whose books know nothing of it
    home.clock.ok, home.far.refusing = True, lambda: False
    for case in home.journal.open_cases():
        home.journal.resolve(case.facts.incident, Outcome.NOT_A_FALL, "anna")
    for resident in ("r1", "r2"):
        home.journal.end_snooze(resident, "anna")
    home.run(home.now_s + 100.0)  # until lines that were down count as well again


def test_in_any_schedule_people_are_called_until_one_of_them_answers() -> None:
    seeds = range(SEED * 1000, SEED * 1000 + SCHEDULES, BATCH)
    if FULL:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            pages = sum(pool.map(run_batch, seeds, [BATCH] * len(seeds)))
    else:
        pages = sum(run_batch(seed, BATCH) for seed in seeds)
    tell("21, 22 random schedules", schedules=SCHEDULES, pages=pages, broken_promises=0)
    assert pages > SCHEDULES


@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
    acts=st.lists(
        st.tuples(st.floats(0.0, 300.0), st.sampled_from(TROUBLES + ANSWERS), st.integers(0, 1000)), max_size=8
    ),
)
def test_in_the_schedules_that_hypothesis_thinks_of_as_well(
    kinds: list[Kind], acts: list[tuple[float, str, int]]
) -> None:
    with folder_in_memory() as folder, virtual_home(HOME, folder, random.Random(0)) as home:
        home.tells_record = False
        schedule, at_s = Schedule(home), 1.0
        for kind, resident in zip(kinds, ("r1", "r2"), strict=False):
            home.at(at_s, partial(schedule.fall, kind, resident))
        for pause_s, what, number in acts:
            at_s += pause_s
            home.at(at_s, partial(happen, schedule, what, random.Random(number)))
        home.run(at_s + 300.0)
        schedule.check()


def test_an_alarm_that_nobody_answers_is_repeated_for_hours_to_everybody(tmp_path: Path) -> None:
    hours = count(4, 24)
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        home.tells_record = False
        schedule = Schedule(home)
        home.at(1.0, partial(schedule.fall, Kind.FALL, "r1"))
        home.run(hours * 3600.0)
        schedule.check()
        rounds = {sent.page.page_id.split("/")[1] for sent in home.far.sent if ALARM.fullmatch(sent.page.text)}
        assert abs(len(rounds) - 30 * hours) <= 1


def test_for_what_is_on_the_board_alone_nobody_is_called_not_even_after_a_restart(tmp_path: Path) -> None:
    at = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    facts = Incident(
        new_incident_id(), "site-7", Kind.BLIND, at, resident="r1", room="1", wearable="0001",
        cause="wearable silent", board_only=True,
    )  # fmt: skip
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        home.at(1.0, lambda: home.journal.raise_incident(facts))
        home.run(3600.0)
        assert not home.far.sent
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        assert [case.facts for case in home.journal.open_cases()] == [facts]
        home.run(3600.0)
        assert not home.far.sent


# -- what was once wrong, in its plainest form --------------------------------------------------


def test_a_line_that_is_down_is_tried_once_for_each_group_every_five_seconds(tmp_path: Path) -> None:
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        home.far.refusing = lambda: home.now_s > 10.0
        home.at(11.0, partial(home.fall, Kind.FALL))
        home.run(115.0)
        tries = Counter(
            (sent.page.page_id, sent.at_s // 5.0) for sent in home.far.sent if ALARM.fullmatch(sent.page.text)
        )
        assert max(tries.values()) <= 2


def test_a_call_that_broke_through_quiet_stays_loud_over_a_restart(tmp_path: Path) -> None:
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        schedule = Schedule(home)
        home.at(1.0, partial(schedule.snooze, "r1", 900.0))
        home.at(2.0, partial(schedule.fall, Kind.FALL, "r1"))
        home.at(200.0, lambda: schedule.move(schedule.stories[0], "moving"))
        home.at(210.0, schedule.crash)
        home.run(600.0)
        called_s = [sent.at_s for sent in home.far.sent if ALARM.fullmatch(sent.page.text)]
        assert any(at_s < 200.0 for at_s in called_s)  # it broke through
        assert any(210.0 < at_s < 340.0 for at_s in called_s)


def test_a_call_never_narrows_however_often_the_machine_reboots(tmp_path: Path) -> None:
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        schedule = Schedule(home)
        home.at(1.0, partial(schedule.fall, Kind.FALL, "r1"))
        home.at(50.0, partial(schedule.reboot, 20.0, ok=False))
        home.at(600.0, partial(schedule.reboot, 20.0, ok=False))
        home.run(640.0)
        groups = [(sent.at_s, sent.page.to) for sent in home.far.sent if ALARM.fullmatch(sent.page.text)]
        assert {to for at_s, to in groups if at_s < 600.0} == {*GROUPS}
        assert {to for at_s, to in groups if at_s > 600.0} == {*GROUPS}


def test_a_call_never_narrows_whether_the_clock_is_believed_or_not(tmp_path: Path) -> None:
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        schedule = Schedule(home)
        home.at(1.0, partial(schedule.fall, Kind.FALL, "r1"))
        home.at(50.0, partial(schedule.reboot, 100.0, ok=True))
        home.at(160.0, partial(schedule.reboot, 20.0, ok=False))
        home.run(190.0)
        groups = [(sent.at_s, sent.page.to) for sent in home.far.sent if ALARM.fullmatch(sent.page.text)]
        assert {to for at_s, to in groups if at_s < 160.0} == {"12", "20"}
        assert {to for at_s, to in groups if at_s > 160.0} == {"12", "20"}


def test_a_call_never_narrows_where_the_clock_is_believed_for_a_while(tmp_path: Path) -> None:
    with virtual_home(HOME, tmp_path, random.Random(SEED)) as home:
        schedule = Schedule(home)
        home.at(1.0, partial(schedule.fall, Kind.FALL, "r1"))
        for at_s, off_s, ok in ((50.0, 100.0, True), (200.0, 20.0, False), (330.0, 20.0, False)):
            home.at(at_s, partial(schedule.reboot, off_s, ok=ok))
        home.run(360.0)
        groups = [(sent.at_s, sent.page.to) for sent in home.far.sent if ALARM.fullmatch(sent.page.text)]
        assert {to for at_s, to in groups if at_s < 330.0} == {"12", "20", "0"}
        assert {to for at_s, to in groups if at_s > 330.0} == {"12", "20", "0"}
