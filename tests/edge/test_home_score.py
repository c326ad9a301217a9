"""Scores of made-up homes, on cases that can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edge.core.supervision import Cause
from edge.home.scenario import FOR_EVER, Event, Habits, Home, Life, Truth, imagine_home
from edge.home.score import BLIND, HOME, WARNING, Alarm, Name, Page, Told, draw, score

END_S = 7 * 86_400.0
QUIET = imagine_home(
    np.random.default_rng(1), residents=1, days=7, habits=Habits(0.0, 0.0, dead_spot=0.0, unplugged_per_day=0.0)
).lives[0]


def home_with(*events: Event, home: tuple[Event, ...] = ()) -> Home:
    life: Life = replace(QUIET, wearable="a", events=events)
    return Home((life,), home, END_S)


def event(truth: Truth, begin_s: float, end_s: float, limit_s: float = 60.0, wearable: str = "a") -> Event:
    return Event(begin_s, end_s, truth, wearable, 0.0, begin_s + limit_s)


def test_what_is_named_right_and_in_time_scores() -> None:
    home = home_with(event(Truth.FROZEN, 1000, 2000))
    told = Told([Name("a", BLIND, Cause.FROZEN, 1031, 2001)], [Page("a", BLIND, Cause.FROZEN, 1061)])
    result = score(home, told)
    (episode,) = result.episodes
    assert episode.right
    assert episode.right_first
    assert episode.in_time
    assert (episode.delay_s, episode.page_s) == (31, 61)
    assert (result.pages, result.nuisance, result.wrongly_named, result.spurious) == (1, [], [], {})


def test_the_first_and_the_last_name_are_told_apart() -> None:
    home = home_with(event(Truth.RATE, 1000, 2000))
    names = [Name("a", BLIND, Cause.CLOCK_WRONG, 1020, 1065), Name("a", BLIND, Cause.WRONG_RATE, 1065, 2000)]
    (episode,) = score(home, Told(names)).episodes
    assert (episode.right_first, episode.right, episode.in_time) == (False, True, False)


def test_what_was_told_to_be_over_and_was_not_is_counted() -> None:
    home = home_with(event(Truth.SCALE, 1000, 4000))
    names = [Name("a", BLIND, Cause.WRONG_SCALE, at_s, at_s + 500) for at_s in (1025, 2000)]
    pages = [Page("a", BLIND, Cause.WRONG_SCALE, at_s) for at_s in (1055, 2030)]
    facts = score(home, Told(names, pages)).as_json()
    assert (facts["named_right"], facts["pages"], facts["pages_again"], facts["nuisance_pages"]) == (1.0, 2, 1, 0)


def test_what_nobody_names_is_missed() -> None:
    result = score(home_with(event(Truth.BROKEN, 1000, 2000)), Told())
    assert result.as_json()["missed"] == 1
    assert result.confusion()["broken"] == {"nothing": 1}


def test_a_name_left_over_from_before_does_not_count() -> None:
    home = home_with(event(Truth.FLAT, 1000, 2000, 90), event(Truth.CHARGING, 2000, 9000))
    names = [Name("a", BLIND, Cause.FLAT, 1061, 2002), Name("a", BLIND, Cause.CHARGING, 2002, 9001)]
    assert all(e.right_first and e.right and e.in_time for e in score(home, Told(names)).episodes)


def test_pages_about_nothing_or_about_what_is_soon_over_are_a_nuisance() -> None:
    home = home_with(event(Truth.DEAD_SPOT, 1000, 1080, FOR_EVER), event(Truth.OUT_OF_RANGE, 5000, 5200, 90))
    pages = [
        Page("a", BLIND, Cause.OUT_OF_RANGE, 1079),  # a dead spot
        Page("a", BLIND, Cause.OUT_OF_RANGE, 5088),  # back within two minutes
        Page("a", BLIND, Cause.NOT_WORN, 90_000),  # nothing at all
        Page("a", WARNING, Cause.WEAK_RADIO, 91_000, board_only=True),  # calls nobody
    ]
    result = score(home, Told(pages=pages))
    assert [p.raised_s for p in result.nuisance] == [1079, 5088, 90_000]
    assert result.as_json()["nuisance_per_wearer_week"] == 3.0
    assert result.as_json()["nuisance_per_wearer_week_at_most"] == pytest.approx(7.75, abs=0.01)  # Poisson, 95 %
    assert result.notices == 1


def test_a_page_with_the_wrong_words_about_a_true_trouble_is_no_nuisance_but_wrong() -> None:
    result = score(
        home_with(event(Truth.BROKEN, 1000, 4000, 90)), Told(pages=[Page("a", BLIND, Cause.OUT_OF_RANGE, 1090)])
    )
    assert (len(result.wrongly_named), result.nuisance) == (1, [])


def test_a_low_battery_must_be_told_a_day_ahead() -> None:
    low = Event(100_000, 272_800, Truth.LOW_BATTERY, "a", told_by_s=186_400)
    for at_s, in_time in ((180_000, True), (190_000, False)):
        told = Told([Name("a", WARNING, Cause.LOW_BATTERY, at_s, 272_800)])
        assert score(home_with(low), told).episodes[0].in_time is in_time
    assert score(home_with(replace(low, told_by_s=FOR_EVER)), Told()).episodes == []  # charged before: need not be


def test_what_holds_for_the_home_is_scored_once() -> None:
    home = home_with(home=(event(Truth.UNPLUGGED, 1000, 2000, wearable=""),))
    told = Told([Name("", HOME, Cause.DONGLE_GONE, 1021, 2000), Name("a", BLIND, Cause.SILENT, 1060, 2001)])
    result = score(home, told)
    assert [e.right for e in result.episodes] == [True]
    assert result.spurious == {}


def test_falls_are_found_once_and_other_alarms_are_false() -> None:
    home = home_with(event(Truth.FALL, 1000, 1300, FOR_EVER), event(Truth.FALL, 5000, 5300, FOR_EVER))
    alarms = [Alarm("a", 1003, 1006), Alarm("a", 1012, 1015), Alarm("a", 3000, 3003)]
    facts = score(home, Told(alarms=alarms, judged_s=36_000)).as_json()
    assert (facts["falls"], facts["falls_found"], facts["false_alarms"]) == (2, 1, 1)
    assert facts["false_alarms_per_wearer_h"] == 0.1
    assert facts["false_alarms_per_wearer_h_at_most"] == pytest.approx(0.474, abs=0.001)
    assert facts["impact_to_alarm_s"]["p50"] == 3.0


def test_a_score_can_be_read_and_drawn(tmp_path: Path) -> None:
    home = home_with(event(Truth.FROZEN, 1000, 2000))
    told = Told([Name("a", BLIND, Cause.NOT_WORN, 1031, 2001)], [Page("a", BLIND, Cause.FROZEN, 1061)])
    result = score(home, told)
    console = Console(width=160, record=True, quiet=True)
    console.print(result.tables())
    json.dumps(result.as_json())
    pytest.importorskip("matplotlib")
    assert all(path.stat().st_size > 1000 for path in draw(home, told, result, tmp_path))
