"""Calls to an alarm receiving centre by SCAIP (SS 91100:2014, CLC/TS 50134-9:2018).

A call is a SIP MESSAGE (RFC 3261, RFC 3428) with a small XML document, ``<mrq>``. The centre's SIP side answers
200 OK, which only says that it came; the centre itself answers with a MESSAGE of its own, whose ``<mrs>``
carries our reference and a status (0: accepted), and which we answer with 200 OK in turn.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets as randomness
import select
import socket
import ssl
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from edge.channels import ScaipSettings
from edge.sinks import Page, Reply, SinkError, SinkRejected, SinkUnavailable
from edge.sinks.line import printable
from edge.sinks.sms import masked

log = logging.getLogger(__name__)

SHIPPED_CODES = Path(__file__).with_name("scaip_codes.toml")
MAX_MESSAGE_OCTETS = 65_536
_MRS_MOST_OCTETS = 16_384
_TEXT_MOST = 128
_REASON_MOST = 60
_T1_S, _T2_S, _TIMER_F_S = 0.5, 4.0, 32.0  # RFC 3261, 17.1.2.2
# The centre's SIP side finds fault with this message; whatever else it says may pass, or is for a person to mend.
_REFUSED = (400, 413, 415, 606)
_KINDS = ("fall", "long-lie", "help-button", "blind", "test", "heartbeat")
_SHORT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "l": "content-length", "c": "content-type"}
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6]\d\d)(?: (.*))?")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) \S+ SIP/2\.0")
_ORDER = ("ref", "ver", "mty", "cid", "dty", "did", "crd", "stc", "pri", "lco", "lte")  # as the standard has it


# -- the codes of a centre ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codes:
    """What a centre is told, as agreed with it; see ``scaip_codes.toml``."""

    by_kind: Mapping[str, Mapping[str, str]]
    cancel: str
    location: Mapping[str, str]
    refused: frozenset[int]


def load_codes(path: Path = SHIPPED_CODES) -> Codes:
    """Read a table of codes.

    Raises:
        ValueError: the file cannot be read, or something in it is missing or wrong; says which.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # neither text nor TOML
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from None
    by_kind = {kind: _group(table, kind, ("dty", "stc"), ("did", "pri")) for kind in _KINDS}
    cancel = _group(table, "cancel", ("stc",))
    location = _group(table, "location")
    answers = table.pop("answers", {})
    refused = answers.get("refused", []) if isinstance(answers, dict) else None
    if not isinstance(refused, list) or not all(type(snu) is int and snu > 0 for snu in refused):
        raise ValueError("answers.refused: use a list of numbers above 0")
    if table:
        raise ValueError(f"{next(iter(table))}: not known here")
    return Codes(by_kind, cancel["stc"], location, frozenset(refused))


_FORMS = {"dty": r"\d{4}", "did": r"\d{1,16}", "stc": r"\d{1,4}", "pri": r"\d"}


def _group(
    table: dict[str, Any], name: str, needed: tuple[str, ...] = (), allowed: tuple[str, ...] = ()
) -> dict[str, str]:
    group = table.pop(name, {})
    if not isinstance(group, dict):
        raise ValueError(f"{name}: write [{name}]")
    for key in needed:
        if key not in group:
            raise ValueError(f"{name}.{key}: is missing")
    for key, value in group.items():
        if name != "location" and key not in needed + allowed:
            raise ValueError(f"{name}.{key}: not known here")
        if not (isinstance(value, str) and re.fullmatch(_FORMS.get(key, r"\d{3}"), value, re.ASCII)):
            raise ValueError(f"{name}.{key}: {value!r} is no such code; write it in quotes")
    return group


# -- what is said ---------------------------------------------------------------------------------


def reference(page_id: str) -> str:
    """Return what tells this page from others at the centre: the same for the same page, 12 hex characters."""
    return hashlib.sha256(page_id.encode()).hexdigest()[:12].upper()


def mrq(page: Page, controller: str, codes: Codes, *, speech: str) -> bytes:
    """Write the document of a page: an alarm, or for a withdrawn call a reset."""
    said = dict(codes.by_kind["test" if page.drill else page.kind if page.kind in _KINDS else "fall"])
    if page.cancel:
        said["stc"] = codes.cancel
    location = codes.location.get(page.room, "")
    if not location and re.fullmatch(r"\d{1,3}", page.room, re.ASCII):
        location = page.room.zfill(3)
    text = printable(page.text, _TEXT_MOST)
    return _document(
        ref=reference(page.page_id),
        mty="RE" if page.cancel else "ME",
        cid=controller,
        crd=speech,
        lco=location,
        lte=text,
        **said,
    )


def heartbeat(controller: str, codes: Codes, *, ref: str, speech: str) -> bytes:
    """Write the document that asks whether the centre is there."""
    return _document(ref=ref, mty="PI", cid=controller, crd=speech, **codes.by_kind["heartbeat"])


def _document(**said: str) -> bytes:
    said["ver"] = "01.00"
    inside = "".join(f"<{name}>{escape(said[name])}</{name}>" for name in _ORDER if said.get(name))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<mrq>{inside}</mrq>'.encode()


@dataclass(frozen=True, slots=True)
class Mrs:
    """The centre's own answer."""

    ref: str
    status: int  # snu: 0 is accepted
    words: str = ""  # ste


def read_mrs(octets: bytes) -> Mrs | None:
    """Return the answer in a MESSAGE's body; None for anything else, so also without reference or status.

    Documents that define entities are not read at all: a small one can be made to mean gigabytes.
    """
    if len(octets) > _MRS_MOST_OCTETS:
        return None
    try:
        text = octets.decode("utf-8-sig")
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            return None
        root = ET.fromstring(text)  # noqa: S314 - small, and without entities
    except (ValueError, ET.ParseError):
        return None
    if _plain(root.tag) != "mrs":
        return None
    said = {_plain(child.tag): (child.text or "").strip() for child in root}
    if not said.get("ref") or not re.fullmatch(r"\d{1,4}", said.get("snu", ""), re.ASCII):
        return None
    return Mrs(said["ref"], int(said["snu"]), masked(printable(said.get("ste", "")))[:_REASON_MOST])


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


# -- SIP ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SipMessage:
    """A request or a response: its first line, its headers in order with names in lower case, its body."""

    first: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return the first header of a name, or nothing."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def status(self) -> int:
        """The status of a response; 0 for a request."""
        found = _STATUS_LINE.fullmatch(self.first)
        return int(found[1]) if found else 0

    @property
    def method(self) -> str:
        """The method of a request; nothing for a response."""
        found = _REQUEST_LINE.fullmatch(self.first)
        return found[1] if found else ""

    def encode(self) -> bytes:
        """Write the message as it goes over the line."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + self.body


class SipDecoder:
    """Turn a stream's octets into messages; any split of it gives the same.

    Raises:
        ValueError: from `feed`, when what comes is no SIP or has no end; what follows cannot be read either.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[SipMessage]:
        """Take any number of octets and return the messages that they complete."""
        self._held += data
        messages = []
        while True:
            kept = self._held.lstrip(b"\r\n")  # between messages: a far end that keeps the connection alive
            head, end, rest = kept.partition(b"\r\n\r\n")
            if not end:
                self._held = kept
                break
            message = _parse_head(bytes(head))
            length = message.header("content-length")
            if not re.fullmatch(r"\d{1,5}", length, re.ASCII):
                raise ValueError("a message without its length")
            if len(rest) < int(length):
                break
            messages.append(SipMessage(message.first, message.headers, bytes(rest[: int(length)])))
            self._held = rest[int(length) :]
        if len(self._held) > 2 * MAX_MESSAGE_OCTETS:
            raise ValueError("a message without end")
        return messages


def decode_datagram(octets: bytes) -> SipMessage | None:
    """Read a datagram; None for what is no SIP message, or is cut short."""
    head, end, body = octets.partition(b"\r\n\r\n")
    try:
        message = _parse_head(head)
    except ValueError:
        return None
    length = message.header("content-length")
    if not end or (length and (not re.fullmatch(r"\d{1,5}", length, re.ASCII) or int(length) > len(body))):
        return None
    return SipMessage(message.first, message.headers, body[: int(length)] if length else body)


def _parse_head(octets: bytes) -> SipMessage:
    first, *lines = octets.decode("utf-8", "replace").split("\r\n")
    if not (_STATUS_LINE.fullmatch(first) or _REQUEST_LINE.fullmatch(first)):
        raise ValueError("this is no SIP")
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and headers:  # folded: it goes on from the line before
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a header without a name")
        name = name.strip().lower()
        headers.append((_SHORT.get(name, name), value.strip()))
    return SipMessage(first, tuple(headers))


def response_to(request: SipMessage, status: int, reason: str) -> SipMessage:
    """Return the response to a request, with what must be sent back of it (RFC 3261, 8.2.6.2)."""
    back = []
    for name, value in request.headers:
        if name == "to" and ";tag=" not in value.lower():
            value = f"{value};tag={randomness.token_hex(4)}"  # noqa: PLW2901 - of this header
        if name in {"via", "from", "to", "call-id", "cseq"}:
            back.append((name.title().replace("Id", "ID").replace("Cseq", "CSeq"), value))
    return SipMessage(f"SIP/2.0 {status} {reason}", tuple(back))


def via_address(via: str, source: tuple[str, int]) -> tuple[str, int]:
    """Return where the response to a datagram goes: where it came from if ``rport`` asks, else to Via's port."""
    if re.search(r";\s*rport\b", via, re.IGNORECASE):
        return source
    sent_by = re.match(r"SIP/2\.0/\w+\s+(?:\[[^\]]*\]|[^:;\s]+)(?::(\d{1,5}))?", via, re.IGNORECASE)
    port = int(sent_by[1]) if sent_by and sent_by[1] else 5060
    return source[0], port if 0 < port < 65536 else source[1]


class _Udp:
    """One socket for what we send and what the centre sends; everything raises `OSError`."""

    def __init__(self, settings: ScaipSettings) -> None:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)
        family, self._far = found[0][0], found[0][4]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # which of our addresses faces the centre
            probe.connect(self._far)
            host = str(probe.getsockname()[0])
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.socket.bind((host, settings.local_port))
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            raise
        self.local = _host_port(host, self.socket.getsockname()[1])
        self._source: tuple[Any, ...] = self._far  # of what was received last

    def send(self, octets: bytes) -> None:
        self.socket.sendto(octets, self._far)

    def answer(self, request: SipMessage, octets: bytes) -> None:
        host, port = via_address(request.header("via"), (self._source[0], self._source[1]))
        self.socket.sendto(octets, (host, port, *self._source[2:]))

    def receive(self) -> list[SipMessage]:
        octets, self._source = self.socket.recvfrom(MAX_MESSAGE_OCTETS)
        message = decode_datagram(octets)
        return [] if message is None else [message]


class _Stream:
    """A connection, over which the centre answers too; everything raises `OSError`."""

    def __init__(self, settings: ScaipSettings, timeout_s: float) -> None:
        opened = socket.create_connection((settings.host, settings.port), timeout=timeout_s)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if settings.transport == "tls":
                context = ssl.create_default_context(cafile=settings.ca_file or None)
                opened = context.wrap_socket(opened, server_hostname=settings.host)
            self.local = _host_port(*opened.getsockname()[:2])
        except OSError:
            opened.close()
            raise
        self.socket = opened
        self._timeout_s = timeout_s
        self._decoder = SipDecoder()

    def send(self, octets: bytes) -> None:
        self.socket.settimeout(self._timeout_s)
        self.socket.sendall(octets)

    def answer(self, _request: SipMessage, octets: bytes) -> None:
        self.send(octets)

    def receive(self) -> list[SipMessage]:
        self.socket.setblocking(False)
        data = b""
        try:
            data = self.socket.recv(4096)
            while isinstance(self.socket, ssl.SSLSocket) and (left := self.socket.pending()):
                data += self.socket.recv(left)  # select does not see what TLS holds already
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return []
        if not data:
            raise ConnectionResetError("the centre hung up")
        try:
            return self._decoder.feed(data)
        except ValueError as error:
            raise ConnectionResetError(f"what it says is no SIP: {error}") from None


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- the sink -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Exchange:
    """One request of ours, and what has come back for it."""

    ref: str
    branch: str = field(default_factory=lambda: f"z9hG4bK{randomness.token_hex(8)}")
    status: int = 0  # of the SIP side's final response
    proceeding: bool = False  # it said that it works on it
    mrs: Mrs | None = None
    others: int = 0  # answers of the centre to something else


class ScaipSink:
    """An alarm receiving centre; the socket is kept open, so that the centre's messages find us.

    A call takes at most twice ``answer_wait_s``, once for SIP and once for the centre's own answer. Over TCP and
    TLS connecting takes that long too, for each address of the host's name, and a kept connection that breaks
    during the call costs once more SIP's time. There the centre has to answer on the connection that we opened.
    A centre that wants a login (Digest) cannot be called.

    Args:
        name: the channel's.
        settings: where the centre is, and who we are to it.
        secrets: the folder beside which a relative ``codes_file`` is, unless ``codes`` says otherwise.
        codes: the table of codes. One that cannot be used is told by `check`, and calls go out with the
            shipped table.
    """

    def __init__(self, name: str, settings: ScaipSettings, secrets: Path, *, codes: Path | None = None) -> None:
        self.name = name
        self._settings = settings
        self._wrong_codes = ""
        if codes is None and settings.codes_file:
            codes = secrets.parent / settings.codes_file
        try:
            self._codes = load_codes(codes or SHIPPED_CODES)
        except ValueError as error:
            self._wrong_codes = f"codes_file: {error}"
            self._codes = load_codes()
            log.error("%s: %s; the shipped codes are used", name, self._wrong_codes)
        self._line: _Udp | _Stream | None = None
        self._call = 0

    def deliver(self, page: Page) -> None:
        """Send ``page``; return once the centre has accepted it. The same page again has the same reference.

        Raises:
            SinkUnavailable: the centre is away, busy or wants a login, or did not answer for this page.
            SinkRejected: it refuses the page.
        """
        if not page.text.strip():
            raise SinkRejected(self.name, "a page needs a text")
        speech = self._settings.speech
        document = mrq(page, self._settings.controller, self._codes, speech=speech)
        self._tell(_Exchange(reference(page.page_id)), document)

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the centre answers a heartbeat, and our codes can be used."""
        ref = randomness.token_hex(6).upper()
        document = heartbeat(self._settings.controller, self._codes, ref=ref, speech=self._settings.speech)
        try:
            self._tell(_Exchange(ref), document)
        except SinkRejected as error:
            raise SinkUnavailable(self.name, error.reason) from None
        if self._wrong_codes:
            raise SinkUnavailable(self.name, self._wrong_codes)

    def close(self) -> None:
        """Hang up; the next call connects again."""
        line, self._line = self._line, None
        if line is not None:
            line.socket.close()

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Wait until ``wake`` can be read or the time is up; say 200 OK to what the centre sends late or again."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self._line is not None:
            poll.register(self._line.socket, select.POLLIN)
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            ready = poll.poll(left_s * 1000)
            if not ready or any(descriptor == wake for descriptor, _ in ready):
                break
            assert self._line is not None
            try:
                self._hear(self._line, _Exchange(""))
            except OSError as error:
                log.info("%s: %s", self.name, error)
                poll.unregister(self._line.socket)
                self.close()
            time.sleep(0.01)  # a centre that babbles costs little
        return []

    def _tell(self, exchange: _Exchange, document: bytes) -> None:
        """Send a document and wait for the centre's answer to it."""
        kept = self._line is not None and self._settings.transport != "udp"
        try:
            self._try(exchange, document)
        except OSError as error:
            self.close()
            if kept and not exchange.status and not isinstance(error, TimeoutError):
                self._tell(_Exchange(exchange.ref), document)  # it had ended while it was idle; a new one may do
                return
            raise SinkUnavailable(self.name, f"{self._settings.host}: {error}") from None
        problem = self._problem(exchange)
        if problem is not None:
            if exchange.mrs is None and exchange.status == 0:
                self.close()  # no sign of life: the next call looks up the host anew
            raise problem

    def _try(self, exchange: _Exchange, document: bytes) -> None:
        wait_s = min(self._settings.answer_wait_s, _TIMER_F_S)
        try:
            line = self._line = self._line or self._open(wait_s)
        except UnicodeError as error:  # no name of a host
            raise OSError(str(error)) from None
        request = self._request(line.local, exchange, document)
        line.send(request)
        until_s = time.monotonic() + wait_s
        again_in_s = _T1_S
        again_s = time.monotonic() + again_in_s
        answered = False
        while exchange.mrs is None and not exchange.status >= 300:
            now_s = time.monotonic()
            if exchange.status and not answered:  # its SIP side has it; now for the centre itself
                answered, until_s = True, now_s + self._settings.answer_wait_s
            if now_s >= until_s:
                return
            repeats = self._settings.transport == "udp" and not exchange.status
            if repeats and now_s >= again_s:
                line.send(request)
                again_in_s = _T2_S if exchange.proceeding else min(2 * again_in_s, _T2_S)
                again_s = now_s + again_in_s
            pause_s = min(until_s, again_s) - now_s if repeats else until_s - now_s
            if select.select([line.socket], [], [], max(pause_s, 0.0))[0]:
                self._hear(line, exchange)

    def _open(self, wait_s: float) -> _Udp | _Stream:
        if self._settings.transport == "udp":
            return _Udp(self._settings)
        return _Stream(self._settings, wait_s)

    def _request(self, local: str, exchange: _Exchange, document: bytes) -> bytes:
        settings = self._settings
        far = f"{settings.receiver}@" if settings.receiver else ""
        far += _host_port(settings.host, settings.port)
        uri = f"sip:{far}"
        self._call += 1
        # Over a stream the centre is to use this connection for its own requests too (RFC 5923).
        alias = "" if settings.transport == "udp" else ";alias"
        via = f"SIP/2.0/{settings.transport.upper()} {local};branch={exchange.branch};rport{alias}"
        headers = (
            ("Via", via),
            ("Max-Forwards", "70"),
            ("From", f"<sip:{settings.controller}@{local}>;tag={randomness.token_hex(4)}"),
            ("To", f"<{uri}>"),
            ("Call-ID", f"{randomness.token_hex(12)}@{local.rpartition(':')[0]}"),
            ("CSeq", f"{self._call} MESSAGE"),
            ("Content-Type", "application/scaip+xml"),
        )
        # The transport is said in the address, as without it a proxy may go on by UDP.
        transport = "" if settings.transport == "udp" else f";transport={settings.transport}"
        return SipMessage(f"MESSAGE {uri}{transport} SIP/2.0", headers, document).encode()

    def _hear(self, line: _Udp | _Stream, exchange: _Exchange) -> None:
        """Take in what has arrived, and answer what wants an answer."""
        try:
            messages = line.receive()
        except BlockingIOError:  # a datagram that was damaged on its way
            return
        for message in messages:
            if message.status:
                if f";branch={exchange.branch}" in f"{message.header('via')};" and exchange.status == 0:
                    exchange.proceeding = True
                    exchange.status = message.status if message.status >= 200 else 0
                continue
            if message.method == "ACK" or not all(
                message.header(name) for name in ("via", "from", "to", "call-id", "cseq")
            ):
                continue
            known = message.method in {"MESSAGE", "OPTIONS"}
            response = response_to(message, 200, "OK") if known else response_to(message, 501, "Not Implemented")
            line.answer(message, response.encode())
            answer = read_mrs(message.body) if message.method == "MESSAGE" else None
            if answer is not None and answer.ref == exchange.ref:
                exchange.mrs = answer
            elif answer is not None:
                exchange.others += 1

    def _problem(self, exchange: _Exchange) -> SinkError | None:
        """Return what to raise for how an exchange ended; None when the centre has accepted."""
        host, mrs, status = self._settings.host, exchange.mrs, exchange.status
        if mrs is not None:
            if mrs.status == 0:
                return None
            kind = SinkRejected if mrs.status in self._codes.refused else SinkUnavailable
            return kind(self.name, f"the centre answers {mrs.status} {mrs.words}".rstrip())
        if status in (401, 407):
            return SinkUnavailable(self.name, f"{host} wants a login, which this version does not have")
        if status >= 300:
            kind = SinkRejected if status in _REFUSED else SinkUnavailable
            return kind(self.name, f"{host} answers SIP {status}")
        if status == 0:
            return SinkUnavailable(self.name, f"{host} does not answer")
        other = f", only {exchange.others} times for another message" if exchange.others else ""
        return SinkUnavailable(self.name, f"{host} took the message, but the centre does not answer for it{other}")
