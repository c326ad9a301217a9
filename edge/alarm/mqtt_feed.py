"""Incidents, channels and quiet times, to the message broker; how things stand now, not each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from edge.alarm.document import incident_document
from edge.core.supervision import Cause, LineWatch
from edge.journal import Case, Event, Journal, Snooze
from edge.settings import Settings
from edge.sinks.mqtt import Events, MqttPublisher

SAVE_EVERY_S = 5.0
PAUSE_MOVED_S = 3.0  # the end of a pause that moves by more was asked for anew
UNTOLD = ("recorded",)  # events that change nothing about what others see


class MqttFeed:
    """Feeds the publisher from the journal at the broker's own pace."""

    def __init__(self, settings: Settings, events: Events, *, now_s: float) -> None:
        self.line = LineWatch(settings.mqtt.down_after_s, good_s=now_s, since_s=now_s)
        self._publisher = MqttPublisher(
            settings.mqtt,
            settings.home.id,
            events,
            rooms={r.id: r.room for r in settings.resident},
            channels=list(settings.channel_names()),
            cameras={c.id: c.room for c in settings.camera},
            password=settings.broker_password(),
        )
        self._reason = "not connected yet"
        self._number = 0
        self._seq = 0  # last event handed over
        self._seqs: dict[int, int] = {}  # publication number: the event it covers
        self._again: deque[str] = deque()  # open at the start: for a broker that lost its memory
        self._done = self._saved = 0
        self._saved_s = 0.0
        self._snoozes: dict[str, Snooze] = {}
        self._cameras = {c.id: (c.room, c.resident) for c in settings.camera}
        self._looks: dict[str, tuple[str, float]] = {}  # camera: the cause last told, when its pause ends

    def start(self) -> None:
        """Begin to connect."""
        self._publisher.start()

    def stop(self) -> None:
        """Say ``offline`` and hang up."""
        self._publisher.stop()

    def resume(self, journal: Journal, open_incidents: Iterable[str]) -> None:
        """Go on where an earlier run left off, and tell of what is open."""
        self._seq = self._done = self._saved = journal.cursor("mqtt")
        self._again.extend(open_incidents)

    def on_published(self, number: int) -> None:
        """Note what the broker has."""
        self._done = self._seqs.get(number, self._done)
        self._seqs = {n: seq for n, seq in self._seqs.items() if n > number}

    def on_heard(self, mid: int, qos: int) -> None:
        """Have the broker forget what staff sent, now that it is dealt with."""
        self._publisher.forget(mid, qos)

    def on_lost(self, reason: str) -> None:
        """Note why there is no broker."""
        self._reason = reason

    def on_timer(self, now_s: float) -> None:
        """Look whether the broker is there; called once a second."""
        self.line.observe("" if self._publisher.connected else self._reason, now_s=now_s)

    def channel(self, name: str, well: bool) -> None:
        """Tell how a channel is."""
        self._publisher.publish_channel(name, well)

    def snoozes(self, snoozes: Mapping[str, Snooze], *, now_s: float) -> None:
        """Tell which residents' falls are quiet, where that has changed."""
        for resident in {*snoozes, *self._snoozes}:
            snooze = snoozes.get(resident)
            if (snooze is None) != (resident not in self._snoozes) or (
                snooze is not None and abs(snooze.until_s - self._snoozes[resident].until_s) > 1.0
            ):
                left_s = None if snooze is None else round(snooze.until_s - now_s)
                self._publisher.publish_snooze(resident, left_s, "" if snooze is None else snooze.by)
        self._snoozes = dict(snoozes)

    def cameras(self, told: Mapping[str, Mapping[str, Any]] | None, *, now_s: float) -> None:
        """Tell how the cameras are, where that has changed; ``told`` is None where detection says nothing."""
        for camera, (room, resident) in self._cameras.items():
            look = (told or {}).get(camera, {"well": False, "cause": Cause.DETECT_SILENT})
            cause, left_s = str(look["cause"] or ""), look.get("paused_left_s") or 0
            before, until_s = self._looks.get(camera, (None, 0.0))
            if cause == before and (not left_s or abs(now_s + left_s - until_s) < PAUSE_MOVED_S):
                continue
            self._looks[camera] = (cause, now_s + left_s)
            document = {
                "sees": bool(look["well"]),
                "cause": cause or None,
                "room": room,
                "resident": resident or None,
                "paused_left_s": left_s,
                "paused_by": look.get("paused_by") or "",
            }
            self._publisher.publish_camera(camera, document)

    def feed(self, journal: Journal, *, seq: int, now_s: float) -> None:
        """Hand over what the broker has room for, of the events up to ``seq``."""
        while self._again and self._publisher.ready_for_more:
            case = journal.case(self._again[0])
            if case is not None:
                self._publish(case, now_s)
            self._again.popleft()
        if self._seq < seq and self._publisher.ready_for_more:
            for event in journal.events_after(self._seq, limit=20):
                case = None if event.kind in UNTOLD else journal.case(event.incident)
                if not self._publisher.ready_for_more or event.seq > seq:
                    break
                self._seq = event.seq
                # The document says how things stand now, so the last event of an incident speaks for all.
                if case is not None and _last_told(case).seq == event.seq:
                    self._publish(case, now_s)
        if now_s - self._saved_s > SAVE_EVERY_S:
            self._saved_s = now_s
            self.save(journal)

    def save(self, journal: Journal) -> None:
        """Note in the journal what the broker has."""
        if self._done > self._saved:
            journal.move_cursor("mqtt", self._done)
            self._saved = self._done

    def _publish(self, case: Case, now_s: float) -> None:
        self._number += 1
        self._seqs[self._number] = max(self._seq, self._done)
        closed = case.first("resolved") is not None
        document: dict[str, Any] = incident_document(case, now_s=now_s)
        self._publisher.publish_incident(self._number, document, closed)


def _last_told(case: Case) -> Event:
    return next(event for event in reversed(case.events) if event.kind not in UNTOLD)
