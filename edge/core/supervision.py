"""Who is not protected, since when, and why: one named cause at a time. Standard library only.

The causes are words for staff, used alike on pager, board and in `fallwatch status`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why nobody watches over somebody, or soon nobody may."""

    NO_WEARABLE = "no wearable"
    NO_KEY = "wearable not paired"
    NO_MODEL = "no model for wearable"
    NEVER_HEARD = "wearable never heard"
    FLAT = "wearable flat"
    OTHER_KEY = "wearable has another key"
    GARBLED = "wearable not understood"
    OUT_OF_RANGE = "wearable out of range"
    SILENT = "wearable silent"
    UNPROVED = "wearable not proven genuine"
    FLOODING = "wearable floods the radio"
    CHARGING = "wearable on charger"
    SATURATED = "wearable sensor saturated"
    FROZEN = "wearable sensor frozen"
    WRONG_AXES = "wearable sensor axes wrong"
    WRONG_SCALE = "wearable range or scale wrong"
    CLOCK_WRONG = "wearable clock wrong"
    WRONG_RATE = "wearable rate wrong"
    NOT_WORN = "wearable not worn"

    LOW_BATTERY = "wearable battery lasts less than a day"
    BUTTON_STUCK = "wearable button stuck"
    WEAK_RADIO = "wearable barely heard"
    OLD_FIRMWARE = "wearable firmware too old"
    TWO_WORN = "two wearables worn by one resident"

    CAMERA_GONE = "camera gone"
    CAMERA_SILENT = "camera program stopped"
    CAMERA_BLOCKED = "camera lens blocked"
    CAMERA_DARK = "camera sees too little"
    CAMERA_FROZEN = "camera picture frozen"
    CAMERA_RATE = "camera too slow"
    CAMERA_HOT = "camera too hot"
    CAMERA_MOVED = "camera knocked"
    CAMERA_FLOOR = "camera floor not found"
    CAMERA_CONSENT = "camera off: consent not in date"
    CAMERA_PAUSED = "camera paused"
    CAMERA_REVIEW = "camera consent to be reviewed within two weeks"

    DONGLE_GONE = "receiver not connected"
    BLUETOOTH_GONE = "bluetooth of this computer down"
    INTERFERENCE = "possible interference with wearables"
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
    heard_s: float | None  # monotonic, of the last samples
    battery_pct: int | None
    charging: bool
    worn: bool
    fading: bool = False  # when last heard it was hardly heard
    other_key: bool = False  # all that comes from it lately is sealed with a key that is not its own
    flooding: bool = False  # it sends so much that part of it is thrown away
    garbled: bool = False  # something comes from it, but nothing that can be used
    sensor: Cause | None = None  # what its samples themselves show
    battery_low: bool = False
    button_stuck: bool = False
    weak: bool = False  # much of what it sends is lost
    old: bool = False


FLAT_PCT = 3  # a wearable that falls silent at or below this has died, not walked away


def cause_of(sight: Sight, *, now_s: float, silence_s: float) -> Cause | None:
    """Return why this wearable protects nobody now, or None when it does."""
    if not sight.has_key:
        return Cause.NO_KEY
    if not sight.has_model:
        return Cause.NO_MODEL
    if sight.heard_s is None or now_s - sight.heard_s > silence_s:
        if sight.other_key:
            return Cause.OTHER_KEY
        if sight.garbled:
            return Cause.GARBLED
        if sight.heard_s is None:
            return Cause.NEVER_HEARD
        if sight.battery_pct is not None and sight.battery_pct <= FLAT_PCT:
            return Cause.FLAT
        return Cause.OUT_OF_RANGE if sight.fading else Cause.SILENT
    if not sight.proved:
        return Cause.UNPROVED
    if sight.flooding:
        return Cause.FLOODING
    if sight.charging:
        return Cause.CHARGING
    if sight.sensor is not None:
        return sight.sensor
    return None if sight.worn else Cause.NOT_WORN


def warning_of(sight: Sight) -> Cause | None:
    """Return what staff should mend although the wearable protects, the most pressing first."""
    if sight.battery_low:
        return Cause.LOW_BATTERY
    if sight.button_stuck:
        return Cause.BUTTON_STUCK
    if sight.weak:
        return Cause.WEAK_RADIO
    return Cause.OLD_FIRMWARE if sight.old else None


@dataclass(frozen=True, slots=True)
class CameraSight:
    """What is known of one camera now."""

    consented: bool
    paused: bool
    heard_s: float | None  # monotonic, of the last word from its program since that may look
    says: Cause | None = None  # ... why nobody can be seen
    review_soon: bool = False


CAMERA_SILENCE_S = 5.0  # its program says something each second


def camera_cause_of(sight: CameraSight, *, now_s: float) -> Cause | None:
    """Return why this camera sees nobody now, or None when it does."""
    if not sight.consented:
        return Cause.CAMERA_CONSENT
    if sight.paused:
        return Cause.CAMERA_PAUSED
    if sight.heard_s is None or now_s - sight.heard_s > CAMERA_SILENCE_S:
        return Cause.CAMERA_SILENT
    return sight.says


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each cause is left alone before a person is told; monotonic seconds, since it was named."""

    blind_s: float = 30.0
    charging_s: float = 3 * 3600.0
    not_worn_s: float = 900.0
    weak_s: float = 900.0
    button_s: float = 300.0
    two_worn_s: float = 600.0

    def of(self, cause: Cause) -> float:
        """Return how long this cause may last untold."""
        match cause:
            case Cause.CHARGING:
                return self.charging_s
            case Cause.NOT_WORN:
                return self.not_worn_s
            case Cause.WEAK_RADIO:
                return self.weak_s
            case Cause.BUTTON_STUCK:
                return self.button_s
            case Cause.TWO_WORN:
                return self.two_worn_s
            case Cause.LOW_BATTERY | Cause.OLD_FIRMWARE | Cause.CAMERA_CONSENT | Cause.CAMERA_REVIEW:
                return 0.0
            case Cause.CAMERA_PAUSED:  # staff know, and it ends by itself
                return math.inf
        return self.blind_s


# Who walks out of range comes back by itself, and a call for it is soon called nonsense. Each time that
# happened lately makes the next such call wait longer; a call is never more than this late.
COMES_BACK = frozenset({Cause.OUT_OF_RANGE, Cause.SILENT})
PATIENCE = (1.0, 4.0, 10.0, 20.0)  # times Limits.blind_s
SWITCHED_OFF = frozenset({Cause.CAMERA_CONSENT, Cause.CAMERA_PAUSED})  # people decided that it sees nobody
STAFF_DID = SWITCHED_OFF | {Cause.CHARGING, Cause.NOT_WORN}
PATIENCE_FORGET_S = 7 * 86_400.0


@dataclass(slots=True)
class Watch:
    """How long one thing has been blind, and whether it is time to tell a person.

    A cause that changes into another (silent, then flat) does not start the time anew, unless the first was
    somebody's doing and had a longer time (on the charger, then not yet worn).
    """

    since_s: float | None = None
    cause: Cause | None = None
    _timed_s: float = 0.0  # from when the limit of the cause counts
    returned_s: tuple[float, ...] = ()  # when it lately came back by itself after people had been called

    def observe(self, cause: Cause | None, *, now_s: float) -> None:
        """Note the cause that holds now."""
        if cause is None:
            self.since_s = None
        elif self.since_s is None:
            self.since_s = self._timed_s = now_s
        elif cause is not self.cause and self.cause in STAFF_DID:
            self._timed_s = now_s
        self.cause = cause

    def overdue(self, limits: Limits, *, now_s: float) -> bool:
        """Tell whether the cause has lasted so long that a person must know."""
        if self.cause is None or self.since_s is None:
            return False
        return now_s - self._timed_s >= limits.of(self.cause) * self.patience(now_s=now_s)

    def patience(self, *, now_s: float) -> float:
        """Return how many times the limit the present cause is left alone."""
        if self.cause not in COMES_BACK:
            return 1.0
        self.returned_s = tuple(at_s for at_s in self.returned_s if now_s - at_s < PATIENCE_FORGET_S)
        return PATIENCE[min(len(self.returned_s), len(PATIENCE) - 1)]

    def came_back(self, cause: str, *, now_s: float) -> None:
        """Note that what people were called for is over by itself."""
        if cause in COMES_BACK:
            self.returned_s = (*self.returned_s, now_s)[-len(PATIENCE) :]


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
