"""Wearables one can buy, each with a format of its own, told in the messages of our wire format.

A decoder keeps the state of one wearable's stream, opens nothing and takes the time as an argument. What comes
out is what our own wearables say (`firmware_bridge.wire`), so all behind it is the same for both.
"""

from __future__ import annotations

from typing import Protocol

from firmware_bridge.wire import UplinkMessage


class Device(Protocol):
    """One wearable that speaks a format of its own."""

    bad_bytes: int  # octets that were nothing in its format

    def opened(self) -> list[bytes]:
        """Begin anew, as the link has just been opened; return what to send to the device so that it streams."""

    def feed(self, data: bytes, received_s: float, channel: str = "") -> list[UplinkMessage]:
        """Take octets as they came, by the monotonic time ``received_s``; any split gives the same messages."""

    def lost(self) -> list[UplinkMessage]:
        """Return what was still being gathered, as the link has just been lost."""

    def say(self, now_s: float) -> list[bytes]:
        """Return, once, what to send to the device now; asked after each `feed`, and once a second."""
