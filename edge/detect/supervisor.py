"""Who is not protected and who soon may not be: looked at once a second, told when it is time.

It keeps no incident and writes nothing: `look` returns what a person must be told, or need not be told any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TypeAlias

from edge.core.supervision import (
    SWITCHED_OFF,
    CameraSight,
    Cause,
    Limits,
    Watch,
    camera_cause_of,
    cause_of,
    warning_of,
)
from edge.detect.pipeline import Pipeline
from edge.settings import CameraSettings, ResidentSettings, Settings

BOTH_MOVED_S = 120.0  # two wearables that were both moved so lately are on two wrists
INTERFERENCE_LEAST = 20  # forged or replayed packets in a minute
INTERFERENCE_HOLD_S = 600.0  # it is over when there were fewer for so long
MINUTE_S = 60.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Raise:
    """A person must know; ``topic`` names what it is about until `Close`."""

    topic: str
    cause: Cause
    wearable: str | None = None
    resident: ResidentSettings | None = None
    camera: CameraSettings | None = None
    fault: bool = False  # nobody is less protected by it alone
    board_only: bool = False  # no page: the board and the morning report have it


@dataclass(frozen=True, slots=True)
class Close:
    """It is over."""

    topic: str


Told: TypeAlias = Raise | Close


def topic_of(resident: str | None, cause: str, *, fault: bool, camera: str | None = None) -> str:
    """Return the topic of an incident that an earlier run raised, from its facts."""
    if camera is not None:
        return f"{'review' if cause == Cause.CAMERA_REVIEW else 'camera'} {camera}"
    return f"home {cause}" if resident is None else f"{'warning' if fault else 'blind'} {resident}"


class Supervisor:
    """Names the cause for each wearable and resident, and says when a person must know."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self._settings = settings
        self._pipeline = pipeline
        detect = settings.detect
        self._limits = Limits(
            blind_s=detect.blind_page_s, charging_s=detect.charging_page_s, not_worn_s=detect.not_worn_page_s
        )
        self._causes: dict[str, Watch] = {w: Watch() for w in pipeline.wearers}  # as shown, wearable by wearable
        self._blind = {r.id: Watch() for r in settings.resident}
        self._warned = {r.id: Watch() for r in settings.resident}
        self._camera_limits = Limits(blind_s=detect.camera_page_s)
        self._cameras = {c.id: Watch() for c in settings.camera}
        self._reviews = {c.id: Watch() for c in settings.camera}
        self._told: dict[str, Cause | str] = {}  # topics that are open
        self._home: dict[Cause, Watch] = {}
        self._refused: tuple[float, int] = (0.0, 0)  # minute begun, forged and stale by then
        self._interfered_s: float | None = None

    def resume(self, topic: str, cause: str) -> None:
        """Know what an earlier run told: it stays told, and is closed when it is over."""
        self._told.setdefault(topic, cause)

    def watch(self, wearable: str) -> Watch:
        """Return since when and why one wearable protects nobody."""
        return self._causes[wearable]

    def warning(self, resident: str) -> Watch:
        """Return what to mend although the resident is protected."""
        return self._warned[resident]

    def blind(self, resident: str) -> Watch:
        """Return since when and why one resident is not protected."""
        return self._blind[resident]

    def camera(self, camera: str) -> Watch:
        """Return since when and why one camera sees nobody."""
        return self._cameras[camera]

    def look(
        self, now_s: float, links_lost: Mapping[str, str], cameras: Mapping[str, CameraSight] | None = None
    ) -> list[Told]:
        """Return what is to be told now.

        Args:
            now_s: monotonic.
            links_lost: every link that is not there, and why.
            cameras: what is known of each camera.
        """
        told: list[Told] = []
        home = self._home_causes(now_s, links_lost)
        for cause in [*self._home, *(c for c in home if c not in self._home)]:
            watch = self._home.setdefault(cause, Watch())
            watch.observe(cause if cause in home else None, now_s=now_s)
            fault = cause is Cause.INTERFERENCE
            told += self._tell(
                Raise(f"home {cause.value}", cause, fault=fault), watch, self._home_limits(cause), now_s
            )
        self._home = {cause: watch for cause, watch in self._home.items() if watch.cause is not None}
        for name, sight in (cameras or {}).items():
            self._cameras[name].observe(camera_cause_of(sight, now_s=now_s), now_s=now_s)
        for camera in self._settings.camera:
            told += self._look_at_camera(camera, (cameras or {})[camera.id], now_s)
        for resident in self._settings.resident:
            told += self._look_at(resident, now_s, home)
        return told

    def _look_at_camera(self, camera: CameraSettings, sight: CameraSight, now_s: float) -> list[Told]:
        resident = next((r for r in self._settings.resident if r.id == camera.resident), None)
        watch, review = self._cameras[camera.id], self._reviews[camera.id]
        others = self._settings.cameras_of(camera.resident) if camera.resident else ()
        fault = resident is not None and (
            bool(resident.wearables) or any(self._cameras[other.id].cause is None for other in others)
        )
        raised = Raise(
            f"camera {camera.id}",
            watch.cause or Cause.CAMERA_SILENT,
            resident=resident,
            camera=camera,
            fault=fault,
            board_only=watch.cause is Cause.CAMERA_CONSENT or (resident is not None and resident.cover != "must"),
        )
        told = self._tell(raised, watch, self._camera_limits, now_s)
        soon = sight.consented and sight.review_soon
        review.observe(Cause.CAMERA_REVIEW if soon else None, now_s=now_s)
        raised = Raise(
            f"review {camera.id}",
            Cause.CAMERA_REVIEW,
            resident=resident,
            camera=camera,
            fault=True,
            board_only=True,
        )
        return told + self._tell(raised, review, self._camera_limits, now_s)

    def _look_at(self, resident: ResidentSettings, now_s: float, home: Set[Cause]) -> list[Told]:
        told: list[Told] = []
        causes, warnings = {}, {}
        for wearable in resident.wearables:
            session = self._pipeline.gateway.session(wearable)
            bad = self._pipeline.bad_bytes(wearable)
            sight = self._pipeline.wearers[wearable].sight(session, bad=bad, now_s=now_s)
            causes[wearable] = cause_of(sight, now_s=now_s, silence_s=self._settings.detect.silence_s)
            lately = sight.heard_s is not None and now_s - sight.heard_s < DAY_S
            warnings[wearable] = warning_of(sight) if lately else None
            self._causes[wearable].observe(causes[wearable], now_s=now_s)
        speaker, cause = self._most_telling(causes)
        cameras = [] if causes else [self._cameras[c.id].cause for c in self._settings.cameras_of(resident.id)]
        if cameras:  # theirs alone look after them; which of them does not is told camera by camera
            cause = None if None in cameras else cameras[0]
        elif not causes and resident.cover != "none":
            cause = Cause.NO_WEARABLE
        watch = self._blind[resident.id]
        watch.observe(cause, now_s=now_s)
        board_only = resident.cover != "must"
        if not causes or not all(self._is_hit(w, home) for w in causes):  # what hits many is told once
            raised = Raise(f"blind {resident.id}", cause or Cause.SILENT, speaker, resident, board_only=board_only)
            told += self._tell(raised, Watch() if cameras else watch, self._limits, now_s)
        speaker, cause = next(((w, c) for w, c in warnings.items() if c is not None), (speaker, None))
        if cause is None and self._both_worn(causes, now_s):
            cause = Cause.TWO_WORN
        watch = self._warned[resident.id]
        watch.observe(cause, now_s=now_s)
        board_only = board_only or cause not in {Cause.LOW_BATTERY, Cause.BUTTON_STUCK}
        raised = Raise(
            f"warning {resident.id}",
            cause or Cause.WEAK_RADIO,
            speaker,
            resident,
            fault=True,
            board_only=board_only,
        )
        return told + self._tell(raised, watch, self._limits, now_s)

    def _tell(self, raised: Raise, watch: Watch, limits: Limits, now_s: float) -> list[Told]:
        known = self._told.get(raised.topic)
        if known is None:
            if not watch.overdue(limits, now_s=now_s):
                return []
            self._told[raised.topic] = raised.cause
            return [raised]
        another = raised.fault or not SWITCHED_OFF.isdisjoint({known, watch.cause})
        if watch.cause is not None and not (another and known != watch.cause):
            return []  # a blindness that changes its cause goes on; a warning that does, or a switch, is another
        del self._told[raised.topic]
        watch.came_back(known, now_s=now_s)
        return [Close(raised.topic)]

    def _most_telling(self, causes: Mapping[str, Cause | None]) -> tuple[str | None, Cause | None]:
        """Return the wearable that speaks for a resident: one that protects, else the one heard last."""
        wearers = self._pipeline.wearers
        order = sorted(causes, key=lambda w: (causes[w] is None, wearers[w].heard_s or 0.0), reverse=True)
        return (order[0], causes[order[0]]) if order else (None, None)

    def _both_worn(self, causes: Mapping[str, Cause | None], now_s: float) -> bool:
        moved_s = [self._pipeline.wearers[w].sensor.moved_s for w, cause in causes.items() if cause is None]
        return sum(at_s is not None and now_s - at_s < BOTH_MOVED_S for at_s in moved_s) > 1

    def _is_hit(self, wearable: str, home: Set[Cause]) -> bool:
        """Tell whether what holds for the home blinds this wearable."""
        if self._pipeline.wearers[wearable].judge is None:
            return Cause.NO_MODEL in home
        link = self._settings.link_of(wearable)
        return (link == "dongle" and Cause.DONGLE_GONE in home) or (link == "ble" and Cause.BLUETOOTH_GONE in home)

    def _home_limits(self, cause: Cause) -> Limits:
        grace_s = 0.0 if cause is Cause.INTERFERENCE else self._settings.detect.link_page_s
        return Limits(blind_s=grace_s)

    def _home_causes(self, now_s: float, links_lost: Mapping[str, str]) -> set[Cause]:
        """Return what concerns more than one wearable."""
        causes = set()
        dongles = {d.port for d in self._settings.dongle}
        if dongles and dongles <= links_lost.keys():
            causes.add(Cause.DONGLE_GONE)
        if any(port == self._settings.ble.port for port in links_lost):
            causes.add(Cause.BLUETOOTH_GONE)
        if any(wearer.judge is None for wearer in self._pipeline.wearers.values()):
            causes.add(Cause.NO_MODEL)
        if self._is_interfered(now_s):
            causes.add(Cause.INTERFERENCE)
        return causes

    def _is_interfered(self, now_s: float) -> bool:
        """Tell whether many packets are forged or replayed, or were until lately."""
        counts = [session.counts for session in self._pipeline.gateway.sessions]
        refused = sum(count.forged + count.stale for count in counts)
        begun_s, before = self._refused
        if refused - before > INTERFERENCE_LEAST:
            self._interfered_s = now_s
        if now_s - begun_s >= MINUTE_S or refused - before > INTERFERENCE_LEAST:
            self._refused = (now_s, refused)
        return self._interfered_s is not None and now_s - self._interfered_s < INTERFERENCE_HOLD_S
