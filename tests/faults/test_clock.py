"""A clock that jumps, or that nobody vouches for, changes nothing about who is called when."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from edge.core.incident import Kind
from edge.sinks.record import RECORD_FILE
from tests.faults.counts import SEED, count, folder_in_memory, tell
from tests.faults.test_schedules import HOME, Schedule, happen
from tests.faults.virtual import VirtualHome, virtual_home

SCHEDULES = count(20, 1000)
YEAR = timedelta(days=365.25)
JUMPS = [
    timedelta(hours=1),
    -timedelta(hours=1),
    10 * YEAR,
    -10 * YEAR,
    timedelta(seconds=1),
    -timedelta(minutes=3),
]
SUMMER_ENDS = datetime(2026, 10, 25, 0, 58, tzinfo=UTC)  # in London, two minutes before 02:00 becomes 01:00
ACTS = ("motion", "again", "crash", "off", "answer", "race", "resolve")

pytestmark = pytest.mark.timeout(120 + SCHEDULES)


def jump(home: VirtualHome, by: timedelta, ok: bool) -> None:
    home.clock.wall, home.clock.ok = home.clock.wall + by, ok


def pages(number: int, *, jumps: bool) -> list[tuple[float, str, str, str]]:
    """Return when whom was called and what for in a random schedule, in which the clock jumps or not."""
    rng = random.Random(number)
    with folder_in_memory() as folder, virtual_home(HOME, folder, random.Random(number)) as home:
        home.tells_record = False
        if jumps:
            home.clock.wall = rng.choice([SUMMER_ENDS, home.clock.wall])
            home.clock.ok = rng.random() < 0.5
        else:
            rng.choice([0, 1]), rng.random()
        schedule = Schedule(home)
        for resident in ("r1", "r2"):
            home.at(
                rng.uniform(1.0, 30.0), partial(schedule.fall, rng.choice([Kind.FALL, Kind.HELP_BUTTON]), resident)
            )
        for _ in range(rng.randrange(5)):
            home.at(
                rng.uniform(31.0, 900.0), partial(happen, schedule, rng.choice(ACTS), random.Random(rng.random()))
            )
        for _ in range(6):
            at_s, by, ok = rng.uniform(0.5, 900.0), rng.choice(JUMPS), rng.random() < 0.5
            home.at(at_s, partial(jump, home, by, ok) if jumps else lambda: None)
        home.run(1000.0)
        schedule.check()
        residents = {story.incident: story.resident for story in schedule.stories}
        return [
            (
                round(sent.at_s, 3),
                residents.get(sent.page.incident, "home"),
                sent.page.to,
                sent.page.page_id.split("/")[1],
            )
            for sent in home.far.sent
        ]


def test_whatever_the_clock_says_the_same_people_are_called_at_the_same_time() -> None:
    called = 0
    for number in range(SEED, SEED + SCHEDULES):
        steady, jumping = (pages(number, jumps=jumps) for jumps in (False, True))
        assert steady == jumping, f"schedule {number}"
        called += len(jumping)
    tell("7 clock jumps", schedules=SCHEDULES, jumps=6 * SCHEDULES, pages=called, missed=0, extra=0)


def test_an_incident_under_a_clock_nobody_vouches_for_says_so_everywhere() -> None:
    with folder_in_memory() as folder, virtual_home(HOME, folder, random.Random(SEED)) as home:
        home.clock.ok = False
        home.at(1.0, home.fall)
        home.at(5.0, partial(jump, home, -10 * YEAR, ok=False))
        home.at(6.0, home.fall)
        home.run(60.0)
        first, second = home.journal.cases(limit=10)
        assert [first.facts.clock_ok, second.facts.clock_ok] == [False, False]
        assert first.events[0].seq < second.events[0].seq  # in the order in which they happened
        assert first.facts.raised_at > second.facts.raised_at  # whatever the clock said
        texts = {sent.page.text for sent in home.far.sent}
        assert texts == {"FALL? RM 1"}  # no time of day on a page
        with closing(sqlite3.connect(folder / RECORD_FILE)) as db:
            observations = db.execute("SELECT body FROM resource WHERE type = 'Observation'").fetchall()
        assert len(observations) == 2
        assert all("The clock was not synchronised" in body for (body,) in observations)
