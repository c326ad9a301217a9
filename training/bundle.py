"""Write a network as a bundle the daemon accepts: ONNX file, card, golden vectors."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.table import Table
from torch import nn

from models.card import CARD_SCHEMA, Card, Decision, read_card
from models.preprocess import PREPROCESSING_VERSION, SUB_POINTS, Accel
from models.scorer import Scorer
from training.card_text import readable
from training.control import TOGETHER, Auc
from training.datasets import SOURCES, fingerprint
from training.evaluate import NETWORK, UNSEEN, Judged, Tally, grouped, suspect_for
from training.network import CLIP_G, Probability
from training.readers import Trial
from training.windows import Shape

OPSET = 18
PARITY = 1e-4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found on people and sets that did not teach, for the card."""

    judged: Sequence[Judged]
    control: dict[str, Auc]


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
    write_onnx(Probability(net).eval(), torch.zeros(3, shape.window_samples, 3), path, input_name="accel_g")


def write_onnx(probability: nn.Module, example: torch.Tensor, path: Path, *, input_name: str) -> None:
    """Write a network as one ONNX file with a free batch size, and nothing of the machine it was made on."""
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
            input_names=[input_name],
            output_names=["probability"],
            verbose=False,
        )
    model = onnx.load(path)
    forget_where(model)
    onnx.save(model, path)


def forget_where(model: onnx.ModelProto) -> None:
    """Take from a model what torch notes of the source files behind each node: paths of somebody's machine."""
    graph = model.graph
    for thing in (graph, *graph.node, *graph.value_info, *graph.initializer, *model.functions):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``card.json`` beside its ``model.onnx``, and from it ``card.md`` for people."""
    (folder / "card.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "card.md").write_text(readable(read_card(folder)), encoding="utf-8")


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
    facts["results"] = _results(evidence)
    write_card(folder, facts)
    parity = check_parity(net, Scorer(folder), shape)
    facts["parity_to_torch"] = float(f"{parity:.2g}")
    write_card(folder, facts)
    return Scorer(folder)


def _results(evidence: Evidence) -> dict[str, Any]:
    """Return what the card says: counts are sums over the seeds, ranges count everybody once."""
    mine = [j for j in evidence.judged if j.run.method == NETWORK]
    unseen = [j for j in mine if j.run.split == UNSEEN]
    seeds = len({j.run.seed for j in unseen})
    streams = [j for j in unseen if not j.one.single]
    return {
        "how": "Each person was judged by networks that never saw them, at thresholds chosen on others; counts "
        "are sums over the seeds. The network in this bundle was then trained on everybody in the same way; its "
        "threshold is the median of theirs. `left_out`: a whole set kept from network and threshold. All falls "
        "are acted, most by young adults; daily activity is scripted. `streams`: each person's trials end to "
        "end; `trials`: each alone, cold.",
        "seeds": seeds,
        "thresholds": sorted({round(t, 4) for j in unseen for t in j.run.thresholds.values()}),
        "by_set": _by_set(unseen),
        "left_out": {
            name: kinds
            for split in sorted({j.run.split for j in mine} - {UNSEEN})
            for name, kinds in _by_set([j for j in mine if j.run.split == split]).items()
        },
        "baselines": {
            method: _by_set([j for j in evidence.judged if (j.run.method, j.run.split) == (method, UNSEEN)])
            for method in sorted({j.run.method for j in evidence.judged} - {NETWORK})
        },
        "control_auc": round(evidence.control[TOGETHER].value, 3),
        "control": {
            clue: {"auc": round(auc.value, 3), "low_95": round(auc.low, 3), "high_95": round(auc.high, 3)}
            for clue, auc in evidence.control.items()
        },
        "by_age_group": {
            age: count.facts(seeds)
            for age, count in grouped((j.one.stream.age_group, j.count) for j in streams).items()
        },
        "by_person": {
            person: {
                "falls": c.falls,
                "detected": c.detected,
                "false_alarms": c.false_alarms,
                "hours": round(c.daily_s / 3600, 2),
            }
            for person, c in grouped((j.one.stream.person, j.count) for j in streams).items()
        },
    }


def _by_set(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, object]]]:
    seeds = len({j.run.seed for j in judged})
    found: dict[str, dict[str, dict[str, object]]] = {}
    for kind, single in (("streams", False), ("trials", True)):
        counts = grouped((j.one.stream.dataset, j.count) for j in judged if j.one.single == single)
        for name, count in counts.items():
            found.setdefault(name, {})[kind] = count.facts(seeds)
    return found


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


def us_per_window(scorers: Sequence[Scorer], batch: int, *, rounds: int = 200) -> list[float]:
    """Return the median time of each scorer per window, in microseconds, taking turns so that drift hits all."""
    seconds: list[list[float]] = [[] for _ in scorers]
    given = [
        np.resize(golden_windows(Shape(window_samples=s.card.window_samples)), (batch, s.card.window_samples, 3))
        for s in scorers
    ]
    for _ in range(rounds):
        for scorer, windows, own in zip(scorers, given, seconds, strict=True):
            begun_s = time.perf_counter()
            scorer.score(windows)
            own.append(time.perf_counter() - begun_s)
    return [float(np.median(own)) * 1e6 / batch for own in seconds]


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
