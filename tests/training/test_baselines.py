"""The simple methods that the network has to beat, without any data set."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the training extra is not installed")
pytest.importorskip("torch", reason="the training extra is not installed")

from models.preprocess import Accel
from training import baselines, bundle
from training.baselines import METHODS, RATE_HZ, SECOND, Baseline, MiniRocket
from training.windows import Pool, Shape

SHAPE = Shape()
CARD = bundle.draft_card("wrist", SHAPE, 0.5)
N = SHAPE.window_samples


def made_up(count: int, *, fall: bool, seed: int) -> Accel:
    """Windows of somebody walking, or falling onto another side and lying still; each worn its own way round."""
    rng = np.random.default_rng(seed)
    t = np.arange(N) / RATE_HZ
    windows = np.empty((count, N, 3), np.float32)
    for i in range(count):
        a = np.tile([0.0, 1.0, 0.0], (N, 1)) + 0.25 * np.sin(12 * t + rng.uniform(0, 6))[:, None] * [0.3, 1.0, 0.5]
        if fall:
            at = int(rng.integers(SECOND, N - SECOND))
            a[at:] = [0.9, 0.1, 0.4]
            a[at - 12 : at] *= 0.3
            a[at : at + 3] = rng.uniform(0.7, 4.0, (1, 3))
        elif i % 2 == 0:
            at = int(rng.integers(SECOND, N - SECOND))  # a knock, and some lie down after it
            a[at : at + 2] += rng.uniform(0.2, 2.5)
            if i % 8 == 0:
                a[at + 2 :] = [0.9, 0.1, 0.4]
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        windows[i] = (a + rng.normal(0, 0.03, a.shape)) @ turn
    return windows


def pool_of(falls: Accel, daily: Accel) -> Pool:
    windows = np.concatenate([falls, daily])
    is_fall = np.arange(len(windows)) < len(falls)
    ends = (np.arange(len(windows)) + 1) * N
    weights = np.where(is_fall, 1 / len(falls), 1 / len(daily))
    return Pool(windows.reshape(-1, 3), ends, is_fall, weights, np.zeros(len(ends), np.int64))


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "FALLS", 400)
        patch.setattr(baselines, "DAILY", 800)
        yield


@pytest.fixture(scope="module")
def learnt(small: None) -> dict[str, Baseline]:
    pool = pool_of(made_up(200, fall=True, seed=1), made_up(400, fall=False, seed=2))
    return {name: baselines.learn(name, pool, SHAPE, CARD, np.random.default_rng(3)) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_tells_falls_it_never_saw_from_walking(name: str, learnt: dict[str, Baseline]) -> None:
    falls = learnt[name].score(made_up(60, fall=True, seed=11))
    daily = learnt[name].score(made_up(120, fall=False, seed=12))
    assert falls.dtype == np.float32
    assert falls.shape == (60,)
    assert 0.0 <= min(falls.min(), daily.min()) <= max(falls.max(), daily.max()) <= 1.0
    assert np.median(daily) < 0.1  # half of all daily windows reach it
    assert np.mean(falls[:, None] > daily[None, :]) > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_scores_are_graded_enough_for_a_choice_of_thresholds(name: str, learnt: dict[str, Baseline]) -> None:
    share = np.linspace(0, 1, 300, dtype=np.float32)[:, None, None]
    windows = share * made_up(300, fall=True, seed=21) + (1 - share) * made_up(300, fall=False, seed=22)
    score = learnt[name].score(windows).astype(float)
    odds = np.log(score / (1 - score))
    assert len(np.unique(np.round(odds[(odds > -4) & (odds < 6)], 1))) > 8


@pytest.mark.parametrize("name", METHODS)
def test_a_score_does_not_depend_on_the_batch_or_on_how_the_sensor_is_turned(
    name: str, learnt: dict[str, Baseline]
) -> None:
    windows = np.concatenate([made_up(50, fall=True, seed=31), made_up(50, fall=False, seed=32)])
    together = learnt[name].score(windows)
    alone = np.concatenate([learnt[name].score(w[None]) for w in windows])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = learnt[name].score((windows @ turn).astype(np.float32))
    # Trees and counts jump where rounding crosses a level, so a few may differ a little.
    assert np.median(np.abs(together - turned)) < 1e-3
    assert np.abs(together - turned).max() < 0.15


@pytest.mark.parametrize("name", METHODS)
def test_no_windows_get_no_scores_and_strange_ones_get_finite_ones(name: str, learnt: dict[str, Baseline]) -> None:
    assert learnt[name].score(np.empty((0, N, 3), np.float32)).shape == (0,)
    strange = np.zeros((3, N, 3), np.float32)
    strange[1] = 1e6
    strange[2, ::2] = -20.0
    assert np.isfinite(learnt[name].score(strange)).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_scores(name: str, small: None) -> None:
    pool = pool_of(made_up(60, fall=True, seed=1), made_up(100, fall=False, seed=2))
    windows = made_up(20, fall=True, seed=5)
    one, two = (baselines.learn(name, pool, SHAPE, CARD, np.random.default_rng(9)).score(windows) for _ in "12")
    np.testing.assert_array_equal(one, two)


def test_the_limit_on_the_impact_ignores_all_else(learnt: dict[str, Baseline]) -> None:
    rest = np.tile(np.array([0.0, 1.0, 0.0], np.float32), (3, N, 1))
    rest[0, 80], rest[1, 80], rest[2, 20] = [0, 2, 0], [0, 5, 0], [5, 0, 0]
    low, high, elsewhere = learnt["impact threshold"].score(rest)
    assert low < high == elsewhere


def test_an_impact_without_a_turn_is_no_fall_for_the_threshold_and_posture(learnt: dict[str, Baseline]) -> None:
    falls = made_up(30, fall=True, seed=41)
    same_way = falls.copy()
    for fall, kept in zip(falls, same_way, strict=True):
        at = int(np.linalg.norm(fall, axis=1).argmax())
        kept[at + 3 :] = fall[:SECOND].mean(axis=0)
    with_turn, without = (learnt["threshold and posture"].score(w) for w in (falls, same_way))
    assert np.mean(without < with_turn) > 0.9
    assert np.median(without) < 0.2


def test_what_follows_an_impact_is_measured_as_it_is() -> None:
    window = np.tile(np.array([0.0, 1.0, 0.0], np.float32), (1, N, 1))
    window[0, 80:] = [1.0, 0.0, 0.0]
    window[0, 80] = [0.0, 4.0, 3.0]
    ((impact, turn_deg, quiet),) = baselines.aftermath(window)
    assert impact == pytest.approx(np.log(5.1), abs=1e-4)
    assert turn_deg == pytest.approx(90.0, abs=0.1)
    assert quiet == pytest.approx(-np.log(0.02), abs=0.05)


def test_minirocket_counts_what_its_definition_says() -> None:
    windows = np.concatenate([made_up(4, fall=True, seed=51), made_up(4, fall=False, seed=52)])
    rocket = MiniRocket(windows, np.random.default_rng(1))
    x = baselines.channels(windows) * rocket._scale
    found = []
    for dilation, kernels, levels in zip(baselines.DILATIONS, rocket._kernels, rocket._levels, strict=True):
        half = 4 * dilation
        said = np.zeros((len(x), 84, N))
        for i, tap in itertools.product(range(N), range(9)):
            at = i + (tap - 4) * dilation
            if 0 <= at < N:
                said[:, :, i] += x[:, :, at] @ kernels.reshape(84, 9, 4)[:, tap].T
        for level in levels.T:
            found.append((said[:, ::2] > level[::2, None]).mean(axis=2))
            found.append((said[:, 1::2, half : N - half] > level[1::2, None]).mean(axis=2))
    error = np.abs(rocket.transform(windows) - np.concatenate(found, axis=1))
    assert error.max() < 0.04  # one sample that rounding puts on the level's other side
    assert error.mean() < 1e-4
    assert sorted(np.unique(baselines.KERNELS)) == [-1.0, 2.0]
    assert (baselines.KERNELS.sum(axis=1) == 0).all()
    assert len(np.unique(baselines.KERNELS, axis=0)) == 84


@pytest.mark.alone
@pytest.mark.parametrize("name", METHODS)
def test_no_method_is_too_slow_to_be_compared(name: str, learnt: dict[str, Baseline]) -> None:
    windows = made_up(500, fall=False, seed=61)
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        learnt[name].score(windows)
        best = min(best, time.perf_counter() - began)
    assert best / len(windows) < 2e-3  # about 0.3 ms at most on a free machine


def test_a_pool_at_another_rate_is_refused() -> None:
    pool = pool_of(made_up(4, fall=True, seed=1), made_up(4, fall=False, seed=2))
    with pytest.raises(ValueError, match=r"32\.0 Hz, not 50"):
        baselines.learn("impact threshold", pool, Shape(rate_hz=50.0), CARD, np.random.default_rng(1))
