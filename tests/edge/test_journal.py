"""Incidents on disk: once committed never lost, raised twice only one, owned by one person."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge import journal as journal_module
from edge.clock import monotonic_s, utc_now
from edge.core.incident import Incident, Kind, Outcome, State, new_incident_id
from edge.journal import (
    SNOOZE_MOST_S,
    Journal,
    JournalGone,
    JournalRefuses,
    JournalUnavailable,
    OutboxItem,
    _log_is_cut,
)

IMPACT = datetime(2026, 11, 22, 3, 14, 7, 250_000, tzinfo=UTC)


def fall(incident: str | None = None) -> Incident:
    return Incident(
        incident or new_incident_id(),
        "site-7",
        Kind.FALL,
        raised_at=IMPACT + timedelta(seconds=2),
        impact_at=IMPACT,
        resident="r12",
        room="12",
        wearable="0042",
        placement="wrist",
        probability=0.97,
        model="wrist-1",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def test_an_incident_is_on_disk_with_all_its_facts(journal: Journal, path: Path) -> None:
    incident = fall()
    assert journal.raise_incident(incident, since_impact_s=2.0)
    other = Journal(path)
    (case,) = other.open_cases()
    assert case.facts == incident
    (raised,) = case.events
    assert (raised.kind, raised.seq, raised.body) == ("raised", 1, {"since_impact_s": 2.0})
    assert case.state is State.RAISED
    other.close()


def test_raised_twice_is_one(journal: Journal) -> None:
    incident = fall()
    assert [journal.raise_incident(incident), journal.raise_incident(incident)] == [True, False]
    (case,) = journal.cases(limit=10)
    assert len(case.events) == 1


def test_an_incident_goes_from_raised_to_resolved(journal: Journal) -> None:
    incident = fall()
    journal.raise_incident(incident)
    states = []

    def note() -> None:
        case = journal.case(incident.incident)
        assert case is not None
        states.append(case.state)

    note()
    journal.add(incident.incident, "paged", accepted=False)
    note()
    journal.add(incident.incident, "paged", accepted=True)
    note()
    journal.acknowledge(incident.incident, "anna")
    note()
    journal.add(incident.incident, "attended", by="anna")
    note()
    journal.resolve(incident.incident, Outcome.FALL, "anna")
    note()
    assert states == [
        State.RAISED,
        State.RAISED,
        State.PAGED,
        State.ACKNOWLEDGED,
        State.ATTENDED,
        State.RESOLVED,
    ]
    assert journal.open_cases() == []


def test_the_first_to_acknowledge_goes_and_the_others_learn_who(journal: Journal) -> None:
    incident = fall()
    journal.raise_incident(incident)
    assert [journal.acknowledge(incident.incident, by) for by in ("anna", "ben", "anna")] == ["anna"] * 3
    case = journal.case(incident.incident)
    assert case is not None
    assert [e.kind for e in case.events] == ["raised", "acknowledged"]


def test_the_first_outcome_stands(journal: Journal) -> None:
    incident = fall()
    journal.raise_incident(incident)
    assert journal.resolve(incident.incident, Outcome.FALL, "anna")
    assert not journal.resolve(incident.incident, Outcome.NOT_A_FALL, "ben")
    assert journal.acknowledge(incident.incident, "ben") is None
    case = journal.case(incident.incident)
    assert case is not None
    assert [e.body.get("outcome") for e in case.events if e.kind == "resolved"] == ["fall"]


def test_what_is_not_known_is_neither_acknowledged_nor_resolved(journal: Journal) -> None:
    assert journal.acknowledge("nobody", "anna") is None
    assert not journal.resolve("nobody", Outcome.FALL, "anna")
    assert journal.case("nobody") is None
    with pytest.raises(JournalUnavailable, match="FOREIGN KEY"):
        journal.add("nobody", "paged", accepted=True)
    assert journal.last_seq() == 0


def test_of_many_who_acknowledge_at_once_one_goes(path: Path) -> None:
    with_one = Journal(path)
    for _ in range(10):
        incident = fall()
        with_one.raise_incident(incident)
        start = threading.Barrier(4)

        def take(by: str, start: threading.Barrier = start, incident: Incident = incident) -> str | None:
            journal = Journal(path)
            start.wait()
            try:
                return journal.acknowledge(incident.incident, by)
            finally:
                journal.close()

        with ThreadPoolExecutor(4) as pool:
            owners = set(pool.map(take, ["anna", "ben", "cleo", "dan"]))
        assert len(owners) == 1
        case = with_one.case(incident.incident)
        assert case is not None
        assert [e.body["by"] for e in case.events if e.kind == "acknowledged"] == list(owners)
    with_one.close()


WRITER = """
import sys
from pathlib import Path
from tests.edge.test_journal import fall
from edge.journal import Journal
journal = Journal(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    incident = fall()
    journal.raise_incident(incident)
    journal.add(incident.incident, "paged", accepted=True)
    print(incident.incident, flush=True)
"""


def writer(path: Path, count: int) -> subprocess.Popen[str]:
    root = str(Path(__file__).parent.parent.parent)
    environ = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", WRITER, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    writers = [writer(path, 40) for _ in range(3)]  # the file itself is new: they also make it at once
    told = [w.communicate(timeout=60)[0].split() for w in writers]
    assert [w.returncode for w in writers] == [0, 0, 0]
    journal = Journal(path)
    events = journal.events_after(0, limit=1000)
    assert [e.seq for e in events] == list(range(1, 241))
    for incidents in told:
        ours = [e.incident for e in events if e.incident in set(incidents) and e.kind == "raised"]
        assert ours == incidents  # each in its own order
    journal.close()


def test_a_writer_killed_at_any_instant_leaves_a_sound_journal_with_all_it_told(path: Path) -> None:
    told: list[str] = []
    for pause_s in (0.0, 0.003, 0.011):
        process = writer(path, 1_000_000)
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        assert process.wait(timeout=10) == -signal.SIGKILL
        process.stdout.close()
        journal = Journal(path)
        known = {case.facts.incident: case for case in journal.cases(limit=1_000_000)}
        assert set(told) <= set(known)
        assert all(case.first("raised") is not None for case in known.values())
        journal.close()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert journal.quarantined is None


def test_followers_read_on_from_where_they_were(journal: Journal) -> None:
    for _ in range(5):
        journal.raise_incident(fall())
    assert journal.cursor("mqtt") == 0
    first = journal.events_after(journal.cursor("mqtt"), limit=2)
    journal.move_cursor("mqtt", first[-1].seq)
    assert [e.seq for e in journal.events_after(journal.cursor("mqtt"))] == [3, 4, 5]
    assert journal.cursor("record") == 0
    assert journal.last_seq() == 5


def test_another_process_that_wrote_is_noticed(journal: Journal, path: Path) -> None:
    before = journal.data_version()
    assert journal.data_version() == before
    other = Journal(path)
    other.raise_incident(fall())
    other.close()
    assert journal.data_version() != before


def test_an_item_is_minted_once_and_waits_until_it_is_settled(journal: Journal, path: Path) -> None:
    incident = fall()
    journal.raise_incident(incident)
    items = [OutboxItem(f"k{i}", incident.incident, f"body {i}".encode()) for i in range(3)]
    journal.put("record", items, cursor=3)
    journal.put("record", [OutboxItem("k1", "a", b"another body")], cursor=4)
    journal.put("other", [OutboxItem("k9", "a", b"")], cursor=1)
    assert journal.waiting("record") == items
    assert (journal.cursor("record"), journal.cursor("other")) == (4, 1)
    journal.settle("k0", "done")
    journal.settle("k1", "parked", "HTTP 422")
    assert [item.key for item in journal.waiting("record")] == ["k2"]
    assert [(item.key, item.reason) for item in journal.parked("record")] == [("k1", "HTTP 422")]
    journal.settle("k1", "waiting")
    assert [item.key for item in journal.waiting("record", limit=1)] == ["k1"]
    with closing(sqlite3.connect(path)) as db:
        bodies = dict(db.execute("SELECT key, body FROM outbox"))
    assert (bodies["k0"], bodies["k1"]) == (b"", b"body 1")  # what was taken leaves nothing of a person behind
    case = journal.case(incident.incident)
    assert case is not None
    assert [e.body for e in case.events if e.kind == "recorded"] == [
        {"key": "k0", "state": "done", "reason": ""},
        {"key": "k1", "state": "parked", "reason": "HTTP 422"},
        {"key": "k1", "state": "waiting", "reason": ""},
    ]


def test_what_is_noted_of_an_incident_that_nobody_knows_is_refused_for_good(journal: Journal) -> None:
    with pytest.raises(JournalRefuses):
        journal.add("lost with an older journal", "motion", motion="moving")


@pytest.mark.parametrize("trusted", [True, False])
def test_each_event_says_whether_its_time_can_be_believed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    monkeypatch.setattr(journal_module, "clock_ok", lambda: trusted)
    incident = fall()
    journal.raise_incident(incident, since_impact_s=2.0)
    (raised,) = journal.events_after(0)
    assert (raised.clock_ok, raised.body) == (trusted, {"since_impact_s": 2.0})


def test_a_journal_that_follows_a_lost_one_says_so(path: Path) -> None:
    def lost() -> object:
        journal = Journal(path)
        note = journal.last_note("lost")
        journal.close()
        return None if note is None else note.body["because"]

    assert [lost(), lost()] == [None, None]
    path.write_bytes(b"not a database, and long enough to be one" * 100)
    assert lost() == "damaged"
    path.unlink()
    assert lost() == "missing"


@pytest.mark.parametrize("at", [4, 10, 17, 26, 32 + 1000, 32 + 9, 32 + 4120 + 17, 32 + 5 * 4120 + 1000])
def test_a_log_that_ends_before_its_last_commit_is_noticed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    journal = Journal(path)
    for _ in range(10):
        journal.raise_incident(fall())
    kept = tmp_path / "as the power cut left it"
    kept.mkdir()
    for file in path.parent.glob("journal.db*"):  # while it is open: a close would fold the log in
        if not file.name.endswith("-shm"):
            (kept / file.name).write_bytes(file.read_bytes())
    journal.close()
    monkeypatch.setattr(journal_module, "boot_id", lambda: "the boot after")
    whole = Journal(kept / path.name, look_for_loss=True)
    assert (len(whole.open_cases()), whole.last_note("lost")) == (10, None)
    whole.close()

    monkeypatch.undo()
    journal = Journal(path)
    log = path.with_name("journal.db-wal")
    for _ in range(10):
        journal.raise_incident(fall())
    octets = bytearray(log.read_bytes())
    octets[at] ^= 0x40
    cut = tmp_path / "cut"
    cut.mkdir()
    database = path.read_bytes()
    (cut / path.name).write_bytes(database)
    (cut / log.name).write_bytes(octets)
    journal.close()
    same_boot = Journal(cut / path.name, look_for_loss=True)
    assert same_boot.last_note("lost") is None  # a killed program loses nothing that was committed
    same_boot.close()
    (cut / path.name).write_bytes(database)
    (cut / log.name).write_bytes(octets)
    monkeypatch.setattr(journal_module, "boot_id", lambda: "the boot after")
    short = Journal(cut / path.name, look_for_loss=True)
    note = short.last_note("lost")
    assert note is not None
    assert note.body == {"because": "cut short"}
    assert len(short.open_cases()) < 20
    short.close()


def test_frames_of_a_writer_that_died_before_it_had_committed_are_no_loss(path: Path, tmp_path: Path) -> None:
    journal = Journal(path)
    for _ in range(5):
        journal.raise_incident(fall())
    log = path.with_name("journal.db-wal")
    with closing(sqlite3.connect(path)) as reader:  # to which the newest commit is not there yet
        reader.execute("BEGIN")
        frames = (log.stat().st_size - 32) // (24 + 4096)
        journal.raise_incident(fall())
        found = log.read_bytes()

        class Behind:
            """A connection that has read the log no further than the last commit but one."""

            def execute(self, sql: str) -> Behind:
                self.answer = (4096,) if "page_size" in sql else (0, frames, frames)
                return self

            def fetchone(self) -> tuple[int, ...]:
                return self.answer

        assert not _log_is_cut(Behind(), path, found)  # type: ignore[arg-type]  # only what is asked of it
        half = bytearray(found)  # the last frame has its head, and not yet its page
        half[-100] ^= 1
        assert not _log_is_cut(Behind(), path, bytes(half))  # type: ignore[arg-type]  # as above
        spoilt = bytearray(found)
        spoilt[32 + frames * (24 + 4096) + 100] ^= 1
        assert _log_is_cut(Behind(), path, bytes(spoilt))  # type: ignore[arg-type]  # as above
    journal.close()


def test_an_incident_that_cannot_be_read_is_counted(journal: Journal, path: Path) -> None:
    incident = fall()
    journal.raise_incident(incident)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE incident SET body = 'not JSON'")
        db.commit()
    assert (journal.open_cases(), journal.unreadable) == ([], {incident.incident})


# -- snoozes ------------------------------------------------------------------------------------------


def test_a_snooze_holds_for_its_time_and_no_longer_than_the_cap(journal: Journal) -> None:
    assert journal.snooze("r12", 3600.0, "anna") == SNOOZE_MOST_S
    now_s = monotonic_s()
    snooze = journal.snoozes(now_s=now_s)["r12"]
    assert snooze.by == "anna"
    assert snooze.until_s - now_s == pytest.approx(SNOOZE_MOST_S, abs=1)
    assert journal.snoozes(now_s=now_s + SNOOZE_MOST_S) == {}


def test_the_newest_word_on_quiet_counts(journal: Journal) -> None:
    journal.snooze("r12", 600.0, "anna")
    journal.snooze("r14", 60.0, "anna")
    journal.end_snooze("r12", "ben")
    assert set(journal.snoozes(now_s=monotonic_s())) == {"r14"}
    journal.snooze("r12", 300.0, "ben")
    assert journal.snoozes(now_s=monotonic_s())["r12"].by == "ben"


@pytest.mark.parametrize(
    ("away_s", "trusted", "left_s"),
    [(100.0, True, 500.0), (700.0, True, None), (-50.0, True, None), (100.0, False, None)],
)
def test_over_a_reboot_quiet_holds_only_where_the_clock_can_be_believed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, away_s: float, trusted: bool, left_s: float | None
) -> None:
    monkeypatch.setattr(journal_module, "clock_ok", lambda: True)
    journal.snooze("r12", 600.0, "anna")
    now = utc_now()
    monkeypatch.setattr(journal_module, "boot_id", lambda: "the next boot")
    monkeypatch.setattr(journal_module, "clock_ok", lambda: trusted)
    monkeypatch.setattr(journal_module, "utc_now", lambda: now + timedelta(seconds=away_s))
    snooze = journal.snoozes(now_s=5.0).get("r12")
    left = None if snooze is None else snooze.until_s - 5.0
    assert left == (None if left_s is None else pytest.approx(left_s, abs=1))


def test_an_item_and_its_cursor_are_stored_together_or_not_at_all(journal: Journal, path: Path) -> None:
    lock = sqlite3.connect(path, isolation_level=None)
    impatient = Journal(path, busy_timeout_s=0.05)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match="locked"):
        impatient.put("record", [OutboxItem("k", "a", b"")], cursor=7)
    lock.execute("ROLLBACK")
    lock.close()
    assert (impatient.waiting("record"), impatient.cursor("record")) == ([], 0)
    impatient.put("record", [OutboxItem("k", "a", b"")], cursor=7)  # and the connection is none the worse
    assert len(journal.waiting("record")) == 1
    impatient.close()


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(
    path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    journal = Journal(path)
    assert journal.quarantined is not None
    assert journal.quarantined.read_bytes() == damage
    assert str(journal.quarantined) in caplog.text
    assert journal.raise_incident(fall())
    journal.close()
    again = Journal(path)
    assert again.quarantined is None
    assert len(again.open_cases()) == 1
    again.close()


def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    journal = Journal(path)
    assert journal.quarantined is None
    assert journal.raise_incident(fall())
    journal.close()


def test_a_journal_of_a_newer_fallwatch_is_left_alone(journal: Journal, path: Path) -> None:
    journal.raise_incident(fall())
    journal.close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(JournalUnavailable, match=r"newer fallwatch \(schema 2\): update"):
        Journal(path)
    assert not list(path.parent.glob("*.damaged-*"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(JournalUnavailable, match=str(tmp_path / "state" / "journal.db")):
        Journal(tmp_path / "state" / "journal.db")


def test_time_since_an_event_is_that_of_the_monotonic_clock(journal: Journal) -> None:
    incident = fall()
    journal.raise_incident(incident)
    case = journal.case(incident.incident)
    assert case is not None
    raised = case.events[0]
    assert case.elapsed_s(raised, now_s=raised.mono_s + 240) == pytest.approx(240)
    assert case.elapsed_s(raised, now_s=raised.mono_s - 1) == 0


@pytest.mark.parametrize(
    ("wall_s", "trusted", "expected_s"),
    [(900.0, True, 900.0), (50.0, True, 272.0), (-1e6, True, 272.0), (900.0, False, 272.0), (3e8, False, 272.0)],
)
def test_after_a_reboot_it_is_a_wall_clock_to_believe_but_never_less_than_was_seen(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, wall_s: float, trusted: bool, expected_s: float
) -> None:
    monkeypatch.setattr(journal_module, "clock_ok", lambda: trusted)
    incident = fall()
    journal.raise_incident(incident)
    case = journal.case(incident.incident)
    assert case is not None
    raised = dataclasses.replace(case.events[0], boot="the boot before")
    later = dataclasses.replace(
        raised, kind="paged", seq=raised.seq + 1, mono_s=raised.mono_s + 260
    )  # and 12 s since the reboot
    case.events[:] = [raised, later]
    monkeypatch.setattr(journal_module, "utc_now", lambda: raised.at + timedelta(seconds=wall_s))
    assert case.elapsed_s(raised, now_s=12.0) == pytest.approx(expected_s)


def test_the_latest_incidents_come_oldest_first(journal: Journal) -> None:
    ids = [new_incident_id(now_ms=1000 * i) for i in range(5)]
    for incident in ids:
        journal.raise_incident(fall(incident))
    journal.resolve(ids[3], Outcome.FALL, "anna")
    assert [case.facts.incident for case in journal.cases(limit=2)] == ids[3:]
    assert [case.facts.incident for case in journal.open_cases()] == [*ids[:3], ids[4]]


def test_one_row_that_cannot_be_read_is_passed_over_and_the_rest_goes_on(journal: Journal, path: Path) -> None:
    spoilt, sound = fall(), fall()
    journal.raise_incident(spoilt)
    journal.raise_incident(sound)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE incident SET body = CAST(x'7bff' AS TEXT) WHERE id = ?", (spoilt.incident,))
        db.commit()
    assert [case.facts.incident for case in journal.open_cases()] == [sound.incident]


def test_a_journal_replaced_under_its_user_says_so_and_is_opened_again(journal: Journal, path: Path) -> None:
    journal.raise_incident(fall())
    path.rename(path.with_name("aside"))
    with pytest.raises(JournalGone):
        journal.raise_incident(fall())
    again = Journal(path)
    assert again.raise_incident(fall())
    again.close()


def test_two_that_find_the_same_damage_at_once_lose_nothing(path: Path) -> None:
    for turn in range(20):
        for old in path.parent.glob("journal.db*"):
            old.unlink()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no database" * 1000)

        def open_and_raise(_: int) -> str:
            journal, incident = Journal(path), fall()
            journal.raise_incident(incident)
            journal.close()
            return incident.incident

        with ThreadPoolExecutor(4) as pool:
            raised = set(pool.map(open_and_raise, range(4)))
        journal = Journal(path)
        assert {case.facts.incident for case in journal.open_cases()} == raised, turn
        journal.close()
