from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nhs_number.validate import calculate_checksum, is_valid  # an independent check

import edge.cli.residents  # noqa: F401  # adds its commands, wherever the command line lists its parts
from edge.directory import FIELDS, NoDirectory, Row, decoded, parse_csv, parse_fhir, plan_import
from edge.settings import ResidentSettings, load_settings, nhs_number_is_valid
from tests.edge.in_process import run_here

NHS = ("9434765919", "4010232137", "9876543210")
LOCAL = "https://home.example/resident"
ROOM = "https://record.example/room"
R12 = ResidentSettings(id="r12", room="12", bed="A", nhs_number=NHS[0], wearable="0042", placement="waist")
R14 = ResidentSettings(id="r14", room="14", local_id="RH-14")


def test_a_table_is_read_whatever_order_its_columns_have() -> None:
    rows = parse_csv("room,id,bed,nhs_number\n12,r12,A,943 476 5919\n14,r14,,\n")
    assert rows == [
        Row(2, {"room": "12", "id": "r12", "bed": "A", "nhs_number": "943 476 5919"}),
        Row(3, {"room": "14", "id": "r14", "bed": "", "nhs_number": ""}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(encoding: str, delimiter: str, newline: str) -> None:
    lines = [("ID", "Room No", "NHS Number"), (" r12 ", "Großes Zimmer", "943 476 5919"), ("", "", "")]
    data = newline.join(delimiter.join(line) for line in lines).encode(encoding)
    assert parse_csv(decoded(data), {"room": "room no"}) == [
        Row(2, {"id": "r12", "room": "Großes Zimmer", "nhs_number": "943 476 5919"})
    ]


def test_a_spreadsheets_own_first_line_and_breaks_within_a_cell_are_no_matter() -> None:
    rows = parse_csv('sep=;\nid;note;room\nr12;"two\nlines";12\nr14;x;14\n')
    assert [(row.line, row.said["id"], row.said["room"]) for row in rows] == [(4, "r12", "12"), (5, "r14", "14")]


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("", {}, "names no column"),
        ("Mary,Smith\n1,2", {}, "names no column"),
        ("id,ID\n1,2", {}, "one column twice"),
        ("id,room", {}, "no rows"),
        ("id,room\n,\n", {}, "no rows"),
        ("id,room\nr1,1", {"bed": "Bett"}, "'Bett'"),
        ("id,room\nr1," + "x" * 200_000, {}, "no CSV"),
        ("id\n" + "r\n" * 10_001, {}, "more than"),
    ],
)
def test_what_is_no_list_is_refused_and_not_repeated(text: str, columns: dict[str, str], said: str) -> None:
    with pytest.raises(NoDirectory, match=said) as refused:
        parse_csv(text, columns)
    assert "Smith" not in str(refused.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_csv, parse_fhir):
        try:
            rows = parse(text)
        except NoDirectory:
            continue
        plan_import(rows, [R12])


@given(st.binary(max_size=200))
def test_any_octets_are_some_text(data: bytes) -> None:
    assert isinstance(decoded(data), str)


# -- FHIR ---------------------------------------------------------------------------------------


def patient(*identifiers: tuple[str, str], **more: Any) -> dict[str, Any]:
    named = {"name": [{"family": "Smith"}], "birthDate": "1931-02-03"}
    found = [{"system": system, "value": value} for system, value in identifiers]
    return {"resourceType": "Patient", **named, "identifier": found, **more}


NHS_SYSTEM = "https://fhir.nhs.uk/Id/nhs-number"


def test_patients_of_a_bundle_are_read_with_room_and_numbers() -> None:
    place = {"resourceType": "Location", "id": "7", "name": "14"}
    residents = [
        patient((NHS_SYSTEM, NHS[0]), (LOCAL, "RH-12"), (ROOM, "12")),
        patient((LOCAL, "RH-14"), extension=[{"url": ROOM, "valueReference": {"reference": "Location/7"}}]),
        patient((LOCAL, "RH-15"), extension=[{"url": ROOM, "valueString": "15"}]),
    ]
    bundle = {"resourceType": "Bundle", "entry": [{"resource": r} for r in [*residents, place]]}
    expected = [
        Row(1, {"nhs_number": NHS[0], "local_id": "RH-12", "room": "12"}),
        Row(2, {"nhs_number": "", "local_id": "RH-14", "room": "14"}),
        Row(3, {"nhs_number": "", "local_id": "RH-15", "room": "15"}),
    ]
    for text in (json.dumps(bundle), "\n".join(json.dumps(r) for r in [*residents, place]), json.dumps([bundle])):
        assert parse_fhir(text, local_system=LOCAL, room_from=ROOM) == expected


@pytest.mark.parametrize(
    "left", [{"active": False}, {"deceasedBoolean": True}, {"deceasedDateTime": "2026-01-01"}]
)
def test_who_has_left_is_no_resident(left: dict[str, Any]) -> None:
    here, gone = patient((LOCAL, "a")), patient((LOCAL, "b"), **left)
    rows = parse_fhir(json.dumps([here, gone]), local_system=LOCAL)
    assert [row.said["local_id"] for row in rows] == ["a"]
    with pytest.raises(NoDirectory, match="inactive"):
        parse_fhir(json.dumps(gone))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "[[[[1]]]]", "[" * 100_000, '{"resourceType": "Bundle", "entry": 3}']
)
def test_what_is_no_fhir_is_refused(text: str) -> None:
    with pytest.raises(NoDirectory):
        parse_fhir(text)


# -- merging ------------------------------------------------------------------------------------


def rows_of(*said: dict[str, str]) -> list[Row]:
    return [Row(number, one) for number, one in enumerate(said, start=2)]


def test_what_a_list_does_not_say_stays_as_it_is() -> None:
    plan = plan_import(
        rows_of({"id": "r12", "room": "12", "nhs_number": ""}, {"id": "r9", "room": "9"}), [R12, R14]
    )
    assert plan.residents == (R12, R14, ResidentSettings(id="r9", room="9"))
    assert (plan.added, plan.changed, plan.unchanged, plan.missing) == (("r9",), {}, ("r12",), ("r14",))


def test_a_bed_is_not_kept_into_another_room() -> None:
    plan = plan_import(rows_of({"id": "r12", "room": "20"}), [R12])
    assert (plan.residents[0].room, plan.residents[0].bed) == ("20", "")
    assert plan.changed == {"r12": ("room", "bed")}
    assert plan_import(rows_of({"id": "r12", "room": ""}), [R12]).unchanged == ("r12",)


def test_a_resident_is_found_by_number_where_the_list_has_no_id() -> None:
    plan = plan_import(
        rows_of({"nhs_number": "943 476 5919", "room": "21"}, {"local_id": "RH-14", "room": "22"}), [R12, R14]
    )
    assert plan.changed == {"r12": ("room", "bed"), "r14": ("room",)}
    new = plan_import(rows_of({"local_id": "RH 7/b", "room": "7"}), [R12])
    assert new.added == ("RH-7-b",)


@pytest.mark.parametrize(
    ("said", "key", "remedy"),
    [
        ({"id": "r1", "room": "1", "nhs_number": "9434765918"}, "nhs_number", "copy its ten digits"),
        ({"id": "r1", "room": "1", "nhs_number": "9.43E+09"}, "nhs_number", "spreadsheet"),
        ({"id": "r1", "room": ""}, "room", "missing"),
        ({"id": "r 1", "room": "1"}, "id", "letters"),
        ({"room": "1"}, "id", "missing"),
        ({"id": NHS[1], "room": "1"}, "id", "looks like an NHS number"),
        ({"id": "r1", "room": "401 023 2137"}, "room", "looks like an NHS number"),
        ({"local_id": NHS[1], "room": "1"}, "id", "looks like an NHS number"),
        ({"id": "r1", "room": "1", "wearable": "Mary Smith"}, "wearable", "no wearable"),
        ({"id": "r1", "room": "1", "wearable": "0042"}, "wearable", "resident r12 has the same"),
        ({"id": "r1", "room": "1", "placement": "ankle"}, "placement", "wrist or waist"),
        ({"id": "r1", "room": "1", "nhs_number": NHS[0]}, "id", "that of resident r12"),
        ({"room": "1", "nhs_number": NHS[0], "local_id": "RH-14"}, "nhs_number", "r12 and r14"),
        ({"id": "r1", "room": "1" * 65}, "room", "too long"),
        ({"id": "r1", "room": "1\x07"}, "room", "cannot be printed"),
    ],
)
def test_a_bad_line_changes_nobody_and_is_not_repeated(said: dict[str, str], key: str, remedy: str) -> None:
    plan = plan_import(rows_of(said), [R12, R14])
    (problem,) = plan.problems
    assert (problem.line, problem.key) == (2, key)
    assert remedy in problem.remedy
    assert plan.residents == (R12, R14)
    assert not plan.added
    assert not any(secret in problem.remedy for secret in ("Smith", *NHS, "401 023"))


def test_one_resident_on_two_lines_is_for_a_person() -> None:
    plan = plan_import(rows_of({"id": "r12", "room": "1"}, {"id": "r12", "room": "2"}), [R12])
    assert [problem.line for problem in plan.problems] == [2, 3]
    assert (plan.residents, plan.missing) == ((R12,), ())


def test_two_who_swap_wearables_do_so_in_one_list() -> None:
    other = ResidentSettings(id="r14", room="14", wearable="0043")
    plan = plan_import(
        rows_of({"id": "r12", "room": "12", "wearable": "0043"}, {"id": "r14", "wearable": "0042"}), [R12, other]
    )
    assert not plan.problems
    assert [resident.wearable for resident in plan.residents] == ["0043", "0042"]


def test_a_line_that_falls_through_may_take_others_with_it() -> None:
    known = [ResidentSettings(id=f"r{n}", room=str(n), wearable=worn) for n, worn in enumerate("ab", start=1)]
    said = [
        {"id": "r1", "wearable": "c"},
        {"id": "r2", "wearable": "a"},
        {"id": "r3", "room": "3", "wearable": "c"},
    ]
    plan = plan_import(rows_of(*said), known)
    assert [problem.line for problem in plan.problems] == [2, 3, 4]  # r1 keeps a, so r2 cannot have it
    assert plan.residents == tuple(known)


few = st.sampled_from(["", "a", "b", "c"])
said_anything = st.fixed_dictionaries(
    {},
    optional={
        "id": few,
        "room": st.sampled_from(["", "1", "2"]),
        "bed": few,
        "nhs_number": st.sampled_from(["", *NHS, "1"]),
        "local_id": few,
        "wearable": few,
        "placement": st.sampled_from(["", "wrist", "Waist"]),
    },
)


@given(st.lists(said_anything, max_size=6), st.lists(said_anything, max_size=4))
def test_whatever_the_lists_say_numbers_stay_with_one_resident(
    first: list[dict[str, str]], second: list[dict[str, str]]
) -> None:
    known = plan_import(rows_of(*first), []).residents
    plan = plan_import(rows_of(*second), known)
    for key in ("id", "nhs_number", "local_id", "wearable"):
        values = [value for resident in plan.residents if (value := getattr(resident, key))]
        assert len(values) == len(set(values))
    bad = {problem.line for problem in plan.problems}
    assert len(bad) + len(plan.added) + len(plan.changed) + len(plan.unchanged) == len(second)
    again = plan_import(
        rows_of(*(one for line, one in enumerate(second, start=2) if line not in bad)), plan.residents
    )
    assert again.residents == plan.residents


# Above the range of Scotland, whose numbers the package holds to be dates as well.
@given(st.from_regex(r"[4-9][0-9]{9}", fullmatch=True) | st.from_regex(r"[4-9][0-9 ]{7,11}", fullmatch=True))
def test_the_check_digit_agrees_with_an_independent_package(number: str) -> None:
    assert nhs_number_is_valid(number) == is_valid(number.replace(" ", ""))


@given(st.integers(0, 10**9 - 1))
def test_of_ten_last_digits_only_the_independent_one_is_right(nine: int) -> None:
    digit = calculate_checksum(f"{nine:09d}")
    valid = [last for last in range(10) if nhs_number_is_valid(f"{nine:09d}{last}")]
    assert valid == ([] if digit == 10 else [digit])


# -- the commands -------------------------------------------------------------------------------

SETTINGS = f"""# our home
[home]
id = "site-7"  # do not change

[[resident]]  # by the window
id = "r12"
room = "12"
bed = "A"
nhs_number = "{NHS[0]}"
wearable = "0042"

[[resident]]
id = "r14"
room = "14"

[record]
patient_local_system = "{LOCAL}"
"""
LIST = f"""Surname;First name;Born;ID;Room No;NHS number
Smith;Mary;1931-02-03;r12;20;943 476 5919
Jones;Tom;1940-01-01;r15;15;{NHS[1]}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fallwatch.toml"
    path.write_text(SETTINGS)
    path.chmod(0o640)
    (tmp_path / "list.csv").write_text(LIST)
    monkeypatch.setenv("FALLWATCH_CONFIG", str(path))
    return path


COLUMN = ("--column", "room=Room No")


def test_a_list_is_taken_over_and_comments_stay(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", config.parent / "list.csv", *COLUMN)
    assert status == 0
    assert "new      r15: room 15\n" in out
    assert "changed  r12: room 20 (room, bed)\n" in out
    assert "missing  r14" in out
    assert [(r.id, r.room, r.bed, r.wearable) for r in load_settings(config).resident] == [
        ("r12", "20", "", "0042"),
        ("r14", "14", "", ""),
        ("r15", "15", "", ""),
    ]
    text = config.read_text()
    assert "# our home" in text
    assert "# do not change" in text
    assert "# by the window" in text
    assert config.with_suffix(".toml.old").read_text() == SETTINGS
    assert config.stat().st_mode & 0o777 == 0o640
    for personal in ("Smith", "Mary", "1931", "Jones", "943", "401"):
        assert personal not in out
    assert not any(name in text for name in ("Smith", "Mary", "1931"))
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", config.parent / "list.csv", *COLUMN)
    assert status == 0
    assert "0 new, 0 changed, 2 as before" in out
    assert config.read_text() == text


def test_a_dry_run_says_it_all_and_does_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "residents",
        "import",
        config.parent / "list.csv",
        *COLUMN,
        "--remove-missing",
        "--dry-run",
        "--json",
    )
    status, out, _ = run_here(monkeypatch, capsys, *command)
    assert status == 0
    assert json.loads(out) == {
        "written": False,
        "added": ["r15"],
        "changed": {"r12": ["room", "bed"]},
        "unchanged": [],
        "missing": ["r14"],
        "removed": [],
        "problems": [],
    }
    assert config.read_text() == SETTINGS


def test_one_bad_line_keeps_all_out_unless_asked_otherwise(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config.parent / "list.csv"
    file.write_text(LIST + "Brown;Ann;1950-01-01;r16;16;9434765918\n")
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", file, *COLUMN)
    assert (status, config.read_text()) == (1, SETTINGS)
    assert "line 4: nhs_number: " in out
    assert "9434765918" not in out
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", file, *COLUMN, "--skip-bad")
    assert status == 1
    assert [r.id for r in load_settings(config).resident] == ["r12", "r14", "r15"]
    status, _, error = run_here(
        monkeypatch, capsys, "residents", "import", file, *COLUMN, "--skip-bad", "--remove-missing"
    )
    assert status == 2
    assert "--skip-bad" in error


def test_who_is_not_in_the_list_is_taken_out_only_when_asked(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config.parent / "list.csv"
    file.write_text("id,room\nr14,14\n")
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", file, "--remove-missing")
    assert status == 0
    assert "removed  r12: not in the list, and was watched by wearable 0042" in out
    assert [r.id for r in load_settings(config).resident] == ["r14"]


def test_patients_of_a_record_are_taken_over_by_their_numbers(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config.parent / "patients.ndjson"
    people = [
        patient((NHS_SYSTEM, NHS[0]), (LOCAL, "RH-12"), (ROOM, "30")),
        patient((LOCAL, "RH-31"), (ROOM, "31")),
    ]
    file.write_text("\n".join(map(json.dumps, people)))
    status, out, _ = run_here(monkeypatch, capsys, "residents", "import", file, "--room-from", ROOM)
    assert status == 0
    assert [(r.id, r.room, r.local_id) for r in load_settings(config).resident] == [
        ("r12", "30", "RH-12"),
        ("r14", "14", ""),
        ("RH-31", "31", "RH-31"),
    ]
    assert "Smith" not in out + config.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("missing.csv",), 1, "cannot be read"),
        (("list.csv", "--column", "name=Surname"), 2, "FIELD=NAME"),
        (("list.csv", "--column", "room"), 2, "FIELD=NAME"),
        (("list.csv", "--room-from", ROOM), 2, "--room-from is for FHIR"),
        (("fallwatch.toml",), 1, "names no column"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    file, *options = arguments
    ended, _, error = run_here(monkeypatch, capsys, "residents", "import", config.parent / file, *options)
    assert ended == status
    assert said in error
    assert error.count("\n") == 1
    assert config.read_text() == SETTINGS


def test_the_list_of_residents_shows_no_number(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_here(monkeypatch, capsys, "residents", "list", "--json")
    first, _ = map(json.loads, out.splitlines())
    assert (status, first["id"], first["nhs_number"], first["local_id"]) == (0, "r12", True, False)
    _, shown, __ = run_here(monkeypatch, capsys, "residents", "list")
    assert "r12" in shown
    assert NHS[0] not in out + shown
    assert set(FIELDS) == set(first)
