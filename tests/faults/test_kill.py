"""Nothing is lost, and nothing told twice as two, whenever a service is killed.

A third of the kills come at any instant, a third just when something matters, a third at a failpoint around a
commit or a page.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest

from edge.core.incident import Kind, Outcome, State, utc_text
from edge.journal import Case
from edge.runfile import write_runfile
from tests.edge.brokers import MOSQUITTO, Broker, Listener, amqtt, mosquitto
from tests.edge.home import FALL, FALL_LENGTH_S, Home, Paged, Pager, Writer, until
from tests.faults.counts import SEED, count, tell

KILLS = count(3, 500)
HOMES = count(1, 4)  # at once: most of the time goes by in waiting
SETTLE_S = count(60, 600)
PLACES = {
    "alarm": ["journal.before-commit", "journal.after-commit", "alarm.before-page", "alarm.after-page"],
    "detect": ["journal.before-commit", "journal.after-commit"],
}
IN_RECORD = {"raised", "paged", "acknowledged", "attended", "resolved"}
CALLS = '[escalation]\ngroups = ["1"]\nsteps_s = [600]\nrepeat_every_s = 20\n'
ORDER = [*State]

pytestmark = pytest.mark.timeout(120 + 15 * KILLS + SETTLE_S)


def a_broker(folder: Path) -> Broker:
    (folder / "broker").mkdir(parents=True)
    return mosquitto(folder / "broker") if MOSQUITTO else amqtt()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with a_broker(tmp_path) as broker:
        yield broker


class Carer:
    """Answers each page as staff would: acknowledges and closes the oldest open incident of its room."""

    def __init__(self, home: Home, pager: Pager, rng: random.Random) -> None:
        self.paged: Counter[str] = Counter()  # by room
        self._page_came = threading.Event()
        self._home, self._rng = home, rng
        self._rooms: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="carer")
        pager.on_page = self._on_page

    def _on_page(self, page: Paged) -> None:
        words = page.text.split()
        if words[0] in {"FALL?", "HELP"} and words[1] == "RM":
            self._rooms.put(words[2])
        self._page_came.set()

    def wait_for_page(self, timeout_s: float) -> None:
        self._page_came.clear()
        self._page_came.wait(timeout_s)

    def _work(self) -> None:
        while (room := self._rooms.get()) is not None:
            self.paged[room] += 1
            time.sleep(self._rng.uniform(0.0, 0.5))
            with self._home.journal() as journal:
                for case in journal.open_cases():
                    if case.facts.room == room:
                        journal.acknowledge(case.facts.incident, "carer")
                        outcome = self._rng.choice([Outcome.FALL, Outcome.NOT_A_FALL])
                        journal.resolve(case.facts.incident, outcome, "carer")
                        break

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rooms.put(None)
        self._thread.join()


@dataclass
class Killer:
    """Starts a service, kills it at seeded instants, and starts it again."""

    home: Home
    name: str
    rng: random.Random
    longest_s: float
    wait_for_moment: Callable[[float], object]  # at most so many seconds
    kills: int
    ready_s: list[float] = field(default_factory=list)
    at_failpoints: int = 0

    def work(self) -> Iterator[int]:
        """Kill as often as asked; the service runs on afterwards."""
        for number in range(self.kills):
            way = number % 3
            if way == 2:
                place = f"{self.rng.choice(PLACES[self.name])}=kill@{self.rng.randint(1, 6)}"
                self.home.environment["FALLWATCH_FAILPOINTS"] = place
            service = self.home.start(self.name)
            self.home.environment.pop("FALLWATCH_FAILPOINTS", None)
            if way == 0:  # at any time, ready or not
                until_s = service.started_s + self.rng.uniform(0.0, self.longest_s)
                while time.monotonic() < until_s:
                    service.ready_s()
                    time.sleep(0.01)
            elif way == 1:  # where it matters most, or just after
                service.ready()
                self.wait_for_moment(self.longest_s)
                time.sleep(self.rng.choice([0.0, 0.001, 0.01, 0.1, self.rng.uniform(0.0, 0.6)]))
            else:
                until_s = time.monotonic() + 2 * self.longest_s
                while service.process.poll() is None and time.monotonic() < until_s:
                    service.ready_s()
                    time.sleep(0.01)
                self.at_failpoints += service.process.poll() is not None
            ready_s = service.ready_s()
            service.kill()
            if ready_s is not None:
                self.ready_s.append(ready_s)
            yield number
        self.ready_s.append(self.home.start(self.name).ready().ready_s() or 0.0)


@dataclass
class Toll:
    """What came of killing a service in one home."""

    counts: Counter[str]
    ready_s: list[float]


def in_homes(folder: Path, kill: Callable[[Path, random.Random, int], Toll], name: str) -> Counter[str]:
    """Kill one service in several homes at once; return the counts of all."""
    begun_s = time.monotonic()
    with ThreadPoolExecutor(HOMES) as pool:
        rngs = [random.Random(SEED + number) for number in range(HOMES)]
        folders = [folder / f"home-{number}" for number in range(HOMES)]
        tolls = list(pool.map(kill, folders, rngs, [KILLS // HOMES] * HOMES))
    counts = sum((toll.counts for toll in tolls), Counter[str]())
    ready_s = sorted(at_s for toll in tolls for at_s in toll.ready_s)
    p99_s = ready_s[min(len(ready_s) - 1, round(0.99 * len(ready_s)))]
    took_s = round(time.monotonic() - begun_s)
    names = ("at_failpoints", "incidents", "lost", "doubled", "unpaged", "lost_from_record", "twice_in_record")
    figures = {each: counts[each] for each in names}
    median_s = ready_s[len(ready_s) // 2]
    tell(
        f"1, 2 kill -9 of {name}",
        kills=KILLS,
        **figures,
        ready_median_s=median_s,
        ready_p99_s=p99_s,
        took_s=took_s,
    )
    return counts


def mqtt_table(broker: Broker) -> str:
    return f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'


def settled(home: Home) -> list[Case]:
    """Return all incidents once all of them are closed and written to the record."""

    def done() -> bool:
        with home.journal() as journal:
            cases = journal.cases(limit=100_000)
            told = {case.facts.incident for case in cases if case.facts.kind is not Kind.BLIND}
            rest = journal.events_after(journal.cursor("record"), limit=100_000)
            return (
                all(case.state is State.RESOLVED for case in cases)
                and not any(event.kind in IN_RECORD and event.incident in told for event in rest)
                and not journal.waiting("record")
            )

    until(done, SETTLE_S, hint="all closed and written")
    return home.cases()


def check_record(home: Home, cases: list[Case]) -> Counter[str]:
    """Each incident stands in the record once, as it ended, and nothing else does; return how many do not."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in home.entries():
        counts[entry.incident][entry.type] += 1
    assert {*counts.pop("")} <= {"Device", "Location"}  # shared by incidents
    wrong = Counter[str]()
    for case in cases:
        resolved = case.first("resolved")
        assert resolved is not None
        wanted = Counter(Observation=1, CommunicationRequest=1, Task=1, Provenance=2)
        wanted["Communication"] = sum(event.kind == "paged" for event in case.events)
        wanted["AdverseEvent"] = int(resolved.body["outcome"] == "fall")
        found = counts.pop(case.facts.incident, Counter[str]())
        wrong["lost_from_record"] += bool(wanted - found)
        wrong["twice_in_record"] += bool(found - wanted)
    assert counts == {}
    with home.journal() as journal:
        assert journal.parked("record") == []
    return wrong


def check_broker(listener: Listener, cases: list[Case]) -> None:
    """Each incident was told under its own id, never stepped back, and is off the broker now."""
    wanted = {case.facts.incident for case in cases}
    last: dict[str, bytes] = {}
    states: dict[str, list[State]] = defaultdict(list)

    def all_cleared() -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                heard = listener.hear(0.3)
                incident = heard.topic.rpartition("/")[2]
                last[incident] = heard.payload
                if heard.payload:
                    document: dict[str, Any] = json.loads(heard.payload)
                    assert document["incident"] == incident
                    states[incident].append(State(document["state"]))
        return last.keys() == wanted and not any(last.values())

    until(all_cleared, SETTLE_S, hint="all incidents told and cleared")
    for told in states.values():
        assert told == sorted(told, key=ORDER.index)
        assert told[-1] is State.RESOLVED


def test_no_incident_is_lost_or_doubled_whenever_alarm_is_killed(tmp_path: Path) -> None:
    counts = in_homes(tmp_path, kill_alarm, "alarm")
    assert_nothing_wrong(counts)
    assert counts["incidents"] >= KILLS / 2
    assert counts["at_failpoints"] >= KILLS // 12  # of three kills it may be none


def assert_nothing_wrong(counts: Counter[str]) -> None:
    wrong = ("lost", "doubled", "unpaged", "lost_from_record", "twice_in_record")
    assert {name: counts[name] for name in wrong} == dict.fromkeys(wrong, 0)


def kill_alarm(folder: Path, rng: random.Random, kills: int) -> Toll:
    folder.mkdir()
    with (
        a_broker(folder) as broker,
        Home(folder, calls=CALLS, more=mqtt_table(broker)) as home,
        Pager(home.pager_link) as pager,
        Listener(broker.port, "fallwatch/site-7/incident/+") as listener,
        Carer(home, pager, rng) as carer,
    ):
        home.start("detect").ready()  # its absence would be an incident too
        written: dict[str, str] = {}  # incident: room
        with home.wear([home.wearable(number, loop=True) for number in (1, 2)]):
            killer = Killer(home, "alarm", rng, 3.0, carer.wait_for_page, kills)
            writer = Writer(home, rng.randrange(1 << 30), first=1)
            for number in killer.work():
                if number % 4 == 3:  # the writer dies too, perhaps while it commits
                    written |= writer.end(kill=True)
                    writer = Writer(home, rng.randrange(1 << 30), first=1000 * number)
            written |= writer.end()
            cases = settled(home)

        rooms = {case.facts.incident: case.facts.room or "" for case in cases}
        counts = Counter(
            incidents=len(rooms),
            at_failpoints=killer.at_failpoints,
            lost=len(written.keys() - rooms.keys()),
            unpaged=sum(not carer.paged[room] for room in rooms.values()),
            doubled=sum(times > 1 for times in Counter(rooms.values()).values()),
        )
        counts += check_record(home, cases)
        check_broker(listener, cases)
        return Toll(counts, killer.ready_s)


def test_no_press_is_lost_and_nothing_doubled_whenever_detect_is_killed(tmp_path: Path) -> None:
    counts = in_homes(tmp_path, kill_detect, "detect")
    assert_nothing_wrong(counts)
    assert counts["presses"] >= KILLS / 2


def kill_detect(folder: Path, rng: random.Random, kills: int) -> Toll:
    folder.mkdir()
    fallers, pressers = (1, 2, 3, 4), (5, 6)
    with (
        a_broker(folder) as broker,
        Home(folder, wearables=6, calls=CALLS, more=mqtt_table(broker)) as home,
        Pager(home.pager_link) as pager,
        Listener(broker.port, "fallwatch/site-7/incident/+") as listener,
        Carer(home, pager, rng) as carer,
    ):
        home.start("alarm").ready()
        offsets_s = {number: FALL_LENGTH_S / len(fallers) * (number - 1) for number in fallers}
        wearables = [home.wearable(n, FALL, loop=True, offset_s=offsets_s[n]) for n in fallers]
        wearables += [home.wearable(number, loop=True) for number in pressers]
        with home.wear(wearables, deaf=0.4) as dongle:  # so that presses repeat after they are incidents
            ended = threading.Event()
            presses: Counter[str] = Counter()

            def press() -> None:
                """Press each button again and again, each time once the last press is an incident."""
                while not ended.wait(rng.uniform(0.2, 1.5)):
                    raised = Counter(c.facts.wearable for c in home.cases() if c.facts.kind is Kind.HELP_BUTTON)
                    wearable = f"{rng.choice(pressers):04d}"
                    if raised[wearable] == presses[wearable]:
                        presses[wearable] += 1
                        dongle.press_button(wearable)

            finger = threading.Thread(target=press, name="finger")
            finger.start()
            killer = Killer(home, "detect", rng, 8.0, lambda timeout_s: wait_for_commit(home, timeout_s), kills)
            try:
                for _ in killer.work():
                    pass
            finally:
                ended.set()
                finger.join()
            until(lambda: sum(c.facts.kind is Kind.HELP_BUTTON for c in home.cases()) == presses.total())
            time.sleep(2.5)  # a button that was not heard would press on
            until(lambda: any(case.facts.kind is Kind.FALL for case in home.cases()))
        cases = settled(home)

        pressed = Counter(c.facts.wearable or "" for c in cases if c.facts.kind is Kind.HELP_BUTTON)
        falls = {n: sorted(impacts(cases, f"{n:04d}")) for n in fallers}
        falls_doubled = sum(b - a < FALL_LENGTH_S - 2 for at_s in falls.values() for a, b in pairwise(at_s))
        counts = Counter(
            incidents=len(cases),
            presses=presses.total(),
            at_failpoints=killer.at_failpoints,
            lost=(presses - pressed).total(),
            doubled=(pressed - presses).total() + falls_doubled,
            unpaged=sum(not carer.paged[case.facts.room or ""] for case in cases),
        )
        counts += check_record(home, cases)
        check_broker(listener, cases)
        return Toll(counts, killer.ready_s)


def wait_for_commit(home: Home, timeout_s: float) -> None:
    """Return within a few milliseconds of the next incident that is on disk."""
    until_s = time.monotonic() + timeout_s
    with home.journal() as journal:

        def newest() -> list[str]:
            return [case.facts.incident for case in journal.cases(limit=1)]

        before = newest()
        while newest() == before and time.monotonic() < until_s:
            time.sleep(0.001)


def impacts(cases: list[Case], wearable: str) -> Iterator[float]:
    """Yield the monotonic times at which a wearer hit the floor."""
    for case in cases:
        raised = case.first("raised")
        if case.facts.wearable == wearable and case.facts.kind is Kind.FALL and raised is not None:
            yield raised.mono_s - raised.body["since_impact_s"]


def test_what_a_dead_detect_last_said_calls_nobody_about_a_closed_incident(tmp_path: Path) -> None:
    with Home(tmp_path, calls=CALLS) as home, Pager(home.pager_link) as pager:
        writer = Writer(home, SEED, first=1, pause_s=0.0)
        until(home.cases)
        writer.end()
        with home.journal() as journal:
            for case in journal.open_cases():
                journal.resolve(case.facts.incident, Outcome.FALL, "anna")
        facts = home.cases()[0].facts
        said = asdict(facts) | {"raised_at": utc_text(facts.raised_at), "impact_at": None}
        home.run.mkdir()
        write_runfile(home.run / "detect.json", {"unwritten": [{"incident": said, "body": {}}]})
        home.start("alarm").ready()
        time.sleep(2.5)  # it looks once a second
        assert pager.texts() == []


def test_more_open_incidents_than_the_broker_takes_at_once_stop_no_restart(tmp_path: Path, broker: Broker) -> None:
    with Home(tmp_path, calls=CALLS, more=mqtt_table(broker)) as home, Pager(home.pager_link):
        writer = Writer(home, SEED, first=1, pause_s=0.0)
        until(lambda: len(home.cases()) > 100)
        writer.end()
        wanted = {case.facts.incident for case in home.cases()}
        for _ in range(2):
            alarm = home.start("alarm").ready()
            with Listener(broker.port, "fallwatch/site-7/incident/+") as listener:
                told: set[str] = set()
                while not wanted <= told:
                    told.add(listener.hear(20).topic.rpartition("/")[2])
            alarm.kill()
            assert "Traceback" not in alarm.tail()
