"""Pages to a paging terminal by TAP 1.8 (February 1997, also called IXO), over a serial line or TCP.

Lines end in CR. We call with CR until the terminal asks ``ID=``, log in with ``ESC PG1``, and after
``ESC [p`` send blocks: ``STX pager CR text CR ETX checksum CR``. A text that is too long for one block goes
on in the next: US ends a block within a field, ETB between fields. The terminal answers each block with ACK,
NAK (send it again), RS (never send it again) or ESC EOT (it hangs up), often after a line with a code.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from pathlib import Path

from edge.channels import TapSettings
from edge.sinks import Page, SinkRejected, SinkUnavailable
from edge.sinks.line import Line, LineBroke, Trace, open_line, printable

log = logging.getLogger(__name__)

STX, ETX, EOT, ETB, US, CR = b"\x02", b"\x03", b"\x04", b"\x17", b"\x1f", b"\r"
# What a terminal says, beside lines of text.
ASKS_ID, GO_AHEAD, ACK, NAK, RS, HANGS_UP = b"ID=", b"\x1b[p", b"\x06", b"\x15", b"\x1e", b"\x1b\x04"
BLOCK_CHARACTERS = 250  # with 3 control and 3 checksum characters 256

_CALLS, _CALL_EVERY_S = 3, 2.0  # CR, until the terminal wakes up
_FAREWELL_S = 2.0
_MOST_S = 60.0  # a terminal may ask for patience, or for the same again, for ever
_PIECE_OCTETS = 32  # written at a time, so that XOFF can hold the rest
_MOST_LINE = 256  # characters of a line that are kept
_XON, _XOFF = 0x11, 0x13
_SKIPPED = b"\x00\n\x11\x13\x7f"

_CODES = {  # of appendix A of the specification
    "501": "it waited for us too long",
    "502": "it heard something else before the page",
    "503": "too many blocks arrived damaged",
    "504": "this pager takes no text, only a tone",
    "505": "this pager takes digits only",
    "506": "too many pages went to unknown pagers",
    "507": "it does not understand the login",
    "508": "it does not offer this service",
    "509": "the password is wrong",
    "510": "this cannot be a pager number there",
    "511": "no pager has this number",
    "512": "it cannot reach this pager for now",
    "513": "the text is too long",
    "514": "the block arrived damaged",
    "515": "it does not understand the page",
    "516": "too many pages for now",
    "517": "the text is too long",
}
_PATIENCE = "111"
_LATER = {"501", "502", "503", "506", "507", "508", "509", "512", "514", "516"}  # no fault of the page
_NOTED = {"212": "cut it", "213": "holds it back", "214": "cut it"}  # taken, but


def checksum(octets: bytes) -> bytes:
    """Return the three characters for a block from STX to ETX, ETB or US: the sum of its 7-bit values."""
    total = sum(octet & 0x7F for octet in octets)
    return bytes(0x30 + (total >> shift & 0x0F) for shift in (8, 4, 0))


def encode_blocks(*fields: str) -> list[bytes]:
    """Write the blocks of one page, each from STX to the CR after its checksum; fields are printable."""
    blocks, body = [], b""

    def end(control: bytes) -> None:
        blocks.append(STX + body + control + checksum(STX + body + control) + CR)

    for field in fields:
        if len(body) + 2 > BLOCK_CHARACTERS:
            end(ETB)
            body = b""
        rest = field.encode("ascii") + CR
        while len(body) + len(rest) > BLOCK_CHARACTERS:
            room = min(BLOCK_CHARACTERS - len(body), len(rest) - 2)  # the last character and its CR stay together
            body, rest = body + rest[:room], rest[room:]
            end(US)
            body = b""
        body += rest
    end(ETX)
    return blocks


class Decoder:
    """Turn octets from a terminal into what it said; any split of a stream gives the same.

    Each item is ``ID=``, ACK, NAK, RS, ``ESC [p`` or ``ESC EOT``, but for ``ID=`` only at the beginning of a
    line, or else a line of text. XON and XOFF come anywhere and end up in ``paused``.
    """

    def __init__(self) -> None:
        self.paused = False
        self._line = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take any number of octets and return what they complete."""
        said = []
        for octet in data:
            char = bytes((octet & 0x7F,))  # some serial servers pass the parity bit on
            if char[0] in {_XON, _XOFF}:
                self.paused = char[0] == _XOFF
            if char in _SKIPPED:
                continue
            if char == CR:
                if self._line:
                    said.append(self._line)
                self._line = b""
            elif len(self._line) < _MOST_LINE:
                self._line = (self._line + char).lstrip(b" ")
            if self._line in {ACK, NAK, RS, GO_AHEAD, HANGS_UP} or self._line.endswith(ASKS_ID):
                said.append(ASKS_ID if self._line.endswith(ASKS_ID) else self._line)
                self._line = b""
        return said

    def begin(self) -> None:
        """Forget the beginning of a line."""
        self._line = b""


class _Refused(Exception):
    """The terminal will not take this page, whenever it is sent."""


class _Failed(Exception):
    """The transaction ended without an answer to the page."""


class TapSink:
    """One paging terminal, reached as its settings say; owned by one thread.

    Each page is a login of its own, as terminals hang up on idle callers, and the line is closed between.
    A delivery takes at most a minute, and the time that its octets take on the line. ``trace`` is shown every
    octet, as ``("tx" | "rx", octets)``, with asterisks for the password we send.
    """

    def __init__(self, name: str, settings: TapSettings, secrets: Path, trace: Trace | None = None) -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets
        self._trace = trace
        self._line: Line | None = None
        self._decoder = Decoder()
        self._heard: deque[bytes] = deque()
        self._over_s = 0.0  # monotonic; then the transaction is given up
        self._code = ""  # the last response code

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the terminal has ACKed all of it. Sending the same page again is safe.

        TAP cannot withdraw a page, so a cancelled one is another page, that says so.

        Raises:
            SinkUnavailable: the terminal cannot be reached, or takes no pages now.
            SinkRejected: the terminal refuses this page for good, or there is nothing to send.
        """
        if not page.to.strip() or not page.text.strip():
            raise SinkRejected(self.name, "a page needs a pager number and a text")
        text = f"CANCELLED {page.text}" if page.cancel and "CANCELLED" not in page.text else page.text
        to, text = printable(page.to.strip()), printable(text, self._settings.most_characters)
        try:
            self._transact(encode_blocks(to, text))
        except _Refused as refused:
            raise SinkRejected(self.name, str(refused)) from None

    def check(self) -> None:
        """Log in and out.

        Raises:
            SinkUnavailable: the terminal cannot be reached, or does not let us in.
        """
        self._transact([])

    def close(self) -> None:
        """Give the line back; the next call opens it again."""
        if self._line is not None:
            line, self._line = self._line, None
            line.close()

    def _transact(self, blocks: list[bytes]) -> None:
        password, settings = self._password(), self._settings
        self._decoder, self._code = Decoder(), ""
        self._over_s = time.monotonic() + _MOST_S - _FAREWELL_S
        self._line = open_line(self.name, settings, write_wait_s=settings.answer_wait_s, trace=self._trace)
        self._over_s += self._line.time_s(len(b"".join(blocks)) * settings.attempts)
        try:
            self._log_in(password)
            try:
                for block in blocks:
                    self._send(block)
            finally:
                self._log_out()
        except _Failed as failed:
            raise SinkUnavailable(self.name, str(failed)) from None
        except LineBroke as broke:
            raise SinkUnavailable(self.name, f"the line broke ({broke})") from None
        finally:
            self.close()

    def _password(self) -> bytes:
        name = self._settings.password_file
        if not name:
            return b""
        try:
            password = (self._secrets / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise SinkUnavailable(self.name, f"secret {name} cannot be read ({type(error).__name__})") from None
        if not re.fullmatch(r"[!-~]{1,6}", password):
            raise SinkUnavailable(self.name, f"secret {name} is no TAP password, of 1 to 6 characters")
        return password.encode("ascii")

    def _log_in(self, password: bytes) -> None:
        wait_s = self._settings.answer_wait_s
        for _ in range(_CALLS):
            self._write(CR)
            if self._await({ASKS_ID}, _CALL_EVERY_S):
                break
        else:
            raise _Failed("the terminal does not ask who calls")
        for _ in range(self._settings.attempts):
            self._write(b"\x1bPG1" + password + CR, shown=b"\x1bPG1" + b"*" * len(password) + CR)
            said = self._await({ACK, NAK, GO_AHEAD}, wait_s)
            if said == ACK:
                said = self._await({GO_AHEAD}, wait_s)
            if said == GO_AHEAD:
                return
            if said is None:
                raise _Failed(f"no answer to the login within {wait_s:g} s")
        raise _Failed(f"the terminal refuses the login{self._why()}")

    def _send(self, block: bytes) -> None:
        for _ in range(self._settings.attempts):
            self._code = ""
            self._write(block)
            said = self._await({ACK, NAK, RS}, self._settings.answer_wait_s)
            if said == ACK:
                if self._code in _NOTED:
                    log.warning("%s: the terminal took the page, but %s", self.name, _NOTED[self._code])
                return
            if said == RS:
                refused = f"the terminal refuses the page{self._why()}"
                raise _Failed(refused) if self._code in _LATER else _Refused(refused)
            if said is None:  # sent again here, the answer to the first could pass for one to the next block
                raise _Failed(f"no answer to the page within {self._settings.answer_wait_s:g} s")
        raise _Failed(f"the terminal keeps asking for the page again{self._why()}")

    def _log_out(self) -> None:
        self._over_s = time.monotonic() + _FAREWELL_S
        try:
            self._write(EOT + CR)
            self._await({HANGS_UP}, _FAREWELL_S)
        except (LineBroke, _Failed) as gone:  # what matters was answered before
            log.debug("%s: no farewell (%s)", self.name, gone)

    def _await(self, wanted: set[bytes], wait_s: float) -> bytes | None:
        """Return the first of ``wanted`` that the terminal says, or None; it may ask for patience."""
        assert self._line is not None
        until_s = time.monotonic() + wait_s
        while self._heard or (left_s := min(until_s, self._over_s) - time.monotonic()) > 0:
            if not self._heard:
                if self._line.wait(left_s):
                    self._heard += self._decoder.feed(self._line.read())
                continue
            said = self._heard.popleft()
            if said in wanted:
                return said
            if said == HANGS_UP:
                raise _Failed(f"the terminal hangs up{self._why()}")
            if code := re.match(rb"(\d{3})(?!\d)", said):
                self._code = code[1].decode("ascii")
                until_s = time.monotonic() + wait_s if self._code == _PATIENCE else until_s
        return None

    def _why(self) -> str:
        return f": {_CODES[self._code]} (code {self._code})" if self._code in _CODES else ""

    def _write(self, data: bytes, *, shown: bytes | None = None) -> None:
        """Send ``data`` in pieces, and hold on while the terminal says XOFF; forget all it said before."""
        assert self._line is not None
        shown, sent_s = data if shown is None else shown, 0.0
        for at in range(0, len(data), _PIECE_OCTETS):
            piece = slice(at, at + _PIECE_OCTETS)
            self._hold(sent_s)
            self._heard.clear()
            self._decoder.begin()
            self._line.write(data[piece], shown=shown[piece])
            sent_s = time.monotonic() + self._line.time_s(len(data[piece]))

    def _hold(self, sent_s: float) -> None:
        """Wait until ``sent_s`` (monotonic), or for XON, but not for ever."""
        assert self._line is not None
        for _ in range(16):
            if not self._line.wait(0.0):
                break
            self._decoder.feed(self._line.read())
        give_up_s = min(time.monotonic() + self._settings.answer_wait_s, self._over_s)
        while (left_s := (give_up_s if self._decoder.paused else sent_s) - time.monotonic()) > 0:
            if self._line.wait(left_s):
                self._decoder.feed(self._line.read())
        self._decoder.paused = False
        if time.monotonic() > self._over_s:
            raise _Failed("the terminal takes too long")
