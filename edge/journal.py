"""Incidents on disk, first of all: a fact is told to nobody before it is here.

SQLite, write-ahead log, ``synchronous=FULL``: a commit that returned survives a power cut. The
detect service adds incidents, the alarm service adds what was done about them, the command line
adds what people decided; each follows the others by the running number of events.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edge.clock import boot_id, clock_ok, monotonic_s, utc_now
from edge.core.incident import Incident, Kind, Outcome, State, parse_utc, utc_text
from edge.failpoint import failpoint

log = logging.getLogger(__name__)

JOURNAL_FILE = "journal.db"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE incident (id TEXT PRIMARY KEY, body TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX incident_open ON incident (closed) WHERE closed = 0;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL REFERENCES incident (id),
    kind TEXT NOT NULL, at TEXT NOT NULL, boot TEXT NOT NULL, mono_s REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX event_incident ON event (incident, seq);
CREATE TABLE outbox (
    key TEXT PRIMARY KEY, sink TEXT NOT NULL, incident TEXT NOT NULL, body BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', reason TEXT NOT NULL DEFAULT '', at TEXT NOT NULL);
CREATE INDEX outbox_waiting ON outbox (sink, state);
CREATE TABLE cursor (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
"""
# What came later without changing what was there: an older fallwatch still reads the file.
_ADDED = """
CREATE TABLE IF NOT EXISTS shadow_alarm (
    model TEXT NOT NULL, wearable TEXT NOT NULL, resident TEXT NOT NULL, impact_at TEXT NOT NULL,
    raised_at TEXT NOT NULL, probability REAL NOT NULL, long_lie INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS wear (
    model TEXT NOT NULL, shadow INTEGER NOT NULL, placement TEXT NOT NULL, wearable TEXT NOT NULL,
    begun_at TEXT NOT NULL, until_at TEXT NOT NULL, worn_s REAL NOT NULL,
    PRIMARY KEY (model, shadow, wearable, begun_at));
CREATE TABLE IF NOT EXISTS note (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, at TEXT NOT NULL, boot TEXT NOT NULL, mono_s REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS note_kind ON note (kind, seq);
"""
_INSERT_ALARM = """
INSERT INTO shadow_alarm SELECT :model, :wearable, :resident, :impact_at, :raised_at, :probability, :long_lie
WHERE NOT EXISTS (SELECT 1 FROM shadow_alarm
    WHERE model = :model AND wearable = :wearable AND impact_at BETWEEN :soonest AND :latest)
"""
_INSERT_WEAR = """
INSERT INTO wear VALUES (:model, :shadow, :placement, :wearable, :begun_at, :until_at, :worn_s)
ON CONFLICT (model, shadow, wearable, begun_at)
DO UPDATE SET until_at = excluded.until_at, worn_s = excluded.worn_s
"""
_INSERT_NOTE = "INSERT INTO note (kind, at, boot, mono_s, body) VALUES (?, ?, ?, ?, ?)"
# What sqlite3 raises; a schema that is damaged is quoted in the message, which then is no UTF-8.
_REFUSALS = (sqlite3.Error, UnicodeDecodeError)
SNOOZE_MOST_S = 900.0  # quiet always ends; whoever needs longer asks again
_SNOOZES_MOST = 1000  # looked back on: far more than a home can ask for within that time
SAME_IMPACT_S = 10.0  # an impact this near a known one is the same, seen again after a restart


class JournalUnavailable(Exception):
    """The journal cannot be read or written now; ``reason`` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class JournalGone(JournalUnavailable):
    """The file under this connection was damaged or replaced: open the journal again."""


class JournalRefuses(JournalUnavailable):
    """The journal does not know what this is about: writing the same again is useless."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened: kept for what can be written only later."""

    at: datetime
    mono_s: float
    clock_ok: bool = True

    @classmethod
    def now(cls) -> Moment:
        """Return this moment, by both clocks."""
        return cls(utc_now(), monotonic_s(), clock_ok())


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an incident; ``seq`` orders all events of the home."""

    seq: int
    incident: str
    kind: str  # raised, paged, motion, again, witness, doubt, acknowledged, attended, resolved, recorded
    at: datetime
    boot: str
    mono_s: float
    body: dict[str, Any]
    clock_ok: bool = True  # whether ``at`` can be believed


@dataclass(slots=True)
class Case:
    """An incident with all that happened to it."""

    facts: Incident
    events: list[Event] = field(default_factory=list)

    def first(self, kind: str) -> Event | None:
        """Return the first event of a kind."""
        return next((e for e in self.events if e.kind == kind), None)

    def last(self, kind: str) -> Event | None:
        """Return the latest event of a kind."""
        return next((e for e in reversed(self.events) if e.kind == kind), None)

    @property
    def state(self) -> State:
        """How far people have come with it."""
        for state in (State.RESOLVED, State.ATTENDED, State.ACKNOWLEDGED):
            if self.first(state) is not None:
                return state
        accepted = any(e.kind == "paged" and e.body["accepted"] for e in self.events)
        return State.PAGED if accepted else State.RAISED

    @property
    def witnesses(self) -> list[str]:
        """The kinds of sources that saw the fall, ``wearable`` or ``camera``, in order."""
        if self.facts.kind not in {Kind.FALL, Kind.LONG_LIE} or self.facts.drill:
            return []
        alone = ["camera" if self.facts.placement == "camera" else "wearable"]  # as all were that do not say
        told = [e.body.get("witnesses", alone if e.kind == "raised" else []) for e in self.events]
        return list(dict.fromkeys(sense for senses in told for sense in senses))

    @property
    def doubted(self) -> bool | None:
        """Whether a camera that saw somebody upright doubts the last fall; None where none ever did."""
        newest = next((e for e in reversed(self.events) if e.kind in {"raised", "again", "doubt"}), None)
        return None if newest is None else newest.body.get("doubted")

    def elapsed_s(self, since: Event, *, now_s: float) -> float:
        """Return seconds since an event: by the monotonic clock, or the wall clock after a reboot.

        Where the wall clock cannot be believed, then or now, it is a lower bound: how long the machine ran until
        the last event of each boot (Linux counts monotonic time from the start), what the wall clock said at later
        events for which it can be believed, and the time since this boot.
        """
        if since.boot == boot_id():
            return max(now_s - since.mono_s, 0.0)
        least_s, last = 0.0, since
        for event in self.events:
            if event.seq > since.seq:
                least_s += max(event.mono_s - (last.mono_s if event.boot == last.boot else 0.0), 0.0)
                if since.clock_ok and event.clock_ok:
                    least_s = max(least_s, (event.at - since.at).total_seconds())
                last = event
        least_s += max(now_s - (last.mono_s if last.boot == boot_id() else 0.0), 0.0)
        trusted = clock_ok() and since.clock_ok
        return max((utc_now() - since.at).total_seconds(), least_s) if trusted else least_s


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to the home rather than to an incident."""

    seq: int
    kind: str  # lost, loss-told, snoozed, snooze-ended, test-sent, tested, camera-paused, camera-resumed
    at: datetime
    boot: str
    mono_s: float
    body: dict[str, Any]
    clock_ok: bool = True


@dataclass(frozen=True, slots=True)
class Snooze:
    """Quiet that staff asked for, for one resident, such as while they lift somebody."""

    resident: str
    by: str
    begun_s: float  # monotonic, as this boot counts
    until_s: float


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """Something to deliver, minted once: the same bytes go out at every try."""

    key: str
    incident: str
    body: bytes
    state: str = "waiting"  # waiting, done, parked
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ShadowAlarm:
    """What a model on trial would have raised; nobody was called."""

    model: str
    wearable: str
    resident: str
    impact_at: datetime
    raised_at: datetime
    probability: float
    long_lie: bool


@dataclass(frozen=True, slots=True)
class Wear:
    """A stretch in which one model judged one wearable, and how much of it that was worn."""

    model: str
    shadow: bool
    placement: str
    wearable: str
    begun_at: datetime
    until_at: datetime
    worn_s: float


@dataclass(frozen=True, slots=True)
class Overview:
    """A journal in numbers; nothing in it leads to a person."""

    verdict: str  # of SQLite's own check; "ok" where it is whole
    size_octets: int
    open_incidents: int
    incidents: dict[str, int]  # kind and state, such as "fall closed"
    events: dict[str, int]  # by kind
    notes: dict[str, int]  # by kind
    outbox: dict[str, int]  # sink and state, such as "record parked"
    drilled_at: datetime | None  # when a drill was last acknowledged
    tested_at: dict[str, datetime]  # channel: when it last took a test page


def overview(path: Path) -> Overview:
    """Return a journal in numbers, as a reader that changes nothing, neither file nor rights.

    Raises:
        JournalUnavailable: there is none, or it cannot be read.
    """
    try:
        size_octets = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])

            def counted(sql: str) -> dict[str, int]:
                return {str(name): int(n) for name, n in db.execute(sql)}

            drilled = db.execute(
                "SELECT max(event.at) FROM event JOIN incident ON incident.id = event.incident"
                " WHERE event.kind = 'acknowledged' AND json_extract(incident.body, '$.drill')"
            ).fetchone()[0]
            tested = db.execute(
                "SELECT json_extract(body, '$.channel'), max(at) FROM note"
                " WHERE kind = 'tested' AND json_extract(body, '$.accepted') GROUP BY 1"
            ).fetchall()
            return Overview(
                verdict,
                size_octets,
                int(db.execute("SELECT count(*) FROM incident WHERE closed = 0").fetchone()[0]),
                counted(
                    "SELECT json_extract(body, '$.kind') || iif(closed, ' closed', ' open'), count(*)"
                    " FROM incident GROUP BY 1"
                ),
                counted("SELECT kind, count(*) FROM event GROUP BY 1"),
                counted("SELECT kind, count(*) FROM note GROUP BY 1"),
                counted("SELECT sink || ' ' || state, count(*) FROM outbox GROUP BY 1"),
                parse_utc(drilled) if drilled else None,
                {str(channel): parse_utc(at) for channel, at in tested},
            )
    except (*_REFUSALS, OSError, ValueError) as error:
        raise JournalUnavailable(path, str(error)) from None


class Journal:
    """One process's connection to the journal; use it from one thread."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0, look_for_loss: bool = False) -> None:
        """Open it, or make it; wait at most ``busy_timeout_s`` for another process at each write.

        ``look_for_loss`` is for services as they start: is all there that was committed before a power cut?

        Raises:
            JournalUnavailable: it can be neither opened nor made.
        """
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._look_for_loss = look_for_loss
        self.quarantined: Path | None = None
        self.unreadable: set[str] = set()  # of what was asked for; a person must look
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        lock_path = self.path.with_name(f"{self.path.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            known = lock_path.exists()  # from then on there was a journal
            missing = "missing" if known and not self.path.exists() else ""
            with lock_path.open("w") as lock:
                # Two that put the same file aside would lose what one of them began.
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    return self._connect(missing)
                except _REFUSALS as error:
                    if not _is_damage(error):
                        raise
                    self._put_aside(error)
                    return self._connect("damaged")
        except (*_REFUSALS, OSError) as error:
            raise JournalUnavailable(self.path, str(error)) from None

    def _put_aside(self, error: Exception) -> None:
        """Keep a damaged file for people to look at; alarming goes on with a new one."""
        self.quarantined = self.path.with_name(f"{self.path.name}.damaged-{utc_now():%Y%m%dT%H%M%S%f}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(f"{self.quarantined}{suffix}")
        log.error("journal is damaged (%s): moved to %s, starting a new one", error, self.quarantined)

    def _connect(self, lost: str) -> sqlite3.Connection:
        """Open the file, or make it; note in it what was ``lost`` before, so that people are told."""
        found = _log_octets(self.path) if self._look_for_loss else b""
        db = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
        db.text_factory = lambda octets: octets.decode("utf-8", "replace")  # one bad octet spoils its row only
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            if self._look_for_loss and _is_new_boot(db) and _log_is_cut(db, self.path, found):
                lost = "cut short"
            db.execute("BEGIN IMMEDIATE")
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _Damaged(verdict)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            if version <= SCHEMA_VERSION:
                for statement in _ADDED.split(";\n"):
                    db.execute(statement)
            if lost:
                db.execute(_INSERT_NOTE, ("lost", *_stamped(None, {"because": lost})))
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        if version > SCHEMA_VERSION:
            db.close()
            raise JournalUnavailable(self.path, f"was written by a newer fallwatch (schema {version}): update")
        self._inode = self.path.stat().st_ino
        return db

    def close(self) -> None:
        """Close the connection; everything committed stays."""
        self._db.close()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self._check_place()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                failpoint("journal.before-commit")
                self._db.execute("COMMIT")
                failpoint("journal.after-commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        except _REFUSALS as error:
            raise self._unavailable(error) from None

    def _check_place(self) -> None:
        try:
            in_place = self.path.stat().st_ino == self._inode
        except OSError:
            in_place = False
        if not in_place:  # what is written to a file without its name is lost
            raise JournalGone(self.path, "was replaced")

    def _unavailable(self, error: Exception) -> JournalUnavailable:
        if isinstance(error, sqlite3.IntegrityError):
            return JournalRefuses(self.path, str(error))
        return (JournalGone if _is_damage(error) else JournalUnavailable)(self.path, str(error))

    def _read(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except _REFUSALS as error:
            raise self._unavailable(error) from None

    # -- incidents ----------------------------------------------------------------------------

    # ``when`` is for what happened while the journal could not be written; left out, it is now.

    def raise_incident(self, incident: Incident, *, when: Moment | None = None, **body: Any) -> bool:
        """Commit a new incident; safe to repeat. Return whether it was new.

        Raises:
            JournalUnavailable: it is NOT on disk.
        """
        facts = asdict(incident)
        for name in ("raised_at", "impact_at"):
            facts[name] = None if facts[name] is None else utc_text(facts[name])
        with self._write() as db:
            new = db.execute(
                "INSERT OR IGNORE INTO incident (id, body) VALUES (?, ?)", (incident.incident, json.dumps(facts))
            ).rowcount
            if new:
                self._insert_event(db, incident.incident, "raised", body, when)
        return bool(new)

    def add(self, incident: str, kind: str, *, when: Moment | None = None, **body: Any) -> None:
        """Note that something happened to an incident."""
        with self._write() as db:
            self._insert_event(db, incident, kind, body, when)

    def acknowledge(self, incident: str, by: str, *, when: Moment | None = None) -> str | None:
        """Make ``by`` the one who goes, unless somebody is already. Return who goes, None if unknown or closed."""
        with self._write() as db:
            if not self._is_open(db, incident):
                return None
            row = db.execute(
                "SELECT body FROM event WHERE incident = ? AND kind = 'acknowledged'", (incident,)
            ).fetchone()
            if row is None:
                self._insert_event(db, incident, "acknowledged", {"by": by}, when)
                return by
            return str(json.loads(row[0])["by"])

    def resolve(self, incident: str, outcome: Outcome, by: str, *, when: Moment | None = None) -> bool:
        """Close an incident with what was found; the first outcome stands. Return whether this one did."""
        with self._write() as db:
            if not self._is_open(db, incident):
                return False
            db.execute("UPDATE incident SET closed = 1 WHERE id = ?", (incident,))
            self._insert_event(db, incident, "resolved", {"outcome": outcome, "by": by}, when)
        return True

    @staticmethod
    def _is_open(db: sqlite3.Connection, incident: str) -> bool:
        return db.execute("SELECT 1 FROM incident WHERE id = ? AND closed = 0", (incident,)).fetchone() is not None

    @staticmethod
    def _insert_event(
        db: sqlite3.Connection, incident: str, kind: str, body: dict[str, Any], when: Moment | None
    ) -> None:
        db.execute(
            "INSERT INTO event (incident, kind, at, boot, mono_s, body) VALUES (?, ?, ?, ?, ?, ?)",
            (incident, kind, *_stamped(when, body)),
        )

    def add_note(self, kind: str, *, when: Moment | None = None, **body: Any) -> None:
        """Note that something happened to the home."""
        with self._write() as db:
            db.execute(_INSERT_NOTE, (kind, *_stamped(when, body)))

    def notes_since(self, since: datetime, *kinds: str) -> list[Note]:
        """Return the home's notes from a moment on, of all or some kinds, oldest first."""
        rows = self._read("SELECT * FROM note WHERE at >= ? ORDER BY seq", utc_text(since))
        notes = [note for row in rows if (note := _note(tuple(row))) is not None]
        return [note for note in notes if not kinds or note.kind in kinds]

    def last_note(self, kind: str, **body: Any) -> Note | None:
        """Return the newest note of a kind that has these values."""
        rows = self._read("SELECT * FROM note WHERE kind = ? ORDER BY seq DESC LIMIT ?", kind, _SNOOZES_MOST)
        notes = (note for row in rows if (note := _note(tuple(row))) is not None)
        return next((note for note in notes if body.items() <= note.body.items()), None)

    def snooze(self, resident: str, length_s: float, by: str, *, when: Moment | None = None) -> float:
        """Keep falls of a resident quiet for so long, at most `SNOOZE_MOST_S`; return how long it will be."""
        length_s = min(max(length_s, 0.0), SNOOZE_MOST_S)
        self.add_note("snoozed", when=when, resident=resident, length_s=length_s, by=by)
        return length_s

    def end_snooze(self, resident: str, by: str, *, when: Moment | None = None) -> None:
        """Let falls of a resident call again at once."""
        self.add_note("snooze-ended", when=when, resident=resident, by=by)

    def snoozes(self, *, now_s: float) -> dict[str, Snooze]:
        """Return the snoozes that hold, by resident: the newest word of each counts.

        Over a reboot one holds only if the wall clock was right before and is now: when in doubt, it has ended.
        """
        rows = self._read(
            "SELECT * FROM note WHERE kind IN ('snoozed', 'snooze-ended') ORDER BY seq DESC LIMIT ?", _SNOOZES_MOST
        )
        newest: dict[str, Note] = {}
        for row in rows:
            note = _note(tuple(row))
            if note is not None and "resident" in note.body:
                newest.setdefault(note.body["resident"], note)
        found = {}
        for resident, note in newest.items():
            if note.kind == "snoozed":
                age_s, length_s = _age_s(note, now_s), min(float(note.body["length_s"]), SNOOZE_MOST_S)
                if age_s < length_s:
                    begun_s = now_s - age_s
                    found[resident] = Snooze(resident, str(note.body.get("by", "")), begun_s, begun_s + length_s)
        return found

    def events_after(self, seq: int, limit: int = 500) -> list[Event]:
        """Return the events that follow number ``seq``, in order."""
        rows = self._read("SELECT * FROM event WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)
        return [event for row in rows if (event := _event(tuple(row))) is not None]

    def last_seq(self) -> int:
        """Return the number of the newest event."""
        return int(self._read("SELECT coalesce(max(seq), 0) FROM event")[0][0])

    def case(self, incident: str) -> Case | None:
        """Return one incident with all its events."""
        cases = self._cases("incident.id = ?", incident)
        return cases[0] if cases else None

    def open_cases(self) -> list[Case]:
        """Return all incidents that nobody has closed, oldest first."""
        return self._cases("closed = 0")

    def cases(self, *, limit: int) -> list[Case]:
        """Return the latest incidents, oldest first."""
        return self._cases("incident.id IN (SELECT id FROM incident ORDER BY rowid DESC LIMIT ?)", limit)

    def cases_since(self, since: datetime) -> list[Case]:
        """Return the incidents raised at or after a moment, oldest first."""
        where = "incident.id IN (SELECT incident FROM event WHERE kind = 'raised' AND at >= ?)"
        return self._cases(where, utc_text(since))

    def _cases(self, where: str, *values: Any) -> list[Case]:
        # One statement, so one moment: what is committed between two would be half seen.
        rows = self._read(
            "SELECT incident.body, event.* FROM incident JOIN event ON event.incident = incident.id"  # noqa: S608
            f" WHERE {where} ORDER BY incident.rowid, event.seq",
            *values,
        )
        cases: dict[str, Case] = {}
        for facts, *row in rows:
            event = _event(tuple(row))
            if event is None:
                self.unreadable.add(str(row[1]))
                continue
            if event.incident not in cases:
                known = _facts(facts)
                if known is None:
                    self.unreadable.add(event.incident)
                    continue
                cases[event.incident] = Case(known)
            cases[event.incident].events.append(event)
        return list(cases.values())

    # -- models ------------------------------------------------------------------------------

    def keep_trial(
        self, alarms: Iterable[ShadowAlarm], wear: Iterable[Wear], *, forget_before: datetime | None, wait: bool
    ) -> None:
        """Keep what models did that is nobody's incident; safe to repeat.

        A known stretch of wear is brought up to date; an impact that is known already is left out.

        Args:
            alarms: of models on trial.
            wear: stretches, new or grown.
            forget_before: what is older goes; None when the clock cannot be trusted with that.
            wait: whether to wait for another process that is writing; if not, that counts as refused.

        Raises:
            JournalUnavailable: nothing of it is on disk.
        """
        self._set_busy_timeout(self._busy_timeout_s if wait else 0.0)
        try:
            with self._write() as db:
                db.executemany(_INSERT_ALARM, [_alarm_values(alarm) for alarm in alarms])
                db.executemany(_INSERT_WEAR, [_wear_values(stretch) for stretch in wear])
                if forget_before is not None:
                    db.execute("DELETE FROM shadow_alarm WHERE raised_at < ?", (utc_text(forget_before),))
                    db.execute("DELETE FROM wear WHERE until_at < ?", (utc_text(forget_before),))
        finally:
            self._set_busy_timeout(self._busy_timeout_s)

    def _set_busy_timeout(self, seconds: float) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def shadow_alarms(self, since: datetime) -> list[ShadowAlarm]:
        """Return what models on trial would have raised since a moment, oldest first."""
        rows = self._read("SELECT * FROM shadow_alarm WHERE raised_at >= ? ORDER BY impact_at", utc_text(since))
        return [alarm for row in rows if (alarm := _shadow_alarm(row)) is not None]

    def wear(self, since: datetime) -> list[Wear]:
        """Return the stretches of wear that reach beyond a moment, oldest first."""
        rows = self._read("SELECT * FROM wear WHERE until_at > ? ORDER BY begun_at", utc_text(since))
        return [wear for row in rows if (wear := _wear(row)) is not None]

    # -- outbox and cursors -------------------------------------------------------------------

    def put(self, sink: str, items: Sequence[OutboxItem], *, cursor: int) -> None:
        """Store items to deliver, once each, and move the sink's cursor, in one commit."""
        with self._write() as db:
            db.executemany(
                "INSERT OR IGNORE INTO outbox (key, sink, incident, body, at) VALUES (?, ?, ?, ?, ?)",
                [(item.key, sink, item.incident, item.body, utc_text(utc_now())) for item in items],
            )
            self._move_cursor(db, sink, cursor)

    def waiting(self, sink: str, limit: int = 100) -> list[OutboxItem]:
        """Return what is still to be delivered, in order."""
        return self._outbox("sink = ? AND state = 'waiting'", sink, limit)

    def parked(self, sink: str, limit: int = 1000) -> list[OutboxItem]:
        """Return what the far end refused and a person must look at."""
        return self._outbox("sink = ? AND state = 'parked'", sink, limit)

    def _outbox(self, where: str, *values: Any) -> list[OutboxItem]:
        columns = "key, incident, body, state, reason"
        rows = self._read(f"SELECT {columns} FROM outbox WHERE {where} ORDER BY rowid LIMIT ?", *values)  # noqa: S608
        return [OutboxItem(*row) for row in rows]

    def settle(self, key: str, state: str, reason: str = "") -> None:
        """Mark an item ``done``, ``parked`` or ``waiting`` again, and note so at its incident (``recorded``)."""
        with self._write() as db:
            db.execute("UPDATE outbox SET state = ?, reason = ? WHERE key = ?", (state, reason, key))
            if state == "done":  # its key tells it from new ones; numbers of people need not stay here
                db.execute("UPDATE outbox SET body = x'' WHERE key = ?", (key,))
            known = "SELECT incident FROM outbox JOIN incident ON incident.id = outbox.incident WHERE key = ?"
            row = db.execute(known, (key,)).fetchone()
            if row is not None:
                self._insert_event(db, row[0], "recorded", {"key": key, "state": state, "reason": reason}, None)

    def cursor(self, name: str) -> int:
        """Return the number of the last event a follower has dealt with."""
        rows = self._read("SELECT seq FROM cursor WHERE name = ?", name)
        return int(rows[0][0]) if rows else 0

    def move_cursor(self, name: str, seq: int) -> None:
        """Note that a follower has dealt with all events up to ``seq``."""
        with self._write() as db:
            self._move_cursor(db, name, seq)

    @staticmethod
    def _move_cursor(db: sqlite3.Connection, name: str, seq: int) -> None:
        db.execute(
            "INSERT INTO cursor (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq",
            (name, seq),
        )

    def data_version(self) -> int:
        """Return a number that changes when another process has committed: a cheap look for news."""
        self._check_place()
        return int(self._read("PRAGMA data_version")[0][0])


def _event(row: tuple[Any, ...]) -> Event | None:
    """Return the event of a row; a row that cannot be read is said and passed over, and the rest goes on."""
    try:
        seq, incident, kind, at, boot, mono_s, text = row
        body, trusted = _unstamped(text)
        return Event(int(seq), incident, kind, parse_utc(at), boot, float(mono_s), body, trusted)
    except (ValueError, TypeError) as error:
        log.error("event %r in the journal cannot be read: %s", row[0], error)
        return None


def _note(row: tuple[Any, ...]) -> Note | None:
    try:
        seq, kind, at, boot, mono_s, text = row
        body, trusted = _unstamped(text)
        return Note(int(seq), kind, parse_utc(at), boot, float(mono_s), body, trusted)
    except (ValueError, TypeError) as error:
        log.error("note %r in the journal cannot be read: %s", row[0], error)
        return None


def _stamped(when: Moment | None, body: dict[str, Any]) -> tuple[str, str, float, str]:
    """Return what an event and a note have in common: both clocks, and whether the wall clock was right."""
    when = when or Moment.now()
    if not when.clock_ok:
        body = {**body, "clock_ok": False}
    return utc_text(when.at), boot_id(), round(when.mono_s, 4), json.dumps(body)


def _unstamped(text: str) -> tuple[dict[str, Any], bool]:
    body = dict(json.loads(text))
    return body, bool(body.pop("clock_ok", True))


def _age_s(note: Note, now_s: float) -> float:
    if note.boot == boot_id():
        return max(now_s - note.mono_s, 0.0)
    age_s = (utc_now() - note.at).total_seconds()
    return age_s if clock_ok() and note.clock_ok and age_s >= 0 else float("inf")


def _alarm_values(alarm: ShadowAlarm) -> dict[str, Any]:
    near = timedelta(seconds=SAME_IMPACT_S)
    return asdict(alarm) | {
        "impact_at": utc_text(alarm.impact_at),
        "raised_at": utc_text(alarm.raised_at),
        "soonest": utc_text(alarm.impact_at - near),
        "latest": utc_text(alarm.impact_at + near),
    }


def _wear_values(wear: Wear) -> dict[str, Any]:
    return asdict(wear) | {"begun_at": utc_text(wear.begun_at), "until_at": utc_text(wear.until_at)}


def _shadow_alarm(row: tuple[Any, ...]) -> ShadowAlarm | None:
    try:
        model, wearable, resident, impact_at, raised_at, probability, long_lie = row
        at = parse_utc(impact_at), parse_utc(raised_at)
        return ShadowAlarm(model, wearable, resident, *at, float(probability), bool(long_lie))
    except (ValueError, TypeError) as error:
        log.error("an alarm of a shadow model in the journal cannot be read: %s", error)
        return None


def _wear(row: tuple[Any, ...]) -> Wear | None:
    try:
        model, shadow, placement, wearable, begun_at, until_at, worn_s = row
        span = parse_utc(begun_at), parse_utc(until_at)
        return Wear(model, bool(shadow), placement, wearable, *span, float(worn_s))
    except (ValueError, TypeError) as error:
        log.error("a stretch of wear in the journal cannot be read: %s", error)
        return None


def _facts(text: str) -> Incident | None:
    try:
        body = json.loads(text)
        body["kind"] = Kind(body["kind"])
        for name in ("raised_at", "impact_at"):
            body[name] = None if body[name] is None else parse_utc(body[name])
        return Incident(**body)
    except (ValueError, TypeError, KeyError) as error:
        log.error("an incident in the journal cannot be read: %s", error)
        return None


def _log_octets(path: Path) -> bytes:
    """Return the write-ahead log as it lies there.

    No other file of an open database may be read past SQLite: closing it would take this process's locks away.
    """
    try:
        return path.with_name(f"{path.name}-wal").read_bytes()
    except OSError:
        return b""


def _is_new_boot(db: sqlite3.Connection) -> bool:
    """Tell whether nothing was written since the machine started: only a power cut loses what was committed."""
    for table in ("event", "note"):
        try:
            newest = db.execute(f"SELECT boot FROM {table} ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
        except sqlite3.OperationalError:  # no such table: that may be just what was lost
            continue
        if newest is not None and newest[0] == boot_id():
            return False
    return True


def _log_is_cut(db: sqlite3.Connection, path: Path, found: bytes) -> bool:
    """Tell whether SQLite leaves out commits at the end of the log that was ``found`` before it was opened.

    To SQLite a frame with a wrong checksum is where the log ends: whatever was committed behind it is gone
    without a word. Frames that are right and not read, and a last one that is half written, are none of that:
    their writer died before it had committed. The format is that of https://www.sqlite.org/walformat.html.
    """
    page_octets = db.execute("PRAGMA page_size").fetchone()[0]
    read_frames = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    if len(found) < 32 or read_frames < 0 or _log_octets(path)[16:24] not in {found[16:24], b""}:
        return False  # no log, or another process has begun a new one meanwhile
    first = 32 + read_frames * (24 + page_octets)
    frames = range(first, len(found) - 24 - page_octets + 1, 24 + page_octets)
    begins_well = _checksum(found, (0, 0), found[:24]) == struct.unpack(">2I", found[24:32])
    salts = found[16:24] if begins_well else found[first + 8 : first + 16]
    sums = struct.unpack(">2I", found[24:32] if read_frames == 0 else found[first - 8 - page_octets :][:8])
    unread_well = begins_well
    for at in frames:
        if found[at + 8 : at + 16] != salts:
            unread_well = False  # of an older log, or damaged: what follows tells
        else:
            # The last frame of a commit says how large the database then is.
            if not unread_well and any(found[at + 4 : at + 8]):
                return True
            sums = _checksum(found, sums, found[at : at + 8] + found[at + 24 : at + 24 + page_octets])
            unread_well = unread_well and sums == struct.unpack(">2I", found[at + 16 : at + 24])
    return False


def _checksum(log_octets: bytes, so_far: tuple[int, ...], octets: bytes) -> tuple[int, ...]:
    """Go on with the log's checksum; its words are in the order that the log's first octets name."""
    order = ">" if log_octets[3] & 1 else "<"
    s0, s1 = so_far
    words = iter(struct.unpack(f"{order}{len(octets) // 4}I", octets[: len(octets) // 4 * 4]))
    for even, odd in zip(words, words, strict=False):
        s0 = (s0 + even + s1) & 0xFFFFFFFF
        s1 = (s1 + odd + s0) & 0xFFFFFFFF
    return s0, s1


class _Damaged(sqlite3.DatabaseError):
    """The file's own check failed."""


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Damaged | UnicodeDecodeError) or code in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
