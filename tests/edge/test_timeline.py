"""A wearable's batches become samples in order on one time line."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.core.timeline import Batch, Chunk, ClockOffset, Timeline

RATE_HZ = 50.0
PER_BATCH = 25


def batches(
    count: int, *, tick0: int = 0, true_rate_hz: float = RATE_HZ, boot: int = 1, first0: int = 0
) -> list[Batch]:
    """Make batches whose x axis counts the samples."""
    made = []
    for i in range(count):
        first = first0 + i * PER_BATCH
        xyz = np.zeros((PER_BATCH, 3), np.float32)
        xyz[:, 0] = np.arange(first, first + PER_BATCH)
        tick = (tick0 + round(first / true_rate_hz * 32768)) % (1 << 32)
        made.append(Batch(boot, tick, first, RATE_HZ, xyz))
    return made


def join(chunks: list[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([c.t_s for c in chunks]), np.concatenate([c.accel_g[:, 0] for c in chunks])


def run(sent: list[Batch]) -> tuple[Timeline, list[Chunk]]:
    timeline = Timeline()
    chunks = [chunk for batch in sent for chunk in timeline.push(batch)]
    return timeline, chunks + timeline.flush()


def test_samples_get_the_times_of_the_device_clock() -> None:
    _, chunks = run(batches(40))
    t_s, x = join(chunks)
    assert np.array_equal(x, np.arange(1000))
    assert np.allclose(t_s, np.arange(1000) / RATE_HZ, atol=1e-4)
    assert [c.restart for c in chunks] == [True] + [False] * 39


def test_ticks_may_wrap() -> None:
    _, chunks = run(batches(40, tick0=(1 << 32) - 100_000))
    t_s, _ = join(chunks)
    assert np.allclose(np.diff(t_s), 1 / RATE_HZ, atol=1e-4)


def test_a_sensor_three_per_cent_fast_is_measured() -> None:
    _, chunks = run(batches(200, true_rate_hz=RATE_HZ * 1.03))
    t_s, _ = join(chunks)
    assert np.all(np.diff(t_s) > 0)
    assert np.allclose(np.diff(t_s[2000:]), 1 / (RATE_HZ * 1.03), atol=2e-4)


def test_a_lost_batch_leaves_a_hole_and_a_long_loss_begins_anew() -> None:
    sent = batches(40)
    timeline, chunks = run(sent[:10] + sent[11:20] + sent[26:])
    t_s, x = join(chunks)
    assert np.allclose(t_s, x / RATE_HZ, atol=1e-4)
    assert [float(c.t_s[0]) for c in chunks if c.restart] == [0.0, 13.0]
    assert timeline.counts.lost == 7 * PER_BATCH


def test_a_device_that_restarted_begins_anew_and_time_goes_on() -> None:
    _, chunks = run(batches(4) + batches(4, boot=2, tick0=7))
    t_s, _ = join(chunks)
    assert np.all(np.diff(t_s) > 0)
    assert sum(c.restart for c in chunks) == 2


def test_a_batch_that_never_comes_holds_the_next_back_by_one_batch_only() -> None:
    sent, timeline = batches(4), Timeline()
    assert len(timeline.push(sent[0])) == 1
    assert timeline.push(sent[2]) == []
    assert len(timeline.push(sent[3])) == 2


@given(data=st.data())
def test_duplicates_and_neighbours_swapped_change_nothing(data: st.DataObject) -> None:
    sent = batches(30)
    order = list(sent)
    for i in data.draw(st.lists(st.integers(1, 27), max_size=6)):
        if order[i] is sent[i] and order[i + 1] is sent[i + 1]:
            order[i], order[i + 1] = order[i + 1], order[i]
    for i in data.draw(st.lists(st.integers(0, 29), max_size=6)):
        order.insert(i, order[i])
    _, clean = run(sent)
    _, noisy = run(order)
    for a, b in zip(join(clean), join(noisy), strict=True):
        assert np.allclose(a, b, atol=1e-3)


@given(lost=st.sets(st.integers(1, 58), max_size=20))
def test_whatever_is_lost_the_samples_left_keep_their_times(lost: set[int]) -> None:
    _, chunks = run([b for i, b in enumerate(batches(60)) if i not in lost])
    t_s, x = join(chunks)
    assert np.allclose(t_s, x / RATE_HZ, atol=1e-3)
    assert np.all(np.diff(t_s) > 0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=12))
def test_batches_that_overlap_give_each_sample_at_most_once(spans: list[tuple[int, int]]) -> None:
    sent = []
    for first, n in spans:
        xyz = np.zeros((n, 3), np.float32)
        xyz[:, 0] = np.arange(first, first + n)
        sent.append(Batch(1, round(first / RATE_HZ * 32768), first, RATE_HZ, xyz))
    timeline, chunks = run(sent)
    t_s, x = join(chunks)
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(t_s) > 0)
    assert timeline.counts.samples == len(x)


def test_the_least_late_batch_tells_where_the_device_clock_lies() -> None:
    offset, rng = ClockOffset(), np.random.default_rng(1)
    for i in range(2000):
        stream_s = i * 0.5
        offset.observe(stream_s, 1000.0 + stream_s * (1 + 50e-6) + rng.exponential(0.2))
    assert abs(offset.monotonic_s(900.0) - 1900.0) < 0.3
