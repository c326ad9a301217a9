"""A list of residents from elsewhere: read from CSV or FHIR, checked line by line, and merged with the home's own.

Pure functions. Only the columns named in `FIELDS` are looked at: names and birth dates are neither kept nor
repeated, and a complaint names the line and the column, never what stood there.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from edge.settings import ResidentSettings, nhs_number_is_valid
from edge.sinks.fhir import NHS_NUMBER_SYSTEM

FIELDS = ("id", "room", "bed", "nhs_number", "local_id", "wearable", "placement")
ROWS_MOST = 10_000
_NUMBERS = ("nhs_number", "local_id", "wearable")  # an empty cell says nothing; nobody shares one


@dataclass(frozen=True, slots=True)
class Row:
    """What one line says of a resident: a column that is not there is not in ``said``."""

    line: int
    said: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a line, and what to do; it quotes nothing but column names and ids of residents."""

    line: int
    key: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would do; ``residents`` is how all of them are after it, in the order of the file."""

    residents: tuple[ResidentSettings, ...]
    added: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]  # id: which keys
    unchanged: tuple[str, ...]
    missing: tuple[str, ...]  # in the settings and not in the list
    problems: tuple[Problem, ...]


class NoDirectory(Exception):
    """The file cannot be read as a list of residents at all; says why, and what would be right."""


# -- reading ------------------------------------------------------------------------------------


def decoded(data: bytes) -> str:
    """Return a file's text: UTF-8, UTF-16 with its mark, or else Windows-1252, as spreadsheets write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def parse_csv(text: str, columns: Mapping[str, str] | None = None) -> list[Row]:
    """Return the rows of a table with a header; commas, semicolons and tabs, in any order of columns.

    Args:
        text: the file.
        columns: for a field, the name of its column, where it is not the field's own.

    Raises:
        NoDirectory: no column is known, one is named that is not there, or there are no rows.
    """
    header, rest = text.partition("\n")[::2]
    skipped = 0
    if re.fullmatch(r"sep=.", header.strip(), re.I):  # a spreadsheet's own line
        text, skipped, header = rest, 1, rest.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    wanted = {_squeezed(name): field for field, name in (columns or {}).items()}
    own = {_squeezed(field): field for field in FIELDS if field not in (columns or {})}
    try:
        names = [_squeezed(name) for name in next(reader, [])]
        if unknown := [name for field, name in (columns or {}).items() if _squeezed(name) not in names]:
            raise NoDirectory(f"there is no column {unknown[0]!r}; the first line must name the columns")
        fields = [wanted.get(name) or own.get(name) for name in names]
        known = [field for field in fields if field]
        if not known or len(set(known)) != len(known):
            what = "names one column twice" if known else "names no column that is known"
            raise NoDirectory(f"the first line {what}; use {', '.join(FIELDS)}, or --column room='Room No'")
        rows = []
        for cells in reader:
            said = {field: cell.strip() for field, cell in zip(fields, cells, strict=False) if field}
            if any(cell.strip() for cell in cells):
                rows.append(Row(reader.line_num + skipped, said))
            if len(rows) > ROWS_MOST:
                raise NoDirectory(f"it has more than {ROWS_MOST} rows")
    except csv.Error as error:
        raise NoDirectory(f"line {reader.line_num + skipped} is no CSV ({error})") from None
    if not rows:
        raise NoDirectory("it has no rows under the first line")
    return rows


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def parse_fhir(text: str, *, local_system: str = "", room_from: str = "") -> list[Row]:
    """Return a row for each Patient of a Bundle, a list or NDJSON; its line is its number among them.

    Who has died or is marked inactive is no resident any more, and is left out.

    Args:
        text: the file.
        local_system: the identifier system of the home's own numbers (``patient_local_system``).
        room_from: where the room is: the system of an identifier, or the URL of an extension with a string or a
            reference to a Location of the same file.

    Raises:
        NoDirectory: it is no FHIR JSON, or has no Patient.
    """
    resources = _resources(text)
    places = {f"Location/{r.get('id')}": str(r.get("name") or "") for r in resources if _is(r, "Location")}
    patients = [r for r in resources if _is(r, "Patient")]
    if not patients:
        raise NoDirectory("there is no Patient in it")
    rows = []
    for number, patient in enumerate(patients, start=1):
        dead = patient.get("deceasedBoolean") is True or "deceasedDateTime" in patient
        if patient.get("active") is False or dead:
            continue
        said = {
            "nhs_number": _identified(patient, NHS_NUMBER_SYSTEM),
            "local_id": _identified(patient, local_system) if local_system else "",
        }
        if room_from:
            said["room"] = _identified(patient, room_from) or _extended(patient, room_from, places)
        rows.append(Row(number, said))
    if not rows:
        raise NoDirectory("all Patients in it are inactive or have died")
    return rows


def parse_ward(resources: Sequence[Mapping[str, Any]], *, local_system: str = "") -> list[Row]:
    """Return a row for each Patient with a stay (Encounter) among ``resources``, with room and bed of the stay.

    Rooms and beds are Locations of these types; a stay that names neither says no room.

    Args:
        resources: Encounters, with the Patients and Locations that they name.
        local_system: the identifier system of the home's own numbers (``patient_local_system``).

    Raises:
        NoDirectory: there is no stay of a known Patient.
    """
    by_name = {f"{r.get('resourceType')}/{r.get('id')}": r for r in resources}
    rows: dict[str, Row] = {}
    for stay in (r for r in resources if _is(r, "Encounter")):
        subject = stay.get("subject")
        who = str(subject.get("reference")) if isinstance(subject, dict) else ""
        patient = by_name.get(who)
        if patient is None or patient.get("active") is False or who in rows:
            continue
        said = {
            "nhs_number": _identified(patient, NHS_NUMBER_SYSTEM),
            "local_id": _identified(patient, local_system) if local_system else "",
        }
        for where in _each(stay, "location"):
            named = where.get("location")
            place = by_name.get(str(named.get("reference"))) if isinstance(named, dict) else None
            if place is not None and where.get("status") != "completed":
                key = {"ro": "room", "bd": "bed"}.get(_physical_type(place))
                said |= {key: str(place.get("name") or "")} if key else {}
        if not said["local_id"]:  # an id it must have, and the number is none for messages
            said["id"] = f"r-{patient.get('id')}"
        rows[who] = Row(len(rows) + 1, said)
    if not rows:
        raise NoDirectory("nobody has an open stay there")
    return list(rows.values())


def _physical_type(place: Mapping[str, Any]) -> str:
    kind = place.get("physicalType")
    return next((str(c.get("code")) for c in _each(kind, "coding")), "") if isinstance(kind, dict) else ""


def _resources(text: str) -> list[dict[str, Any]]:
    try:
        try:
            documents = [json.loads(text)]
        except ValueError:
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise NoDirectory("it is no JSON; use a Bundle of Patients, or one resource a line") from None
    found: list[dict[str, Any]] = []
    while documents:
        document = documents.pop(0)
        if isinstance(document, list):
            documents = [*document, *documents]
        elif isinstance(document, dict) and document.get("resourceType") == "Bundle":
            entries = document.get("entry")
            documents = [
                *(
                    e.get("resource")
                    for e in (entries if isinstance(entries, list) else [])
                    if isinstance(e, dict)
                ),
                *documents,
            ]
        elif isinstance(document, dict):
            found.append(document)
        if len(found) > ROWS_MOST:
            raise NoDirectory(f"it has more than {ROWS_MOST} resources")
    return found


def _is(resource: Mapping[str, Any], kind: str) -> bool:
    return resource.get("resourceType") == kind


def _each(resource: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    values = resource.get(name)
    yield from (value for value in (values if isinstance(values, list) else []) if isinstance(value, dict))


def _identified(patient: Mapping[str, Any], system: str) -> str:
    found = (i for i in _each(patient, "identifier") if i.get("system") == system and i.get("use") != "old")
    return str(next(found, {}).get("value") or "").strip()


def _extended(patient: Mapping[str, Any], url: str, places: Mapping[str, str]) -> str:
    for extension in _each(patient, "extension"):
        if extension.get("url") == url:
            reference = extension.get("valueReference")
            if isinstance(reference, dict):
                return places.get(str(reference.get("reference"))) or str(reference.get("display") or "")
            return str(extension.get("valueString") or extension.get("valueCode") or "").strip()
    return ""


# -- merging ------------------------------------------------------------------------------------


def plan_import(rows: Sequence[Row], known: Sequence[ResidentSettings]) -> Plan:
    """Return what the rows make of the residents known so far; a line with a problem changes nobody.

    A resident is found by id, else by NHS number, else by the home's own number. What a line does not say stays as
    it is, but a bed is not kept into another room.
    """
    before = {resident.id: resident for resident in known}
    after, problems = dict(before), list[Problem]()
    made = {row.line: _resident(row, before) for row in rows}
    times = Counter(one.id for one in made.values() if isinstance(one, ResidentSettings))
    lines = {}
    for line, one in made.items():
        if isinstance(one, Problem):
            problems.append(one)
        elif times[one.id] > 1:
            problems.append(Problem(line, "id", f"resident {one.id} stands on {times[one.id]} lines; keep one"))
        else:
            lines[one.id] = line
            after[one.id] = one
    good = dict(lines)
    while clashes := _clashes(after, good):  # whoever is left as before may clash with others
        problems += clashes.values()
        for id_ in clashes:
            del good[id_]
            if id_ in before:
                after[id_] = before[id_]
            else:
                del after[id_]
    return Plan(
        residents=tuple(after.values()),
        added=tuple(id_ for id_ in good if id_ not in before),
        changed={id_: keys for id_ in good if id_ in before and (keys := _differing(before[id_], after[id_]))},
        unchanged=tuple(id_ for id_ in good if after[id_] == before.get(id_)),
        missing=tuple(id_ for id_ in before if id_ not in {*times, *(row.said.get("id") for row in rows)}),
        problems=tuple(sorted(problems, key=lambda problem: problem.line)),
    )


def _resident(row: Row, before: Mapping[str, ResidentSettings]) -> ResidentSettings | Problem:
    said = dict(row.said)
    if number := said.get("nhs_number"):
        said["nhs_number"] = re.sub(r"[\s-]", "", number)
        if not nhs_number_is_valid(said["nhs_number"]):
            return _problem(
                row, "nhs_number", "is no NHS number: copy its ten digits again; a spreadsheet may spoil it"
            )
    own = _whose(row, said, before)
    if isinstance(own, Problem):
        return own
    for key, value in (("id", own), ("room", said.get("room", "")), ("bed", said.get("bed", ""))):
        if nhs_number_is_valid(value):
            return _problem(row, key, "looks like an NHS number, and would stand in messages; use another column")
    old = before.get(own)
    values = dataclasses.asdict(old) if old else {}
    if said.get("room") not in {"", None, values.get("room")}:
        values["bed"] = ""
    values |= {key: value for key, value in said.items() if value or key == "bed"} | {"id": own}
    values["placement"] = (values.get("placement") or "wrist").lower()
    if values["placement"] not in {"wrist", "waist"}:
        return _problem(row, "placement", "use wrist or waist")
    if not values.get("room"):
        return _problem(row, "room", "is missing: staff must know where to go")
    if not all(len(values.get(key, "")) <= 64 and values.get(key, "").isprintable() for key in FIELDS):
        return _problem(row, "room", "a cell is too long, or holds what cannot be printed")
    try:
        return ResidentSettings(**values)
    except ValueError as error:
        key, _, remedy = str(error).partition("\0")
        return _problem(row, key, re.sub(r"^'.*?' is", "what stands there is", remedy))


def _whose(row: Row, said: Mapping[str, str], before: Mapping[str, ResidentSettings]) -> str | Problem:
    """Return the id of the resident a line is about."""
    found = [
        id_
        for key in ("nhs_number", "local_id")
        for id_, resident in before.items()
        if said.get(key) and said[key] == _number(resident, key)
    ]
    given = said.get("id", "")
    if given:
        others = [id_ for id_ in found if id_ != given]
        if others:
            return _problem(row, "id", f"its number is that of resident {others[0]}: correct the one or the other")
        return given
    if len(set(found)) > 1:
        return _problem(
            row, "nhs_number", f"its numbers are those of residents {' and '.join(sorted(set(found)))}"
        )
    if found:
        return found[0]
    if said.get("local_id"):
        return re.sub(r"[^A-Za-z0-9._-]+", "-", said["local_id"]).strip("-._")
    return _problem(row, "id", "is missing, and no number of a known resident is there; give an id or a local_id")


def _number(resident: ResidentSettings, key: str) -> str:
    value: str = getattr(resident, key)
    return value.replace(" ", "") if key == "nhs_number" else value


def _clashes(after: Mapping[str, ResidentSettings], lines: Mapping[str, int]) -> dict[str, Problem]:
    """Return the residents of the list whose numbers another resident has, with what to do."""
    found: dict[str, Problem] = {}
    for key in _NUMBERS:
        holders: dict[str, list[str]] = {}
        for resident in after.values():
            if value := _number(resident, key):
                holders.setdefault(value, []).append(resident.id)
        for shared in (ids for ids in holders.values() if len(ids) > 1):
            for id_ in shared:
                if id_ in lines:
                    others = ", ".join(other for other in shared if other != id_)
                    remedy = f"resident {others} has the same; correct the wrong one"
                    found.setdefault(id_, Problem(lines[id_], key, remedy))
    return found


def _problem(row: Row, key: str, remedy: str) -> Problem:
    return Problem(row.line, key, remedy)


def _differing(old: ResidentSettings, new: ResidentSettings) -> tuple[str, ...]:
    return tuple(key for key in FIELDS if getattr(old, key) != getattr(new, key))
