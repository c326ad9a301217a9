"""From a network to a bundle: the file, its int8 form, its card for people."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("onnxscript", reason="the training extra is not installed")

import onnx
import torch
from torch import Tensor, nn

from models.card import BundleRefused, read_card
from models.preprocess import Accel
from models.scorer import Scorer
from tests.conftest import WINDOW, MakeBundle
from training import bundle
from training.card_text import readable
from training.network import Probability
from training.quantise import calibration_windows, compare, kernel_gap, quantised
from training.readers import Trial
from training.windows import Shape

SHAPE = Shape()


class Little(nn.Module):
    """A network of the parts that the real one has, small enough to export in a second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 16, (1, 5), stride=(1, 4)), nn.ReLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(16 * 39, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, accel_g: Tensor) -> Tensor:
        magnitude = torch.sqrt((accel_g * accel_g).sum(2) + 1e-6)
        logits: Tensor = self.layers(torch.stack([torch.log1p(magnitude), magnitude], 1).unsqueeze(2))
        return 2 * logits.squeeze(1)


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of it, without history."""
    folder = tmp_path_factory.mktemp("models") / "wrist-1"
    with bundle.temporary(Little(), "wrist", SHAPE, 0.5) as scorer:
        folder.mkdir()
        windows = bundle.golden_windows(SHAPE)
        bundle.export(Little(), folder / "model.onnx", SHAPE)
        np.savez_compressed(folder / "golden.npz", windows=windows, probabilities=scorer.score(windows))
        bundle.write_card(folder, scorer.card.facts | {"name": "wrist-1", "parity_to_torch": 1e-7, "results": {}})
    return folder


def trial(*, impact_g: float | None, seed: int) -> Trial:
    """Twelve seconds of standing, with an impact or without."""
    rng = np.random.default_rng(seed)
    t = np.arange(600) / 50.0
    a = np.tile([0.0, 1.0, 0.0], (600, 1)) + rng.normal(0, 0.05, (600, 3))
    if impact_g is not None:
        a[300:310] = [0.0, impact_g, 0.0]
    return Trial(
        dataset="made-up",
        person=f"made-up/{seed}",
        activity="stand" if impact_g is None else "fall",
        is_fall=impact_g is not None,
        placement="wrist",
        rate_hz=50.0,
        range_g=16.0,
        age_group="young",
        time_s=t,
        accel_g=a.astype(np.float32),
        source="made up",
    )


FALLS = [trial(impact_g=6.0 + seed % 3, seed=seed) for seed in range(8)]
DAILY = [trial(impact_g=None, seed=seed) for seed in range(8, 16)]


def peaks_g(windows: Accel) -> NDArray[np.float32]:
    return np.asarray(np.linalg.norm(windows, axis=2).max(axis=1), np.float32)


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_the_file_says_what_the_network_says_in_batches_of_any_size(little: Path, batch: int) -> None:
    windows = np.random.default_rng(batch).normal(0, 1.5, (batch, WINDOW, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = Probability(Little()).eval()(torch.from_numpy(windows)).numpy()
    assert Scorer(little).score(windows) == pytest.approx(wanted, abs=1e-5)


def test_the_file_is_of_one_opset_and_holds_its_own_weights(little: Path) -> None:
    model = onnx.load(little / "model.onnx", load_external_data=False)
    assert {o.version for o in model.opset_import if o.domain == ""} == {bundle.OPSET}
    assert all(i.data_location == onnx.TensorProto.DEFAULT for i in model.graph.initializer)


def test_the_slower_of_two_bundles_takes_longer_per_window(little: Path) -> None:
    class Slow(Scorer):
        def score(self, windows: Accel) -> NDArray[np.float32]:
            time.sleep(0.002)
            return super().score(windows)

    us, slow_us = bundle.us_per_window([Scorer(little), Slow(little)], 4, rounds=20)
    assert 0 < us < 400
    assert slow_us > us + 400  # 2 ms over 4 windows, less what sleep may give away


# -- int8 -------------------------------------------------------------------------------------


def test_the_int8_form_is_a_bundle_with_the_same_decision_and_no_figures_of_another(
    little: Path, tmp_path: Path
) -> None:
    windows = calibration_windows([*FALLS, *DAILY], read_card(little), count=16)
    scorer = quantised(little, tmp_path / "wrist-2", windows)
    assert scorer.card.decision == read_card(little).decision
    assert scorer.card.name == "wrist-2"
    assert (
        scorer.card.facts["quantised"]["from_sha256"] == read_card(little).onnx_sha256 != scorer.card.onnx_sha256
    )
    assert not {"results", "parity_to_torch"} & scorer.card.facts.keys()
    assert "no figures of its own" in (tmp_path / "wrist-2" / "card.md").read_text(encoding="utf-8")
    windows = np.concatenate([windows, bundle.golden_windows(SHAPE)])
    assert scorer.score(windows) == pytest.approx(Scorer(little).score(windows), abs=0.1)
    assert kernel_gap(tmp_path / "wrist-2", windows) < 0.02


def test_convolutions_and_inner_layers_are_int8_and_the_rest_is_not(little: Path, tmp_path: Path) -> None:
    quantised(little, tmp_path / "q", calibration_windows([*FALLS, *DAILY], read_card(little), count=16))
    graph = onnx.load(tmp_path / "q" / "model.onnx").graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    inputs = {node.name: {made_by.get(name) for name in node.input} for node in graph.node}
    conv, inner, last = [n.name for n in graph.node if n.op_type in {"Conv", "Gemm"}]
    assert inputs[conv] == inputs[inner] == {"DequantizeLinear"}
    assert last
    assert "DequantizeLinear" not in {
        kind for n in graph.node if n.op_type in {"Log", "Sqrt", "ReduceSum", "Sigmoid"} for kind in inputs[n.name]
    }
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    weights = [a for name, a in stored.items() if name.endswith("_quantized") and a.dtype == np.int8]
    assert len(weights) == 2
    assert all(np.abs(w).max() <= 64 for w in weights)  # 7 bits: no CPU saturates
    assert any(a.shape == (1, 8) and a.dtype == np.float32 for a in stored.values())  # the last layer's


def test_half_of_the_calibration_windows_hold_an_impact(little: Path) -> None:
    peaks = peaks_g(calibration_windows([*FALLS, *DAILY], read_card(little), count=16))
    assert len(peaks) == 16
    assert (peaks > 5).sum() == 8
    assert (peaks < 2).sum() == 8


def test_calibrated_on_quiet_windows_alone_it_is_wrong_at_impacts(little: Path, tmp_path: Path) -> None:
    card = read_card(little)
    mixed = calibration_windows([*FALLS, *DAILY], card, count=16)
    impacts = calibration_windows(FALLS, card, count=16)
    quiet = calibration_windows(DAILY, card, count=16)
    wanted = Scorer(little).score(impacts)
    off = [
        float(np.abs(quantised(little, tmp_path / name, windows).score(impacts) - wanted).max())
        for name, windows in (("quiet", quiet), ("mixed", mixed))
    ]
    assert off[0] > 3 * off[1]


def test_a_comparison_counts_each_trial_that_turns(make_bundle: MakeBundle) -> None:
    # The shared little network scores by the peak: 6, 7 and 8 g give 0.953, 0.982 and 0.993.
    loose = make_bundle("loose-1")
    decision = read_card(loose).facts["decision"] | {"threshold": 0.99, "suspect_threshold": 0.99}
    strict = make_bundle("strict-1", decision=decision)
    daily = [replace(t, is_fall=False) for t in FALLS[:3]]  # one of each peak, said to be daily life
    found = compare(loose, strict, [*FALLS, *daily, *DAILY])
    assert [t.detected for t in found.by_set["made-up"]] == [8, 2]
    assert [t.alarming for t in found.by_set["made-up"]] == [3, 1]
    assert (found.lost, found.gained, found.quieter, found.louder) == (6, 0, 2, 0)
    assert found.score_gap == (0.0, 0.0)  # one network, two decisions
    assert found.us_per_window.keys() == {1, 8, 32}


def test_a_bundle_that_is_refused_is_not_quantised(little: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1"
    broken.mkdir()
    for file in little.iterdir():
        (broken / file.name).write_bytes(file.read_bytes() + b" " * (file.name == "model.onnx"))
    with pytest.raises(BundleRefused, match="SHA-256"):
        quantised(broken, tmp_path / "q", bundle.golden_windows(SHAPE))
    assert not (tmp_path / "q").exists()


# -- the card for people ----------------------------------------------------------------------


def test_the_shipped_cards_figures_are_on_the_page_with_their_counts() -> None:
    card = read_card(Path(bundle.__file__).parent.parent / "models" / "wrist-1")
    page = readable(card)
    assert "not the only safeguard" in page
    for kinds in card.facts["results"]["by_set"].values():
        trials = kinds["trials"]
        assert f"{trials['daily_trials_alarming']} of {trials['daily_trials']} (" in page
        assert not trials["falls"] or f"{trials['detected']} of {trials['falls']} (" in page
    streams = [kinds["streams"] for kinds in card.facts["results"]["by_set"].values()]
    assert f" {sum(s['false_alarms'] for s in streams)} alarms had no fall behind them" in page
    assert len(page.split()) < 700  # one page
    assert "None" not in page


def test_a_set_left_out_and_several_trainings_are_told() -> None:
    card = read_card(Path(bundle.__file__).parent.parent / "models" / "wrist-1")
    results = json.loads(json.dumps(card.facts["results"]))
    results |= {"seeds": 5, "left_out": {"umafall": results["by_set"]["umafall"]}}
    page = readable(replace(card, facts=card.facts | {"results": results}))
    assert "UMAFall: falls found 178 of 208 (85.6 %)" in page
    assert "by 5 models trained anew" in page
    # Five judgements of a recording are not five recordings: the range is wider than over 208.
    assert "80 to 90 %" in readable(card)
    assert "80 to 90 %" not in page
