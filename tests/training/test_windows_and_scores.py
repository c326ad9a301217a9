"""Windows, event scores and bundles, without any data set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("onnxscript", reason="the training extra is not installed")

import torch

from edge.core.detector import FallDetected
from edge.core.replay import replay
from models.preprocess import Accel
from models.scorer import Scorer
from training import bundle, evaluate
from training.evaluate import Scored, Tally, poisson_at_most, wilson
from training.network import FallNet
from training.readers import Trial
from training.train import TrainConfig, fit, split_by_person
from training.windows import NOT_YET_S, Shape, build_pool, gather

SHAPE = Shape()


def trial(
    *,
    seconds: float = 12.0,
    rate_hz: float = 50.0,
    impact_s: float | None = None,
    person: str = "set/1",
    seed: int = 0,
) -> Trial:
    """A person standing, then (with an impact) lying on another side."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    a = np.tile([0.0, 1.0, 0.0], (len(t), 1)) + rng.normal(0, 0.02, (len(t), 3))
    if impact_s is not None:
        a[t > impact_s] += [1.0, -1.0, 0.0]
        a[(t > impact_s - 0.4) & (t < impact_s)] *= 0.2
        a[(t >= impact_s) & (t < impact_s + 0.15)] = [4.0, 3.0, 2.0]
    return Trial(
        dataset=person.partition("/")[0],
        person=person,
        activity="fall" if impact_s is not None else "stand",
        is_fall=impact_s is not None,
        placement="wrist",
        rate_hz=rate_hz,
        range_g=16.0,
        age_group="young",
        time_s=t,
        accel_g=a.astype(np.float32),
        source="made up",
    )


def test_windows_called_falls_hold_the_impact_and_what_follows_it() -> None:
    trials = [trial(impact_s=6.0, seed=i) for i in range(6)] + [trial(seed=9)]
    pool = build_pool(trials, SHAPE, variants=3, set_weights={}, rng=np.random.default_rng(1))
    windows = gather(pool, np.flatnonzero(pool.falls), SHAPE.window_samples)
    peak_at = np.linalg.norm(windows, axis=2).argmax(axis=1)
    soon = NOT_YET_S * SHAPE.rate_hz
    assert len(windows) > 100
    assert peak_at.max() <= SHAPE.window_samples - soon + 8  # the impact itself lasts some samples
    assert peak_at.min() >= soon - 8
    others = gather(pool, np.flatnonzero(~pool.falls), SHAPE.window_samples)
    assert np.linalg.norm(others, axis=2).max() < 1.6


def test_weights_sum_to_one_in_each_class() -> None:
    trials = [trial(person=f"a/{i}", seed=i, impact_s=5.0) for i in range(3)]
    trials += [trial(person=f"{s}/{i}", seed=i) for i in range(3) for s in "ab"]
    pool = build_pool(trials, SHAPE, variants=1, set_weights={"b": 0.5}, rng=np.random.default_rng(1))
    assert pool.weights[pool.falls].sum() == pytest.approx(1.0)
    assert pool.weights[~pool.falls].sum() == pytest.approx(1.0)
    assert (pool.weights > 0).all()


def test_a_hand_cut_fall_without_an_impact_is_not_learnt_from() -> None:
    soft = trial(person="smartfallmm-watch/1", seed=1)
    labelled = replace(soft, is_fall=True)
    loud = trial(person="smartfallmm-watch/2", seed=2, impact_s=6.0)
    pool = build_pool([labelled, soft, loud], SHAPE, variants=1, set_weights={}, rng=np.random.default_rng(1))
    assert pool.falls.any()
    assert len(pool.samples) < 2 * 12 * SHAPE.rate_hz * 1.2 + 4 * SHAPE.window_samples  # two trials, not three


def test_no_person_is_in_two_folds_and_every_fold_has_fallers() -> None:
    trials = [trial(person=f"{s}/{i}", impact_s=5.0 if i < 5 else None) for s in "ab" for i in range(10)]
    fold = split_by_person([*trials, *trials], TrainConfig(placement="wrist", seed=3))
    assert set(fold) == {t.person for t in trials}
    assert {fold[t.person] for t in trials if t.is_fall} == set(range(5))


def test_turning_the_sensor_leaves_the_score_unchanged() -> None:
    torch.manual_seed(0)
    net = FallNet(SHAPE.window_samples, SHAPE.rate_hz).eval()
    windows = torch.from_numpy(bundle.golden_windows(SHAPE))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    with torch.no_grad():
        assert torch.allclose(net(windows), net(windows @ torch.from_numpy(turn.astype(np.float32))), atol=1e-4)


@pytest.fixture(scope="module")
def net() -> FallNet:
    """A network that has learnt to tell the made-up falls."""
    trials = [trial(person=f"set/{i}", seed=i, impact_s=4.0 + i / 4 if i % 2 else None) for i in range(24)]
    pool = build_pool(trials, SHAPE, variants=2, set_weights={}, rng=np.random.default_rng(2))
    return fit(pool, SHAPE, TrainConfig(steps=60, batch=64, averaging=0.8), seed=1)


@pytest.fixture(scope="module")
def scorer(net: FallNet) -> Iterator[Scorer]:
    """The network as the daemon runs it."""
    with bundle.temporary(net, "wrist", SHAPE, 0.6) as scorer:
        yield scorer


def test_a_learnt_fall_is_found_through_the_daemon_and_a_quiet_day_is_not(scorer: Scorer) -> None:
    people = [trial(person="set/90", impact_s=6.0, seed=90), trial(person="set/90", seed=91, seconds=30.0)]
    scored = list(evaluate.score_people(people, scorer, seed=1))
    found = evaluate.report(scored, scorer.card)["set"]
    assert (found["trials"].falls, found["trials"].detected) == (1, 1)
    assert (found["trials"].trials, found["trials"].alarming) == (1, 0)
    assert (found["streams"].detected, found["streams"].false_alarms) == (1, 0)
    assert 0 < found["streams"].delays_s[0] < 4


def test_the_tape_says_what_the_network_said(scorer: Scorer) -> None:
    (once, *_) = evaluate.score_people([trial(impact_s=6.0, seed=4)], scorer, seed=1)
    fresh = [f for f in replay(once.stream.runs, scorer) if isinstance(f, FallDetected)]
    assert evaluate.alarms(once, scorer.card) == fresh
    assert fresh


def test_a_written_bundle_passes_the_daemons_checks(net: FallNet, tmp_path: Path) -> None:
    trials = [trial(person=f"hmp/{i}") for i in range(2)]
    evidence = bundle.Evidence((0.5, 0.6), {"set": {"streams": Tally()}}, {"hmp/0": Tally(daily_s=60.0)})
    scorer = bundle.write(
        net,
        tmp_path / "wrist-7",
        placement="wrist",
        shape=SHAPE,
        threshold=0.55,
        trials=trials,
        evidence=evidence,
        run={"seed": 1},
    )
    assert (scorer.card.name, scorer.card.placement, scorer.card.decision.threshold) == ("wrist-7", "wrist", 0.55)
    assert scorer.card.facts["parity_to_torch"] <= 1e-4
    assert sorted(p.name for p in (tmp_path / "wrist-7").iterdir()) == ["card.json", "golden.npz", "model.onnx"]
    text = (tmp_path / "wrist-7" / "card.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


def scored(raised_when: list[float], impacts_s: tuple[float, ...], seconds: float) -> Scored:
    """A stream whose scores are high for a second at the times given."""
    t = np.arange(round(seconds * 50)) / 50
    accel: Accel = np.tile(np.array([0, 1, 0], np.float32), (len(t), 1))
    stream = evaluate.Stream("set", "set/1", "young", [(t, accel)], impacts_s, ((0.0, "walk"),), seconds)
    ends_s = np.arange(1, round(seconds * 2) + 1) / 2
    said = [0.95 if any(at <= end < at + 1.0 for at in raised_when) else 0.01 for end in ends_s]
    return Scored(stream, single=False, scores=said)


def test_an_alarm_before_the_fall_is_false_and_does_not_excuse_the_miss() -> None:
    card = bundle.draft_card("wrist", SHAPE, 0.5)
    late = evaluate.tally(scored([22.0], (20.0,), 60.0), card)
    assert (late.falls, late.detected, late.false_alarms) == (1, 1, 0)
    assert late.delays_s[0] == pytest.approx(2.5)  # two windows confirm
    early = evaluate.tally(scored([5.0], (20.0,), 60.0), card)
    assert (early.detected, early.false_alarms, early.false_by_activity) == (0, 1, {"walk": 1})
    too_late = evaluate.tally(scored([55.0], (20.0,), 60.0), card)
    assert (too_late.detected, too_late.false_alarms) == (0, 1)


def test_one_alarm_serves_one_fall() -> None:
    count = evaluate.tally(scored([22.0], (20.0, 21.0), 60.0), bundle.draft_card("wrist", SHAPE, 0.5))
    assert (count.falls, count.detected) == (2, 1)


def test_the_threshold_is_the_lowest_that_keeps_the_promise() -> None:
    quiet = [Scored(scored([], (), 10.0).stream, True, [p] * 20) for p in np.linspace(0.01, 0.9, 100)]
    card = bundle.draft_card("wrist", SHAPE)
    chosen = evaluate.choose_threshold(quiet, card, {"set": 1.0}, target=0.1)
    lower = evaluate.with_threshold(card, 1 / (1 + math.exp(0.25 - math.log(chosen / (1 - chosen)))))
    share = [
        np.mean([bool(evaluate.alarms(q, c)) for q in quiet])
        for c in (evaluate.with_threshold(card, chosen), lower)
    ]
    assert share[0] <= 0.1 < share[1]


def test_intervals_agree_with_published_values() -> None:
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=2e-3)
    assert wilson(0, 0) == (0.0, 1.0)
    assert poisson_at_most(0) == pytest.approx(3.0, abs=0.01)
    assert poisson_at_most(3) == pytest.approx(7.75, abs=0.01)
