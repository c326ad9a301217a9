"""The care record: a FHIR R4 server, or a small store on this box.

Both take the very same outbox items (see `edge.sinks.fhir`) and both may be given an item any number
of times. Reasons and logs never carry an NHS number: whatever a server says is masked first.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlencode, urlsplit
from uuid import uuid4

from edge.core.incident import utc_text
from edge.journal import OutboxItem
from edge.settings import RecordSettings, Settings
from edge.sinks import SinkError, SinkRejected, SinkUnavailable
from edge.sinks.fhir import OWN_IDS, Capabilities, Resource, changed, search_token, without

log = logging.getLogger(__name__)

SINK = "record"
RECORD_FILE = "record.sqlite3"
ANSWER_MAX_BYTES = 8 << 20  # the capability statements of big servers are megabytes
BUSY_TIMEOUT_S = 5.0
TOKEN_MARGIN_S = 60.0
ASSERTION_LIFE_S = 240  # SMART allows five minutes
CLOCK_TRUST_S = 30.0  # a clock this far from the server's may be why a token was refused
UPDATE_TRIES = 3
PAGES_MOST = 50  # of one search
STUMBLES_KEPT = 100  # items whose stumbles are counted at once
STUMBLES_MOST = 10  # so often may a server that is otherwise well fail over one item before a person must look
RETRY_AFTER_MOST_S = 300.0  # whatever a server asks for, the record is not put off for longer
CAPABILITIES_LIFE_S = 900.0  # then a check reads them again
REASON_MAX_CHARS = 300
TRY_LATER = (401, 407, 408, 409, 425, 429)
ABOUT_THE_ITEM = (409, 500, 501)  # ... perhaps: 502 to 504 and the like are about the server
_STALE = (409, 412)
_LOCATION = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]+)?$")
_LONG_NUMBER = re.compile(r"\d(?:(?:[ -]|%20|\+)?\d){9,}")
_PATIENT = "Patient?identifier="
_TIMES = ("effectiveDateTime", "authoredOn", "sent", "date", "recorded")


class CareRecord(Protocol):
    """What the alarm service needs of a record."""

    def deliver(self, item: OutboxItem) -> None:
        """Write one item down; safe to repeat.

        Raises:
            SinkUnavailable: try again later.
            SinkRejected: a person must look.
        """

    def check(self) -> None:
        """Raise as `deliver` does if a delivery would fail now."""

    def close(self) -> None:
        """Let go of connections and files."""


def open_record(settings: Settings, secrets: Path, state: Path) -> FhirRecord | EmbeddedRecord:
    """Return the record the settings ask for; connects to nothing yet."""
    if settings.record.kind == "fhir-r4":
        return FhirRecord(settings.record, secrets)
    return EmbeddedRecord(state / RECORD_FILE)


def _unpack(item: OutboxItem) -> tuple[Resource, list[Resource], list[Resource]]:
    """Return an item's body, its bundle's entries and its updates."""
    try:
        body = json.loads(item.body)
        entries, updates = body["bundle"]["entry"], body["updates"]
        for entry in entries:
            request, resource = entry["request"], entry["resource"]
            create = request["method"] == "POST" and request["url"] == resource["resourceType"]
            if create:
                well = request["ifNoneExist"].startswith("identifier=")
            else:
                well = (
                    request["method"] == "PUT" and request["url"] == f"{resource['resourceType']}/{resource['id']}"
                )
            if not well or not isinstance(entry["fullUrl"], str):
                raise ValueError(request["method"])
        known = {entry["fullUrl"] for entry in entries}
        if any(update["entry"] not in known for update in updates):
            raise ValueError("update")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SinkRejected(SINK, f"{item.key} is no record item ({type(error).__name__})") from None
    return body, entries, updates


def _references(node: Any) -> Iterator[Resource]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


# -- a FHIR server ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Resource:
        """Return the body, or nothing if it is no JSON object: a proxy's page, say."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


class _Http:
    """A connection to each host: bounded in time and size, certificates verified, redirects not followed.

    An answer that drips a byte at a time is cut off like one that never comes. A server that asks for a pause
    (``Retry-After``) gets it, from whoever calls.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lines: dict[str, http.client.HTTPConnection] = {}
        self._quiet_until_s = 0.0
        self.clock_off_s = 0.0  # how far the server's clock was ahead of ours, by its last answer

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> _Answer:
        host = urlsplit(url).netloc
        if (left_s := self._quiet_until_s - time.monotonic()) > 0:
            raise SinkUnavailable(SINK, f"{host} asked us to wait", retry_after_s=left_s)
        try:
            answer = self._request(method, url, headers, body)
        except (http.client.HTTPException, OSError, ValueError) as error:
            self._hang_up(url)
            raise SinkUnavailable(SINK, f"{host}: {masked(str(error) or type(error).__name__)}") from None
        if (pause_s := _retry_after_s(answer)) is not None:
            self._quiet_until_s = time.monotonic() + pause_s
        if (server_s := _server_time_s(answer)) is not None:
            self._note_clock(server_s - time.time())
        return answer

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> _Answer:
        line = self._line(url)
        assert line.sock is not None
        # Time limits of a socket begin anew with each byte: this one does not.
        overdue = threading.Timer(self._timeout_s, _cut, (line.sock,))
        overdue.daemon = True
        overdue.start()
        try:
            began_s = time.monotonic()
            line.request(method, urlsplit(url)._replace(scheme="", netloc="").geturl(), body, dict(headers))
            response = line.getresponse()
            data = response.read(ANSWER_MAX_BYTES + 1)
        finally:
            overdue.cancel()
        if len(data) > ANSWER_MAX_BYTES or response.length or time.monotonic() - began_s >= self._timeout_s:
            raise TimeoutError("the answer is too long or too slow")
        return _Answer(response.status, response.headers, data)

    def _line(self, url: str) -> http.client.HTTPConnection:
        address = urlsplit(url)
        host = f"{address.scheme}://{address.netloc}"
        line = self._lines.get(host)
        # What is said before it is asked is the end of the line.
        if line is not None and line.sock is not None and select.select([line.sock], [], [], 0)[0]:
            line.close()
        if line is None:
            kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
            line = self._lines[host] = kind(address.netloc, timeout=self._timeout_s)
        if line.sock is None:
            line.connect()
        return line

    def _hang_up(self, url: str) -> None:
        address = urlsplit(url)
        if line := self._lines.pop(f"{address.scheme}://{address.netloc}", None):
            line.close()

    def _note_clock(self, off_s: float) -> None:
        if (abs(off_s) > CLOCK_TRUST_S) != (abs(self.clock_off_s) > CLOCK_TRUST_S):
            log.warning("the record's clock and ours are %.0f s apart", off_s)
        self.clock_off_s = off_s

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines.clear()


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)  # of TCP: TLS belongs to the thread that reads


class _Authorisation:
    """The ``Authorization`` header, fetched when needed and again when refused."""

    def __init__(self, record: RecordSettings, secrets: Path, http: _Http) -> None:
        self._record = record
        self._secrets = secrets
        self._http = http
        self._value = ""
        self._until_s = 0.0

    def headers(self) -> dict[str, str]:
        if self._record.auth == "none":
            return {}
        if time.monotonic() >= self._until_s:
            if self._record.auth == "bearer":
                token, life_s = self._secret(self._record.token_file), float("inf")
            else:
                token, life_s = self._ask()
            self._value = f"Bearer {token}"
            self._until_s = time.monotonic() + max(life_s - TOKEN_MARGIN_S, 0.0)
        return {"Authorization": self._value}

    def forget(self) -> None:
        self._until_s = 0.0

    def _secret(self, name: str) -> str:
        try:
            text = (self._secrets / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SinkUnavailable(SINK, f"secret {name} cannot be read ({type(error).__name__})") from None
        if not text:
            raise SinkUnavailable(SINK, f"secret {name} is empty")
        return text

    def _ask(self) -> tuple[str, float]:
        url, scope = self._token_endpoint()
        now_s = time.time()
        answer = self._exchange(url, scope, now_s)
        server_s = _server_time_s(answer)
        if answer.status in (400, 401) and server_s is not None and abs(server_s - now_s) > CLOCK_TRUST_S:
            # A box without a clock chip wakes up in the past, and its assertions are out of date at birth.
            log.warning("asking for an access token again, by the record's clock")
            answer = self._exchange(url, scope, server_s)
        grant = answer.json()
        token, life_s = grant.get("access_token"), grant.get("expires_in", 300)
        if answer.status != 200 or not isinstance(token, str) or not isinstance(life_s, int | float):
            error = masked(str(grant.get("error_description") or grant.get("error") or ""))
            reason = f"no access token: HTTP {answer.status} {error}".strip()
            raise SinkUnavailable(SINK, reason, retry_after_s=_retry_after_s(answer))
        return token, float(life_s)

    def _exchange(self, url: str, scope: str, now_s: float) -> _Answer:
        import jwt  # noqa: PLC0415 - only homes with SMART Backend Services pay for it

        record = self._record
        claims = {
            "iss": record.client_id,
            "sub": record.client_id,
            "aud": url,
            "jti": str(uuid4()),
            "exp": int(now_s) + ASSERTION_LIFE_S,
        }
        try:
            assertion = jwt.encode(
                claims,
                self._secret(record.key_file),
                algorithm=record.key_algorithm,
                headers={"kid": record.key_id} if record.key_id else None,
            )
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:  # by kind of wrong key
            reason = f"{record.key_file} is no private key for {record.key_algorithm} ({type(error).__name__})"
            raise SinkUnavailable(SINK, reason) from None
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return self._http.request("POST", url, headers, urlencode(form).encode())

    def _token_endpoint(self) -> tuple[str, str]:
        """Return where to ask and the scopes to ask for, in the dialect the server knows."""
        scope = self._record.scope or "system/*.crus"
        if self._record.token_url:
            return self._record.token_url, scope
        url = f"{self._record.base_url.rstrip('/')}/.well-known/smart-configuration"
        answer = self._http.request("GET", url, {"Accept": "application/json"})
        document = answer.json()
        endpoint = document.get("token_endpoint")
        if answer.status != 200 or not isinstance(endpoint, str):
            raise SinkUnavailable(SINK, f"no SMART configuration at the server: HTTP {answer.status}")
        if url.startswith("https:") and not endpoint.startswith("https:"):
            raise SinkUnavailable(SINK, f"the token endpoint {endpoint} is not safe: no TLS")
        capabilities = document.get("capabilities") or []
        if not self._record.scope and "permission-v1" in capabilities and "permission-v2" not in capabilities:
            scope = "system/*.read system/*.write"
        return endpoint, scope


class FhirRecord:
    """A FHIR R4 server, spoken to over HTTP.

    Patients are looked up and their literal ids sent, as not every server resolves conditional
    references, and none says whether it does. The look-up is a POST: the number stays out of URLs and so
    out of the logs of proxies. It is done for each item, as patients are merged and replaced.

    Wearable and room are creates of the same transaction, found by their identifiers: they cost no request of
    their own, and an id kept from yesterday might be one that somebody deleted.
    """

    def __init__(self, record: RecordSettings, secrets: Path) -> None:
        self._system = record.identifier_system
        self._base_url = record.base_url.rstrip("/")
        self._http = _Http(record.timeout_s)
        self._authorisation = _Authorisation(record, secrets, self._http)
        self._capabilities: Capabilities | None = None
        self._capabilities_until_s = 0.0
        self._unknown: frozenset[str] = frozenset()  # types that it does not name and refused
        self._stumbles: dict[str, int] = {}  # by item
        address = urlsplit(self._base_url)
        if address.scheme == "http" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
            log.warning("the record at %s is reached without TLS", address.netloc)

    def deliver(self, item: OutboxItem) -> None:
        """Write one item down; safe to repeat.

        Raises:
            SinkUnavailable: the server, the way to it or our credentials are not well.
            SinkRejected: the server refuses this item, or knows no such patient.
        """
        _, entries, updates = _unpack(item)
        try:
            with _fhir_expected():
                self._deliver(entries, updates)
        except _Stumbled as error:
            self._stumbled(item.key, error)
            raise
        self._stumbles.pop(item.key, None)

    def _stumbled(self, key: str, error: _Stumbled) -> None:
        """Refuse an item over which the server fails again and again, so that it does not hold up others."""
        tries = self._stumbles[key] = self._stumbles.pop(key, 0) + 1
        if tries >= STUMBLES_MOST:
            try:
                self.check()
            except SinkError:
                raise error from None  # it is not well: no reason to give up on the item
            del self._stumbles[key]
            raise SinkRejected(SINK, f"{error.reason} (the same at each of {tries} tries)") from None
        while len(self._stumbles) > STUMBLES_KEPT:
            del self._stumbles[next(iter(self._stumbles))]

    def _deliver(self, entries: list[Resource], updates: list[Resource]) -> None:
        capabilities = self.capabilities()
        if capabilities.obstacle:
            raise SinkUnavailable(SINK, capabilities.obstacle)
        own = {reference["reference"] for reference in _references(entries)}
        patients = {old: self.patient(old) for old in own if old.startswith(_PATIENT)}
        for reference in _references(entries):
            reference["reference"] = patients.get(reference["reference"], reference["reference"])
        entries = without(entries, capabilities.left_out | self._unknown)
        entries = [e for e in entries if e["request"]["method"] == "POST" or self._is_new(e, capabilities)]
        ids = self._create(without(entries, self._unknown), capabilities, tuple(patients))
        for update in updates:
            self._update(ids[update["entry"]], update, tuple(patients))

    def _create(
        self, entries: list[Resource], capabilities: Capabilities, private: tuple[str, ...]
    ) -> dict[str, str]:
        """Send what is not there yet; what a server does not name it may take all the same, or be spared."""
        unnamed = frozenset(e["resource"]["resourceType"] for e in entries) & set(OWN_IDS) - set(
            capabilities.types
        )
        try:
            return self._transact(entries, private)
        except SinkRejected:
            if not unnamed:
                raise
        ids = self._transact(without(entries, unnamed), private)
        self._leave_out(unnamed)
        return ids

    def _leave_out(self, types: frozenset[str]) -> None:
        self._unknown |= types
        log.warning("the record does not know %s: left out", ", ".join(sorted(types)))

    def check(self) -> None:
        """Raise as `deliver` does unless the server can take our entries and lets us read them."""
        if time.monotonic() >= self._capabilities_until_s:
            self._read_capabilities()
        if obstacle := self.capabilities().obstacle:
            raise SinkUnavailable(SINK, obstacle)
        with _fhir_expected():
            self.read_own()

    def read_own(self) -> None:
        """Raise `SinkUnavailable` or `SinkRejected` unless our own entries can be read."""
        query = urlencode({"identifier": f"{self._system}/incident|check", "_summary": "count"})
        answer = self._send("GET", f"Observation?{query}")
        if answer.status != 200 or answer.json().get("resourceType") != "Bundle":
            raise _refusal("reading our entries", answer)

    def reach(self) -> None:
        """Raise `SinkUnavailable` unless something answers at the server's address, credentials or not."""
        self._http.request("GET", f"{self._base_url}/metadata", {"Accept": "application/fhir+json"})

    def authorise(self) -> None:
        """Raise `SinkUnavailable` unless there is a token to send, where one is needed."""
        self._authorisation.headers()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @property
    def left_out(self) -> str:
        """What this server cannot be told, as far as known; empty if all is well."""
        known = self._capabilities.left_out if self._capabilities else frozenset()
        return " and ".join(sorted(known | self._unknown, reverse=True))

    @property
    def clock_off_s(self) -> float:
        """How far the server's clock is ahead of ours, by its last answer."""
        return self._http.clock_off_s

    def capabilities(self) -> Capabilities:
        """Return what the server says it can do, read once and remembered; `check` reads it anew now and then.

        Raises:
            SinkUnavailable: it does not say.
        """
        return self._capabilities or self._read_capabilities()

    def _read_capabilities(self) -> Capabilities:
        answer = self._send("GET", "metadata")
        try:
            capabilities = Capabilities.of(answer.json())
        except ValueError:
            reason = f"no capability statement at the server: HTTP {answer.status}"
            raise SinkUnavailable(SINK, reason, retry_after_s=_retry_after_s(answer)) from None
        if capabilities.left_out and capabilities != self._capabilities:
            log.warning(
                "the record takes no ids of ours: %s left out", " and ".join(sorted(capabilities.left_out))
            )
        # What is not as it should be may be put right at any time.
        well = not capabilities.obstacle and not capabilities.missing
        self._capabilities_until_s = time.monotonic() + (CAPABILITIES_LIFE_S if well else 0.0)
        self._capabilities = capabilities
        return capabilities

    def _send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> _Answer:
        url = f"{self._base_url}/{path}" if path else self._base_url
        for last in (False, True):
            sent = {"Accept": "application/fhir+json", **self._authorisation.headers(), **(headers or {})}
            answer = self._http.request(method, url, sent, body)
            if answer.status != 401 or last:
                break
            self._authorisation.forget()
        return answer

    def _is_new(self, entry: Resource, capabilities: Capabilities) -> bool:
        # Written once and never again: by then people may have added to it.
        kind = entry["resource"]["resourceType"]
        answer = self._send("GET", entry["request"]["url"])
        if answer.status in (200, 404, 410):
            return answer.status == 404
        refusal = _refusal(f"reading {kind}", answer)
        if kind in capabilities.types or not (isinstance(refusal, SinkRejected) or answer.status == 501):
            raise refusal
        self._leave_out(frozenset({kind}))
        return False

    def patient(self, reference: str) -> str:
        """Return the one Patient that ``Patient?identifier=...`` means, as ``Patient/id``.

        Raises:
            SinkUnavailable: the server, the way to it or our credentials are not well.
            SinkRejected: it has none, or several, or does not let us look.
        """
        with _fhir_expected():
            return self._patient(reference)

    def _patient(self, reference: str) -> str:
        token = unquote(reference.removeprefix(_PATIENT))
        form = urlencode({"identifier": token}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cache-Control": "no-cache"}
        answer = self._send("POST", "Patient/_search", form, headers)
        found = answer.json()
        if answer.status != 200 or found.get("resourceType") != "Bundle":
            raise _refusal("looking up the patient", answer, (reference,))
        # A server that does not know the parameter may answer with everybody.
        patients = [
            entry["resource"]
            for entry in found.get("entry", [])
            if entry.get("resource", {}).get("resourceType") == "Patient" and _has(entry["resource"], token)
        ]
        patients = [p for p in patients if p.get("active") is not False] or patients
        if len(patients) != 1:
            raise SinkRejected(SINK, f"{len(patients) or 'no'} patients with the resident's number in the record")
        return f"Patient/{patients[0]['id']}"

    def stays(self, ward: str) -> list[Resource]:
        """Return the open stays in a ward, given by name or id, with whom they are about and where.

        Raises:
            SinkUnavailable: the server, the way to it or our credentials are not well.
            SinkRejected: it has no such ward, or does not let us look.
        """
        with _fhir_expected():
            places = self._searched("Location", {"name": ward}) or self._searched("Location", {"_id": ward})
            if not places:
                raise SinkRejected(SINK, f"the record has no location {ward!r}")
            inside = [f"Location/{place['id']}" for place in places]
            inside += [f"Location/{p['id']}" for p in self._searched("Location", {"partof": ",".join(inside)})]
            query: dict[str, str | list[str]] = {
                "location": ",".join(inside),
                "status": "in-progress",
                "_include": ["Encounter:subject", "Encounter:location"],
            }
            return self._searched("Encounter", query)

    def _searched(self, kind: str, query: Mapping[str, str | list[str]]) -> list[Resource]:
        """Return all that a search finds, page by page."""
        path, found = f"{kind}?{urlencode({'_count': '200', **query}, doseq=True)}", list[Resource]()
        for _ in range(PAGES_MOST):
            answer = self._send("GET", path)
            bundle = answer.json()
            if answer.status != 200 or bundle.get("resourceType") != "Bundle":
                raise _refusal(f"searching {kind}", answer)
            found += [entry["resource"] for entry in bundle.get("entry", []) if "resource" in entry]
            more = next((link["url"] for link in bundle.get("link", []) if link.get("relation") == "next"), "")
            if not more.startswith(f"{self._base_url}/"):  # none, or one to which our token must not go
                return found
            path = more.removeprefix(f"{self._base_url}/")
        raise SinkRejected(SINK, f"it has more than {PAGES_MOST} pages of {kind}")

    def _transact(self, entries: list[Resource], private: tuple[str, ...]) -> dict[str, str]:
        """Send all entries as one; return what each of them is called at the server."""
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        headers = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
        answer = self._send("POST", "", json.dumps(bundle, separators=(",", ":")).encode(), headers)
        result = answer.json()
        if answer.status != 200 or result.get("resourceType") != "Bundle":
            several = "the record has more than one entry with our identifier"
            raise _refusal(several if answer.status == 412 else "writing the transaction", answer, private)
        taken = result.get("entry", [])
        ids = {}
        for entry, done in zip(entries, taken, strict=False):
            response, resource = done.get("response", {}), done.get("resource") or {}
            where = _LOCATION.search(response.get("location") or "")
            if str(response.get("status", "")).startswith("2") and where:
                ids[entry["fullUrl"]] = f"{where[1]}/{where[2]}"
            elif str(response.get("status", "")).startswith("2") and "id" in resource:
                ids[entry["fullUrl"]] = f"{resource['resourceType']}/{resource['id']}"
        if len(ids) != len(entries):
            raise SinkRejected(SINK, f"the server answered for {len(ids)} of {len(entries)} entries")
        return ids

    def _update(self, path: str, update: Resource, private: tuple[str, ...]) -> None:
        kind = path.partition("/")[0]
        for _ in range(UPDATE_TRIES):
            answer = self._send("GET", path, headers={"Cache-Control": "no-cache"})
            resource = answer.json()
            if answer.status != 200 or resource.get("resourceType") != kind:
                raise _refusal(f"reading {kind}", answer, private)
            new = changed(resource, update)
            if new == resource:
                return
            version = resource.get("meta", {}).get("versionId")
            etag = f'W/"{version}"' if version else answer.headers.get("ETag")
            headers = {"Content-Type": "application/fhir+json", **({"If-Match": etag} if etag else {})}
            answer = self._send("PUT", path, json.dumps(new, separators=(",", ":")).encode(), headers)
            if answer.status in (200, 201):
                return
            if answer.status not in _STALE:
                raise _refusal(f"updating {kind}", answer, private)
        raise SinkRejected(SINK, f"{kind} was changed by somebody else at each of {UPDATE_TRIES} tries")


@contextlib.contextmanager
def _fhir_expected() -> Iterator[None]:
    """Turn what breaks on a malformed answer into a refusal: the worker must live on."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SinkRejected(SINK, f"the server's answer is not FHIR ({type(error).__name__})") from error


def _has(resource: Resource, token: str) -> bool:
    return any(
        search_token(i.get("system", ""), i.get("value", "").replace(" ", "")) == token.replace(" ", "")
        for i in resource.get("identifier", [])
    )


class _Stumbled(SinkUnavailable):
    """The server failed, perhaps over this very item."""


def _retry_after_s(answer: _Answer) -> float | None:
    """Return for how long a server that refused us asks to be left alone; None where it does not."""
    text = answer.headers.get("Retry-After", "").strip()
    if answer.status < 400 or not text:
        return None
    try:
        # By its own clock, where it is told by the clock.
        wait_s = (
            float(text)
            if text.isdigit()
            else parsedate_to_datetime(text).timestamp() - (_server_time_s(answer) or time.time())
        )
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MOST_S)


def _server_time_s(answer: _Answer) -> float | None:
    try:
        moment = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    return moment.timestamp()


def masked(text: str, private: tuple[str, ...] = ()) -> str:
    """Return a text for logs and reasons: one line, not long, without NHS numbers or those in ``private``."""
    for reference in private:
        for number in (reference.rpartition("|")[2], unquote(reference.rpartition("|")[2])):
            text = text.replace(number, "***")
    return " ".join(_LONG_NUMBER.sub("***", text).split())[:REASON_MAX_CHARS]


def _refusal(doing: str, answer: _Answer, private: tuple[str, ...] = ()) -> SinkUnavailable | SinkRejected:
    """Return what to raise for an answer that is not what was hoped for."""
    issues = answer.json().get("issue") or []
    said = "; ".join(
        str(issue.get("diagnostics") or issue.get("details", {}).get("text") or issue.get("code", ""))
        for issue in issues
        if isinstance(issue, dict)
    )
    reason = masked(f"{doing}: HTTP {answer.status} {said}", private)
    if 400 <= answer.status < 500 and answer.status not in TRY_LATER:
        return SinkRejected(SINK, reason)
    # A redirect, or a page of some proxy instead of FHIR, says nothing about the item.
    unavailable = _Stumbled if answer.status in ABOUT_THE_ITEM else SinkUnavailable
    return unavailable(SINK, reason, retry_after_s=_retry_after_s(answer))


# -- a store on this box ------------------------------------------------------------------------

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
    incident TEXT NOT NULL, room TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (type, id, version));
CREATE TABLE IF NOT EXISTS identifier (
    type TEXT NOT NULL, token TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (type, token));
"""


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """One resource of the embedded record, as it stands now."""

    type: str
    id: str
    version: int
    at: str  # when it happened, UTC; empty for things and places
    incident: str
    room: str
    text: str
    status: str


class EmbeddedRecord:
    """Keep the record in SQLite: every version of every resource, one transaction per item.

    A file that is no longer readable is moved aside and a new one begun: tonight's fall must be
    written down. ``moved_aside`` then says where the old one is.

    Args:
        path: the database file.
        read_only: only `entries` and `check` work, and the file is left as it is: for looking on.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.moved_aside: Path | None = None
        self._read_only = read_only
        self._db: sqlite3.Connection | None = None

    def deliver(self, item: OutboxItem) -> None:
        """Write one item down; safe to repeat.

        Raises:
            SinkUnavailable: the disk is full or the file cannot be written now.
            SinkRejected: the item is not made as ours are.
        """
        body, entries, updates = _unpack(item)
        with self._transaction() as db:
            ids: dict[str, str] = {}
            for entry in entries:
                kind = entry["resource"]["resourceType"]
                ids[entry["fullUrl"]] = f"{kind}/{_known_id(db, entry) or _new_id(entry)}"
            for entry in entries:
                if _known_id(db, entry) is None:
                    resource = entry["resource"]
                    for reference in _references(resource):
                        if reference["reference"].startswith("urn:"):
                            reference["reference"] = _named(ids, reference["reference"], item)
                    self._create(db, entry, resource, body)
            for update in updates:
                kind, _, resource_id = ids[update["entry"]].partition("/")
                old = _current(db, kind, resource_id)
                new = changed(old, update)
                if new != old:
                    _insert(db, new, body)

    def entries(self) -> list[RecordEntry]:
        """Return all resources as they stand, oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT type, id, version, incident, room, body FROM resource AS r WHERE version ="
                " (SELECT max(version) FROM resource WHERE type = r.type AND id = r.id) ORDER BY"
                " (SELECT min(seq) FROM resource WHERE type = r.type AND id = r.id)"
            ).fetchall()
        return [_entry(row) for row in rows]

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the file can be written."""
        with self._transaction() as db:
            db.execute("SELECT count(*) FROM identifier").fetchone()

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._begin()
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            if _is_corrupt(error):
                self._move_aside(error)
            self.close()
            raise SinkUnavailable(SINK, f"{self.path}: {error}") from None

    def _begin(self) -> sqlite3.Connection:
        if self._db is not None and not self.path.exists():
            log.error("the care record %s was taken away; a new one is begun", self.path)
            self.close()  # it would go on writing into a file without a name
        for last in (False, True):
            try:
                if self._db is None:
                    self._db = self._connect()
                self._db.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
                return self._db
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if last or not _is_corrupt(error) or self._read_only:
                    raise
                self._move_aside(error)
        raise AssertionError

    def _connect(self) -> sqlite3.Connection:
        if not self._read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds NHS numbers
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={'ro' if self._read_only else 'rw'}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,  # opened by one thread, then owned by the sink's worker
        )
        try:
            if not self._read_only:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise _Corrupt(verdict)
                db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _move_aside(self, error: Exception) -> None:
        if self._read_only:
            return
        self.close()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{self.path}.corrupt-{stamp}{suffix}")
        self.moved_aside = Path(f"{self.path}.corrupt-{stamp}")
        log.error("the care record was unreadable (%s): kept as %s, a new one is begun", error, self.moved_aside)

    @staticmethod
    def _create(db: sqlite3.Connection, entry: Resource, resource: Resource, body: Resource) -> None:
        resource["id"] = _new_id(entry)
        if entry["request"]["method"] == "POST":
            db.execute(
                "INSERT INTO identifier (type, token, id) VALUES (?, ?, ?)",
                (resource["resourceType"], _token(entry), resource["id"]),
            )
        shared = resource["resourceType"] in ("Device", "Location")
        _insert(db, resource, {"incident": "", "room": ""} if shared else body)


class _Corrupt(sqlite3.DatabaseError):
    """The file's own check failed."""


def _is_corrupt(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # A damaged schema is quoted in the message, which then is no UTF-8.
    return isinstance(error, _Corrupt | UnicodeDecodeError) or code in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def _token(entry: Resource) -> str:
    return unquote(entry["request"]["ifNoneExist"].removeprefix("identifier="))


def _new_id(entry: Resource) -> str:
    return str(entry["fullUrl"]).rpartition(":")[2]


def _known_id(db: sqlite3.Connection, entry: Resource) -> str | None:
    kind = entry["resource"]["resourceType"]
    if entry["request"]["method"] == "PUT":
        row = db.execute("SELECT id FROM resource WHERE type = ? AND id = ?", (kind, _new_id(entry))).fetchone()
    else:
        row = db.execute(
            "SELECT id FROM identifier WHERE type = ? AND token = ?", (kind, _token(entry))
        ).fetchone()
    return None if row is None else str(row[0])


def _named(ids: Mapping[str, str], reference: str, item: OutboxItem) -> str:
    if reference not in ids:
        raise SinkRejected(SINK, f"{item.key} refers to what it does not bring along")
    return ids[reference]


def _current(db: sqlite3.Connection, kind: str, resource_id: str) -> Resource:
    row = db.execute(
        "SELECT body FROM resource WHERE type = ? AND id = ? ORDER BY version DESC LIMIT 1", (kind, resource_id)
    ).fetchone()
    resource: Resource = json.loads(row[0])
    return resource


def _insert(db: sqlite3.Connection, resource: Resource, body: Resource) -> None:
    kind, resource_id = resource["resourceType"], resource["id"]
    row = db.execute("SELECT max(version) FROM resource WHERE type = ? AND id = ?", (kind, resource_id)).fetchone()
    version = (row[0] or 0) + 1
    resource["meta"] = {
        **resource.get("meta", {}),
        "versionId": str(version),
        "lastUpdated": utc_text(datetime.now(UTC)),
    }
    db.execute(
        "INSERT INTO resource (type, id, version, incident, room, body) VALUES (?, ?, ?, ?, ?, ?)",
        (kind, resource_id, version, body["incident"], body["room"], json.dumps(resource)),
    )


def _entry(row: tuple[str, str, int, str, str, str]) -> RecordEntry:
    kind, resource_id, version, incident, room, body = row
    resource = json.loads(body)
    at = next((resource[name] for name in _TIMES if name in resource), "")
    if not at and resource.get("note"):
        at = resource["note"][0].get("time", "")  # a page that did not go out
    text = resource.get("name") or resource.get("serialNumber") or ""
    for concept in (resource.get("code"), resource.get("event")):
        text = text or (concept or {}).get("text", "")
    if resource.get("payload"):
        text = resource["payload"][0].get("contentString", "")
    if resource.get("agent"):
        text = resource["agent"][0]["type"]["coding"][0]["code"]
    return RecordEntry(kind, resource_id, version, at, incident, room, text, resource.get("status", ""))
