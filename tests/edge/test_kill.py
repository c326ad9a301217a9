"""Nothing is lost, and nothing told twice as two, whenever a service is killed.

`FALLWATCH_KILLS=200` kills each service two hundred times instead of a few; `FALLWATCH_SEED` chooses others.
Run that with ``-s --timeout 0`` to see the counts and how soon the services were ready again.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.incident import Incident, Kind, Outcome, State, new_incident_id
from edge.clock import utc_now
from edge.journal import Case
from tests.edge.brokers import MOSQUITTO, Broker, Listener, amqtt, mosquitto
from tests.edge.home import FALL, Home, Paged, Pager, Service, Writer, until

KILLS = int(os.environ.get("FALLWATCH_KILLS", "8"))
SEED = int(os.environ.get("FALLWATCH_SEED", "20261122"))
CALLS = '[escalation]\ngroups = ["1"]\nsteps_s = [600]\nrepeat_every_s = 20\n'
LOOP_S = 14.9  # of the recorded fall, about
ORDER = [*State]

pytestmark = pytest.mark.timeout(120 + 10 * KILLS)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "broker").mkdir()
    with mosquitto(tmp_path / "broker") if MOSQUITTO else amqtt() as broker:
        yield broker


class Carer:
    """Answers each page as staff would: acknowledges and closes the oldest open incident of its room."""

    def __init__(self, home: Home, pager: Pager, rng: random.Random) -> None:
        self.paged: Counter[str] = Counter()  # by room
        self.page_came = threading.Event()
        self._home, self._rng = home, rng
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="carer")
        pager.on_page = self._on_page

    def _on_page(self, page: Paged) -> None:
        words = page.text.split()
        if words[0] in {"FALL?", "HELP"} and words[1] == "RM":
            self._queue.put(words[2])
        self.page_came.set()

    def _work(self) -> None:
        while (room := self._queue.get()) is not None:
            self.paged[room] += 1
            time.sleep(self._rng.uniform(0.0, 0.5))
            with self._home.journal() as journal:
                for case in journal.open_cases():
                    if case.facts.room == room:
                        journal.acknowledge(case.facts.incident, "carer")
                        outcome = self._rng.choice([Outcome.FALL, Outcome.NOT_A_FALL])
                        journal.resolve(case.facts.incident, outcome, "carer")
                        break

    def __enter__(self) -> Carer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()


def kill_often(
    home: Home, name: str, rng: random.Random, *, longest_s: float, moment: threading.Event | None = None
) -> tuple[Service, list[float]]:
    """Kill a service at random instants and start it again; return the last one, and how soon each was ready.

    Half of the instants are shortly after ``moment``, where it matters most; some are before it is ready.
    """
    ready_s: list[float] = []
    for number in range(KILLS):
        service = home.start(name)
        if number % 2 or moment is None:
            pause_s = rng.uniform(0.0, longest_s) if number % 4 else rng.uniform(0.0, 1.0)
            with contextlib.suppress(AssertionError):
                until(lambda service=service: service.ready_s() is not None, min(pause_s, 2.0))  # type: ignore[misc]
            time.sleep(max(0.0, service.started_s + pause_s - time.monotonic()))
        else:
            service.ready()
            moment.clear()
            moment.wait(longest_s)
            time.sleep(rng.choice([0.0, 0.001, 0.01, 0.1, rng.uniform(0.0, 0.6)]))
        if (took_s := service.ready_s()) is not None:
            ready_s.append(took_s)
        service.kill()
    last = home.start(name).ready()
    return last, [*ready_s, last.ready_s() or 0.0]


def settled(home: Home) -> list[Case]:
    """Return all incidents once all of them are closed and written to the record."""

    def done() -> bool:
        with home.journal() as journal:
            return (
                all(case.state is State.RESOLVED for case in journal.cases(limit=100_000))
                and journal.cursor("record") == journal.last_seq()
                and not journal.waiting("record")
            )

    until(done, 60, hint="all closed and written")
    return home.cases()


def check_record(home: Home, cases: list[Case]) -> None:
    """Each incident stands in the record once, as it ended, and nothing else does."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in home.entries():
        counts[entry.incident][entry.type] += 1
    shared = counts.pop("")
    assert {*shared} <= {"Device", "Location"}
    for case in cases:
        resolved = case.first("resolved")
        assert resolved is not None
        assert counts.pop(case.facts.incident) == Counter(
            Observation=1,
            CommunicationRequest=1,
            Task=1,
            AdverseEvent=int(resolved.body["outcome"] == "fall"),
            Provenance=2,
            Communication=sum(event.kind == "paged" for event in case.events),
        ), case.facts.incident
    assert counts == {}
    with home.journal() as journal:
        assert journal.parked("record") == []


def check_broker(listener: Listener, cases: list[Case]) -> None:
    """Each incident was told under its own id, never stepped back, and is off the broker now."""
    wanted = {case.facts.incident for case in cases}
    last: dict[str, bytes] = {}
    states: dict[str, list[State]] = defaultdict(list)

    def drain() -> bool:
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

    until(drain, 30, hint="all incidents told and cleared")
    for told in states.values():
        assert told == sorted(told, key=ORDER.index)
        assert told[-1] is State.RESOLVED


def report(what: str, ready_s: list[float], **counts: int) -> None:
    ordered = sorted(ready_s)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    words = ", ".join(f"{name} {count}" for name, count in counts.items())
    sys.stdout.write(
        f"\n{KILLS} kills of {what}: {words}; ready again after {ordered[len(ordered) // 2]:.2f} s (median), "
        f"{p99:.2f} s (p99), {ordered[-1]:.2f} s (worst)\n"
    )


def test_no_incident_is_lost_or_doubled_whenever_the_alarm_service_is_killed(tmp_path: Path, broker: Broker) -> None:
    rng = random.Random(SEED)
    more = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
    with (
        Home(tmp_path, calls=CALLS, more=more) as home,
        Pager(home.pager_link) as pager,
        Listener(broker.port, "fallwatch/site-7/incident/+") as listener,
        Carer(home, pager, rng) as carer,
    ):
        home.start("detect").ready()  # or its absence would be told
        with home.wear([home.wearable(1, loop=True), home.wearable(2, loop=True)]):
            written: dict[str, str] = {}
            writers = []
            for number in range(2):  # the second goes on where a killed one left off
                writers.append(Writer(home, rng.randrange(1 << 30), 1 + 10_000 * number))
                _, ready_s = kill_often(home, "alarm", rng, longest_s=4.0, moment=carer.page_came)
                writers[-1].end(kill=number == 0)
                if number == 0:
                    home.stop_all("alarm")
                while not writers[-1].committed.empty():
                    incident, room = writers[-1].committed.get()
                    written[incident] = room
            cases = settled(home)

        known = {case.facts.incident: case.facts.room or "" for case in cases}
        lost = [incident for incident in written if incident not in known]
        unpaged = [incident for incident, room in known.items() if not carer.paged[room]]
        doubled = [room for room, count in Counter(known.values()).items() if count > 1]
        report("alarm", ready_s, incidents=len(known), lost=len(lost), unpaged=len(unpaged), doubled=len(doubled))
        assert (lost, unpaged, doubled) == ([], [], [])
        assert len(written) >= KILLS / 2
        check_record(home, cases)
        check_broker(listener, cases)
