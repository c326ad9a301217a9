"""Teach, judge and ship the camera's network: nobody is judged by a network that saw them."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from edge.core.seen import FEATURES
from models.card import CARD_SCHEMA, Card, Decision
from models.preprocess import PREPROCESSING_VERSION
from models.scorer import Scorer
from training.bundle import PARITY, write_onnx
from training.depth.body import FPS
from training.depth.card_text import readable
from training.depth.figures import draw
from training.depth.network import CameraNet, Probability
from training.depth.observed import WEAKER, Lessons, Observed, alarms, lessons, observe_all, with_threshold
from training.depth.verdicts import FLOOR_PELVIS_M, Verdict, camera_height, camera_tilt, shares
from training.evaluate import suspect_for

RATE_HZ, WINDOW, HOP = 10.0, 60, 5
FOUND_AFTER_S = 30.0  # an alarm so long after the fall still counts
LEAST_FLOOR_S = 2.0  # shorter is a stumble
EARLY_S = 1.0  # one so much before it does not
FOLDS = 5
TARGET = 0.01  # of the daily clips of people beside the test may alarm
THRESHOLDS = 1 / (1 + np.exp(-np.arange(-2.0, 5.01, 0.25)))
Scores = NDArray[np.float32]


def draft_card(name: str = "draft", threshold: float = 0.5, sha256: str = "") -> Card:
    """Return the card without its history."""
    decision = Decision(
        threshold=round(threshold, 4),
        confirm_windows=2,
        suspect_threshold=round(suspect_for(threshold, weaker=WEAKER), 4),
        weigh_s=3.0,
        refractory_s=10.0,
    )
    facts: dict[str, Any] = {
        "schema": CARD_SCHEMA,
        "name": name,
        "placement": "camera",
        "rate_hz": RATE_HZ,
        "window_samples": WINDOW,
        "window_s": WINDOW / RATE_HZ,
        "hop_samples": HOP,
        "axes": "none: heights above the floor and speeds, whatever the camera's height and tilt",
        "unit": "metres, metres a second, square metres and parts, see features",
        "features": list(FEATURES),
        "range_handling": "standardised and clipped to 4 standard deviations in the network",
        "input": {"name": "features", "dtype": "float32", "shape": ["batch", WINDOW, len(FEATURES)]},
        "output": {"name": "probability", "dtype": "float32", "shape": ["batch"]},
        "preprocessing": PREPROCESSING_VERSION,
        "preprocessing_method": "edge.depth: the last frame's features at each step, one window a person",
        "decision": asdict(decision),
        "onnx_sha256": sha256,
    }
    return Card(name, "camera", RATE_HZ, WINDOW, HOP, float("inf"), decision, sha256, facts, features=FEATURES)


# -- fit -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taught:
    """A clip and what it teaches."""

    clip: Observed
    lessons: Lessons

    @property
    def group(self) -> str:
        """Who is in it: all that must stay on one side of a split."""
        return str(self.clip.meta["person"])


def fit(taught: Sequence[Taught], *, seed: int, steps: int = 1200, batch: int = 192) -> CameraNet:
    """Fit one network."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    windows = torch.from_numpy(np.concatenate([t.lessons.windows for t in taught]))
    is_fall = np.concatenate([t.lessons.is_fall for t in taught])
    weight = np.concatenate([t.lessons.weight / np.sqrt(len(t.lessons.weight) or 1) for t in taught])
    falls, others = np.flatnonzero(is_fall & (weight > 0)), np.flatnonzero(~is_fall & (weight > 0))
    chances = [weight[part] / weight[part].sum() for part in (falls, others)]
    net = CameraNet(WINDOW)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        picked = np.concatenate(
            [
                rng.choice(part, count, p=chance)
                for part, count, chance in zip(
                    (falls, others), (batch // 3, batch - batch // 3), chances, strict=True
                )
            ]
        )
        given = _varied(windows[picked], rng)
        wanted = torch.from_numpy(is_fall[picked].astype(np.float32)) * 0.98 + 0.01
        loss = nn.functional.binary_cross_entropy_with_logits(net(given), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch types it not
        optimiser.step()
        rate.step()
    return net.eval()


def _varied(windows: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return the windows as other people and other cameras would give them."""
    n = len(windows)
    scale = torch.ones(n, 1, len(FEATURES))
    size = torch.from_numpy(
        rng.uniform(0.88, 1.08, (n, 1)).astype(np.float32)
    )  # shorter people; floors a little off
    for name in ("head_m", "centroid_m", "speed_mps", "extent_m", "width_m"):
        scale[:, :, FEATURES.index(name)] = size
    for name in ("area_m2", "moving_part"):
        scale[:, :, FEATURES.index(name)] = torch.from_numpy(rng.uniform(0.6, 1.5, (n, 1)).astype(np.float32))
    offset = torch.zeros(n, 1, len(FEATURES))
    offset[:, :, :2] = torch.from_numpy(rng.normal(0, 0.03, (n, 1, 1)).astype(np.float32))
    return windows * scale + offset + torch.randn_like(windows) * 0.015


@torch.no_grad()
def score(net: nn.Module, taught: Sequence[Taught]) -> list[Scores]:
    """Return each clip's scores in order."""
    probability = Probability(net).eval()
    return [probability(torch.from_numpy(t.lessons.windows)).numpy() for t in taught]


# -- judge -----------------------------------------------------------------------------------------


def verdict(t: Taught, card: Card, said: Scores) -> Verdict:
    """Replay one clip with these scores through the daemon's judge."""
    one, fall_s = t.clip, t.clip.fall_s
    raised = alarms(one, card, said.tolist())
    hits = [a for a in raised if fall_s is not None and fall_s - EARLY_S <= a.raised_s <= fall_s + FOUND_AFTER_S]
    early = [a for a in raised if fall_s is None or a.raised_s < fall_s - EARLY_S]
    low = _longest_run(one.pelvis_m < FLOOR_PELVIS_M) / FPS
    told_s = max((p.on_floor_s for seen in one.seen for p in seen.people), default=0.0)
    return Verdict(
        clip=one.name,
        person=t.group,
        source=one.meta["source"],
        activity=one.meta["activity"],
        label=one.meta["label"],
        camera=one.meta["camera"],
        sensor=one.meta["sensor"],
        room_shown=one.meta["room_shown"],
        found=bool(hits),
        delay_s=round(hits[0].raised_s - (fall_s or 0.0), 2) if hits else None,
        by_timer=bool(hits) and hits[0].long_lie,
        false_alarm=bool(early),
        score=float(said.max()) if len(said) else 0.0,
        floor_s=round(low, 2),
        floor_error_s=round(told_s - low, 2) if low >= LEAST_FLOOR_S else None,
    )


def _longest_run(on: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def choose_threshold(taught: Sequence[Taught], said: Sequence[Scores]) -> float:
    """Return the threshold that finds most falls while few daily clips alarm, on people beside the test.

    Of each clip the second highest score counts, as two windows must agree: the judge itself would take hours.
    """
    right: list[float] = []
    wrong: list[float] = []
    for t, scores in zip(taught, said, strict=True):
        fall_s = t.clip.fall_s
        after = np.zeros(len(scores), bool) if fall_s is None else t.lessons.end_s >= fall_s - EARLY_S
        (wrong if fall_s is None else right).append(_second(scores[after if fall_s is not None else ~after]))
    best = (-1.0, 0.0)
    for threshold in THRESHOLDS.tolist():
        false_share = float(np.mean(np.array(wrong) >= threshold)) if wrong else 0.0
        found_share = float(np.mean(np.array(right) >= threshold)) if right else 0.0
        best = max(best, (found_share - 5.0 * max(false_share - TARGET, 0.0) - 0.5 * false_share, threshold))
    return best[1]


def _second(scores: Scores) -> float:
    return float(np.sort(scores)[-2]) if len(scores) > 1 else 0.0


def cross_validate(taught: Sequence[Taught], seed: int, *, steps: int) -> tuple[list[Verdict], list[float]]:
    """Judge everybody by networks that never saw them, at thresholds chosen on others."""
    found, thresholds = [], []
    people = sorted({t.group for t in taught})
    order = np.random.default_rng(seed).permutation(len(people))
    folds = {people[p]: i % FOLDS for i, p in enumerate(order)}
    for fold in tqdm(range(FOLDS), desc=f"seed {seed}", disable=None):
        rest = [t for t in taught if folds[t.group] != fold]
        test = [t for t in taught if folds[t.group] == fold]
        halves = [[t for t in rest if (folds[t.group] + fold) % 2 == half] for half in (0, 1)]
        said = score(fit(halves[1], seed=seed, steps=steps), halves[0])
        said += score(fit(halves[0], seed=seed, steps=steps), halves[1])
        threshold = choose_threshold([*halves[0], *halves[1]], said)
        thresholds.append(threshold)
        card = with_threshold(draft_card(), threshold)
        scores = score(fit(rest, seed=seed, steps=steps), test)
        found += [verdict(t, card, s) for t, s in zip(test, scores, strict=True)]
    return found, thresholds


def table(groups: dict[str, dict[str, Any]], title: str) -> Table:
    """Return shares as a table."""
    shown = Table("", "falls found", "95 %", "by the timer", "daily clips alarming", "95 %", title=title)
    for name, g in groups.items():
        of = f"{g['found']}/{g['falls']} = {100 * g['found'] / g['falls']:.1f} %" if g["falls"] else "-"
        wrong = f"{g['alarming']}/{g['daily']} = {100 * g['alarming'] / g['daily']:.1f} %" if g["daily"] else "-"
        low, high = g["found_95"]
        wlow, whigh = g["alarming_95"]
        shown.add_row(
            name,
            of,
            f"{100 * low:.1f} to {100 * high:.1f}" if g["falls"] else "",
            str(g["by_timer"]) if g["falls"] else "",
            wrong,
            f"{100 * wlow:.1f} to {100 * whigh:.1f}" if g["daily"] else "",
        )
    return shown


# -- ship ------------------------------------------------------------------------------------------


def write_bundle(
    net: CameraNet, folder: Path, threshold: float, more: dict[str, Any], golden: NDArray[np.float32]
) -> Scorer:
    """Write the bundle and load it through the daemon's scorer.

    Raises:
        ValueError: the ONNX file does not say what the network says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probability = Probability(net).eval()
    write_onnx(probability, torch.zeros(3, WINDOW, len(FEATURES)), folder / "model.onnx", input_name="features")
    with torch.no_grad():
        wanted = probability(torch.from_numpy(golden)).numpy()
    np.savez_compressed(folder / "golden.npz", windows=golden, probabilities=wanted)
    sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(
        json.dumps(draft_card(folder.name, threshold, sha256).facts | more, indent=1) + "\n"
    )
    scorer = Scorer(folder)
    rng = np.random.default_rng(7)
    windows = rng.normal(0.5, 0.7, (2000, WINDOW, len(FEATURES))).astype(np.float32)
    with torch.no_grad():
        worst = float(np.abs(scorer.score(windows) - probability(torch.from_numpy(windows)).numpy()).max())
    if worst > PARITY:
        raise ValueError(f"ONNX and torch differ by {worst:.2e}")
    return scorer


def made_up_windows(seed: int = 0) -> NDArray[np.float32]:
    """Return golden windows that are nobody's: somebody who walks, sits, falls, slides, lies in bed, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(WINDOW) / RATE_HZ
    kinds = []
    for end_m, lasts_s, extent_m in (
        (1.65, 1.0, 0.6),
        (1.25, 1.2, 0.7),
        (0.3, 0.6, 1.6),
        (0.5, 4.0, 1.2),
        (0.75, 3.0, 1.7),
    ):
        down = np.clip((t - 2.0) / lasts_s, 0, 1)
        head = 1.65 + (end_m - 1.65) * down
        one = np.zeros((WINDOW, len(FEATURES)))
        one[:, 0], one[:, 1] = head, head * 0.57
        one[:, 2] = np.gradient(one[:, 1], 1 / RATE_HZ)
        one[:, 3], one[:, 4] = 0.6 + (extent_m - 0.6) * down, 0.4
        one[:, 5], one[:, 6] = np.clip((0.7 - head) * 2, 0, 1), 0.2 + 0.3 * down
        one[:, 7] = down * (end_m == 0.75)
        one[:, 8], one[:, 9] = 0.4 - 0.35 * down, 1.0
        kinds += [one, one + rng.normal(0, 0.05, one.shape), one * 0.9]
    kinds.append(rng.normal(0, 2, (WINDOW, len(FEATURES))))
    return np.stack(kinds).astype(np.float32)


_TAUGHT: list[Taught] = []  # what the processes share


def _validate(seed: int, *, steps: int) -> tuple[list[Verdict], list[float]]:
    torch.set_num_threads(1)
    return cross_validate(_TAUGHT, seed, steps=steps)


def main(argv: list[str]) -> int:
    """Teach the camera's network from depth clips, judge it on unseen people, and write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m training camera", description=main.__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder that depth-clips wrote")
    parser.add_argument("--out", type=Path, help="bundle folder; without it only the figures are shown")
    parser.add_argument("--keep", type=Path, required=True, help="folder for what the observer saw of the clips")
    parser.add_argument("--variants", type=int, default=1, help="sensors each clip is seen with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1200, help="batches per network")
    parser.add_argument("--figures", type=Path, help="folder for plots")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    clips = observe_all(options.clips.rglob("*.npz"), options.keep, variants=options.variants, jobs=options.jobs)
    whole = [clip for clip in clips if clip.fall_s is None or clip.shows_fall]
    console = Console()
    console.print(f"{len(clips) - len(whole)} clips of falls show no way down, or end with it, and are left out")
    taught = [Taught(clip, lessons(clip, draft_card())) for clip in tqdm(whole, desc="lessons", disable=None)]
    _TAUGHT.extend(taught)
    verdicts: list[Verdict] = []
    thresholds: list[float] = []
    forked = multiprocessing.get_context("fork")  # the lessons are large, and shared by it
    with ProcessPoolExecutor(options.jobs, forked) as pool:
        for found, chosen in pool.map(partial(_validate, steps=options.steps), range(options.seeds)):
            verdicts += found
            thresholds += chosen
    results = report(verdicts, thresholds, options.seeds)
    for name, groups in results["shares"].items():
        console.print(table(groups, f"unseen people, {name}"))
    console.print({k: v for k, v in results.items() if k != "shares"})
    (options.keep / "verdicts.json").write_text(json.dumps([asdict(v) for v in verdicts]))
    if options.figures is not None:
        draw(verdicts, options.figures)
    if options.out is None:
        return 0
    net = fit(taught, seed=0, steps=options.steps)
    more = {
        "training": {
            "people": len({t.group for t in taught}),
            "clips": dict(Counter(f"{t.clip.meta['source']} {t.clip.meta['label']}" for t in taught)),
            "sets": [
                {
                    "name": "smartfallmm-skeleton",
                    "cite": "SmartFallMM: A Multimodal Dataset Collected with Commodity Devices",
                    "licence_as_found": "none stated in the copy",
                }
            ],
            "seeds": options.seeds,
            "steps": options.steps,
            "versions": {
                p: version(p)
                for p in ("mujoco", "numpy", "onnx", "onnxruntime", "torch", "opencv-python-headless")
            },
        },
        "results": results,
    }
    scorer = write_bundle(net, options.out, float(np.median(thresholds)), more, made_up_windows())
    (options.out / "card.md").write_text(readable(scorer.card), encoding="utf-8")
    console.print(f"{scorer.card.name} written to {options.out}")
    return 0


def report(verdicts: Sequence[Verdict], thresholds: Sequence[float], seeds: int) -> dict[str, Any]:
    """Return what the card says of people the network never saw; counts are sums over the seeds."""
    errors = [v.floor_error_s for v in verdicts if v.floor_error_s is not None]
    delays = [v.delay_s for v in verdicts if v.delay_s is not None]

    return {
        "how": "Each person, room and camera was judged by networks that never saw them, at thresholds chosen on "
        "others; counts are sums over the seeds. Replayed: skeletons of young people who fell on purpose, as "
        "bodies in made-up rooms. Synthetic: made up altogether. Neither is a resident or a real depth image.",
        "seeds": seeds,
        "thresholds": sorted({round(t, 4) for t in thresholds}),
        "shares": {
            "by source": shares(verdicts, lambda v: v.source),
            "replayed by person": shares([v for v in verdicts if v.source == "replayed"], lambda v: v.person),
            "by activity": shares(verdicts, lambda v: f"{v.source} {v.activity}"),
            "by height": shares(verdicts, camera_height),
            "by tilt": shares(verdicts, camera_tilt),
            "by sensor": shares(verdicts, lambda v: v.sensor),
            "by empty room": shares(verdicts, lambda v: "shown" if v.room_shown else "learnt from the clip"),
        },
        "floor_error_s": {
            q: round(float(np.quantile(errors, p)), 2) for q, p in (("p5", 0.05), ("p50", 0.5), ("p95", 0.95))
        }
        if errors
        else None,
        "delay_s": {q: round(float(np.quantile(delays, p)), 2) for q, p in (("p50", 0.5), ("p95", 0.95))}
        if delays
        else None,
    }
