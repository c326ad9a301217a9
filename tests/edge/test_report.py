"""What managers read of the models: counts and rates against what staff found, and honest words about few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from edge.clock import utc_now
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.core.poisson import poisson_at_most
from edge.journal import JOURNAL_FILE, Case, Journal, Moment, ShadowAlarm, Wear
from edge.report import Report, make_report
from tests.edge.in_process import run_here

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BEGUN = NOW - 14 * DAY
SETTINGS = """
[home]
id = "site-7"
name = "Rosewood House"

[[dongle]]
port = "/dev/fallwatch-dongle"

[[resident]]
id = "r12"
room = "12"
nhs_number = "9434765919"
wearable = "0042"
"""


def wear(model: str = "wrist-1", *, shadow: bool = False, wearable: str = "0042", days: float = 14.0) -> Wear:
    """Return a stretch that ends now, worn for half of it."""
    span = timedelta(days=days)
    return Wear(model, shadow, "wrist", wearable, NOW - span, NOW, span.total_seconds() / 2)


BOTH = [wear(), wear("wrist-2", shadow=True)]


class Book:
    """Cases as the journal tells them, made by the journal itself."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / JOURNAL_FILE)

    def add(
        self,
        at: datetime,
        outcome: Outcome | None = None,
        *,
        kind: Kind = Kind.FALL,
        wearable: str = "0042",
        drill: bool = False,
        again: timedelta | None = None,
    ) -> str:
        incident = Incident(
            new_incident_id(),
            "site-7",
            kind,
            raised_at=at + timedelta(seconds=2),
            impact_at=None if kind is Kind.HELP_BUTTON else at,
            resident="r12",
            room="12",
            wearable=wearable,
            placement="wrist",
            probability=0.97,
            model=None if kind is Kind.HELP_BUTTON else "wrist-1",
            drill=drill,
        )
        self.journal.raise_incident(incident, when=Moment(incident.raised_at, 0.0))
        if again is not None:
            self.journal.add(incident.incident, "again", when=Moment(at + again, 0.0), since_impact_s=2.0)
        if outcome is not None:
            self.journal.resolve(incident.incident, outcome, "anna")
        return incident.incident

    def cases(self) -> list[Case]:
        return self.journal.cases(limit=1000)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def shadow_alarm(at: datetime, wearable: str = "0042", model: str = "wrist-2") -> ShadowAlarm:
    return ShadowAlarm(model, wearable, "r12", at, at + timedelta(seconds=3), 0.9, long_lie=False)


def made(book: Book, alarms: list[ShadowAlarm], rows: list[Wear] | None = None, **how: Any) -> Report:
    return make_report("site-7", book.cases(), alarms, rows or BOTH, **{"since": None, "until": NOW} | how)


def of(report: Report, role: str) -> dict[str, Any]:
    (model,) = [m for m in report.document()["models"] if m["role"] == role]
    return dict(model)


# -- counts -------------------------------------------------------------------------------------


def test_two_models_are_set_side_by_side_with_what_staff_found(book: Book) -> None:
    at = [BEGUN + n * DAY for n in range(1, 8)]
    book.add(at[0], Outcome.FALL)
    book.add(at[1], Outcome.FALL)
    book.add(at[2], Outcome.NOT_A_FALL)
    book.add(at[3], Outcome.NOT_A_FALL)
    book.add(at[4], Outcome.NEAR_FALL)
    book.add(at[5])
    near = timedelta(seconds=29)
    report = made(
        book, [shadow_alarm(at[0] + near), shadow_alarm(at[2]), shadow_alarm(at[5]), shadow_alarm(at[6])]
    )
    document = report.document()
    assert (document["home"], document["since"]) == ("site-7", "2026-11-08T12:00:00.000Z")
    first = {
        "model": "wrist-1",
        "placement": "wrist",
        "role": "first",
        "wearables": 1,
        "wearer_weeks": 1.0,
        "alarms": 6,
        "outcomes": {
            "fall": 2, "lowered": 0, "near-fall": 1, "not-a-fall": 2, "not-closed": 1, "not-called": 0,
        },
        "missed_falls": 0,
        "false_alarms": 2,
        "false_alarms_per_wearer_week": 2.0,
        "false_alarms_per_wearer_week_at_most_95": 6.296,
        "not_judged": 1,
        "if_not_judged_are_false": {
            "false_alarms": 3,
            "false_alarms_per_wearer_week": 3.0,
            "false_alarms_per_wearer_week_at_most_95": 7.754,
        },
    }  # fmt: skip
    shadow = first | {
        "model": "wrist-2",
        "role": "shadow",
        "alarms": 4,
        "outcomes": {
            "fall": 1, "lowered": 0, "near-fall": 0, "not-a-fall": 1, "not-closed": 1, "not-called": 1,
        },
        "missed_falls": 1,
        "false_alarms": 1,
        "false_alarms_per_wearer_week": 1.0,
        "false_alarms_per_wearer_week_at_most_95": 4.744,
        "not_judged": 2,
    }  # fmt: skip
    assert document["models"] == [first, shadow]
    assert document["comparisons"] == [
        {
            "shadow": "wrist-2",
            "placement": "wrist",
            "beside": ["wrist-1"],
            "days": 14.0,
            "falls_staff_confirmed": 2,
            "falls_found_by": {"both": 1, "first_only": 1, "shadow_only": 0, "neither": 0},
            "alarms_raised_by": {"both": 3, "first_only": 3, "shadow_only": 1},
        }
    ]


@pytest.mark.parametrize(("apart_s", "same"), [(-31, False), (-30, True), (0, True), (30, True), (31, False)])
def test_impacts_within_30_s_on_one_wearable_are_one_fall(book: Book, apart_s: int, same: bool) -> None:
    at = BEGUN + DAY
    book.add(at, Outcome.FALL)
    (compared,) = made(book, [shadow_alarm(at + timedelta(seconds=apart_s))]).document()["comparisons"]
    assert compared["falls_found_by"]["both"] == same
    assert compared["alarms_raised_by"]["shadow_only"] == (not same)
    (compared,) = made(book, [shadow_alarm(at, wearable="0043")]).document()["comparisons"]
    assert compared["alarms_raised_by"] == {"both": 0, "first_only": 1, "shadow_only": 1}


def test_falls_that_follow_soon_are_one_alarm_as_they_are_one_incident(book: Book) -> None:
    at, soon = BEGUN + DAY, timedelta(seconds=100)
    book.add(at, Outcome.FALL, again=soon)
    report = made(book, [shadow_alarm(at + soon - timedelta(seconds=20)), shadow_alarm(at + soon + 0.9 * soon)])
    assert of(report, "shadow")["outcomes"]["fall"] == 1
    assert report.document()["comparisons"][0]["alarms_raised_by"] == {
        "both": 1,
        "first_only": 0,
        "shadow_only": 0,
    }
    lone = made(book, [shadow_alarm(at + DAY), shadow_alarm(at + DAY + soon), shadow_alarm(at + DAY + 3 * soon)])
    assert of(lone, "shadow")["outcomes"]["not-called"] == 2


def test_a_fall_found_by_the_help_button_alone_was_missed_by_both(book: Book) -> None:
    book.add(BEGUN + DAY, Outcome.FALL, kind=Kind.HELP_BUTTON)
    book.add(BEGUN + 2 * DAY, Outcome.NOT_A_FALL, kind=Kind.HELP_BUTTON)  # wanted a glass of water
    report = made(book, [])
    assert [m["missed_falls"] for m in report.document()["models"]] == [1, 1]
    assert report.document()["comparisons"][0]["falls_found_by"]["neither"] == 1


def test_a_press_soon_after_an_alarm_is_about_the_same_fall(book: Book) -> None:
    at, minutes = BEGUN + DAY, timedelta(minutes=1)
    book.add(at, Outcome.FALL)
    book.add(at + 9 * minutes, Outcome.FALL, kind=Kind.HELP_BUTTON)
    report = made(book, [shadow_alarm(at)])
    assert report.document()["comparisons"][0]["falls_staff_confirmed"] == 1
    assert [m["missed_falls"] for m in report.document()["models"]] == [0, 0]
    book.add(at + DAY, kind=Kind.FALL)  # the press was closed, the alarm was forgotten
    book.add(at + DAY + minutes, Outcome.FALL, kind=Kind.HELP_BUTTON)
    book.add(at + 2 * DAY + 11 * minutes, Outcome.FALL, kind=Kind.HELP_BUTTON)  # too late to be the shadow's
    document = made(book, [shadow_alarm(at), shadow_alarm(at + 2 * DAY)]).document()
    wanted = {"both": 1, "first_only": 1, "shadow_only": 0, "neither": 1}
    assert document["comparisons"][0]["falls_found_by"] == wanted
    assert [m["missed_falls"] for m in document["models"]] == [1, 2]


def test_a_shadow_is_credited_with_a_fall_that_only_the_help_button_called_to(book: Book) -> None:
    at = BEGUN + DAY
    book.add(at + timedelta(minutes=3), Outcome.FALL, kind=Kind.HELP_BUTTON)
    report = made(book, [shadow_alarm(at)])
    assert report.document()["comparisons"][0]["falls_found_by"]["shadow_only"] == 1
    assert of(report, "shadow")["outcomes"]["fall"] == 1
    assert [m["missed_falls"] for m in report.document()["models"]] == [1, 0]


def test_what_a_shadow_was_not_there_to_see_it_did_not_miss(book: Book) -> None:
    book.add(BEGUN + DAY, Outcome.FALL)
    book.add(NOW - DAY, Outcome.FALL, wearable="0043")
    book.add(NOW - DAY, Outcome.FALL)
    rows = [wear(), wear(wearable="0043"), wear("wrist-2", shadow=True, days=7.0)]
    document = made(book, [], rows).document()
    assert document["comparisons"][0]["falls_found_by"]["first_only"] == 1
    assert document["comparisons"][0]["alarms_raised_by"]["first_only"] == 1
    assert document["comparisons"][0]["days"] == 7.0
    assert [(m["alarms"], m["missed_falls"]) for m in document["models"]] == [(3, 0), (0, 1)]


def test_drills_and_technical_incidents_count_for_nobody(book: Book) -> None:
    book.add(BEGUN + DAY, drill=True)
    book.add(BEGUN + 2 * DAY, Outcome.DRILL)
    book.add(BEGUN + 3 * DAY, Outcome.RESTORED, kind=Kind.BLIND)
    report = made(book, [shadow_alarm(BEGUN + DAY), shadow_alarm(BEGUN + 2 * DAY)])
    assert [m["alarms"] for m in report.document()["models"]] == [0, 0]


def test_a_model_that_was_let_page_has_a_line_for_each_role(book: Book) -> None:
    book.add(NOW - DAY, Outcome.FALL)
    rows = [wear(), replace(wear("wrist-1", shadow=True), begun_at=BEGUN - 7 * DAY, until_at=BEGUN)]
    assert [(m["role"], m["alarms"]) for m in made(book, [], rows).document()["models"]] == [
        ("first", 1),
        ("shadow", 0),
    ]


# -- the span -----------------------------------------------------------------------------------


def test_a_stretch_that_began_before_counts_by_its_part(book: Book) -> None:
    book.add(NOW - 5 * DAY, Outcome.NOT_A_FALL)
    book.add(NOW - DAY, Outcome.NOT_A_FALL)
    report = made(book, [shadow_alarm(NOW - 5 * DAY), shadow_alarm(NOW - DAY)], since=NOW - 3.5 * DAY)
    assert [(m["wearer_weeks"], m["false_alarms"]) for m in report.document()["models"]] == [(0.25, 1), (0.25, 1)]


def test_alarms_from_before_wear_was_counted_spoil_no_rate(book: Book) -> None:
    book.add(BEGUN - DAY, Outcome.NOT_A_FALL)
    report = made(book, [], since=BEGUN - 100 * DAY)
    assert report.since == BEGUN
    assert of(report, "first")["alarms"] == 0


def test_without_wear_there_is_nothing_to_tell(book: Book) -> None:
    book.add(NOW - DAY, Outcome.NOT_A_FALL)
    report = make_report("site-7", book.cases(), [], [], since=None, until=NOW)
    assert (report.since, report.models, report.comparisons) == (None, [], [])


# -- the bound ----------------------------------------------------------------------------------


def test_none_seen_may_still_be_three() -> None:
    assert poisson_at_most(0) == pytest.approx(2.9957, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(events=st.integers(0, 2000), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_the_bound_is_the_exact_one(events: int, confidence: float) -> None:
    assert poisson_at_most(events, confidence=confidence) == pytest.approx(
        chi2.ppf(confidence, 2 * (events + 1)) / 2, rel=1e-6
    )


# -- the command --------------------------------------------------------------------------------

Fallwatch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fallwatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fallwatch:
    (tmp_path / "fallwatch.toml").write_text(SETTINGS)
    for name, value in (("CONFIG", tmp_path / "fallwatch.toml"), ("STATE", tmp_path)):
        monkeypatch.setenv(f"FALLWATCH_{name}", str(value))
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_here(monkeypatch, capsys, *arguments)

    return run


def lately(days: float, model: str, *, shadow: bool, worn_s: float) -> Wear:
    now = utc_now()
    return Wear(model, shadow, "wrist", "0042", now - timedelta(days=days), now, worn_s)


def test_managers_read_plain_words_and_are_told_what_is_too_few(fallwatch: Fallwatch, book: Book) -> None:
    now, week_s = utc_now(), 7 * 86400.0
    book.add(now - 3 * DAY, Outcome.FALL)
    book.add(now - 2 * DAY, Outcome.NOT_A_FALL)
    book.add(now - DAY)
    alarms = [shadow_alarm(now - 3 * DAY), shadow_alarm(now - 5 * DAY)]
    rows = [lately(21, "wrist-1", shadow=False, worn_s=2 * week_s)]
    rows += [lately(5.5, "wrist-2", shadow=True, worn_s=week_s)]
    book.journal.keep_trial(alarms, rows, forget_before=None, wait=True)
    status, out, err = fallwatch("report")
    assert (status, err) == (0, "")
    table = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:4]]
        for line in out.splitlines()
        if line.startswith("│")
    }
    assert table == {
        "wear judged": ["2.0 weeks", "1.0 weeks"],
        "alarms": ["3", "2"],
        "fall": ["1", "1"],
        "lowered to the floor": ["0", "0"],
        "near fall": ["0", "0"],
        "not a fall: false alarm": ["1", "0"],
        "not closed yet": ["1", "0"],
        "staff were not called": ["-", "1"],
        "falls it missed": ["0", "0"],
        "false alarms per week of wear": ["0.50 to 1.00", "0.00 to 1.00"],
        "at most (95 %)": ["3.15", "4.74"],
    }
    said = " ".join(out.split())
    for words in (
        "Rosewood House: models from",
        "Had wrist-2 called staff in place of wrist-1: 2 alarms in place of 3; 1 the same",
        "Of 1 fall that staff confirmed, wrist-2 found 1 and wrist-1 1",
        "wrist-2 has been on trial for 5.5 days: let it run for 7.",
        "1 confirmed fall cannot tell",
        "2.0 weeks of wear are too few to tell",
        "1 alarm not closed yet",
    ):
        assert words in said, f"{words!r} is missing in:\n{out}"
    assert "9434765919" not in out


def test_many_false_alarms_need_no_long_time(fallwatch: Fallwatch, book: Book) -> None:
    now = utc_now()
    for n in range(12):
        book.add(now - n * timedelta(hours=9) - timedelta(hours=1), Outcome.NOT_A_FALL)
    row = lately(10, "wrist-1", shadow=False, worn_s=7 * 86400.0)
    book.journal.keep_trial([], [row], forget_before=None, wait=True)
    said = fallwatch("report")[1]
    assert "12.00" in said
    assert "too few" not in said


def test_a_trial_that_is_long_enough_is_not_called_too_short(fallwatch: Fallwatch, book: Book) -> None:
    now, week_s = utc_now(), 7 * 86400.0
    for n in range(20):
        book.add(now - n * DAY - DAY, Outcome.FALL)
    alarms = [shadow_alarm(now - n * DAY - DAY) for n in range(19)]
    rows = [lately(300, model, shadow=model == "wrist-2", worn_s=40 * week_s) for model in ("wrist-1", "wrist-2")]
    book.journal.keep_trial(alarms, rows, forget_before=None, wait=True)
    said = " ".join(fallwatch("report")[1].split())
    assert "wrist-2 found 19 and wrist-1 20" in said
    assert "Look first at what wrist-2 missed and wrist-1 found: 1 fall." in said
    for words in ("too few", "let it run", "cannot tell", "not closed yet:"):
        assert words not in said
    assert "0.07" in said  # 2.996 in 40 weeks


def test_less_than_a_week_of_wear_gives_no_rate_to_people_but_the_exact_one_to_programs(
    fallwatch: Fallwatch, book: Book
) -> None:
    book.journal.keep_trial([], [lately(1, "wrist-1", shadow=False, worn_s=3600.0)], forget_before=None, wait=True)
    assert "too soon" in fallwatch("report")[1]
    status, out, _ = fallwatch("report", "--json")
    (line,) = out.splitlines()
    document = json.loads(line)
    assert (status, document["schema"], document["home"]) == (0, 1, "site-7")
    assert document["models"][0]["false_alarms_per_wearer_week_at_most_95"] == pytest.approx(2.9957 * 168, abs=0.1)


def test_the_span_may_be_chosen_by_date_or_by_days(fallwatch: Fallwatch, book: Book) -> None:
    now = utc_now()
    book.add(now - 3 * DAY, Outcome.FALL)
    book.journal.keep_trial(
        [], [lately(10, "wrist-1", shadow=False, worn_s=864000.0)], forget_before=None, wait=True
    )
    for arguments, alarms in (
        (("--days", "2"), 0),
        (("--days", "4"), 1),
        (("--since", f"{now - 4 * DAY:%Y-%m-%d}"), 1),
        (("--since", f"{now - DAY:%Y-%m-%d}"), 0),
        ((), 1),
    ):
        document = json.loads(fallwatch("report", "--json", *arguments)[1])
        assert [model["alarms"] for model in document["models"]] == [alarms], arguments


def test_where_nothing_ran_that_is_said(fallwatch: Fallwatch, tmp_path: Path) -> None:
    status, out, err = fallwatch("report")
    assert (status, out) == (1, "")
    assert "there is no journal yet" in err
    Journal(tmp_path / JOURNAL_FILE).close()
    status, out, err = fallwatch("report")
    assert (status, err) == (0, "")
    assert out.startswith("Nothing has been judged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "yesterday"), "use YYYY-MM-DD"),
        (("--since", "0001-01-01"), ""),
        (("--since", "2026-11-22", "--days", "3"), "give one"),
        (("--days", "0"), "--days"),
    ],
)
def test_a_span_that_is_none_ends_with_status_2_and_one_line(
    fallwatch: Fallwatch, book: Book, arguments: tuple[str, ...], words: str
) -> None:
    status, out, err = fallwatch("report", *arguments)
    if not words:  # long ago is no mistake
        assert (status, err) == (0, "")
        return
    assert (status, out) == (2, "")
    assert words in err
