from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import boot_id
from edge.core.incident import Incident, Kind, Outcome, utc_text
from edge.export import (
    AUDIT_FIELDS,
    INCIDENT_FIELDS,
    Story,
    audit_rows,
    incident_row,
    is_about_people,
    write_csv,
    write_json,
)
from edge.form import incident_form
from edge.journal import JOURNAL_FILE, Case, Event, Journal, Note, OutboxItem
from edge.settings import HomeSettings, Settings
from tests.edge.in_process import run_here

AT = datetime(2026, 7, 22, 3, 14, 7, 250_000, tzinfo=UTC)  # summer: one hour ahead in London
FALL = Incident(
    incident="0193510c-8f2a-7c31-9d1e-2b6f0a4c5d7e",
    home="site-7",
    kind=Kind.FALL,
    raised_at=AT + timedelta(seconds=2),
    impact_at=AT,
    resident="r12",
    room="12",
    bed="A",
    wearable="0042",
    probability=0.9731,
    model="wrist-2",
)
SETTINGS = Settings(home=HomeSettings(id="site-7", name="Rosewood House"))
LONDON = ZoneInfo("Europe/London")


def event(seq: int, kind: str, after_s: float, *, boot: str = "b1", **body: Any) -> Event:
    return Event(seq, FALL.incident, kind, AT + timedelta(seconds=after_s), boot, 1000.0 + after_s, body)


def a_page(to: str = "12", *, accepted: bool = True, channel: str = "espa-1") -> dict[str, Any]:
    text = {"text": "FALL? RM 12 BED A 04:14", "words": "alarm", "number": 1}
    return {"channel": channel, "to": to, "accepted": accepted, "reason": "" if accepted else "no answer", **text}


EVENTS = [
    event(1, "raised", 2, since_impact_s=2.0),
    event(2, "paged", 3, **a_page(accepted=False)),
    event(3, "paged", 8, **a_page()),
    event(4, "paged", 9, **a_page("+447700900123", channel="sms-1")),
    event(5, "acknowledged", 60, by="anna"),
    event(6, "attended", 180, by="ben"),
    event(7, "motion", 542, motion="upright"),
    event(8, "resolved", 700, outcome="fall", by="anna"),
]


def a_case(*events: Event, **changes: Any) -> Case:
    return Case(replace(FALL, **changes), list(events or EVENTS))


def test_an_incident_stands_under_the_names_of_the_blueprint() -> None:
    assert incident_row(a_case(), SETTINGS) == {
        "Description": "Suspected fall (automatic detection, not confirmed); found by staff: fall",
        "Additional information": "Incident 0193510c-8f2a-7c31-9d1e-2b6f0a4c5d7e; resident r12; "
        "detected 2026-07-22T04:14:09+01:00; acknowledged 2026-07-22T04:15:07+01:00; "
        "staff arrived 2026-07-22T04:17:07+01:00; up from the floor 2026-07-22T04:23:09+01:00; "
        "closed 2026-07-22T04:25:47+01:00; 9 min 2 s on the floor; classifier score 0.973 (model wrist-2)",
        "Instruction": "Post-fall check",
        "Date": "2026-07-22T04:14:07+01:00",
        "Location": "Room 12, bed A",
        "Involved (care actors)": "anna, ben",
        "Service provider": "Rosewood House",
        "Informed (care actors)": "12 on espa-1, ...123 on sms-1",
        "Location of document": "record of the fallwatch unit, Observation "
        "https://fallwatch.example/id/incident|site-7/0193510c-8f2a-7c31-9d1e-2b6f0a4c5d7e",
        "Care actor": "anna",
        "Coding": "SNOMED CT 1912002 | Fall (event)",
    }
    assert INCIDENT_FIELDS == (
        "Description",
        "Additional information",
        "Instruction",
        "Date",
        "Location",
        "Involved (care actors)",
        "Service provider",
        "Informed (care actors)",
        "Location of document",
        "Care actor",
        "Coding",
    )


def test_only_a_person_makes_it_a_coded_fall() -> None:
    assert incident_row(a_case(*EVENTS[:-1]), SETTINGS)["Coding"] == ""
    for outcome in set(Outcome) - {Outcome.FALL, Outcome.RESTORED}:
        row = incident_row(a_case(*EVENTS[:-1], event(8, "resolved", 700, outcome=outcome, by="anna")), SETTINGS)
        assert row["Coding"] == ""
    drill = incident_row(a_case(drill=True), SETTINGS)
    assert drill["Coding"] == drill["Instruction"] == ""
    assert drill["Description"].startswith("DRILL, nothing happened")


@pytest.mark.parametrize("outcome", ["not-a-fall", "near-fall", "drill"])
def test_who_did_not_fall_did_not_lie_there(outcome: str) -> None:
    case = a_case(EVENTS[0], event(8, "resolved", 700, outcome=outcome, by="anna"))
    assert Story.of(case, LONDON).on_floor_s is None


def test_the_time_on_the_floor_ends_when_up_or_at_most_when_closed() -> None:
    assert Story.of(a_case(), LONDON).on_floor_s == 542
    without = a_case(*(e for e in EVENTS if e.kind != "motion"))
    assert Story.of(without, LONDON).on_floor_s == 700
    assert "at most 11 min 40 s on the floor" in incident_row(without, SETTINGS)["Additional information"]
    fell_again = a_case(*EVENTS[:7], event(8, "again", 560), event(9, "motion", 800, motion="upright"))
    assert Story.of(fell_again, LONDON).on_floor_s == 800
    assert Story.of(a_case(*EVENTS[:6]), LONDON).on_floor_s is None  # still lies there, or nobody knows
    long = a_case(EVENTS[0], event(7, "motion", 3600, motion="upright"))
    assert "long lie: one hour or more" in incident_row(long, SETTINGS)["Additional information"]
    assert Story.of(a_case(kind=Kind.HELP_BUTTON), LONDON).on_floor_s is None


def test_across_a_reboot_the_wall_clock_counts_if_it_was_right() -> None:
    up = event(7, "motion", 542, boot="b2", motion="upright")
    assert Story.of(a_case(EVENTS[0], up), LONDON).on_floor_s == 542
    assert Story.of(a_case(EVENTS[0], replace(up, clock_ok=False)), LONDON).on_floor_s is None
    assert Story.of(a_case(EVENTS[0], up, clock_ok=False), LONDON).on_floor_s is None


def test_times_by_a_bad_clock_are_marked() -> None:
    assert "not synchronised" in incident_row(a_case(clock_ok=False), SETTINGS)["Additional information"]


def test_technical_incidents_are_not_exported_and_drills_only_on_request() -> None:
    assert is_about_people(a_case(), drills=False)
    assert not is_about_people(a_case(drill=True), drills=False)
    assert is_about_people(a_case(drill=True), drills=True)
    assert not is_about_people(a_case(kind=Kind.BLIND, cause="dongle gone"), drills=True)


# -- tables -------------------------------------------------------------------------------------


@given(
    st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.none() | st.booleans() | st.integers()}), max_size=4)
)
def test_no_cell_is_a_formula_and_every_row_has_its_line(rows: list[dict[str, Any]]) -> None:
    file = io.StringIO(newline="")
    write_csv(file, ("a", "b"), rows)
    read = list(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert read[0] == ["a", "b"]
    assert len(read) == len(rows) + 1
    assert file.getvalue().count("\n") == len(rows) + 1
    for (text, _), row in zip(read[1:], rows, strict=True):
        assert not text.lstrip().startswith(("=", "+", "-", "@"))
        assert text.removeprefix("'") == "".join(
            c if c.isprintable() else " " for c in row["a"]
        ) or text.startswith("''")


@pytest.mark.parametrize(
    "bad", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=cmd|' /C calc'!A0", "  =1", "\u00a0=1"]
)
def test_what_a_spreadsheet_would_run_it_shows(bad: str) -> None:
    file = io.StringIO(newline="")
    write_csv(file, ("a",), [{"a": bad}])
    assert list(csv.reader(io.StringIO(file.getvalue())))[1][0].startswith("'")


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())))
def test_the_list_is_json(rows: list[dict[str, Any]]) -> None:
    file = io.StringIO()
    write_json(file, rows)
    assert json.loads(file.getvalue()) == rows


# -- the message log ----------------------------------------------------------------------------


def reader(events: Sequence[Event], at_once: int = 3) -> Any:
    return lambda seq: [e for e in events if e.seq > seq][:at_once]


def rows_of(events: Sequence[Event], notes: Sequence[Note] = (), **span: Any) -> list[dict[str, Any]]:
    limits = {"since": None, "until": None, **span}
    return list(audit_rows(reader(events), notes, lambda _: FALL, LONDON, **limits))


def test_every_message_and_what_came_back_is_in_the_log() -> None:
    key = f"record/{FALL.incident}/raised"
    parked = event(9, "recorded", 710, key=key, state="parked", reason="no patients")
    rows = rows_of([*EVENTS, parked])
    assert [row["seq"] for row in rows] == list(range(1, 10))
    assert all(tuple(row) == AUDIT_FIELDS for row in rows)
    refused, text = rows[1], rows[3]
    assert (refused["channel"], refused["to"], refused["accepted"], refused["reason"]) == (
        "espa-1",
        "12",
        False,
        "no answer",
    )
    assert refused["text"] == "FALL? RM 12 BED A 04:14"
    assert refused["at"] == "2026-07-22T04:14:10.250+01:00"
    assert (text["channel"], text["to"]) == ("sms-1", "...123")
    assert (rows[4]["what"], rows[4]["by"], rows[7]["outcome"]) == ("acknowledged", "anna", "fall")
    assert (rows[8]["what"], rows[8]["key"], rows[8]["state"], rows[8]["reason"]) == (
        "recorded",
        key,
        "parked",
        "no patients",
    )
    assert (rows[0]["boot"], rows[0]["clock_ok"], rows[0]["room"]) == ("b1", True, "12")
    assert json.loads(rows[6]["more"]) == {"motion": "upright"}


def test_what_no_clock_vouches_for_is_marked_in_the_log() -> None:
    doubtful = replace(event(2, "attended", 5, by="ben"), clock_ok=False)
    assert [row["clock_ok"] for row in rows_of([EVENTS[0], doubtful])] == [True, False]
    rows = list(
        audit_rows(
            reader([EVENTS[0]]), (), lambda _: replace(FALL, clock_ok=False), LONDON, since=None, until=None
        )
    )
    assert rows[0]["clock_ok"] is False


def test_a_span_is_half_open_and_notes_of_the_home_are_among_the_events() -> None:
    note = Note(4, "tested", AT + timedelta(seconds=30), "b1", 1030.0, {"channel": "espa-1", "accepted": True})
    rows = rows_of(EVENTS, [note])
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, "n4", 5, 6, 7, 8]
    assert (rows[4]["what"], rows[4]["incident"], rows[4]["channel"]) == ("tested", None, "espa-1")
    some = rows_of(EVENTS, [note], since=EVENTS[2].at, until=EVENTS[5].at)
    assert [row["seq"] for row in some] == [3, 4, "n4", 5]


@given(st.lists(st.integers(-5, 5), max_size=12), st.lists(st.integers(-5, 5), max_size=6))
def test_whatever_the_wall_clock_does_events_stay_in_order(steps: list[int], notes: list[int]) -> None:
    events = [event(number, "motion", 60.0 * step, motion="still") for number, step in enumerate(steps, start=1)]
    said = [
        Note(number, "tested", AT + timedelta(minutes=step), "b1", 0.0, {})
        for number, step in enumerate(notes, start=1)
    ]
    seqs = [row["seq"] for row in rows_of(events, said)]
    assert [seq for seq in seqs if isinstance(seq, int)] == list(range(1, len(steps) + 1))
    assert [seq for seq in seqs if isinstance(seq, str)] == [f"n{n}" for n in range(1, len(notes) + 1)]


# -- the form -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data + "\n"


def a_form(case: Case, home: HomeSettings = SETTINGS.home) -> str:
    return incident_form(case, home, printed_at=AT + timedelta(hours=1))


def test_the_form_says_what_is_known_and_leaves_room_for_the_rest() -> None:
    page = Page(a_form(a_case()))
    for words in (
        "Rosewood House",
        "Room 12, bed A",
        "r12",
        "22/07/2026 04:14:07 BST",
        "anna, 22/07/2026 04:15",
        "ben, 22/07/2026 04:17",
        "9 min 2 s",
        "suspected fall, score 0.97 (wrist-2)",
        "fall (anna, 22/07/2026 04:25)",
        "Resident's name",
        "Neuro observations",
        "call 999",
        "Regulation 18",
        "RIDDOR",
        "What the last letter stands for differs",
        "not a medical diagnosis",
    ):
        assert words in page.text, words
    assert re.findall(r"\n([ISTUMBLE])\n", page.text) == list("ISTUMBLE")
    questions = [line for line in page.text.splitlines() if line.startswith(("CQC", "RIDDOR", "Care plan"))]
    assert len(questions) == 3
    assert all("?" in line for line in questions)


def test_the_form_fetches_nothing_and_runs_nothing() -> None:
    hostile = a_case(room='<script>alert(1)</script>"', resident="r12", model="<img src=x onerror=y>")
    page = Page(a_form(hostile, HomeSettings(id="x", name="<b>&</b>")))
    assert not {"script", "img", "link", "iframe", "form", "a", "object"} & set(page.tags)
    assert set(page.attributes) <= {"lang", "charset", "class"}
    assert "url(" not in a_form(hostile)
    assert "<script>alert(1)</script>" in page.text


def test_a_drill_and_a_bad_clock_and_a_long_lie_are_said_on_the_form() -> None:
    assert "DRILL" in a_form(a_case(drill=True))
    assert "DRILL" not in a_form(a_case())
    assert "not synchronised" in a_form(a_case(clock_ok=False))
    assert "LONG LIE" in a_form(a_case(EVENTS[0], event(7, "motion", 3600, motion="upright")))


def test_a_form_is_about_a_resident() -> None:
    with pytest.raises(ValueError, match="about the system"):
        a_form(a_case(kind=Kind.BLIND))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(
    CHROMIUM is None or shutil.which("pdfinfo") is None, reason="no Chromium, or no pdfinfo to count pages"
)
def test_the_longest_form_is_one_page_of_a4(tmp_path: Path) -> None:
    long = "a long way down the corridor, by the garden door, on the left"
    names = {"room": long, "bed": long, "resident": "r" * 64, "model": "m" * 40, "drill": True, "clock_ok": False}
    by = "the senior carer of the night shift on the first floor"
    events = [replace(e, body={**e.body, "by": by}) if "by" in e.body else e for e in EVENTS]
    case = a_case(*(replace(e, mono_s=e.mono_s + 7200 * (e.seq > 6)) for e in events), **names)
    html, pdf = tmp_path / "form.html", tmp_path / "form.pdf"
    html.write_text(a_form(case, HomeSettings(id="x", name=long)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={pdf}", html.as_uri()],
        timeout=60,
        check=True,
        capture_output=True,
    )
    told = subprocess.run(["pdfinfo", str(pdf)], capture_output=True, text=True, timeout=20, check=True).stdout
    assert re.search(r"Pages: +1\n", told)
    assert "(A4)" in told


# -- the commands -------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fallwatch.toml").write_text('[home]\nid = "site-7"\nname = "Rosewood House"\n')
    monkeypatch.setenv("FALLWATCH_CONFIG", str(tmp_path / "fallwatch.toml"))
    monkeypatch.setenv("FALLWATCH_STATE", str(tmp_path))
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.raise_incident(FALL, since_impact_s=2.0)
    journal.add(FALL.incident, "paged", **a_page())
    journal.acknowledge(FALL.incident, "anna")
    journal.resolve(FALL.incident, Outcome.FALL, "anna")
    drill = replace(FALL, incident="0193510d-8f2a-7c31-9d1e-2b6f0a4c5d7e", drill=True)
    journal.raise_incident(drill)
    journal.raise_incident(
        Incident("0193510e-8f2a-7c31-9d1e-2b6f0a4c5d7e", "site-7", Kind.BLIND, AT, cause="dongle gone")
    )
    items = [
        OutboxItem(f"record/{FALL.incident}/{kind}", FALL.incident, b"9434765919") for kind in ("raised", "page/2")
    ]
    journal.put("record", items, cursor=0)
    for item in items:
        journal.settle(item.key, "parked", "no patients with the resident's number in the record")
    journal.close()
    return tmp_path


def test_incidents_are_exported_by_the_day(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_here(monkeypatch, capsys, "export", "incidents")
    assert status == 0
    head, row = csv.reader(io.StringIO(out))
    assert tuple(head) == INCIDENT_FIELDS
    assert row[head.index("Care actor")] == "anna"
    _, out, __ = run_here(monkeypatch, capsys, "export", "incidents", "--format", "json", "--drills")
    assert [list(incident) for incident in json.loads(out)] == [list(INCIDENT_FIELDS)] * 2
    _, out, __ = run_here(monkeypatch, capsys, "export", "incidents", "--until", "2020-01-01", "--format", "json")
    assert json.loads(out) == []
    file = state / "out.csv"
    status, out, _ = run_here(monkeypatch, capsys, "export", "incidents", "--since", "2026-01-01", "--out", file)
    assert (status, out) == (0, f"Written to {file}.\n")
    assert file.read_bytes().count(b"\r\n") == 2
    assert file.stat().st_mode & 0o077 == 0


def test_the_log_has_it_all_and_no_nhs_number(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_here(monkeypatch, capsys, "export", "audit", "--format", "json")
    rows = json.loads(out)
    assert status == 0
    whats = [row["what"] for row in rows if row["incident"]]
    assert whats == ["raised", "paged", "acknowledged", "resolved", "raised", "raised", "recorded", "recorded"]
    assert {row["boot"] for row in rows} == {boot_id()}
    assert rows[-1]["state"] == "parked"
    assert "9434765919" not in out
    _, out, __ = run_here(monkeypatch, capsys, "export", "audit", "--until", "2020-01-01")
    assert out == ",".join(AUDIT_FIELDS) + "\r\n"


def test_the_form_of_an_incident_is_written_by_the_start_of_its_id(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = state / "form.html"
    status, out, _ = run_here(monkeypatch, capsys, "export", "form", "0193510c", "--out", file)
    assert status == 0
    assert "print" in out
    assert "Rosewood House" in file.read_text()
    status, out, _ = run_here(monkeypatch, capsys, "export", "form", "0193510c")
    assert out.startswith("<!DOCTYPE html>")
    for unknown in ("0193510e", "nobody"):
        status, _, error = run_here(monkeypatch, capsys, "export", "form", unknown)
        assert status == 1
        assert error


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("incidents", "--format", "xml"), 2),
        (("incidents", "--since", "yesterday"), 2),
        (("audit", "--since", "2026-02-02", "--until", "2026-02-01"), 2),
        (("audit", "--until", "9999-12-31"), 2),
        (("audit", "--out", "/proc/nowhere/x.csv"), 1),
    ],
)
def test_an_export_that_cannot_be_is_said_in_one_line(
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
) -> None:
    ended, _, error = run_here(monkeypatch, capsys, "export", *arguments)
    assert (ended, error.count("\n")) == (status, 1)


def states(state: Path) -> dict[str, tuple[str, str]]:
    journal = Journal(state / JOURNAL_FILE)
    try:
        rows = journal._read("SELECT key, state, reason FROM outbox")
    finally:
        journal.close()
    return {key.rpartition("/")[2]: (state, reason) for key, state, reason in rows}


def test_what_was_refused_is_sent_again_one_by_one_or_all(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, __ = run_here(monkeypatch, capsys, "record", "parked", "--json")
    keys = [json.loads(line)["key"] for line in out.splitlines()]
    assert "9434765919" not in out
    status, out, _ = run_here(monkeypatch, capsys, "record", "retry", keys[0], "--by", "anna")
    assert (status, [s for s, _ in states(state).values()]) == (0, ["waiting", "parked"])
    status, _, error = run_here(monkeypatch, capsys, "record", "retry", keys[0])
    assert status == 1
    assert "fallwatch record parked" in error
    assert run_here(monkeypatch, capsys, "record", "retry")[0] == 2
    assert run_here(monkeypatch, capsys, "record", "retry", "x", "--all")[0] == 2
    assert run_here(monkeypatch, capsys, "record", "retry", "--all")[0] == 0
    assert [s for s, _ in states(state).values()] == ["waiting", "waiting"]
    _, out, __ = run_here(monkeypatch, capsys, "export", "audit", "--format", "json")
    assert "sent once more by anna" in [row["reason"] for row in json.loads(out)]


def test_all_that_was_refused_is_still_sent_again_by_the_old_option(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_here(monkeypatch, capsys, "record", "parked", "--retry")
    assert status == 0
    assert out.endswith("2 entries are sent once more.\n")
    assert [s for s, _ in states(state).values()] == ["waiting", "waiting"]


def test_who_gives_up_on_an_entry_says_why_and_it_is_kept(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = ("--by", "anna", "--reason", "written by hand for 943 476 5919")
    assert run_here(monkeypatch, capsys, "record", "give-up", FALL.incident, *why)[0] == 1  # which of the two?
    assert run_here(monkeypatch, capsys, "record", "give-up", "raised", "--by", " ", "--reason", "x")[0] == 2
    assert run_here(monkeypatch, capsys, "record", "give-up", "raised", *why)[0] == 0
    kept, reason = states(state)["raised"]
    assert kept == "given-up"
    assert reason == (
        "by anna: written by hand for *** (was: no patients with the resident's number in the record)"
    )
    _, out, __ = run_here(monkeypatch, capsys, "export", "audit", "--format", "json")
    last = json.loads(out)[-1]
    assert (last["what"], last["state"], last["reason"]) == ("recorded", "given-up", reason)
    _, out, __ = run_here(monkeypatch, capsys, "record", "parked")
    assert out.count("record/") == 1


def test_times_in_the_journal_are_those_of_the_log(state: Path) -> None:
    journal = Journal(state / JOURNAL_FILE)
    first = journal.events_after(0, 1)[0]
    journal.close()
    row = next(iter(audit_rows(reader([first]), (), lambda _: FALL, LONDON, since=None, until=None)))
    assert utc_text(datetime.fromisoformat(row["at"])) == utc_text(first.at)
