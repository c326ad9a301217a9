"""What every link to wearables tells, be it a serial port, Bluetooth or a broker: opened, received, lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Opened:
    """The link is there and its far end speaks."""

    port: str


@dataclass(frozen=True, slots=True)
class Received:
    """Octets from the far end; ``received_s`` is the monotonic time at which the last of them was there."""

    port: str
    data: bytes
    received_s: float
    channel: str = ""  # which part of the far end spoke, where it has several: a characteristic, a topic
    rssi_dbm: int | None = None  # of the link, where it knows


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing comes from the link, for this reason; told once until the next `Opened`."""

    port: str
    reason: str


LinkEvent = Opened | Received | Lost


class Link(Protocol):
    """One way in: `run` is the body of a thread, `send` may be called from any other."""

    def run(self, put: Callable[[LinkEvent], None], stop: threading.Event) -> None:
        """Hand every event to ``put`` until ``stop`` is set; open again whatever is lost."""

    def send(self, data: bytes) -> bool:
        """Pass octets to the far end; return whether they were taken. Raises nothing."""
