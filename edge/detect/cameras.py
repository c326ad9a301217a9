"""The cameras of one home: which of them may look, what each saw, and what that says about falls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from threading import Event
from typing import Any

from edge.core.camera import FORGET_S, CameraJudge
from edge.core.detector import Finding
from edge.core.seen import Seen
from edge.core.supervision import CameraSight, Cause
from edge.detect.eyes import Eye, EyeEvent, Put, Saw
from edge.pause import Pause, read_pause
from edge.settings import CameraSettings, Settings
from models.scorer import Scorer

log = logging.getLogger(__name__)

REVIEW_SOON = timedelta(days=14)
FRAME_AGE_S = 5.0  # a newest frame older than this is no picture of now, whatever the eye says


@dataclass(slots=True)
class Looking:
    """One camera, and what is known of it."""

    settings: CameraSettings
    eye: Eye
    judge: CameraJudge
    consented: bool | None = None  # None until a day was known
    review_soon: bool = False
    pause: Pause | None = None
    heard_s: float | None = None  # the last word of its eye since that may look
    frame_s: float | None = None  # when its newest frame was taken
    says: Cause | None = None

    @property
    def may_look(self) -> bool:
        """Whether anything may be opened."""
        return bool(self.consented) and self.pause is None


@dataclass(frozen=True, slots=True)
class FoundBy:
    """What a camera's observations settled, or the newest observation itself; times are monotonic."""

    camera: CameraSettings
    finding: Finding | Seen


class Cameras:
    """All cameras of the settings; see `on_event` and `on_timer`."""

    def __init__(self, settings: Settings, state: Path, scorer: Scorer | None) -> None:
        self._state = state
        self.card = None if scorer is None else scorer.card
        self._known = {c.id: Looking(c, Eye(c), CameraJudge(scorer)) for c in settings.camera}

    @property
    def runs(self) -> list[Callable[[Put, Event], None]]:
        """Bodies of threads, one for each eye."""
        return [looking.eye.run for looking in self._known.values()]

    def on_event(self, event: EyeEvent) -> list[FoundBy]:
        """Take what an eye said, or that it is shut."""
        looking = self._known[event.camera]
        if not isinstance(event, Saw):
            looking.heard_s = None
            return self._settle(looking)
        if not looking.may_look:  # it was on its way when the camera was switched off
            return []
        seen, newest_s = event.seen, looking.frame_s
        looking.heard_s, looking.says = event.received_s, Cause(seen.cause) if seen.cause else None
        if seen.time_s <= (newest_s or 0.0):  # no frame has come
            return []
        looking.frame_s = min(seen.time_s, event.received_s)
        return [FoundBy(looking.settings, one) for one in (*looking.judge.observe(seen), seen)]

    def on_timer(self, now_s: float, today: date, *, clock_ok: bool) -> list[FoundBy]:
        """Look whether each may look, and settle what those weighed that see nothing any more.

        Args:
            now_s: monotonic.
            today: in the home.
            clock_ok: whether that can be believed; as long as not, consent stays as it was at the start.
        """
        found = []
        for looking in self._known.values():
            if clock_ok or looking.consented is None:
                consent = looking.settings.consent
                looking.consented = consent is not None and consent.holds(today)
                looking.review_soon = consent is not None and consent.review - today <= REVIEW_SOON
            self._look_at_pause(looking)
            looking.eye.allow(looking.may_look)
            if looking.frame_s is not None and now_s - looking.frame_s > FORGET_S:
                found += self._settle(looking)
        return found

    def sights(self, now_s: float) -> dict[str, CameraSight]:
        """Return what is known of each."""
        return {name: _sight(looking, now_s) for name, looking in self._known.items()}

    def words(self, camera: str, now_s: float) -> dict[str, Any]:
        """Return what status tells of one beside its cause."""
        looking = self._known[camera]
        frame_s, pause, consent = looking.frame_s, looking.pause, looking.settings.consent
        return {
            "room": looking.settings.room,
            "resident": looking.settings.resident or None,
            "frame_s_ago": None if frame_s is None else round(now_s - frame_s, 1),
            "paused_left_s": None if pause is None else round(pause.left_s),
            "paused_by": None if pause is None else pause.by,
            "review": None if consent is None else consent.review.isoformat(),
            "restarts": looking.eye.restarts,
            "bad_lines": looking.eye.bad_lines,
        }

    def _look_at_pause(self, looking: Looking) -> None:
        before, looking.pause = looking.pause, read_pause(self._state, looking.settings.room)
        if before is None and looking.pause is not None:
            left_s, by = looking.pause.left_s, looking.pause.by
            log.info("camera %s is paused for %.0f s by %s", looking.settings.id, left_s, by)
        elif before is not None and looking.pause is None:
            log.info("camera %s is no longer paused", looking.settings.id)

    def _settle(self, looking: Looking) -> list[FoundBy]:
        """Raise what was being weighed: a camera that goes blind then is no good news."""
        return [FoundBy(looking.settings, finding) for finding in looking.judge.on_silence()]


def _sight(looking: Looking, now_s: float) -> CameraSight:
    says = looking.says
    if looking.frame_s is None or now_s - looking.frame_s > FRAME_AGE_S:
        says = says or Cause.CAMERA_GONE
    return CameraSight(
        consented=bool(looking.consented),
        paused=looking.pause is not None,
        heard_s=looking.heard_s,
        says=says,
        review_soon=looking.review_soon,
    )
