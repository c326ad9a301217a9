"""Pages to a pager system by ESPA 4.4.4 (November 1984), over a serial line or a TCP serial server.

A block is ``SOH header STX id US data (RS id US data)* ETX BCC``, where BCC is the XOR of every octet
after SOH up to and including ETX. It is one octet of any value, control codes included. Around it:
poll ``'1' ENQ`` (to ourselves), select ``'2' ENQ``, ACK, block, ACK, EOT; a NAK may carry one digit.
In variant ``slave`` the pager system polls us, and we say something only then.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import xor

from edge.channels import EspaSettings
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.line import Line, LineBroke, Trace, masked, open_line, printable

log = logging.getLogger(__name__)

SOH, STX, ETX, EOT, ENQ, ACK, NAK, RS, US = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x15, 0x1E, 0x1F
CALL_TO_PAGER, STATUS = "12"  # headers
ADDRESS, MESSAGE, BEEP, CALL_TYPE, TRANSMISSIONS, PRIORITY, CALL_STATUS, SYSTEM_STATUS = "12345678"  # record ids
CALL_RESET, CALL_STANDARD = "1", "3"  # values of the call type
MAX_BLOCK_OCTETS = 512  # far above any real block; bounds what noise can make us hold

# From our EOT to the next poll: slow stations flush their input after a transaction, and a poll sent
# then is lost. digimat-espa takes some 0.3 s after a good block and 0.5 s after anything else.
_PAUSE_AFTER_PAGE_S = 0.5
_PAUSE_S = 1.0
_STALE_S = 0.3  # what was said so long ago while nobody attended has been given up by who said it
_REOPEN_S = 2.0  # from the end of an idle line to the next call
_GLANCE_S = 0.01
_RECENT_MOST = 200
_RECENT_S = 1800.0  # calls are repeated while they are open: one that was not for so long is over


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


def page_block(page: Page, *, beep: str = "2", most_characters: int = 128) -> bytes:
    """Write the block that makes a pager system send ``page``, or withdraw it; ``beep`` is for emergencies."""
    records = [(ADDRESS, page.to), (MESSAGE, printable(page.text, most_characters))]
    if page.cancel:
        records += [(CALL_TYPE, CALL_RESET)]
    else:
        records += [
            (BEEP, beep if page.urgency == Urgency.EMERGENCY else "1"),
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

    @property
    def in_block(self) -> bool:
        """Whether a block has begun and not ended."""
        return bool(self._block)

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


class _AttemptFailed(Exception):
    """The station answered otherwise than ACK, or not at all."""

    def __init__(self, reason: str, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class EspaPager:
    """One pager system, reached as its settings say; owned by one thread.

    The line is opened when first needed and again after any error. A line that hangs costs at most
    ``attempts`` times three waits for an answer and the pauses between; in variant ``slave``, before each
    of them ``poll_wait_s`` for a poll, and once nobody polled the attempts are over. ``trace`` is shown
    every octet, as ``("tx" | "rx", octets)``.
    """

    def __init__(self, name: str, settings: EspaSettings, trace: Trace | None = None) -> None:
        self.name = name
        self._settings = settings
        self._trace = trace
        self._own, self._station = (f"{a}{chr(ENQ)}".encode("ascii") for a in (settings.own, settings.station))
        self._line: Line | None = None
        self._decoder = Decoder()
        self._heard: deque[bytes] = deque()  # said already, and not yet looked at; at most what one read brings
        self._ready_at_s = 0.0  # monotonic; not before does the station hear another poll
        self._attended_s = 0.0  # monotonic; since then nothing said on the line was missed ...
        self._attended_to_s = 0.0  # ... until then
        self._polled_at_s = float("-inf")  # monotonic; slave: when the station last polled us
        self._polled_itself = False  # the station has just done so: what it says next is a select
        self._status_poll_at_s = self._reopen_at_s = 0.0  # monotonic
        # Calls the station has taken, the latest last: incident, pager, text; when (monotonic), page.
        self._recent: dict[tuple[str, str, str], tuple[float, Page]] = {}
        self._replies: list[Reply] = []
        self._system_fault = ""

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the station has ACKed it. Sending the same page again is safe.

        Raises:
            SinkUnavailable: the line cannot be opened, nobody polled us, or no attempt was ACKed.
            SinkRejected: nothing to call, or nothing to say.
        """
        if not page.to.strip() or not page.text.strip():
            raise SinkRejected(self.name, "a page needs a pager number and a text")
        settings = self._settings
        block = page_block(page, beep=settings.beep, most_characters=settings.most_characters)
        reason = ""
        for attempt in range(settings.attempts):
            try:
                self._transact(block)
            except _AttemptFailed as failed:
                reason = str(failed)
                log.warning("%s: attempt %d: %s", self.name, attempt + 1, reason)
            else:
                self._remember(page)
                return
        raise SinkUnavailable(self.name, reason)

    def check(self) -> None:
        """Poll and select the station, then let it go.

        For variant ``block`` see only that the line is open; for ``slave``, that the station polls us:
        that waits, at most ``poll_wait_s``, where the line was not attended for so long.

        Raises:
            SinkUnavailable: the line cannot be opened, the station is not ready or does not poll, or it
                reported a fault of its own and nothing since.
        """
        try:
            if self._settings.variant == "slave":
                self._check_polls()
            else:
                self._transact(None)
        except _AttemptFailed as failed:
            raise SinkUnavailable(self.name, str(failed)) from None
        if self._system_fault:
            raise SinkUnavailable(self.name, self._system_fault)

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Attend the line until ``wake`` can be read, the time is up, or something came back; return what did.

        Who selects us is heard out first: that takes ``ack_wait_s`` at most, and as long again as the line
        needs for the longest block while that keeps coming. A line that breaks is opened again.

        Raises:
            SinkUnavailable: the line cannot be opened, which is said after a wait, never at once.
        """
        until_s = time.monotonic() + timeout_s
        while not self._replies and (left_s := until_s - time.monotonic()) > 0:
            pause_s = self._reopen_at_s - time.monotonic()
            if self._line is None and pause_s > 0:
                if select.select([wake], [], [], min(pause_s, left_s))[0]:
                    break
                continue
            try:
                self._open()
                if self._status_poll_due():
                    self._poll_status(wake)
                said = self._hear(until_s, wake)
                if said is None:
                    break
                if self._attend(said):
                    self._write(bytes((EOT,)))  # nothing to say
            except LineBroke as broke:
                log.debug("%s: the idle line broke (%s)", self.name, broke)
                self.close()
                self._reopen_at_s = time.monotonic() + _REOPEN_S
            except SinkUnavailable:
                self._reopen_at_s = time.monotonic() + _REOPEN_S
                select.select([wake], [], [], min(_REOPEN_S, left_s))
                raise
        replies, self._replies = self._replies, []
        return replies

    def close(self) -> None:
        """Give the line back; the next call opens it again."""
        if self._line is not None:
            line, self._line = self._line, None
            line.close()

    # -- what we say --------------------------------------------------------------------------

    def _transact(self, block: bytes | None) -> None:
        settings = self._settings
        slave = settings.variant == "slave"
        time.sleep(max(0.0, self._ready_at_s - time.monotonic()))
        self._open(drop=not slave)
        pause_s = _PAUSE_S
        try:
            if slave and not self._hear_poll(time.monotonic() + settings.poll_wait_s):
                raise SinkUnavailable(self.name, f"nobody polled us within {settings.poll_wait_s:g} s")
            if block is None and settings.variant == "block":
                pause_s = 0.0
                if said := self._hear(time.monotonic() + _STALE_S):  # long enough to see it hang up on us
                    self._attend(said)
                return
            if settings.variant != "block":
                self._ask((self._own if settings.variant == "poll-select" else b"") + self._station, "select")
            if block is not None:
                self._drop_input()  # a second ACK to the select must not pass for one to the block
                self._ask(block, "block")
                pause_s = _PAUSE_AFTER_PAGE_S
        except _AttemptFailed as failed:
            self._let_go(theirs=failed.answered and block is not None)
            raise
        except LineBroke as broke:
            self.close()
            raise _AttemptFailed(f"the line broke ({broke})") from None
        else:
            self._let_go(theirs=block is not None)
        finally:
            self._ready_at_s = 0.0 if slave else time.monotonic() + pause_s

    def _ask(self, octets: bytes, what: str) -> None:
        """Write ``octets`` and wait for an ACK; an EOT that comes in between changes nothing."""
        assert self._line is not None
        self._write(octets)
        until_s = time.monotonic() + self._line.time_s(len(octets)) + self._settings.ack_wait_s
        while (said := self._hear(until_s)) is not None:
            if said[-1] == ACK and said[0] != SOH:
                return
            if said[-1] == NAK and said[0] != SOH:
                digit = said[:-1].decode("ascii")
                code = f" with code {digit}" if digit else ""
                cause = " (transmission error)" if digit == "1" else ""
                raise _AttemptFailed(f"the station refused the {what}{code}{cause}", answered=what == "block")
        raise _AttemptFailed(f"no answer to the {what} within {self._settings.ack_wait_s:g} s")

    def _let_go(self, *, theirs: bool) -> None:
        """End the transaction, or see the station end it where that is its part and it knows of it."""
        try:
            if theirs and self._settings.ends == "theirs":
                until_s = time.monotonic() + self._settings.ack_wait_s
                while (said := self._hear(until_s)) is not None:
                    if said == bytes((EOT,)):
                        return
                log.info("%s: the station did not end the transaction", self.name)
            self._write(bytes((EOT,)))
        except LineBroke:  # what matters was answered before
            self.close()

    def _check_polls(self) -> None:
        self._open()
        now_s, wait_s = time.monotonic(), self._settings.poll_wait_s
        lately = self._polled_at_s + wait_s > now_s
        until_s = 0.0 if lately else max(self._attended_s, self._polled_at_s) + wait_s
        try:
            if self._hear_poll(max(until_s, now_s + _GLANCE_S)):
                self._write(bytes((EOT,)))
        except LineBroke as broke:
            self.close()
            raise _AttemptFailed(f"the line broke ({broke})") from None
        if self._polled_at_s + wait_s <= time.monotonic():
            raise _AttemptFailed(f"nobody has polled us for {wait_s:g} s")

    def _status_poll_due(self) -> bool:
        every_s, now_s = self._settings.status_poll_s, time.monotonic()
        return every_s > 0 and now_s >= max(self._status_poll_at_s, self._ready_at_s)

    def _poll_status(self, wake: int) -> None:
        """As control station, let the pager system say what it has to."""
        self._status_poll_at_s = time.monotonic() + self._settings.status_poll_s
        self._write(self._station)
        self._ready_at_s = time.monotonic() + _PAUSE_AFTER_PAGE_S
        until_s = time.monotonic() + self._settings.ack_wait_s
        while (said := self._hear(until_s, wake)) is not None:
            if said == bytes((EOT,)):
                return  # nothing
            if said == self._own:
                self._take_block()
                return
        self._write(bytes((EOT,)))

    # -- what the station says of its own accord ----------------------------------------------

    def _hear_poll(self, until_s: float) -> bool:
        """Return true once the station polls us and waits for an answer; false when none came in time."""
        while (said := self._hear(until_s)) is not None:
            if self._attend(said):
                return True
        return False

    def _attend(self, said: bytes) -> bool:
        """Take what the station says; return whether it polls us, and waits for an answer."""
        slave = self._settings.variant == "slave"
        polled_itself, self._polled_itself = self._polled_itself, said == self._station
        if said == self._own and slave and not polled_itself:
            self._polled_at_s = time.monotonic()
            return not self._heard  # it has said more since: too late to answer
        if said == self._own:
            if not self._heard or self._heard[0][0] == SOH:  # else it asks anew
                self._take_block()
        elif said[0] == SOH and self._settings.variant == "block":
            self._answer(said)
        return False

    def _take_block(self) -> None:
        """Answer the station's select and hear its block, again where it was damaged on the way."""
        assert self._line is not None
        self._write(bytes((ACK,)))
        for _ in range(self._settings.attempts):
            now_s, wait_s = time.monotonic(), self._settings.ack_wait_s
            over_s = now_s + wait_s + self._line.time_s(MAX_BLOCK_OCTETS)
            said = self._hear(now_s + wait_s)
            while said is None and self._decoder.in_block and time.monotonic() < over_s:
                said = self._hear(min(time.monotonic() + wait_s, over_s))
            if said is None:
                if self._settings.variant != "slave":  # the control station brings a silent line back
                    self._write(bytes((EOT,)))
                return
            if said[0] != SOH:  # it has given up, or asks anew
                self._heard.appendleft(said)
                return
            if self._answer(said):
                return

    def _answer(self, octets: bytes) -> bool:
        """Answer the station's block; return false if it was damaged and will come again."""
        try:
            block = decode_block(octets)
        except ValueError as error:
            log.info("%s: bad block: %s", self.name, error)
            self._write(bytes((0x31, NAK)))
            return False
        if block.header != STATUS:  # a call, say: there is nobody here to take it
            log.warning("%s: refused a block with header %r", self.name, printable(block.header, 8))
            self._write(bytes((NAK,)))
            return True
        self._write(bytes((ACK,)))
        if system := printable(block.data(SYSTEM_STATUS), 16):
            self._on_system_status(system)
        if status := printable(block.data(CALL_STATUS), 16):
            to, text = (printable(block.data(key)).strip() for key in (ADDRESS, MESSAGE))
            self._on_call_status(status, to, text)
        return True

    def _on_system_status(self, status: str) -> None:
        fails = status in self._settings.system_status_fails
        log.log(logging.WARNING if fails else logging.INFO, "%s: system status %r", self.name, status)
        self._system_fault = (
            f"the pager system reports a fault of its own (system status {status})" if fails else ""
        )

    def _on_call_status(self, status: str, address: str, text: str) -> None:
        settings = self._settings
        log.info("%s: call status %r of pager %s", self.name, status, masked(address))
        young_s = time.monotonic() - _RECENT_S
        fitting = {  # the latest page of each incident
            incident: page
            for (incident, to, said), (at_s, page) in self._recent.items()
            if at_s > young_s and to == address and text in {"", said}
        }
        if status in settings.status_fails:
            failure = f"the pager system gives call status {status}"
            self._keep(*(Reply(page.page_id, page.incident, failure=failure) for page in fitting.values()))
        elif status in settings.status_acknowledges and len(fitting) == 1:
            page = next(iter(fitting.values()))
            self._keep(Reply(page.page_id, page.incident, by=f"pager {masked(address)}", acknowledges=True))
        elif status in settings.status_acknowledges:  # to acknowledge one must never silence another
            log.warning("%s: %d open calls fit this status, so it acknowledges none", self.name, len(fitting))

    def _keep(self, *replies: Reply) -> None:
        self._replies = [*self._replies, *replies][-_RECENT_MOST:]

    def _remember(self, page: Page) -> None:
        incident, to = page.incident or page.page_id, printable(page.to).strip()
        if page.cancel:
            self._recent = {key: sent for key, sent in self._recent.items() if key[:2] != (incident, to)}
            return
        key = (incident, to, printable(page.text, self._settings.most_characters).strip())
        self._recent.pop(key, None)
        self._recent[key] = (time.monotonic(), page)
        if len(self._recent) > _RECENT_MOST:
            del self._recent[next(iter(self._recent))]

    # -- the line -----------------------------------------------------------------------------

    def _open(self, *, drop: bool = False) -> None:
        """Have an open line; throw away what was said on it while nobody attended, or all with ``drop``."""
        stale = time.monotonic() - self._attended_to_s > _STALE_S
        if self._line is not None and (drop or stale):
            try:
                self._drop_input()
            except LineBroke:  # it broke while idle
                self.close()
        if self._line is None:
            stale = True
            self._line = open_line(
                self.name, self._settings, write_wait_s=self._settings.ack_wait_s, trace=self._trace
            )
            try:
                self._drop_input()
            except LineBroke as broke:
                self.close()
                raise SinkUnavailable(self.name, f"the line broke as soon as it was open ({broke})") from None
        if stale:
            self._attended_s = self._attended_to_s = time.monotonic()

    def _hear(self, until_s: float, wake: int | None = None) -> bytes | None:
        """Return the next thing said; None when there is none in time, or ``wake`` can be read."""
        assert self._line is not None
        if wake is not None and select.select([wake], [], [], 0.0)[0]:
            return None  # however much the line has said
        while not self._heard and (left_s := until_s - time.monotonic()) > 0:
            arrived = self._line.wait(left_s, wake)
            self._attended_to_s = time.monotonic()
            if not arrived:
                return None
            self._heard += self._decoder.feed(self._line.read())
        return self._heard.popleft() if self._heard else None

    def _drop_input(self) -> None:
        assert self._line is not None
        self._heard.clear()
        self._decoder = Decoder()
        self._polled_itself = False
        self._line.drop_input()

    def _write(self, data: bytes) -> None:
        assert self._line is not None
        self._line.write(data)
