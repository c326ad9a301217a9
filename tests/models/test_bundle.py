"""A model bundle runs, or is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import bundle as bundle_module
from models.card import BundleRefused, newest, read_card, shipped
from models.scorer import Scorer
from tests.conftest import DECISION, WINDOW, MakeBundle, peak_probability


def test_a_sound_bundle_scores_windows(bundle: Path) -> None:
    scorer = Scorer(bundle)
    windows = np.random.default_rng(1).normal(0, 1.5, (5, WINDOW, 3)).astype(np.float32)
    probabilities = scorer.score(windows)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities, peak_probability(windows), atol=1e-6)
    assert scorer.card.window_s == 5.0
    assert scorer.card.facts["name"] == scorer.card.name == "peak-1"


def test_no_windows_give_no_scores(bundle: Path) -> None:
    assert Scorer(bundle).score(np.empty((0, WINDOW, 3), np.float32)).shape == (0,)


def test_samples_are_clipped_to_the_range_the_model_knows(make_bundle: MakeBundle) -> None:
    windows = np.zeros((1, WINDOW, 3), np.float32)
    windows[0, 80, 0] = -50
    wide, narrow = Scorer(make_bundle(clip_g=16)), Scorer(make_bundle("peak-2", clip_g=2.5))
    assert wide.score(windows) == pytest.approx(1.0, abs=1e-5)
    assert narrow.score(windows) == pytest.approx(1 / (1 + np.exp(0.5)), abs=1e-5)


@pytest.mark.parametrize("placement", ["wrist", "waist"])
def test_the_shipped_bundles_run(placement: str) -> None:
    scorer = Scorer(newest(placement))
    assert scorer.card.placement == placement
    assert scorer.score(np.zeros((1, scorer.card.window_samples, 3), np.float32)) < 0.5


def test_the_newest_of_the_shipped_bundles_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle_module, "BUNDLES", tmp_path)
    for name in ("wrist-2", "wrist-10", "waist-11", "wrist-9", "wrist-new", "wrist-10.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").touch()
    assert [folder.name for folder in shipped("wrist")] == ["wrist-10", "wrist-9", "wrist-2"]
    assert newest("wrist").name == "wrist-10"


def test_a_placement_without_a_bundle_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle_module, "BUNDLES", tmp_path)
    with pytest.raises(BundleRefused, match="no model for waist is installed"):
        newest("waist")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleRefused) as refused:
        Scorer(folder)
    assert refused.value.folder == folder
    assert str(folder) in str(refused.value)
    return refused.value.reason


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "golden.npz"])
def test_a_missing_file_is_named(make_bundle: MakeBundle, name: str) -> None:
    folder = make_bundle()
    (folder / name).unlink()
    assert name in refusal(folder)


def test_another_onnx_file_is_refused_by_its_hash(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    network = bytearray((folder / "model.onnx").read_bytes())
    network[-1] ^= 1
    (folder / "model.onnx").write_bytes(network)
    assert "SHA-256" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "card schema 2 is not 1: update fallwatch"),
        ({"preprocessing": 2}, "preprocessing 2, this is 1"),
        ({"placement": "ankle"}, "placement"),
        ({"rate_hz": 0}, "rate_hz"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"window_samples": 10**12}, "window_samples"),
        ({"window_samples": float("inf")}, "OverflowError"),
        ({"hop_samples": 0}, "hop_samples"),
        ({"hop_samples": WINDOW + 1}, "hop_samples"),
        ({"clip_g": -1}, "clip_g"),
        ({"clip_g": "much"}, "much"),
        ({"decision": None}, "TypeError"),
        ({"decision": {}}, "threshold"),
        ({"decision": DECISION | {"luck": 1}}, "luck"),
        ({"decision": DECISION | {"threshold": "high"}}, "TypeError"),
        ({"decision": DECISION | {"threshold": 1.0}}, "threshold"),
        ({"decision": DECISION | {"suspect_threshold": 0.6}}, "suspect_threshold"),
        ({"decision": DECISION | {"confirm_windows": 0}}, "confirm_windows"),
        ({"decision": DECISION | {"weigh_s": float("nan")}}, "weigh_s"),
        ({"decision": DECISION | {"refractory_s": -1}}, "refractory_s"),
        ({"decision": DECISION | {"long_lie_still_s": 0}}, "long_lie_still_s"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    make_bundle: MakeBundle, changes: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(make_bundle(**changes))


@pytest.mark.parametrize("key", ["schema", "placement", "rate_hz", "decision", "onnx_sha256"])
def test_a_key_that_the_card_lacks_is_named(make_bundle: MakeBundle, key: str) -> None:
    folder = make_bundle()
    facts = json.loads((folder / "card.json").read_text())
    del facts[key]
    (folder / "card.json").write_text(json.dumps(facts))
    assert key in refusal(folder)


@pytest.mark.parametrize(
    "text", [b"", b"no JSON", b"\xff\xfe", b"[" * 100_000, b"[1]", b"null"], ids=lambda text: repr(text[:8])
)
def test_a_card_that_is_no_card_is_refused(make_bundle: MakeBundle, text: bytes) -> None:
    folder = make_bundle()
    (folder / "card.json").write_bytes(text)
    assert "card.json" in refusal(folder)


@pytest.mark.parametrize("network", [b"", b"junk" * 100, b"\x08\x0a\x3a\x02\x0a\x00"])
def test_junk_in_place_of_a_network_is_refused(make_bundle: MakeBundle, network: bytes) -> None:
    folder = make_bundle()
    (folder / "model.onnx").write_bytes(network)
    hide_hash(folder)
    assert "onnxruntime cannot load it" in refusal(folder)


@pytest.mark.parametrize("beside", ["the bundle", "where the daemon runs"])
def test_a_network_with_weights_in_another_file_is_refused(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    folder = make_bundle(external=True)
    monkeypatch.chdir(folder if beside == "where the daemon runs" else tmp_path)
    assert "External data" in refusal(folder)


def hide_hash(folder: Path) -> None:
    """Make the card match whatever model.onnx holds now."""
    facts = json.loads((folder / "card.json").read_text())
    facts["onnx_sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(facts))


def golden(folder: Path) -> dict[str, Any]:
    with np.load(folder / "golden.npz") as stored:
        return dict(stored)


def other_score(arrays: dict[str, Any]) -> None:
    arrays["probabilities"][3] += 0.01


def no_number(arrays: dict[str, Any]) -> None:
    arrays["probabilities"][3] = np.nan


def no_windows(arrays: dict[str, Any]) -> None:
    arrays.update(windows=arrays["windows"][:0], probabilities=arrays["probabilities"][:0])


def fewer_scores(arrays: dict[str, Any]) -> None:
    arrays["probabilities"] = arrays["probabilities"][:-1]


def lacking(arrays: dict[str, Any]) -> None:
    del arrays["probabilities"]


def shorter(arrays: dict[str, Any]) -> None:
    arrays["windows"] = arrays["windows"][:, 1:]


@pytest.mark.parametrize("spoil", [other_score, no_number, no_windows, fewer_scores, lacking, shorter])
def test_golden_vectors_that_do_not_come_out_refuse_the_bundle(
    make_bundle: MakeBundle, spoil: Callable[[dict[str, Any]], None]
) -> None:
    folder = make_bundle()
    arrays = golden(folder)
    spoil(arrays)
    np.savez(folder / "golden.npz", **arrays)
    assert "golden" in refusal(folder)


def test_a_window_length_that_is_not_the_networks_is_refused(make_bundle: MakeBundle) -> None:
    assert "golden.npz holds windows of shape (8, 160, 3), not (8, 128, 3)" in refusal(
        make_bundle(window_samples=128)
    )


@pytest.mark.parametrize("cut", [0, 10, 300, -30])
def test_a_cut_off_golden_file_is_refused(make_bundle: MakeBundle, cut: int) -> None:
    folder = make_bundle()
    (folder / "golden.npz").write_bytes((folder / "golden.npz").read_bytes()[:cut])
    assert "golden.npz cannot be read" in refusal(folder)


def test_golden_vectors_never_run_code(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    objects = np.array([{"an": "object"}], dtype=object)
    np.savez(folder / "golden.npz", windows=objects, probabilities=objects)
    assert "golden.npz cannot be read" in refusal(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "nowhere")


def test_reading_a_card_needs_no_network_to_run(make_bundle: MakeBundle) -> None:
    assert read_card(make_bundle(rate_hz=25)).rate_hz == 25.0


def test_the_library_that_runs_bundles_keeps_no_identifier_and_opens_no_connection(tmp_path: Path) -> None:
    # It would tell its maker what it runs where, by way of an identifier and a store in the user's cache.
    code = (
        "from models.card import newest\n"
        "from models.scorer import Scorer\n"
        "Scorer(newest('wrist'))\n"
        "import os\n"
        "print(sum(os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')\n"
        "          for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')))\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    ran = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "0"
    assert list(tmp_path.rglob("*")) == []
