from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.timeline import Batch, Timeline
from firmware_bridge.devices.clock import Batcher, SampleClock, SampleWriter
from firmware_bridge.wire import TICK_HZ, Samples


def test_numbers_and_ticks_go_on_from_run_to_run() -> None:
    clock = SampleClock(50)
    assert clock.place(10, 0.18) == (0, 0)
    assert clock.place(10, 0.38) == (10, round(0.2 * TICK_HZ))


def test_a_jump_of_the_time_is_a_hole_in_the_numbers() -> None:
    clock = SampleClock(50)
    clock.place(10, 0.18)
    assert clock.place(10, 2.38) == (110, round(2.2 * TICK_HZ))


def test_a_restart_counts_as_a_boot_and_a_clock_set_back_is_one() -> None:
    clock = SampleClock(50)
    clock.place(10, 1000.0)
    assert clock.place(10, 900.18)[0] == 0
    assert clock.boot == 1
    clock.restart()
    assert (clock.boot, clock.place(1, 5.0)[0]) == (2, 0)


def test_a_callers_mistake_is_a_value_error() -> None:
    for wrong in (lambda: SampleClock(0), lambda: SampleClock(50).place(0, 1.0), lambda: SampleWriter(50, 3)):
        with pytest.raises(ValueError, match=r"rate 0|0 samples|range 3"):
            wrong()


def stream(
    rate_hz: float, off: float, burst_s: float, length_s: float, lost: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray, Timeline]:
    """Play a device through clock, messages and time line; return each sample's stream time and number there."""
    true_hz = rate_hz * (1 + off)
    batcher, timeline = Batcher(SampleWriter(rate_hz, 16)), Timeline()
    times, numbers = [], []
    messages = []
    for k in range(int(length_s * true_hz)):
        taken_s = k / true_hz
        if lost[0] <= taken_s < lost[1]:
            continue
        late_s = burst_s - taken_s % burst_s if burst_s else 0.0
        messages += batcher.add(k.to_bytes(6, "little"), 1e5 + taken_s + late_s)
    for m in messages + batcher.flush():
        if isinstance(m, Samples):
            k_s = [int.from_bytes(m.xyz[i : i + 6], "little") for i in range(0, len(m.xyz), 6)]
            accel = np.array([[k, 0, 0] for k in k_s], np.float32)
            for chunk in timeline.push(Batch(m.boot, m.tick, m.first, m.rate_hz, accel)):
                times.append(chunk.t_s)
                numbers.append(chunk.accel_g[:, 0])
    return np.concatenate(times), np.concatenate(numbers), timeline


@settings(max_examples=25, deadline=None)
@given(
    rate_hz=st.sampled_from([25.0, 50.0, 100.0]),
    off=st.floats(-0.05, 0.05),
    burst_s=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_the_true_rate_is_followed_whatever_the_bursts(rate_hz: float, off: float, burst_s: float) -> None:
    t_s, numbers, timeline = stream(rate_hz, off, burst_s, 60.0)
    assert timeline.counts.lost == 0
    assert np.all(np.diff(t_s) > 0)
    error_s = t_s - numbers / (rate_hz * (1 + off))
    assert np.abs(error_s).max() < 0.15
    assert np.ptp(error_s[t_s > 40]) < 0.05
    spacing = np.diff(t_s[t_s > 40]) * rate_hz * (1 + off)
    assert abs(np.median(spacing) - 1) < 0.02


def test_after_hours_the_time_is_still_that_of_arrival() -> None:
    clock, true_hz = SampleClock(50), 50 * 1.05
    for i in range(1, 4 * 3600 * 4):
        last_s = i * 13 / true_hz
        _, tick = clock.place(13, last_s + (i * 7 % 5) * 0.06)
    first_s = last_s - 12 / true_hz
    assert abs((tick - round(first_s * TICK_HZ) + (1 << 31)) % (1 << 32) - (1 << 31)) < 0.3 * TICK_HZ


@settings(max_examples=15, deadline=None)
@given(off=st.floats(-0.05, 0.05), gap_s=st.floats(1.2, 6.0))
def test_lost_notifications_are_a_hole(off: float, gap_s: float) -> None:
    t_s, numbers, timeline = stream(50, off, 0.1, 60.0, lost=(40.0, 40.0 + gap_s))
    true_hz = 50 * (1 + off)
    assert abs(timeline.counts.lost / true_hz - gap_s) < 0.25
    steps = np.diff(t_s)
    assert np.all(steps > 0)
    assert abs(steps.max() - gap_s) < 0.25
    assert numbers[steps.argmax() + 1] - numbers[steps.argmax()] > 1


def test_a_backlog_that_comes_at_once_is_no_hole() -> None:
    batcher = Batcher(SampleWriter(50, 16))
    at = [k / 50 if k < 100 else max(k / 50, 4.0) for k in range(400)]  # held up for two seconds
    messages = [m for k, at_s in enumerate(at) for m in batcher.add(bytes(6), at_s)] + batcher.flush()
    samples = [m for m in messages if isinstance(m, Samples)]
    assert [m.first for m in samples] == [sum(m.n for m in samples[:i]) for i in range(len(samples))]
