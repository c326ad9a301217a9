"""Windows, event scores and bundles, without any data set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("onnxscript", reason="the training extra is not installed")

import torch

from edge.core.detector import FallDetected
from edge.core.replay import replay
from models.preprocess import Accel
from models.scorer import Scorer
from tests.training.made_up import trial
from training import bundle, evaluate
from training.arm import gestures
from training.control import TOGETHER, Auc
from training.evaluate import NETWORK, UNSEEN, Fall, Run, Scored, wilson
from training.fit import FitConfig, fit
from training.network import FallNet
from training.protocol import split_by_person
from training.readers import Trial
from training.windows import NOT_YET_S, Shape, build_pool, gather

SHAPE = Shape()
torch.set_num_threads(1)  # on a busy machine threads that wait for each other take many times longer


def test_windows_called_falls_hold_the_impact_and_what_follows_it() -> None:
    trials = [trial(impact_s=6.0, seed=i) for i in range(6)] + [trial(seed=9)]
    pool = build_pool(trials, SHAPE, variants=3, set_weights={}, rng=np.random.default_rng(1))
    windows = gather(pool, np.flatnonzero(pool.falls), SHAPE.window_samples)
    size_g = np.linalg.norm(windows, axis=2)
    assert len(windows) > 100
    # Now and then the packet with the impact is lost: the turning and the lying are left.
    seen = size_g.max(axis=1) > 1.6
    assert seen.mean() > 0.8
    peak_at = size_g[seen].argmax(axis=1)
    soon = NOT_YET_S * SHAPE.rate_hz
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
    elsewhere = trial(person="c/1", placement="ankle")
    fold = split_by_person([*trials, elsewhere, *trials], "wrist", 5, 3)
    assert set(fold) == {t.person for t in trials}
    assert {fold[t.person] for t in trials if t.is_fall} == set(range(5))


TURNS: list[Accel] = [
    np.diag(signs).astype(np.float32)[list(order)]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def turned_any_way(seed: int) -> Accel:
    """A rotation, half of the time with a reflection: left becomes right."""
    turn: Accel = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0].astype(np.float32)
    return turn if seed % 2 else -turn


@given(turn=st.sampled_from(TURNS) | st.integers(0, 10_000).map(turned_any_way))
@settings(deadline=None)
def test_another_way_round_another_order_or_sign_of_the_axes_is_the_same_to_the_network(turn: Accel) -> None:
    net, windows = FallNet(SHAPE.window_samples, SHAPE.rate_hz), torch.from_numpy(bundle.golden_windows(SHAPE))
    wanted = net.features(windows)
    assert torch.allclose(net.features(windows @ torch.from_numpy(turn)), wanted, atol=1e-4)


def test_another_movement_is_not_the_same_to_the_network() -> None:
    seen = FallNet(SHAPE.window_samples, SHAPE.rate_hz).features(torch.from_numpy(bundle.golden_windows(SHAPE)))
    apart = (seen[:, None] - seen[None]).abs().amax(dim=(2, 3)) > 0.1
    same = {(i, k) for i, k in np.argwhere(~apart.numpy()).tolist() if i < k}
    assert same == {(2, 3)}  # of the golden windows the fourth is the third with its axes in another order


# -- Movements made up for the wrist --------------------------------------------------------------


def test_gestures_are_what_an_arm_could_do_and_never_a_fall() -> None:
    made = gestures(60, np.random.default_rng(3))
    size = [np.linalg.norm(t.accel_g, axis=1) for t in made]
    assert not any(t.is_fall or t.impact_s is not None for t in made)
    assert {t.placement for t in made} == {"wrist"}
    medians_g, peaks_g = [float(np.median(m)) for m in size], [float(m.max()) for m in size]
    assert 0.9 < np.median(medians_g) < 1.1
    assert min(medians_g) > 0.7
    assert max(medians_g) < 1.7
    assert min(peaks_g) > 1.0
    assert max(peaks_g) < 12.0
    assert np.quantile(peaks_g, 0.95) < 7.0
    assert np.quantile(peaks_g, 0.5) > 1.5  # lively: that is what they are for
    assert all(6.0 <= t.duration_s <= 15.0 for t in made)


def test_the_same_gestures_come_from_the_same_seed_and_others_from_another() -> None:
    one, same, other = (gestures(3, np.random.default_rng(seed))[2].accel_g for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert one.shape != other.shape or not np.array_equal(one, other)


# -- From windows to alarms -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def net() -> FallNet:
    """A network that has learnt to tell the made-up falls."""
    trials = [trial(person=f"set/{i}", seed=i, impact_s=4.0 + i / 4 if i % 2 else None) for i in range(24)]
    pool = build_pool(trials, SHAPE, variants=1, set_weights={}, rng=np.random.default_rng(2))
    return fit(pool, SHAPE, FitConfig(steps=60, batch=64, averaging=0.8), seed=1)


@pytest.fixture(scope="module")
def scorer(net: FallNet) -> Iterator[Scorer]:
    """The network as the daemon runs it."""
    with bundle.temporary(net, "wrist", SHAPE, 0.6) as scorer:
        yield scorer


def test_a_learnt_fall_is_found_through_the_daemon_and_a_quiet_day_is_not(scorer: Scorer) -> None:
    people = [trial(person="set/90", impact_s=6.0, seed=90), trial(person="set/90", seed=91, seconds=30.0)]
    scored = list(evaluate.score_people(people, scorer))
    found = evaluate.report(scored, scorer.card)["set"]
    assert (found["trials"].falls, found["trials"].detected) == (1, 1)
    assert (found["trials"].trials, found["trials"].alarming) == (1, 0)
    assert (found["streams"].detected, found["streams"].false_alarms) == (1, 0)
    assert 0 < found["streams"].delays_s[0] < 4


def test_the_tape_says_what_the_network_said(scorer: Scorer) -> None:
    (once, *_) = evaluate.score_people([trial(impact_s=6.0, seed=4)], scorer)
    fresh = [f for f in replay(once.stream.runs, scorer) if isinstance(f, FallDetected)]
    assert evaluate.alarms(once, scorer.card) == fresh
    assert fresh


def test_a_written_bundle_passes_the_daemons_checks_and_has_its_evidence(
    net: FallNet, scorer: Scorer, tmp_path: Path
) -> None:
    trials = [trial(person="hmp/0"), trial(person="hmp/1", impact_s=6.0)]
    said = list(evaluate.score_people(trials, scorer))
    runs = [
        Run(method, split, seed, said, {"hmp/0": 0.5, "hmp/1": 0.6})
        for method, split in ((NETWORK, UNSEEN), (NETWORK, "without hmp"), ("impact threshold", UNSEEN))
        for seed in (1, 2)
    ]
    written = bundle.write(
        net,
        tmp_path / "wrist-7",
        placement="wrist",
        shape=SHAPE,
        threshold=0.55,
        trials=trials,
        evidence=bundle.Evidence(evaluate.judge(runs, scorer.card), {TOGETHER: Auc(0.51, 0.45, 0.57)}),
        run={"seed": 1},
    )
    card, facts = written.card, written.card.facts
    assert (card.name, card.placement, card.decision.threshold) == ("wrist-7", "wrist", 0.55)
    assert facts["parity_to_torch"] <= 1e-4
    assert (facts["results"]["seeds"], facts["results"]["thresholds"]) == (2, [0.5, 0.6])
    trials_found = facts["results"]["by_set"]["hmp"]["trials"]
    assert (trials_found["falls"], trials_found["detected"], trials_found["daily_trials"]) == (2, 2, 2)
    assert facts["results"]["left_out"].keys() == {"hmp"}
    assert facts["results"]["baselines"].keys() == {"impact threshold"}
    assert facts["results"]["control_auc"] == 0.51
    assert facts["results"]["control"][TOGETHER] == {"auc": 0.51, "low_95": 0.45, "high_95": 0.57}
    files = sorted(p.name for p in (tmp_path / "wrist-7").iterdir())
    assert files == ["card.json", "card.md", "golden.npz", "model.onnx"]
    for name in ("card.json", "card.md"):
        text = (tmp_path / "wrist-7" / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text


DRAFT = bundle.draft_card("wrist", SHAPE, 0.5)
TWO_WINDOWS = replace(DRAFT, decision=replace(DRAFT.decision, confirm_windows=2))


def scored(
    raised_when: list[float], impacts_s: tuple[float, ...], seconds: float, *, onset_s: float | None = None
) -> Scored:
    """A stream whose scores are high for a second at the times given."""
    t = np.arange(round(seconds * 50)) / 50
    accel: Accel = np.tile(np.array([0, 1, 0], np.float32), (len(t), 1))
    falls = tuple(Fall(at_s - 2.0 if onset_s is None else onset_s, at_s) for at_s in impacts_s)
    stream = evaluate.Stream("set", "set/1", "young", [(t, accel)], falls, ((0.0, "walk"),), seconds)
    ends_s = np.arange(1, round(seconds * 2) + 1) / 2
    said = [0.95 if any(at <= end < at + 1.0 for at in raised_when) else 0.01 for end in ends_s]
    return Scored(stream, single=False, scores=said)


def test_an_alarm_before_the_fall_is_false_and_does_not_excuse_the_miss() -> None:
    late = evaluate.tally(scored([22.0], (20.0,), 60.0), TWO_WINDOWS)
    assert (late.falls, late.detected, late.false_alarms) == (1, 1, 0)
    assert late.delays_s[0] == pytest.approx(2.5)  # two windows confirm
    early = evaluate.tally(scored([5.0], (20.0,), 60.0), TWO_WINDOWS)
    assert (early.detected, early.false_alarms, early.false_by_activity) == (0, 1, {"walk": 1})
    too_late = evaluate.tally(scored([55.0], (20.0,), 60.0), TWO_WINDOWS)
    assert (too_late.detected, too_late.false_alarms) == (0, 1)


def test_one_alarm_serves_one_fall() -> None:
    count = evaluate.tally(scored([22.0], (20.0, 21.0), 60.0), TWO_WINDOWS)
    assert (count.falls, count.detected) == (2, 1)


def cut_by_hand(person: str = "smartfallmm-watch/1") -> Trial:
    """A fall at 4 s, and a harder knock at 9 s while getting up."""
    fall = trial(person=person, impact_s=4.0, seconds=14.0)
    accel_g = fall.accel_g.copy()
    accel_g[(fall.time_s >= 9.0) & (fall.time_s < 9.1)] = [5.0, 4.0, 2.0]
    return replace(fall, accel_g=accel_g)


def test_the_impact_of_a_trial_cut_by_hand_is_the_first_shock_near_the_largest() -> None:
    assert cut_by_hand().impact_s == pytest.approx(4.0)
    assert cut_by_hand("umafall/1").impact_s == pytest.approx(9.0)  # elsewhere the largest
    soft = cut_by_hand()
    soft.accel_g[(soft.time_s >= 4.0) & (soft.time_s < 4.2)] *= 0.5
    assert soft.impact_s == pytest.approx(9.0)


def test_an_alarm_anywhere_in_a_trial_cut_by_hand_is_about_its_fall() -> None:
    (fall,) = evaluate.single(cut_by_hand()).falls
    assert list(fall) == pytest.approx([0.0, 4.0])
    (other,) = evaluate.single(cut_by_hand("umafall/1")).falls
    assert list(other) == pytest.approx([7.0, 9.0])
    early = scored([5.0], (20.0,), 60.0, onset_s=0.0)
    assert evaluate.tally(early, TWO_WINDOWS).detected == 1
    assert evaluate.tally(scored([5.0], (20.0,), 60.0), TWO_WINDOWS).detected == 0


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
