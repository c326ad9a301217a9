"""The detect service: one process, all sensors, every incident in the journal before anyone hears of it."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from edge.bundles import Bundles, Choice
from edge.clock import clock_ok, monotonic_s, utc_now
from edge.core.detector import FallDetected, Finding, MotionChanged, Suspected
from edge.core.fusion import AGAIN_S, Alarm, Event, Fusion, Note, Sense, Source, Verdict, Witness
from edge.core.incident import Incident, Kind, Outcome, State, new_incident_id, utc_text
from edge.core.seen import Seen
from edge.core.supervision import Cause
from edge.detect.cameras import Cameras, FoundBy
from edge.detect.eyes import EyeEvent, Saw, Shut
from edge.detect.ledger import Judged, WearLedger
from edge.detect.links import Links
from edge.detect.pipeline import Found, News, Pipeline, Pressed
from edge.detect.shadow import Trial
from edge.detect.supervisor import Close, Raise, Supervisor, topic_of
from edge.journal import (
    JOURNAL_FILE,
    Case,
    Journal,
    JournalGone,
    JournalRefuses,
    JournalUnavailable,
    Moment,
    ShadowAlarm,
)
from edge.keys import KeyStore
from edge.runfile import write_runfile
from edge.settings import FEELS_SKIN, ResidentSettings, Settings
from edge.watchdog import Watchdog
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.session import SealRefused
from firmware_bridge.wire import AcknowledgeButton
from models.card import BundleRefused, shipped
from models.scorer import Scorer

log = logging.getLogger(__name__)

QUEUE_READS = 1000  # waiting reads of all dongles; more means that this process cannot keep up
TICK_S = 1.0
JOURNAL_BUSY_S = 1.0  # one that is held up for longer counts as refusing: wearables do not wait
# The alarm service watches the rest of the home.
HOME_CAUSES = (Cause.DONGLE_GONE, Cause.BLUETOOTH_GONE, Cause.NO_MODEL, Cause.INTERFERENCE)
NOT_YET = "not opened yet"
WEAR_EVERY_S = 900.0  # how often wear is written: what a crash loses of it, against writes to a card
WEAR_SOON_S = 60.0  # an alarm has it written sooner, but no more often than this
TRIAL_AGAIN_S = 5.0  # a journal that is busy with something else is left in peace for so long
TRIAL_ALARMS = 1000  # alarms of shadow models that wait for the journal
KEEP_TRIALS = timedelta(days=400)


class DetectService:
    """Reads, decides, commits; see `run`."""

    def __init__(self, settings: Settings, state: Path, run: Path) -> None:
        self._settings = settings
        self._run_file = run / "detect.json"
        self._timezone = ZoneInfo(settings.home.timezone)
        self._journal_path = state / JOURNAL_FILE
        self._journal: Journal | None = None
        self._writes: deque[Callable[[Journal], object]] = deque()  # in order, until the disk takes them
        self._unwritten: dict[str, dict[str, Any]] = {}  # the incidents among them, for the heartbeat
        self._journal_refuses = False
        self._events: queue.Queue[LinkEvent | EyeEvent] = queue.Queue(QUEUE_READS)
        self._stop = threading.Event()
        self._links = Links(settings)
        self._residents = {wearable: r for r in settings.resident for wearable in r.wearables}
        sealed = [w for w in self._residents if settings.is_sealed(w)]
        self._gateway = KeyStore(settings.secrets, state).gateway(sealed)
        self._bundles = Bundles(settings, state)
        self.refused: dict[str, str] = {}  # model bundles that must not run, and why
        placements = {*(r.placement for r in self._residents.values()), *(["camera"] if settings.camera else [])}
        by_placement = {p: self._load(p) for p in sorted(placements)}
        self._scorers = {p: s for p, s in by_placement.items() if s is not None}
        self._cameras = Cameras(settings, state, self._scorers.get("camera"))
        self._trials = [
            t for p, s in by_placement.items() if p != "camera" and (t := self._trial(p, s)) is not None
        ]
        self._pipeline = Pipeline(
            self._gateway,
            {w: by_placement[r.placement] for w, r in self._residents.items()},
            devices=self._links.devices,
            broker=self._links.broker,
            unsealed=self._residents.keys() - set(sealed),
            feels_nothing={w for w in self._residents if settings.wearable_kind(w) not in FEELS_SKIN},
            shadowed={w for trial in self._trials for w in trial.wearables},
        )
        self._trial_alarms: deque[ShadowAlarm] = deque()
        self._trial_alarms_lost = 0
        self._trial_next_s = 0.0
        self._lost: dict[str, tuple[float, str]] = {}  # link: since, why
        self._supervisor = Supervisor(settings, self._pipeline)
        self._technical: dict[str, str] = {}  # topic: the open technical incident
        self._fusion = Fusion(self._is_unanswered)
        self._pressed: dict[str, tuple[str, str]] = {}  # wearable: the press last committed, its incident
        self._dropped_reads = 0
        self._watchdog = Watchdog()

    def stop(self) -> None:
        """Ask `run` to end; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`."""
        self._open_journal()
        self._recall()
        threads = [
            threading.Thread(target=run, args=(self._put, self._stop), name=f"link-{i}", daemon=True)
            for i, run in enumerate(self._links.runs, start=1)
        ]
        threads += [
            threading.Thread(target=run, args=(self._put, self._stop), name=f"eye-{i}", daemon=True)
            for i, run in enumerate(self._cameras.runs, start=1)
        ]
        now_s = monotonic_s()
        self._ledger, self._wear_next_s, self._wear_last_s = WearLedger(now_s), now_s + WEAR_EVERY_S, -math.inf
        for port in self._links.names:
            self._lost[port] = (now_s, NOT_YET)
        for thread in threads:
            thread.start()
        # What lives now lives as long as the process: keep the collector's pauses out of the decisions.
        gc.collect()
        gc.freeze()
        self._tick(now_s)
        for trial in self._trials:
            trial.start()
        self._watchdog.ready()
        ready = len(self._residents), len(self._links.names), len(self._settings.camera)
        log.info("detect is ready: %d wearables, %d links, %d cameras", *ready)
        next_tick_s = now_s + TICK_S
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                self._on_event(self._events.get(timeout=max(next_tick_s - monotonic_s(), 0.001)))
            now_s = monotonic_s()
            if now_s >= next_tick_s:
                self._tick(now_s)
                next_tick_s = now_s + TICK_S
                if all(thread.is_alive() for thread in threads):
                    self._watchdog.alive()
        self._watchdog.stopping()
        for thread in threads:
            thread.join(timeout=2.0)
        self._gateway.stop()
        self._flush()
        for trial in self._trials:
            trial.stop()
        self._trial_next_s = self._wear_next_s = 0.0
        self._keep_trials(monotonic_s())
        if self._journal is not None:
            self._journal.close()

    # -- links --------------------------------------------------------------------------------

    def _put(self, event: LinkEvent | EyeEvent) -> None:
        """Hand over what a link's or an eye's thread read; never blocks it for long."""
        try:
            self._events.put(event, timeout=1.0)
        except queue.Full:
            self._dropped_reads += 1

    def _on_event(self, event: LinkEvent | EyeEvent) -> None:
        match event:
            case Saw() | Shut():
                self._on_seen(self._cameras.on_event(event))
            case Received():
                news = self._pipeline.feed(
                    event.port, event.data, event.received_s, channel=event.channel, rssi_dbm=event.rssi_dbm
                )
                self._on_news(news)
                self._say(event.received_s)
                self._offer_trials()
            case Opened(port=port):
                self._lost.pop(port, None)
                for data in self._pipeline.opened(port):
                    self._links.send(data, port)
                self._links.greet(port)
                self._ask_for_proofs(monotonic_s())
            case Lost(port=port, reason=reason):
                since_s, _ = self._lost.get(port, (monotonic_s(), ""))
                self._lost[port] = (since_s, reason)
                self._on_news(self._pipeline.lost(port, monotonic_s()))

    def _say(self, now_s: float) -> None:
        for port, data in self._pipeline.say(now_s):
            self._links.send(data, port)

    def _on_news(self, all_news: list[News]) -> None:
        for news in all_news:
            match news:
                case Found(wearable=wearable, finding=finding, impact_at_s=impact_at_s):
                    resident = self._residents[wearable]
                    scorer = self._scorers.get(resident.placement)
                    model = None if scorer is None else scorer.card.name
                    source = Source(Sense.WEARABLE, wearable, resident.room, resident.id, model)
                    self._on_finding(source, finding, impact_at_s)
                case Pressed() as pressed:
                    self._on_pressed(pressed)

    def _on_seen(self, found: list[FoundBy]) -> None:
        for one in found:
            camera = one.camera
            there = (
                [camera.resident]
                if camera.resident
                else [r.id for r in self._settings.resident if r.room == camera.room]
            )
            resident = there[0] if len(there) == 1 else None
            model = None if self._cameras.card is None else self._cameras.card.name
            source = Source(Sense.CAMERA, camera.id, camera.room, resident, model)
            match one.finding:
                case Seen() as seen:
                    self._do(self._fusion.on_seen(camera.id, camera.room, seen))
                case finding:
                    self._on_finding(source, finding, finding.impact_s)

    def _on_finding(self, source: Source, finding: Finding, impact_at_s: float) -> None:
        match finding:
            case FallDetected(probability=probability, long_lie=long_lie):
                self._on_witness(Witness(source, impact_at_s, probability, strong=True, long_lie=long_lie))
            case Suspected(probability=probability):
                self._on_witness(Witness(source, impact_at_s, probability, strong=False))
            case MotionChanged(motion=motion):
                known = self._fusion.latest(source.room, source.resident)
                if known is not None:
                    self._note(known, "motion", motion=motion)

    def _on_witness(self, witness: Witness) -> None:
        self._do(self._fusion.on_witness(witness, now_s=monotonic_s()))

    def _do(self, verdicts: list[Verdict]) -> None:
        for told in verdicts:
            match told:
                case Alarm():
                    self._alarm(told)
                case Note(incident=incident, kind=kind, body=body):
                    self._note(incident, kind, **body)

    def _alarm(self, told: Alarm) -> None:
        first = told.witnesses[0]
        incident = self._commit(
            Kind.LONG_LIE if first.long_lie else Kind.FALL,
            None if first.by_camera else first.source.id,
            resident=next((r for r in self._settings.resident if r.id == told.resident), None),
            camera=first.source.id if first.by_camera else None,
            room=first.source.room if first.by_camera else None,
            impact_at_s=first.impact_s,
            probability=told.probability,
            model=told.model,
            **told.body,
        )
        self._fusion.raised(told, incident)
        self._wear_soon()

    def _on_pressed(self, pressed: Pressed) -> None:
        button, wearable = pressed.button, pressed.wearable
        press = f"{button.boot}:{button.press}"
        if self._pressed.get(wearable, ("", ""))[0] != press:
            incident = self._commit(Kind.HELP_BUTTON, wearable, impact_at_s=pressed.received_s, press=press)
            self._pressed[wearable] = (press, incident)
            self._wear_soon()
        # Only now may the wearable stop repeating it.
        self._send(wearable, AcknowledgeButton(button.boot, button.press))

    def _ask_for_proofs(self, now_s: float) -> None:
        """Challenge the wearables that must prove themselves, once there is a link to do it through."""
        if len(self._lost) < len(self._links.names):
            for _, packet in self._gateway.proofs_due(now_s):
                self._send_packet(packet)

    def _send(self, wearable: str, command: AcknowledgeButton) -> None:
        try:
            packet = self._gateway.seal(wearable, command)
        except SealRefused as error:
            log.warning("%s", error)
            return
        self._send_packet(packet)

    def _send_packet(self, packet: bytes) -> None:
        """Send through every link that carries sealed packets: whichever the wearable hears."""
        self._links.send_packet(packet)

    # -- journal ------------------------------------------------------------------------------

    def _commit(
        self,
        kind: Kind,
        wearable: str | None,
        *,
        resident: ResidentSettings | None = None,
        camera: str | None = None,
        room: str | None = None,
        cause: str | None = None,
        fault: bool = False,
        board_only: bool = False,
        **details: Any,
    ) -> str:
        """Mint an incident and put it on disk; if the disk refuses, hand it over in memory and keep trying."""
        now_s, now = monotonic_s(), utc_now()
        resident = resident or self._residents.get(wearable or "")
        impact_at_s = details.pop("impact_at_s", None)
        incident = Incident(
            incident=new_incident_id(),
            home=self._settings.home.id,
            kind=kind,
            raised_at=now,
            impact_at=None if impact_at_s is None else now - timedelta(seconds=max(now_s - impact_at_s, 0.0)),
            clock_ok=clock_ok(),
            wearable=wearable,
            camera=camera,
            cause=cause,
            fault=fault,
            board_only=board_only,
            probability=details.pop("probability", None),
            model=details.pop("model", None),
            **(_whereabouts(resident) | ({} if room is None else {"room": room, "placement": "camera"})),
        )
        body = {"since_impact_s": round(now_s - (impact_at_s or now_s), 3), **details}
        when = Moment.now()

        def write(journal: Journal) -> None:
            journal.raise_incident(incident, when=when, **body)
            del self._unwritten[incident.incident]

        self._unwritten[incident.incident] = _as_document(incident, body)
        self._write(write)
        if self._unwritten:
            self._heartbeat(now_s)  # the way around: the alarm service reads it there
        log.info("%s raised for room %s: %s", kind, incident.room, incident.incident)
        return incident.incident

    def _note(self, incident: str, kind: str, **body: Any) -> None:
        when = Moment.now()
        self._write(lambda journal: journal.add(incident, kind, when=when, **body))

    def _write(self, write: Callable[[Journal], object]) -> None:
        """Write to the journal now, or, in order, as soon as it takes it."""
        self._writes.append(write)
        self._flush()

    def _flush(self) -> None:
        while self._writes:
            try:
                if self._journal is None:
                    self._journal = Journal(self._journal_path, busy_timeout_s=JOURNAL_BUSY_S, look_for_loss=True)
                self._writes[0](self._journal)
            except JournalRefuses as error:  # of an incident that was lost with an older journal
                log.error("not written: %s", error)
            except JournalUnavailable as error:
                if isinstance(error, JournalGone):
                    self._journal = None  # the next try opens it again
                if not self._journal_refuses:
                    log.error("what happens is not on disk yet: %s", error)
                    self._journal_refuses = True
                return
            self._writes.popleft()
            if self._journal_refuses:
                log.info("journal is back")
                self._journal_refuses = False

    def _is_unanswered(self, incident: str) -> bool:
        try:
            case = self._journal.case(incident) if self._journal is not None else None
        except JournalUnavailable:
            return False
        return case is not None and case.state in {State.RAISED, State.PAGED}

    def _open_journal(self) -> None:
        try:
            self._journal = Journal(self._journal_path, busy_timeout_s=JOURNAL_BUSY_S, look_for_loss=True)
        except JournalUnavailable as error:
            log.error("%s", error)

    def _recall(self) -> None:
        """Remember from the journal what an earlier run of this service had raised."""
        try:
            cases = self._journal.cases(limit=200) if self._journal is not None else []
        except JournalUnavailable:
            return
        now_s, now = monotonic_s(), utc_now()
        for case in cases:
            facts, raised = case.facts, case.first("raised")
            closed = case.state is State.RESOLVED
            if raised is None or (facts.wearable or "") not in {"", *self._residents}:
                continue
            if facts.camera is not None and facts.camera not in {c.id for c in self._settings.camera}:
                continue
            ours = facts.resident is not None or facts.camera is not None or facts.cause in HOME_CAUSES
            if facts.kind is Kind.BLIND and not closed and ours and facts.cause:
                topic = topic_of(facts.resident, facts.cause, fault=facts.fault, camera=facts.camera)
                self._technical[topic] = facts.incident
                self._supervisor.resume(topic, facts.cause)
            elif facts.kind in {Kind.FALL, Kind.LONG_LIE} and facts.room and facts.impact_at and not facts.drill:
                if not closed or (now - facts.impact_at).total_seconds() < AGAIN_S:
                    self._fusion.recall(_event(case, now_s))
            elif facts.kind is Kind.HELP_BUTTON and facts.wearable:
                self._pressed[facts.wearable] = (str(raised.body.get("press")), facts.incident)

    # -- once a second ------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        self._on_news(self._pipeline.on_timer(now_s))
        today = utc_now().astimezone(self._timezone).date()
        self._on_seen(self._cameras.on_timer(now_s, today, clock_ok=clock_ok()))
        self._say(now_s)
        self._offer_trials()
        self._ask_for_proofs(now_s)
        self._flush()
        self._keep_trials(now_s)
        self._supervise(now_s)
        self._heartbeat(now_s)

    def _supervise(self, now_s: float) -> None:
        # Nobody knows how the radio is before anything is heard by it, or it says that it is lost.
        radio = self._settings.ble.port
        lost = {port: why for port, (_, why) in self._lost.items() if (port, why) != (radio, NOT_YET)}
        for told in self._supervisor.look(now_s, lost, self._cameras.sights(now_s)):
            match told:
                case Raise():
                    self._technical[told.topic] = self._commit(
                        Kind.BLIND,
                        told.wearable,
                        resident=told.resident,
                        camera=None if told.camera is None else told.camera.id,
                        room=None if told.camera is None else told.camera.room,
                        cause=told.cause.value,
                        fault=told.fault,
                        board_only=told.board_only,
                    )
                case Close(topic=topic):
                    self._restore(self._technical.pop(topic, None))

    def _restore(self, incident: str | None) -> None:
        """Close a technical incident whose cause has gone."""
        if incident is not None:
            when = Moment.now()
            self._write(lambda journal: journal.resolve(incident, Outcome.RESTORED, "fallwatch", when=when))

    def _heartbeat(self, now_s: float) -> None:
        write_runfile(
            self._run_file,
            {
                "windows": self._pipeline.windows,
                "dropped_reads": self._dropped_reads,
                "models": {p: s.card.name for p, s in self._scorers.items()},
                "models_refused": self.refused,
                "shadows": [self._trial_words(trial) for trial in self._trials],
                "radio": {"unknown_wearable": self._gateway.unknown, "unreadable": self._gateway.unreadable},
                "links": {port: self._link_words(port, now_s) for port in self._links.names},
                "wearables": {w: self._wearable_words(w, now_s) for w in self._residents},
                "residents": {r.id: self._resident_words(r.id, now_s) for r in self._settings.resident},
                "cameras": {c.id: self._camera_words(c.id, now_s) for c in self._settings.camera},
                "unwritten": list(self._unwritten.values()),
            },
        )

    def _link_words(self, port: str, now_s: float) -> dict[str, Any]:
        lost, dongle = self._lost.get(port), self._pipeline.dongles.get(port)
        return {
            "well": lost is None,
            "cause": lost[1] if lost else None,
            "since_s": round(now_s - lost[0], 1) if lost else None,
            "bad_frames": dongle.decoder.bad_frames if dongle else 0,
            "bad_bytes": dongle.decoder.bad_bytes if dongle else 0,
            "dropped_by_dongle": dongle.status.frames_dropped if dongle and dongle.status else 0,
        }

    def _wearable_words(self, wearable: str, now_s: float) -> dict[str, Any]:
        watch, wearer = self._supervisor.watch(wearable), self._pipeline.wearers[wearable]
        session = self._gateway.session(wearable)
        radio = session.counts if session else None
        return {
            "well": watch.cause is None,
            "cause": watch.cause,
            "since_s": None if watch.since_s is None else round(now_s - watch.since_s, 1),
            **wearer.words(now_s),
            "forged": radio.forged if radio else 0,
            "stale": radio.stale if radio else 0,
            "malformed": (radio.malformed if radio else 0) + self._pipeline.bad_bytes(wearable),
        }

    def _resident_words(self, resident: str, now_s: float) -> dict[str, Any]:
        blind, warning = self._supervisor.blind(resident), self._supervisor.warning(resident)
        return {
            "well": blind.cause is None,
            "cause": blind.cause,
            "since_s": None if blind.since_s is None else round(now_s - blind.since_s, 1),
            "warning": warning.cause,
            "patience": blind.patience(now_s=now_s),
        }

    def _camera_words(self, camera: str, now_s: float) -> dict[str, Any]:
        watch = self._supervisor.camera(camera)
        return {
            "well": watch.cause is None,
            "cause": watch.cause,
            "since_s": None if watch.since_s is None else round(now_s - watch.since_s, 1),
            **self._cameras.words(camera, now_s),
        }

    # -- models -------------------------------------------------------------------------------

    def _load(self, placement: str) -> Scorer | None:
        """Return the wanted model, or the one before it, or the newest shipped: the first that may run."""
        chosen = [self._bundles.place(name) for name in Choice.of(self._settings, placement).named]
        for folder in [*chosen, *shipped(placement)]:
            try:
                self._bundles.check(folder)
                scorer = Scorer(folder)
                if scorer.card.placement != placement:
                    raise BundleRefused(folder, f"is for the {scorer.card.placement}, not the {placement}")
            except BundleRefused as error:
                self.refused[folder.name] = error.reason
                log.error("model is refused: %s", error)
            else:
                return scorer
        return None

    def _trial(self, placement: str, first: Scorer | None) -> Trial | None:
        """Return the trial of the bundle that is to run beside the first, if one is."""
        wanted = Choice.of(self._settings, placement).shadow
        wearables = [w for w, r in self._residents.items() if r.placement == placement]
        name = None if first is None else first.card.name
        if not wanted:
            return None
        return Trial(self._bundles.place(wanted), placement, name, wearables, check=self._bundles.check)

    def _offer_trials(self) -> None:
        """Hand over what was heard, now that what the first model found is on disk."""
        if self._trials and (heard := self._pipeline.take_heard()):
            for trial in self._trials:
                trial.offer(heard)

    def _wear_soon(self) -> None:
        """Have wear on disk up to an alarm: whether a model was there to see it is asked later."""
        self._wear_next_s = min(self._wear_next_s, self._wear_last_s + WEAR_SOON_S)

    def _keep_trials(self, now_s: float) -> None:
        """Write alarms of shadow models, and wear when it is time; incidents go first, and this can wait."""
        now = Moment.now()
        for trial in self._trials:
            while trial.found:
                self._on_trial_alarm(trial.name, *trial.found.popleft(), now)
        wear_due = now_s >= self._wear_next_s
        if self._writes or now_s < self._trial_next_s or not (wear_due or self._trial_alarms):
            return
        if self._journal is None:
            self._open_journal()
        wear = self._ledger.rows(self._worn_s(), now) if wear_due else []
        before = now.at - KEEP_TRIALS if wear_due and clock_ok() else None
        try:
            if self._journal is None:
                raise JournalUnavailable(self._journal_path, "not open")
            wait = self._stop.is_set()
            self._journal.keep_trial(self._trial_alarms, wear, forget_before=before, wait=wait)
        except JournalUnavailable as error:
            log.debug("wear and alarms of shadow models are written later: %s", error)
            if isinstance(error, JournalGone):
                self._journal = None
            self._trial_next_s = now_s + (WEAR_SOON_S if self._journal is None else TRIAL_AGAIN_S)
            return
        self._trial_alarms.clear()
        if wear_due:
            self._ledger.written()
            self._wear_last_s, self._wear_next_s = now_s, now_s + WEAR_EVERY_S

    def _on_trial_alarm(self, model: str, wearable: str, fall: FallDetected, now: Moment) -> None:
        offset = self._pipeline.wearers[wearable].offset
        impact_at, raised_at = (
            now.at - timedelta(seconds=max(now.mono_s - offset.monotonic_s(at_s), 0.0))
            for at_s in (fall.impact_s, fall.raised_s)
        )
        if len(self._trial_alarms) == TRIAL_ALARMS:
            self._trial_alarms.popleft()
            self._trial_alarms_lost += 1
        resident = self._residents[wearable].id
        self._trial_alarms.append(
            ShadowAlarm(model, wearable, resident, impact_at, raised_at, fall.probability, fall.long_lie)
        )
        log.info("shadow model %s would have raised a fall of wearable %s", model, wearable)
        self._wear_soon()

    def _worn_s(self) -> dict[Judged, float]:
        """Return how long each model has judged each worn wearable since the start."""
        worn_s: dict[Judged, float] = {}
        for wearable, resident in self._residents.items():
            judge = self._pipeline.wearers[wearable].judge
            if judge is not None:
                worn_s[Judged(judge.scorer.card.name, False, resident.placement, wearable)] = judge.worn_s
        for trial in self._trials:
            for wearable, trial_s in trial.worn_s().items():
                worn_s[Judged(trial.name, True, trial.placement, wearable)] = trial_s
        return worn_s

    def _trial_words(self, trial: Trial) -> dict[str, Any]:
        return {
            "model": trial.name,
            "placement": trial.placement,
            "cause": trial.cause,
            "skipped_reads": trial.skipped_reads,
            "unwritten": len(self._trial_alarms),
            "lost_alarms": self._trial_alarms_lost,
        }


def _event(case: Case, now_s: float) -> Event:
    """Return what fusion must know of an incident that an earlier run raised."""
    impacts_s = [
        now_s - case.elapsed_s(event, now_s=now_s) - float(event.body.get("since_impact_s", 0.0))
        for event in case.events
        if event.kind in {"raised", "again"}
    ]
    facts, senses = case.facts, {Sense(sense) for sense in case.witnesses}
    return Event(facts.incident, facts.room or "", facts.resident, impacts_s, senses, case.doubted)


_NOWHERE = {"resident": None, "room": None, "bed": None, "placement": None}


def _whereabouts(resident: ResidentSettings | None) -> dict[str, Any]:
    if resident is None:
        return _NOWHERE
    return {
        "resident": resident.id,
        "room": resident.room,
        "bed": resident.bed or None,
        "placement": resident.placement,
    }


def _as_document(incident: Incident, body: dict[str, Any]) -> dict[str, Any]:
    """Put an incident into the heartbeat, for when the journal cannot take it."""
    document = {name: getattr(incident, name) for name in Incident.__dataclass_fields__}
    document["raised_at"] = utc_text(incident.raised_at)
    document["impact_at"] = None if incident.impact_at is None else utc_text(incident.impact_at)
    return {"incident": document, "body": body}
