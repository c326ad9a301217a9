"""What set-up asks, in order, and what to ask next: pure, so that a set-up replays from its answers alone."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from edge.channels import AnyChannel
from edge.checked import SettingsError, build
from edge.settings import BLE_KINDS, CameraSettings, HomeSettings, ResidentSettings

Answers = Mapping[str, Any]
Row = Mapping[str, Any]

NONE = "none"
HERE = Path("answers")  # what `build` is told to name; replaced by the question's own names
CHANNELS: Mapping[str, type[Any]] = {
    typing.get_args(typing.get_type_hints(cls)["kind"])[0]: cls for cls in typing.get_args(AnyChannel)
}


class BadAnswer(Exception):
    """An answer cannot be used, or is missing where nobody can be asked; says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worn:
    """Which wearable a resident wears."""

    resident: str
    wearable: str
    spare: bool = False
    placement: Literal["", "wrist", "waist"] = ""  # empty: as the resident's settings say
    kind: Literal["fallwatch", "bangle", "polar", "witmotion-ble", "witmotion", "shimmer", "mqtt"] = "fallwatch"
    address: str = ""
    port: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found on this machine, and what its settings say so far."""

    receivers: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()  # other serial ports, by names that stay
    adapters: tuple[str, ...] = ()  # of Bluetooth
    cameras: tuple[Row, ...] = ()  # kind and device
    timezone: str = "Europe/London"
    broker: str = ""  # host:port of one on this machine
    broker_wants_password: bool = False
    present: Answers = field(default_factory=dict)  # what the settings answer already
    residents: tuple[Row, ...] = ()  # of the settings: id, room, wearable, cover
    may_start: bool = False  # systemd is running, we are root, and somebody is asked

    def everybody(self, answers: Answers) -> list[Row]:
        """Return the residents there are after these answers."""
        fresh = {row["id"]: row for row in answers.get("residents", ())}
        known = {str(row["id"]): row for row in self.residents}
        return [
            {**known.get(id_, {}), **fresh.get(id_, {})} for id_ in [*known, *(i for i in fresh if i not in known)]
        ]


Suggest = Callable[[Answers, Found], Any]
Applies = Callable[[Answers, Found], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """One thing asked of each line of a list; the first left empty ends the line."""

    key: str
    ask: str
    suggest: Callable[[Row], Any] = lambda _row: ""
    choices: tuple[str, ...] = ()
    when: Callable[[Row, Answers], bool] = lambda _row, _answers: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question: on the terminal, as a flag and in an answers file."""

    key: str
    part: str  # those of one part are tried together once they are answered
    ask: str
    why: str = ""
    kind: Literal["text", "yes", "choice", "texts", "numbers", "rows", "secret", "file"] = "text"
    example: Any
    suggest: Suggest = lambda _answers, _found: None
    safe: bool = False  # what is suggested is taken where nobody can be asked
    when: Applies = lambda _answers, _found: True
    given_counts: bool = False  # asked only for what was found, but taken whenever it is given
    choices: Callable[[Answers, Found], Sequence[str]] = lambda _answers, _found: ()
    check: Callable[[Any], str] = lambda _value: ""
    # Of lists:
    flag_name: str = ""  # singular, as one flag is one line
    row: Callable[[Row], type[Any]] = lambda _row: dict
    fields: tuple[Field, ...] = ()
    seeds: Callable[[Answers, Found], Sequence[Row]] | None = None  # lines to complete; None: as many as there are

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return "--" + (self.flag_name or self.key).replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether the flag may be repeated."""
        return self.kind in {"texts", "numbers", "rows"}


def _remedy(make: Callable[[], object]) -> str:
    """Return what the settings say against a value; empty when they take it."""
    try:
        make()
    except ValueError as error:
        return str(error).partition("\0")[2]
    return ""


def _slug(name: str) -> str | None:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32] or None


def _fhir(answers: Answers, _found: Found) -> bool:
    return str(answers.get("record", "")) == "fhir-r4"


def _auth(kind: str) -> Applies:
    return lambda answers, found: _fhir(answers, found) and answers.get("record_auth") == kind


def _broker(answers: Answers, _found: Found) -> bool:
    return str(answers.get("broker", NONE)) != NONE


def _host_port(value: str) -> str:
    right = value == NONE or re.fullmatch(r"[^\s:/]+:\d{1,5}", value)
    return "" if right else "use host:port, such as localhost:1883, or none"


def _resident_seeds(answers: Answers, found: Found) -> list[Row]:
    """Return who is to have a wearable and has none yet."""
    return [
        {"resident": row["id"], "room": row.get("room", "")}
        for row in found.everybody(answers)
        if not row.get("wearable") and row.get("cover", answers.get("cover")) != NONE
    ]


def _line_suggestion(row: Row) -> Any:
    return {"baud": 9600, "format": "7E1" if row.get("kind") == "tap" else "8N1"}


def _kinds(*kinds: str) -> Callable[[Row, Answers], bool]:
    return lambda row, _answers: row.get("kind") in kinds


def _consents(row: Row, _answers: Answers) -> bool:
    return bool(row.get("room") and row.get("consent.given"))


def _resident_id(row: Row) -> str:
    return f"r{_slug(str(row.get('room', ''))) or ''}{_slug(str(row.get('bed', ''))) or ''}"


PAGER_FIELDS = (
    Field("kind", "Kind of paging system", lambda _row: "espa444", tuple(CHANNELS)),
    Field("port", "Serial port, or tcp://host:port (empty: no such line)", when=_kinds("espa444", "tap")),
    Field("baud", "Speed of the line in bit/s", lambda _row: 9600, when=_kinds("espa444", "tap")),
    Field(
        "format",
        "Data bits, parity, stop bits",
        lambda row: _line_suggestion(row)["format"],
        when=_kinds("espa444", "tap"),
    ),
    Field("station", "The paging system's own address on the line", lambda _row: "2", when=_kinds("espa444")),
    Field(
        "variant",
        "How the line is shared; ask the maker, else poll-select",
        lambda _row: "poll-select",
        ("poll-select", "select", "block", "slave"),
        when=_kinds("espa444"),
    ),
    Field("host", "The server's host name or address", when=_kinds("snpp", "scaip")),
    Field("controller", "Our id, as the receiving centre gave it out", when=_kinds("scaip")),
    Field("url", "The server's address, such as http://ntfy.home:8080", when=_kinds("ntfy", "webhook")),
    Field("line", "Number of the GPIO line of the relay", lambda _row: 17, when=_kinds("relay")),
    Field("addresses", "Group=number, several with commas, such as 99=+447700900123", when=_kinds("sms", "ntfy")),
)
RESIDENT_FIELDS = (
    Field("room", "Room, as written on the pager (empty: that was the last resident)"),
    Field("bed", "Bed, in a shared room"),
    Field("id", "Id in messages, no name", _resident_id),
    Field("nhs_number", "NHS number (empty: none at hand)"),
)
WORN_FIELDS = (
    Field("wearable", "Id printed on their wearable (empty: none yet)"),
    Field("placement", "Worn on the", lambda _row: "wrist", ("wrist", "waist")),
    Field(
        "kind",
        "Kind of wearable",
        lambda _row: "fallwatch",
        ("fallwatch", *BLE_KINDS),
        when=lambda _row, answers: answers.get("bluetooth", NONE) != NONE,
    ),
    Field("address", "Its Bluetooth address", when=lambda row, _answers: row.get("kind") in BLE_KINDS),
)
CAMERA_FIELDS = (
    Field("room", "Room it hangs in (empty: leave it out)"),
    Field("id", "Id in messages", lambda row: f"cam-{_slug(str(row.get('room', ''))) or '1'}"),
    Field("resident", "Id of the resident whose room it is (empty: a lounge, or several)"),
    Field("consent.given", "Day on which consent was given in writing, YYYY-MM-DD (empty: not yet, it stays off)"),
    Field("consent.kind", "Whose decision", lambda _row: "consent", ("consent", "best-interests"), when=_consents),
    Field("consent.review", "Day of its review, YYYY-MM-DD", when=_consents),
)


QUESTIONS: tuple[Question, ...] = (
    Question(
        key="home_name",
        part="home",
        ask="What is the home called?",
        why="For people; it is not sent anywhere.",
        example="Rosewood House",
        suggest=lambda _a, _f: "",
        safe=True,
    ),
    Question(
        key="home_id",
        part="home",
        ask="Which id shall it have in messages and in the record?",
        why="Letters, digits, '.', '_' and '-'. It should never change afterwards.",
        example="rosewood",
        suggest=lambda a, _f: _slug(a.get("home_name", "")),
        check=lambda value: _remedy(lambda: HomeSettings(id=value)),
    ),
    Question(
        key="timezone",
        part="home",
        ask="Which time zone does it live in?",
        why="For the times on pagers.",
        example="Europe/London",
        suggest=lambda _a, f: f.timezone,
        safe=True,
        check=lambda value: _remedy(lambda: HomeSettings(id="x", timezone=value)),
    ),
    Question(
        key="receivers",
        part="receivers",
        ask="On which serial ports are receivers for wearables?",
        why="Plug them in first. Each is listened to at once.",
        kind="texts",
        flag_name="receiver",
        example=["/dev/serial/by-id/usb-fallwatch-dongle"],
        suggest=lambda _a, f: list(f.receivers) or None,
        choices=lambda _a, f: (*f.receivers, *f.ports),
    ),
    Question(
        key="bluetooth",
        given_counts=True,
        part="bluetooth",
        ask="Which Bluetooth radio hears wearables? none: they come by receivers alone",
        why="Only for wearables with Bluetooth of their own, such as a Bangle.js 2 or a Polar.",
        kind="choice",
        example=NONE,
        suggest=lambda _a, _f: NONE,
        safe=True,
        when=lambda _a, f: bool(f.adapters) or f.present.get("bluetooth", NONE) != NONE,
        choices=lambda _a, f: (NONE, *f.adapters),
    ),
    Question(
        key="groups",
        part="pagers",
        ask="Which pagers or groups are called, in order? One more joins at each step.",
        why="Ask whoever looks after the paging system. The first is called at once.",
        kind="texts",
        flag_name="group",
        example=["12", "20", "0"],
        suggest=lambda _a, _f: ["0"],
    ),
    Question(
        key="steps_s",
        part="pagers",
        ask="After how many seconds without an answer does the next group join?",
        why="Rising numbers, from the first page. 120 240 480 is usual.",
        kind="numbers",
        flag_name="step_s",
        example=[120, 240, 480],
        suggest=lambda _a, _f: [120.0, 240.0, 480.0],
        safe=True,
    ),
    Question(
        key="pagers",
        part="pagers",
        ask="By which lines are people called?",
        why="Without any, nobody is called. For ESPA ask for speed, format, station and variant.",
        kind="rows",
        flag_name="pager",
        example=[
            {"kind": "espa444", "port": "/dev/ttyUSB1", "baud": 9600, "format": "8N1", "station": "2"}
            | {"variant": "poll-select"}
        ],
        row=lambda row: CHANNELS.get(str(row.get("kind", "espa444")), CHANNELS["espa444"]),
        fields=PAGER_FIELDS,
    ),
    Question(
        key="test_page",
        part="pagers",
        ask="Send a test page by each line now? It beeps: tell staff first.",
        why="It says TEST and NO ACTION NEEDED. Without it nobody knows whether a page arrives.",
        kind="yes",
        example=False,
        suggest=lambda _a, _f: False,
        safe=True,
        given_counts=True,
        when=lambda a, f: bool(a.get("pagers")) and a["pagers"] != f.present.get("pagers"),
    ),
    Question(
        key="record",
        part="record",
        ask="Where are falls written down?",
        why="embedded: a small record on this machine. fhir-r4: the home's care record, by FHIR.",
        kind="choice",
        example="fhir-r4",
        suggest=lambda _a, _f: "embedded",
        safe=True,
        choices=lambda _a, _f: ("embedded", "fhir-r4"),
    ),
    Question(
        key="record_url",
        part="record",
        ask="What is the record's FHIR address?",
        why="Its operator knows it, such as https://record.example/fhir",
        example="https://record.example/fhir",
        when=_fhir,
        check=lambda value: "" if re.match(r"https?://[^/]+", value) else "begin with https:// and a host",
    ),
    Question(
        key="record_auth",
        part="record",
        ask="How does the record know us?",
        why="bearer: a fixed token. smart-backend: a key of ours that its operator admits. none: not at all.",
        kind="choice",
        example="bearer",
        when=_fhir,
        choices=lambda _a, _f: ("bearer", "smart-backend", NONE),
    ),
    Question(
        key="record_token_file",
        part="record",
        ask="The record's token, or the file that holds it",
        why="What is typed is not shown. It is kept in the secrets folder, never in the settings.",
        kind="secret",
        example="/media/usb/token.txt",
        when=_auth("bearer"),
    ),
    Question(
        key="record_client_id",
        part="record",
        ask="Which client id did the record's operator give us?",
        example="rosewood-fallwatch",
        when=_auth("smart-backend"),
    ),
    Question(
        key="record_key_file",
        part="record",
        ask="Which file holds our private key (PEM)? make: a new one is made here",
        why="Its public half, record-key.jwks in the secrets folder, is for the record's operator.",
        kind="file",
        example="make",
        suggest=lambda _a, _f: "make",
        when=_auth("smart-backend"),
    ),
    Question(
        key="record_identifier_system",
        part="record",
        ask="With which address of the home's own do our identifiers in the record begin?",
        why="Choose it before the first incident and keep it. It need not lead anywhere.",
        example="https://rosewood.example/id",
        suggest=lambda a, _f: f"https://fallwatch.example/id/{a.get('home_id', 'home')}",
        safe=True,
        when=_fhir,
    ),
    Question(
        key="record_local_system",
        part="record",
        ask="Identifier system of the home's own numbers in the record",
        why="Only where residents have no NHS number. Empty: NHS numbers alone.",
        example="https://rosewood.example/resident",
        suggest=lambda _a, _f: "",
        safe=True,
        when=_fhir,
    ),
    Question(
        key="residents_from",
        part="residents",
        ask="Where do the residents come from?",
        why="csv: a table with a header. record: a ward of the FHIR record. typed: one by one. none: nobody new.",
        kind="choice",
        example="typed",
        suggest=lambda _a, f: NONE if f.residents else None,
        safe=True,
        choices=lambda a, f: ("csv", *(["record"] if _fhir(a, f) else []), "typed", NONE),
    ),
    Question(
        key="residents_file",
        part="residents",
        ask="Which file holds the list?",
        why="Columns id, room, bed, nhs_number, local_id, wearable, placement, in any order. No names.",
        kind="file",
        example="residents.csv",
        when=lambda a, _f: a.get("residents_from") == "csv" and "residents" not in a,
    ),
    Question(
        key="residents_ward",
        part="residents",
        ask="Which ward or location of the record?",
        why="Its name or its id there. Whoever has an open stay in it is taken over with room and bed.",
        example="Rosewood ground floor",
        when=lambda a, _f: a.get("residents_from") == "record" and "residents" not in a,
    ),
    Question(
        key="residents",
        part="residents",
        ask="Who lives here?",
        why="Ids and rooms alone: no names. Numbers find them in the care record and go nowhere else.",
        kind="rows",
        flag_name="resident",
        example=[
            {"id": "r12a", "room": "12", "bed": "A", "nhs_number": "9434765919", "cover": "must"},
            {"id": "r14", "room": "14"},
        ],
        when=lambda a, _f: a.get("residents_from") == "typed",
        row=lambda _row: ResidentSettings,
        fields=RESIDENT_FIELDS,
    ),
    Question(
        key="cover",
        part="residents",
        ask="Staff's decision, not yours: while a new resident is not protected, is the pager called?",
        why="must: it is. should: it is shown and counted. none: they wear nothing. Each can have their own.",
        kind="choice",
        example="must",
        suggest=lambda _a, _f: "must",
        safe=True,
        when=lambda a, _f: any("cover" not in row for row in a.get("residents", ())),
        choices=lambda _a, _f: ("must", "should", NONE),
    ),
    Question(
        key="wearables",
        part="wearables",
        ask="Who wears which wearable?",
        why="A key is made for each; at the end it is shown for the wearable to take.",
        kind="rows",
        flag_name="wearable",
        example=[{"resident": "r12a", "wearable": "0042", "placement": "wrist"}],
        suggest=lambda _a, _f: [],
        safe=True,
        when=lambda a, f: bool(f.everybody(a)),
        row=lambda _row: Worn,
        fields=WORN_FIELDS,
        seeds=_resident_seeds,
    ),
    Question(
        key="cameras",
        given_counts=True,
        part="cameras",
        ask="Where do the depth cameras hang?",
        why="No image is kept, sent or shown. Without a consent in date a camera stays off.",
        kind="rows",
        flag_name="camera",
        example=[
            {"id": "cam-12", "room": "12", "kind": "orbbec", "device": "CP02953000AB", "resident": "r12a"}
            | {"consent": {"kind": "consent", "given": date(2026, 11, 1), "review": date(2027, 5, 1)}}
        ],
        suggest=lambda _a, _f: [],
        safe=True,
        when=lambda a, f: bool(f.cameras and f.everybody(a)),
        row=lambda _row: CameraSettings,
        fields=CAMERA_FIELDS,
        seeds=lambda _a, f: f.cameras,
    ),
    Question(
        key="broker",
        part="broker",
        ask="Is there a message broker (MQTT), for Home Assistant or other systems? host:port or none",
        why="Pages never need it.",
        example="localhost:1883",
        suggest=lambda _a, f: f.broker or NONE,
        safe=True,
        check=_host_port,
    ),
    Question(
        key="broker_tls",
        part="broker",
        ask="Does the broker speak TLS?",
        kind="yes",
        example=False,
        suggest=lambda a, _f: str(a["broker"]).endswith(":8883"),
        safe=True,
        when=_broker,
    ),
    Question(
        key="broker_ca_file",
        part="broker",
        ask="Full path of the certificate that signed the broker's. Empty: a public one",
        example="/etc/ssl/certs/rosewood-ca.pem",
        suggest=lambda _a, _f: "",
        safe=True,
        when=lambda a, _f: bool(a.get("broker_tls")),
    ),
    Question(
        key="broker_username",
        part="broker",
        ask="Login at the broker. Empty: none",
        example="fallwatch",
        suggest=lambda _a, f: None if f.broker_wants_password else "",
        safe=True,
        when=_broker,
    ),
    Question(
        key="broker_password_file",
        part="broker",
        ask="The broker's password, or the file that holds it",
        why="What is typed is not shown. It is kept in the secrets folder, never in the settings.",
        kind="secret",
        example="/media/usb/broker-password.txt",
        when=lambda a, _f: bool(a.get("broker_username")),
    ),
    Question(
        key="start",
        given_counts=True,
        part="services",
        ask="Start fallwatch now, and at each boot?",
        kind="yes",
        example=True,
        suggest=lambda _a, _f: True,
        when=lambda _a, f: f.may_start,
    ),
)
BY_KEY = {question.key: question for question in QUESTIONS}
# What leaving a part out comes to.
LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "receivers": {"receivers": []},
    "bluetooth": {"bluetooth": NONE},
    "pagers": {"pagers": []},
    "record": {"record": "embedded"},
    "residents": {"residents_from": NONE},
    "cameras": {"cameras": []},
    "broker": {"broker": NONE},
}


def next_question(answers: Answers, found: Found, given: Answers | None = None) -> Question | None:
    """Return what to ask next, or to take from what is given; None when all is answered."""
    for question in QUESTIONS:
        offered = question.given_counts and question.key in (given or {})
        if question.key not in answers and (offered or question.when(answers, found)):
            return question
    return None


def suggestion(question: Question, answers: Answers, found: Found) -> Any:
    """Return what to suggest: what the settings say, else what fits; None where nothing does."""
    if question.key in found.present:
        return found.present[question.key]
    return question.suggest(answers, found)


def unasked(question: Question, answers: Answers, found: Found, *, yes: bool) -> Any:
    """Return the answer where nobody can be asked.

    Raises:
        BadAnswer: there is none that is safe.
    """
    value = suggestion(question, answers, found)
    if value is None or not (yes or question.safe or question.key in found.present):
        raise BadAnswer(f"{question.ask} Give {question.flag}, or {question.key} in --answers")
    return value


def implied(answers: Answers) -> dict[str, Any]:
    """Return the answers with what they leave no doubt about: whoever gives a list says where it comes from."""
    known = dict(answers)
    for key, source in (("residents", "typed"), ("residents_file", "csv"), ("residents_ward", "record")):
        if key in known:
            known.setdefault("residents_from", source)
    if "broker_password_file" in known:
        known.setdefault("broker_username", "fallwatch")
    return known


def usable(question: Question, value: Any) -> Any:
    """Return an answer from a flag, a file or a terminal as the plan has it.

    Raises:
        BadAnswer: it cannot be used.
    """
    where = f"{question.key} ({question.flag})"
    try:
        value = _typed_answer(question, value)
    except SettingsError as error:
        raise BadAnswer(
            f"{where}: {error.key}: {error.remedy}" if error.key else f"{where}: {error.remedy}"
        ) from None
    except (ValueError, TypeError) as error:
        raise BadAnswer(f"{where}: {error}") from None
    if question.kind == "choice":
        known = question.choices({"record": "fhir-r4"}, Found())
        if known and value not in known and question.key != "bluetooth":
            raise BadAnswer(f"{where}: {value!r} is not known; use one of {', '.join(known)}")
    if problem := question.check(value):
        raise BadAnswer(f"{where}: {problem}")
    return value


def _typed_answer(question: Question, value: Any) -> Any:
    match question.kind:
        case "yes":
            if isinstance(value, str) and value.strip().lower() in {"yes", "y", "no", "n", "true", "false"}:
                return value.strip().lower() in {"yes", "y", "true"}
            if not isinstance(value, bool):
                raise ValueError("use true or false")
            return value
        case "texts":
            items = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else list(value)
            if not all(isinstance(item, str) for item in items):
                raise ValueError('use a list of texts, such as ["12", "0"]')
            return [item for item in items if item and item != NONE]
        case "numbers":
            items = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else list(value)
            return [float(item) for item in items if item != ""]
        case "rows":
            if not isinstance(value, list | tuple):
                raise ValueError(f"write [[{question.key}]]")
            rows = [row for row in value if row != NONE]
            return [_row(question, parse_row(row) if isinstance(row, str) else row) for row in rows]
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is wrong; use text in quotes")
    return value.strip()


def parse_row(text: str) -> dict[str, Any]:
    """Return a line of a list from a flag: ``room=12,bed=A``; ``addresses.99=+44...`` goes one deeper.

    Raises:
        ValueError: it is not written so, or holds what has no business on a command line.
    """
    row: dict[str, Any] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r}: write key=value, several with commas")
        if key.strip() == "nhs_number":
            raise ValueError("nhs_number: not on a command line, which others can read; use --answers or a CSV")
        row[key.strip()] = value.strip()
    return row


def _row(question: Question, row: Any) -> dict[str, Any]:
    """Return one line of a list with values as the settings have them; it must be whole in itself."""
    if not isinstance(row, Mapping):
        raise ValueError("write a table, or key=value,key=value")
    deep: dict[str, Any] = {}
    for key, value in row.items():
        outer, dot, inner = str(key).partition(".")
        if dot:
            deep.setdefault(outer, {})[inner] = value
        elif value != "":
            deep[outer] = value
    if question.key == "pagers" and str(deep.get("port", "")).startswith("tcp://"):
        deep["url"] = deep.pop("port")
    if question.key == "residents" and "id" not in deep and "room" in deep:
        deep["id"] = _resident_id(deep)
    cls = question.row(deep)
    if question.key == "pagers" and deep.get("kind", "espa444") not in CHANNELS:
        raise ValueError(f"kind {deep['kind']!r} is not known; use one of {', '.join(CHANNELS)}")
    values = _typed_table(cls, deep)
    build(cls, values, HERE, "")
    return values


def _typed_table(cls: type[Any], row: Row) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {key: _typed(hints[key], value) if key in hints else value for key, value in row.items()}


def _typed(hint: Any, value: Any) -> Any:
    """Return a text as the value that a setting's type wants; other values as they are."""
    if isinstance(hint, UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _typed_table(typing.cast("type[Any]", hint), value)
    if typing.get_origin(hint) is Mapping and isinstance(value, str):
        pairs = (item.partition("=") for item in value.split(",") if item.strip())
        return {group.strip(): number.strip() for group, _, number in pairs}
    if not isinstance(value, str):
        return value
    if typing.get_origin(hint) is tuple:
        return value.split()
    if hint is bool and value.lower() in {"true", "false", "yes", "no"}:
        return value.lower() in {"true", "yes"}
    if hint in {int, float}:
        return hint(value)
    return date.fromisoformat(value) if hint is date else value
