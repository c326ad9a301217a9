"""The alarm service: from the journal to people, until a person answers; to the record; to MQTT.

One thread decides, in a loop that turns five times a second; each sink has a thread of its own, so
the page goes out whether or not record, broker or another pager work.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from edge.alarm.document import incident_document, on_floor_s, since_impact_s
from edge.alarm.worker import Report, Worker
from edge.clock import clock_ok, monotonic_s, utc_now
from edge.core.escalation import Call, Escalation, Policy, Words
from edge.core.incident import Incident, Kind, Outcome, new_incident_id, parse_utc
from edge.core.supervision import Cause
from edge.core.words import page_text
from edge.journal import JOURNAL_FILE, Case, Event, Journal, JournalGone, JournalUnavailable, Moment, OutboxItem
from edge.runfile import read_runfile, write_runfile
from edge.settings import ResidentSettings, Settings
from edge.sinks import Page, Urgency, fhir
from edge.sinks.espa import EspaPager
from edge.sinks.mqtt import MqttPublisher
from edge.sinks.record import open_record

log = logging.getLogger(__name__)

TURN_S = 0.2
TICK_S = 1.0
JOURNAL_BUSY_S = 1.0  # one that is held up for longer counts as refusing: pages do not wait
DETECT_SILENT_S = 6.0  # no heartbeat for so long: detection has stopped
DETECT_START_S = 10.0  # ... or has not begun
JOURNAL_DOWN_S = 20.0  # a store that refuses for so long is told to a person
RECORD_RETRY_S = (2.0, 60.0)
MQTT_CURSOR_EVERY_S = 5.0
WAITING_NOTES_MOST = 10_000
BY_SYSTEM = "fallwatch"


class AlarmService:
    """Calls people; see `run`."""

    def __init__(self, settings: Settings, state: Path, run: Path) -> None:
        self._settings = settings
        self._run = run
        self._timezone = ZoneInfo(settings.home.timezone)
        self._policy = Policy(
            groups=settings.escalation.groups,
            steps_s=settings.escalation.steps_s,
            repeat_every_s=settings.escalation.repeat_every_s,
            follow_up_s=settings.escalation.follow_up_s,
        )
        self._residents = {r.id: r for r in settings.resident}
        self._journal_path = state / JOURNAL_FILE
        self._journal: Journal | None = None
        self._journal_error: tuple[float, str] | None = None  # since when, why
        self._notes: deque[Callable[[Journal], object]] = deque(maxlen=WAITING_NOTES_MOST)
        self._seen_version = -1
        self._seq = 0  # last event dealt with
        self._escalations: dict[str, Escalation] = {}
        self._facts: dict[str, Incident] = {}
        self._taken: set[tuple[str, int, str]] = set()  # pages some transmitter has taken
        self._noted_failures: set[tuple[str, int, str, str]] = set()
        self._blind: dict[str, str] = {}  # cause: the open technical incident
        self._detect_spoke = False
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._pagers = {
            name: Worker(name, EspaPager(name, pager), self._inbox.put, check_every_s=pager.check_every_s)
            for name, pager in zip(settings.channel_names(), settings.pager, strict=True)
        }
        self._down_after_s = {
            name: pager.down_after_s for name, pager in zip(settings.channel_names(), settings.pager, strict=True)
        }
        now_s = self._begun_s = monotonic_s()
        self._well: dict[str, tuple[bool, str, float]] = dict.fromkeys(
            [*self._pagers, "record"], (False, "not tried yet", now_s)
        )  # channel: well, why not, since
        self._record = Worker(
            "record", open_record(settings, settings.secrets, state), self._inbox.put, check_every_s=60.0
        )
        self._record_busy = False
        self._record_next_s = 0.0
        self._record_retry_s = RECORD_RETRY_S[0]
        self._parked = 0
        self._mqtt = self._open_mqtt()
        self._mqtt_number = 0
        self._mqtt_seq = 0  # last event handed over
        self._mqtt_seqs: dict[int, int] = {}  # publication number: the event it covers
        self._mqtt_again: deque[str] = deque()  # open at the start: for a broker that lost its memory
        self._mqtt_done = self._mqtt_saved = 0
        self._mqtt_saved_s = 0.0

    def stop(self) -> None:
        """Ask `run` to end; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`."""
        for worker in [*self._pagers.values(), self._record]:
            worker.start()
        if self._mqtt is not None:
            self._mqtt.start()
        self._heartbeat()
        log.info("alarm is ready: %d pager lines", len(self._pagers))
        next_tick_s = 0.0
        while not self._stop.is_set():
            self._take_inbox()
            now_s = monotonic_s()
            self._follow_journal(now_s)
            if now_s >= next_tick_s:
                self._tick(now_s)
                next_tick_s = now_s + TICK_S
            self._call(now_s)
            self._feed_record(now_s)
            self._feed_mqtt(now_s)
        for worker in [*self._pagers.values(), self._record]:
            worker.stop()
        if self._mqtt is not None:
            self._mqtt.stop()
        self._flush_notes()
        if self._journal is not None:
            self._save_mqtt_cursor()
            self._journal.close()

    # -- from the journal ---------------------------------------------------------------------

    def _follow_journal(self, now_s: float) -> None:
        with self._journal_guard():
            if self._journal is None:
                self._journal = Journal(self._journal_path, busy_timeout_s=JOURNAL_BUSY_S)
                self._resume(self._journal, now_s)
            self._flush_notes()
            version = self._journal.data_version()
            if version == self._seen_version:
                return
            while events := self._journal.events_after(self._seq):
                for event in events:
                    self._on_event(event, now_s)
                    self._seq = event.seq
            self._seen_version = version

    def _resume(self, journal: Journal, now_s: float) -> None:
        """Take up all open incidents; those nobody has answered are announced again at once."""
        self._mqtt_seq = self._mqtt_done = self._mqtt_saved = journal.cursor("mqtt")
        self._parked = len(journal.parked("record"))
        self._seq = journal.last_seq()  # read before the cases: what comes in between is in them
        open_cases = journal.open_cases()
        for case in open_cases:
            self._seq = max(self._seq, case.events[-1].seq)
            self._begin(case, now_s)
            if case.facts.kind is Kind.BLIND and case.facts.cause and case.facts.wearable is None:
                self._blind.setdefault(case.facts.cause, case.facts.incident)
        self._mqtt_again.extend(case.facts.incident for case in open_cases)

    def _begin(self, case: Case, now_s: float) -> None:
        facts, raised = case.facts, case.first("raised")
        if facts.incident in self._escalations or raised is None:
            return
        escalation = Escalation(
            facts,
            self._policy,
            now_s=now_s,
            elapsed_s=case.elapsed_s(raised, now_s=now_s),
            since_impact_s=since_impact_s(case, now_s=now_s),
            rounds=max((e.body["number"] for e in case.events if e.kind == "paged"), default=0),
            motions=_motions(case),
        )
        self._escalations[facts.incident] = escalation
        self._facts[facts.incident] = facts
        if case.first("acknowledged") is not None:
            escalation.on_acknowledged()

    def _on_event(self, event: Event, now_s: float) -> None:
        if event.kind == "raised":
            assert self._journal is not None
            case = self._journal.case(event.incident)
            if case is not None and case.first("resolved") is None:
                self._begin(case, now_s)
            return
        escalation = self._escalations.get(event.incident)
        if escalation is None:
            return
        match event.kind:
            case "acknowledged":
                escalation.on_acknowledged()
            case "resolved":
                escalation.on_resolved(now_s=now_s)
            case "motion":
                escalation.on_motion(event.body["motion"], now_s=now_s)
            case "again":
                escalation.on_again(now_s=now_s)

    @contextlib.contextmanager
    def _journal_guard(self) -> Any:
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

    def _note(self, write: Callable[[Journal], object]) -> None:
        """Write to the journal now, or, in order, as soon as it takes it."""
        self._notes.append(write)
        with self._journal_guard():
            self._flush_notes()

    def _flush_notes(self) -> None:
        while self._notes and self._journal is not None:
            self._notes[0](self._journal)
            self._notes.popleft()
            self._seen_version = -1  # our own commits do not change data_version
            if self._journal_error is not None:  # a full disk still reads: only a write ends the trouble
                log.info("journal is back")
                self._journal_error = None

    # -- calls --------------------------------------------------------------------------------

    def _call(self, now_s: float) -> None:
        for incident, escalation in list(self._escalations.items()):
            deadline_s = escalation.deadline_s()
            if deadline_s is not None and now_s >= deadline_s:
                for call in escalation.due(now_s=now_s):
                    self._send(call)
            if escalation.stage == "closed" and escalation.deadline_s() is None:
                del self._escalations[incident]
                self._taken = {key for key in self._taken if key[0] != incident}
                self._noted_failures = {key for key in self._noted_failures if key[0] != incident}

    def _send(self, call: Call) -> None:
        facts = self._facts[call.incident]
        text = self._text(facts, call.words, call.minutes)
        urgent = call.words in {Words.ALARM, Words.AGAIN} and facts.kind is not Kind.BLIND
        urgency = Urgency.EMERGENCY if urgent else Urgency.HIGH
        for group in call.groups:
            for name, worker in self._pagers.items():
                page = Page(
                    page_id=f"{call.incident}/{call.number}/{group}/{name}",
                    to=group,
                    text=text,
                    urgency=urgency,
                    cancel=call.words is Words.CANCELLED,
                )
                worker.submit(page, urgency=urgency, tag=call)

    def _text(self, facts: Incident, words: Words, minutes: int = 0) -> str:
        moment = facts.impact_at or facts.raised_at
        local = moment.astimezone(self._timezone) if facts.clock_ok else None
        return page_text(facts, words, local_time=local, minutes=minutes)

    def _on_page(self, report: Report) -> None:
        call: Call = report.tag
        page: Page = report.item
        escalation = self._escalations.get(call.incident)
        accepted = not report.error
        taken_key = (call.incident, call.number, page.to)
        if accepted:
            self._taken.add(taken_key)
        if escalation is not None and (accepted or taken_key not in self._taken):
            escalation.on_page(call, page.to, accepted=accepted, now_s=monotonic_s())
        failure_key = (*taken_key, report.sink)
        if not accepted and failure_key in self._noted_failures:
            return  # said once; a line that is down for hours must not fill the disk
        if not accepted:
            self._noted_failures.add(failure_key)
        body = {
            "channel": report.sink,
            "to": page.to,
            "text": page.text,
            "words": call.words.value,
            "number": call.number,
            "accepted": accepted,
            "reason": report.error,
        }
        when = Moment.now()
        self._note(lambda journal: journal.add(call.incident, "paged", when=when, **body))

    # -- from sinks ---------------------------------------------------------------------------

    def _take_inbox(self) -> None:
        timeout_s: float = TURN_S
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._inbox.get(timeout=timeout_s)
                timeout_s = 0.001
                if isinstance(item, Report):
                    self._on_report(item)
                else:
                    self._on_mqtt(item)

    def _on_report(self, report: Report) -> None:
        # A far end that refuses one item is there, so it is well.
        well = not report.error or (report.rejected and report.item is not None)
        was_well, _, since_s = self._well[report.sink]
        if well != was_well:
            since_s = monotonic_s()
            log.log(logging.INFO if well else logging.WARNING, "%s: %s", report.sink, report.error or "well")
        self._well[report.sink] = (well, report.error, since_s)
        if self._mqtt is not None and report.sink in self._pagers:
            self._mqtt.publish_channel(report.sink, well)
        if report.item is None:
            return
        if report.sink in self._pagers:
            self._on_page(report)
        else:
            self._on_record(report)

    def _on_mqtt(self, event: tuple[Any, ...]) -> None:
        when = Moment.now()
        match event:
            case ("published", int(number)):
                self._mqtt_done = self._mqtt_seqs.get(number, self._mqtt_done)
                self._mqtt_seqs = {n: seq for n, seq in self._mqtt_seqs.items() if n > number}
            case ("acknowledge", str(incident), str(by), "acknowledged"):
                if incident in self._escalations:
                    self._escalations[incident].on_acknowledged()
                    self._note(lambda journal: journal.acknowledge(incident, by, when=when))
            case ("acknowledge", str(incident), str(by), "attended"):
                if incident in self._escalations:
                    self._escalations[incident].on_acknowledged()
                    self._note(lambda journal: journal.acknowledge(incident, by, when=when))
                    self._note(lambda journal: journal.add(incident, "attended", when=when, by=by))

    # -- record -------------------------------------------------------------------------------

    def _feed_record(self, now_s: float) -> None:
        if self._journal is None or self._record_busy or now_s < self._record_next_s:
            return
        with self._journal_guard():
            self._mint_record_items(self._journal)
            waiting = self._journal.waiting("record", limit=1)
            if waiting:
                self._record_busy = True
                self._record.submit(waiting[0])
            else:
                self._record_next_s = now_s + TICK_S

    def _mint_record_items(self, journal: Journal) -> None:
        """Turn what happened since the record's cursor into items, stored before any is sent."""
        cursor = journal.cursor("record")
        if cursor >= self._seq:
            return
        events = [event for event in journal.events_after(cursor) if event.seq <= self._seq]
        items = [item for event in events if (item := self._record_item(journal, event)) is not None]
        journal.put("record", items, cursor=events[-1].seq if events else self._seq)

    def _record_item(self, journal: Journal, event: Event) -> OutboxItem | None:
        case = journal.case(event.incident)
        if case is None or case.facts.kind is Kind.BLIND:
            return None
        raised = case.first("raised")
        record_case = fhir.RecordCase(
            incident=case.facts,
            resident=self._resident(case.facts),
            record=self._settings.record,
            page_text=self._text(case.facts, Words.ALARM),
            on_floor_s=float(raised.body.get("since_impact_s", 0.0)) if raised else None,
        )
        match event.kind:
            case "raised":
                return fhir.raised(record_case)
            case "paged":
                attempt = fhir.PageAttempt(
                    attempt=str(event.seq),
                    channel=event.body["channel"],
                    to=event.body["to"],
                    text=event.body["text"],
                    at=event.at,
                    accepted=event.body["accepted"],
                    reason=event.body["reason"],
                )
                return fhir.paged(record_case, attempt)
            case "acknowledged":
                return fhir.acknowledged(record_case, by=event.body["by"], at=event.at)
            case "attended":
                return fhir.attended(record_case, at=event.at)
            case "resolved":
                return fhir.resolved(
                    record_case,
                    outcome=Outcome(event.body["outcome"]),
                    by=event.body["by"],
                    at=event.at,
                    on_floor_s=on_floor_s(case, now_s=monotonic_s()),
                )
        return None

    def _resident(self, facts: Incident) -> ResidentSettings | None:
        return self._residents.get(facts.resident or "")

    def _on_record(self, report: Report) -> None:
        item: OutboxItem = report.item
        self._record_busy = False
        if report.error and not report.rejected:
            self._record_next_s = monotonic_s() + self._record_retry_s
            self._record_retry_s = min(2 * self._record_retry_s, RECORD_RETRY_S[1])
            return
        self._record_retry_s = RECORD_RETRY_S[0]
        state = "parked" if report.rejected else "done"
        if report.rejected:
            self._parked += 1
            log.error("record refuses %s, a person must look: %s", item.key, report.error)
        self._note(lambda journal: journal.settle(item.key, state, report.error))

    # -- MQTT ---------------------------------------------------------------------------------

    def _open_mqtt(self) -> MqttPublisher | None:
        settings = self._settings.mqtt
        if not settings.host:
            return None
        password = None
        if settings.password_file:
            with contextlib.suppress(OSError):
                password = (self._settings.secrets / settings.password_file).read_text(encoding="utf-8").strip()
        return MqttPublisher(
            settings,
            self._settings.home.id,
            self._inbox,
            rooms={r.id: r.room for r in self._settings.resident},
            channels=list(self._pagers),
            password=password,
        )

    def _feed_mqtt(self, now_s: float) -> None:
        if self._mqtt is None or self._journal is None:
            return
        with self._journal_guard():
            while self._mqtt_again and self._mqtt.ready_for_more:
                case = self._journal.case(self._mqtt_again[0])
                if case is not None:
                    self._publish(case, now_s)
                self._mqtt_again.popleft()
        if self._mqtt_seq < self._seq and self._mqtt.ready_for_more:
            with self._journal_guard():
                for event in self._journal.events_after(self._mqtt_seq, limit=20):
                    case = self._journal.case(event.incident)
                    if not self._mqtt.ready_for_more or event.seq > self._seq:
                        break
                    self._mqtt_seq = event.seq
                    # The document says how things stand now, so the last event of an incident speaks for all.
                    if case is not None and case.events[-1].seq == event.seq:
                        self._publish(case, now_s)
        if now_s - self._mqtt_saved_s > MQTT_CURSOR_EVERY_S:
            self._mqtt_saved_s = now_s
            with self._journal_guard():
                self._save_mqtt_cursor()

    def _publish(self, case: Case, now_s: float) -> None:
        assert self._mqtt is not None
        self._mqtt_number += 1
        self._mqtt_seqs[self._mqtt_number] = max(self._mqtt_seq, self._mqtt_done)
        closed = case.first("resolved") is not None
        self._mqtt.publish_incident(self._mqtt_number, incident_document(case, now_s=now_s), closed)

    def _save_mqtt_cursor(self) -> None:
        if self._journal is not None and self._mqtt_done > self._mqtt_saved:
            self._journal.move_cursor("mqtt", self._mqtt_done)
            self._mqtt_saved = self._mqtt_done

    # -- once a second ------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        detect = read_runfile(self._run / "detect.json")
        silent = detect is None or detect["age_s"] > DETECT_SILENT_S
        self._detect_spoke = self._detect_spoke or not silent
        grace = not self._detect_spoke and now_s - self._begun_s < DETECT_START_S
        self._technical(Cause.DETECT_SILENT, silent and not grace, now_s)
        if self._journal_error is not None and not self._notes:
            self._note(lambda journal: journal.move_cursor("alarm", self._seq))  # to learn when it is over
        down = self._journal_error
        self._technical(Cause.JOURNAL, down is not None and now_s - down[0] > JOURNAL_DOWN_S, now_s)
        for name in self._pagers:
            well, _, since_s = self._well[name]
            self._technical(
                f"pager line {name} down", not well and now_s - since_s > self._down_after_s[name], now_s
            )
        for unwritten in (detect or {}).get("unwritten", []):
            self._on_unwritten(unwritten, now_s)
        self._heartbeat()

    def _technical(self, cause: str, holds: bool, now_s: float) -> None:
        """Raise a technical incident of the whole home, or close it when its cause has gone."""
        open_incident = self._blind.get(cause)
        if holds and open_incident is None:
            facts = Incident(
                incident=new_incident_id(),
                home=self._settings.home.id,
                kind=Kind.BLIND,
                raised_at=utc_now(),
                clock_ok=clock_ok(),
                cause=str(cause),
            )
            self._blind[cause] = facts.incident
            self._raise_here(facts, {}, now_s)
        elif not holds and open_incident is not None:
            del self._blind[cause]
            if open_incident in self._escalations:
                self._escalations[open_incident].on_resolved(now_s=now_s)
            when = Moment.now()
            self._note(lambda journal: journal.resolve(open_incident, Outcome.RESTORED, BY_SYSTEM, when=when))

    def _on_unwritten(self, unwritten: dict[str, Any], now_s: float) -> None:
        """Take an incident that detect could not put on disk."""
        document = unwritten["incident"]
        if document["incident"] in self._facts:
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
        self._raise_here(facts, unwritten["body"], now_s)

    def _raise_here(self, facts: Incident, body: dict[str, Any], now_s: float) -> None:
        """Call people about an incident whether or not the journal takes it."""
        self._facts[facts.incident] = facts
        when = Moment.now()
        since_impact = float(body.get("since_impact_s", 0.0))
        self._escalations[facts.incident] = Escalation(
            facts, self._policy, now_s=now_s, since_impact_s=since_impact
        )
        self._note(lambda journal: journal.raise_incident(facts, when=when, **body))

    def _heartbeat(self) -> None:
        now_s = monotonic_s()
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
                    name: {"well": well, "cause": cause or None, "since_s": round(now_s - since_s, 1)}
                    for name, (well, cause, since_s) in self._well.items()
                },
                "mqtt": None if self._mqtt is None else {"well": self._mqtt.connected},
                "record_parked": self._parked,
            },
        )


def _motions(case: Case) -> set[str]:
    """Return what was seen since the last fall: whoever fell again is no longer up."""
    motions: set[str] = set()
    for event in case.events:
        if event.kind == "again":
            motions.discard("upright")
        elif event.kind == "motion":
            motions.add(event.body["motion"])
    return motions
