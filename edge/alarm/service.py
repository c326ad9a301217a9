"""The alarm service: from the journal to people, until a person answers; to the record; to MQTT.

One thread decides, in a loop that turns five times a second; each channel has a thread of its own, so
the page goes out whether or not record, broker or another channel work.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from edge.alarm.document import since_impact_s
from edge.alarm.paging import Paging, Sending
from edge.alarm.record_feed import RecordFeed
from edge.alarm.technical import Technical
from edge.alarm.worker import Heard, Report, Worker
from edge.clock import clock_ok, monotonic_s, utc_now
from edge.core.escalation import Escalation, Policy, Words
from edge.core.incident import Incident, Kind, Outcome, parse_utc
from edge.core.routing import Ladder, Route, ladder_for
from edge.core.supervision import Cause, LineWatch
from edge.core.words import page_text
from edge.failpoint import failpoint
from edge.journal import (
    JOURNAL_FILE,
    Case,
    Event,
    Journal,
    JournalGone,
    JournalRefuses,
    JournalUnavailable,
    Moment,
    Snooze,
)
from edge.runfile import read_runfile, take_words, write_runfile
from edge.settings import Settings
from edge.sinks import Page, Reply
from edge.sinks.record import open_record
from edge.watchdog import Watchdog

if TYPE_CHECKING:
    from edge.alarm.mqtt_feed import MqttFeed

log = logging.getLogger(__name__)

TURN_S = 0.2
TICK_S = 1.0
JOURNAL_BUSY_S = 1.0  # one that is held up for longer counts as refusing: pages do not wait
DETECT_SILENT_S = 6.0  # no heartbeat for so long: detection has stopped
DETECT_START_S = 10.0  # ... or has not begun
JOURNAL_DOWN_S = 20.0  # a store that refuses for so long is told to a person
RECORD_CHECK_S = 60.0
DAY_S = 86_400.0
WAITING_NOTES_MOST = 10_000
BY_SYSTEM = "fallwatch"
FOLLOWED = {"acknowledged", "resolved", "motion", "again", "doubt"}  # events that change whom to call


class AlarmService:
    """Calls people; see `run`."""

    def __init__(self, settings: Settings, state: Path, run: Path) -> None:
        self._settings = settings
        self._run = run
        self._timezone = ZoneInfo(settings.home.timezone)
        self._routes = routes_of(settings)
        self._journal_path = state / JOURNAL_FILE
        self._journal: Journal | None = None
        self._journal_error: tuple[float, str] | None = None  # since when, why
        self._notes: deque[Callable[[Journal], object]] = deque(maxlen=WAITING_NOTES_MOST)
        self._seen_version = -1
        self._seq = 0  # last event dealt with
        self._escalations: dict[str, Escalation] = {}
        self._facts: dict[str, Incident] = {}
        self._noted_failures: set[tuple[str, int, str, str]] = set()
        self._snoozes: dict[str, Snooze] = {}
        self._technical = Technical(settings.home.id, self._raise_here, self._restored)
        self._detect_spoke = False
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._watchdog = Watchdog()
        now_s = self._begun_s = monotonic_s()
        self._paging = Paging(settings, self._inbox.put, now_s=now_s)
        self._tested_s = dict.fromkeys(self._paging.names, now_s)
        self._record_worker = Worker(
            "record",
            open_record(settings, settings.secrets, state),
            self._inbox.put,
            check_every_s=min(RECORD_CHECK_S, settings.record.down_after_s),
        )
        self._record = RecordFeed(
            settings, self._record_worker, lambda facts: self._text(facts, Words.ALARM), now_s=now_s
        )
        self._mqtt = _open_mqtt(settings, self._inbox, now_s)

    def stop(self) -> None:
        """Ask `run` to end; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`."""
        self._paging.start()
        self._record_worker.start()
        if self._mqtt is not None:
            self._mqtt.start()
        self._heartbeat(monotonic_s())
        self._watchdog.ready()
        log.info("alarm is ready: %d channels", len(self._paging.names))
        next_tick_s = 0.0
        while not self._stop.is_set():
            self._take_inbox()
            now_s = monotonic_s()
            self._follow_journal(now_s)
            if now_s >= next_tick_s:
                self._tick(now_s)
                next_tick_s = now_s + TICK_S
            self._call(now_s)
            self._feed(now_s)
        self._watchdog.stopping()
        self._paging.stop()
        self._record_worker.stop()
        if self._mqtt is not None:
            self._mqtt.stop()
        with self._journal_guard():
            self._flush_notes()
            if self._journal is not None and self._mqtt is not None:
                self._mqtt.save(self._journal)
        if self._journal is not None:
            self._journal.close()

    # -- from the journal ---------------------------------------------------------------------

    def _follow_journal(self, now_s: float) -> None:
        with self._journal_guard():
            if self._journal is None:
                self._journal = Journal(self._journal_path, busy_timeout_s=JOURNAL_BUSY_S, look_for_loss=True)
                self._resume(self._journal, now_s)
            self._flush_notes()
            version = self._journal.data_version()
            if version == self._seen_version:
                return
            while events := self._journal.events_after(self._seq):
                for event in events:
                    self._on_event(self._journal, event, now_s)
                    self._seq = event.seq
            self._set_snoozes(self._journal.snoozes(now_s=now_s), now_s)
            self._record.parked = len(self._journal.parked("record"))  # people may have sent them once more
            self._seen_version = version

    def _resume(self, journal: Journal, now_s: float) -> None:
        """Take up all open incidents; those nobody has answered are announced again at once."""
        self._seen_version = -1
        self._seq = journal.last_seq()  # read before the cases: what comes in between is in them
        # Where an older journal was lost under us, the new one learns what is still open.
        for incident in self._escalations:
            journal.raise_incident(self._facts[incident])
        self._snoozes = journal.snoozes(now_s=now_s)
        open_cases = journal.open_cases()
        for case in open_cases:
            self._seq = max(self._seq, case.events[-1].seq)
            self._begin(case, now_s)
            self._technical.resume(case.facts)
        for cause, line in self._lines().items():
            line.down = line.down or cause in self._technical  # told by an earlier run, and not known to be better
        self._record.resume(journal)
        if self._mqtt is not None:
            self._mqtt.resume(journal, [case.facts.incident for case in open_cases])
        self._tell_loss(journal)

    def _tell_loss(self, journal: Journal) -> None:
        """Tell staff once that an earlier journal was lost, with whatever was open in it."""
        lost = journal.last_note("lost")
        if lost is not None and journal.last_note("loss-told", seq=lost.seq) is None:
            self._technical.tell(
                f"incident store was {lost.body['because']}: see who was on the floor", fault=True
            )
            self._note(lambda journal: journal.add_note("loss-told", seq=lost.seq))

    def _begin(self, case: Case, now_s: float) -> None:
        facts, raised = case.facts, case.first("raised")
        if facts.incident in self._escalations or raised is None or facts.board_only:
            return
        escalation = Escalation(
            facts,
            self._policy(facts),
            now_s=now_s,
            elapsed_s=case.elapsed_s(raised, now_s=now_s),
            since_impact_s=since_impact_s(case, now_s=now_s),
            rounds=max((e.body["number"] for e in case.events if e.kind == "paged"), default=0),
            motions=_motions(case),
            doubted=bool(case.doubted),
        )
        if case.first("acknowledged") is not None:
            escalation.on_acknowledged()
        called = [e for e in case.events if e.kind == "paged" and e.body["words"] == Words.ALARM]
        called_s = now_s - case.elapsed_s(called[-1], now_s=now_s) if called else None
        self._take(facts, escalation, now_s, called_s=called_s)

    def _take(
        self, facts: Incident, escalation: Escalation, now_s: float, *, called_s: float | None = None
    ) -> None:
        """Follow an incident from now on; ``called_s``: when people were last called, by an earlier run."""
        self._facts[facts.incident] = facts
        self._escalations[facts.incident] = escalation
        snooze = self._snoozes.get(facts.resident or "")
        broken_through = snooze is not None and called_s is not None and called_s > snooze.begun_s
        if snooze is not None and not facts.drill and not broken_through:
            escalation.on_snoozed(snooze.until_s, now_s=now_s)

    def _on_event(self, journal: Journal, event: Event, now_s: float) -> None:
        if event.kind == "raised":
            case = journal.case(event.incident)
            if case is not None and case.first("resolved") is None:
                self._begin(case, now_s)
            return
        escalation = self._escalations.get(event.incident)
        if escalation is None or event.kind not in FOLLOWED:
            return
        match event.kind:
            case "acknowledged":
                escalation.on_acknowledged()
                self._paging.release(event.incident)
            case "resolved":
                escalation.on_resolved(now_s=now_s)
                self._paging.release(event.incident)
            case "motion":
                escalation.on_motion(event.body["motion"], now_s=now_s)
            case "again":
                escalation.on_again(now_s=now_s, doubted=bool(event.body.get("doubted")))
            case "doubt":
                escalation.on_doubt(bool(event.body["doubted"]), now_s=now_s)

    def _set_snoozes(self, snoozes: dict[str, Snooze], now_s: float) -> None:
        for incident, escalation in self._escalations.items():
            facts = self._facts[incident]
            new, old = (known.get(facts.resident or "") for known in (snoozes, self._snoozes))
            if (None if new is None else round(new.until_s)) != (None if old is None else round(old.until_s)):
                until_s = None if new is None or facts.drill else new.until_s
                escalation.on_snoozed(until_s, now_s=now_s)
        self._snoozes = snoozes

    @contextlib.contextmanager
    def _journal_guard(self) -> Iterator[None]:
        """Go on without the journal while it refuses; people are told when that lasts."""
        try:
            yield
        except JournalUnavailable as error:
            if isinstance(error, JournalGone) and self._journal is not None:
                self._journal.close()
                self._journal = None  # the next turn opens it again
            if self._journal_error is None:
                log.error("%s", error)
                self._journal_error = (monotonic_s(), error.reason)
        except Exception as unforeseen:  # nothing that a file may hold ends the calls
            if self._journal_error is None:
                log.exception("the journal failed in a way nobody foresaw")
                self._journal_error = (monotonic_s(), f"{type(unforeseen).__name__} (see the log)")

    def _note(self, write: Callable[[Journal], object]) -> None:
        """Write to the journal now, or, in order, as soon as it takes it."""
        self._notes.append(write)
        with self._journal_guard():
            self._flush_notes()

    def _flush_notes(self) -> None:
        while self._notes and self._journal is not None:
            try:
                self._notes[0](self._journal)
            except JournalRefuses as error:  # of an incident that was lost with an older journal
                log.error("not written: %s", error)
            self._notes.popleft()
            self._seen_version = -1  # our own commits do not change data_version
            if self._journal_error is not None:  # a full disk still reads: only a write ends the trouble
                log.info("journal is back")
                self._journal_error = None

    # -- calls --------------------------------------------------------------------------------

    def _policy(self, facts: Incident) -> Policy:
        settings = self._settings.escalation
        return Policy(
            ladder=self._ladder(facts),
            steps_s=settings.steps_s,
            repeat_every_s=settings.repeat_every_s,
            follow_up_s=settings.follow_up_s,
            technical_repeat_s=settings.technical_repeat_s,
        )

    def _ladder(self, facts: Incident) -> Ladder:
        local = self._local_time()
        minute = None if local is None else local.hour * 60 + local.minute
        return ladder_for(self._routes, room=facts.room, minute=minute)

    def _local_time(self) -> datetime | None:
        """Return the home's own time; None while the clock cannot be believed."""
        return utc_now().astimezone(self._timezone) if clock_ok() else None

    def _call(self, now_s: float) -> None:
        for incident, escalation in list(self._escalations.items()):
            deadline_s = escalation.deadline_s()
            if deadline_s is not None and now_s >= deadline_s:
                facts = self._facts[incident]
                for call in escalation.due(now_s=now_s):
                    failpoint("alarm.before-page")
                    text = self._text(facts, call.words, call.minutes, doubted=call.doubted)
                    self._paging.send(call, facts, text, ladder=self._ladder(facts), now_s=now_s)
                    failpoint("alarm.after-page")
            if escalation.stage == "closed" and escalation.deadline_s() is None:
                del self._escalations[incident]
                self._paging.forget(incident)
                self._noted_failures = {key for key in self._noted_failures if key[0] != incident}
        self._paging.due(now_s)

    def _text(self, facts: Incident, words: Words, minutes: int = 0, *, doubted: bool = False) -> str:
        moment = facts.impact_at or facts.raised_at
        local = moment.astimezone(self._timezone) if facts.clock_ok else None
        return page_text(facts, words, local_time=local, minutes=minutes, doubted=doubted)

    # -- from channels ------------------------------------------------------------------------

    def _take_inbox(self) -> None:
        timeout_s: float = TURN_S
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._inbox.get(timeout=timeout_s)
                timeout_s = 0.001
                match item:
                    case Report():
                        self._on_report(item)
                    case Heard():
                        self._on_reply(item.sink, item.reply)
                    case _:
                        self._on_mqtt(item)

    def _on_report(self, report: Report) -> None:
        now_s = monotonic_s()
        if report.sink not in self._paging:
            write = self._record.on_report(report, now_s=now_s)
            if write is not None:
                self._note(write)
            return
        reached = self._paging.on_report(report, now_s=now_s)
        if self._mqtt is not None:
            self._mqtt.channel(report.sink, self._paging.lines[report.sink].well)
        match report.tag, report.item:
            case Sending() as sending, Page():
                escalation = self._escalations.get(sending.call.incident)
                if escalation is not None and reached is not None:
                    escalation.on_page(sending.call, sending.group, accepted=reached, now_s=now_s)
                self._note_page(sending, report)
            case None, Page() as page:
                when, accepted = Moment.now(), not report.error
                body = {"channel": report.sink, "text": page.text, "accepted": accepted, "reason": report.error}
                self._note(lambda journal: journal.add_note("tested", when=when, **body))

    def _note_page(self, sending: Sending, report: Report) -> None:
        call, accepted = sending.call, not report.error
        failure_key = (*sending.key, report.sink)
        if not accepted and failure_key in self._noted_failures:
            return  # said once; a line that is down for hours must not fill the disk
        if not accepted:
            self._noted_failures.add(failure_key)
        body = {
            "channel": report.sink,
            "to": sending.group,
            "text": sending.text,
            "words": call.words.value,
            "number": call.number,
            "accepted": accepted,
            "reason": report.error,
        }
        when = Moment.now()
        self._note(lambda journal: journal.add(call.incident, "paged", when=when, **body))

    def _on_reply(self, channel: str, reply: Reply) -> None:
        if reply.acknowledges:
            self._acknowledge(reply.incident, reply.by or channel)
            return
        sending = self._paging.on_failure(channel, reply, now_s=monotonic_s())
        if sending is not None:
            log.warning("%s: a page that was taken reached nobody: %s", channel, reply.failure)
            self._note_page(sending, Report(channel, None, utc_now(), sending, reply.failure or "reached nobody"))

    def _acknowledge(self, incident: str, by: str) -> None:
        """Take a person's answer, wherever it came from; it counts at once, whatever the journal does."""
        escalation, when = self._escalations.get(incident), Moment.now()
        if escalation is not None:
            escalation.on_acknowledged()
            self._paging.release(incident)
        # One that we have not heard of yet may be in the journal already, and comes from there with its answer.
        self._note(lambda journal: journal.acknowledge(incident, by, when=when))

    def _on_mqtt(self, event: tuple[Any, ...]) -> None:
        when = Moment.now()
        match event:
            case ("published", int(number)) if self._mqtt is not None:
                self._mqtt.on_published(number)
            case ("heard", int(mid), int(qos)) if self._mqtt is not None:
                self._mqtt.on_heard(mid, qos)
            case ("lost", str(reason)) if self._mqtt is not None:
                self._mqtt.on_lost(reason)
            case ("acknowledge", str(incident), str(by), "acknowledged"):
                self._acknowledge(incident, by)
            case ("acknowledge", str(incident), str(by), "attended"):
                self._acknowledge(incident, by)
                self._note(lambda journal: _attend(journal, incident, by, when))
            case ("snooze", str(resident), str(by), float(length_s)):
                if any(known.id == resident for known in self._settings.resident):
                    self._note(lambda journal: _snooze(journal, resident, length_s, by, when))

    # -- record and MQTT ----------------------------------------------------------------------

    def _feed(self, now_s: float) -> None:
        if self._journal is None:
            return
        with self._journal_guard():
            self._record.feed(self._journal, seq=self._seq, now_s=now_s)
        if self._mqtt is not None and self._journal is not None:
            with self._journal_guard():
                self._mqtt.feed(self._journal, seq=self._seq, now_s=now_s)

    # -- once a second ------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        detect = read_runfile(self._run / "detect.json")
        silent = detect is None or detect["age_s"] > DETECT_SILENT_S
        self._detect_spoke = self._detect_spoke or not silent
        grace = not self._detect_spoke and now_s - self._begun_s < DETECT_START_S
        if not grace:  # ... in which nobody knows: what an earlier run told staff stays told
            self._technical.observe(Cause.DETECT_SILENT, silent)
        if self._journal_error is not None and not self._notes:
            self._note(lambda journal: journal.move_cursor("alarm", self._seq))  # to learn when it is over
        down = self._journal_error
        self._technical.observe(Cause.JOURNAL, down is not None and now_s - down[0] > JOURNAL_DOWN_S)
        for cause, line in self._lines().items():
            self._technical.observe_line(cause, line, now_s=now_s)
        self._technical.observe(Cause.RECORD_REFUSES, self._record.parked > 0, fault=True)
        unreadable = self._journal is not None and bool(self._journal.unreadable)
        self._technical.observe(Cause.UNREADABLE, unreadable, fault=True)
        if self._mqtt is not None:
            self._mqtt.on_timer(now_s)
            self._mqtt.snoozes(self._snoozes, now_s=now_s)
            self._mqtt.cameras(None if silent or detect is None else detect.get("cameras"), now_s=now_s)
        for unwritten in (detect or {}).get("unwritten", []):
            self._on_unwritten(unwritten)
        for word in take_words(self._run):
            self._on_word(word, now_s)
        for incident, escalation in self._escalations.items():
            escalation.on_ladder(self._ladder(self._facts[incident]))
        self._snoozes = {r: s for r, s in self._snoozes.items() if s.until_s > now_s}
        with self._journal_guard():
            self._send_tests(now_s)
        self._heartbeat(now_s)
        if self._paging.alive and self._record_worker.alive:
            self._watchdog.alive()

    def _send_tests(self, now_s: float) -> None:
        """Send each channel's test page of the day; while the clock cannot be believed, one in 24 hours."""
        local = self._local_time()
        for name, channel in zip(self._paging.names, self._settings.pager, strict=True):
            if not channel.test_at or self._journal is None:
                continue
            if local is None:
                due = now_s - self._tested_s[name] >= DAY_S
            else:
                today = local.replace(hour=int(channel.test_at[:2]), minute=int(channel.test_at[3:]), second=0)
                last = self._journal.last_note("test-sent", channel=name)
                due = local >= today and (last is None or last.at.astimezone(self._timezone) < today)
            if due:
                self._tested_s[name] = now_s
                self._journal.add_note("test-sent", channel=name)
                self._seen_version = -1
                self._paging.test(name, local)

    def _lines(self) -> dict[str, LineWatch]:
        """Return every far end by the words for its absence."""
        lines = {f"pager line {name} down": line for name, line in self._paging.lines.items()}
        lines[Cause.RECORD] = self._record.line
        if self._mqtt is not None:
            lines[Cause.BROKER] = self._mqtt.line
        return lines

    def _restored(self, incident: str) -> None:
        """Close a technical incident whose cause has gone."""
        if incident in self._escalations:
            self._escalations[incident].on_resolved(now_s=monotonic_s())
            self._paging.release(incident)
        when = Moment.now()
        self._note(lambda journal: journal.resolve(incident, Outcome.RESTORED, BY_SYSTEM, when=when))

    def _on_word(self, word: dict[str, Any], now_s: float) -> None:
        """Take what a person said on this machine while the journal took nothing, or asks for a test page."""
        match word:
            case {"do": "test", "channel": str(channel), "mark": str(mark)} if channel in self._paging:
                self._paging.test(channel, self._local_time(), mark=mark)
            case {"do": "acknowledge", "incident": str(incident), "by": str(by)}:
                self._acknowledge(incident, by)
            case {"do": "resolve", "incident": str(incident), "by": str(by), "outcome": str(outcome)}:
                when, found = Moment.now(), Outcome(outcome)
                if incident in self._escalations:
                    self._escalations[incident].on_resolved(now_s=now_s)
                    self._paging.release(incident)
                    self._note(lambda journal: journal.resolve(incident, found, by, when=when))

    def _on_unwritten(self, unwritten: dict[str, Any]) -> None:
        """Take an incident that detect could not put on disk."""
        document = unwritten["incident"]
        if document["incident"] in self._facts or document["board_only"]:
            return
        with self._journal_guard():
            if self._journal is not None and self._journal.case(document["incident"]) is not None:
                return  # written by now, perhaps closed: what a dead detect last said is old
        impact_at = document["impact_at"]
        facts = Incident(
            **{
                **document,
                "kind": Kind(document["kind"]),
                "raised_at": parse_utc(document["raised_at"]),
                "impact_at": None if impact_at is None else parse_utc(impact_at),
            }
        )
        self._raise_here(facts, **unwritten["body"])

    def _raise_here(self, facts: Incident, **body: Any) -> None:
        """Call people about an incident whether or not the journal takes it."""
        when, now_s = Moment.now(), monotonic_s()
        since_impact = float(body.get("since_impact_s", 0.0))
        doubted = bool(body.get("doubted"))
        escalation = Escalation(
            facts, self._policy(facts), now_s=now_s, since_impact_s=since_impact, doubted=doubted
        )
        self._take(facts, escalation, now_s)
        self._note(lambda journal: journal.raise_incident(facts, when=when, **body))

    def _heartbeat(self, now_s: float) -> None:
        lines = {**self._paging.lines, "record": self._record.line}
        write_runfile(
            self._run / "alarm.json",
            {
                "open": len(self._escalations),
                "journal": {
                    "well": self._journal_error is None,
                    "cause": self._journal_error[1] if self._journal_error else None,
                    "waiting": len(self._notes),
                },
                "channels": {
                    name: {
                        "well": line.well and not line.down,
                        "cause": line.reason or ("comes and goes" if line.down else None),
                        "since_s": round(now_s - line.since_s, 1),
                    }
                    for name, line in lines.items()
                },
                "mqtt": None
                if self._mqtt is None
                else {"well": self._mqtt.line.well, "cause": self._mqtt.line.reason or None},
                "record_parked": self._record.parked,
                "snoozes": {
                    s.resident: {"by": s.by, "left_s": round(s.until_s - now_s)}
                    for s in self._snoozes.values()
                    if s.until_s > now_s
                },
            },
        )


def _open_mqtt(settings: Settings, inbox: queue.SimpleQueue[Any], now_s: float) -> MqttFeed | None:
    if not settings.mqtt.host:
        return None
    from edge.alarm.mqtt_feed import MqttFeed  # noqa: PLC0415 - paho and TLS, which not every home needs

    return MqttFeed(settings, inbox, now_s=now_s)


def routes_of(settings: Settings) -> tuple[Route, ...]:
    """Return whom to call where and when, the rest of the home last."""
    rooms = {zone.name: frozenset(zone.rooms) for zone in settings.zone}
    hours = {shift.name: shift.minutes() for shift in settings.shift}
    routes = [Route(r.groups, rooms.get(r.zone, frozenset()), hours.get(r.shift)) for r in settings.route]
    return (*routes, Route(settings.escalation.groups))


def _attend(journal: Journal, incident: str, by: str, when: Moment) -> None:
    if journal.acknowledge(incident, by, when=when) is not None:  # it is known, and open
        journal.add(incident, "attended", when=when, by=by)


def _snooze(journal: Journal, resident: str, length_s: float, by: str, when: Moment) -> None:
    if length_s > 0:
        journal.snooze(resident, length_s, by, when=when)
    else:
        journal.end_snooze(resident, by, when=when)


def _motions(case: Case) -> list[str]:
    """Return what was seen since the last fall, in order: whoever fell again is no longer up."""
    motions: list[str] = []
    for event in case.events:
        if event.kind == "again":
            motions = [motion for motion in motions if motion != "upright"]
        elif event.kind == "motion":
            motions = [motion for motion in motions if motion != event.body["motion"]] + [event.body["motion"]]
    return motions
