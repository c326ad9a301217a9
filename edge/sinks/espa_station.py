"""A pager system of our own on a pty or TCP port: what `make demo` pages, and what tests make fail."""

from __future__ import annotations

import logging
import os
import pty
import select
import socket
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.sinks.espa import (
    ACK,
    ADDRESS,
    CALL_TO_PAGER,
    CALL_TYPE,
    ENQ,
    EOT,
    MESSAGE,
    NAK,
    PRIORITY,
    SOH,
    STATUS,
    Decoder,
    decode_block,
    encode_block,
)

log = logging.getLogger(__name__)

OnPage = Callable[[str, str, str, str], None]

_ANSWER_S = 1.0  # how long it waits for whom it polled or selected
_TELL_ATTEMPTS = 3


class EspaStation:
    """Answers as a pager system does and hands each page to ``on_page(address, text, call_type, priority)``.

    Make one with `on_pty` or `on_tcp`; it runs in its own thread, which calls ``on_page`` before the
    ACK goes out. The public attributes may be set at any time to make it misbehave.
    """

    def __init__(
        self, on_page: OnPage, *, address: str, pty_fds: tuple[int, ...], server: socket.socket | None
    ) -> None:
        self.silent = False  # hears all, says nothing
        self.busy = 0  # NAK so many selects
        self.refuse = 0  # NAK so many blocks ...
        self.refuse_digit = "1"  # ... with this digit, or "" for none
        self.damage = 0  # flip a bit of so many blocks as they arrive
        self.ends = False  # say EOT after a block, as some stations do
        self.polls_every_s = 0.0  # as the line's control station, poll the caller so often
        self.waits_for_polls = False  # take a bare select for a poll, and tell only then
        self.straight = False  # send what it has to tell without selecting the caller
        self.damage_told = 0  # flip a bit of so many blocks that it sends
        self.pages = 0
        self.polls: list[float] = []  # seconds from each poll to the caller's answer
        self.told: list[bytes] = []  # what the caller answered to each block that was sent to it
        self.port = ""  # for EspaSettings(port=...)
        self.url = ""  # for EspaSettings(url=...)
        self._on_page = on_page
        self._select = address.encode("ascii") + bytes((ENQ,))
        self._caller = b"1" + bytes((ENQ,))
        self._to_tell: deque[bytes] = deque()
        self._telling = b""  # what was said last of it: the select or the block
        self._tries = 0
        self._before = b""  # what it heard last
        self._polled_at_s = self._answered_s = self._waits_until_s = 0.0  # monotonic
        self._pty_fds = pty_fds
        self._server = server
        self._client: socket.socket | None = None
        self._link: Path | None = None
        self._decoder = Decoder()
        self._wake_r, self._wake_w = os.pipe()
        self._thread = threading.Thread(target=self._run, name="espa-station", daemon=True)

    @classmethod
    def on_pty(cls, link: Path, on_page: OnPage, *, address: str = "2") -> Self:
        """Open a pty and put a symbolic link to it at ``link``, in place of one that is there."""
        fds = pty.openpty()  # its other end stays open here too, so that a caller may come and go
        for fd in fds:
            tty.setraw(fd)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(fds[1]))
        station = cls(on_page, address=address, pty_fds=fds, server=None)
        station.port, station._link = str(link), link
        station._thread.start()
        return station

    @classmethod
    def on_tcp(cls, on_page: OnPage, *, port: int = 0, address: str = "2") -> Self:
        """Listen on 127.0.0.1, on any free port if none is given; one caller at a time, the newest."""
        server = socket.create_server(("127.0.0.1", port))
        station = cls(on_page, address=address, pty_fds=(), server=server)
        station.url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        station._thread.start()
        return station

    def tell(self, records: Iterable[tuple[str, str]], header: str = STATUS) -> None:
        """Send the caller a block when the line is free: a status, unless ``header`` says otherwise."""
        self._to_tell.append(encode_block(header, records))
        os.write(self._wake_w, b"t")

    def stop(self) -> None:
        """Hang up and take the link away."""
        os.write(self._wake_w, b"x")
        self._thread.join()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        for fd in (*self._pty_fds, self._wake_r, self._wake_w):
            os.close(fd)
        for end in (self._client, self._server):
            if end is not None:
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            ends = (*self._pty_fds[:1], self._server, self._client, self._wake_r)
            wait_s = min(0.2, self._due_s())  # an attribute may have been set
            ready = select.select([end for end in ends if end is not None], [], [], wait_s)[0]
            if self._wake_r in ready and os.read(self._wake_r, 1) == b"x":
                return
            if self._server in ready:
                self._answer_the_phone()
            elif any(end in ready for end in ends[:-1]):
                self._hear()
            if self._due_s() == 0.0:
                self._speak()

    def _due_s(self) -> float:
        """Return in how many seconds it has something to say."""
        now_s = time.monotonic()
        if self._telling or (self._to_tell and not self.waits_for_polls):
            return max(0.0, self._waits_until_s - now_s)
        if self.polls_every_s:
            return max(0.0, self._waits_until_s - now_s, self._polled_at_s + self.polls_every_s - now_s)
        return float("inf")

    def _speak(self) -> None:
        self._waits_until_s = time.monotonic() + _ANSWER_S
        if self._telling:  # no answer
            self._tell_again()
        elif self._to_tell:
            self._telling = self._caller
            if self.straight:
                self._tell_block()
            else:
                self._say((self._select if self.polls_every_s else b"") + self._caller)
        else:
            self._polled_at_s = time.monotonic()
            self._say(self._caller)

    def _tell_block(self) -> None:
        self._telling = self._to_tell[0]
        if self.damage_told:
            self.damage_told -= 1
            self._say(self._telling[:-1] + bytes((self._telling[-1] ^ 0x01,)))
        else:
            self._say(self._telling)

    def _tell_again(self) -> None:
        self._telling = b""
        self._tries += 1
        if self._tries >= _TELL_ATTEMPTS:
            self._to_tell.popleft()
            self._tries = 0
        self._say(bytes((EOT,)))

    def _hear_answer(self, said: bytes) -> None:
        """Take what the caller says to our poll, select or block."""
        now_s = time.monotonic()
        if self._polled_at_s > self._answered_s and (said[0] == EOT or said == self._select):
            self._answered_s = now_s
            self.polls.append(now_s - self._polled_at_s)
        if said[0] == EOT:
            self._waits_until_s = self._waits_until_s if self._telling else 0.0
        elif said == self._select:
            self._waits_until_s = now_s + _ANSWER_S
        elif self._telling == self._caller and said[-1] == ACK:
            self._tell_block()
            self._waits_until_s = now_s + _ANSWER_S
        elif self._telling[:1] == bytes((SOH,)) and said[-1] in {ACK, NAK}:
            self.told.append(said)
            if said[-1] == ACK:
                self._to_tell.popleft()
                self._telling, self._tries = b"", 0
                self._say(bytes((EOT,)))
                self._waits_until_s = 0.0
            elif said == b"1" + bytes((NAK,)) and self._tries + 1 < _TELL_ATTEMPTS:
                self._tries += 1
                self._tell_block()
            else:
                self._tries = _TELL_ATTEMPTS
                self._tell_again()

    def _answer_the_phone(self) -> None:
        assert self._server is not None
        if self._client is not None:
            self._client.close()
        self._client = self._server.accept()[0]
        self._decoder = Decoder()

    def _hear(self) -> None:
        try:
            data = self._client.recv(4096) if self._client is not None else os.read(self._pty_fds[0], 4096)
        except ConnectionError:
            data = b""
        if not data and self._client is not None:
            self._client.close()
            self._client = None
        for said in self._decoder.feed(data):
            if said[0] == SOH:
                self._waits_until_s = 0.0
                self._say(self._answer_to_block(said))
            elif said == self._select and self.waits_for_polls and self._before != self._caller:
                self._telling = self._caller if self._to_tell else b""
                self._waits_until_s = time.monotonic() + _ANSWER_S
                self._say(self._telling or bytes((EOT,)))
            elif said == self._select:
                self._hear_answer(said)
                self.busy, answer = (self.busy - 1, NAK) if self.busy else (0, ACK)
                self._say(bytes((answer,)))
            else:
                self._hear_answer(said)
            self._before = said

    def _answer_to_block(self, octets: bytes) -> bytes:
        if self.damage:
            self.damage -= 1
            octets = octets[:-3] + bytes((octets[-3] ^ 0x01,)) + octets[-2:]
        end = bytes((EOT,)) if self.ends else b""
        try:
            block = decode_block(octets)
        except ValueError as error:
            log.info("bad block: %s", error)
            return bytes((0x31, NAK)) + end
        if self.refuse:
            self.refuse -= 1
            return self.refuse_digit.encode("ascii") + bytes((NAK,)) + end
        if block.header == CALL_TO_PAGER:
            self.pages += 1
            self._on_page(*(block.data(key) for key in (ADDRESS, MESSAGE, CALL_TYPE, PRIORITY)))
        return bytes((ACK,)) + end

    def _say(self, octets: bytes) -> None:
        if self.silent:
            return
        try:
            if self._client is not None:
                self._client.sendall(octets)
            elif self._pty_fds:
                os.write(self._pty_fds[0], octets)
        except ConnectionError:
            log.info("the caller hung up")
