"""`fallwatch walktest` as an installer meets it, and the sheet that ends the day."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edge.cli.sheet import sheet_content
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.core.walk import Carried, Room
from edge.doctor.finding import Finding
from edge.journal import JOURNAL_FILE, Journal, Moment
from edge.keys import KeyStore
from edge.runfile import write_runfile
from edge.settings import load_settings
from edge.walk.book import Book, Spot, read_book, write_book
from edge.walk.drawing import walk_map
from edge.walk.ear import ServiceEar
from edge.walk.sheet import SENTENCE, sheet_html
from tests.edge.in_process import run_here

FALLWATCH = (sys.executable, "-m", "edge.cli")
WALK = Path(__file__).parent.parent / "data" / "walk-wrist.csv"
NHS_NUMBER = "9434765919"
SETTINGS = """
[home]
id = "site-7"
name = "Rose & Wood <House>"

[[dongle]]
port = "{folder}/dongle"

[[resident]]
id = "r12"
room = "12"
bed = "A"
nhs_number = "9434765919"
wearable = "0042"

[[resident]]
id = "r14"
room = "14"
cover = "should"
wearable = "0043"

[[resident]]
id = "r20"
room = "20"
cover = "none"

[[camera]]
id = "cam-12"
room = "12"
kind = "oak"
resident = "r12"
consent = {{ kind = "consent", given = 2026-11-01, review = 2027-05-01 }}

[[pager]]
url = "tcp://127.0.0.1:9"

[[pager]]
kind = "sms"
rc_file = "gammurc"
addresses = {{ "99" = "+447700900123" }}

[escalation]
groups = ["12", "20", "99"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "fallwatch.toml").write_text(SETTINGS.format(folder=tmp_path))
    keys = KeyStore(tmp_path / "secrets", tmp_path / "state")
    keys.make("0042")
    keys.make("0043")
    return tmp_path


def options(home: Path) -> list[str]:
    return ["--config", f"{home}/fallwatch.toml", "--state", f"{home}/state", "--run", f"{home}/run"]


@contextmanager
def worn(home: Path, *more: str) -> Iterator[None]:
    """Play a wearable that walks, in a process of its own."""
    command = [*FALLWATCH, *options(home), "simulate", "--port", f"{home}/dongle"]
    command += ["--play", f"{WALK},wearable=0042,loop", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as player:
        try:
            assert player.stdout is not None
            player.stdout.readline()
            yield
        finally:
            player.terminate()


class Terminal:
    """The command on a terminal of its own, and what an installer types there."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._screen, slave = pty.openpty()
        command = [*FALLWATCH, *options(home), "walktest", *arguments]
        environment = {**os.environ, "COLUMNS": "110", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.shown = ""

    def until(self, words: str, timeout_s: float = 30.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not re.search(words, self.shown):
            assert time.monotonic() < until_s, f"{words!r} is not in:\n{self.shown}"
            if select.select([self._screen], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._screen, 65536).decode()
                except OSError:  # it ended
                    break
        assert re.search(words, self.shown), self.shown

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())


@pytest.mark.timeout(120)
def test_an_installer_walks_through_rooms_and_a_kill_loses_none_of_them(home: Path) -> None:
    (home / "plan.csv").write_text("room,x_m,y_m\n12,0,0\nbath,4,0\n")
    with worn(home, "--loss", "0.5"):
        terminal = Terminal(home, "--seconds", "10", "--plan", f"{home}/plan.csv")
        terminal.until("Carried: 0042")
        terminal.until(r"Room \(next 12\)")
        assert "the receivers, as the detect service does not run" in terminal.shown
        terminal.type("122\x7f\r")  # a slip of the finger
        terminal.until(r"Room 12: NO COVER \(\d+% lost, from 20% on it counts as barely heard")
        terminal.until(r"Room \(next bath\)")
        terminal.type("bath\n")
        terminal.until("Room bath: [1-9] s left")
        terminal.process.kill()
        terminal.process.wait()
    book = read_book(home / "state")
    assert list(book.rooms) == ["12"]
    assert 0.15 < book.rooms["12"].carried[0].lost_part < 0.85
    assert book.rooms["12"].carried[0].rssi_median_dbm == pytest.approx(-63, abs=2)
    assert book.unwalked(load_settings(home / "fallwatch.toml")) == ("bath", "14")


def said_by_the_service(home: Path, *, age_s: float = 0.0) -> None:
    from edge.clock import monotonic_s  # noqa: PLC0415 - beside the only use

    now_s = monotonic_s()
    words = {"heard_s_ago": 0.1, "rssi_dbm": -61, "battery_pct": 87, "rate_hz": 50.0, "cause": None}
    trail = [(now_s - 1.0 + i / 4, -61, 1, 12 * i, 12) for i in (0, 1, 3)]
    (home / "run").mkdir(exist_ok=True)
    body = {"wearables": {"0042": words | {"trail": trail}}, "links": {"x": {"well": True, "cause": None}}}
    write_runfile(home / "run" / "detect.json", body | {"mono_s": now_s - age_s})


def test_where_the_detect_service_runs_its_word_is_taken(home: Path) -> None:
    ear = ServiceEar(home / "run")
    assert ear.look() is None
    said_by_the_service(home)
    told = (ear.look() or {})["0042"]
    assert (told.rssi_dbm, told.battery_pct, told.lost_part, len(told.packets)) == (-61, 87, 0.25, 3)
    said_by_the_service(home, age_s=7.0)
    assert ear.look() is None


def test_a_walk_is_refused_in_one_line_where_it_cannot_begin(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def walktest(*arguments: str) -> tuple[int, str]:
        status, _, err = run_here(monkeypatch, capsys, *options(home), "walktest", *arguments)
        return status, err

    monkeypatch.setattr("edge.cli.walk.FIND_S", 0.5)
    assert walktest()[0] == 2  # no terminal to ask at
    assert "--room ROOM" in walktest()[1]
    assert walktest("--room", "12", "--show")[0] == 2
    status, err = walktest("--room", "12")
    assert (status, len(err.splitlines())) == (1, 1)
    assert f"{home}/dongle" in err
    said_by_the_service(home)
    status, err = walktest("--room", "12", "--wearable", "0099")
    assert (status, "0099 is no resident's" in err) == (2, True)
    write_book(home / "state", walked())
    assert walktest("--room", "12") == (
        2,
        "fallwatch: room 12 is walked already: --again 12 measures it once more\n",
    )


def walked() -> Book:
    good = Carried("0042", 60, 0, 0.0, -60.0, -64, 0.0, 87)
    dead = Carried("0042", 0, 0, 1.0, None, None, 30.0, 87)
    plan = (Spot("12", (0.0, 0.0)), Spot("bath", (4.0, 0.0)))
    rooms = [Room("12", "2026-12-01T09:00:00.000Z", 30, (good,)), Room("bath", "", 30, (dead,))]
    return Book(("0042",), plan, {room.name: room for room in rooms})


def test_the_walk_is_shown_with_what_to_do_and_fails_without_cover(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    write_book(home / "state", walked())
    svg = home / "map.svg"
    status, out, _ = run_here(monkeypatch, capsys, *options(home), "walktest", "--show", "--map", svg)
    assert status == 1
    for words in (
        "NO COVER",
        "nothing was heard",
        "GOOD",
        "not walked",
        "Add a receiver near room bath",
        "Walk room 14",
    ):
        assert words in out
    ET.parse(svg)
    status, out, _ = run_here(monkeypatch, capsys, *options(home), "walktest", "--show", "--json")
    document = json.loads(out)
    assert (status, document["well"], document["unwalked"]) == (1, False, ["14"])
    assert [room["cover"] for room in document["rooms"]] == ["good", "no cover"]


# -- the sheet ----------------------------------------------------------------------------------


def drill(state: Path) -> None:
    """Leave a drill in the journal that was answered after 12 s, and another call with a name in it."""
    journal = Journal(state / JOURNAL_FILE)
    now = Moment.now()
    for rehearsed in (False, True):
        facts = Incident(
            new_incident_id(), "site-7", Kind.FALL, now.at, room="12", resident="r12", drill=rehearsed
        )
        journal.raise_incident(facts, when=now)
        page = {"channel": "espa-1", "to": "12", "text": "DRILL", "words": "alarm", "number": 1}
        journal.add(facts.incident, "paged", when=now, **page, accepted=True, reason="")
        later = Moment(now.at, now.mono_s + 12.0, now.clock_ok)
        journal.acknowledge(facts.incident, "Anna Carer", when=later)
        journal.resolve(facts.incident, Outcome.DRILL, "Anna Carer", when=later)
    journal.close()


def sheet_of(home: Path, findings: list[Finding]) -> tuple[dict[str, Any], str]:
    settings, book = load_settings(home / "fallwatch.toml"), walked()
    content = sheet_content(settings, home / "state", home / "run", book, findings, by="installer")
    return content, sheet_html(content, walk_map(book.plan, book.rooms, title="Rose & Wood"))


def test_the_sheet_is_a_well_formed_page_that_needs_nothing_else(home: Path) -> None:
    drill(home / "state")
    found = [Finding("clock", "fault", "<script>alert(1)</script> & more", "see timedatectl")]
    _, html = sheet_of(home, found)
    page = ET.fromstring(html.partition("\n")[2].replace("&nbsp;", " "))
    tags = {element.tag.rpartition("}")[2] for element in page.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    assert all(not {"src", "href", "onclick"} & set(element.keys()) for element in page.iter())
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", html)
    text = " ".join("".join(page.itertext()).split())
    assert "<script>alert(1)</script> & more" in text
    assert "Rose & Wood <House>" in text
    assert SENTENCE in text
    for words in (
        "acknowledged after 12 s",
        "Room bath: no cover",
        "Room 14: not walked",
        "review before",
        "2027-05-01",
    ):
        assert words in text, words


def test_the_sheet_bears_no_names_and_no_numbers_of_people(home: Path) -> None:
    drill(home / "state")
    leaky = [
        Finding("record", "fault", f"no patient {NHS_NUMBER} or 943 476 5919", "ring +447700900123 or 07700900123")
    ]
    content, html = sheet_of(home, leaky)
    for text in (html, json.dumps(content)):
        for secret in (NHS_NUMBER, "943 476 5919", "7700900123", "Anna", "Carer"):
            assert secret not in text, secret


def test_the_sheet_says_what_is_not_covered_and_what_is_at_fault(home: Path) -> None:
    content, _ = sheet_of(
        home, [Finding("disk", "fault", "full", "free some"), Finding("clock", "warning", "off")]
    )
    assert content["not_covered"] == [
        "Room bath: no cover (nothing was heard)",
        "Room 14: not walked",
        "Resident r14, room 14: a loss of cover is shown, nobody is called for it (cover = should)",
        "Resident r20, room 20: nobody is to be called (cover = none)",
    ]
    assert content["at_fault"] == ["disk: full", "no drill was answered: fallwatch drill --room ROOM"]
    assert [(p["channel"], p["group"], p["accepted"]) for p in content["pages"]] == [
        *(("espa-1", group, None) for group in ("12", "20", "99")),
        ("sms-1", "99", None),
    ]


def test_the_sheet_takes_what_doctor_said_and_is_written_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_book(home / "state", walked())
    told = home / "doctor.jsonl"
    told.write_text(json.dumps(asdict(Finding("disk", "well", "9 GiB free"))) + "\n")
    out = home / "sheet.html"
    command = [*options(home), "sheet", "--by", "installer", "--doctor", told]
    status, said, _ = run_here(monkeypatch, capsys, *command, "--out", out)
    assert (status, "9 GiB free" in out.read_text()) == (1, True)
    assert "not covered: Room bath" in said
    status, said, _ = run_here(monkeypatch, capsys, *command, "--json")
    assert json.loads(said)["checks"] == [asdict(Finding("disk", "well", "9 GiB free"))]
    told.write_text("[]\n")
    status, _, err = run_here(monkeypatch, capsys, *command)
    assert (status, "write it anew" in err) == (2, True)
