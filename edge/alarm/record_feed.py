"""What happened to incidents, to the care record: minted once, sent until taken, parked when refused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from edge.alarm.document import on_floor_s
from edge.alarm.worker import Report, Worker
from edge.clock import monotonic_s
from edge.core.incident import Incident, Kind, Outcome
from edge.core.supervision import LineWatch
from edge.journal import Event, Journal, OutboxItem
from edge.settings import Settings
from edge.sinks import fhir

log = logging.getLogger(__name__)

IDLE_S = 1.0
RETRY_S = (2.0, 60.0)
RETRY_MOST_S = 300.0  # whatever a server asks for
LOOK_AHEAD = 50  # waiting items among which the next one is chosen


class RecordFeed:
    """Feeds one worker from the journal; the order of items does not matter to the record."""

    def __init__(
        self, settings: Settings, worker: Worker, page_text: Callable[[Incident], str], *, now_s: float
    ) -> None:
        self.line = LineWatch(settings.record.down_after_s, good_s=now_s, since_s=now_s)
        self.parked = 0
        self._settings = settings
        self._residents = {r.id: r for r in settings.resident}
        self._worker = worker
        self._page_text = page_text
        self._busy = False
        self._next_s = 0.0
        self._retry_s = RETRY_S[0]
        self._minted_seq = 0
        self._tries: Counter[str] = Counter()

    def resume(self, journal: Journal) -> None:
        """Go on where an earlier run left off."""
        self._minted_seq = journal.cursor("record")
        self.parked = len(journal.parked("record"))

    def feed(self, journal: Journal, *, seq: int, now_s: float) -> None:
        """Mint items of the events up to ``seq``, and hand over the next that waits."""
        if self._busy or now_s < self._next_s:
            return
        self._mint(journal, seq)
        waiting = journal.waiting("record", limit=LOOK_AHEAD)
        if not waiting:
            self._next_s = now_s + IDLE_S
            return
        # The one tried least, oldest first: an item that this server chokes on does not hold up the rest.
        self._busy = True
        self._worker.submit(min(waiting, key=lambda item: self._tries[item.key]))

    def _mint(self, journal: Journal, seq: int) -> None:
        """Turn what happened into items, stored before any is sent."""
        if self._minted_seq >= seq:
            return
        events = [event for event in journal.events_after(self._minted_seq) if event.seq <= seq]
        items = [item for event in events if (item := self._item(journal, event)) is not None]
        minted = events[-1].seq if events else seq
        if items:  # the cursor alone is not worth a write: what it skips makes no items the next time either
            journal.put("record", items, cursor=minted)
        self._minted_seq = minted

    def _item(self, journal: Journal, event: Event) -> OutboxItem | None:
        case = journal.case(event.incident)
        if case is None or case.facts.kind is Kind.BLIND:
            return None
        raised = case.first("raised")
        record_case = fhir.RecordCase(
            incident=case.facts,
            resident=self._residents.get(case.facts.resident or ""),
            record=self._settings.record,
            page_text=self._page_text(case.facts),
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

    def on_report(self, report: Report, *, now_s: float) -> Callable[[Journal], object] | None:
        """Take how a delivery or a check ended; return what is to be written about it."""
        there = report.rejected and report.item is not None
        self.line.observe("" if there else report.error, now_s=now_s)
        if report.item is None:
            return None
        item: OutboxItem = report.item
        self._busy = False
        if report.error and not report.rejected:
            self._tries[item.key] += 1
            wait_s = report.retry_after_s or self._retry_s
            self._next_s = now_s + min(wait_s, RETRY_MOST_S)
            self._retry_s = min(2 * self._retry_s, RETRY_S[1])
            return None
        self._retry_s = RETRY_S[0]
        self._tries.pop(item.key, None)
        state = "parked" if report.rejected else "done"
        if report.rejected:
            self.parked += 1
            log.error("record refuses %s, a person must look: %s", item.key, report.error)
        return lambda journal: journal.settle(item.key, state, report.error)
