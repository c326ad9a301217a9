"""Pages to a paging server by SNPP (Simple Network Paging Protocol, RFC 1861), over TCP.

A command is one line of four letters and its words; the answer begins with three digits, 2xx for yes. Ours
are LOGI where the server wants it, PAGE, MESS (or DATA for a long text), ALER for emergencies, SEND, QUIT.
SNPP cannot withdraw a page: a cancelled call goes out as one more text that says so.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from edge.channels import SnppSettings
from edge.sinks import Page, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.line import printable
from edge.sinks.sms import masked

_MESS_MOST = 128  # characters; longer texts go by DATA
_TEXT_MOST = 1000
_ANSWER_MOST_OCTETS = 4096  # far above any real answer, continued lines included
_REASON_MOST = 80
_QUIT_WAIT_S = 1.0
_PAGER = re.compile(r"[!-~]{1,64}")
_ANSWER = re.compile(rb"(\d{3})([ -]?)(.*)", re.DOTALL)


class SnppSink:
    """One paging server; each page has a connection of its own.

    A call takes at most three times ``timeout_s`` once the host's name is known, ``timeout_s`` for each of
    the host's addresses that does not answer, and a second for the farewell.
    """

    def __init__(self, name: str, settings: SnppSettings, secrets: Path) -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the server says that it sent it. Sending the same page again is safe.

        Raises:
            SinkUnavailable: the server is away, out of order or busy, or does not know us.
            SinkRejected: it refuses the pager or the text.
        """
        to, text = page.to.strip(), " ".join(printable(page.text, _TEXT_MOST).split())
        if not _PAGER.fullmatch(to) or not text:
            raise SinkRejected(self.name, "a page needs a pager number without spaces and a text")
        with self._session() as server:
            server.need(f"PAGE {to}", rejects=True)
            if len(text) <= _MESS_MOST:
                server.need(f"MESS {text}", rejects=True)
            else:
                server.need("DATA", wanted=3)
                stuffed = f".{text}" if text.startswith(".") else text
                server.need(f"{stuffed}\r\n.", rejects=True, shown="the text")
            if page.urgency == Urgency.EMERGENCY:
                code, said = server.ask("ALER 1")
                if not (200 <= code < 300 or 500 <= code < 600):  # a server without alerts sends without
                    raise server.refusal("ALER", code, said)
            server.need("SEND", rejects=True)

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the server greets us, and knows us where it wants a login."""
        with self._session():
            pass

    def close(self) -> None:
        """Nothing is kept open."""

    @contextlib.contextmanager
    def _session(self) -> Iterator[_Server]:
        settings = self._settings
        login = self._login()
        try:
            opened = socket.create_connection((settings.host, settings.port), timeout=settings.timeout_s)
        except (OSError, UnicodeError) as error:
            raise SinkUnavailable(self.name, f"{settings.host} cannot be reached ({error})") from None
        with opened:
            server = _Server(self.name, settings.host, opened, settings.timeout_s)
            try:
                code, said = server.answer()
                if code != 220:
                    raise server.refusal("our call", code, said)
                if login:
                    server.need(login, shown="LOGI")
                yield server
                with contextlib.suppress(OSError, SinkUnavailable):  # what matters was answered before
                    server.wait_at_most(_QUIT_WAIT_S)
                    server.ask("QUIT")
            except OSError as error:
                raise SinkUnavailable(self.name, f"{settings.host} went away ({error})") from None

    def _login(self) -> str:
        settings = self._settings
        password = ""
        if settings.password_file:
            try:
                password = (self._secrets / settings.password_file).read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = f"secret {settings.password_file} cannot be read ({type(error).__name__})"
                raise SinkUnavailable(self.name, reason) from None
            if not _PAGER.fullmatch(password):
                raise SinkUnavailable(self.name, f"secret {settings.password_file} is no password for SNPP")
        return f"LOGI {settings.login} {password}".rstrip() if settings.login else ""


class _Server:
    """An open connection. Everything raises `OSError` once it is gone."""

    def __init__(self, sink: str, host: str, opened: socket.socket, timeout_s: float) -> None:
        self._sink = sink
        self._host = host
        self._socket = opened
        self._timeout_s = timeout_s
        self._until_s = time.monotonic() + 2 * timeout_s
        self._held = b""

    def wait_at_most(self, timeout_s: float) -> None:
        """Be done after so long."""
        self._until_s = time.monotonic() + timeout_s

    def need(self, line: str, *, wanted: int = 2, rejects: bool = False, shown: str = "") -> None:
        """Say a line and go on only if the answer begins with ``wanted``.

        Raises:
            SinkRejected: the answer is 550, and ``rejects`` says that this is about the page.
            SinkUnavailable: it is another one, or none.
        """
        code, said = self.ask(line)
        if code // 100 != wanted:
            refusal = self.refusal(shown or line[:4], code, said)
            raise SinkRejected(self._sink, refusal.reason) if rejects and code == 550 else refusal

    def refusal(self, what: str, code: int, said: str) -> SinkUnavailable:
        """Return what to raise for an answer that is not the hoped for."""
        return SinkUnavailable(self._sink, f"{self._host} answers {code} {said} to {what}".replace("  ", " "))

    def ask(self, line: str) -> tuple[int, str]:
        """Say a line and return the answer's code and words."""
        if self._held or self._pending():  # a goodbye; or an answer that must not pass for one to this line
            raise self.refusal("nothing", *self.answer())
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(line.encode("ascii") + b"\r\n")
        return self.answer()

    def answer(self) -> tuple[int, str]:
        """Return the next answer, however it arrives; waits at most ``timeout_s`` for the whole of it."""
        until_s = min(self._until_s, time.monotonic() + self._timeout_s)
        taken = 0
        while True:
            line, newline, rest = self._held.partition(b"\n")
            taken += len(line)
            if taken > _ANSWER_MOST_OCTETS:
                raise SinkUnavailable(self._sink, f"{self._host} answers without end")
            if newline:
                self._held = rest
                found = _ANSWER.fullmatch(line.strip())
                if found is None:
                    raise SinkUnavailable(self._sink, f"what answers at {self._host} speaks no SNPP")
                if found[2] != b"-":  # else it goes on in the next line
                    words = masked(printable(found[3].decode("latin-1"))).strip()
                    return int(found[1]), words[:_REASON_MOST]
                continue
            taken -= len(line)  # it will be counted once whole
            left_s = until_s - time.monotonic()
            if left_s <= 0:  # an octet now and then must not keep us for ever
                raise TimeoutError("no whole answer in time")
            self._socket.settimeout(left_s)
            data = self._socket.recv(1024)
            if not data:
                raise ConnectionResetError("it hung up")
            self._held += data

    def _pending(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True
