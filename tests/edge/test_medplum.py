"""What only medplum shows: it keeps conditional references as they are, and its schema is the official one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft6Validator  # type: ignore[import-untyped]  # it ships no types

from edge.core.incident import Kind, Outcome
from edge.sinks import SinkRejected
from edge.sinks.fhir import NHS_NUMBER_SYSTEM, RecordCase, changed, raised
from tests.edge.record_peers import (
    INTEROP,
    NHS_NUMBER,
    Between,
    Json,
    Peer,
    ServerStore,
    a_case,
    between,
    counts,
    fhir_record,
    medplum,
    story,
)

SCHEMA = INTEROP / "node_modules" / "@medplum" / "definitions" / "dist" / "fhir" / "r4" / "fhir.schema.json"
CONDITIONAL = f"Patient?identifier={NHS_NUMBER_SYSTEM}|{NHS_NUMBER}"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    server = medplum(tmp_path_factory.mktemp("medplum"))
    server.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
    yield server
    server.kill()


def test_the_whole_story_told_twice_is_there_once(peer: Peer, tmp_path: Path) -> None:
    case = a_case()
    with fhir_record(peer.base_url, tmp_path, auth="none", token_file="") as record:
        for item in [*story(case), *story(case)]:
            record.deliver(item)
        assert counts(ServerStore(record, peer), case) == {
            "Observation": 1,
            "CommunicationRequest": 1,
            "Communication": 2,
            "Task": 1,
            "Device": 1,
            "Location": 1,
            "Provenance": 2,
            "AdverseEvent": 1,
        }


def test_it_keeps_a_conditional_reference_as_it_is_so_it_is_sent_none(peer: Peer, tmp_path: Path) -> None:
    observation = json.loads(raised(a_case()).body)["bundle"]["entry"][2]["resource"]
    assert observation["subject"]["reference"] == CONDITIONAL
    loose = {key: value for key, value in observation.items() if key != "device"}
    kept = peer.ask("POST", "Observation", loose)
    assert kept["subject"]["reference"] == CONDITIONAL  # which no patient's record would show
    with (
        between(Between(peer)) as proxy,
        fhir_record(proxy.base_url, tmp_path, auth="none", token_file="") as record,
    ):
        for item in story(a_case()):
            record.deliver(item)
    assert not [body for _, path, body in proxy.seen if b"Patient?" in body and not path.endswith("_search")]


def test_what_is_not_valid_is_refused_and_parked(peer: Peer, tmp_path: Path) -> None:
    item = raised(a_case())
    body = json.loads(item.body)
    body["bundle"]["entry"][2]["resource"]["likelihood"] = "high"
    spoilt = type(item)(item.key, item.incident, json.dumps(body).encode())
    with (
        fhir_record(peer.base_url, tmp_path, auth="none", token_file="") as record,
        pytest.raises(SinkRejected, match="likelihood"),
    ):
        record.deliver(spoilt)


# -- the official schema ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(peer: Peer) -> Json:
    document: Json = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert document["id"] == "http://hl7.org/fhir/json-schema/4.0"
    return document


def faults(schema: Json, resource: Json) -> list[str]:
    own = {"definitions": schema["definitions"], "$ref": f"#/definitions/{resource['resourceType']}"}
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}"
        for error in Draft6Validator(own).iter_errors(resource)
    ]


def everything_sent(case: RecordCase, outcome: Outcome) -> Iterator[Json]:
    """Yield each bundle of a story, its resources, and what becomes of them by the updates."""
    for item in story(case, outcome):
        body = json.loads(item.body)
        entries = {entry["fullUrl"]: entry["resource"] for entry in body["bundle"]["entry"]}
        yield from entries.values()
        yield from (changed(entries[update["entry"]], update) for update in body["updates"])
        yield body["bundle"]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.RESTORED])
@pytest.mark.parametrize("kind", [Kind.FALL, Kind.HELP_BUTTON])
def test_all_that_is_sent_fits_the_official_schema(schema: Json, kind: Kind, outcome: Outcome) -> None:
    seen = set()
    for case in (
        a_case(kind=kind),
        a_case(kind=kind, drill=True, clock_ok=False, nhs_number="", room=None, model=None),
    ):
        for resource in everything_sent(case, outcome):
            assert faults(schema, resource) == []
            seen.add(resource["resourceType"])
    assert {"Bundle", "Observation", "Task", "Communication", "Provenance"} <= seen
    assert ("AdverseEvent" in seen) == (outcome is Outcome.FALL)


@pytest.mark.parametrize(
    "spoil", [lambda r: r.pop("code"), lambda r: r.update(extra=1), lambda r: r.update(status=7)]
)
def test_the_schema_does_find_faults(schema: Json, spoil: Any) -> None:
    observation = json.loads(raised(a_case()).body)["bundle"]["entry"][2]["resource"]
    assert faults(schema, observation) == []
    spoil(observation)
    assert faults(schema, observation)
