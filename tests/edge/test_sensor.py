"""What a wearable's samples show of its sensor: frozen, saturated, mis-scaled, at the wrong rate, on a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.core.sensor import TABLE_S, SensorWatch
from edge.core.supervision import Cause

RATE_HZ, N = 50, 25
TICK_HZ = 32768
Motion = NDArray[np.float64]
Spoil = Callable[[Motion], Motion]


def worn(seconds: float, seed: int = 1) -> Motion:
    """Return somebody who sits and moves a hand now and then; shape (n, 3), g."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE_HZ)
    turn = np.cumsum(rng.normal(0, 0.02, (n, 3)), axis=0)
    direction = np.array([0.1, 0.2, 1.0]) + np.sin(turn)
    motion: Motion = direction / np.linalg.norm(direction, axis=1, keepdims=True) + rng.normal(0, 0.02, (n, 3))
    return motion


class Player:
    """Feeds a watch as a wearable would; what it says of rate and clock may be wrong."""

    def __init__(self, *, feels_skin: bool = True, range_g: int = 8) -> None:
        self.watch = SensorWatch(feels_skin=feels_skin)
        self.now_s, self.first, self.boot = 100.0, 0, 1
        self._range_g = range_g

    def play(
        self,
        motion: Motion,
        *,
        rate_hz: float = RATE_HZ,
        pace: float = 1.0,
        clock: float = 1.0,
        named: bool = True,
    ) -> float | None:
        """Play at ``pace`` times the declared rate; return after how long something was named, if it was."""
        counts = np.clip(np.round(motion / self._range_g * 32768), -32768, 32767).astype("<i2")
        begun_s = self.now_s
        for start in range(0, len(counts) - N + 1, N):
            self.now_s += N / rate_hz / pace
            self.watch.observe(
                counts[start : start + N],
                range_g=self._range_g,
                rate_hz=rate_hz,
                boot=self.boot,
                first=self.first,
                tick=int(self.now_s * clock * TICK_HZ) & 0xFFFF_FFFF,
                received_s=self.now_s,
            )
            self.first += N
            if named and self.watch.cause() is not None:
                return self.now_s - begun_s
        return None


def test_a_sound_sensor_on_a_person_is_well_for_an_hour() -> None:
    assert Player().play(worn(3600.0)) is None


def constant(motion: Motion) -> Motion:
    return np.tile(motion[:1], (len(motion), 1))


def one_axis_dead(motion: Motion) -> Motion:
    return motion * [1.0, 0.0, 1.0]


def twins(motion: Motion) -> Motion:
    return motion[:, [0, 0, 2]]


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (constant, Cause.FROZEN),
        (one_axis_dead, Cause.FROZEN),
        (twins, Cause.WRONG_AXES),
        (lambda motion: motion * 2, Cause.WRONG_SCALE),
        (lambda motion: motion / 2, Cause.WRONG_SCALE),
        (lambda motion: motion * 9.81, Cause.WRONG_SCALE),
        (lambda motion: motion * 0 + 20.0, Cause.SATURATED),
    ],
)
def test_what_is_wrong_with_a_sensor_is_named_within_a_minute(spoil: Spoil, cause: Cause) -> None:
    player = Player(range_g=16)
    assert player.play(worn(120.0)) is None
    after_s = player.play(spoil(worn(120.0, seed=2)))
    assert after_s is not None
    assert after_s <= 60.0
    assert player.watch.cause() is cause
    player.play(worn(150.0, seed=3), named=False)
    assert player.watch.cause() is None  # mended


@pytest.mark.parametrize(
    ("pace", "clock", "cause"),
    [
        (0.5, 1.0, Cause.WRONG_RATE),  # 25 sent as 50
        (2.0, 1.0, Cause.WRONG_RATE),
        (1.0, 0.0, Cause.CLOCK_WRONG),  # it stands
        (1.0, 1.5, Cause.CLOCK_WRONG),
    ],
)
def test_a_wrong_rate_and_a_wrong_clock_are_named_within_a_minute(pace: float, clock: float, cause: Cause) -> None:
    player = Player()
    after_s = player.play(worn(120.0), pace=pace, clock=clock)
    assert after_s is not None
    assert after_s <= 60.0
    assert player.watch.cause() is cause


def test_a_clock_that_leaps_is_wrong_for_a_minute() -> None:
    player = Player()
    player.play(worn(60.0))
    player.play(worn(5.0), clock=3.0)
    assert player.watch.cause() is Cause.CLOCK_WRONG
    player.boot += 1  # it was started again
    player.first = 0
    player.play(worn(90.0), named=False)
    assert player.watch.cause() is None


@given(rate=st.floats(0.93, 1.07), jitter=st.integers(0, 2**32 - 1))
def test_a_rate_a_few_per_cent_off_and_late_packets_are_well(rate: float, jitter: int) -> None:
    rng = np.random.default_rng(jitter)
    watch, counts = SensorWatch(feels_skin=True), np.round(worn(60.0) / 8 * 32768).astype("<i2")
    for start in range(0, len(counts) - N, N):
        device_s = (start + N) / RATE_HZ / rate
        watch.observe(
            counts[start : start + N],
            range_g=8,
            rate_hz=RATE_HZ,
            boot=1,
            first=start,
            tick=int(device_s * TICK_HZ),
            received_s=100.0 + device_s + float(rng.uniform(0, 0.4)),
        )
        assert watch.cause() is None


def test_what_was_kept_while_away_and_comes_late_is_no_wrong_rate() -> None:
    player = Player()
    player.play(worn(60.0))
    player.now_s += 30.0  # nothing came
    assert player.play(worn(30.0), pace=20.0) is None
    assert player.play(worn(60.0)) is None


def still(seconds: float, noise_g: float) -> Motion:
    rng = np.random.default_rng(5)
    return np.array([0.0, 0.0, 1.0]) + rng.normal(0, noise_g, (round(seconds * RATE_HZ), 3))


def test_what_lies_on_a_table_is_not_worn_and_within_twenty_minutes_that_is_known() -> None:
    player = Player(feels_skin=False)
    after_s = player.play(still(1300.0, 0.003))
    assert after_s is not None
    assert TABLE_S <= after_s <= 1200.0
    assert player.watch.cause() is Cause.NOT_WORN
    player.play(worn(5.0), named=False)
    assert player.watch.cause() is None


def test_a_sleeper_who_breathes_wears_it() -> None:
    t_s = np.arange(round(1800 * RATE_HZ)) / RATE_HZ
    breath_g = 0.02 * np.sin(2 * np.pi * 0.25 * t_s)
    asleep = still(1800.0, 0.003) + np.stack([breath_g, breath_g, 0 * breath_g], axis=1)
    assert Player(feels_skin=False).play(asleep) is None


def test_one_that_feels_skin_is_believed_however_still_it_lies() -> None:
    assert Player().play(still(1300.0, 0.003)) is None


def test_axes_read_twice_are_named_while_nobody_moves() -> None:
    player = Player()
    after_s = player.play(twins(still(120.0, 0.003)))
    assert after_s is not None
    assert player.watch.cause() is Cause.WRONG_AXES


def test_a_wrong_scale_that_movement_hides_for_a_while_is_one_trouble() -> None:
    player = Player(range_g=16)
    player.play(worn(60.0) / 2)
    assert player.watch.cause() is Cause.WRONG_SCALE
    player.play(worn(30.0))  # as if thrown about
    assert player.watch.cause() is Cause.WRONG_SCALE


def test_a_fall_that_clips_for_a_moment_is_not_a_saturated_sensor() -> None:
    player = Player(range_g=2)
    motion = worn(120.0)
    motion[1000:1050] *= 6
    assert player.play(motion) is None


def test_one_that_is_moved_says_when() -> None:
    player = Player()
    player.play(still(10.0, 0.003))
    assert player.watch.moved_s is None
    player.play(worn(10.0) * [1, 1, 1] + np.random.default_rng(0).normal(0, 0.1, (500, 3)))
    assert player.watch.moved_s == player.now_s
