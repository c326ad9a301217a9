"""Write a network as a bundle the daemon accepts: ONNX file, card, golden vectors."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from models.card import CARD_SCHEMA, Card, Decision
from models.preprocess import PREPROCESSING_VERSION, SUB_POINTS, Accel
from models.scorer import Scorer
from training.datasets import SOURCES, fingerprint
from training.evaluate import Tally, suspect_for
from training.network import CLIP_G, Probability
from training.readers import Trial
from training.windows import Shape

OPSET = 18
PARITY = 1e-4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What cross-validation found, for the card."""

    thresholds: tuple[float, ...]  # one per fold, each from people outside it
    by_set: dict[str, dict[str, Tally]]
    by_person: dict[str, Tally]


def draft_decision(threshold: float) -> Decision:
    """Return how scores become alarms; only the threshold is fitted."""
    return Decision(
        threshold=round(threshold, 4),
        confirm_windows=2,
        suspect_threshold=round(suspect_for(threshold), 4),
        weigh_s=4.0,
        refractory_s=10.0,
    )


def draft_card(
    placement: str, shape: Shape, threshold: float = 0.5, *, name: str = "draft", sha256: str = ""
) -> Card:
    """Return a card without its history."""
    facts: dict[str, Any] = {
        "schema": CARD_SCHEMA,
        "name": name,
        "placement": placement,
        "rate_hz": shape.rate_hz,
        "window_samples": shape.window_samples,
        "window_s": shape.window_samples / shape.rate_hz,
        "hop_samples": shape.hop_samples,
        "axes": "x y z, any orientation: the network uses only what a turned sensor does not change",
        "unit": "g, gravity included",
        "clip_g": CLIP_G,
        "range_handling": "clipped to +-clip_g on each axis; trained on sensors of +-1.5 to +-16 g",
        "input": {"name": "accel_g", "dtype": "float32", "shape": ["batch", shape.window_samples, 3]},
        "output": {"name": "probability", "dtype": "float32", "shape": ["batch"]},
        "preprocessing": PREPROCESSING_VERSION,
        "preprocessing_method": f"causal mean over each output period, {SUB_POINTS} points on straight lines",
        "decision": asdict(draft_decision(threshold)),
        "onnx_sha256": sha256,
    }
    return Card(
        name=name,
        placement=placement,
        rate_hz=shape.rate_hz,
        window_samples=shape.window_samples,
        hop_samples=shape.hop_samples,
        clip_g=CLIP_G,
        decision=draft_decision(threshold),
        onnx_sha256=sha256,
        facts=facts,
    )


def export(net: nn.Module, path: Path, shape: Shape) -> None:
    """Write the network with clipping and sigmoid as one ONNX file with a free batch size."""
    probability = Probability(net).eval()
    example = torch.zeros(3, shape.window_samples, 3)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every package that is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.onnx.export(
            probability,
            (example,),
            path,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            input_names=["accel_g"],
            output_names=["probability"],
            verbose=False,
        )


def golden_windows(shape: Shape, seed: int = 0) -> Accel:
    """Return made-up windows that reach every corner: rest, walking, an impact, clipping, noise, free fall."""
    rng = np.random.default_rng(seed)
    n = shape.window_samples
    t = np.arange(n)[:, None] / shape.rate_hz
    rest = np.tile([0.0, 0.6, 0.8], (n, 1))
    walk = rest + 0.3 * np.sin(2 * np.pi * 1.8 * t + [0.0, 1.0, 2.0])
    impact = rest.copy()
    impact[n // 3 : n // 2] *= 0.2
    impact[n // 2 : n // 2 + 3] += [3.0, -5.0, 4.0]
    impact[n // 2 + 3 :] = [0.9, 0.4, 0.1]
    windows = [rest, walk, impact, impact[:, [2, 0, 1]], impact * 4, np.zeros((n, 3)), rng.normal(0, 3, (n, 3))]
    windows += [impact + rng.normal(0, 0.1, (n, 3)) for _ in range(9)]
    return np.stack(windows).astype(np.float32)


def _write_runtime(net: nn.Module, folder: Path, card: Card, shape: Shape) -> dict[str, Any]:
    """Write ONNX file and golden vectors; return the card's facts with the file's hash."""
    export(net, folder / "model.onnx", shape)
    windows = golden_windows(shape)
    with torch.no_grad():
        wanted = Probability(net).eval()(torch.from_numpy(windows)).numpy()
    np.savez_compressed(folder / "golden.npz", windows=windows, probabilities=wanted)
    return card.facts | {"onnx_sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()}


@contextmanager
def temporary(net: nn.Module, placement: str, shape: Shape, threshold: float) -> Iterator[Scorer]:
    """Give the network to the daemon's scorer, as a bundle that goes away."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = _write_runtime(net, folder, draft_card(placement, shape, threshold), shape)
        (folder / "card.json").write_text(json.dumps(facts))
        yield Scorer(folder)


def write(
    net: nn.Module,
    folder: Path,
    *,
    placement: str,
    shape: Shape,
    threshold: float,
    trials: Sequence[Trial],
    evidence: Evidence,
    run: dict[str, object],
) -> Scorer:
    """Write the bundle and load it again through the daemon's scorer.

    Raises:
        ValueError: the ONNX file does not say what the network says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = _write_runtime(net, folder, draft_card(placement, shape, threshold, name=folder.name), shape)
    sets = {t.dataset for t in trials}
    facts["training"] = {
        "people": len({t.person for t in trials}),
        "sets": [
            {
                "name": name,
                "cite": SOURCES[name].cite,
                "licence_as_found": SOURCES[name].licence,
                "sha256": fingerprint(own),
                "people": len({t.person for t in own}),
                "falls": sum(t.is_fall for t in own),
                "other_trials": sum(not t.is_fall for t in own),
            }
            for name in SOURCES
            if (own := [t for t in trials if t.dataset.startswith(name)])
        ],
        "run": run,
        "versions": {p: version(p) for p in ("numpy", "onnx", "onnxruntime", "onnxscript", "torch")}
        | {"python": platform.python_version()},
        "git": _git_state(),
    }
    facts["results"] = {
        "how": "Cross-validated: each person was scored by a network that never saw them, at a threshold chosen "
        "on the people of the other folds. The network in this bundle was then trained on everybody by the same "
        "rule; its threshold is the median of the folds'. All falls are acted, most by young adults; daily "
        "activity is scripted. `streams`: each person's trials end to end; `trials`: each alone, cold.",
        "fold_thresholds": [round(t, 4) for t in evidence.thresholds],
        "by_set": {
            name: {kind: count.facts() for kind, count in kinds.items()}
            for name, kinds in sorted(evidence.by_set.items())
            if name in sets
        },
        "by_age_group": _by_age(evidence.by_person, {t.person: t.age_group for t in trials}),
        "by_person": {
            person: {
                "falls": c.falls,
                "detected": c.detected,
                "false_alarms": c.false_alarms,
                "hours": round(c.daily_s / 3600, 2),
            }
            for person, c in sorted(evidence.by_person.items())
        },
    }
    (folder / "card.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    parity = check_parity(net, Scorer(folder), shape)
    facts["parity_to_torch"] = float(f"{parity:.2g}")
    (folder / "card.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Scorer(folder)


def _by_age(by_person: dict[str, Tally], ages: dict[str, str]) -> dict[str, dict[str, object]]:
    """Return the stitched streams' figures for the young and for the old."""
    found: dict[str, Tally] = {}
    for person, count in by_person.items():
        found.setdefault(ages.get(person, "unknown"), Tally()).add(count)
    return {age: count.facts() for age, count in sorted(found.items())}


def check_parity(net: nn.Module, scorer: Scorer, shape: Shape) -> float:
    """Return the largest difference between network and ONNX file over random windows.

    Raises:
        ValueError: it is above 1e-4.
    """
    rng = np.random.default_rng(7)
    windows = rng.normal(0, 1, (2000, shape.window_samples, 3)) * rng.uniform(0.01, 6, (2000, 1, 1))
    windows = windows + rng.normal(0, 0.6, (2000, 1, 3))
    with torch.no_grad():
        wanted = Probability(net).eval()(torch.from_numpy(windows.astype(np.float32))).numpy()
    worst = float(np.abs(scorer.score(windows.astype(np.float32)) - wanted).max())
    if worst > PARITY:
        raise ValueError(f"ONNX and torch differ by {worst:.2e}")
    return worst


def _git_state() -> str:
    """Return the commit, and whether the tree differs from it."""
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603
                ["git", *what],  # noqa: S607
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "training", "models"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + (" with changes" if changes else "")


def results_table(results: dict[str, dict[str, Tally]], title: str) -> Table:
    """Return event results by set."""
    table = Table(
        "set",
        "kind",
        "falls",
        "95 %",
        "delay p50/p95 s",
        "false/h (<= 95 %)",
        "hours",
        "trials alarming",
        title=title,
    )
    for name, kinds in sorted(results.items()):
        for kind, count in kinds.items():
            f = count.facts()
            delay: Any = f["delay_s"]
            share = (
                f"{count.alarming}/{count.trials} = {100 * count.alarming / count.trials:.1f} %"
                if count.trials
                else ""
            )
            found = (
                f"{count.detected}/{count.falls} = {100 * count.detected / count.falls:.1f} %"
                if count.falls
                else ""
            )
            per_hour = (
                f"{f['false_alarms_per_hour']} ({f['false_alarms_per_hour_at_most_95']})" if count.daily_s else ""
            )
            table.add_row(
                name,
                kind,
                found,
                str(f["sensitivity_95"] or ""),
                f"{delay['p50']}/{delay['p95']}" if count.falls else "",
                per_hour,
                str(f["daily_hours"]) if count.daily_s else "",
                share,
            )
    return table
