from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import OutboxItem
from edge.settings import RecordSettings, ResidentSettings
from edge.sinks.fhir import (
    CREATED,
    OWN_IDS,
    Capabilities,
    PageAttempt,
    RecordCase,
    acknowledged,
    attended,
    changed,
    paged,
    raised,
    receiver,
    resolved,
)
from edge.sinks.record import ABOUT_THE_ITEM, TRY_LATER

NHS_NUMBER = "9434765919"
AT = datetime(2026, 11, 22, 3, 14, 7, 250_000, tzinfo=UTC)
LATER = AT + timedelta(minutes=9)
FALL = Incident(
    incident="0193510c-8f2a-7c31-9d1e-2b6f0a4c5d7e",
    home="site-7",
    kind=Kind.FALL,
    raised_at=AT + timedelta(seconds=2.25),
    impact_at=AT,
    resident="r12",
    room="12",
    bed="A",
    wearable="0042",
    placement="wrist",
    probability=0.9731,
    model="wrist-1",
)
RESIDENT = ResidentSettings(id="r12", room="12", bed="A", nhs_number=NHS_NUMBER, wearable="0042")
CASE = RecordCase(FALL, RESIDENT, RecordSettings(), "FALL? RM 12 BED A 03:14", 12.4)
REFUSED = PageAttempt(
    "site-7-8", "espa-1", "12", "FALL? RM 12 BED A 03:14", AT, accepted=False, reason="no answer"
)

letters = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
incidents = st.builds(
    Incident,
    incident=st.integers(0, 1 << 47).map(new_incident_id),
    home=st.just("site-7"),
    kind=st.sampled_from([Kind.FALL, Kind.LONG_LIE, Kind.HELP_BUTTON]),
    raised_at=st.just(AT),
    impact_at=st.none() | st.just(AT),
    clock_ok=st.booleans(),
    room=st.none() | letters,
    bed=st.none() | letters,
    wearable=st.none() | st.just("0042"),
    probability=st.none() | st.floats(0, 1),
    model=st.none() | st.just("wrist-1"),
    drill=st.booleans(),
)
residents = st.none() | st.builds(
    ResidentSettings,
    id=st.just("r12"),
    room=st.just("12"),
    nhs_number=st.sampled_from(["", NHS_NUMBER]),
    local_id=st.just("") | letters,
)
cases = st.builds(
    RecordCase,
    incidents,
    residents,
    st.builds(RecordSettings, patient_local_system=st.sampled_from(["", "https://home.example/resident"])),
    st.just("FALL? RM 12"),
    st.none() | st.floats(0, 1e5),
)
verdicts = st.sampled_from([o for o in Outcome if o is not Outcome.RESTORED])


def body(item: OutboxItem) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(item.body)
    return document


def resources(item: OutboxItem) -> dict[str, dict[str, Any]]:
    return {e["resource"]["resourceType"]: e["resource"] for e in body(item)["bundle"]["entry"]}


def everything(case: RecordCase, outcome: Outcome) -> list[OutboxItem]:
    return [
        raised(case),
        paged(case, REFUSED),
        paged(case, PageAttempt("site-7-9", "espa-2", "0", "FALL? RM 12", AT, accepted=True)),
        acknowledged(case, by="night staff", at=LATER),
        attended(case, at=LATER),
        resolved(case, outcome=outcome, by="night staff", at=LATER, on_floor_s=540.0),
    ]


def final(item: OutboxItem, name: str) -> dict[str, Any]:
    """Return a freshly created resource after the item's updates."""
    entries = {e["fullUrl"]: e["resource"] for e in body(item)["bundle"]["entry"]}
    for update in body(item)["updates"]:
        entries[update["entry"]] = changed(entries[update["entry"]], update)
    return next(r for r in entries.values() if r["resourceType"] == name)


def test_an_alert_is_a_preliminary_observation_with_a_page_and_a_task() -> None:
    told = resources(raised(CASE))
    assert set(told) == {"Device", "Location", "Observation", "CommunicationRequest", "Task", "Provenance"}
    observation = told["Observation"]
    assert observation["status"] == "preliminary"
    assert observation["code"]["coding"][0]["code"] == "1912002"
    assert observation["identifier"][0]["value"] == f"site-7/{FALL.incident}"
    assert observation["subject"]["reference"].endswith(
        f"?identifier=https://fhir.nhs.uk/Id/nhs-number|{NHS_NUMBER}"
    )
    assert observation["effectiveDateTime"] == "2026-11-22T03:14:07.250Z"
    values = [c.get("valueString") or c["valueQuantity"]["value"] for c in observation["component"]]
    assert values == [0.973, "wrist-1", 12]
    assert told["CommunicationRequest"]["priority"] == "stat"
    assert told["Task"]["code"]["text"] == "Post-fall check"
    assert told["Location"]["name"] == "Room 12 bed A"


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_every_resource_is_valid_r4_before_and_after_its_updates(case: RecordCase, outcome: Outcome) -> None:
    for item in everything(case, outcome):
        document = body(item)
        get_fhir_model_class("Bundle").model_validate(document["bundle"])
        entries = {e["fullUrl"]: e["resource"] for e in document["bundle"]["entry"]}
        for update in document["updates"]:
            entries[update["entry"]] = changed(entries[update["entry"]], update)
        for resource in entries.values():
            get_fhir_model_class(resource["resourceType"]).model_validate(resource)


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_items_stand_alone_and_are_minted_the_same_every_time(case: RecordCase, outcome: Outcome) -> None:
    items = everything(case, outcome)
    assert items == everything(case, outcome)
    assert len({item.key for item in items}) == len(items)
    for item in items:
        entries = body(item)["bundle"]["entry"]
        names = {e["fullUrl"] for e in entries}
        assert len(names) == len(entries)
        quoted = {part for part in item.body.decode().split('"') if part.startswith("urn:uuid:")}
        assert quoted <= names


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_an_update_made_twice_changes_nothing_more(case: RecordCase, outcome: Outcome) -> None:
    for item in everything(case, outcome):
        entries = {e["fullUrl"]: e["resource"] for e in body(item)["bundle"]["entry"]}
        for update in body(item)["updates"]:
            once = changed(entries[update["entry"]], update)
            assert changed(once, update) == once


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_a_drill_never_reads_as_a_fall(case: RecordCase, outcome: Outcome) -> None:
    for item in everything(case, outcome):
        told = resources(item)
        if case.incident.drill:
            assert "1912002" not in item.body.decode()
            assert not {"Task", "AdverseEvent"} & set(told)
            assert told["Observation"]["code"]["text"].startswith("DRILL")
            own = [r for name, r in told.items() if name not in ("Device", "Location")]
            assert all(r["meta"]["tag"][0]["code"] == "HTEST" for r in own)
        else:
            assert "DRILL" not in item.body.decode()


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_only_a_person_makes_it_a_fall(case: RecordCase, outcome: Outcome) -> None:
    *before, verdict = everything(case, outcome)
    for item in before:
        assert "AdverseEvent" not in resources(item)
        assert final(item, "Observation")["status"] == "preliminary"
    assert ("AdverseEvent" in resources(verdict)) == (outcome is Outcome.FALL and not case.incident.drill)


@settings(deadline=None)  # the machine may be busy
@given(case=cases, outcome=verdicts)
def test_the_nhs_number_stands_only_where_the_patient_is_meant(case: RecordCase, outcome: Outcome) -> None:
    for item in everything(case, outcome):
        text = item.body.decode()
        assert text.count(NHS_NUMBER) == text.count(
            f"Patient?identifier=https://fhir.nhs.uk/Id/nhs-number|{NHS_NUMBER}"
        )
        assert NHS_NUMBER not in item.key


@pytest.mark.parametrize(
    ("kind", "outcome", "status", "coded"),
    [
        (Kind.FALL, Outcome.FALL, "final", True),
        (Kind.LONG_LIE, Outcome.FALL, "final", True),
        (Kind.FALL, Outcome.LOWERED, "final", False),
        (Kind.FALL, Outcome.NEAR_FALL, "final", False),
        (Kind.FALL, Outcome.NOT_A_FALL, "entered-in-error", True),
        (Kind.FALL, Outcome.DRILL, "entered-in-error", True),
        (Kind.HELP_BUTTON, Outcome.NOT_A_FALL, "final", False),  # the button was pressed all the same
        (Kind.HELP_BUTTON, Outcome.FALL, "final", False),
    ],
)
def test_the_verdict_decides_the_observation(kind: Kind, outcome: Outcome, status: str, coded: bool) -> None:
    incident = Incident(incident=FALL.incident, home="site-7", kind=kind, raised_at=AT)
    case = RecordCase(incident, RESIDENT, RecordSettings(), "FALL? RM 12")
    observation = final(resolved(case, outcome=outcome, by="night staff", at=LATER), "Observation")
    assert observation["status"] == status
    assert ("coding" in observation["code"]) == coded
    assert observation["note"][-1]["authorString"] == "night staff"


def test_the_task_follows_the_people() -> None:
    assert final(acknowledged(CASE, by="night staff", at=LATER), "Task")["owner"] == {"display": "night staff"}
    assert final(attended(CASE, at=LATER), "Task")["status"] == "in-progress"
    done = final(resolved(CASE, outcome=Outcome.NOT_A_FALL, by="", at=LATER), "Task")
    assert (done["status"], done["executionPeriod"]["end"]) == ("completed", "2026-11-22T03:23:07.250Z")


def test_what_people_changed_by_themselves_stands() -> None:
    item = resolved(CASE, outcome=Outcome.NOT_A_FALL, by="night staff", at=LATER)
    theirs = {**resources(item)["Observation"], "status": "amended"}
    assert changed(theirs, body(item)["updates"][0])["status"] == "amended"
    item = acknowledged(CASE, by="night staff", at=LATER)
    theirs = {**resources(item)["Task"], "owner": {"display": "day staff"}}
    assert changed(theirs, body(item)["updates"][1])["owner"] == {"display": "day staff"}


def test_a_page_that_was_not_accepted_says_why() -> None:
    communication = resources(paged(CASE, REFUSED))["Communication"]
    assert communication["status"] == "not-done"
    assert communication["statusReason"]["text"] == "no answer"
    assert "received" not in communication


def test_times_by_a_bad_clock_are_marked() -> None:
    incident = Incident(incident=FALL.incident, home="site-7", kind=Kind.FALL, raised_at=AT, clock_ok=False)
    case = RecordCase(incident, None, RecordSettings(), "FALL?")
    assert "not synchronised" in resources(raised(case))["Observation"]["note"][0]["text"]


def test_a_resident_without_numbers_is_named_by_the_homes_own_id() -> None:
    case = RecordCase(FALL, ResidentSettings(id="r12", room="12"), RecordSettings(), "FALL?")
    subject = resources(raised(case))["Observation"]["subject"]
    assert subject["identifier"]["value"] == "site-7/r12"
    assert "reference" not in subject


def test_a_blind_system_is_not_for_the_care_record() -> None:
    blind = Incident(incident=FALL.incident, home="site-7", kind=Kind.BLIND, raised_at=AT, cause="dongle gone")
    with pytest.raises(ValueError, match="care record"):
        RecordCase(blind, None, RecordSettings(), "")


def test_only_findings_about_a_resident_resolve() -> None:
    with pytest.raises(ValueError, match="restored"):
        resolved(CASE, outcome=Outcome.RESTORED, by="", at=LATER)


def test_rooms_and_beds_of_any_name_are_places_of_their_own() -> None:
    rooms = [("12/A", None), ("12", "A"), ("12", None), ("12 A", None), ("12_2f_A", None), ("Zimmer ß|1,2", None)]
    values = []
    for room, bed in rooms:
        incident = Incident(FALL.incident, "site-7", Kind.FALL, AT, room=room, bed=bed)
        location = resources(raised(RecordCase(incident, None, RecordSettings(), "FALL?")))["Location"]
        values.append(location["identifier"][0]["value"])
    assert len(set(values)) == len(rooms)
    assert values[1] == "site-7/12/A"
    assert not set("".join(values)) & set("|,$\\&%+=#?ß")  # what some servers do not find again


@pytest.mark.parametrize(
    ("to", "shown"),
    [
        ("12", "12"),
        ("999999", "999999"),
        ("+44 7700 900123", "...123"),
        ("07700900123", "...123"),
        ("https://push.example/secret/topic", "push.example"),
        ("sip:desk@192.168.1.20", "sip:desk@192.168.1.20"),
        ("sip:07700900123@pbx", "sip:...123@pbx"),
    ],
)
def test_whom_a_page_was_for_is_shown_without_telephone_numbers(to: str, shown: str) -> None:
    assert receiver(to) == shown
    page = PageAttempt("1", "sms-1", to, "FALL? RM 12", AT, accepted=True)
    assert resources(paged(CASE, page))["Communication"]["recipient"] == [{"display": f"pager {shown}"}]


# -- what a server says of itself ---------------------------------------------------------------


def statement(**rest: Any) -> dict[str, Any]:
    kinds = [
        {"type": name, "conditionalCreate": True, "updateCreate": True, "versioning": "versioned"}
        for name in (*CREATED, *OWN_IDS)
    ]
    server = {"mode": "server", "interaction": [{"code": "transaction"}], "resource": kinds, **rest}
    return {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [server]}


def test_a_server_that_can_do_it_all_has_no_obstacle() -> None:
    able = Capabilities.of(statement())
    assert able.obstacle == ""
    assert (able.missing, able.left_out, able.doubling, able.unversioned) == ((), frozenset(), (), ())


def test_what_a_server_does_not_name_is_missing_or_to_be_tried() -> None:
    able = Capabilities.of(statement(resource=[{"type": "Observation", "conditionalCreate": True}]))
    assert set(able.missing) == set(CREATED) - {"Observation"}
    assert able.left_out == frozenset()
    assert able.obstacle == ""


@pytest.mark.parametrize("version", ["", "3.0.2", "1.0.2", "4.1.0", "4.6.0", "5.0.0", "40.0"])
def test_another_fhir_than_r4_is_an_obstacle(version: str) -> None:
    assert "R4 is needed" in Capabilities.of({**statement(), "fhirVersion": version}).obstacle


def test_a_client_s_part_of_a_statement_says_nothing_of_the_server() -> None:
    client = {"mode": "client", "interaction": [{"code": "transaction"}]}
    both = {**statement(interaction=[]), "rest": [client, *statement(interaction=[])["rest"]]}
    assert "transactions" in Capabilities.of(both).obstacle


@pytest.mark.parametrize(
    "document", [{}, {"resourceType": "Bundle"}, {**statement(), "rest": 1}, {**statement(), "rest": [1]}]
)
def test_what_is_no_statement_is_no_news(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="CapabilityStatement"):
        Capabilities.of(document)


# -- the page for those who connect systems -----------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "care-record.md").read_text(encoding="utf-8")


def test_the_page_names_every_identifier_type_and_code_that_is_sent() -> None:
    unknown = RecordCase(FALL, ResidentSettings(id="r12", room="12"), RecordSettings(), "FALL?")
    drill = RecordCase(replace(FALL, drill=True), RESIDENT, RecordSettings(), "FALL?")
    sent = "".join(
        item.body.decode() for case in (CASE, unknown, drill) for item in everything(case, Outcome.FALL)
    )
    systems = set(re.findall(rf'"{re.escape(RecordSettings().identifier_system)}(/[a-z-]+)"', sent))
    assert systems == set(re.findall(r"`(/[a-z-]+)`", PAGE))
    assert all(f"`{name}`" in PAGE for name in set(re.findall(r'"resourceType":"(\w+)"', sent)) - {"Bundle"})
    assert all(code in PAGE for code in set(re.findall(r'"code":"([^"]+)"', sent)) - {"1", "s"})


def test_the_page_names_every_status_that_is_tried_again_later() -> None:
    for status in {*TRY_LATER, *ABOUT_THE_ITEM} - {501}:
        assert re.search(rf"^\|[^|]*\b{status}\b[^|]*\|[^|]*tried again", PAGE, re.M), status
