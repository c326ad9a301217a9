"""Committees: what averaging means, in the score as in the ONNX file, and who sits on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("onnxscript", reason="the training extra is not installed")

import torch

from tests.training.made_up import trials_of
from training import bundle
from training.committee import Committee, agree
from training.evaluate import NETWORK
from training.fit import FitConfig
from training.network import FallNet
from training.protocol import Protocol, split_by_person
from training.train import TrainConfig, from_args, plan
from training.windows import Shape

SHAPE = Shape()
CHANCE = st.floats(0.001, 0.999)


def test_the_bundle_of_a_committee_says_what_its_members_agree_on() -> None:
    nets = []
    for seed in range(3):
        torch.manual_seed(seed)
        nets.append(FallNet(SHAPE.window_samples, SHAPE.rate_hz).eval())
    windows = bundle.golden_windows(SHAPE)
    members = []
    for net in nets:
        with torch.no_grad():
            members.append(torch.sigmoid(net(torch.from_numpy(windows).clamp(-16, 16))).numpy())
    with bundle.temporary(Committee(nets).eval(), "wrist", SHAPE, 0.5) as scorer:
        assert scorer.score(windows) == pytest.approx(agree(members), abs=1e-4)


@given(p=CHANCE, q=CHANCE)
@settings(deadline=None)
def test_members_agree_between_what_each_says_and_in_any_order(p: float, q: float) -> None:
    one, other = np.array([p], np.float32), np.array([q], np.float32)
    both = float(agree([one, other])[0])
    assert min(p, q) - 1e-5 <= both <= max(p, q) + 1e-5
    assert both == pytest.approx(float(agree([other, one])[0]))
    assert float(agree([one, one])[0]) == pytest.approx(p, abs=1e-5)


def test_a_member_that_is_all_but_certain_does_not_outvote_everybody() -> None:
    said = [np.array([p], np.float32) for p in (1.0, 0.001, 0.001)]
    assert 0.0 < float(agree(said)[0]) < 0.9


def test_there_are_as_many_committees_as_seeds_and_each_network_sits_on_as_many_as_have_members() -> None:
    planned = plan(TrainConfig(placement="wrist", seeds=5, members=3))
    for split in ("", "umafall", "smartfallmm"):
        committees = [each.seeds for each in planned if each.name == NETWORK and each.left_out == split]
        assert len({frozenset(c) for c in committees}) == 5
        seats = [seed for committee in committees for seed in committee]
        assert all(seats.count(seed) == 3 for seed in range(1, 6))


def test_one_seed_is_its_own_committee_and_is_not_listed_twice() -> None:
    planned = plan(TrainConfig(placement="waist", seeds=1, members=3, leave_out="none", fast=True))
    assert [each.seeds for each in planned if each.method == NETWORK] == [(1,)]


def test_simpler_methods_are_tested_with_sets_left_out_when_asked() -> None:
    usual, asked = (plan(TrainConfig(placement="wrist", baselines_left_out=also)) for also in (False, True))
    assert {each.left_out for each in usual if each.method == "impact threshold"} == {""}
    assert {each.left_out for each in asked if each.method == "impact threshold"} == {"", "umafall", "smartfallmm"}


def test_a_placement_has_its_own_defaults_and_what_is_typed_goes_before_them() -> None:
    config, fitting = from_args(["--placement", "waist"])
    assert (config.target, fitting.dropout) == (0.005, 0.15)
    config, fitting = from_args(["--placement", "waist", "--dropout", "0.25", "--target", "0"])
    assert (config.target, fitting.dropout) == (0.0, 0.25)
    assert from_args([])[0].target == TrainConfig().target


def test_more_folds_than_people_leave_out_each_person_alone(tmp_path: Path) -> None:
    trials = trials_of("set", people=4)
    work = Protocol(trials, "wrist", SHAPE, FitConfig(), folds=1000, folder=tmp_path)
    dealt = split_by_person(trials, "wrist", len(work.tasks(NETWORK, 1)), 1)
    assert len(work.tasks(NETWORK, 1)) == len(set(dealt.values())) == 4
