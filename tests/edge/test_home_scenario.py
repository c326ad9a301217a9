"""A made-up home is the same for the same seed, whole, and sane."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge.core.supervision import Cause
from edge.home.motion import COUNTS_PER_G, RATE_HZ, Mover, load_pool
from edge.home.scenario import (
    APART_S,
    CAUSES,
    DAY_S,
    FOR_EVER,
    LIMITS_S,
    Activity,
    Habits,
    Home,
    Truth,
    imagine_home,
)

DAYS = 6.0


@pytest.fixture(scope="module")
def home() -> Home:
    return imagine_home(np.random.default_rng(3), residents=12, days=DAYS)


def test_the_same_seed_gives_the_same_home(home: Home) -> None:
    assert imagine_home(np.random.default_rng(3), residents=12, days=DAYS) == home
    assert imagine_home(np.random.default_rng(4), residents=12, days=DAYS) != home


def test_everybody_does_something_at_all_times(home: Home) -> None:
    for life in home.lives:
        assert life.doings[0].begin_s == 0.0
        assert life.doings[-1].end_s == home.end_s == DAYS * DAY_S
        assert all(a.end_s == b.begin_s for a, b in pairwise(life.doings))
        assert life.doing(3 * 3600.0).place in life.place_dbm


def test_nobody_has_two_troubles_at_once(home: Home) -> None:
    for life in home.lives:
        own = [e for e in life.events if e.truth in CAUSES and e.truth is not Truth.LOW_BATTERY]
        for before, after in pairwise(sorted(own)):
            by_itself = before.truth is Truth.FLAT and after.truth is Truth.CHARGING
            assert after.begin_s - before.end_s >= (0.0 if by_itself else APART_S - 1.0), (before, after)


def test_every_kind_of_trouble_comes_up(home: Home) -> None:
    often = imagine_home(np.random.default_rng(1), residents=20, days=DAYS, habits=Habits(faults=3.0))
    seen = {e.truth for life in often.lives for e in life.events} | {e.truth for e in often.events}
    assert set(Truth) - seen <= {Truth.WELL, Truth.FORGED, Truth.UNPLUGGED}


def test_no_faults_are_drawn_where_none_are_wanted() -> None:
    sound = imagine_home(
        np.random.default_rng(1), residents=5, days=2, habits=Habits(faults=0.0, falls_per_day=0.0)
    )
    seen = {e.truth for life in sound.lives for e in life.events}
    assert not seen & {Truth.FALL, Truth.BROKEN, Truth.FROZEN, Truth.OFF_FELT, Truth.OFF_UNFELT}


def test_a_battery_that_goes_flat_is_low_for_a_day_before_and_charged_after(home: Home) -> None:
    forgetful = imagine_home(np.random.default_rng(2), residents=10, days=15, habits=Habits(forgotten=0.8))
    flats = 0
    for life in forgetful.lives:
        for flat in (e for e in life.events if e.truth is Truth.FLAT and e.begin_s > 3 * DAY_S):
            flats += 1
            low = [e for e in life.events if e.truth is Truth.LOW_BATTERY and e.end_s == flat.begin_s]
            assert [e.told_by_s for e in low] == [flat.begin_s - DAY_S]
            assert life.battery_pct(flat.begin_s - DAY_S) > life.battery_pct(flat.begin_s) <= 6
    assert flats > 5


def test_every_truth_that_must_be_named_has_a_name_and_a_limit() -> None:
    assert all(isinstance(cause, Cause) for causes in CAUSES.values() for cause in causes)
    assert set(LIMITS_S) == set(CAUSES) - {Truth.LOW_BATTERY}
    assert max(LIMITS_S.values()) < FOR_EVER


def test_motion_is_that_of_a_person_on_earth() -> None:
    mover = Mover(load_pool(None), np.random.default_rng(5))
    for activity in (Activity.WALK, Activity.BUSY, Activity.REST):
        blocks = np.concatenate([mover.awake(activity, 60 * RATE_HZ) for _ in range(5)])
        size_g = np.linalg.norm(blocks.astype(np.float64), axis=1) / COUNTS_PER_G
        assert np.median(size_g) == pytest.approx(1.0, abs=0.1), activity
        assert size_g.min() > 0.05, activity
    asleep_g = np.linalg.norm(mover.asleep(600 * RATE_HZ).astype(np.float64), axis=1) / COUNTS_PER_G
    assert np.median(asleep_g) == pytest.approx(1.0, abs=0.02)
    table = mover.lying_about(600 * RATE_HZ) / COUNTS_PER_G
    assert 0 < table.std(axis=0).max() < 0.01


def test_sleepers_move_and_tables_do_not() -> None:
    mover = Mover(load_pool(None), np.random.default_rng(5))
    night, table = mover.asleep(7200 * RATE_HZ), mover.lying_about(7200 * RATE_HZ)
    assert np.ptp(night, axis=0).max() > 0.1 * COUNTS_PER_G > np.ptp(table, axis=0).max()


def test_no_fall_is_played_twice_in_a_row() -> None:
    mover = Mover(load_pool(None), np.random.default_rng(5))
    falls = [mover.fall() for _ in range(6)]
    assert all(len(a[0]) != len(b[0]) or not np.array_equal(a[0][40:], b[0][40:]) for a, b in pairwise(falls))
    assert all(np.linalg.norm(counts[at] / COUNTS_PER_G) > 1.8 for counts, at in falls)
