"""The command line as its users meet it: what it prints, and the status it ends with."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edge.cli import app
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import JOURNAL_FILE, Journal, JournalUnavailable, OutboxItem
from edge.runfile import take_words, write_runfile
from models.card import newest
from tests.conftest import MakeBundle
from tests.edge.in_process import run_here

DATA = Path(__file__).parent.parent / "data"
SETTINGS = """\
# Rosewood House, ground floor
[home]
id = "site-7"  # as on the door

[[dongle]]
port = "/dev/fallwatch-dongle"

# Do not mix these two up!
[[resident]]
id = "r12"
room = "12"
wearable = "0042"

[[resident]]
id = "r13"
room = "13"
nhs_number = "9434765919"

[[pager]]
port = "/dev/ttyUSB1"
"""


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Fallwatch = Callable[..., Ended]


@pytest.fixture
def fallwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fallwatch:
    def run(*arguments: object) -> Ended:
        return Ended(*run_here(monkeypatch, capsys, *arguments))

    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "fallwatch.toml"
    path.parent.mkdir()
    path.write_text(SETTINGS)
    path.chmod(0o640)
    return path


# -- replay ------------------------------------------------------------------------------------------


def test_replay_writes_one_line_for_each_recording_in_order(
    fallwatch: Fallwatch, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DATA)
    names = ["walk-wrist.csv", "./fall-forward-wrist.csv", "../data/bend-wrist.csv", "walk-wrist.csv"]
    ended = fallwatch("replay", "--model", bundle, "--json", *names)
    assert (ended.status, ended.err) == (0, "")
    assert [line["recording"] for line in ended.lines] == names
    for line in ended.lines:
        assert list(line) == ["recording", "duration_s", "placement", "model", "alarms", "bad_rows"]
        assert (line["placement"], line["model"], line["bad_rows"]) == ("wrist", "peak-1", 0)
    assert [len(line["alarms"]) for line in ended.lines] == [0, 1, 0, 0]
    (fall,) = ended.lines[1]["alarms"]
    assert list(fall) == ["kind", "impact_s", "raised_s", "probability"]
    assert fall["kind"] == "fall"
    assert 5 < fall["impact_s"] < fall["raised_s"] < 8
    assert 0.5 < fall["probability"] <= 1
    assert ended.lines[1]["duration_s"] == pytest.approx(14.95, abs=0.1)


def test_replay_says_the_same_to_people(fallwatch: Fallwatch, bundle: Path) -> None:
    ended = fallwatch("replay", "--model", bundle, DATA / "fall-forward-wrist.csv", DATA / "walk-wrist.csv")
    fall, walk = ended.out.splitlines()
    assert "FALL impact 5." in fall
    assert "no alarm" in walk


def test_an_unreadable_recording_has_a_line_of_its_own_and_the_others_are_processed(
    fallwatch: Fallwatch, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "junk.csv").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "bare.csv").write_text("time_s,x_g,y_g,z_g\n")
    (tmp_path / "one.csv").write_text("time_s,x_g,y_g,z_g\n0,0,0,1\nbad\n")
    names = [tmp_path / name for name in ("empty.csv", "junk.csv", "none.csv", "bare.csv", "one.csv")]
    ended = fallwatch("replay", "--model", bundle, "--json", *names)
    assert ended.status == 1
    assert ended.err == ""
    assert [line["recording"] for line in ended.lines] == list(map(str, names))
    assert [list(line) for line in ended.lines[:4]] == [["recording", "error"]] * 4
    assert all(isinstance(line["error"], str) and line["error"] for line in ended.lines[:4])
    one = ended.lines[4]
    assert (one["duration_s"], one["alarms"], one["bad_rows"], one["placement"]) == (0.0, [], 1, "wrist")
    people = fallwatch("replay", "--model", bundle, *names)
    assert (people.status, len(people.out.splitlines())) == (1, 5)


def test_the_placement_option_beats_the_files_comment(fallwatch: Fallwatch) -> None:
    stairs = DATA / "stairs-waist.csv"
    (own,) = fallwatch("replay", "--json", stairs).lines
    (told,) = fallwatch("replay", "--placement", "wrist", "--json", stairs).lines
    assert (own["placement"], own["model"]) == ("waist", newest("waist").name)
    assert (told["placement"], told["model"]) == ("wrist", newest("wrist").name)


def lying(path: Path, *, seconds: float, peak_g: float) -> Path:
    """Write a recording of somebody who goes down at 10 s and lies still from then on."""
    rows = []
    for i in range(round(seconds * 50)):
        sway = 0.2 * ((i % 7) - 3) / 3 if i < 500 else 0.0
        g = peak_g if 499 <= i <= 501 else 1 + sway
        rows.append(f"{i / 50:.2f},0,0,{g:.3f}")
    path.write_text("# placement: wrist\ntime_s,x_g,y_g,z_g\n" + "\n".join(rows))
    return path


def test_a_long_lie_is_an_alarm_of_its_own_kind(fallwatch: Fallwatch, bundle: Path, tmp_path: Path) -> None:
    path = lying(tmp_path / "lie.csv", seconds=130, peak_g=2.8)
    (line,) = fallwatch("replay", "--model", bundle, "--json", path).lines
    (alarm,) = line["alarms"]
    assert alarm["kind"] == "long-lie"
    assert alarm["impact_s"] == pytest.approx(10, abs=0.1)
    assert 100 < alarm["raised_s"] < 106


@pytest.mark.parametrize("peak_g", [2.8, 6.0])
def test_a_recording_that_ends_after_the_impact_raises_the_alarm(
    fallwatch: Fallwatch, bundle: Path, tmp_path: Path, peak_g: float
) -> None:
    path = lying(tmp_path / "cut.csv", seconds=10.3, peak_g=peak_g)
    (line,) = fallwatch("replay", "--model", bundle, "--json", path).lines
    (alarm,) = line["alarms"]
    assert alarm["kind"] == "fall"
    assert alarm["impact_s"] <= alarm["raised_s"] < 10.4


def test_a_model_that_is_refused_ends_with_the_reason(fallwatch: Fallwatch, make_bundle: MakeBundle) -> None:
    folder = make_bundle(schema=9)
    ended = fallwatch("replay", "--model", folder, DATA / "walk-wrist.csv")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"fallwatch: model is refused: {folder}: card schema 9 is not 1: update fallwatch\n"


# -- usage -------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command, with the words that call it."""
    if not hasattr(group, "commands"):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_that_parses(fallwatch: Fallwatch, path: tuple[str, ...]) -> None:
    ended = fallwatch(*path, "--help")
    assert ended.status == 0
    said, _, example = COMMANDS[path].epilog.partition(": ")
    assert said == "Example"
    assert "".join(f"Example: {example}".split()) in "".join(ended.out.split())  # however it was wrapped
    name, *words = shlex.split(example)
    assert name == "fallwatch"
    assert tuple(words[: len(path)]) == path
    COMMANDS[path].make_context(path[-1], words[len(path) :]).close()  # raises on an option that is none
    assert COMMANDS[path].help


def test_the_commands_of_the_main_job_are_there() -> None:
    wanted = "run detect alarm pair unpair status incidents ack resolve replay simulate bench demo"
    assert {(name,) for name in wanted.split()} <= set(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("status", "--colour"),
        ("replay",),
        ("replay", "--placement", "ankle", "a.csv"),
        ("bench", "--wearables", "none"),
        ("simulate", "--play", "a.csv"),
        ("resolve", "0193", "--outcome", "drowned"),
        ("pair",),
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_status_2(fallwatch: Fallwatch, config: Path, arguments: tuple[str, ...]) -> None:
    ended = fallwatch("--config", config, "--state", config.parent, *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("pair", "0042"),
        ("unpair", "0042"),
        ("record", "show"),
        ("detect",),
        ("alarm",),
        ("run",),
        ("simulate", "--port", "/tmp/nowhere", "--play", "a.csv"),
    ],
    ids=" ".join,
)
def test_settings_that_are_wrong_end_every_command_with_one_line(
    fallwatch: Fallwatch, config: Path, arguments: tuple[str, ...]
) -> None:
    config.write_text(SETTINGS + "baud = 'fast'\n")
    ended = fallwatch(*arguments, "--config", config)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"fallwatch: {config}: pager[1].baud: 'fast' is wrong; use a whole number\n"
    config.unlink()
    ended = fallwatch(*arguments, "--config", config)
    assert ended.status == 2
    assert ended.err == f"fallwatch: {config}: there is no such file; write it, or name another with --config\n"


def test_options_for_all_commands_may_stand_before_or_after_or_in_the_environment(
    fallwatch: Fallwatch, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    before = fallwatch("--config", config, "--run", run, "status", "--json")
    after = fallwatch("status", "--config", config, "--run", run, "--json")
    assert before.lines[0]["home"] == "site-7"
    assert before == after
    monkeypatch.setenv("FALLWATCH_CONFIG", str(tmp_path / "wrong.toml"))
    assert fallwatch("status").status == 2
    assert str(tmp_path / "wrong.toml") in fallwatch("status").err
    assert fallwatch("--config", config, "status", "--run", run, "--json") == before
    assert fallwatch("--config", tmp_path / "wrong.toml", "status", "--config", config, "--run", run).status == 1


def test_the_module_is_the_command(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge.cli", "status", "--config", str(config), "--run", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "BLIND" in ended.stdout


# -- status ------------------------------------------------------------------------------------------


def write_status(run: Path, *, wearable: dict[str, Any] | None = None, **alarm: Any) -> None:
    run.mkdir(exist_ok=True)
    detect = {
        "links": {"/dev/fallwatch-dongle": {"well": True, "cause": None}},
        "wearables": {"0042": {"well": True, "battery_pct": 64, "lost": 3} | (wearable or {})},
    }
    write_runfile(run / "detect.json", detect)
    channels = {"espa-1": {"well": True}, "record": {"well": True}}
    told = {"channels": channels, "record_parked": 0, "journal": {"well": True}, "mqtt": None}
    write_runfile(run / "alarm.json", told | alarm)


def test_all_is_well_when_every_part_says_so(fallwatch: Fallwatch, config: Path, tmp_path: Path) -> None:
    config.write_text(SETTINGS.replace('room = "13"', 'room = "13"\nwearable = "0043"'))
    run = tmp_path / "run"
    write_status(run)
    detect = json.loads((run / "detect.json").read_text())
    detect["wearables"]["0043"] = detect["wearables"]["0042"]
    (run / "detect.json").write_text(json.dumps(detect))
    ended = fallwatch("status", "--config", config, "--run", run)
    assert ended.status == 0
    assert ended.out.endswith("All is well.\n")
    assert "64 %" in ended.out
    assert "lost 3" in ended.out
    (line,) = fallwatch("status", "--config", config, "--run", run, "--json").lines
    assert (line["home"], line["well"]) == ("site-7", True)
    assert {(part["part"], part["name"]) for part in line["parts"]} == {
        ("service", "detect"),
        ("service", "alarm"),
        ("receiver", "/dev/fallwatch-dongle"),
        ("wearable", "0042"),
        ("wearable", "0043"),
        ("pager", "espa-1"),
        ("record", "record"),
        ("journal", "journal"),
    }


def blind(ended: Ended) -> dict[str, str]:
    (line,) = ended.lines
    assert ended.status == 1
    assert line["well"] is False
    return {part["name"]: part["cause"] for part in line["parts"] if not part["well"]}


def test_what_is_blind_is_named_with_its_cause(fallwatch: Fallwatch, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    status = ("status", "--config", config, "--run", run, "--json")
    everything = blind(fallwatch(*status))
    assert everything == {
        "detect": "not running",
        "alarm": "not running",
        "/dev/fallwatch-dongle": "fall detection stopped",
        "0042": "fall detection stopped",
        "resident r13": "no wearable",
        "espa-1": "alarm service stopped",
        "record": "alarm service stopped",
    }
    write_status(run, wearable={"well": False, "cause": "wearable silent", "since_s": 75.0}, record_parked=2)
    assert blind(fallwatch(*status)) == {
        "0042": "wearable silent",
        "resident r13": "no wearable",
        "record": "2 entries refused: see fallwatch record parked",
    }
    assert "1 min 15 s" in fallwatch(*status[:-1]).out
    stuck = json.loads((run / "detect.json").read_text())
    stuck["mono_s"] -= 7
    (run / "detect.json").write_text(json.dumps(stuck))
    assert blind(fallwatch(*status))["0042"] == "fall detection stopped"


def test_no_status_shows_a_number_of_a_person(fallwatch: Fallwatch, config: Path, tmp_path: Path) -> None:
    write_status(tmp_path / "run")
    for option in ([], ["--json"]):
        ended = fallwatch("status", "--config", config, "--run", tmp_path / "run", *option)
        assert "9434765919" not in ended.out + ended.err


# -- pair and unpair ---------------------------------------------------------------------------------


def test_a_paired_wearable_has_a_key_that_only_its_owner_reads(
    fallwatch: Fallwatch, config: Path, tmp_path: Path
) -> None:
    at = ("--config", config, "--state", tmp_path / "state")
    ended = fallwatch("pair", "0042", *at)
    assert ended.status == 0
    assert "Wearable 0042 is paired: resident r12, room 12." in ended.out
    assert "Next: " in ended.out
    key = config.parent / "secrets" / "wearables" / "0042.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert key.read_text().strip() not in ended.out
    assert config.read_text() == SETTINGS  # it was bound already
    first = key.read_text()
    fallwatch("pair", "--wearable", "0042", *at)
    assert key.read_text() != first
    ended = fallwatch("unpair", "0042", *at)
    assert ended.status == 0
    assert not key.exists()
    assert "0042" not in config.read_text()
    ended = fallwatch("unpair", "0042", *at)
    assert (ended.status, ended.out) == (1, "Wearable 0042 is not known here.\n")


def test_pairing_notes_the_resident_and_keeps_what_people_wrote(
    fallwatch: Fallwatch, config: Path, tmp_path: Path
) -> None:
    at = ("--config", config, "--state", tmp_path / "state")
    ended = fallwatch("pair", "0042", "--resident", "r13", *at)
    assert ended.status == 0
    assert "resident r13, room 13" in ended.out
    text = config.read_text()
    for line in ("# Rosewood House, ground floor", "# as on the door", "# Do not mix these two up!"):
        assert line in text
    assert text.count('"0042"') == 1
    assert text.index('"0042"') > text.index('"r13"')
    assert config.with_suffix(".toml.old").read_text() == SETTINGS
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    assert sorted(p.name for p in config.parent.iterdir()) == ["fallwatch.toml", "fallwatch.toml.old", "secrets"]


def test_an_unknown_resident_is_refused_and_nothing_changes(
    fallwatch: Fallwatch, config: Path, tmp_path: Path
) -> None:
    ended = fallwatch("pair", "0099", "--resident", "r99", "--config", config, "--state", tmp_path / "state")
    assert ended.status == 2
    assert ended.err == f"fallwatch: {config}: resident: there is no resident 'r99'; known: r12, r13\n"
    ended = fallwatch("pair", "0099", "--config", config, "--state", tmp_path / "state")
    assert ended.status == 1
    assert "add --resident" in ended.err
    assert config.read_text() == SETTINGS
    assert not (config.parent / "secrets").exists()


def test_a_wearable_id_that_is_none_is_refused(fallwatch: Fallwatch, config: Path, tmp_path: Path) -> None:
    ended = fallwatch("pair", "../../x", "--resident", "r12", "--config", config, "--state", tmp_path / "state")
    assert ended.status == 2
    assert "1 to 8 letters, digits or '-'" in ended.err
    assert config.read_text() == SETTINGS


def test_all_wearables_of_the_settings_are_paired_once(fallwatch: Fallwatch, config: Path, tmp_path: Path) -> None:
    at = ("--config", config, "--state", tmp_path / "state")
    assert "Wearable 0042 is paired" in fallwatch("pair", "--all", *at).out
    assert fallwatch("pair", "--all", *at).out == "Every wearable of the settings has a key already.\n"


# -- incidents ---------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def raise_fall(state: Path, **changes: Any) -> str:
    raised_at = datetime(2026, 11, 22, 3, 14, 9, 500_000, tzinfo=UTC)
    facts: dict[str, Any] = {
        "incident": new_incident_id(),
        "home": "site-7",
        "kind": Kind.FALL,
        "raised_at": raised_at,
        "impact_at": raised_at - timedelta(seconds=2.25),
        "resident": "r12",
        "room": "12",
        "wearable": "0042",
        "placement": "wrist",
        "probability": 0.97,
        "model": "wrist-1",
    }
    incident = Incident(**facts | changes)
    journal = Journal(state / JOURNAL_FILE)
    journal.raise_incident(incident, since_impact_s=2.25)
    journal.close()
    return incident.incident


def test_an_incident_is_listed_as_it_is_published(fallwatch: Fallwatch, state: Path) -> None:
    incident = raise_fall(state)
    (line,) = fallwatch("incidents", "--state", state, "--json").lines
    assert set(line) >= {
        "schema", "incident", "home", "kind", "state", "resident", "room", "placement", "impact_at",
        "raised_at", "clock_ok", "probability", "on_floor_s", "moving", "paged", "acknowledged", "resolved",
        "model", "drill",
    }  # fmt: skip
    assert (line["schema"], line["incident"], line["state"]) == (1, incident, "raised")
    assert (line["impact_at"], line["raised_at"]) == ("2026-11-22T03:14:07.250Z", "2026-11-22T03:14:09.500Z")
    assert line["on_floor_s"] in {2, 3, 4}
    assert (line["moving"], line["acknowledged"], line["resolved"], line["paged"]) == (None, None, None, [])
    table = fallwatch("incidents", "--state", state).out
    assert incident in table
    assert "NOBODY YET" in table


def test_an_incident_is_acknowledged_once_and_closed_once(fallwatch: Fallwatch, state: Path) -> None:
    incident = raise_fall(state)
    ended = fallwatch("ack", incident, "--by", "anna", "--state", state)
    assert (ended.status, "Acknowledged by anna" in ended.out) == (0, True)
    ended = fallwatch("ack", incident, "--by", "ben", "--state", state)
    assert (ended.status, "anna had acknowledged" in ended.out) == (0, True)
    ended = fallwatch("resolve", incident, "--outcome", "near-fall", "--by", "anna", "--state", state)
    assert (ended.status, ended.out) == (0, f"Closed as near-fall: {incident}.\n")
    for command in (["ack", incident], ["resolve", incident, "--outcome", "fall"]):
        ended = fallwatch(*command, "--state", state)
        assert (ended.status, ended.err) == (1, f"fallwatch: incident {incident} is closed already\n")
    assert fallwatch("incidents", "--state", state).out == "No open incidents.\n"
    (line,) = fallwatch("incidents", "--all", "--state", state, "--json").lines
    assert line["acknowledged"]["by"] == "anna"
    assert line["resolved"]["outcome"] == "near-fall"


def test_the_first_characters_of_an_id_will_do_where_they_are_its_own(fallwatch: Fallwatch, state: Path) -> None:
    first, second = (
        raise_fall(state, incident=new_incident_id(ms)) for ms in (0x0193_0000_0000, 0x0193_1000_0000)
    )
    assert fallwatch("ack", "01931", "--state", state).status == 0
    ambiguous = fallwatch("ack", "0193", "--state", state)
    assert (ambiguous.status, "more than one incident '0193'" in ambiguous.err) == (1, True)
    unknown = fallwatch("ack", "0194", "--state", state)
    assert (unknown.status, "no incident '0194'" in unknown.err) == (1, True)
    states = {line["incident"]: line["state"] for line in fallwatch("incidents", "--state", state, "--json").lines}
    assert states == {first: "raised", second: "acknowledged"}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("ack", "0193510c", "--by", "anna"), {"do": "acknowledge", "incident": "0193510c", "by": "anna"}),
        (
            ("resolve", "0193510c", "--outcome", "fall", "--by", "anna"),
            {"do": "resolve", "incident": "0193510c", "by": "anna", "outcome": "fall"},
        ),
    ],
)
def test_what_the_journal_does_not_take_is_told_to_the_alarm_service(
    fallwatch: Fallwatch,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    word: dict[str, str],
) -> None:
    Journal(state / JOURNAL_FILE).close()

    def full(*_: object, **__: object) -> None:
        raise JournalUnavailable(state / JOURNAL_FILE, "database or disk is full")

    monkeypatch.setattr(Journal, "cases", full)
    told = fallwatch(*command, "--state", state, "--run", state)
    assert "disk is full. The alarm service has been told" in told.out
    (left,) = take_words(state)
    assert left.items() >= word.items()
    assert take_words(state) == []


def test_the_plan_says_who_is_called_when_and_how(fallwatch: Fallwatch, tmp_path: Path) -> None:
    config = tmp_path / "fallwatch.toml"
    config.write_text(
        """[home]
id = "site-7"
[[pager]]
port = "/dev/ttyUSB1"
groups = ["31", "0", "12"]
[[pager]]
kind = "sms"
role = "fallback"
addresses = { "99" = "+447700900123" }
[escalation]
groups = ["12", "0", "99"]
steps_s = [60, 300]
[[zone]]
name = "first floor"
rooms = ["12"]
[[shift]]
name = "night"
begins = "20:00"
ends = "08:00"
[[route]]
zone = "first floor"
shift = "night"
groups = ["31", "20"]
"""
    )
    lines = fallwatch("plan", "--room", "12", "--at", "12:00", "--config", config, "--json").lines
    assert [(line["when"], line["group"], line["channels"]) for line in lines[:3]] == [
        ("at once", "12", "espa-1 12"),
        ("after 60 s", "0", "espa-1 0"),
        ("after 300 s", "99", "sms-1 +447700900123 (fallback)"),
    ]
    night = fallwatch("plan", "--room", "12", "--at", "03:00", "--config", config)
    assert night.status == 1
    assert "no channel calls group 20" in night.err


@pytest.mark.parametrize(
    "who", [(), ("--room", "12"), ("--resident", "r99"), ("--room", "12", "--resident", "r12")]
)
def test_quiet_is_for_exactly_one_resident(fallwatch: Fallwatch, tmp_path: Path, who: tuple[str, ...]) -> None:
    config = tmp_path / "fallwatch.toml"
    residents = "".join(f'[[resident]]\nid = "r12{bed}"\nroom = "12"\nbed = "{bed}"\n' for bed in "AB")
    config.write_text('[home]\nid = "site-7"\n' + residents)
    refused = fallwatch("snooze", *who, "--config", config, "--state", tmp_path)
    assert (refused.status, refused.out) == (2, "")
    assert "--resident" in refused.err


@pytest.mark.parametrize("outcome", ["drowned", "restored", "FALL", ""])
def test_an_outcome_that_is_none_is_refused(fallwatch: Fallwatch, state: Path, outcome: str) -> None:
    incident = raise_fall(state)
    ended = fallwatch("resolve", incident, "--outcome", outcome, "--state", state)
    assert ended.status == 2
    assert "use one of fall, lowered, near-fall, not-a-fall, drill" in ended.err
    assert len(fallwatch("incidents", "--state", state, "--json").lines) == 1


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.RESTORED])
def test_every_outcome_of_the_contract_closes(fallwatch: Fallwatch, state: Path, outcome: str) -> None:
    assert fallwatch("resolve", raise_fall(state), "--outcome", outcome, "--state", state).status == 0


def test_only_so_many_of_the_latest_are_listed(fallwatch: Fallwatch, state: Path) -> None:
    ids = [raise_fall(state) for _ in range(4)]
    for option in ([], ["--all"]):
        listed = fallwatch("incidents", "--limit", 2, *option, "--state", state, "--json").lines
        assert [line["incident"] for line in listed] == ids[2:]


@pytest.mark.parametrize("command", [["incidents"], ["ack", "0193"], ["resolve", "0193", "--outcome", "fall"]])
def test_a_state_folder_without_a_journal_says_so(fallwatch: Fallwatch, state: Path, command: list[str]) -> None:
    ended = fallwatch(*command, "--state", state)
    assert ended.status == 1
    assert "there is no journal yet" in ended.err
    assert not state.exists()


def test_what_the_record_refused_is_shown_and_sent_again(fallwatch: Fallwatch, state: Path) -> None:
    journal = Journal(state / JOURNAL_FILE)
    journal.put("record", [OutboxItem("k1", "a", b"{}"), OutboxItem("k2", "a", b"{}")], cursor=0)
    journal.settle("k1", "parked", "HTTP 422")
    (line,) = fallwatch("record", "parked", "--json", "--state", state).lines
    assert line == {"key": "k1", "incident": "a", "reason": "HTTP 422"}
    assert "1 entries are sent once more" in fallwatch("record", "parked", "--retry", "--state", state).out
    assert [item.key for item in journal.waiting("record")] == ["k1", "k2"]
    journal.close()


def test_a_record_that_holds_nothing_is_shown_empty(fallwatch: Fallwatch, config: Path, state: Path) -> None:
    assert fallwatch("record", "show", "--config", config, "--state", state).out.endswith("0 entries.\n")
    assert fallwatch("record", "show", "--json", "--config", config, "--state", state).lines == []


def test_what_staff_call_themselves_is_shown_as_they_wrote_it(fallwatch: Fallwatch, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    incident = new_incident_id()
    moment = datetime(2026, 11, 22, 3, 14, tzinfo=UTC)
    journal.raise_incident(Incident(incident, "site-7", Kind.FALL, raised_at=moment, room="[/b]"))
    journal.acknowledge(incident, "[/red]")
    journal.close()
    ended = fallwatch("incidents", "--state", str(tmp_path))
    assert ended.status == 0
    assert "[/red]" in ended.out
