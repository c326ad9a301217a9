from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.core.incident import Outcome, new_incident_id
from edge.journal import OutboxItem
from edge.settings import HomeSettings, RecordSettings, Settings
from edge.sinks import SinkRejected, SinkUnavailable
from edge.sinks.fhir import (
    NHS_NUMBER_SYSTEM,
    Capabilities,
    RecordCase,
    acknowledged,
    raised,
    resolved,
)
from edge.sinks.record import STUMBLES_KEPT, STUMBLES_MOST, EmbeddedRecord, FhirRecord, open_record
from tests.edge.brokers import free_port
from tests.edge.record_peers import (
    AT,
    LATER,
    LOCAL_SYSTEM,
    NHS_NUMBER,
    OTHER_NHS_NUMBER,
    TYPES,
    Answer,
    Between,
    EmbeddedStore,
    Json,
    Peer,
    ServerStore,
    Store,
    a_case,
    between,
    counts,
    fhir_record,
    medplum,
    story,
    told,
)


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "RS384": rsa.generate_private_key(65537, 2048),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "wrong": rsa.generate_private_key(65537, 2048),
    }
    for name, key in keys.items():
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{name}.key").write_bytes(private)
        (folder / f"{name}.pem").write_bytes(public)
    (folder / "token").write_text("edge-token\n")
    return folder


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory, key_folder: Path) -> Iterator[Peer]:
    keys = [key_folder / "RS384.pem", key_folder / "ES384.pem"]
    server = Peer(tmp_path_factory.mktemp("fhir"), free_port(), keys)
    server.start()
    server.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def other_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    server = medplum(tmp_path_factory.mktemp("medplum"))
    server.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
    yield server
    server.kill()


@pytest.fixture(params=["sekmet", "medplum"])
def any_peer(request: pytest.FixtureRequest) -> Peer:
    server: Peer = request.getfixturevalue("peer" if request.param == "sekmet" else "other_peer")
    return server


# -- all records --------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "sekmet", "medplum"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "embedded":
        record = EmbeddedRecord(tmp_path / "record.sqlite3")
        yield EmbeddedStore(record)
        record.close()
    else:
        peer = request.getfixturevalue("peer" if request.param == "sekmet" else "other_peer")
        with fhir_record(peer.base_url, request.getfixturevalue("key_folder")) as remote:
            yield ServerStore(remote, peer)


def test_an_alert_sent_twice_is_written_once(store: Store) -> None:
    case = a_case()
    for _ in range(2):
        store.record.deliver(raised(case))
    assert counts(store, case) == {
        "Observation": 1,
        "CommunicationRequest": 1,
        "Task": 1,
        "Device": 1,
        "Location": 1,
        "Provenance": 1,
    }


def test_the_whole_story_ends_with_a_confirmed_fall(store: Store) -> None:
    case = a_case()
    for item in story(case):
        store.record.deliver(item)
    found = told(store, case)
    observation, task = found["Observation"][0], found["Task"][0]
    assert observation["status"] == "final"
    assert observation["code"]["text"] == "Fall (detected automatically, confirmed by staff)"
    assert {page["status"] for page in found["Communication"]} == {"not-done", "completed"}
    assert found["CommunicationRequest"][0]["status"] == "completed"
    assert (task["status"], task["owner"]["display"]) == ("completed", "night staff")
    assert task["executionPeriod"] == {"start": "2026-11-22T03:23:07.250Z", "end": "2026-11-22T03:23:07.250Z"}
    assert task["focus"]["reference"] == f"Observation {case.incident.home}/{case.incident.incident}"
    assert len(found["AdverseEvent"]) == 1
    assert len(found["Provenance"]) == 2


def test_a_false_alarm_is_entered_in_error_and_no_event(store: Store) -> None:
    case = a_case()
    for item in story(case, Outcome.NOT_A_FALL):
        store.record.deliver(item)
    found = told(store, case)
    assert found["Observation"][0]["status"] == "entered-in-error"
    assert found["AdverseEvent"] == []


def test_a_drill_is_cancelled_and_asks_for_nothing(store: Store) -> None:
    case = a_case(drill=True)
    for item in story(case, Outcome.DRILL):
        store.record.deliver(item)
    found = told(store, case)
    assert found["Observation"][0]["status"] == "cancelled"
    assert found["Task"] == found["AdverseEvent"] == []


def test_a_resident_without_numbers_is_still_written_down(store: Store) -> None:
    case = a_case(nhs_number="")
    store.record.deliver(raised(case))
    subject = told(store, case)["Observation"][0]["subject"]
    assert subject["identifier"]["value"] == f"{case.incident.home}/r12"


def test_wearable_and_room_are_shared_by_incidents(store: Store) -> None:
    case = a_case()
    second = replace(case, incident=replace(case.incident, incident=new_incident_id()))
    for each in (case, second):
        store.record.deliver(raised(each))
    number = counts(store, case)
    assert (number["Device"], number["Location"], number["Observation"]) == (1, 1, 2)


def test_a_room_with_any_characters_is_found_again(store: Store) -> None:
    case = a_case(room="Großes Zimmer, 1|2 & 50% + $\\", bed="=")
    for item in story(case):
        store.record.deliver(item)
    assert counts(store, case)["Location"] == 1


def test_resending_everything_makes_no_new_version(store: Store) -> None:
    case = a_case()
    for item in story(case):
        store.record.deliver(item)
    before = {kind: store.all(kind) for kind in TYPES}
    for item in story(case):
        store.record.deliver(item)
    assert {kind: store.all(kind) for kind in TYPES} == before


def test_a_well_record_passes_its_check(store: Store) -> None:
    store.record.check()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: [],
        lambda body: {**body, "bundle": {"entry": "x"}},
        lambda body: {**body, "updates": [{"entry": "urn:uuid:nobody"}]},
        lambda body: {"bundle": {"entry": [{"request": {"method": "DELETE", "url": "Patient/1"}}]}, "updates": []},
        lambda body: body["bundle"]["entry"][0]["request"].pop("ifNoneExist") and body,
        lambda body: body["bundle"]["entry"][0].update(fullUrl=1) or body,
    ],
)
def test_an_item_that_is_not_ours_is_refused(store: Store, spoil: Callable[[Json], Any]) -> None:
    body = spoil(json.loads(raised(a_case()).body))
    with pytest.raises(SinkRejected, match="record item"):
        store.record.deliver(OutboxItem("k", "i", json.dumps(body).encode()))


def any_order(most: int) -> Any:
    """Draw deliveries of the six items of a story, in any order, any of them again and again."""
    return st.tuples(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=most)).flatmap(
        lambda drawn: st.permutations([*drawn[0], *drawn[1]])
    )


outcomes = st.sampled_from([Outcome.FALL, Outcome.NEAR_FALL, Outcome.NOT_A_FALL, Outcome.DRILL])


def ends_alike(store: Store, order: list[int], outcome: Outcome, drill: bool) -> None:
    straight, mixed = a_case(drill=drill), a_case(drill=drill)
    for item in story(straight, outcome):
        store.record.deliver(item)
    items = story(mixed, outcome)
    for index in order:
        store.record.deliver(items[index])

    def plain(case: RecordCase) -> str:
        text = json.dumps(told(store, case), sort_keys=True).replace(case.incident.incident, "ID")
        own = {r["reference"] for r in _walk(json.loads(text)) if r["reference"].startswith("AdverseEvent ")}
        for name in own:
            text = text.replace(name, "AdverseEvent")
        return text

    assert plain(mixed) == plain(straight)


def _walk(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _walk(value)


@settings(max_examples=25, deadline=None)
@given(order=any_order(6), outcome=outcomes, drill=st.booleans())
def test_any_order_of_deliveries_ends_the_same_on_this_box(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], outcome: Outcome, drill: bool
) -> None:
    record = EmbeddedRecord(tmp_path_factory.mktemp("any") / "record.sqlite3")
    ends_alike(EmbeddedStore(record), order, outcome, drill)
    record.close()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=any_order(2), outcome=outcomes, drill=st.booleans())
def test_any_order_of_deliveries_ends_the_same_at_a_server(
    any_peer: Peer, key_folder: Path, order: list[int], outcome: Outcome, drill: bool
) -> None:
    with fhir_record(any_peer.base_url, key_folder) as record:
        ends_alike(ServerStore(record, any_peer), order, outcome, drill)


# -- a FHIR server ------------------------------------------------------------------------------


def test_an_unknown_nhs_number_is_parked_and_nothing_is_written(any_peer: Peer, key_folder: Path) -> None:
    case = a_case(nhs_number=OTHER_NHS_NUMBER)
    with fhir_record(any_peer.base_url, key_folder) as record:
        with pytest.raises(SinkRejected, match="no patients") as refused:
            record.deliver(raised(case))
        assert counts(ServerStore(record, any_peer), case) == {}
    assert OTHER_NHS_NUMBER not in str(refused.value)


def test_two_patients_with_one_number_are_for_a_person(any_peer: Peer, key_folder: Path) -> None:
    case = a_case(nhs_number="")
    assert case.resident is not None
    case = replace(case, resident=replace(case.resident, local_id="B 7"))
    with fhir_record(any_peer.base_url, key_folder) as record:
        any_peer.add_patient(LOCAL_SYSTEM, "B 7")
        record.deliver(raised(case))  # one is fine, by the home's own number
        any_peer.add_patient(LOCAL_SYSTEM, "B 7")
        with pytest.raises(SinkRejected, match="2 patients"):
            record.deliver(raised(case))


def test_the_number_is_in_no_url_and_the_entry_points_at_the_patient(any_peer: Peer, key_folder: Path) -> None:
    with between(Between(any_peer)) as proxy, fhir_record(proxy.base_url, key_folder) as record:
        case = a_case()
        record.deliver(raised(case))
        assert all(NHS_NUMBER not in path for _, path, _ in proxy.seen)
        subject = told(ServerStore(record, any_peer), case)["Observation"][0]["subject"]["reference"]
        assert subject.startswith("Patient/")
        sent = next(body for _, path, body in proxy.seen if path == "/fhir")
        assert NHS_NUMBER.encode() not in sent  # resolved by us, for servers that cannot


def test_a_server_that_answers_with_everybody_matches_nobody(peer: Peer, key_folder: Path) -> None:
    wrong = {"resourceType": "Patient", "id": "x", "identifier": [{"system": NHS_NUMBER_SYSTEM, "value": "1"}]}
    everybody = {"resourceType": "Bundle", "entry": [{"resource": wrong}, {"resource": {"resourceType": "Group"}}]}
    answer: Answer = (200, {}, json.dumps(everybody).encode())
    proxy = Between(peer, before=lambda _, path, __: answer if path.endswith("_search") else None)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record, pytest.raises(SinkRejected):
        record.deliver(raised(a_case()))


def test_a_change_by_somebody_else_in_between_is_kept(any_peer: Peer, key_folder: Path) -> None:
    case = a_case()
    meddled: list[str] = []

    def meddle(method: str, path: str, _: bytes) -> None:
        if method == "PUT" and "/Observation/" in path and not meddled:
            meddled.append(path)
            theirs = any_peer.ask("GET", path.removeprefix("/fhir/"))
            any_peer.ask("PUT", path.removeprefix("/fhir/"), {**theirs, "bodySite": {"text": "left hip"}})

    with between(Between(any_peer, before=meddle)) as proxy, fhir_record(proxy.base_url, key_folder) as record:
        record.deliver(resolved(case, outcome=Outcome.FALL, by="night staff", at=LATER))
        observation = told(ServerStore(record, any_peer), case)["Observation"][0]
    assert meddled
    assert (observation["status"], observation["bodySite"]["text"]) == ("final", "left hip")


def test_a_version_that_is_always_stale_is_for_a_person(peer: Peer, key_folder: Path) -> None:
    stale: Answer = (412, {}, b'{"resourceType": "OperationOutcome"}')
    proxy = Between(peer, before=lambda method, path, _: stale if method == "PUT" else None)
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder) as record,
        pytest.raises(SinkRejected, match="somebody else"),
    ):
        record.deliver(acknowledged(a_case(), by="night staff", at=LATER))


def test_a_verdict_is_one_new_version_and_a_stale_one_is_refused(any_peer: Peer, key_folder: Path) -> None:
    case = a_case()
    with fhir_record(any_peer.base_url, key_folder) as record:
        record.deliver(raised(case))
        before = next(r for r in any_peer.all("Observation") if case.incident.home in json.dumps(r))
        path, first = f"Observation/{before['id']}", before["meta"]["versionId"]
        record.deliver(resolved(case, outcome=Outcome.LOWERED, by="", at=LATER))
        verdict = any_peer.ask("GET", path)
        assert verdict["meta"]["versionId"] != first
        assert any_peer.put(path, before, if_match=f'W/"{first}"') == 412  # the peer does hold its clients to it
        assert any_peer.ask("GET", path) == verdict


@pytest.mark.parametrize("answered", [False, True])
def test_a_line_cut_at_any_request_costs_nothing(peer: Peer, key_folder: Path, answered: bool) -> None:
    cut_at = 0

    def cut(_method: str, _path: str, *rest: Any) -> Any:
        if len(proxy.seen) == cut_at:
            raise ConnectionError
        return rest[0] if answered else None

    def tell(case: RecordCase) -> None:
        for item in (raised(case), resolved(case, outcome=Outcome.FALL, by="night staff", at=LATER)):
            record.deliver(item)

    proxy = Between(peer, after=cut) if answered else Between(peer, before=cut)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        record.check()
        proxy.seen.clear()
        tell(a_case())
        for number in range(1, len(proxy.seen) + 1):
            case = a_case()
            proxy.seen.clear()
            cut_at = number
            with pytest.raises(SinkUnavailable):
                tell(case)
            tell(case)
            number_of = counts(ServerStore(record, peer), case)
            assert number_of.pop("Provenance") == 2
            assert set(number_of.values()) == {1}
    assert number > 10


def test_a_server_killed_and_started_again_ends_with_one_of_each(tmp_path: Path, key_folder: Path) -> None:
    server = Peer(tmp_path, free_port(), [])
    server.start()
    try:
        server.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
        case = a_case()

        def kill(_method: str, path: str, answer: Answer) -> Answer:
            if path == "/fhir" and server.process is not None and not killed:
                killed.append(path)
                server.kill()
                raise ConnectionError
            return answer

        killed: list[str] = []
        with between(Between(server, after=kill)) as proxy, fhir_record(proxy.base_url, key_folder) as record:
            for _ in range(2):  # written but unanswered, then away
                with pytest.raises(SinkUnavailable):
                    record.deliver(raised(case))
            with pytest.raises(SinkUnavailable):
                record.check()
            server.start()
            record.check()
            for item in story(case):
                record.deliver(item)
            number = counts(ServerStore(record, server), case)
        assert (number["Observation"], number["Task"], number["Communication"]) == (1, 1, 2)
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, SinkUnavailable) for status in (302, 401, 407, 408, 409, 425, 429, 500, 502, 503, 504)),
        *((status, SinkRejected) for status in (400, 403, 404, 410, 412, 422)),
    ],
)
def test_what_the_server_says_decides_whether_to_send_again(
    peer: Peer, key_folder: Path, status: int, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    said = f"Patient {NHS_NUMBER}, 943 476 5919 or 943-476-5919: no"
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "diagnostics": said}]}
    answer = (status, {"Location": f"{peer.base_url}/elsewhere"}, json.dumps(outcome).encode())
    proxy = Between(peer, before=lambda _, path, __: answer if path == "/fhir" else None)
    with (
        caplog.at_level(logging.DEBUG),
        between(proxy),
        fhir_record(proxy.base_url, key_folder) as record,
        pytest.raises(error) as raised_error,
    ):
        record.deliver(raised(a_case()))
    assert str(status) in str(raised_error.value)
    assert "Patient ***, *** or ***: no" in str(raised_error.value)
    assert NHS_NUMBER not in caplog.text
    assert not any("elsewhere" in path for _, path, _ in proxy.seen)


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>sign in to the guest network</html>",
        b"{}",
        b"[]",
        b"\xff",
        b'{"resourceType": "Bundle"}',
        b'{"resourceType": "Bundle", "entry": null}',
        b'{"resourceType": "Bundle", "entry": [1, 2, 3, 4, 5, 6]}',
        b'{"resourceType": "Bundle", "entry": [{"response": {"status": "400 Bad Request"}}]}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("target", ["/fhir", "/fhir/Patient/_search"])
def test_an_answer_that_is_not_fhir_is_no_success(
    peer: Peer, key_folder: Path, target: str, answer: bytes
) -> None:
    proxy = Between(peer, before=lambda _, path, __: (200, {}, answer) if path == target else None)
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder) as record,
        pytest.raises((SinkUnavailable, SinkRejected)),
    ):
        record.deliver(raised(a_case()))


def test_an_endless_answer_is_cut_off(key_folder: Path) -> None:
    proxy = Between(before=lambda *_: (200, {}, b" " * (9 << 20)))
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder) as record,
        pytest.raises(SinkUnavailable, match="too long"),
    ):
        record.check()


@pytest.mark.alone
def test_a_server_that_does_not_answer_is_left_in_time(key_folder: Path) -> None:
    def sleep(*_: Any) -> None:
        time.sleep(1.5)

    with between(Between(before=sleep)) as proxy, fhir_record(proxy.base_url, key_folder, timeout_s=0.3) as record:
        began_s = time.monotonic()
        with pytest.raises(SinkUnavailable):
            record.check()
        assert time.monotonic() - began_s < 1.2


def test_a_server_that_nobody_vouches_for_hears_nothing(key_folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key_folder / "self-signed.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with between(Between(), context) as proxy, fhir_record(proxy.base_url, key_folder) as record:
        with pytest.raises(SinkUnavailable, match=r"(?i)certificate"):
            record.deliver(raised(a_case()))
        assert proxy.seen == []


# -- what a server says of itself ---------------------------------------------------------------


def saying(change: Callable[[Json], object]) -> Callable[[str, str, Answer], Answer]:
    """Return for `Between.after`: the peer's capability statement with a change."""

    def after(_method: str, path: str, answer: Answer) -> Answer:
        if path != "/fhir/metadata":
            return answer
        statement = json.loads(answer[2])
        change(statement["rest"][0])
        return (answer[0], answer[1], json.dumps(statement).encode())

    return after


def of_types(*names: str, **facts: Any) -> Callable[[Json], object]:
    """Return a change of what a statement says of some types; the types are named if they were not."""

    def change(rest: Json) -> None:
        rest["resource"] += [{"type": name} for name in names if name not in [r["type"] for r in rest["resource"]]]
        for resource in rest["resource"]:
            if resource["type"] in names:
                resource.update(facts)

    return change


def without_types(*names: str) -> Callable[[Json], object]:
    def change(rest: Json) -> None:
        rest["resource"] = [resource for resource in rest["resource"] if resource["type"] not in names]

    return change


def test_a_server_that_takes_no_ids_gets_all_the_rest(any_peer: Peer, key_folder: Path) -> None:
    proxy = Between(any_peer, after=saying(of_types("Provenance", "AdverseEvent", updateCreate=False)))
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        case = a_case()
        for item in story(case):
            record.deliver(item)
        number = counts(ServerStore(record, any_peer), case)
        assert record.left_out == "Provenance and AdverseEvent"
    assert number["Observation"] == 1
    assert not {"Provenance", "AdverseEvent"} & set(number)


@pytest.mark.parametrize(("looked_up", "refused"), [(404, 404), (404, 422), (405, 400), (501, 400), (400, 404)])
def test_a_server_without_adverse_events_still_gets_the_verdict(
    any_peer: Peer, key_folder: Path, looked_up: int, refused: int
) -> None:
    def know_none(method: str, path: str, body: bytes) -> Answer | None:
        if method == "GET" and "/AdverseEvent/" in path:
            return (looked_up, {}, b'{"resourceType": "OperationOutcome"}')
        if method == "POST" and b'"resourceType":"AdverseEvent"' in body:
            return (refused, {}, b'{"resourceType": "OperationOutcome"}')
        return None

    proxy = Between(any_peer, before=know_none, after=saying(without_types("AdverseEvent")))
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        case = a_case()
        for item in story(case):
            record.deliver(item)
        found = told(ServerStore(record, any_peer), case)
        assert record.left_out == "AdverseEvent"
    assert found["Observation"][0]["status"] == "final"
    assert found["AdverseEvent"] == []
    assert len(found["Provenance"]) == 2
    assert "AdverseEvent" not in json.dumps(found["Provenance"])


def test_a_refusal_for_another_reason_leaves_nothing_out(peer: Peer, key_folder: Path) -> None:
    no: Answer = (422, {}, b'{"resourceType": "OperationOutcome"}')
    proxy = Between(peer, before=lambda _, path, __: no if path == "/fhir" else None)
    item = resolved(a_case(), outcome=Outcome.FALL, by="", at=LATER)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        with pytest.raises(SinkRejected, match="422"):
            record.deliver(item)
        assert record.left_out == ""
        proxy.seen.clear()
        with pytest.raises(SinkRejected, match="422"):
            record.deliver(acknowledged(a_case(), by="", at=LATER))
        assert [path for _, path, __ in proxy.seen].count("/fhir") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rest: rest.update(interaction=[]), "takes no transactions"),
        (lambda rest: rest.pop("interaction"), "takes no transactions"),
        (of_types("Observation", conditionalCreate=False), "Observation would be doubled"),
        (of_types("Communication", conditionalCreate=None), "Communication would be doubled"),
    ],
)
def test_a_server_that_would_double_entries_or_write_halves_is_sent_none(
    peer: Peer, key_folder: Path, change: Callable[[Json], object], said: str
) -> None:
    proxy = Between(peer, after=saying(change))
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        for try_it in (record.check, lambda: record.deliver(raised(a_case()))):
            with pytest.raises(SinkUnavailable, match=said):
                try_it()
        assert not [path for method, path, _ in proxy.seen if method != "GET"]


def test_what_a_server_can_do_is_read_once_and_again_by_a_later_check(
    peer: Peer, key_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> int:
        return [path for _, path, __ in proxy.seen].count("/fhir/metadata")

    proxy = Between(peer)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        for item in story(a_case()):
            record.deliver(item)
        record.check()
        assert read() == 1
        record._capabilities_until_s = 0.0  # as after a quarter of an hour
        for _ in range(2):
            record.check()
        assert read() == 2
        record._capabilities_until_s = 0.0
        proxy.before = lambda _, path, __: (503, {}, b"{}") if path == "/fhir/metadata" else None
        with pytest.raises(SinkUnavailable, match="503"):
            record.check()
        record.deliver(raised(a_case()))  # what was known still holds


def test_a_server_put_right_is_noticed_at_the_next_check(peer: Peer, key_folder: Path) -> None:
    proxy = Between(peer, after=saying(lambda rest: rest.pop("interaction")))
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        with pytest.raises(SinkUnavailable):
            record.check()
        proxy.after = lambda _method, _path, answer: answer
        record.check()


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["rest", "fhirVersion"]),
        json_like | st.lists(st.dictionaries(st.sampled_from(["interaction", "resource", "mode"]), json_like)),
    )
)
def test_a_statement_is_read_or_refused_whatever_is_in_it(statement: Json) -> None:
    with contextlib.suppress(ValueError):
        read = Capabilities.of({"resourceType": "CapabilityStatement", **statement})
        assert read.obstacle  # none of these is of use


def test_a_server_of_another_fhir_is_found_out(key_folder: Path) -> None:
    statement = b'{"resourceType": "CapabilityStatement", "fhirVersion": "5.0.0"}'
    proxy = Between(before=lambda *_: (200, {}, statement))
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder) as record,
        pytest.raises(SinkUnavailable, match=r"5\.0\.0"),
    ):
        record.check()


# -- faults of every kind -----------------------------------------------------------------------


def test_two_entries_with_our_identifier_are_for_a_person(any_peer: Peer, key_folder: Path) -> None:
    case = a_case()
    observation = json.loads(raised(case).body)["bundle"]["entry"][2]["resource"]
    loose = {k: v for k, v in observation.items() if k not in ("subject", "device")}
    for _ in range(2):
        assert "id" in any_peer.ask("POST", "Observation", loose)
    with (
        fhir_record(any_peer.base_url, key_folder) as record,
        pytest.raises(SinkRejected, match="more than one entry with our identifier: HTTP 412"),
    ):
        record.deliver(raised(case))


def http_date(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "99999999999999999999"}, 300.0),
        ({"Retry-After": http_date(AT + timedelta(seconds=40)), "Date": http_date(AT)}, 40.0),
        ({"Retry-After": http_date(AT), "Date": http_date(LATER)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "\u00b2"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_a_pause_gets_it(
    key_folder: Path, status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    proxy = Between(before=lambda *_: (status, headers, b"{}"))
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        with pytest.raises(SinkUnavailable, match=str(status)) as refused:
            record.deliver(raised(a_case()))
        assert refused.value.retry_after_s == wait_s
        with pytest.raises(SinkUnavailable) as refused:
            record.check()
        if wait_s:
            assert "asked us to wait" in refused.value.reason
            assert refused.value.retry_after_s == pytest.approx(wait_s, abs=5)
            assert len(proxy.seen) == 1
        else:
            assert len(proxy.seen) == 2


def test_a_pause_that_is_over_is_forgotten(peer: Peer, key_folder: Path) -> None:
    proxy = Between(peer, before=lambda *_: (503, {"Retry-After": "1"}, b"") if len(proxy.seen) == 1 else None)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        with pytest.raises(SinkUnavailable):
            record.deliver(raised(a_case()))
        time.sleep(1.05)
        record.deliver(raised(a_case()))


@pytest.mark.parametrize("status", [409, 500])
def test_an_item_over_which_a_well_server_stumbles_is_parked_in_the_end(
    peer: Peer, key_folder: Path, status: int
) -> None:
    poison = raised(a_case(room="poison"))

    def stumble(_method: str, path: str, body: bytes) -> Answer | None:
        return (status, {}, b"{}") if path == "/fhir" and b"poison" in body else None

    with between(Between(peer, before=stumble)) as proxy, fhir_record(proxy.base_url, key_folder) as record:
        for _ in range(STUMBLES_MOST - 1):
            with pytest.raises(SinkUnavailable, match=str(status)):
                record.deliver(poison)
            record.deliver(raised(a_case()))  # the rest goes on
        with pytest.raises(SinkRejected, match=f"the same at each of {STUMBLES_MOST} tries"):
            record.deliver(poison)
        with pytest.raises(SinkUnavailable):  # a person had it sent once more: counted anew
            record.deliver(poison)


def test_nothing_is_parked_by_a_server_that_is_not_well(peer: Peer, key_folder: Path) -> None:
    proxy = Between(peer)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        item = raised(a_case())
        record.check()
        proxy.before = lambda *_: (500, {}, b"{}")
        for _ in range(STUMBLES_MOST + 2):
            with pytest.raises(SinkUnavailable):
                record.deliver(item)


def test_no_more_stumbles_are_counted_than_are_of_use(peer: Peer, key_folder: Path) -> None:
    proxy = Between(peer, before=lambda _, path, __: (500, {}, b"{}") if path.endswith("_search") else None)
    with between(proxy), fhir_record(proxy.base_url, key_folder) as record:
        for _ in range(STUMBLES_KEPT + 20):
            with pytest.raises(SinkUnavailable):
                record.deliver(raised(a_case()))
        assert len(record._stumbles) == STUMBLES_KEPT


@pytest.mark.alone
@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 600, b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 600])
def test_an_answer_a_byte_at_a_time_is_cut_off(key_folder: Path, drip: bytes) -> None:
    sent: list[int] = []

    def serve(listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line, contextlib.suppress(OSError):
            line.recv(65536)
            for octet in drip:
                line.sendall(bytes([octet]))
                sent.append(octet)
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/fhir"
        with fhir_record(address, key_folder, timeout_s=0.5) as record:
            began_s = time.monotonic()
            with pytest.raises(SinkUnavailable):
                record.check()
            assert time.monotonic() - began_s < 1.5
        thread.join(timeout=20)
    assert 5 < len(sent) < 200


def test_half_an_answer_is_none(peer: Peer, key_folder: Path) -> None:
    def halve(_method: str, path: str, answer: Answer) -> Answer:
        return (answer[0], {"Content-Length": str(len(answer[2]) + 9), "Connection": "close"}, answer[2])

    proxy = Between(peer, after=halve)
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder, timeout_s=2.0) as record,
        pytest.raises(SinkUnavailable),
    ):
        record.check()


def test_a_line_that_the_server_closed_meanwhile_is_opened_again(tmp_path: Path, key_folder: Path) -> None:
    server = Peer(tmp_path, free_port(), [])
    server.start()
    try:
        with fhir_record(server.base_url, key_folder) as record:
            record.check()
            server.kill()
            server.start()
            record.check()
    finally:
        server.kill()


def test_a_clock_that_is_off_is_said_once(
    peer: Peer, key_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = time.time
    with fhir_record(peer.base_url, key_folder) as record:
        record.check()
        assert abs(record.clock_off_s) < 5
        monkeypatch.setattr("edge.sinks.record.time.time", lambda: real() - 3600)
        for _ in range(2):
            record.check()
        assert record.clock_off_s == pytest.approx(3600, abs=5)
    assert len([r for r in caplog.records if "s apart" in r.getMessage()]) == 1


def test_a_token_refused_twice_is_not_asked_for_a_third_time(peer: Peer, key_folder: Path) -> None:
    proxy = Between(peer, before=lambda _, path, __: (401, {}, b"{}") if path == "/fhir" else None)
    with between(proxy), fhir_record(proxy.base_url, key_folder, **smart("RS384")) as record:
        with pytest.raises(SinkUnavailable, match="401"):
            record.deliver(raised(a_case()))
        paths = [path for _, path, __ in proxy.seen]
        assert paths.count("/fhir") == 2
        assert len([path for path in paths if "smart-configuration" in path]) == 2


# -- credentials --------------------------------------------------------------------------------


def smart(algorithm: str, **changes: Any) -> Json:
    return {
        "auth": "smart-backend",
        "token_file": "",
        "client_id": f"falls-edge-{algorithm}",
        "key_file": f"{algorithm}.key",
        "key_id": "k1",
        "key_algorithm": algorithm,
        **changes,
    }


def test_rs512_is_there_for_services_that_want_it(key_folder: Path) -> None:
    asked: list[str] = []

    def answer(_method: str, path: str, body: bytes) -> Answer:
        asked.extend(parse_qs(body.decode()).get("client_assertion", []))
        return (400, {}, b"{}")

    with between(Between(before=answer)) as proxy:
        wanted = smart("RS384", key_algorithm="RS512", token_url=f"{proxy.base_url}/token")
        with fhir_record(proxy.base_url, key_folder, **wanted) as record, pytest.raises(SinkUnavailable):
            record.check()
    public = (key_folder / "RS384.pem").read_text()
    claims = jwt.decode(asked[0], public, algorithms=["RS512"], audience=f"{proxy.base_url}/token")
    assert claims["iss"] == claims["sub"] == "falls-edge-RS384"


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_smart_backend_services_lets_us_in(peer: Peer, key_folder: Path, algorithm: str) -> None:
    case = a_case()
    with fhir_record(peer.base_url, key_folder, **smart(algorithm)) as record:
        record.check()
        record.deliver(raised(case))
        assert counts(ServerStore(record, peer), case)["Observation"] == 1


def test_an_access_token_is_asked_for_once_and_again_when_it_is_refused(peer: Peer, key_folder: Path) -> None:
    refused: list[str] = []

    def refuse_once(_method: str, path: str, _: bytes) -> Answer | None:
        if path == "/fhir" and not refused:
            refused.append(path)
            return (401, {}, b"{}")
        return None

    proxy = Between(peer, before=refuse_once)
    with between(proxy), fhir_record(proxy.base_url, key_folder, **smart("RS384")) as record:
        record.deliver(raised(a_case()))
    assert len([path for _, path, _ in proxy.seen if "smart-configuration" in path]) == 2


def test_a_key_the_server_does_not_know_keeps_the_item_waiting(peer: Peer, key_folder: Path) -> None:
    with (
        fhir_record(peer.base_url, key_folder, **smart("RS384", key_file="wrong.key")) as record,
        pytest.raises(SinkUnavailable, match="no access token: HTTP 40"),
    ):
        record.check()


@pytest.mark.parametrize("off_s", [-3 * 365 * 86400.0, -600.0])
def test_a_box_that_woke_in_the_past_asks_by_the_servers_clock(
    peer: Peer, key_folder: Path, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    real = time.time
    with fhir_record(peer.base_url, key_folder, **smart("RS384")) as record:
        monkeypatch.setattr("edge.sinks.record.time.time", lambda: real() + off_s)
        record.check()


@pytest.mark.parametrize("key_file", ["missing.key", "RS384.pem", "token", "ES384.key"])
def test_a_key_file_that_is_none_is_named(peer: Peer, key_folder: Path, key_file: str) -> None:
    with (
        fhir_record(peer.base_url, key_folder, **smart("RS384", key_file=key_file)) as record,
        pytest.raises(SinkUnavailable, match=key_file),
    ):
        record.check()


def test_a_new_bearer_token_is_read_when_the_old_one_is_refused(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("edge-token")
    with fhir_record(peer.base_url, tmp_path) as record:
        record.check()
        (tmp_path / "token").write_text("of yesterday")
        record.check()  # ours still holds
    with fhir_record(peer.base_url, tmp_path) as record:
        with pytest.raises(SinkUnavailable, match="401"):
            record.check()
        (tmp_path / "token").write_text("edge-token")
        record.check()


def test_the_scopes_asked_for_are_in_the_servers_dialect(key_folder: Path) -> None:
    asked: list[str] = []

    def answer(_method: str, path: str, body: bytes) -> Answer:
        if path.endswith("smart-configuration"):
            document = {"token_endpoint": proxy.base_url + "/token", "capabilities": ["permission-v1"]}
            return (200, {}, json.dumps(document).encode())
        asked.extend(parse_qs(body.decode()).get("scope", []))
        return (400, {}, b'{"error": "invalid_scope"}')

    proxy = Between(before=answer)
    with (
        between(proxy),
        fhir_record(proxy.base_url, key_folder, **smart("RS384")) as record,
        pytest.raises(SinkUnavailable, match="invalid_scope"),
    ):
        record.check()
    assert asked == ["system/*.read system/*.write"]


# -- the store on this box ----------------------------------------------------------------------


def test_the_settings_choose_the_record(tmp_path: Path) -> None:
    home = HomeSettings(id="site-7")
    embedded = open_record(Settings(home=home), tmp_path, tmp_path)
    assert isinstance(embedded, EmbeddedRecord)
    assert not embedded.path.exists()  # nothing happens before it is needed
    remote = RecordSettings(kind="fhir-r4", base_url="https://record.example/fhir")
    chosen = open_record(Settings(home=home, record=remote), tmp_path, tmp_path)
    assert isinstance(chosen, FhirRecord)
    chosen.close()


def test_the_entries_read_like_a_record(tmp_path: Path) -> None:
    case = a_case()
    record = EmbeddedRecord(tmp_path / "record.sqlite3")
    for item in story(case):
        record.deliver(item)
    shown = {entry.type: entry for entry in record.entries()}
    assert set(shown) == set(TYPES)
    observation = shown["Observation"]
    assert (observation.at, observation.room, observation.status) == ("2026-11-22T03:14:07.250Z", "12 A", "final")
    assert observation.incident == case.incident.incident
    assert observation.text == "Fall (detected automatically, confirmed by staff)"
    assert all(entry.at for entry in record.entries() if entry.type not in ("Device", "Location"))
    assert all(entry.text for entry in record.entries())
    record.close()


def test_another_process_may_look_on_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite3"
    onlooker = EmbeddedRecord(path, read_only=True)
    with pytest.raises(SinkUnavailable):
        onlooker.entries()
    assert not path.exists()
    record = EmbeddedRecord(path)
    record.deliver(raised(a_case()))
    assert len(onlooker.entries()) == 6
    with pytest.raises(SinkUnavailable):
        onlooker.deliver(raised(a_case()))
    record.deliver(raised(a_case()))
    assert len(onlooker.entries()) == 12
    onlooker.close()
    record.close()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SinkUnavailable):
        onlooker.entries()
    assert path.read_bytes().startswith(b"no database")


def test_only_the_service_may_read_the_file(tmp_path: Path) -> None:
    record = EmbeddedRecord(tmp_path / "record.sqlite3")
    record.deliver(raised(a_case()))
    assert record.path.stat().st_mode & 0o077 == 0
    record.close()


@pytest.mark.parametrize("wreck", ["header", "pages", "while open"])
def test_an_unreadable_file_is_moved_aside_and_said(
    tmp_path: Path, wreck: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = EmbeddedRecord(tmp_path / "record.sqlite3")
    for _ in range(20):
        record.deliver(raised(a_case()))
    record.close()
    if wreck == "while open":
        record.check()
        assert record._db is not None
        record._db.execute("PRAGMA shrink_memory")  # or it goes on from its cache
    with record.path.open("r+b") as file:
        file.seek(0 if wreck == "header" else 4096)
        file.write(os.urandom(8192 if wreck == "header" else record.path.stat().st_size - 4096))
    if wreck == "while open":
        with pytest.raises(SinkUnavailable):
            record.deliver(raised(a_case()))
    case = a_case()
    record.deliver(raised(case))
    assert counts(EmbeddedStore(record), case)["Observation"] == 1
    assert record.moved_aside is not None
    assert record.moved_aside.exists()
    assert record.moved_aside.name.startswith("record.sqlite3.corrupt-")
    assert "moved" in caplog.text or "unreadable" in caplog.text
    record.close()


def test_a_file_taken_away_is_begun_anew(tmp_path: Path) -> None:
    record = EmbeddedRecord(tmp_path / "record.sqlite3")
    record.deliver(raised(a_case()))
    for file in tmp_path.iterdir():
        file.unlink()
    case = a_case()
    record.deliver(raised(case))
    assert counts(EmbeddedStore(record), case)["Observation"] == 1
    record.close()


def test_a_folder_that_cannot_be_written_keeps_the_item_waiting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkUnavailable):
        EmbeddedRecord(tmp_path / "file" / "record.sqlite3").deliver(raised(a_case()))


def test_what_was_taken_survives_a_kill(tmp_path: Path) -> None:
    writer = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import tests.edge.record_peers as t
record = t.EmbeddedRecord(t.Path({str(tmp_path / "record.sqlite3")!r}))
while True:
    case = t.a_case()
    for item in t.story(case):
        record.deliver(item)
    print(case.incident.incident, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    taken = [process.stdout.readline().strip() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    taken += process.stdout.read().split("\n")[:-1]
    process.wait()
    process.stdout.close()
    record = EmbeddedRecord(tmp_path / "record.sqlite3")
    final = {e.incident for e in record.entries() if e.type == "Observation" and e.status == "final"}
    assert record.moved_aside is None
    assert set(taken) <= final
    record.close()
