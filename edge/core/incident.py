"""What happened to whom, and what was done about it: the facts every service shares.

Standard library only: the alarm service must work whatever numpy or onnxruntime do.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID


class Kind(StrEnum):
    """What an incident is about; the last is technical and never enters the care record."""

    FALL = "fall"
    LONG_LIE = "long-lie"
    HELP_BUTTON = "help-button"
    BLIND = "blind"


class State(StrEnum):
    """How far people have come with it, in this order only."""

    RAISED = "raised"
    PAGED = "paged"
    ACKNOWLEDGED = "acknowledged"
    ATTENDED = "attended"
    RESOLVED = "resolved"


class Outcome(StrEnum):
    """What staff found."""

    FALL = "fall"
    LOWERED = "lowered"
    NEAR_FALL = "near-fall"
    NOT_A_FALL = "not-a-fall"
    DRILL = "drill"
    RESTORED = "restored"  # a technical incident whose cause went away by itself


@dataclass(frozen=True, slots=True)
class Incident:
    """The unchanging facts, as committed to the journal before anything hears of them."""

    incident: str  # UUIDv7
    home: str
    kind: Kind
    raised_at: datetime  # aware, UTC
    impact_at: datetime | None = None  # aware, UTC; None for technical incidents
    clock_ok: bool = True
    resident: str | None = None
    room: str | None = None
    bed: str | None = None
    wearable: str | None = None
    camera: str | None = None
    placement: str | None = None
    probability: float | None = None
    model: str | None = None
    cause: str | None = None  # why the system is blind, for Kind.BLIND
    fault: bool = False  # Kind.BLIND: something is broken, yet nobody is less protected by it alone
    board_only: bool = False  # Kind.BLIND: shown and reported, and nobody is called
    drill: bool = False

    @property
    def code(self) -> str:
        """Three characters by which people tell it from others that are open: the last of its id."""
        return self.incident[-3:].upper()


def new_incident_id(now_ms: int | None = None) -> str:
    """Mint a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits."""
    unix_ms = int(time.time() * 1000) if now_ms is None else now_ms
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def utc_text(moment: datetime) -> str:
    """Write an aware moment as the contract does: ``2026-11-22T03:14:07.250Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Read what `utc_text` wrote.

    Raises:
        ValueError: the text is no ISO 8601 moment with a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
