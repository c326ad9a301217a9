"""What device and cut leave in a window must not tell a fall."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="the training extra is not installed")

from models.preprocess import Accel
from tests.training.real import real_trials
from training.control import TOGETHER, Auc, clues, control, sample
from training.windows import Shape

BAND = 0.05
SHAPE = Shape()
N = SHAPE.window_samples
with_data = pytest.mark.skipif(
    not os.environ.get("FALLWATCH_DATA"), reason="needs the data sets: set FALLWATCH_DATA to their folder"
)


def made_up(count: int = 3000, seed: int = 0) -> tuple[Accel, NDArray[np.bool_], NDArray[np.int64]]:
    """Noise of many devices; whether a window is a fall has nothing to do with it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, rng.uniform(0.1, 2.0, (count, 1, 1)), (count, N, 3))
    noise[:, :, 1] += 1
    limit_g = rng.choice((2.0, 4.0, 8.0, 16.0), (count, 1, 1))
    windows: Accel = np.clip(noise, -limit_g, limit_g).astype(np.float32)
    for window in windows[rng.random(count) < 0.2]:
        window[: rng.integers(1, N)] = 0.5
    return windows, rng.random(count) < 0.4, rng.integers(0, 15, count)


def measured(windows: Accel, falls: NDArray[np.bool_], people: NDArray[np.int64]) -> dict[str, Auc]:
    return control(windows, falls, np.ones(len(falls)), people, rng=np.random.default_rng(1))


def test_windows_without_a_leak_are_at_chance() -> None:
    found = measured(*made_up())
    assert list(found) == ["held start", "straight lines", "clipping", "repeats", TOGETHER]
    for auc in found.values():
        assert auc.touches(BAND)
        assert auc.low <= auc.value <= auc.high
        assert auc.high - auc.low < 0.15  # an interval so wide that it always touches would prove nothing


def test_falls_that_are_all_clipped_at_2_g_are_caught() -> None:
    windows, falls, people = made_up()
    windows[falls] = np.clip(windows[falls] * 2, -2.0, 2.0)
    found = measured(windows, falls, people)
    assert not found["clipping"].touches(BAND)
    assert not found[TOGETHER].touches(BAND)
    assert found[TOGETHER].low > 0.9
    assert found["held start"].touches(BAND)


def test_daily_windows_that_begin_held_more_often_are_caught() -> None:
    windows, falls, people = made_up()
    daily = np.flatnonzero(~falls)
    for i in daily[: len(daily) // 3]:
        windows[i, :60] = windows[i, 60]
    found = measured(windows, falls, people)
    assert not found["held start"].touches(BAND)
    assert found["clipping"].touches(BAND)


def test_a_slow_source_of_one_class_is_caught() -> None:
    windows, falls, people = made_up()
    known = np.arange(0, N, 4)
    for i in np.flatnonzero(falls):
        for axis in range(3):
            windows[i, :, axis] = np.interp(np.arange(N), known, windows[i, known, axis])
    assert not measured(windows, falls, people)["straight lines"].touches(BAND)


def test_a_coarse_sensor_of_one_class_is_caught() -> None:
    windows, falls, people = made_up()
    windows[~falls] = np.round(windows[~falls] * 0.5)
    assert not measured(windows, falls, people)["repeats"].touches(BAND)


def test_what_marks_a_person_and_not_a_class_is_no_leak() -> None:
    windows, falls, people = made_up(6000)
    windows[people % 3 == 0] = np.clip(windows[people % 3 == 0], -2.0, 2.0)
    assert measured(windows, falls, people)[TOGETHER].touches(BAND)


def test_the_clues_of_one_window_are_as_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    window = rng.uniform(-1, 1, (1, N, 3)).astype(np.float32)
    window[0, :40] = window[0, 39]  # held: 40 samples, the first 39 repeat the one after
    window[0, 60:70] = window[0, 60] + np.arange(10)[:, None] * np.float32(0.01)  # 8 inner points of a line
    window[0, 100:104, 1] = 2.0  # 3 pairs of neighbours at the limit
    window[0, 120:123] = window[0, 120]  # 2 repeats
    found = clues(window)
    live = N - 39
    assert found["held start"][0, 0] == pytest.approx(39 / N)
    assert found["straight lines"][0, 0] == pytest.approx(8 / live)
    assert found["clipping"][0].tolist() == pytest.approx([3 / live, 2.0])
    assert found["repeats"][0, 0] == pytest.approx(2 / live)


def test_a_window_in_which_nothing_moves_is_all_held() -> None:
    still = np.ones((2, N, 3), np.float32)
    found = clues(still)
    assert found["held start"][:, 0].tolist() == pytest.approx([(N - 1) / N] * 2)
    assert all(np.isfinite(values).all() for values in found.values())


@with_data
@pytest.mark.parametrize(("name", "placement"), [("umafall", "wrist"), ("sisfall", "waist")])
def test_prepared_windows_of_real_people_do_not_give_the_class_away(name: str, placement: str) -> None:
    own = [t for t in real_trials(name) if t.placement == placement][::2]
    rng = np.random.default_rng(1)
    windows = sample(own, SHAPE, variants=2, set_weights={}, count=4000, rng=rng)
    found = control(*windows, rng=rng)
    assert found[TOGETHER].touches(BAND), found
    assert found["held start"].touches(BAND), found
