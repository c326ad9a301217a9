"""A pager system of our own on a pty or TCP port: what `make demo` pages, and what tests make fail."""

from __future__ import annotations

import logging
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Callable
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
    Decoder,
    decode_block,
)

log = logging.getLogger(__name__)

OnPage = Callable[[str, str, str, str], None]


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
        self.pages = 0
        self.port = ""  # for PagerSettings(port=...)
        self.url = ""  # for PagerSettings(url=...)
        self._on_page = on_page
        self._select = address.encode("ascii") + bytes((ENQ,))
        self._pty_fds = pty_fds
        self._server = server
        self._client: socket.socket | None = None
        self._link: Path | None = None
        self._decoder = Decoder()
        self._stop_r, self._stop_w = os.pipe()
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

    def stop(self) -> None:
        """Hang up and take the link away."""
        os.write(self._stop_w, b"x")
        self._thread.join()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        for fd in (*self._pty_fds, self._stop_r, self._stop_w):
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
            ends = (*self._pty_fds[:1], self._server, self._client, self._stop_r)
            ready = select.select([end for end in ends if end is not None], [], [])[0]
            if self._stop_r in ready:
                return
            if self._server in ready:
                self._answer_the_phone()
            elif ready:
                self._hear()

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
                self._say(self._answer_to_block(said))
            elif said == self._select:
                self.busy, answer = (self.busy - 1, NAK) if self.busy else (0, ACK)
                self._say(bytes((answer,)))

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
            else:
                os.write(self._pty_fds[0], octets)
        except ConnectionError:
            log.info("the caller hung up")
