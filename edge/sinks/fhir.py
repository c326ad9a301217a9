"""What the care record is told, as FHIR R4: pure functions from facts to bytes.

Each change of an incident becomes one outbox item, minted once and stored before the first send.
Its body is ``{"incident", "room", "bundle", "updates"}``: one transaction that creates what is not
there yet, then changes to resources that this transaction names. Every item carries the creates of
the whole incident, so it stands alone: items may come late, twice or out of order, and the record
ends the same. No item asserts more than is known: before a person confirmed, nothing is ``final``.

Who it is about, in this order: the Patient with the NHS number, the Patient with the home's own
number, or, where a resident has neither, a reference by identifier alone. Such an entry belongs to
no Patient yet, but it is in the record with time and room, where a person can put it right; parked
in this box nobody would look for it.

Ids are UUIDv5 of the incident's id. A drill is tagged HTEST, never carries the SNOMED code and
makes neither Task nor AdverseEvent, so that no rehearsal reads as a fall in somebody's history.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid5

from edge.core.incident import Incident, Kind, Outcome, utc_text
from edge.journal import OutboxItem
from edge.settings import RecordSettings, ResidentSettings

NHS_NUMBER_SYSTEM = "https://fhir.nhs.uk/Id/nhs-number"
_CODES = "http://terminology.hl7.org/CodeSystem/"
# The one fall code whose meaning was read and that does not claim a cause or an intent.
_FALL = {"system": "http://snomed.info/sct", "code": "1912002", "display": "Fall"}
_DRILL_TAG = {"system": f"{_CODES}v3-ActReason", "code": "HTEST", "display": "test health data"}
ALERT_TEXT = {
    Kind.FALL: "Suspected fall (automatic detection, not confirmed)",
    Kind.LONG_LIE: "Suspected fall with a long time on the floor (automatic detection, not confirmed)",
    Kind.HELP_BUTTON: "Help button pressed",
}
FOUND_TEXT = {
    Outcome.FALL: "fall",
    Outcome.LOWERED: "lowered to the floor",
    Outcome.NEAR_FALL: "near fall",
    Outcome.NOT_A_FALL: "not a fall",
    Outcome.DRILL: "rehearsal",
}
_OPEN_TASK = ("requested", "accepted", "in-progress")
# What a server is sent: the first with `ifNoneExist`, the others under ids of ours (see `_put`).
CREATED = ("Device", "Location", "Observation", "CommunicationRequest", "Communication", "Task")
OWN_IDS = ("Provenance", "AdverseEvent")

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server says of itself in its CapabilityStatement, as far as we depend on it.

    That it resolves conditional references (``Patient?identifier=...``) no statement can say, so none is
    ever sent to a server: see `edge.sinks.record.FhirRecord`.
    """

    fhir_version: str
    transaction: bool
    types: Mapping[str, bool]  # each that it names: whether it takes ids of ours
    doubling: tuple[str, ...]  # of `CREATED`, those it names without conditional create
    unversioned: tuple[str, ...]  # of `CREATED`, those whose versions it does not tell apart

    @classmethod
    def of(cls, statement: Resource) -> Capabilities:
        """Read a statement.

        Raises:
            ValueError: it is none.
        """
        try:
            if statement["resourceType"] != "CapabilityStatement":
                raise ValueError("no CapabilityStatement")
            rests = [rest for rest in statement.get("rest", []) if rest.get("mode", "server") == "server"]
            server = rests[0] if rests else {}
            named = {resource["type"]: resource for resource in server.get("resource", [])}
            return cls(
                fhir_version=str(statement.get("fhirVersion", "")),
                transaction=any(i["code"] == "transaction" for i in server.get("interaction", [])),
                types={name: resource.get("updateCreate") is True for name, resource in named.items()},
                doubling=tuple(t for t in CREATED if t in named and not named[t].get("conditionalCreate")),
                unversioned=tuple(t for t in CREATED if named.get(t, {}).get("versioning") == "no-version"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no CapabilityStatement ({type(error).__name__})") from None

    @property
    def missing(self) -> tuple[str, ...]:
        """The types that we cannot do without and that the server does not name."""
        return tuple(t for t in CREATED if t not in self.types)

    @property
    def left_out(self) -> frozenset[str]:
        """The types for which the server says that it takes no ids of ours."""
        return frozenset(t for t in OWN_IDS if self.types.get(t) is False)

    @property
    def obstacle(self) -> str:
        """Why nothing can be delivered to this server; empty if it can."""
        if not self.fhir_version.startswith(("4.0", "4.3")):
            return f"the server speaks FHIR {self.fhir_version or '?'}; R4 is needed"
        if not self.transaction:
            return "the server says that it takes no transactions"
        if self.doubling:  # every item brings the creates of its incident along
            return f"the server says that it does not create conditionally: {self.doubling[0]} would be doubled"
        return ""


@dataclass(frozen=True, slots=True)
class RecordCase:
    """One incident with all its record entries need.

    Raises:
        ValueError: the incident is technical; the care record is about people.
    """

    incident: Incident
    resident: ResidentSettings | None
    record: RecordSettings
    page_text: str  # the first page, as sent
    on_floor_s: float | None = None  # when raised

    def __post_init__(self) -> None:
        if self.incident.kind not in ALERT_TEXT:
            raise ValueError(f"{self.incident.kind} is not for the care record")


@dataclass(frozen=True, slots=True)
class PageAttempt:
    """One try to send one page on one channel."""

    attempt: str  # unique in the home, such as the number of the journal's event
    channel: str
    to: str
    text: str
    at: datetime
    accepted: bool
    reason: str = ""  # why it was not accepted


def raised(case: RecordCase) -> OutboxItem:
    """Tell of the alert: Observation, CommunicationRequest, Task, and Provenance of the device."""
    incident = case.incident
    provenance = {
        "resourceType": "Provenance",
        **_meta(case),
        "target": [_link(case, "observation")],
        "occurredDateTime": utc_text(incident.impact_at or incident.raised_at),
        "recorded": utc_text(incident.raised_at),
        **_location(case),
        "agent": [{"type": _coded("provenance-participant-type", "assembler"), "who": _link(case, "device")}],
    }
    return _item(case, "raised", [_put(case, "provenance", provenance)])


def paged(case: RecordCase, page: PageAttempt) -> OutboxItem:
    """Tell of one attempt to page: a Communication, ``completed`` or ``not-done`` with its reason.

    ``received`` stays empty: a transmitter's ACK is not a person.
    """
    outcome: Resource = (
        {"status": "completed", "sent": utc_text(page.at)}
        if page.accepted
        else {
            "status": "not-done",
            "statusReason": {"text": page.reason or "not accepted"},
            "note": [{"time": utc_text(page.at), "text": "The page was not accepted at this time."}],
        }
    )
    communication = {
        "resourceType": "Communication",
        **_meta(case),
        "basedOn": [_link(case, "page-request")],
        **outcome,
        "priority": "stat",
        "medium": [{"text": f"channel {page.channel}"}],
        **_subject(case),
        "about": [_link(case, "observation")],
        "recipient": [{"display": f"pager {receiver(page.to)}"}],
        "sender": _link(case, "device"),
        "payload": [{"contentString": page.text}],
    }
    value = f"{case.incident.home}/{page.attempt}"
    entry = _post(case, "page", value, communication, uuid_name=f"page/{page.attempt}")
    return _item(case, f"page/{page.attempt}", [entry])


def acknowledged(case: RecordCase, *, by: str, at: datetime) -> OutboxItem:
    """Tell that a person answered: the request is met, the Task is theirs."""
    updates = [
        _update(case, "page-request", "completed", ["active"], note=_note("Acknowledged", by, at)),
        *_task_update(case, "accepted", _OPEN_TASK[:1], {"owner": {"display": by}} if by else {}),
    ]
    return _item(case, "acknowledged", [], updates)


def attended(case: RecordCase, *, at: datetime) -> OutboxItem:
    """Tell that a person is with the resident."""
    fill = {"executionPeriod": {"start": utc_text(at)}}
    return _item(case, "attended", [], _task_update(case, "in-progress", _OPEN_TASK[:2], fill))


def resolved(
    case: RecordCase, *, outcome: Outcome, by: str, at: datetime, on_floor_s: float | None = None
) -> OutboxItem:
    """Tell what staff found; a person's word, so only now may the record say that somebody fell.

    Args:
        case: as for every other item of this incident.
        outcome: anything but ``restored``, which is for technical incidents.
        by: who found it, as the home names its staff.
        at: when they said so.
        on_floor_s: how long the resident lay in all, where that is known.

    Raises:
        ValueError: the outcome is ``restored``.
    """
    if outcome not in FOUND_TEXT:
        raise ValueError(f"{outcome} is no finding about a resident")
    incident = case.incident
    mistake = outcome is Outcome.DRILL or (outcome is Outcome.NOT_A_FALL and incident.kind is not Kind.HELP_BUTTON)
    status = "cancelled" if incident.drill else "entered-in-error" if mistake else "final"
    changes: Resource = {}
    if status == "final" and incident.kind is not Kind.HELP_BUTTON:
        changes["code"] = (
            {"coding": [_FALL], "text": "Fall (detected automatically, confirmed by staff)"}
            if outcome is Outcome.FALL
            # No code was verified for these two, and Fall would say too much.
            else {"text": f"{FOUND_TEXT[outcome].capitalize()} (alert raised automatically, found by staff)"}
        )
    if on_floor_s is not None:
        changes["component"] = [*_components(case), _seconds("seconds on the floor in all", on_floor_s)]
    entries = []
    verified = [_link(case, "observation")]
    if outcome is Outcome.FALL and not incident.drill:
        entries.append(_put(case, "adverse-event", _adverse_event(case, by, at)))
        verified.append({"reference": f"AdverseEvent/{_uuid(case, 'adverse-event')}"})
    provenance = {
        "resourceType": "Provenance",
        **_meta(case),
        "target": verified,
        "occurredDateTime": utc_text(at),
        "recorded": utc_text(at),
        **_location(case),
        "agent": [
            {"type": _coded("provenance-participant-type", "verifier"), "who": {"display": by or "care staff"}}
        ],
    }
    entries.append(_put(case, "verdict", provenance))
    verdict = _note(f"Found by staff: {FOUND_TEXT[outcome]}", by, at)
    task = "cancelled" if outcome is Outcome.DRILL else "completed"
    updates = [
        _update(case, "observation", status, ["preliminary"], changes=changes, note=verdict),
        _update(case, "page-request", "completed", ["active"]),
        *_task_update(case, task, _OPEN_TASK, {"executionPeriod": {"end": utc_text(at)}}),
    ]
    return _item(case, "resolved", entries, updates)


def tried(case: RecordCase, *, at: datetime) -> OutboxItem:
    """Write a test entry and withdraw it in one item, to see whether the record takes what a fall needs.

    It is a drill's, names no patient, and ends as entered in error.

    Raises:
        ValueError: the incident is no drill, or is about somebody.
    """
    if not case.incident.drill or case.resident is not None:
        raise ValueError("a test entry is a drill and about nobody")
    note = _note("Test of the connection: nothing happened", "fallwatch", at)
    withdrawn = [
        _update(case, name, "entered-in-error", over, note=note)
        for name, over in (("observation", ["preliminary"]), ("page-request", ["active"]))
    ]
    return _item(case, "tried", [], withdrawn)


def changed(resource: Resource, update: Resource) -> Resource:
    """Return a resource after an item's update; the same again when there is nothing left to do.

    Where people moved the status on by themselves, theirs stands. Facts that are missing are filled in.
    """
    new = copy.deepcopy(resource)
    if new.get("status") in update["over"]:
        new["status"] = update["status"]
        new.update(copy.deepcopy(update["set"]))
    _fill(new, update["fill"])
    for note in update["note"]:
        if all(old.get("text") != note["text"] for old in new.get("note", [])):
            new["note"] = [*new.get("note", []), note]
    return new


def without(entries: Iterable[Resource], types: frozenset[str]) -> list[Resource]:
    """Return the entries but for some types, and without what Provenance says of those."""
    kept = [copy.deepcopy(entry) for entry in entries if entry["resource"]["resourceType"] not in types]
    for entry in kept:
        if "target" in entry["resource"]:
            targets = entry["resource"]["target"]
            entry["resource"]["target"] = [t for t in targets if t["reference"].partition("/")[0] not in types]
    return kept


def patient_reference(record: RecordSettings, resident: ResidentSettings) -> str | None:
    """Return by which number a resident is a Patient: ``Patient?identifier=...``; None without one."""
    if resident.nhs_number:
        return _patient(NHS_NUMBER_SYSTEM, resident.nhs_number.replace(" ", ""))
    if resident.local_id and record.patient_local_system:
        return _patient(record.patient_local_system, resident.local_id)
    return None


def receiver(to: str) -> str:
    """Return whom a page was for as others may read it: of a telephone number the end, of a URL the host."""
    if "://" in to:
        return urlsplit(to).hostname or "a web address"
    return re.sub(r"\+?\d(?:[ -]?\d){6,}", lambda number: f"...{number[0][-3:]}", to)


def search_token(system: str, value: str) -> str:
    """Write an identifier as the value of a search parameter."""
    for special in "\\|,$":
        value = value.replace(special, "\\" + special)
    return f"{system}|{value}"


# -- resources ----------------------------------------------------------------------------------


def _observation(case: RecordCase) -> Resource:
    incident = case.incident
    text = ALERT_TEXT[incident.kind]
    code: Resource = {"text": f"DRILL, nothing happened: {text}" if incident.drill else text}
    if incident.kind is not Kind.HELP_BUTTON and not incident.drill:
        code = {"coding": [_FALL], **code}
    observation: Resource = {
        "resourceType": "Observation",
        **_meta(case),
        "status": "preliminary",
        "category": [_coded("observation-category", "activity")],
        "code": code,
        **_subject(case),
        "effectiveDateTime": utc_text(incident.impact_at or incident.raised_at),
        "issued": utc_text(incident.raised_at),
        "valueBoolean": True,
        "device": _link(case, "device"),
    }
    if components := _components(case):
        observation["component"] = components
    if not incident.clock_ok:
        observation["note"] = [{"text": "The clock was not synchronised: the times may be wrong."}]
    return observation


def _components(case: RecordCase) -> list[Resource]:
    incident = case.incident
    components: list[Resource] = []
    if incident.probability is not None:
        quantity = {"value": round(incident.probability, 3), "system": "http://unitsofmeasure.org", "code": "1"}
        components.append({"code": {"text": "classifier score"}, "valueQuantity": quantity})
    if incident.model is not None:
        components.append({"code": {"text": "model"}, "valueString": incident.model})
    if case.on_floor_s is not None:
        components.append(_seconds("seconds on the floor when raised", case.on_floor_s))
    return components


def _seconds(text: str, value_s: float) -> Resource:
    quantity = {"value": round(value_s), "unit": "s", "system": "http://unitsofmeasure.org", "code": "s"}
    return {"code": {"text": text}, "valueQuantity": quantity}


def _page_request(case: RecordCase) -> Resource:
    return {
        "resourceType": "CommunicationRequest",
        **_meta(case),
        "status": "active",
        "priority": "stat",
        **_subject(case),
        "about": [_link(case, "observation")],
        "payload": [{"contentString": case.page_text}],
        "authoredOn": utc_text(case.incident.raised_at),
        "sender": _link(case, "device"),
    }


def _task(case: RecordCase) -> Resource:
    answer = case.incident.kind is Kind.HELP_BUTTON
    return {
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": "stat",
        "code": {"text": "Answer the help button" if answer else "Post-fall check"},
        "focus": _link(case, "observation"),
        "for": _subject(case)["subject"],
        "authoredOn": utc_text(case.incident.raised_at),
        "requester": _link(case, "device"),
        **_location(case),
    }


def _adverse_event(case: RecordCase, by: str, at: datetime) -> Resource:
    incident = case.incident
    return {
        "resourceType": "AdverseEvent",
        "identifier": {
            "system": f"{case.record.identifier_system}/adverse-event",
            "value": f"{incident.home}/{incident.incident}",
        },
        "actuality": "actual",
        "event": {"coding": [_FALL], "text": "Fall"},
        **_subject(case),
        "date": utc_text(incident.impact_at or incident.raised_at),
        "detected": utc_text(incident.raised_at),
        "recordedDate": utc_text(at),
        **_location(case),
        **({"recorder": {"display": by}} if by else {}),
    }


def _device(case: RecordCase) -> Resource:
    wearable = case.incident.wearable
    what = "wearable movement sensor" if wearable else "fallwatch unit of the home"
    device: Resource = {"resourceType": "Device", "status": "active", "type": {"text": what}}
    return {**device, "serialNumber": wearable} if wearable else device


def _where(incident: Incident) -> str:
    return " ".join(filter(None, (incident.room, incident.bed)))


# -- parts --------------------------------------------------------------------------------------


def _subject(case: RecordCase) -> Resource:
    record, resident, home = case.record, case.resident, case.incident.home
    if resident is None:
        return {"subject": {"display": "resident not known"}}
    if reference := patient_reference(record, resident):
        return {"subject": {"reference": reference}}
    identifier = {"system": f"{record.identifier_system}/resident", "value": f"{home}/{resident.id}"}
    return {"subject": {"identifier": identifier, "display": f"resident {resident.id}"}}


def _patient(system: str, value: str) -> str:
    return f"Patient?identifier={_quoted(system, value)}"


def _quoted(system: str, value: str) -> str:
    return quote(search_token(system, value), safe=":/|")


def _plain(text: str) -> str:
    """Write a room's name with letters that every server finds again: not all know escapes in a search."""
    return re.sub(r"[^A-Za-z0-9 .-]", lambda special: f"_{ord(special[0]):x}_", text)


def _meta(case: RecordCase) -> Resource:
    return {"meta": {"tag": [_DRILL_TAG]}} if case.incident.drill else {}


def _location(case: RecordCase) -> Resource:
    return {"location": _link(case, "location")} if case.incident.room else {}


def _coded(system: str, code: str) -> Resource:
    return {"coding": [{"system": _CODES + system, "code": code}]}


def _note(text: str, by: str, at: datetime) -> Resource:
    return {**({"authorString": by} if by else {}), "time": utc_text(at), "text": text}


def _uuid(case: RecordCase, name: str) -> str:
    return str(uuid5(UUID(case.incident.incident), name))


def _link(case: RecordCase, name: str) -> Resource:
    return {"reference": f"urn:uuid:{_uuid(case, name)}"}


def _post(case: RecordCase, name: str, value: str, resource: Resource, *, uuid_name: str = "") -> Resource:
    system = f"{case.record.identifier_system}/{name}"
    request = {
        "method": "POST",
        "url": resource["resourceType"],
        "ifNoneExist": f"identifier={_quoted(system, value)}",
    }
    identified = {**resource, "identifier": [{"system": system, "value": value}]}
    return {"fullUrl": f"urn:uuid:{_uuid(case, uuid_name or name)}", "resource": identified, "request": request}


def _put(case: RecordCase, name: str, resource: Resource) -> Resource:
    # Neither Provenance nor AdverseEvent can be searched by identifier in R4, so `ifNoneExist` cannot
    # keep them single; an id of our own can.
    own = _uuid(case, name)
    request = {"method": "PUT", "url": f"{resource['resourceType']}/{own}"}
    return {"fullUrl": f"urn:uuid:{own}", "resource": {**resource, "id": own}, "request": request}


def _update(
    case: RecordCase,
    name: str,
    status: str,
    over: Sequence[str],
    *,
    changes: Resource | None = None,
    fill: Resource | None = None,
    note: Resource | None = None,
) -> Resource:
    return {
        "entry": f"urn:uuid:{_uuid(case, name)}",
        "status": status,
        "over": list(over),
        "set": changes or {},
        "fill": fill or {},
        "note": [note] if note else [],
    }


def _task_update(case: RecordCase, status: str, over: Sequence[str], fill: Resource) -> list[Resource]:
    return [] if case.incident.drill else [_update(case, "task", status, over, fill=fill)]


def _fill(target: Resource, missing: Resource) -> None:
    for key, value in missing.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _fill(target[key], value)
        else:
            target.setdefault(key, copy.deepcopy(value))


def _item(
    case: RecordCase, kind: str, entries: Iterable[Resource], updates: Iterable[Resource] = ()
) -> OutboxItem:
    incident = case.incident
    own = f"{incident.home}/{incident.incident}"
    creates = [_post(case, "device", f"{incident.home}/{incident.wearable or 'fallwatch'}", _device(case))]
    if incident.room:
        place = "/".join((incident.home, *(_plain(part) for part in (incident.room, incident.bed) if part)))
        name = f"Room {incident.room}" + (f" bed {incident.bed}" if incident.bed else "")
        location = {"resourceType": "Location", "status": "active", "mode": "instance", "name": name}
        creates.append(_post(case, "location", place, location))
    creates.append(_post(case, "incident", own, _observation(case), uuid_name="observation"))
    creates.append(_post(case, "page-request", own, _page_request(case)))
    if not incident.drill:
        creates.append(_post(case, "task", own, _task(case)))
    body = {
        "incident": incident.incident,
        "room": _where(incident),
        "bundle": {"resourceType": "Bundle", "type": "transaction", "entry": [*creates, *entries]},
        "updates": list(updates),
    }
    key = f"record/{incident.incident}/{kind}"
    return OutboxItem(key, incident.incident, json.dumps(body, separators=(",", ":")).encode())
