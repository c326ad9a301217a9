"""A serial line, or a TCP connection to a serial server, for what pager systems speak over either.

All octets go through here, so this is where they are traced and where a far end that babbles is slowed
down. What goes out is spelt in the 7-bit characters that such systems take.
"""

from __future__ import annotations

import errno
import logging
import re
import select
import socket
import termios
import time
import unicodedata
from collections.abc import Callable
from typing import Protocol

import serial

from edge.channels import LineChannel
from edge.sinks import SinkUnavailable

log = logging.getLogger(__name__)

Trace = Callable[[str, bytes], None]  # shown every octet: ("tx" | "rx", octets)

_CONNECT_S = 5.0
# One read takes at most so much, so often: no real line is faster, and one that babbles costs little.
_READ_OCTETS, _READ_EVERY_S = 512, 0.005
_ERRORS = (OSError, termios.error)  # a serial line that hangs up raises either
# A serial server that lost its power says nothing: TCP asks after 10 s, every 5 s, and gives it up after 3.
_TCP_OPTIONS = {
    socket.TCP_NODELAY: 1,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}

# What Unicode does not take apart by itself.
_SPELT = str.maketrans(
    {
        "\u00df": "ss", "\u00e6": "ae", "\u00c6": "AE", "\u0153": "oe", "\u0152": "OE", "\u00f8": "o",
        "\u00d8": "O", "\u00f0": "d", "\u00d0": "D", "\u00fe": "th", "\u00de": "Th", "\u0111": "d",
        "\u0110": "D", "\u0142": "l", "\u0141": "L", "\u0131": "i", "\u2018": "'", "\u2019": "'",
        "\u201c": '"', "\u201d": '"', "\u2010": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "x",
        "\u20ac": "EUR", "\u00a3": "GBP",
    }
)  # fmt: skip


def printable(text: str, most: int = 128) -> str:
    """Spell ``text`` with the characters 0x20 to 0x7E, at most ``most``; what has no spelling is '?'."""
    plain = []
    for char in unicodedata.normalize("NFKD", text.translate(_SPELT)):
        if " " <= char <= "~":
            plain.append(char)
        elif char.isspace() or unicodedata.category(char) == "Cc":
            plain.append(" ")
        elif not unicodedata.combining(char):
            plain.append("?")
    return "".join(plain)[:most]


def masked(number: str) -> str:
    """Return a number long enough for a telephone's with all but its last three digits hidden."""
    return re.sub(r"\d(?=\d*\d{3})", "*", number) if len(re.findall(r"\d", number)) > 6 else number


class LineBroke(Exception):
    """An open line is gone: close it and open another."""


class LineHeld(SinkUnavailable):
    """Another program has the serial line."""


class _Port(Protocol):
    """What carries the octets; everything raises one of ``_ERRORS`` once it is gone."""

    def fileno(self) -> int: ...
    def read(self) -> bytes: ...  # what has arrived, without waiting; called only when something has
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class _Serial:
    def __init__(self, settings: LineChannel, write_wait_s: float) -> None:
        self._serial = serial.Serial(
            settings.port,
            baudrate=settings.baud,
            bytesize=int(settings.format[0]),
            parity=settings.format[1],
            stopbits=int(settings.format[2]),
            timeout=0,
            write_timeout=write_wait_s,
            exclusive=True,
        )

    def fileno(self) -> int:
        return self._serial.fileno()

    def read(self) -> bytes:
        return self._serial.read(_READ_OCTETS)

    def write(self, data: bytes) -> None:
        self._serial.write(data)

    def close(self) -> None:
        try:
            self._serial.reset_output_buffer()  # else close() may wait half a minute for a stuck line to drain
        except _ERRORS:
            log.debug("%s went away", self._serial.port)
        finally:
            self._serial.close()


class _Tcp:
    def __init__(self, settings: LineChannel, write_wait_s: float) -> None:
        host, _, port = settings.url.removeprefix("tcp://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_CONNECT_S)
        self._socket.settimeout(write_wait_s)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _TCP_OPTIONS.items():
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:  # it has hung up already
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        data = self._socket.recv(_READ_OCTETS)
        if not data:
            raise ConnectionResetError("the far end hung up")
        return data

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


class Line:
    """An open line. All but `close` raise `LineBroke` once it is gone."""

    def __init__(self, port: _Port, baud: int, trace: Trace | None) -> None:
        self._port = port
        self._baud = baud
        self._trace = trace
        self._next_read_s = 0.0

    def time_s(self, octets: int) -> float:
        """Return how long the line takes for so many octets: 300 baud takes seconds for a page."""
        return 11 * octets / self._baud

    def wait(self, timeout_s: float, wake: int | None = None) -> bool:
        """Wait until something has arrived; return False when time is up or ``wake`` can be read."""
        time.sleep(max(0.0, self._next_read_s - time.monotonic()))
        ends: list[_Port | int] = [self._port] if wake is None else [self._port, wake]
        try:
            ready = select.select(ends, [], [], max(0.0, timeout_s))[0]
        except _ERRORS as error:
            raise LineBroke(str(error)) from None
        return self._port in ready and wake not in ready

    def read(self) -> bytes:
        """Return what has arrived, at most 512 octets; call it only after `wait`."""
        try:
            data = self._port.read()
        except _ERRORS as error:
            raise LineBroke(str(error)) from None
        self._next_read_s = time.monotonic() + _READ_EVERY_S
        self._show("rx", data)
        return data

    def drop_input(self) -> None:
        """Throw away what has arrived; of a line that babbles, some of it."""
        for _ in range(16):
            if not self.wait(0.0):
                break
            self.read()

    def write(self, data: bytes, *, shown: bytes | None = None) -> None:
        """Send ``data``; the trace is given ``shown`` in its place where that is secret."""
        try:
            self._port.write(data)
        except _ERRORS as error:
            raise LineBroke(str(error)) from None
        self._show("tx", data if shown is None else shown)

    def close(self) -> None:
        """Give the line back."""
        self._port.close()

    def _show(self, way: str, data: bytes) -> None:
        if self._trace is not None and data:
            self._trace(way, data)


def open_line(sink: str, settings: LineChannel, *, write_wait_s: float, trace: Trace | None = None) -> Line:
    """Open the line of a channel; takes at most five seconds for each address of the serial server's name.

    ``write_wait_s`` is how long a write may take before the line counts as broken.

    Raises:
        LineHeld: another program has the serial line.
        SinkUnavailable: it cannot be opened.
    """
    where = settings.url or settings.port
    try:
        port = _Tcp(settings, write_wait_s) if settings.url else _Serial(settings, write_wait_s)
    except (*_ERRORS, ValueError, OverflowError) as error:  # no such speed; no such port number
        if settings.port and getattr(error, "errno", None) in {errno.EAGAIN, errno.EBUSY}:
            raise LineHeld(sink, f"{where} cannot be opened: another program has it") from None
        raise SinkUnavailable(sink, f"{where} cannot be opened ({error})") from None
    return Line(port, settings.baud, trace)
