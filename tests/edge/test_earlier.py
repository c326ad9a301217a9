"""What the last two versions left is read by this one, and what this one adds leaves it readable for them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge.core.incident import State
from edge.journal import JOURNAL_FILE, Journal
from edge.keys import KeyStore
from edge.selftest import fitted
from edge.settings import load_settings
from edge.sinks.record import RECORD_FILE, EmbeddedRecord

EARLIER = Path(__file__).parents[1] / "earlier"
VERSIONS = sorted(path for path in EARLIER.iterdir() if path.is_dir())


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a state folder as that version left it, its settings beside it."""
    for name, file in (("journal.sql", JOURNAL_FILE), ("record.sql", RECORD_FILE)):
        with sqlite3.connect(tmp_path / file) as db:
            db.executescript((request.param / name).read_text(encoding="utf-8"))
        db.close()
    for name in ("counters.json", "fallwatch.toml"):
        shutil.copy(request.param / name, tmp_path)
    return tmp_path


def test_two_versions_are_kept() -> None:
    assert len(VERSIONS) == 2


def test_its_settings_are_read_and_nothing_of_them_is_unknown(state: Path) -> None:
    settings = load_settings(state / "fallwatch.toml")
    assert settings.resident_of("0042") is not None
    assert settings.detect.blind_page_s == 120
    assert fitted((state / "fallwatch.toml").read_text(encoding="utf-8"), state)[1] == []


def test_its_incidents_are_there_and_the_open_one_is_still_open(state: Path) -> None:
    journal = Journal(state / JOURNAL_FILE)
    assert {case.state for case in journal.cases(limit=10)} == {State.RESOLVED, State.RAISED}
    (still_open,) = journal.open_cases()
    assert still_open.facts.room == "12"
    assert journal.acknowledge(still_open.facts.incident, "anna") == "anna"
    journal.close()


def test_an_earlier_version_would_read_the_journal_after_this_one_has_had_it(state: Path) -> None:
    def shapes() -> dict[str, tuple[object, ...]]:
        with sqlite3.connect(state / JOURNAL_FILE) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found: dict[str, tuple[object, ...]] = {
                name: tuple(db.execute(f"PRAGMA table_info({name})").fetchall()) for name in tables
            }
            found["version"] = db.execute("PRAGMA user_version").fetchone()
        db.close()
        return found

    before = shapes()
    Journal(state / JOURNAL_FILE).close()
    after = shapes()
    # Tables may be added; what was there is as it was, and the number that it refuses to go beyond as well.
    assert before.items() <= after.items()


def test_its_record_and_counters_are_read(state: Path) -> None:
    record = EmbeddedRecord(state / RECORD_FILE)
    record.close()
    assert not list(state.glob("*.corrupt-*"))
    written = json.loads((state / "counters.json").read_text(encoding="utf-8"))
    assert list(written["wearables"]) == ["0042"]
    assert KeyStore(state / "secrets", state).wearables() == ()  # keys lie with the settings' secrets
