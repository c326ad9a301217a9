"""The alarm service in virtual time: its own loop, unchanged, whose every wait moves the clock instead.

Only what reaches out of the process is replaced: clocks, the threads that drive sinks, heartbeat files.
"""

from __future__ import annotations

import queue
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.alarm.record_feed import RecordFeed
from edge.alarm.service import AlarmService
from edge.alarm.worker import Report
from edge.clock import boot_id, clock_ok, monotonic_s, utc_now
from edge.core.incident import Incident, Kind, new_incident_id, utc_text
from edge.journal import JOURNAL_FILE, Journal, JournalGone, JournalUnavailable
from edge.settings import Settings
from edge.sinks import Page, SinkUnavailable

TURN_S = 0.2  # of the service: so late it may look
AWAY_S = 1.0  # from the end of the service until it is there again
CHECK_S = 30.0  # so often a worker looks whether its far end is there


class Crash(BaseException):
    """The service ends here and now, as by kill -9."""


@dataclass
class Clock:
    """Both clocks of a machine, and whether people may believe the second."""

    mono_s: float = 1000.0
    wall: datetime = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    ok: bool = True
    boot: str = "boot-1"

    def utc_now(self) -> datetime:
        return self.wall

    def advance(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall += timedelta(seconds=seconds)

    def reboot(self, *, off_s: float, ok: bool) -> None:
        """Lose power for so long; whether the wall clock is right afterwards is another matter."""
        self.wall += timedelta(seconds=off_s)
        self.mono_s, self.ok, self.boot = 10.0, ok, f"{self.boot}+"


@dataclass
class Sent:
    """A page that the service handed to a channel."""

    at_s: float  # since the beginning, over any reboot
    page: Page
    taken: bool


@dataclass
class Far:
    """The far ends of all channels: take pages, or refuse them while ``refusing``."""

    refusing: Callable[[], bool] = lambda: False
    sent: list[Sent] = field(default_factory=list)


class Hand:
    """Stands in for a worker and its thread: what is submitted is taken or refused at once."""

    def __init__(self, home: VirtualHome, name: str, sink: Any, report: Callable[[Report], None]) -> None:
        self.name, self.alive, self.holds = name, True, False
        self._home, self._sink, self._report = home, sink, report

    def start(self) -> None:
        self._home.hands.append(self)
        self.check()

    def stop(self) -> None:
        self._home.hands.remove(self)
        self._sink.close()

    def check(self) -> None:
        refused = self._home.far.refusing() if self.name != "record" else False
        self._tell(None, None, "refused" if refused else "")

    def submit(self, item: Any, *, urgency: int = 1, tag: Any = None) -> None:  # all at once
        error = ""
        if isinstance(item, Page):
            error = "refused" if self._home.far.refusing() else ""
            self._home.far.sent.append(Sent(self._home.now_s, item, not error))
        else:
            try:
                self._sink.deliver(item)
            except SinkUnavailable as unavailable:
                error = unavailable.reason
        self._tell(item, tag, error)

    def _tell(self, item: Any, tag: Any, error: str) -> None:
        self._report(Report(self.name, item, self._home.clock.wall, tag, error))


class VirtualHome:
    """A home whose alarm service runs in virtual time, and whose services and people act at given times.

    ``at`` says what happens when, in seconds since the beginning, which a reboot does not set back. `run` lets the
    service work until then.
    """

    def __init__(self, settings: Settings, folder: Path, rng: random.Random, clock: Clock) -> None:
        self.clock = clock
        self.far = Far()
        self.detect_speaks = True
        self.tells_record = True  # what that costs is left out where only pages matter
        self._settings, self.folder, self._rng = settings, folder, rng
        self._acts: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = iter(range(sys.maxsize))
        self._offset_s = -self.clock.mono_s
        self._enough: Callable[[], bool] = lambda: False
        self.real_time = False  # what is outside of the process may need it
        self._inbox: deque[Any] = deque()
        self._service: AlarmService | None = None
        self.hands: list[Hand] = []
        self.raised_s: dict[str, float] = {}  # incident: when
        self._unwritten: dict[str, Incident] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The journal, as detect and people have it open."""
        if self._journal is None:
            self._journal = Journal(self.folder / JOURNAL_FILE)
        return self._journal

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return self.clock.mono_s + self._offset_s

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self._acts.append((seconds, next(self._numbers), act))
        self._acts.sort()

    def forget_acts(self) -> None:
        """Drop what was to happen: a reboot may have gone past the time for it."""
        self._acts.clear()

    def fall(self, kind: Kind = Kind.FALL, *, resident: str = "r1") -> str:
        """Detect raises an incident; return its id."""
        room = next(r.room for r in self._settings.resident if r.id == resident)
        now = self.clock.utc_now()
        facts = Incident(
            new_incident_id(), "site-7", kind, now, now, clock_ok=self.clock.ok,
            resident=resident, room=room, wearable="0001", placement="wrist", probability=0.9, model="wrist-1",
        )  # fmt: skip
        self.raised_s[facts.incident] = self.now_s
        self._unwritten[facts.incident] = facts
        self._write()
        return facts.incident

    def _write(self) -> None:
        """Put on disk what is not there yet, as detect does."""
        for incident, facts in list(self._unwritten.items()):
            try:
                self.journal.raise_incident(facts, since_impact_s=0.0)
                del self._unwritten[incident]
            except JournalGone:
                self.close()
            except JournalUnavailable:
                return

    def _heartbeat(self) -> dict[str, Any] | None:
        """Return what detect says of itself: what it could not put on disk, above all."""
        self._write()
        unwritten = []
        for facts in self._unwritten.values():
            document = asdict(facts) | {
                "raised_at": utc_text(facts.raised_at),
                "impact_at": utc_text(facts.raised_at),
            }
            unwritten.append({"incident": document, "body": {"since_impact_s": 0.0}})
        return {"age_s": 0.0, "unwritten": unwritten} if self.detect_speaks else None

    def first_page_s(self, incident: str) -> float:
        """Return when a page about an incident was first handed to a channel; never: infinity."""
        return next((sent.at_s for sent in self.far.sent if sent.page.incident == incident), float("inf"))

    def reboot(self, *, off_s: float, ok: bool) -> None:
        """Cut the power for so long, at once."""
        before_s = self.now_s
        self.clock.reboot(off_s=off_s, ok=ok)
        self._offset_s = before_s + off_s - self.clock.mono_s
        raise Crash

    def is_open(self, incident: str) -> bool:
        case = self.journal.case(incident)
        return case is not None and case.first("resolved") is None

    def has_waiting(self, incident: str) -> bool:
        """Tell whether an answer to an incident has come that the service has not looked at."""
        return any(isinstance(item, tuple) and incident in item for item in self._inbox)

    def crash(self) -> None:
        """Kill the service, at once; it is started again."""
        raise Crash

    def run(self, until_s: float) -> None:
        """Let the service work until then; it is started again whenever it ends."""
        self.run_until(lambda: self.now_s >= until_s)

    def run_until(self, enough: Callable[[], bool], timeout_s: float = float("inf")) -> None:
        """Let the service work until something is so, at most for so long."""
        last_s = self.now_s + timeout_s
        self._enough = lambda: enough() or self.now_s >= last_s
        while not self._enough():
            self._inbox.clear()
            self.hands.clear()
            self._fresh, self._checked_s = True, self.now_s
            self._service = AlarmService(self._settings, self.folder, self.folder)
            try:
                self._service.run()
            except Crash:
                if self._service._journal is not None:
                    self._service._journal.close()  # as the kernel does
                self.hands[-1].stop()  # the record's file, too
                self.clock.advance(AWAY_S)
        self._service = None

    # -- in place of queue.SimpleQueue ----------------------------------------------------------

    def put(self, item: Any) -> None:
        self._inbox.append(item)

    def get(self, timeout: float) -> Any:
        if not self._inbox and timeout >= TURN_S:
            self._pass_time()
        if self._inbox:
            return self._inbox.popleft()
        raise queue.Empty

    def _pass_time(self) -> None:
        """Move the clock to where something happens next; the service notices what is due up to a turn late."""
        assert self._service is not None
        if self._enough():
            self._service.stop()
            return
        if self.real_time:
            time.sleep(TURN_S)
            self.clock.advance(TURN_S)
            return
        if self._fresh:  # it has not looked into the journal yet
            self._fresh = False
            self.clock.advance(TURN_S)
            return
        if self.now_s - self._checked_s >= CHECK_S:
            self._checked_s = self.now_s
            for hand in self.hands:
                hand.check()
            return
        deadlines = [e.deadline_s() for e in self._service._escalations.values()]
        due_s = min((at_s for at_s in deadlines if at_s is not None), default=float("inf"))
        wake_s = min(due_s - self.clock.mono_s, self._checked_s + CHECK_S - self.now_s) + self._rng.uniform(
            0.0, TURN_S
        )
        wake_s = max(wake_s, 0.01)
        if not self._acts or self._acts[0][0] - self.now_s > wake_s:
            self.clock.advance(wake_s)
            return
        self.clock.advance(max(self._acts[0][0] - self.now_s, 0.0))
        while self._acts and self._acts[0][0] <= self.now_s:  # all that happens at once, before anybody looks
            self._acts.pop(0)[2]()
        self.clock.advance(self._rng.uniform(0.0, TURN_S))


@contextmanager
def virtual_home(settings: Settings, folder: Path, rng: random.Random) -> Iterator[VirtualHome]:
    """Yield a home in virtual time; the real time comes back in the end."""
    home: VirtualHome
    clock, service = Clock(), "edge.alarm.service"
    clocks = {monotonic_s: lambda: clock.mono_s, utc_now: clock.utc_now}
    clocks |= {clock_ok: lambda: clock.ok, boot_id: lambda: clock.boot}

    def hand(name: str, sink: Any, report: Callable[[Report], None], *, check_every_s: float) -> Hand:
        return Hand(home, name, sink, report)

    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.startswith("edge.")]:
            for name in ("monotonic_s", "utc_now", "clock_ok", "boot_id"):
                real = getattr(module, name, None)
                if real in clocks:
                    patch.setattr(module, name, clocks[real])
        patch.setattr(f"{service}.queue", SimpleNamespace(SimpleQueue=lambda: home, Empty=queue.Empty))
        patch.setattr(f"{service}.read_runfile", lambda _: home._heartbeat())
        patch.setattr(f"{service}.write_runfile", lambda *_: True)
        patch.setattr(f"{service}.take_words", lambda _: [])
        patch.setattr(f"{service}.Worker", hand)
        patch.setattr("edge.alarm.paging.Worker", hand)
        feed = RecordFeed.feed
        patch.setattr(RecordFeed, "feed", lambda *a, **k: feed(*a, **k) if home.tells_record else None)
        home = VirtualHome(settings, folder, rng, clock)
        try:
            yield home
        finally:
            home.close()
