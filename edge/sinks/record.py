"""The care record: a FHIR R4 server, or a small store on this box.

Both take the very same outbox items (see `edge.sinks.fhir`) and both may be given an item any number
of times. Reasons and logs never carry an NHS number: whatever a server says is masked first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlencode, urlsplit
from uuid import uuid4

from edge.core.incident import utc_text
from edge.journal import OutboxItem
from edge.settings import RecordSettings, Settings
from edge.sinks import SinkRejected, SinkUnavailable
from edge.sinks.fhir import Resource, changed, search_token

if TYPE_CHECKING:
    import urllib3

log = logging.getLogger(__name__)

SINK = "record"
RECORD_FILE = "record.sqlite3"
ANSWER_MAX_BYTES = 8 << 20  # the capability statements of big servers are megabytes
BUSY_TIMEOUT_S = 5.0
TOKEN_MARGIN_S = 60.0
ASSERTION_LIFE_S = 240  # SMART allows five minutes
CLOCK_TRUST_S = 30.0  # a clock this far from the server's may be why a token was refused
UPDATE_TRIES = 3
REASON_MAX_CHARS = 300
_TRY_LATER = (401, 408, 425, 429)
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
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Resource:
        """Return the body, or nothing if it is no JSON object: a proxy's page, say."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


class _Http:
    """One connection pool: bounded in time and size, certificates verified, redirects not followed."""

    def __init__(self, timeout_s: float) -> None:
        import urllib3  # noqa: PLC0415 - homes without a record server do not pay for it

        self._error: type[Exception] = urllib3.exceptions.HTTPError
        self._timeout_s = timeout_s
        self._pool: urllib3.PoolManager = urllib3.PoolManager(timeout=timeout_s, retries=False)

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> _Answer:
        deadline_s = time.monotonic() + self._timeout_s
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, redirect=False, preload_content=False
            )
            try:
                data = bytearray()
                for chunk in response.stream(1 << 16):
                    data += chunk
                    if len(data) > ANSWER_MAX_BYTES or time.monotonic() > deadline_s:
                        raise SinkUnavailable(SINK, f"{urlsplit(url).netloc}: the answer is too long or too slow")
            except BaseException:
                response.close()  # what is left of this answer must not begin the next one
                raise
            response.release_conn()
        except (self._error, OSError) as error:
            raise SinkUnavailable(SINK, f"{urlsplit(url).netloc}: {_masked(str(error))}") from None
        return _Answer(response.status, response.headers, bytes(data))

    def close(self) -> None:
        self._pool.clear()


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
            log.warning("the record's clock and ours are %.0f s apart; asking again by theirs", server_s - now_s)
            answer = self._exchange(url, scope, server_s)
        grant = answer.json()
        token, life_s = grant.get("access_token"), grant.get("expires_in", 300)
        if answer.status != 200 or not isinstance(token, str) or not isinstance(life_s, int | float):
            error = _masked(str(grant.get("error_description") or grant.get("error") or ""))
            raise SinkUnavailable(SINK, f"no access token: HTTP {answer.status} {error}".strip())
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
    out of the logs of proxies.
    """

    def __init__(self, record: RecordSettings, secrets: Path) -> None:
        self._system = record.identifier_system
        self._base_url = record.base_url.rstrip("/")
        self._http = _Http(record.timeout_s)
        self._authorisation = _Authorisation(record, secrets, self._http)
        self._takes_our_ids: bool | None = None
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
        with _fhir_expected():
            self._deliver(entries, updates)

    def _deliver(self, entries: list[Resource], updates: list[Resource]) -> None:
        own = {reference["reference"] for reference in _references(entries)}
        patients = {old: self._patient(old) for old in own if old.startswith(_PATIENT)}
        for reference in _references(entries):
            reference["reference"] = patients.get(reference["reference"], reference["reference"])
        entries = [entry for entry in entries if entry["request"]["method"] == "POST" or self._is_new(entry)]
        ids = self._transact(entries, tuple(patients))
        for update in updates:
            self._update(ids[update["entry"]], update, tuple(patients))

    def check(self) -> None:
        """Raise as `deliver` does unless the server is R4 and lets us read our own entries."""
        with _fhir_expected():
            self._capabilities()
            query = urlencode({"identifier": f"{self._system}/incident|check", "_summary": "count"})
            answer = self._send("GET", f"Observation?{query}")
            if answer.json().get("resourceType") != "Bundle":
                raise _refusal("reading our entries", answer)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @property
    def left_out(self) -> str:
        """What this server cannot be told, once known; empty if all is well."""
        return "" if self._takes_our_ids is not False else "Provenance and AdverseEvent"

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

    def _capabilities(self) -> bool:
        if self._takes_our_ids is None:
            answer = self._send("GET", "metadata")
            statement = answer.json()
            if answer.status != 200 or statement.get("resourceType") != "CapabilityStatement":
                raise SinkUnavailable(SINK, f"no capability statement at the server: HTTP {answer.status}")
            version = str(statement.get("fhirVersion", ""))
            if not version.startswith("4."):
                raise SinkUnavailable(SINK, f"the server speaks FHIR {version or '?'}; R4 is needed")
            flags = [
                resource.get("updateCreate", False)
                for rest in statement.get("rest", [])
                for resource in rest.get("resource", [])
                if resource.get("type") in ("Provenance", "AdverseEvent")
            ]
            self._takes_our_ids = bool(flags) and all(flags)
            if not self._takes_our_ids:
                log.warning("the record takes no ids of ours: %s are left out", self.left_out)
        return self._takes_our_ids

    def _is_new(self, entry: Resource) -> bool:
        # Written once and never again: by then people may have added to it.
        if not self._capabilities():
            return False
        answer = self._send("GET", entry["request"]["url"])
        if answer.status not in (200, 404, 410):
            raise _refusal(f"reading {entry['resource']['resourceType']}", answer)
        return answer.status == 404

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

    def _transact(self, entries: list[Resource], private: tuple[str, ...]) -> dict[str, str]:
        """Send all entries as one; return what each of them is called at the server."""
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        headers = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
        answer = self._send("POST", "", json.dumps(bundle, separators=(",", ":")).encode(), headers)
        result = answer.json()
        if answer.status != 200 or result.get("resourceType") != "Bundle":
            raise _refusal("writing the transaction", answer, private)
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


def _server_time_s(answer: _Answer) -> float | None:
    try:
        moment = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        return None
    return moment.timestamp()


def _masked(text: str, private: tuple[str, ...] = ()) -> str:
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
    reason = _masked(f"{doing}: HTTP {answer.status} {said}", private)
    if 400 <= answer.status < 500 and answer.status not in _TRY_LATER:
        return SinkRejected(SINK, reason)
    # A redirect, or a page of some proxy instead of FHIR, says nothing about the item.
    return SinkUnavailable(SINK, reason)


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
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and _is_corrupt(error):
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
            except sqlite3.DatabaseError as error:
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


def _is_corrupt(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, _Corrupt) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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
