from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.settings import HomeSettings, RecordSettings, ResidentSettings, Settings
from edge.sinks.commission import Finding, commission
from edge.sinks.fhir import NHS_NUMBER_SYSTEM
from edge.sinks.record import RECORD_FILE, EmbeddedRecord
from tests.edge.brokers import free_port
from tests.edge.in_process import run_here
from tests.edge.record_peers import (
    LOCAL_SYSTEM,
    NHS_NUMBER,
    OTHER_NHS_NUMBER,
    Answer,
    Between,
    Peer,
    between,
)

RESIDENTS = (
    ResidentSettings(id="r12", room="12", nhs_number=NHS_NUMBER),
    ResidentSettings(id="r14", room="14", local_id="RH-14"),
    ResidentSettings(id="r15", room="15"),
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    server = Peer(tmp_path_factory.mktemp("fhir"), free_port(), [])
    server.start()
    server.add_patient(NHS_NUMBER_SYSTEM, NHS_NUMBER)
    server.add_patient(LOCAL_SYSTEM, "RH-14")
    yield server
    server.kill()


def looked(folder: Path, base_url: str, *residents: ResidentSettings, **changes: Any) -> dict[str, Finding]:
    (folder / "token").write_text(changes.pop("token", "edge-token"))
    wanted = {"auth": "bearer", "token_file": "token", "patient_local_system": LOCAL_SYSTEM, **changes}
    record = RecordSettings(kind="fhir-r4", base_url=base_url, identifier_system="https://h.example/id", **wanted)
    settings = Settings(home=HomeSettings(id="site-7"), resident=residents, record=record)
    return {finding.what: finding for finding in commission(settings, folder, folder)}


def test_a_record_that_can_be_used_is_well_in_every_part(peer: Peer, tmp_path: Path) -> None:
    found = looked(tmp_path, peer.base_url, *RESIDENTS)
    assert list(found) == [
        "reachable",
        "token",
        "FHIR",
        "reading",
        "transactions",
        "each entry once",
        "types of entries",
        "trail",
        "versions",
        "clock",
        "resident r12",
        "resident r14",
        "resident r15",
    ]
    assert all(finding.well for finding in found.values())
    assert "no number" in found["resident r15"].said
    assert "AdverseEvent: tried" in found["trail"].said  # sekmet takes it and does not name it


def test_nothing_is_written_and_no_number_is_in_an_address(peer: Peer, tmp_path: Path) -> None:
    with between(Between(peer)) as proxy:
        looked(tmp_path, proxy.base_url, *RESIDENTS)
    assert {(method, path) for method, path, _ in proxy.seen if method != "GET"} == {
        ("POST", "/fhir/Patient/_search")
    }
    assert not [path for _, path, __ in proxy.seen if NHS_NUMBER in path]


def test_a_resident_who_is_not_found_once_is_named_by_id_alone(peer: Peer, tmp_path: Path) -> None:
    peer.add_patient(LOCAL_SYSTEM, "twice")
    peer.add_patient(LOCAL_SYSTEM, "twice")
    nobody = ResidentSettings(id="r1", room="1", nhs_number=OTHER_NHS_NUMBER)
    found = looked(tmp_path, peer.base_url, nobody, ResidentSettings(id="r2", room="2", local_id="twice"))
    assert "no patients" in found["resident r1"].said
    assert "2 patients" in found["resident r2"].said
    assert not found["resident r1"].well
    assert found["resident r1"].remedy
    assert OTHER_NHS_NUMBER not in str(found)


def test_a_server_that_is_not_there_ends_the_look(tmp_path: Path) -> None:
    found = looked(tmp_path, f"http://127.0.0.1:{free_port()}/fhir", *RESIDENTS)
    assert [(f.what, f.well) for f in found.values()] == [("reachable", False)]
    assert "base_url" in found["reachable"].remedy


def test_a_key_that_is_not_there_and_one_that_is_refused_are_told_apart(peer: Peer, tmp_path: Path) -> None:
    found = looked(tmp_path, peer.base_url, token_file="none")
    assert list(found) == ["reachable", "token"]
    assert "secret none" in found["token"].said
    found = looked(tmp_path, peer.base_url, token="of yesterday")
    assert list(found) == ["reachable", "token", "FHIR", "reading"]
    assert "401" in found["reading"].said


def test_a_page_of_a_guest_network_is_no_record(tmp_path: Path) -> None:
    with between(Between(before=lambda *_: (200, {}, b"<html>sign in</html>"))) as proxy:
        found = looked(tmp_path, proxy.base_url)
    assert (found["reachable"].well, found["FHIR"].well) == (True, False)


def test_what_a_server_cannot_do_is_said_with_what_to_do(peer: Peer, tmp_path: Path) -> None:
    def after(_method: str, path: str, answer: Answer) -> Answer:
        if not path.endswith("/metadata"):
            return answer
        statement = json.loads(answer[2])
        rest = statement["rest"][0]
        rest["interaction"] = []
        rest["resource"] = [r for r in rest["resource"] if r["type"] != "Task"]
        for resource in rest["resource"]:
            resource |= {"conditionalCreate": resource["type"] != "Device", "updateCreate": False}
            resource |= {"versioning": "no-version"}
        return (answer[0], {"Date": "Sun, 22 Nov 2020 03:14:07 GMT"}, json.dumps(statement).encode())

    with between(Between(peer, after=after)) as proxy:
        found = looked(tmp_path, proxy.base_url)
    assert not found["transactions"].well
    assert "Device" in found["each entry once"].said
    assert "Task" in found["types of entries"].said
    assert "Provenance left out" in found["trail"].said
    assert "somebody else" in found["versions"].said
    assert all(found[what].remedy for what in ("transactions", "each entry once", "types of entries"))


def test_a_clock_that_is_off_and_the_example_system_are_remarked(peer: Peer, tmp_path: Path) -> None:
    late = {"Date": "Sun, 22 Nov 2020 03:14:07 GMT"}
    with between(Between(peer, after=lambda _m, _p, answer: (answer[0], late, answer[2]))) as proxy:
        found = looked(tmp_path, proxy.base_url)
        assert "NTP" in found["clock"].said
        record = RecordSettings(kind="fhir-r4", base_url=proxy.base_url, auth="bearer", token_file="token")
        settings = Settings(home=HomeSettings(id="site-7"), record=record)
        assert "identifiers" in [finding.what for finding in commission(settings, tmp_path, tmp_path)]


def test_the_command_ends_with_status_one_and_what_to_do(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("edge-token")
    config = tmp_path / "fallwatch.toml"
    text = '[home]\nid = "site-7"\n[[resident]]\nid = "r12"\nroom = "12"\nnhs_number = "{number}"\n'
    text += '[record]\nkind = "fhir-r4"\nbase_url = "{url}"\nauth = "bearer"\ntoken_file = "token"\n'
    config.write_text(text.format(number=NHS_NUMBER, url=peer.base_url))
    command = ("record", "check", "--config", config, "--state", tmp_path)
    status, out, _ = run_here(monkeypatch, capsys, *command)
    assert (status, out.splitlines()[-1]) == (0, "The record can be used.")
    config.write_text(text.format(number=OTHER_NHS_NUMBER, url=peer.base_url))
    status, out, _ = run_here(monkeypatch, capsys, *command)
    assert status == 1
    assert "FAIL resident r12: no patients" in out
    assert OTHER_NHS_NUMBER not in out
    status, out, _ = run_here(monkeypatch, capsys, *command, "--json")
    told = json.loads(out)
    assert (status, told["record"], told["well"]) == (1, "fhir-r4", False)
    assert [c["what"] for c in told["checks"] if not c["well"]] == ["resident r12"]


def test_the_record_on_this_machine_is_tried_and_not_begun_by_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(state: Path) -> tuple[int, str]:
        command = ("record", "check", "--config", tmp_path / "fallwatch.toml", "--state", state)
        ended, out, _ = run_here(monkeypatch, capsys, *command)
        return ended, out

    (tmp_path / "fallwatch.toml").write_text('[home]\nid = "site-7"\n')
    (tmp_path / "file").write_text("")
    status, out = check(tmp_path)
    assert (status, "none yet" in out) == (0, True)
    assert not (tmp_path / RECORD_FILE).exists()
    assert check(tmp_path / "file")[0] == 1
    record = EmbeddedRecord(tmp_path / RECORD_FILE)
    record.check()
    record.close()
    status, out = check(tmp_path)
    assert (status, out.splitlines()[0]) == (0, "ok   record on this machine")
    (tmp_path / RECORD_FILE).unlink()
    (tmp_path / RECORD_FILE).mkdir()
    assert check(tmp_path)[0] == 1
