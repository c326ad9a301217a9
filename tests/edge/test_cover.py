"""The morning's question: who was not protected, when, and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.cover import spells
from edge.journal import JOURNAL_FILE, Journal
from tests.edge.in_process import run_here

NOW = datetime.now(UTC)


def blind(
    cause: str, *, room: str | None = "12", ago_h: float = 1.0, fault: bool = False, board: bool = True
) -> Incident:
    at = NOW - timedelta(hours=ago_h)
    return Incident(
        new_incident_id(),
        "home",
        Kind.BLIND,
        at,
        resident=room and f"r{room}",
        room=room,
        cause=cause,
        fault=fault,
        board_only=board,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / JOURNAL_FILE)


def test_what_still_holds_comes_first_and_falls_are_not_among_it(journal: Journal) -> None:
    over, holds = blind("wearable flat", ago_h=0.5), blind("wearable silent", room="13", ago_h=3)
    for facts in (over, holds, Incident(new_incident_id(), "home", Kind.FALL, NOW)):
        journal.raise_incident(facts)
    journal.resolve(over.incident, Outcome.RESTORED, "fallwatch")
    found = spells(journal.open_cases() + [case for case in journal.cases(limit=9) if case.first("resolved")])
    assert [(s.room, s.cause, s.ended_at is None) for s in found] == [
        ("13", "wearable silent", True),
        ("12", "wearable flat", False),
    ]
    assert found[0].lasted_s(NOW) == pytest.approx(3 * 3600, abs=5)


def test_report_cover_writes_a_table_for_people_and_lines_for_programs(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "fallwatch.toml"
    config.write_text('[home]\nid = "home"\n')
    at = ("--config", config, "--state", tmp_path)
    status, said, _ = run_here(monkeypatch, capsys, "report", "--cover", *at)
    assert (status, said) == (0, "Everybody was covered, and nothing is to be mended.\n")
    journal.raise_incident(blind("wearable silent", ago_h=0.1))
    journal.raise_incident(blind("receiver not connected", room=None, ago_h=0.2, board=False))
    journal.raise_incident(blind("wearable battery lasts less than a day", fault=True, ago_h=0.3))
    _, said, _ = run_here(monkeypatch, capsys, "report", "--cover", *at)
    assert "NO COVER: wearable silent" in said
    assert "the home" in said
    assert "to mend: wearable battery" in said
    _, said, _ = run_here(monkeypatch, capsys, "report", "--cover", "--json", *at)
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[0]["cause"] == "wearable silent"
    assert {"resident", "room", "lasted_s", "warning", "called"} <= lines[0].keys()


def test_what_is_for_the_board_alone_calls_nobody_and_says_so(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    journal.raise_incident(blind("wearable silent", room="13"))
    _, said, _ = run_here(monkeypatch, capsys, "incidents", "--state", tmp_path)
    assert "nobody is called: for the board" in said
