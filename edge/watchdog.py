"""What a service tells its supervisor, systemd or ``fallwatch run``: that it is ready, and that it still turns.

The protocol of sd_notify(3): a datagram to the socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import contextlib
import os
import socket


class Watchdog:
    """One service's line to its supervisor; without one, every call does nothing."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Say that the service has begun its work."""
        self._say("READY=1")

    def alive(self, status: str = "") -> None:
        """Say that the loop turns; whoever calls this has just done its work, not merely woken up."""
        self._say("WATCHDOG=1" + (f"\nSTATUS={status}" if status else ""))

    def stopping(self) -> None:
        """Say that the service ends because it was asked to."""
        self._say("STOPPING=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # a supervisor that is busy hears the next one
                self._socket.sendto(text.encode(), self._address)
