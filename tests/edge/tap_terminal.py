"""A paging terminal as the TAP 1.8 specification has it, on a pty or TCP port, which can also misbehave.

It shares no code with `edge.sinks.tap`. As a program it prints its pty, or with a number listens on that TCP
port, and then prints each page it takes.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class HungUp(Exception):
    """One of the two has."""


@dataclass
class Terminal:
    """Takes pages from one caller after the other; the first attributes may be changed at any time."""

    password: str = ""
    login_naks: int = 0  # ask for the login again so often
    block_naks: int = 0  # ask for a block again so often
    block_code: str = ""  # say so before the answer to a block ...
    block_answer: str = "\x06"  # ... which is this
    patience: int = 0  # ask for so often before the answer to a block
    patience_s: float = 0.2
    hang_up: str = ""  # at "login" or "block": ESC EOT; "drop" before it: without a word
    silent: str = ""  # at "call", "login", "go-ahead", "block" or "farewell": no answer
    junk: bytes = b""  # before everything it says
    octet_s: float = 0.0  # between the octets it says
    echo: bool = False
    parity: bool = False  # sends even parity in bit 8
    twice_s: float | None = None  # answers each block a second time, so much later
    xoff_s: float = 0.0  # hold the caller up so long in the middle of a block
    pages: list[tuple[str, ...]] = field(default_factory=list)  # fields
    blocks: list[bytes] = field(default_factory=list)  # as they came, from STX to the checksum
    heard: list[tuple[float, bytes]] = field(default_factory=list)  # monotonic; all that came
    on_page: Callable[[tuple[str, ...]], object] = field(default=lambda page: None)

    @contextlib.contextmanager
    def on_tcp(self, port: int = 0) -> Iterator[str]:
        """Listen on 127.0.0.1; gives the url."""
        with socket.create_server(("127.0.0.1", port)) as server:

            def serve(ending: int) -> None:
                while ending not in select.select([server.fileno(), ending], [], [])[0]:
                    with server.accept()[0] as caller:
                        self._serve(_Wire(caller.fileno(), ending, self))

            with _running(serve):
                yield f"tcp://127.0.0.1:{server.getsockname()[1]}"

    @contextlib.contextmanager
    def on_pty(self) -> Iterator[str]:
        """Open a pty; gives its path."""
        master, slave = pty.openpty()
        for end in (master, slave):
            tty.setraw(end)

        def serve(ending: int) -> None:
            while not select.select([ending], [], [], 0)[0]:
                self._serve(_Wire(master, ending, self))

        with _running(serve):
            yield os.ttyname(slave)
        os.close(master)
        os.close(slave)

    def _serve(self, wire: _Wire) -> None:
        with contextlib.suppress(HungUp, OSError):
            self._session(wire)

    # The caller's part and ours, in the order of section 3 of the specification.
    def _session(self, wire: _Wire) -> None:
        while wire.take() != 0x0D:
            continue
        if self.silent == "call":
            wire.swallow()
        wire.say("ID=")
        tries = 0
        while not self._let_in(wire):
            tries += 1
            if tries == 3:
                wire.say("\r507 THREE TIMES WRONG\r\x1b\x04\r")
                return
        if self.silent == "go-ahead":
            wire.swallow()
        wire.say("\x1b[p\r")
        kept: list[str] = []
        partial = False
        while True:
            first = wire.take()
            if first == 0x04:
                break
            if first != 0x02:
                continue
            body, control = self._block(wire)
            if control == 0:  # the sums differ
                wire.say("\r514 CHECKSUM\r\x15\r")
                continue
            if not self._answer(wire):
                kept, partial = [], False
                continue
            parts = body.split("\r")
            if partial:
                kept[-1] += parts.pop(0)
            kept += parts
            partial = control == 0x1F
            if not partial and kept[-1] == "":
                kept.pop()  # what follows the last CR
            if control == 0x03:
                self.pages.append(tuple(kept))
                self.on_page(tuple(kept))
                kept = []
            wire.say(self._words() + ("\x06\r\x06\r" if self.twice_s == 0.0 else "\x06\r"))
            if self.twice_s:
                time.sleep(self.twice_s)
                wire.say("\x06\r")
        if self.silent == "farewell":
            wire.swallow()
        wire.say("115 BYE\r\x1b\x04\r")

    def _let_in(self, wire: _Wire) -> bool:
        line = ""
        while not line.startswith("\x1b") or not line.endswith("\r"):
            octet = wire.take()
            line = chr(octet) if octet == 0x1B else line + chr(octet)
        self._maybe_leave(wire, "login")
        if self.login_naks:
            self.login_naks -= 1
            wire.say("\r\x15\r")
            return False
        if line != f"\x1bPG1{self.password}\r":
            wire.say("\r509 PASSWORD\r\x15\r")
            return False
        wire.say("110 1.8\rWELCOME TO THE TERMINAL\r\x06\r")
        return True

    def _block(self, wire: _Wire) -> tuple[str, int]:
        """Return the text of a block and what ended it; 0 where it was damaged."""
        octets = [0x02]
        while octets[-1] not in (0x03, 0x17, 0x1F):
            octets.append(wire.take())
            if len(octets) == 20 and self.xoff_s:
                wire.say("\x13")
                time.sleep(self.xoff_s)
                wire.say("\x11")
        given = bytes(wire.take() for _ in range(3))
        self.blocks.append(bytes(octets) + given)
        wire.take()
        digits = f"{sum(octets) & 0xFFF:03X}"
        wanted = bytes(b"0123456789:;<=>?"["0123456789ABCDEF".index(digit)] for digit in digits)
        text = "".join(map(chr, octets[1:-1]))
        return (text, octets[-1]) if given == wanted else (text, 0)

    def _answer(self, wire: _Wire) -> bool:
        """Whether the block is taken; if not, the caller has been told."""
        self._maybe_leave(wire, "block")
        for _ in range(self.patience):
            time.sleep(self.patience_s)
            wire.say("111 WAIT\r")
        if self.block_naks:
            self.block_naks -= 1
            wire.say("\r514 CHECKSUM\r\x15\r")
            return False
        if self.block_answer != "\x06":
            wire.say(self._words() + self.block_answer + "\r")
            return False
        return True

    def _words(self) -> str:
        return f"\r{self.block_code} SOME WORDS\r" if self.block_code else "\r"

    def _maybe_leave(self, wire: _Wire, at: str) -> None:
        if self.silent == at:
            wire.swallow()
        if self.hang_up == at:
            wire.say(self._words() + "\x1b\x04\r")
        if self.hang_up in {at, f"drop {at}"}:
            raise HungUp


class _Wire:
    def __init__(self, fd: int, ending: int, terminal: Terminal) -> None:
        self._fd, self._ending = fd, ending
        self._waiting = bytearray()
        self.terminal = terminal

    def take(self) -> int:
        if not self._waiting:
            if self._ending in select.select([self._fd, self._ending], [], [])[0]:
                raise HungUp
            self._waiting += os.read(self._fd, 1024)
            if not self._waiting:
                raise HungUp
            self.terminal.heard.append((time.monotonic(), bytes(self._waiting)))
            if self.terminal.echo:
                os.write(self._fd, self._waiting)
        return self._waiting.pop(0) & 0x7F

    def swallow(self) -> None:
        while True:
            self.take()

    def say(self, text: str) -> None:
        octets = self.terminal.junk + text.encode("ascii")
        if self.terminal.parity:
            octets = bytes(octet | (octet.bit_count() % 2) << 7 for octet in octets)
        if not self.terminal.octet_s:
            os.write(self._fd, octets)
            return
        for octet in octets:
            os.write(self._fd, bytes((octet,)))
            time.sleep(self.terminal.octet_s)


@contextlib.contextmanager
def _running(serve: Callable[[int], None]) -> Iterator[None]:
    ending, end = os.pipe()
    thread = threading.Thread(target=serve, args=(ending,), name="tap-terminal", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(end, b"x")
        thread.join()
        os.close(ending)
        os.close(end)


def main() -> None:
    """Serve by hand: on a pty, or on the TCP port that the first argument names."""
    terminal = Terminal(on_page=lambda page: print(*page, sep=": ", flush=True))  # noqa: T201  # a tool to run by hand
    with terminal.on_tcp(int(sys.argv[1])) if sys.argv[1:] else terminal.on_pty() as where:
        print(where, flush=True)  # noqa: T201  # a tool to run by hand
        threading.Event().wait()


if __name__ == "__main__":
    main()
