"""A disk that answers writes with errors: nothing is told that did not happen, nobody waits, people are called."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from edge import journal as journal_module
from edge.core.incident import Outcome
from edge.journal import JOURNAL_FILE, Journal, JournalRefuses, JournalUnavailable, OutboxItem
from tests.faults.counts import SEED, count, tell
from tests.faults.powercut_vfs import Disk, through
from tests.faults.test_power_cut import a_fall
from tests.faults.test_schedules import HOME
from tests.faults.virtual import VirtualHome, virtual_home

WRITES = range(1, 201)
ERRORS = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_FULL)
HANG_S = 5.0

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("error", ERRORS, ids=["eio", "eio-on-sync", "enospc"])
def test_an_error_at_any_write_of_the_journal_is_said_and_harms_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    refused, slowest_s = 0, 0.0
    for first in WRITES[:: count(8, 1)]:
        rng, failing = (
            random.Random(SEED + first),
            range(first, first + random.Random(first).choice([1, 1, 3, 50])),
        )
        disk = Disk(rng, refuse=lambda step, _, failing=failing: error if step in failing else 0)  # type: ignore[misc]  # late binding is what the default prevents
        path = tmp_path / str(first) / JOURNAL_FILE
        with monkeypatch.context() as patch:
            through(patch, disk, journal_module, first=["PRAGMA wal_autocheckpoint = 4"])
            told, denied, longest_s = write_on(path, rng)
        disk.unregister()
        refused += denied
        slowest_s = max(slowest_s, longest_s)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        journal = Journal(path)
        assert journal.quarantined is None
        known = {case.facts.incident: case for case in journal.cases(limit=1000)}
        assert told.keys() <= known.keys(), f"write {first}: told as committed, and not there"
        for incident, kinds in told.items():
            found = Counter(event.kind for event in known[incident].events)
            assert all(found[kind] >= n for kind, n in kinds.items()), (
                f"write {first}: {kinds} told, {found} there"
            )
            assert found["raised"] == 1
            assert max(found["acknowledged"], found["resolved"]) <= 1
        journal.close()
    tell("5 journal, error at each n-th write", n=f"1..{WRITES[-1]}", refused=refused, slowest_s=slowest_s)
    assert refused > len(WRITES) / 20
    assert slowest_s < HANG_S


@contextmanager
def through_disk(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Iterator[None]:
    with monkeypatch.context() as patch:
        through(patch, disk, journal_module)
        yield
    disk.unregister()


def write_on(path: Path, rng: random.Random) -> tuple[dict[str, Counter[str]], int, float]:
    """Write at random for a while; return what was told as committed, how often not, and the longest wait."""
    journal: Journal | None = None
    told: dict[str, Counter[str]] = {}
    denied, longest_s = 0, 0.0
    for _ in range(60):
        begun_s = time.monotonic()
        try:
            if journal is None:
                journal = Journal(path)
            write_one(journal, told, rng)
        except JournalRefuses:
            raise
        except JournalUnavailable:
            denied += 1
            if journal is not None and rng.random() < 0.2:  # as a service does that starts again
                journal.close()
                journal = None
        longest_s = max(longest_s, time.monotonic() - begun_s)
    if journal is not None:
        journal.close()
    return told, denied, longest_s


def write_one(journal: Journal, told: dict[str, Counter[str]], rng: random.Random) -> None:
    incident = rng.choice(sorted(told)) if told else ""
    match rng.randrange(5) if told else 0:
        case 0:
            facts = a_fall()
            with suppress(JournalUnavailable):  # a service tries again what was refused
                journal.raise_incident(facts)
            journal.raise_incident(facts)
            told[facts.incident] = Counter(raised=1)
        case 1:
            journal.add(incident, "paged", accepted=True)
            told[incident]["paged"] += 1
        case 2 if journal.acknowledge(incident, "anna"):
            told[incident]["acknowledged"] = 1
        case 3 if journal.resolve(incident, Outcome.FALL, "anna"):
            told[incident]["resolved"] = 1
        case 4:
            key = f"{incident}/{rng.random()}"
            journal.put("record", [OutboxItem(key, incident, b"{}")], cursor=journal.last_seq())
            journal.settle(key, "done")
            told[incident]["recorded"] += 1


@dataclass
class Trouble:
    """From its n-th write on, once a home works with it, the disk takes nothing for ten minutes."""

    error: int
    first: int
    home: VirtualHome | None = None
    writes: int = 0
    since_s: float = float("inf")

    def __call__(self, _step: int, _what: str) -> int:
        if self.home is None:
            return 0
        self.writes += 1
        if self.writes == self.first:
            self.since_s = self.home.now_s
        return self.error if self.since_s <= self.home.now_s < self.since_s + 600.0 else 0


@pytest.mark.parametrize("error", ERRORS, ids=["eio", "eio-on-sync", "enospc"])
def test_whichever_write_is_the_first_that_fails_people_are_called_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    page_s, fault_page_s = 0.0, 0.0
    for first in WRITES[:: count(40, 1)]:
        trouble = Trouble(error, first)
        disk, folder = Disk(random.Random(first), refuse=trouble), tmp_path / str(first)
        with through_disk(monkeypatch, disk), virtual_home(HOME, folder, random.Random(first)) as home:
            trouble.home = home
            home.tells_record = False
            for at_s in (5.0, 60.0, 130.0, 300.0, 700.0):
                home.at(at_s, home.fall)
            home.run(1500.0)
            assert trouble.since_s < 800.0, f"write {first} never came"
            faults = [sent.at_s for sent in home.far.sent if "INCIDENT STORE CANNOT" in sent.page.text]
            page_s = max([page_s, *(home.first_page_s(i) - at_s for i, at_s in home.raised_s.items())])
            fault_page_s = max(fault_page_s, min(faults, default=float("inf")) - trouble.since_s)
            check_what_is_noted(home, f"write {first}")
    figures = {"page s": page_s, "fault page s": fault_page_s}
    tell("4, 5 alarm service, the disk fails from the n-th write on", n=f"1..{WRITES[-1]}", **figures)
    assert page_s <= 2.0
    assert fault_page_s <= 60.0


def check_what_is_noted(home: VirtualHome, where: str) -> None:
    """The journal has all incidents, and each page that a channel took, and no other."""
    cases = {case.facts.incident: case for case in home.journal.cases(limit=1000)}
    assert home.raised_s.keys() <= cases.keys(), where
    for incident in home.raised_s:
        taken = Counter(s.page.page_id for s in home.far.sent if s.taken and s.page.incident == incident)
        paged = [e.body for e in cases[incident].events if e.kind == "paged" and e.body["accepted"]]
        noted = Counter(f"{incident}/{body['number']}/{body['to']}/{body['channel']}" for body in paged)
        assert not noted - taken, f"{where}: noted as taken, and was not"
        assert not taken - noted, f"{where}: taken, and never noted"
