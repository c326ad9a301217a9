"""A support bundle leads to nobody: what is distinctive of a home is looked for in all that it packs."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.clock import utc_now
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.doctor.bundle import CONTENTS, LOGS_MOST_OCTETS, Bundle, Hider, make_bundle
from edge.doctor.checks import Home, examine
from edge.doctor.finding import fault
from edge.journal import JOURNAL_FILE, Journal, OutboxItem
from edge.keys import KeyStore
from edge.settings import HomeSettings, ResidentSettings, Settings, load_settings
from edge.sinks.record import RECORD_FILE
from tests.edge.in_process import run_here

BUNDLE_MOST_OCTETS = 2 << 20
PERSONAL = {
    "home id": "quillfeather-7",
    "home name": "Quillfeather Lodge",
    "resident": "zebediah-okonkwo",
    "room": "Orchid Wing 5",
    "bed": "Windowside",
    "NHS number": "9434765919",
    "local number": "ZQ-88431",
    "wearable": "XK90217",
    "spare": "XK90218",
    "address": "A0:9E:1A:7C:55:42",
    "port": "/dev/usb-Vandersloot_0xSER1AL77",
    "telephone": "+447700900461",
    "topic": "quill-nights-7f3a9c",
    "host": "pager.quillfeather.example",
    "user": "Thistlewood",
    "record": "https://fhir.okonkwo-trust.example/r4/tenant-5512",
    "client": "Brandywine-881",
    "zone": "Lavender Meadow",
    "shift": "Moonwatchers",
    "staff": "Philippa Grimshaw",
    "staff in a note": "Bartholomew",
    "camera": "cam-orchid5",
    "camera's device": "CAMSER1AL991",
    "controller": "ARC-Umbridge-31",
}
SECRET = {
    "key": "8f1d2c3b4a5968778695a4b3c2d1e0ff",
    "token": "tok-Zx81QmVandalieu9",
    "password": "p4ss-Marmalade-wren",
}
SETTINGS = """\
[home]
id = "{home id}"
name = "{home name}"
[[dongle]]
port = "{port}"
[[resident]]
id = "{resident}"
room = "{room}"
bed = "{bed}"
nhs_number = "{NHS number}"
wearable = "{wearable}"
spare = "{spare}"
[[resident]]
id = "second"
room = "Fern 2"
local_id = "{local number}"
cover = "none"
[[wearable]]
id = "{spare}"
kind = "polar"
address = "{address}"
[[camera]]
id = "{camera}"
room = "{room}"
kind = "oak"
device = "{camera's device}"
[[zone]]
name = "{zone}"
rooms = ["{room}"]
[[shift]]
name = "{shift}"
begins = "20:00"
ends = "08:00"
[[route]]
zone = "{zone}"
shift = "{shift}"
groups = ["99"]
[[pager]]
kind = "sms"
addresses = {{ "99" = "{telephone}" }}
[[pager]]
kind = "ntfy"
name = "push-{staff in a note}"
url = "http://{host}:8080"
token_file = "token"
addresses = {{ "99" = "{topic}" }}
[[pager]]
kind = "scaip"
host = "{host}"
controller = "{controller}"
[record]
kind = "fhir-r4"
base_url = "{record}"
auth = "bearer"
token_file = "token"
client_id = "{client}"
patient_local_system = "https://ids.okonkwo-trust.example"
[mqtt]
host = "{host}"
username = "{user}"
password_file = "password"
"""


def written(text: str) -> set[str]:
    """Return a text in every way in which it might have been packed, lower case."""
    octets = text.encode()
    ways = {text, text.replace(" ", ""), text.replace("-", ""), octets.hex(), octets.hex(" "), repr(octets)[2:-1]}
    ways |= {json.dumps(text)[1:-1], text[::-1]}
    ways |= {word for word in text.replace("-", " ").split() if len(word) > 4 and not word.isdecimal()}
    for shift in range(3):  # base64 of a text within another
        inner = base64.b64encode(b"\0" * shift + octets).decode().rstrip("=")
        ways.add(inner[4 if shift else 0 : -2])
    if text.isdecimal():
        ways |= {f"{text[:3]} {text[3:6]} {text[6:]}", f"{text[:3]}-{text[3:6]}-{text[6:]}"}
    return {way.lower() for way in ways if len(way) > 4}


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as archived:
        return {
            Path(member.name).name: archived.extractfile(member).read()  # type: ignore[union-attr]
            for member in archived
        }


def found_in(bundle: Bundle, texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return each text that is in the bundle in some way, and in which file."""
    files = {name: octets.lower() for name, octets in unpacked(bundle.archive).items()}
    files["names"] = b" ".join(name.encode() for name in files)
    looked = [(text, way.encode()) for text in texts for way in written(text)]
    return [(text, name) for text, way in looked for name, octets in files.items() if way in octets]


def log_of(*messages: str) -> str:
    rows = (
        {
            "__REALTIME_TIMESTAMP": "1790000000000000",
            "_SYSTEMD_UNIT": "fallwatch-alarm.service",
            "MESSAGE": message,
        }
        for message in messages
    )
    return "\n".join(map(json.dumps, rows)) + "\nno json\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a home with something distinctive in all that it keeps."""
    config, state = tmp_path / "fallwatch.toml", tmp_path / "state"
    config.write_text(SETTINGS.format(**PERSONAL))
    loaded = load_settings(config)
    loaded.secrets.mkdir()
    for name in ("token", "password"):
        (loaded.secrets / name).write_text(SECRET[name])
    KeyStore(loaded.secrets, state).put(PERSONAL["wearable"], bytes.fromhex(SECRET["key"]))
    journal = Journal(state / JOURNAL_FILE)
    facts = Incident(
        new_incident_id(),
        PERSONAL["home id"],
        Kind.FALL,
        utc_now(),
        resident=PERSONAL["resident"],
        room=PERSONAL["room"],
        bed=PERSONAL["bed"],
        wearable=PERSONAL["wearable"],
        drill=True,
    )
    journal.raise_incident(facts, since_impact_s=0.0)
    journal.acknowledge(facts.incident, PERSONAL["staff"])
    journal.resolve(facts.incident, Outcome.DRILL, PERSONAL["staff"])
    journal.add_note("camera-paused", room=PERSONAL["room"], by=PERSONAL["staff in a note"])
    journal.add_note(PERSONAL["staff in a note"], by="x")  # even a kind that nobody knows
    journal.add_note("tested", channel=f"push-{PERSONAL['staff in a note']}", accepted=True, reason="")
    journal.put("record", [OutboxItem("k", facts.incident, PERSONAL["NHS number"].encode())], cursor=1)
    journal.settle("k", "parked", PERSONAL["resident"])
    journal.close()
    (state / RECORD_FILE).write_bytes(PERSONAL["NHS number"].encode())
    return Home(loaded, state, tmp_path / "run", wait_s=1.0, pages=False, entries=False)


def told_of(home: Home) -> dict[str, dict[str, Any]]:
    """Return run files of services in which everything has a name."""
    each = {"well": False, "cause": f"says {PERSONAL['host']} refused {PERSONAL['user']}", "since_s": 4.0}
    detect = {
        "models": {"wrist": PERSONAL["staff"]},
        "models_refused": {PERSONAL["staff"]: PERSONAL["home name"]},
        "links": {PERSONAL["port"]: each, f"ble:{PERSONAL['address']}": each},
        "wearables": {PERSONAL["wearable"]: {**each, "firmware": PERSONAL["client"]}},
        "residents": {PERSONAL["resident"]: each},
        "cameras": {PERSONAL["camera"]: {**each, "room": PERSONAL["room"], "paused_by": PERSONAL["staff"]}},
        "unwritten": [{"incident": PERSONAL}],
        "age_s": 0.4,
    }
    channels = dict.fromkeys([*home.settings.channel_names(), "record"], each)
    snoozes = {PERSONAL["resident"]: {"by": PERSONAL["staff"], "left_s": 9}}
    alarm = {"channels": channels, "mqtt": each, "journal": each, "snoozes": snoozes, "age_s": 0.4}
    return {"detect": detect, "alarm": alarm}


def packed(home: Home) -> Bundle:
    said = [*PERSONAL.values(), *SECRET.values()]
    messages = [f"{word} {text} {end}" for text in said for word, end in (("paged", ""), ("by", "(accepted)"))]
    messages += [text.upper() for text in said] + [base64.b64encode(text.encode()).decode() for text in said]
    messages += [text.encode().hex() for text in said] + ["NHS 943 476 5919, call 07700 900 461"]
    findings = [*examine(home), *(fault(f"pager {text}", f"took {text}", text) for text in said)]
    return make_bundle(home.settings, findings, told_of(home), home.state, ask=lambda _: log_of(*messages))


def test_nothing_that_is_distinctive_of_a_home_is_in_its_bundle(home: Home) -> None:
    bundle = packed(home)
    assert found_in(bundle, [*PERSONAL.values(), *SECRET.values()]) == []
    octets = b"".join(unpacked(bundle.archive).values())
    assert b"943 476" not in octets
    assert b"900 461" not in octets


def test_the_search_finds_what_is_there(home: Home) -> None:
    """The test above can fail: each way of writing is looked for and found."""
    for octets in (b"Quillfeather Lodge".hex().encode(), b"QUILLFEATHER", base64.b64encode(b"xx9434765919yy")):
        files = {"logs.txt": octets.decode()}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            member = tarfile.TarInfo("a/logs.txt")
            member.size = len(octets)
            archive.addfile(member, io.BytesIO(octets))
        assert found_in(Bundle(files, out.getvalue()), PERSONAL.values())


def test_what_support_needs_is_in_it(home: Home) -> None:
    files = {name: octets.decode() for name, octets in unpacked(packed(home).archive).items()}
    assert list(files) == ["MANIFEST.txt", *CONTENTS]
    told = {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}
    assert told["settings.json"]["resident"][0]["placement"] == "wrist"
    assert told["settings.json"]["record"]["kind"] == "fhir-r4"
    assert told["settings.json"]["pager"][0]["check_every_s"] > 0
    assert told["settings.json"]["escalation"]["steps_s"] == [120.0, 240.0, 480.0]
    assert len(told["status.json"]["detect"]["links"]) == 2
    assert told["journal.json"]["incidents"] == {"fall closed": 1, "other": 0}
    assert told["journal.json"]["outbox"] == {"record parked": 1, "other": 0}
    assert told["journal.json"]["notes"]["other"] == 1
    assert told["machine.json"]["versions"]["numpy"]
    assert "2026-" in files["logs.txt"]
    assert "fallwatch-alarm.service paged" in files["logs.txt"]


def test_the_manifest_names_every_file_in_plain_words(home: Home) -> None:
    bundle = packed(home)
    for name, text in bundle.files.items():
        if name != "MANIFEST.txt":
            assert f"{name:<16}{len(text.encode()):>9} octets  {CONTENTS[name]}" in bundle.manifest


def test_a_bundle_stays_small_whatever_the_log_holds(home: Home) -> None:
    log = log_of(*(f"camera gone {number} " * 40 for number in range(4000)))
    bundle = make_bundle(home.settings, [], {"detect": None, "alarm": None}, home.state, ask=lambda _: log)
    assert len(bundle.files["logs.txt"]) <= LOGS_MOST_OCTETS
    assert "camera gone 3999" in bundle.files["logs.txt"]  # the newest is kept
    assert len(bundle.archive) < BUNDLE_MOST_OCTETS


def test_what_our_own_program_says_stays_readable(home: Home) -> None:
    hide = Hider(home.settings)
    line = "port /dev/ttyUSB9 is lost: No such file or directory"
    assert hide.text(line) == "port /dev/~ is lost: no such file or directory"
    assert hide.text("ERROR edge.alarm.record_feed: HTTP 503").startswith("error edge.alarm.record_feed: http 503")
    assert "keyerror" in hide.text("KeyError: 'samples'")


names = st.text(st.characters(categories=["L", "N"]), min_size=5, max_size=12).filter(
    lambda name: len({*name}) > 3 and Hider(Settings(HomeSettings("h"))).text(name) != name.lower()
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names,
    names,
    st.sampled_from(["{} fell", "by {}", "page to {}", "KeyError: '{}'", "a/{}/b", "x={};", "{0}{0}"]),
)
def test_no_name_gets_into_a_line_of_a_log(known: str, unknown: str, line: str) -> None:
    hide = Hider(Settings(HomeSettings("site-7", name=known), resident=(ResidentSettings("r1", known),)))
    for name in (known, unknown, known.upper()):
        assert name.lower() not in hide.text(line.format(name))


def test_the_command_shows_what_it_packed_and_sends_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edge.doctor.checks.examine", lambda _home: [fault("clock", "is wrong", "see it")])
    out = tmp_path / "for-support.tar.gz"
    where = ("--config", home.settings.path, "--state", home.state, "--run", home.run)
    status, said, _ = run_here(monkeypatch, capsys, "support-bundle", "--out", out, *where)
    assert status == 0
    assert all(name in said for name in CONTENTS)
    assert "Nothing was sent" in said
    assert out.stat().st_mode & 0o777 == 0o600
    assert found_in(Bundle({}, out.read_bytes()), [*PERSONAL.values(), *SECRET.values()]) == []
    status, _, err = run_here(monkeypatch, capsys, "support-bundle", "--out", tmp_path / "no" / "where", *where)
    assert (status, "--out" in err) == (2, True)
