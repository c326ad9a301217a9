"""Who is not protected, since when, and why: one named cause at a time. Standard library only.

The causes are words for staff, used alike on pager, board and in `fallwatch status`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why nobody watches over somebody."""

    NO_KEY = "wearable not paired"
    NO_MODEL = "no model for wearable"
    NEVER_HEARD = "wearable never heard"
    SILENT = "wearable silent"
    FLAT = "wearable flat"
    CHARGING = "wearable on charger"
    NOT_WORN = "wearable not worn"
    UNPROVED = "wearable not proven genuine"
    DONGLE_GONE = "receiver not connected"
    DETECT_SILENT = "fall detection stopped"
    JOURNAL = "incident store cannot be written"
    UNREADABLE = "incident store has lines that cannot be read"
    RECORD = "care record down"
    RECORD_REFUSES = "care record refuses entries"
    BROKER = "message broker down"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of one wearable now."""

    has_key: bool
    has_model: bool
    proved: bool
    heard_s: float | None  # monotonic
    battery_pct: int | None
    charging: bool
    worn: bool


FLAT_PCT = 3  # a wearable that falls silent at or below this has died, not walked away


def cause_of(sight: Sight, *, now_s: float, silence_s: float) -> Cause | None:
    """Return why this wearable protects nobody now, or None when it does."""
    if not sight.has_key:
        return Cause.NO_KEY
    if not sight.has_model:
        return Cause.NO_MODEL
    if sight.heard_s is None:
        return Cause.NEVER_HEARD
    if now_s - sight.heard_s > silence_s:
        dying = sight.battery_pct is not None and sight.battery_pct <= FLAT_PCT
        return Cause.FLAT if dying else Cause.SILENT
    if not sight.proved:
        return Cause.UNPROVED
    if sight.charging:
        return Cause.CHARGING
    return None if sight.worn else Cause.NOT_WORN


@dataclass(slots=True)
class Watch:
    """How long one thing has been blind, and whether it is time to tell a person.

    A cause that changes into another (silent, then flat) does not start the time anew.
    """

    since_s: float | None = None
    cause: Cause | None = None

    def observe(self, cause: Cause | None, *, now_s: float) -> None:
        """Note the cause that holds now."""
        if cause is None:
            self.since_s = None
        elif self.since_s is None:
            self.since_s = now_s
        self.cause = cause

    def overdue(self, *, now_s: float, after_s: float) -> bool:
        """Tell whether the cause has lasted so long that a person must know."""
        return self.since_s is not None and now_s - self.since_s >= after_s


STEADY_S = 30.0  # a line that comes and goes is not back before it has held so long


@dataclass(slots=True)
class LineWatch:
    """Whether one far end (a pager line, the record, the broker) is there.

    ``down`` goes by the last good exchange, so a line that only ever fails for a moment is well, and one
    that comes and goes stays down until it has held for `STEADY_S`.
    """

    down_after_s: float
    good_s: float  # monotonic: the last good exchange, or the beginning
    reason: str = "not tried yet"
    well: bool = False  # as of the last exchange
    since_s: float = 0.0  # of `well`
    down: bool = False

    def observe(self, reason: str, *, now_s: float) -> None:
        """Note an exchange: good when there is no ``reason``."""
        if self.well != (not reason):
            self.since_s = now_s
        self.well, self.reason = not reason, reason
        if not reason:
            self.good_s = now_s

    def is_down(self, *, now_s: float) -> bool:
        """Tell whether a person must know, or still must."""
        if not self.down:
            self.down = now_s - self.good_s > self.down_after_s
        elif self.well and now_s - self.since_s >= STEADY_S:
            self.down = False
        return self.down
