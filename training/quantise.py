"""Make a static int8 form of a bundle, and compare the two: events first, then time and size.

Calibrated on quiet data, int8 clips at impacts, and its mean error still looks fine. So half of the calibration
windows hold the impact of a fall, ranges are the largest values seen, and what is compared is falls found and
daily trials alarming, trial by trial. Convolutions and all fully connected layers but the last become int8; the
features (norms, logarithms, means), the last layer and the sigmoid stay float32.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table

from edge.core.replay import replay
from models.card import Card, read_card
from models.preprocess import Accel
from models.scorer import GOLDEN_TOLERANCE, Scorer
from training import bundle, datasets, evaluate
from training.evaluate import Tally
from training.readers import Trial
from training.train import SETS

BATCHES = (1, 8, 32)


class _Keeper(Scorer):
    """Keeps the windows it is given; what it says alarms nobody."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.windows: list[Accel] = []

    def score(self, windows: Accel) -> NDArray[np.float32]:
        self.windows.append(np.array(windows))
        return np.zeros(len(windows), np.float32)


def calibration_windows(trials: Sequence[Trial], card: Card, *, count: int, seed: int = 0) -> Accel:
    """Return windows as the daemon cuts them: half with the impact of a fall, half of daily life.

    From each trial drawn comes one window: of a fall any that holds its largest |a|, of daily life any.

    Returns:
        Shape (count or fewer, window_samples, 3), float32, g.
    """
    rng = np.random.default_rng(seed)
    found: list[Accel] = []
    for is_fall in (True, False):
        kind = [t for t in trials if t.is_fall == is_fall]
        for i in rng.permutation(len(kind))[: count // 2]:
            keeper = _Keeper(card)
            replay(evaluate.single(kind[i]).runs, keeper)
            windows = np.concatenate(keeper.windows)
            peaks_g = np.linalg.norm(windows, axis=2).max(axis=1)
            fit = np.flatnonzero(peaks_g >= 0.98 * peaks_g.max()) if is_fall else np.arange(len(windows))
            found.append(windows[rng.choice(fit)])
    return np.clip(np.stack(found), -card.clip_g, card.clip_g)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibrator batches of 32."""

    def __init__(self, windows: Accel, name: str) -> None:
        self._left: Iterator[dict[str, Accel]] = iter(
            [{name: windows[at : at + 32]} for at in range(0, len(windows), 32)]
        )

    def get_next(self) -> dict[str, Accel] | None:
        return next(self._left, None)


def quantised(folder_in: Path, folder_out: Path, windows: Accel) -> Scorer:
    """Write a bundle's int8 form and load it through the daemon's scorer.

    Threshold and decision stay as they are. Golden scores are its own, so they hold for this machine's integer
    kernels. It gets no `results`: those of the float32 form are not its own.

    Args:
        folder_in: a bundle that is accepted.
        folder_out: where the int8 bundle goes.
        windows: for calibration, shape (n, window_samples, 3), float32, g, falls among them.

    Raises:
        BundleRefused: one of the two fails its own checks.
    """
    source = Scorer(folder_in).card
    folder_out.mkdir(parents=True, exist_ok=True)
    path = folder_out / "model.onnx"
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "prepared.onnx"
        quant_pre_process(str(folder_in / "model.onnx"), str(prepared))
        graph = onnx.load(prepared).graph
        # The last is the layer that says the score. Each ReLU goes with what feeds it: one rounding, not two.
        nodes = [n.name for n in graph.node if n.op_type in {"Conv", "Gemm", "Relu"}][:-1]
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a preparation that it has just had
        try:
            quantize_static(
                str(prepared),
                str(path),
                _Reader(windows, graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                # 7 bits: with 8, x86 CPUs without VNNI saturate on the way, and scores were up to 0.02 apart.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            root.setLevel(level)
    with np.load(folder_in / "golden.npz") as golden:
        given = golden["windows"]
    np.savez_compressed(folder_out / "golden.npz", windows=given, probabilities=_run(path, given))
    facts = {k: v for k, v in source.facts.items() if k not in {"results", "parity_to_torch"}} | {
        "name": folder_out.name,
        "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "quantised": {
            "from": source.name,
            "from_sha256": source.onnx_sha256,
            "method": "static QDQ, per channel; activations uint8, weights of 7 bits; ranges are the largest seen",
            "nodes": nodes,
            "calibration_windows": len(windows),
            "calibration_sha256": hashlib.sha256(windows.tobytes()).hexdigest(),
        },
    }
    bundle.write_card(folder_out, facts)
    return Scorer(folder_out)


def kernel_gap(folder: Path, windows: Accel) -> float:
    """Return the largest difference between the integer kernels and the same file computed in float32.

    A rounding that falls the other way moves a score by a step of int8, as it may on another CPU: a cautious sign
    of how far machines may be apart. Emulated CPUs (AVX2, AVX, Cortex-A72 and -A76) came within 2e-7.
    """
    fused, plain = _run(folder / "model.onnx", windows), _run(folder / "model.onnx", windows, optimise=False)
    return float(np.abs(fused - plain).max())


def _run(path: Path, windows: Accel, *, optimise: bool = True) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (probability,) = session.run(None, {session.get_inputs()[0].name: windows})
    return np.asarray(probability, np.float32).reshape(-1)


@dataclass(slots=True)
class Comparison:
    """Two bundles on the same trials; pairs are (first, second)."""

    names: tuple[str, str]
    by_set: dict[str, tuple[Tally, Tally]] = field(default_factory=dict)  # each trial from a cold start
    lost: int = 0  # falls that only the first finds
    gained: int = 0  # falls that only the second finds
    quieter: int = 0  # daily trials that only the first alarms on
    louder: int = 0  # daily trials that only the second alarms on
    score_gap: tuple[float, float] = (0.0, 0.0)  # mean and largest difference of a window's score
    us_per_window: dict[int, tuple[float, float]] = field(default_factory=dict)  # by batch
    file_bytes: tuple[int, int] = (0, 0)

    def table(self) -> Table:
        """Return events by set, then time and size."""
        table = Table("", *self.names, title=f"{self.names[0]} against {self.names[1]}")
        for name, pair in sorted(self.by_set.items()):
            if pair[0].falls:
                table.add_row(f"{name}: falls found", *(_share(t.detected, t.falls) for t in pair))
            if pair[0].trials:
                table.add_row(f"{name}: daily trials alarming", *(_share(t.alarming, t.trials) for t in pair))
        table.add_row("falls only this one finds", str(self.lost), str(self.gained))
        table.add_row("daily trials only this one alarms on", str(self.quieter), str(self.louder))
        table.add_row("a window's score apart, mean; largest", "", "{:.1e}; {:.1e}".format(*self.score_gap))
        for batch, pair_us in self.us_per_window.items():
            table.add_row(f"µs a window, batch {batch}", *(f"{us:.1f}" for us in pair_us))
        table.add_row("model.onnx, bytes", *(str(n) for n in self.file_bytes))
        return table


def compare(folder_a: Path, folder_b: Path, trials: Sequence[Trial]) -> Comparison:
    """Replay the same trials through both bundles, each with its own card, and race them.

    On people the networks were trained on, events compare two arithmetics and say nothing of how good either is.

    Raises:
        BundleRefused: a bundle fails its own checks.
    """
    a, b = Scorer(folder_a), Scorer(folder_b)
    found = Comparison(
        (a.card.name, b.card.name),
        file_bytes=((folder_a / "model.onnx").stat().st_size, (folder_b / "model.onnx").stat().st_size),
    )
    total, largest, windows = 0.0, 0.0, 0
    # Trial by trial, as a stitched stream would tell one lost fall as two changes.
    for trial in trials:
        one, other = (next(iter(evaluate.score_people([trial], s))) for s in (a, b))
        gap = np.abs(np.array(one.scores) - np.array(other.scores))
        total, largest, windows = total + gap.sum(), max(largest, gap.max(initial=0.0)), windows + len(gap)
        pair = evaluate.tally(one, a.card), evaluate.tally(other, b.card)
        found.lost += pair[0].detected > pair[1].detected
        found.gained += pair[0].detected < pair[1].detected
        found.quieter += pair[0].alarming > pair[1].alarming
        found.louder += pair[0].alarming < pair[1].alarming
        sums = found.by_set.setdefault(trial.dataset, (Tally(), Tally()))
        for count, mine in zip(sums, pair, strict=True):
            count.add(mine)
    found.score_gap = (total / max(windows, 1), largest)
    for batch in BATCHES:
        us_a, us_b = bundle.us_per_window([a, b], batch)
        found.us_per_window[batch] = (us_a, us_b)
    return found


def _share(part: int, of: int) -> str:
    return f"{part}/{of} = {100 * part / of:.1f} %"


def main(argv: Sequence[str] | None = None) -> None:
    """Quantise a bundle and print what it cost and gained."""
    parser = argparse.ArgumentParser(prog="python -m training quantise", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="bundle folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the int8 bundle")
    parser.add_argument("--windows", type=int, default=1024, help="calibration windows, half falls (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="compare on every n-th trial (%(default)s)")
    options = parser.parse_args(argv)
    card = read_card(options.model)
    loaded, _ = datasets.load(SETS[card.placement])
    trials = [t for t in loaded if t.placement == card.placement]
    windows = calibration_windows(trials, card, count=options.windows)
    quantised(options.model, options.out, windows)
    console = Console()
    console.print(compare(options.model, options.out, trials[:: options.every]).table())
    gap = kernel_gap(options.out, windows)
    console.print(
        "Events are on people the network was trained on: they compare two arithmetics and nothing else.\n"
        f"Integer kernels against the same file in float32, on the calibration windows: up to {gap:.1e} apart "
        f"(golden tolerance {GOLDEN_TOLERANCE:.0e})."
    )
