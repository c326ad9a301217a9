"""A serial port: opens it, reads and writes octets, reopens it when it was gone."""

from __future__ import annotations

import errno
import logging
import os
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import serial

from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.wire import FirmwareBridgeError

log = logging.getLogger(__name__)

_COALESCE_S = 0.02  # a frame arrives in pieces; one wake-up for several costs less
_ENOUGH_OCTETS = 2048  # the kernel holds 4096 for us: fetch before they overflow
_READ_S = 0.25
_WRITE_S = 0.2  # a port that takes nothing for so long is stuck
SILENT_S = 10.0  # whoever streams, or says every second that it lives, is never so quiet
_BACKOFF_S = (0.2, 2.0)
_LOG_EVERY_S = 20.0  # a loss and its end are two lines
_Errors = (OSError, termios.error, ValueError)  # SerialException is an OSError; ValueError: no such rate


class PortLost(FirmwareBridgeError):
    """The port cannot be opened, read or written; ``reason`` says why."""

    def __init__(self, port: str, reason: str) -> None:
        super().__init__(f"port {port}: {reason}")
        self.port = port
        self.reason = reason


class SerialLink:
    """One serial port. `send` may be called from any thread, the rest from the one that reads.

    ``greeting`` returns what to say to the far end whenever the port has been opened; ``lead`` goes before all
    that is sent. A ``quiet`` far end says nothing before it is told to, so the port counts as open at once.
    """

    def __init__(
        self,
        port: str,
        baud: int,
        *,
        greeting: Callable[[], Sequence[bytes]] = tuple,
        lead: bytes = b"",
        quiet: bool = False,
    ) -> None:
        self.port = port
        self._baud = baud
        self._greeting = greeting
        self._lead = lead
        self._quiet = quiet
        self._serial: serial.Serial | None = None
        self._writing = threading.Lock()

    def open(self) -> None:
        """Open the port, which must be exactly the one named, for this process alone.

        Raises:
            PortLost: it is not there, in use, or no serial port.
        """
        self.close()
        try:
            self._serial = serial.Serial(
                self.port, self._baud, timeout=_READ_S, write_timeout=_WRITE_S, exclusive=True
            )
        except _Errors as error:
            raise PortLost(self.port, _reason(error)) from error

    def close(self) -> None:
        """Close the port; closing it again does nothing."""
        with self._writing:
            port, self._serial = self._serial, None
            if port is not None:
                try:
                    port.close()
                except _Errors as error:
                    log.debug("port %s: on closing: %s", self.port, error)

    def read(self, timeout_s: float = _READ_S) -> bytes:
        """Return what arrived, gathered for up to 20 ms, or nothing after ``timeout_s``.

        Raises:
            PortLost: the port is gone.
        """
        port = self._open_port()
        try:
            if port.timeout != timeout_s:
                port.timeout = timeout_s
            data: bytes = port.read(1)
            if not data:
                self._check_same_device(port)
                return b""
            until_s = time.monotonic() + _COALESCE_S
            while port.in_waiting < _ENOUGH_OCTETS and time.monotonic() < until_s:
                time.sleep(_COALESCE_S / 4)
            return data + port.read(port.in_waiting)
        except serial.SerialException as error:
            raise PortLost(self.port, "was unplugged") from error
        except _Errors as error:
            raise PortLost(self.port, _reason(error)) from error

    def _open_port(self) -> serial.Serial:
        if self._serial is None:
            raise PortLost(self.port, "is not open")
        return self._serial

    def _check_same_device(self, port: serial.Serial) -> None:
        """Notice while idle that the name now leads to another device, or to none."""
        if os.stat(self.port).st_rdev != os.fstat(port.fileno()).st_rdev:
            raise PortLost(self.port, "another device has its name")

    def send(self, data: bytes) -> bool:
        """Write whole frames within 0.2 s; return whether the port took them. Raises nothing."""
        with self._writing:
            if self._serial is None:
                return False
            try:
                self._serial.write(self._lead + data)
            except _Errors as error:
                log.debug("port %s: on writing: %s", self.port, error)
                return False
            return True

    def run(self, put: Callable[[LinkEvent], None], stop: threading.Event, *, silent_s: float = SILENT_S) -> None:
        """Read until ``stop`` is set, reopening the port whenever it is lost: the body of a thread.

        A port that opens but says nothing for ``silent_s`` is lost as well. ``put`` gets every event.
        """
        told_lost = told_log = False
        logged_s = -_LOG_EVERY_S
        backoff_s = _BACKOFF_S[0]
        try:
            while not stop.is_set():
                try:
                    for event in self._events(stop, silent_s):
                        if isinstance(event, Opened):
                            if told_log:
                                log.info("port %s is back", self.port)
                            told_lost, told_log, backoff_s = False, False, _BACKOFF_S[0]
                        put(event)
                except PortLost as lost:
                    if not told_lost:
                        put(Lost(self.port, lost.reason))
                    told_lost = True
                    now_s = time.monotonic()
                    if now_s - logged_s >= _LOG_EVERY_S:
                        log.warning("port %s is lost: %s", self.port, lost.reason)
                        logged_s, told_log = now_s, True
                self.close()
                stop.wait(backoff_s)
                backoff_s = min(2 * backoff_s, _BACKOFF_S[1])
        finally:
            self.close()

    def _events(self, stop: threading.Event, silent_s: float) -> Iterator[LinkEvent]:
        self.open()
        for greeting in self._greeting():
            self.send(greeting)
        speaks = self._quiet
        if self._quiet:
            yield Opened(self.port)
        heard_s = time.monotonic()
        while not stop.is_set():
            data = self.read()
            now_s = time.monotonic()
            if data:
                if not speaks:
                    yield Opened(self.port)
                speaks, heard_s = True, now_s
                yield Received(self.port, data, now_s)
            elif now_s - heard_s >= silent_s:
                raise PortLost(self.port, f"says nothing for {silent_s:g} s")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EAGAIN:
        return "is in use by another program"
    return os.strerror(number) if isinstance(number, int) else str(error)
