"""Where alarms go: pagers, the care record, MQTT.

A sink is a plain blocking object that one worker thread of the alarm service owns. ``deliver``
returns when the far end has taken the item, and raises `SinkUnavailable` (try again later) or
`SinkRejected` (a person must look; sending the same again is useless).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class SinkError(Exception):
    """A sink did not take an item; ``sink`` and ``reason`` say which and why."""

    def __init__(self, sink: str, reason: str) -> None:
        super().__init__(f"{sink}: {reason}")
        self.sink = sink
        self.reason = reason


class SinkUnavailable(SinkError):
    """The far end is away or busy: the same item may be sent again."""


class SinkRejected(SinkError):
    """The far end refuses this item for good: park it for a person."""


class Urgency(IntEnum):
    """The order in which waiting pages are sent; lower first."""

    EMERGENCY = 1
    HIGH = 2
    NORMAL = 3


@dataclass(frozen=True, slots=True)
class Page:
    """One message to one pager or group of pagers."""

    page_id: str  # idempotency key
    to: str  # pager or group number
    text: str  # at most 128 characters of ASCII; room and bed, no names
    urgency: Urgency = Urgency.EMERGENCY
    cancel: bool = False  # withdraw an earlier call with this text
