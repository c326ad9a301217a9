"""Pages to a pager system by ESPA 4.4.4 (November 1984), over a serial line or a TCP serial server.

A block is ``SOH header STX id US data (RS id US data)* ETX BCC``, where BCC is the XOR of every octet
after SOH up to and including ETX. It is one octet of any value, control codes included. Around it:
poll ``'1' ENQ`` (to ourselves), select ``'2' ENQ``, ACK, block, ACK, EOT; a NAK may carry one digit.
"""

from __future__ import annotations

import logging
import select
import socket
import termios
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Protocol

import serial

from edge.settings import PagerSettings
from edge.sinks import Page, SinkRejected, SinkUnavailable, Urgency

log = logging.getLogger(__name__)

SOH, STX, ETX, EOT, ENQ, ACK, NAK, RS, US = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x15, 0x1E, 0x1F
CALL_TO_PAGER = "1"  # header
ADDRESS, MESSAGE, BEEP, CALL_TYPE, TRANSMISSIONS, PRIORITY = "123456"  # record ids
CALL_RESET, CALL_STANDARD = "1", "3"  # values of the call type
CALLER = "1"  # our own address on the line
MAX_TEXT = 128
MAX_BLOCK_OCTETS = 512  # far above any real block; bounds what noise can make us hold

_CONNECT_S = 5.0
# From our EOT to the next poll: slow stations flush their input after a transaction, and a poll sent
# then is lost. digimat-espa takes some 0.3 s after a good block and 0.5 s after anything else.
_PAUSE_AFTER_PAGE_S = 0.5
_PAUSE_S = 1.0
_LINE_ERRORS = (OSError, termios.error)  # a serial line that hangs up raises either

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


@dataclass(frozen=True, slots=True)
class Block:
    """One ESPA data block: its header and its records, (id, data) in order."""

    header: str
    records: tuple[tuple[str, str], ...]

    def data(self, record_id: str) -> str:
        """Return the data of the first record with this id, or nothing."""
        return next((data for key, data in self.records if key == record_id), "")


def bcc(octets: bytes) -> int:
    """Return the XOR of ``octets``: those after SOH, ETX included."""
    return reduce(xor, octets, 0)


def encode_block(header: str, records: Iterable[tuple[str, str]]) -> bytes:
    """Write a block, SOH to BCC; data is spelt in printable ASCII and cut to 128 characters."""
    body = chr(RS).join(f"{key}{chr(US)}{printable(data)}" for key, data in records)
    octets = f"{header}{chr(STX)}{body}{chr(ETX)}".encode("ascii")
    return bytes((SOH, *octets, bcc(octets)))


def decode_block(octets: bytes) -> Block:
    """Read a block, SOH to BCC; a stray RS before ETX is accepted, as some senders write it.

    Raises:
        ValueError: the octets are no block, or the BCC is wrong.
    """
    if len(octets) < 4 or octets[0] != SOH or octets[-2] != ETX:
        raise ValueError("no block from SOH to ETX and BCC")
    wanted = bcc(octets[1:-1])
    if octets[-1] != wanted:
        raise ValueError(f"BCC is {octets[-1]:02X}, the block says {wanted:02X}")
    header, stx, body = octets[1:-2].decode("latin-1").partition(chr(STX))
    if not header or not stx:
        raise ValueError("block without header")
    records = []
    for record in body.removesuffix(chr(RS)).split(chr(RS)):
        key, us, data = record.partition(chr(US))
        if not us:
            raise ValueError("record without US")
        records.append((key, data))
    return Block(header, tuple(records))


def printable(text: str) -> str:
    """Spell ``text`` with the characters 0x20 to 0x7E, at most 128 of them; what has no spelling is '?'."""
    plain = []
    for char in unicodedata.normalize("NFKD", text.translate(_SPELT)):
        if " " <= char <= "~":
            plain.append(char)
        elif char.isspace() or unicodedata.category(char) == "Cc":
            plain.append(" ")
        elif not unicodedata.combining(char):
            plain.append("?")
    return "".join(plain)[:MAX_TEXT]


def page_block(page: Page) -> bytes:
    """Write the block that makes a pager system send ``page``, or withdraw it."""
    records = [(ADDRESS, page.to), (MESSAGE, page.text)]
    if page.cancel:
        records += [(CALL_TYPE, CALL_RESET)]
    else:
        records += [
            (BEEP, "2" if page.urgency == Urgency.EMERGENCY else "1"),
            (CALL_TYPE, CALL_STANDARD),
            (TRANSMISSIONS, "1" if page.urgency == Urgency.NORMAL else "2"),
            (PRIORITY, str(int(page.urgency))),
        ]
    return encode_block(CALL_TO_PAGER, records)


class Decoder:
    """Turn octets of the line into what was said; any split of a stream gives the same.

    Each item is a whole block, SOH to BCC, or one of EOT, ENQ, ACK and NAK with the digit before it, if any.
    """

    def __init__(self) -> None:
        self._digit = b""
        self._block = bytearray()  # from SOH on; empty outside a block
        self._at_bcc = False
        self.dropped_octets = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take any number of octets and return what they complete."""
        said = []
        for octet in data:
            if self._at_bcc:  # whatever its value
                said.append(bytes((*self._block, octet)))
                self._block.clear()
                self._at_bcc = False
            elif octet == SOH:  # the start of a block, or its sender began again
                self._drop()
                self._block.append(octet)
            elif self._block and octet != EOT:
                self._block.append(octet)
                self._at_bcc = octet == ETX
                if len(self._block) >= MAX_BLOCK_OCTETS:
                    self._drop()
            elif octet in (EOT, ENQ, ACK, NAK):
                if self._block:
                    self._drop()
                said.append(self._digit + bytes((octet,)))
                self._digit = b""
            else:
                self._drop()
                if 0x30 <= octet <= 0x39:
                    self._digit = bytes((octet,))
                else:
                    self.dropped_octets += 1
        return said

    def _drop(self) -> None:
        self.dropped_octets += len(self._block) + len(self._digit)
        self._block.clear()
        self._at_bcc = False
        self._digit = b""


class _Line(Protocol):
    """An open line; everything raises one of ``_LINE_ERRORS`` once it is gone."""

    def fileno(self) -> int: ...
    def read(self) -> bytes: ...  # what has arrived, without waiting; called only when something has
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class _SerialLine:
    def __init__(self, settings: PagerSettings) -> None:
        self._serial = serial.Serial(
            settings.port,
            baudrate=settings.baud,
            bytesize=int(settings.format[0]),
            parity=settings.format[1],
            stopbits=int(settings.format[2]),
            timeout=0,
            write_timeout=settings.ack_wait_s,
            exclusive=True,
        )

    def fileno(self) -> int:
        return self._serial.fileno()

    def read(self) -> bytes:
        return self._serial.read(4096)

    def write(self, data: bytes) -> None:
        self._serial.write(data)

    def close(self) -> None:
        try:
            self._serial.reset_output_buffer()  # else close() may wait half a minute for a stuck line to drain
        except _LINE_ERRORS:
            log.debug("%s went away", self._serial.port)
        finally:
            self._serial.close()


class _TcpLine:
    def __init__(self, settings: PagerSettings) -> None:
        host, _, port = settings.url.removeprefix("tcp://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=_CONNECT_S)
        self._socket.settimeout(settings.ack_wait_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        data = self._socket.recv(4096)
        if not data:
            raise ConnectionResetError("the far end hung up")
        return data

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


class _AttemptFailed(Exception):
    """The station answered otherwise than ACK, or not at all."""


class EspaPager:
    """One pager system, reached as its settings say; owned by one thread.

    The line is opened when first needed and again after any error. A line that hangs costs at most
    ``attempts`` times two waits for an ACK, and the pauses between. ``trace`` is shown every octet,
    as ``("tx" | "rx", octets)``.
    """

    def __init__(
        self, name: str, settings: PagerSettings, trace: Callable[[str, bytes], None] | None = None
    ) -> None:
        self.name = name
        self._settings = settings
        self._trace = trace
        self._line: _Line | None = None
        self._decoder = Decoder()
        self._ready_at_s = 0.0  # monotonic; not before does the station hear another poll

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the station has ACKed it. Sending the same page again is safe.

        Raises:
            SinkUnavailable: the line cannot be opened, or no attempt was ACKed.
            SinkRejected: nothing to call, or nothing to say.
        """
        if not page.to.strip() or not page.text.strip():
            raise SinkRejected(self.name, "a page needs a pager number and a text")
        block = page_block(page)
        reason = ""
        for attempt in range(self._settings.attempts):
            try:
                self._transact(block)
            except _AttemptFailed as failed:
                reason = str(failed)
                log.warning("%s: attempt %d: %s", self.name, attempt + 1, reason)
            else:
                return
        raise SinkUnavailable(self.name, reason)

    def check(self) -> None:
        """Poll and select the station, then let it go; for variant ``block``, see that the line is open.

        Raises:
            SinkUnavailable: the line cannot be opened, or the station is not ready.
        """
        try:
            self._transact(None)
        except _AttemptFailed as failed:
            raise SinkUnavailable(self.name, str(failed)) from None

    def close(self) -> None:
        """Give the line back; the next call opens it again."""
        if self._line is not None:
            line, self._line = self._line, None
            line.close()

    def _transact(self, block: bytes | None) -> None:
        settings = self._settings
        time.sleep(max(0.0, self._ready_at_s - time.monotonic()))
        self._open()
        if block is None and settings.variant == "block":
            return
        pause_s = _PAUSE_S
        try:
            if settings.variant != "block":
                poll = CALLER + chr(ENQ) if settings.variant == "poll-select" else ""
                self._ask(f"{poll}{settings.station}{chr(ENQ)}".encode("ascii"), "select")
            if block is not None:
                self._drop_input()  # a second ACK to the select must not pass for one to the block
                self._ask(block, "block")
                pause_s = _PAUSE_AFTER_PAGE_S
        except _AttemptFailed:
            self._let_go()
            raise
        except _LINE_ERRORS as error:
            self.close()
            raise _AttemptFailed(f"the line broke ({error})") from None
        else:
            self._let_go()
        finally:
            self._ready_at_s = time.monotonic() + pause_s

    def _open(self) -> None:
        if self._line is not None:
            try:
                self._drop_input()
            except _LINE_ERRORS:  # it broke while idle
                self.close()
            else:
                return
        self._decoder = Decoder()
        try:
            self._line = _TcpLine(self._settings) if self._settings.url else _SerialLine(self._settings)
            self._drop_input()
        except (*_LINE_ERRORS, ValueError, OverflowError) as error:  # no such speed; no such port number
            self.close()
            where = self._settings.url or self._settings.port
            raise SinkUnavailable(self.name, f"{where} cannot be opened ({error})") from None

    def _ask(self, octets: bytes, what: str) -> None:
        """Write ``octets`` and wait for an ACK; an EOT that comes in between changes nothing."""
        self._write(octets)
        line_time_s = 11 * len(octets) / self._settings.baud  # 300 baud takes seconds for a block
        until_s = time.monotonic() + line_time_s + self._settings.ack_wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            for said in self._decoder.feed(self._read(left_s)):
                if said[-1] == ACK and said[0] != SOH:
                    return
                if said[-1] == NAK and said[0] != SOH:
                    digit = said[:-1].decode("ascii")
                    code = f" with code {digit}" if digit else ""
                    cause = " (transmission error)" if digit == "1" else ""
                    raise _AttemptFailed(f"the station refused the {what}{code}{cause}")
        raise _AttemptFailed(f"no answer to the {what} within {self._settings.ack_wait_s:g} s")

    def _read(self, timeout_s: float) -> bytes:
        assert self._line is not None
        if not select.select([self._line], [], [], timeout_s)[0]:
            return b""
        data = self._line.read()
        if self._trace is not None:
            self._trace("rx", data)
        return data

    def _drop_input(self) -> None:
        for _ in range(16):  # a babbling line must not hold us here
            if not self._read(0.0):
                break
        self._decoder = Decoder()

    def _write(self, data: bytes) -> None:
        assert self._line is not None
        self._line.write(data)
        if self._trace is not None:
            self._trace("tx", data)

    def _let_go(self) -> None:
        try:
            self._write(bytes((EOT,)))
        except _LINE_ERRORS:  # what matters was answered before
            self.close()
