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
    """The far end is away or busy: send the same again, not before ``retry_after_s`` if it said so."""

    def __init__(self, sink: str, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(sink, reason)
        self.retry_after_s = retry_after_s


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

    page_id: str  # idempotency key: the same message again has the same
    to: str  # number or address on this channel
    text: str  # room and bed, no names
    urgency: Urgency = Urgency.EMERGENCY
    cancel: bool = False  # withdraw an earlier call with this text
    incident: str = ""  # whose; empty for a test page
    kind: str = "test"  # fall, long-lie, help-button, blind, test
    room: str = ""
    drill: bool = False

    @property
    def code(self) -> str:
        """Three characters by which a reader's answer tells this incident from others."""
        return self.incident[-3:].upper()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a page after its channel had taken it."""

    page_id: str
    incident: str
    by: str = ""  # who acknowledges, as the channel can tell: "pager 12", "sms to 99"
    acknowledges: bool = False  # a person has taken the call
    failure: str = ""  # the channel says now that the page reached nobody, and why
