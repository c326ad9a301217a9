"""Calls over HTTP: push messages to telephones by an ntfy server, and a webhook for anything else.

Both are secondary: a telephone may be off, and most such servers need the internet.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import re
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from edge.channels import NtfySettings, WebhookSettings
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.line import printable

log = logging.getLogger(__name__)

_ANSWER_MOST_OCTETS = 1 << 18
_TRY_LATER = (408, 425, 429)
_NOT_ABOUT_THE_PAGE = (401, 403, 404, 405, 407)  # of ntfy, which makes a topic for whoever may write to it

_PRIORITY = {Urgency.EMERGENCY: 5, Urgency.HIGH: 4, Urgency.NORMAL: 3}
_POLL_EVERY_S = 5.0
_BEFORE_S = 600.0  # a button pressed so long before our start counts, as the call went out before too
_OPEN_S = 12 * 3600.0
_OPEN_MOST = 200
_MESSAGE_ID = re.compile(r"[A-Za-z0-9]{1,64}")


class _Unreached(Exception):
    """No whole answer; says why, without the address's path."""


class _Http:
    """One server, a connection for each request, all within ``timeout_s`` from connecting to the last octet.

    `http.client` and not urllib3, because a time-out of either is for one octet: a server that sends its
    headers an octet at a time would hold the channel for hours. Here the socket is shut down when time is up,
    and that takes the socket. Certificates are verified; redirects are not followed.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self._port = parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path
        self._query = f"?{parts.query}" if parts.query else ""
        self._timeout_s = timeout_s

    def connect(self) -> http.client.HTTPConnection:
        """Return an open connection; TLS is agreed on. Takes ``timeout_s`` for each of the host's addresses."""
        if self._tls is None:
            connection = http.client.HTTPConnection(self.host, self._port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self.host, self._port, timeout=self._timeout_s, context=self._tls
            )
        try:
            connection.connect()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            connection.close()
            raise _Unreached(f"{self.host} cannot be reached ({_why(error)})") from None
        return connection

    def request(
        self, method: str, path: str = "", *, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Return status and body of the answer; ``path`` is what comes after the address."""
        connection = self.connect()
        opened, late = connection.sock, threading.Event()  # http.client forgets its socket before the body is read

        def end() -> None:
            late.set()
            with contextlib.suppress(OSError):  # it ended just now
                socket.socket.shutdown(opened, socket.SHUT_RDWR)  # not TLS's own: another thread waits in there

        timer = threading.Timer(self._timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            connection.request(method, f"{self._path or '/'}{path}{self._query}", body or None, headers or {})
            response = connection.getresponse()
            data = response.read(_ANSWER_MOST_OCTETS + 1)
        except (OSError, http.client.HTTPException) as error:
            why = "time is up" if late.is_set() else _why(error)
            raise _Unreached(f"{self.host} does not answer ({why})") from None
        finally:
            timer.cancel()
            timer.join()
            connection.close()
        if late.is_set() or len(data) > _ANSWER_MOST_OCTETS:
            raise _Unreached(f"{self.host} gives an answer that is too long or too slow")
        return response.status, data


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else type(error).__name__  # the others quote the answer


def _secret(sink: str, secrets: Path, name: str) -> str:
    try:
        text = (secrets / name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SinkUnavailable(sink, f"secret {name} cannot be read ({type(error).__name__})") from None
    if not text.isprintable() or not text:
        raise SinkUnavailable(sink, f"secret {name} is not one line of text")
    return text


# -- ntfy -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Open:
    incident: str
    page_id: str
    since_s: float  # monotonic


class NtfySink:
    """An ntfy server, its topics as addresses, and a button by which a call is taken.

    Paths, headers and the JSON that comes back are as ntfy's documentation has them; no ntfy server was
    there to try them on. With ``replies_topic`` each call has a button "Taken", which posts the incident's code
    there; the telephones need to be allowed to write to it, and we to read it. Who can read a topic sees the
    calls, and who can write to the topic of replies can take them, so no topic is ever logged.
    """

    def __init__(self, name: str, settings: NtfySettings, secrets: Path) -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets
        self._http = _Http(settings.url.rstrip("/") + "/", settings.timeout_s)
        self._deaf = False
        self._open: dict[str, _Open] = {}  # by incident, the newest last
        self._since = str(int(time.time() - _BEFORE_S))  # or the id of the last message heard
        self._poll_s = 0.0

    def deliver(self, page: Page) -> None:
        """Publish ``page``; return once the server has it. Sending the same page again is safe.

        Raises:
            SinkUnavailable: the server is away or busy, or does not let us write.
            SinkRejected: it refuses this message, or there is no topic or no text.
        """
        if not page.to or not page.text.strip():
            raise SinkRejected(self.name, "a page needs a topic and a text")
        headers = {
            "Title": ("Drill: " if page.drill else "")
            + (f"room {printable(page.room)}" if page.room else "fallwatch"),
            "Priority": str(_PRIORITY[page.urgency]),
            "Tags": "white_check_mark" if page.cancel else "rotating_light",
            "Content-Type": "text/plain; charset=utf-8",
        }
        asks = bool(self._settings.replies_topic and page.incident) and not page.cancel and page.kind != "test"
        if asks:
            action = {
                "action": "http",
                "label": "Taken",
                "url": f"{self._settings.url.rstrip('/')}/{self._settings.replies_topic}",
                "method": "POST",
                "body": page.code,
                "clear": True,
            }
            headers["Actions"] = json.dumps([action])
            self._note_open(page)
        if page.cancel:
            self._open.pop(page.incident, None)
        status, _ = self._ask("POST", quote(page.to, safe=""), headers, page.text.encode())
        if not 200 <= status < 300:
            about_it = 400 <= status < 500 and status not in _TRY_LATER + _NOT_ABOUT_THE_PAGE
            kind = SinkRejected if about_it else SinkUnavailable
            raise kind(self.name, f"{self._http.host} answers HTTP {status}")

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the server says that it is healthy."""
        status, body = self._ask("GET", "v1/health", {}, b"")
        if status != 200 or not _object(body).get("healthy"):
            raise SinkUnavailable(self.name, f"{self._http.host} does not call itself healthy: HTTP {status}")

    def close(self) -> None:
        """Nothing is kept open."""

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Wait until ``wake`` can be read, the time is up, or a button was pressed; return what was pressed.

        The server is asked only while a call is open. One that does not answer may keep us for twice
        ``timeout_s`` of the settings, and is `check`'s business.
        """
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        left_s = self._poll_s - time.monotonic()
        if not self._open or not self._settings.replies_topic or left_s > timeout_s:
            poll.poll(timeout_s * 1000)
            return []
        if poll.poll(max(left_s, 0.0) * 1000):
            return []
        replies = self._pressed()
        self._poll_s = time.monotonic() + _POLL_EVERY_S
        return replies

    def _note_open(self, page: Page) -> None:
        now_s = time.monotonic()
        self._open.pop(page.incident, None)
        self._open[page.incident] = _Open(page.incident, page.page_id, now_s)
        oldest = next(iter(self._open.values()))
        if len(self._open) > _OPEN_MOST or now_s - oldest.since_s > _OPEN_S:
            del self._open[oldest.incident]

    def _pressed(self) -> list[Reply]:
        path = f"{quote(self._settings.replies_topic, safe='')}/json?poll=1&since={self._since}"
        try:
            status, body = self._ask("GET", path, {}, b"")
            reason = "" if status == 200 else f"HTTP {status}"
        except SinkUnavailable as error:
            reason = error.reason
        if reason and not self._deaf:
            log.warning("%s: cannot hear replies: %s", self.name, reason)
        self._deaf = bool(reason)
        if reason:
            return []
        replies = []
        for line in body.splitlines():
            message = _object(line)
            if message.get("event") != "message":
                continue
            if _MESSAGE_ID.fullmatch(str(message.get("id", ""))):
                self._since = str(message["id"])
            code = str(message.get("message", "")).strip().upper()
            fitting = [known for known in self._open.values() if known.incident[-3:].upper() == code]
            if fitting:
                known = self._open.pop(fitting[-1].incident)
                replies.append(Reply(known.page_id, known.incident, by=self.name, acknowledges=True))
        return replies

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self._settings.token_file:
            token = _secret(self.name, self._secrets, self._settings.token_file)
            headers = {**headers, "Authorization": f"Bearer {token}"}
        try:
            return self._http.request(method, path, headers=headers, body=body)
        except _Unreached as error:
            raise SinkUnavailable(self.name, str(error)) from None


def _object(octets: bytes) -> dict[str, object]:
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


# -- webhook --------------------------------------------------------------------------------------


class WebhookSink:
    """An address that is told of each call by POST; any answer 2xx takes it.

    The body is a JSON object: ``schema`` (1), ``page_id``, ``incident``, ``kind``, ``to``, ``text``,
    ``urgency`` (emergency, high or normal), ``cancel``, ``drill``. ``Idempotency-Key`` is the page's id. With
    ``secret_file`` the header ``X-Fallwatch-Signature`` is ``sha256=`` and the HMAC-SHA256 of the body, in hex.
    """

    def __init__(self, name: str, settings: WebhookSettings, secrets: Path) -> None:
        self.name = name
        self._settings = settings
        self._secrets = secrets
        self._http = _Http(settings.url, settings.timeout_s)

    def deliver(self, page: Page) -> None:
        """Post ``page``; return once the far end has said 2xx. Sending the same page again is safe.

        Raises:
            SinkUnavailable: no answer, or one that says nothing about the page.
            SinkRejected: the far end refuses it.
        """
        body = json.dumps(
            {
                "schema": 1,
                "page_id": page.page_id,
                "incident": page.incident,
                "kind": page.kind,
                "to": page.to,
                "text": page.text,
                "urgency": page.urgency.name.lower(),
                "cancel": page.cancel,
                "drill": page.drill,
            },
            separators=(",", ":"),
        ).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": quote(page.page_id, safe="/")}
        if self._settings.secret_file:
            key = _secret(self.name, self._secrets, self._settings.secret_file).encode()
            headers["X-Fallwatch-Signature"] = f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"
        try:
            status, _ = self._http.request("POST", headers=headers, body=body)
        except _Unreached as error:
            raise SinkUnavailable(self.name, str(error)) from None
        if not 200 <= status < 300:
            about_it = 400 <= status < 500 and status not in _TRY_LATER
            kind = SinkRejected if about_it else SinkUnavailable
            raise kind(self.name, f"{self._http.host} answers HTTP {status}")

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the far end takes a connection; nothing is asked of it."""
        if self._settings.secret_file:
            _secret(self.name, self._secrets, self._settings.secret_file)
        try:
            self._http.connect().close()
        except _Unreached as error:
            raise SinkUnavailable(self.name, str(error)) from None

    def close(self) -> None:
        """Nothing is kept open."""
