"""From a sensor's samples to a model's input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.preprocess import BRIDGE_S, Accel, CausalResampler, Times, as_samples, respace

RATE_HZ = 32.0


def resample(t_s: Times, accel_g: Accel, cuts: list[int] | None = None) -> tuple[int, Accel]:
    """Return the first grid index and all outputs, the input handed over in pieces."""
    resampler, first = CausalResampler(RATE_HZ), None
    pieces: list[Accel] = []
    bounds = sorted({0, len(t_s), *(cut % len(t_s) for cut in cuts or [])})
    for a, b in pairwise(bounds):
        start, out = resampler.push(t_s[a:b], accel_g[a:b])
        if len(out):
            first = start if first is None else first
            assert start == first + sum(len(piece) for piece in pieces)  # no output is skipped or told twice
        pieces.append(out)
    return first or 0, np.concatenate(pieces)


def motion(t_s: Times) -> Accel:
    """Return made-up motion up to 6 Hz, as fast as people's limbs go."""
    swings = [np.sin(2 * np.pi * f * t_s + f) * a for f, a in ((0.7, 0.5), (2.1, 0.3), (6.0, 0.1))]
    return np.stack([sum(swings), 1 + swings[0], -swings[2]], axis=1).astype(np.float32)


def test_a_still_sensor_stays_still_at_the_models_rate() -> None:
    t_s = np.arange(500) / 50
    first, out = resample(t_s, np.tile(np.array([0, 0.6, 0.8], np.float32), (500, 1)))
    assert first == 1
    assert out.shape == (319, 3)
    assert out.dtype == np.float32
    assert np.allclose(out, [0, 0.6, 0.8], atol=1e-6)


def test_an_output_is_the_mean_over_the_period_before_it() -> None:
    t_s = np.arange(1000) / 50
    first, out = resample(t_s, np.repeat(t_s[:, None], 3, axis=1).astype(np.float32))
    at_s = (first + np.arange(len(out))) / RATE_HZ
    assert np.allclose(out[1:, 0], at_s[1:] - 0.5 / RATE_HZ, atol=1e-4)


@given(rate_hz=st.floats(25, 200), begin_s=st.floats(0, 0.1))
def test_from_25_to_200_hz_the_model_sees_nearly_the_same(rate_hz: float, begin_s: float) -> None:
    t_s = begin_s + np.arange(round(8 * rate_hz)) / rate_hz
    first, out = resample(t_s, motion(t_s))
    fine_s = np.arange(8 * 2000) / 2000
    fine_first, wanted = resample(fine_s, motion(fine_s))
    wanted = wanted[first - fine_first :]
    n = min(len(out), len(wanted)) - 1
    assert n > 7.5 * RATE_HZ
    error_g = np.abs(out[1:n] - wanted[1:n])
    assert error_g.max() < 0.06
    assert error_g.mean() < 0.02


def test_what_is_faster_than_the_model_sees_is_damped_not_folded() -> None:
    t_s = np.arange(2000) / 200
    shake = np.sin(2 * np.pi * 40 * t_s)[:, None].repeat(3, axis=1).astype(np.float32)
    _, out = resample(t_s, shake)
    assert out.std() < 0.25 * shake.std()


@given(
    rate_hz=st.floats(5, 400),
    gap_s=st.floats(0, BRIDGE_S),
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_chunking_gives_the_same_bits(rate_hz: float, gap_s: float, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    t_s = np.cumsum(rng.uniform(0.5, 1.5, 200)) / rate_hz
    t_s[100:] += gap_s
    accel_g = rng.normal(0, 2, (200, 3)).astype(np.float32)
    first, out = resample(t_s, accel_g)
    cut_first, cut_out = resample(t_s, accel_g, cuts)
    assert len(out) == 0 or first == cut_first
    assert np.array_equal(out, cut_out)


def test_a_short_gap_is_bridged_by_a_straight_line() -> None:
    t_s = np.array([0.0, 0.5, 1.5, 2.0])
    _, out = resample(t_s, np.repeat(np.array([[0], [0], [2], [2]], np.float32), 3, axis=1))
    bridged = out[17:47, 0]  # strictly within the gap
    assert np.allclose(np.diff(bridged), 2 / RATE_HZ, atol=1e-5)


def test_a_restart_forgets_what_was_before() -> None:
    resampler = CausalResampler(RATE_HZ)
    resampler.push(np.array([0.0, 1.0]), np.full((2, 3), 9, np.float32))
    resampler.restart()
    first, out = resampler.push(np.array([10.0, 10.5]), np.zeros((2, 3), np.float32))
    assert first == 321
    assert not out.any()


def test_nothing_pushed_gives_nothing() -> None:
    resampler = CausalResampler(RATE_HZ)
    assert resampler.push(np.empty(0), np.empty((0, 3), np.float32))[1].shape == (0, 3)


def test_seconds_become_a_whole_number_of_samples_at_least_one() -> None:
    assert [as_samples(s, rate_hz=32) for s in (0, 0.01, 0.5, 3)] == [1, 1, 16, 96]


# -- arrival times -----------------------------------------------------------------------------------


def spaced(arrival_s: Times, rate_hz: float | None = None) -> Times:
    return np.concatenate([times for _, _, times in respace(arrival_s, rate_hz)])


def test_even_times_stay_as_they_are() -> None:
    t_s = np.arange(1000) / 50
    ((start, stop, times),) = respace(t_s)
    assert (start, stop) == (0, 1000)
    assert np.allclose(times, t_s, atol=1e-9)


@settings(deadline=None)
@given(
    rate_hz=st.sampled_from([20.0, 25.0, 32.0, 50.0, 100.0, 200.0]),
    burst_s=st.floats(0.1, 5.0),
    late_part=st.floats(0, 0.25),
    declared=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_bursts_are_spread_to_where_the_samples_were_taken(
    rate_hz: float, burst_s: float, late_part: float, declared: bool, seed: int
) -> None:
    true_s = np.arange(round(60 * rate_hz)) / rate_hz
    burst = np.floor(true_s / burst_s).astype(int)
    late_s = np.random.default_rng(seed).uniform(0, late_part * burst_s, burst[-1] + 1)
    times = spaced((burst + 1) * burst_s + late_s[burst], rate_hz if declared else None)
    assert np.all(np.diff(times) > 0)
    assert (times[-1] - times[0]) / true_s[-1] == pytest.approx(1, abs=0.03 + 0.02 * burst_s)
    assert np.median(np.diff(times)) * rate_hz == pytest.approx(1, abs=0.03 + 0.02 * burst_s)


@pytest.mark.parametrize("burst_s", [0.0, 0.1, 0.5])
def test_a_real_gap_among_bursts_stays_a_gap(burst_s: float) -> None:
    true_s = np.arange(1500) / 50
    arrival_s = np.ceil(true_s / burst_s + 1e-9) * burst_s if burst_s else true_s
    kept = (true_s < 10) | (true_s >= 14)
    (_, stop, before), (start, _, after) = respace(arrival_s[kept])
    assert stop == start == 500
    assert after[0] - before[-1] == pytest.approx(4, abs=0.1)


def test_a_lost_second_between_bursts_of_a_second_stays_a_gap() -> None:
    true_s = np.arange(1500) / 50
    arrival_s = np.floor(true_s) + 1
    kept = (true_s < 10) | (true_s >= 12)
    assert [(start, stop) for start, stop, _ in respace(arrival_s[kept])] == [(0, 500), (500, 1400)]


def test_times_that_repeat_or_step_back_a_little_are_spread() -> None:
    arrival_s = np.repeat(np.arange(100) / 10, 5)
    arrival_s[50:55] -= 0.15
    times = spaced(arrival_s)
    assert np.allclose(np.diff(times), 0.02, atol=2e-3)


def test_a_declared_rate_spaces_what_is_too_short_to_measure() -> None:
    assert np.allclose(spaced(np.zeros(10), 20.0), np.arange(10) / 20)
    assert spaced(np.array([3.0]), 20.0) == [3.0]
    assert respace(np.empty(0)) == []


@given(
    steps_ms=st.lists(st.sampled_from([-300, -20, 0, 0, 1, 5, 20, 40, 100, 900, 1100, 5000, 7000]), max_size=120),
    declared_hz=st.none() | st.floats(1, 1000),
)
def test_whatever_the_times_every_row_is_in_one_run_and_time_goes_on(
    steps_ms: list[int], declared_hz: float | None
) -> None:
    arrival_s = np.cumsum([0, *steps_ms]) / 1000
    runs = respace(arrival_s, declared_hz)
    assert [row for start, stop, _ in runs for row in range(start, stop)] == list(range(len(arrival_s)))
    times = np.concatenate([times for _, _, times in runs])
    assert np.all(np.diff(times) > 0)
    assert times[0] == arrival_s[0]
