"""Care records for tests: two independent FHIR servers, a proxy that does what a test says, ways to look in."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import shutil
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import OutboxItem
from edge.settings import RecordSettings, ResidentSettings
from edge.sinks.fhir import PageAttempt, RecordCase, acknowledged, attended, paged, raised, resolved
from edge.sinks.record import CareRecord, EmbeddedRecord, FhirRecord
from tests.edge.brokers import free_port

ROOT = Path(__file__).resolve().parents[2]
INTEROP = ROOT / ".venv" / "interop" / "medplum"  # made by `make interop`
NHS_NUMBER = "9434765919"
OTHER_NHS_NUMBER = "4010232137"  # valid, and nobody at the server has it
LOCAL_SYSTEM = "https://home.example/resident"
AT = datetime(2026, 11, 22, 3, 14, 7, 250_000, tzinfo=UTC)
LATER = AT + timedelta(minutes=9)
STARTED_WITHIN_S = 30.0
TYPES = (
    "Observation",
    "CommunicationRequest",
    "Communication",
    "Task",
    "Device",
    "Location",
    "Provenance",
    "AdverseEvent",
)

Json = dict[str, Any]


def a_case(**changes: Any) -> RecordCase:
    """Return a new incident in a home of its own, so that tests share a server and meet nowhere."""
    incident = new_incident_id()
    facts = Incident(
        incident=incident,
        home=f"home-{incident}",
        kind=Kind.FALL,
        raised_at=AT + timedelta(seconds=2),
        impact_at=AT,
        resident="r12",
        room="12",
        bed="A",
        wearable="0042",
        probability=0.97,
        model="wrist-1",
    )
    resident = ResidentSettings(id="r12", room="12", bed="A", nhs_number=changes.pop("nhs_number", NHS_NUMBER))
    record = RecordSettings(patient_local_system=LOCAL_SYSTEM)
    return RecordCase(replace(facts, **changes), resident, record, "FALL? RM 12 BED A 03:14", 12.0)


def story(case: RecordCase, outcome: Outcome = Outcome.FALL) -> list[OutboxItem]:
    first = PageAttempt("1", "espa-1", "12", "FALL? RM 12 BED A 03:14", AT, accepted=False, reason="no answer")
    return [
        raised(case),
        paged(case, first),
        paged(case, replace(first, attempt="2", to="0", accepted=True)),
        acknowledged(case, by="night staff", at=LATER),
        attended(case, at=LATER),
        resolved(case, outcome=outcome, by="night staff", at=LATER, on_floor_s=540.0),
    ]


# -- peers --------------------------------------------------------------------------------------


@dataclass
class Peer:
    """The FHIR server sekmet in a process of its own."""

    folder: Path
    port: int
    keys: list[Path]
    process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        script = Path(__file__).with_name("fhir_server.py")
        return [sys.executable, str(script), str(self.folder), str(self.port), *map(str, self.keys)]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out)
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask("GET", "metadata")
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": "Bearer edge-token", "Content-Type": "application/fhir+json"}
        connection.request(method, f"/fhir/{path}", None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        document: Json = json.loads(response.read() or b"{}")
        connection.close()
        return {"status": response.status, **document} if response.status >= 400 else document

    def all(self, kind: str) -> list[Json]:
        return [e["resource"] for e in self.ask("GET", f"{kind}?_count=1000").get("entry", [])]

    def put(self, path: str, resource: Json, *, if_match: str) -> int:
        """Change a resource as somebody else would; return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": "Bearer edge-token", "Content-Type": "application/fhir+json"}
        connection.request("PUT", f"/fhir/{path}", json.dumps(resource), {**headers, "If-Match": if_match})
        status = connection.getresponse().status
        connection.close()
        return status

    def add_patient(self, system: str, value: str) -> None:
        patient = {"resourceType": "Patient", "identifier": [{"system": system, "value": value}]}
        assert "id" in self.ask("POST", "Patient", patient)


class Medplum(Peer):
    """Medplum's FHIR router in a process of its own; it asks for no credentials."""

    def command(self) -> list[str]:
        return ["node", str(INTEROP / "server.mjs"), str(self.port)]


def medplum(folder: Path) -> Medplum:
    """Return it, running; the test is skipped where it cannot be installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        # A stage for interoperation: whoever has no Node.js tests the record against sekmet alone.
        pytest.skip("Node.js and npm, which run this independent FHIR server, are not installed")
    with (ROOT / "Makefile").open("rb") as one_at_a_time:  # two that install into one folder break it
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "interop"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
        )
    if made.returncode:
        # Without a registry of packages within reach the server cannot be had; that says nothing of the code.
        why = made.stderr.strip()[-200:]
        pytest.skip(f"the independent FHIR server cannot be installed, npm ci does not work here: {why}")
    server = Medplum(folder, free_port(), [])
    server.start()
    return server


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Between:
    """A proxy in front of the peer, or a server by itself, that does what a test says.

    ``before(method, path, body)`` may answer in the peer's place, or raise ConnectionError to hang up;
    ``after`` may change the peer's answer or hang up once the peer did its work.
    """

    peer: Peer | None = None
    before: Callable[[str, str, bytes], Answer | None] = lambda *_: None
    after: Callable[[str, str, Answer], Answer] = lambda _method, _path, answer: answer
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    base_url: str = ""

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.seen.append((method, path, body))
        own = self.before(method, path, body)
        if own is not None or self.peer is None:
            return own or (404, {}, b"{}")
        connection = http.client.HTTPConnection("127.0.0.1", self.peer.port, timeout=20)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read()
        kept = {name: value for name, value in response.getheaders() if name in ("content-type", "etag", "date")}
        connection.close()
        return self.after(method, path, (response.status, kept, data))


@contextlib.contextmanager
def between(proxy: Between, context: ssl.SSLContext | None = None) -> Iterator[Between]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: no wait for a delayed ACK

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
            try:
                status, answered, data = proxy.answer(self.command, self.path, body, headers)
            except ConnectionError:
                self.close_connection = True
                return
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(data)), **answered}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815  # http.server finds them by these names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Clients of these tests hang up half way, and that is no error.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # for this server alone
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy.base_url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/fhir"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def fhir_record(base_url: str, secrets: Path, **changes: Any) -> Iterator[FhirRecord]:
    wanted = {"auth": "bearer", "token_file": "token", "timeout_s": 10.0, **changes}
    record = FhirRecord(RecordSettings(kind="fhir-r4", base_url=base_url, **wanted), secrets)
    try:
        yield record
    finally:
        record.close()


class Store(Protocol):
    """A record under test and a way to look into it."""

    @property
    def record(self) -> CareRecord: ...

    def all(self, kind: str) -> list[Json]: ...


@dataclass
class ServerStore:
    record: CareRecord
    peer: Peer

    def all(self, kind: str) -> list[Json]:
        return self.peer.all(kind)


@dataclass
class EmbeddedStore:
    record: EmbeddedRecord

    def all(self, kind: str) -> list[Json]:
        query = "SELECT body FROM resource AS r WHERE type = ? AND version ="
        query += " (SELECT max(version) FROM resource WHERE type = r.type AND id = r.id)"
        with contextlib.closing(sqlite3.connect(self.record.path)) as db:
            return [json.loads(row[0]) for row in db.execute(query, (kind,))]


def told(store: Store, case: RecordCase) -> dict[str, list[Json]]:
    """Return what a store holds of one home, free of what differs from store to store."""
    everything = {kind: store.all(kind) for kind in TYPES}
    names = {}
    for kind, resources in everything.items():
        for resource in resources:
            identifier = resource.get("identifier") or [{"value": resource["id"]}]
            value = (identifier if isinstance(identifier, dict) else identifier[0])["value"]
            names[f"{kind}/{resource['id']}"] = f"{kind} {value}"
    mine = {
        f"{r['resourceType']}/{r['id']}"
        for kind in TYPES
        for r in everything[kind]
        if case.incident.home in json.dumps(r)
    }
    found: dict[str, list[Json]] = {}
    for kind, resources in everything.items():
        kept = []
        for resource in resources:
            # Provenance names no home: it is known by what it points at.
            if f"{kind}/{resource['id']}" in mine or any(f'"{name}"' in json.dumps(resource) for name in mine):
                text = json.dumps({k: v for k, v in resource.items() if k not in ("id", "meta")}, sort_keys=True)
                for literal, name in names.items():
                    text = text.replace(f'"{literal}"', f'"{name}"')
                kept.append(json.loads(text))
        found[kind] = sorted(kept, key=lambda resource: json.dumps(resource, sort_keys=True))
    return found


def counts(store: Store, case: RecordCase) -> dict[str, int]:
    return {kind: len(resources) for kind, resources in told(store, case).items() if resources}
