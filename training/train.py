"""Fit a fall detector for one placement: cross-validate over people, fit on all, write the bundle."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from tqdm import tqdm

from training import bundle, evaluate
from training.datasets import fingerprint, load
from training.evaluate import Scored, Tally
from training.network import FallNet
from training.readers import Trial
from training.windows import Pool, Shape, build_pool, gather

SETS = {
    "wrist": ("umafall", "smartfallmm", "hifd", "geotec", "hmp"),
    "waist": ("umafall", "smartfallmm", "sisfall", "assist-iot"),
}
# Recordings at another place on the body, to learn from as well: falls on the wrist are few.
BORROWED = {"wrist": ("umafall", "sisfall"), "waist": ()}
ELSEWHERE = "elsewhere"
# How much each set's windows count in training: +-2 g sensors and put-back gravity teach less.
SET_WEIGHTS = {
    ELSEWHERE: 0.5,
    "hifd": 0.6,
    "smartfallmm-meta-wrist": 0.3,
    "smartfallmm-meta-hip": 0.6,
    "geotec": 0.4,
    "hmp": 0.4,
}
# Whose daily trials choose the threshold: sensors whose range can show an impact.
THRESHOLD_WEIGHTS = {"umafall": 1.0, "smartfallmm-watch": 1.0, "sisfall": 1.0, "smartfallmm-meta-hip": 0.5}


@dataclass(frozen=True)
class TrainConfig:
    """One training run; all that shapes the result."""

    placement: str = field(default="wrist", metadata={"help": "wrist or waist"})
    out: Path = field(default=Path("bundle"), metadata={"help": "folder that the bundle is written to"})
    seed: int = field(default=1, metadata={"help": "seed of everything random"})
    folds: int = field(default=5, metadata={"help": "people are split into so many groups"})
    steps: int = field(default=3000, metadata={"help": "batches per network"})
    batch: int = field(default=256, metadata={"help": "windows per batch"})
    variants: int = field(default=4, metadata={"help": "renderings of each trial as another device"})
    learning_rate: float = field(default=4e-3, metadata={"help": "largest learning rate"})
    averaging: float = field(
        default=0.995, metadata={"help": "share of the old in the running mean of the weights"}
    )
    dropout: float = field(default=0.25, metadata={"help": "share of features forgotten while learning"})
    fall_share: float = field(default=0.4, metadata={"help": "share of falls in a batch"})
    target: float = field(default=0.01, metadata={"help": "share of daily trials allowed to alarm"})
    leave_out: str = field(default="", metadata={"help": "set to leave out whole and to test on"})
    fast: bool = field(default=False, metadata={"help": "a smoke run of a minute; the bundle is of no use"})

    @classmethod
    def from_args(cls, argv: Sequence[str] | None) -> TrainConfig:
        """Read the command line."""
        parser = argparse.ArgumentParser(prog="python -m training train", description=__doc__)
        for each in fields(cls):
            name, default = "--" + each.name.replace("_", "-"), each.default
            if isinstance(default, bool):
                parser.add_argument(name, action="store_true", help=each.metadata["help"])
            else:
                parser.add_argument(
                    name, type=type(default), default=default, help=each.metadata["help"] + " (%(default)s)"
                )
        return cls(**vars(parser.parse_args(argv)))


def split_by_person(trials: Sequence[Trial], config: TrainConfig) -> dict[str, int]:
    """Deal the placement's people into folds, set by set, those with falls first: every fold has of each."""
    rng = np.random.default_rng(config.seed)
    fallers = {t.person for t in trials if t.is_fall and t.placement == config.placement}
    people = sorted({t.person for t in trials if t.placement == config.placement})
    order = [people[i] for i in rng.permutation(len(people))]
    order.sort(key=lambda p: (p.split("/")[0], p not in fallers))
    return {person: i % config.folds for i, person in enumerate(order)}


def fit(pool: Pool, shape: Shape, config: TrainConfig, *, seed: int) -> FallNet:
    """Train one network; from time to time, look for the windows that fool it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = FallNet(shape.window_samples, shape.rate_hz, dropout=config.dropout)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(config.averaging)  # type: ignore[no-untyped-call]
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=ema, use_buffers=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    falls, others = np.flatnonzero(pool.falls), np.flatnonzero(~pool.falls)
    fall_sum, other_sum = np.cumsum(pool.weights[falls]), np.cumsum(pool.weights[others])
    n_falls = round(config.batch * config.fall_share)
    for step in tqdm(range(config.steps), desc="fit", leave=False, disable=None):
        if step in {config.steps * part // 8 for part in (1, 2, 4, 6)}:
            fooled = predict(net, pool, others, shape.window_samples)
            other_sum = np.cumsum(pool.weights[others] * (0.02 + fooled))
            # A window that looks like no fall at all is more often a wrong label than a lesson.
            fall_sum = np.cumsum(pool.weights[falls] * (0.3 + predict(net, pool, falls, shape.window_samples)))
        picked = np.concatenate(
            [draw(falls, fall_sum, n_falls, rng), draw(others, other_sum, config.batch - n_falls, rng)]
        )
        windows = torch.from_numpy(gather(pool, picked, shape.window_samples))
        windows = windows + torch.randn_like(windows) * (torch.rand(len(windows), 1, 1) * 0.03)
        wanted = torch.from_numpy(pool.falls[picked].astype(np.float32))
        loss = nn.functional.binary_cross_entropy_with_logits(net(windows), wanted * 0.98 + 0.01)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        average.update_parameters(net)
    net.load_state_dict(average.module.state_dict())
    return net.eval()


def draw(
    of: NDArray[np.int64], cumulative: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw windows by weight, with replacement."""
    at = np.searchsorted(cumulative, rng.random(count) * cumulative[-1])
    picked: NDArray[np.int64] = of[np.minimum(at, len(of) - 1)]
    return picked


@torch.no_grad()
def predict(net: FallNet, pool: Pool, index: NDArray[np.int64], window_samples: int) -> NDArray[np.float32]:
    """Return the probability for each window."""
    training = net.training
    net.eval()
    said = [
        torch.sigmoid(net(torch.from_numpy(gather(pool, part, window_samples)))).numpy()
        for part in np.array_split(index, max(1, len(index) // 4096))
    ]
    net.train(training)
    return np.concatenate(said)


def train_on(trials: Sequence[Trial], shape: Shape, config: TrainConfig, *, seed: int) -> FallNet:
    """Cut windows from trials and fit a network on them."""
    rng = np.random.default_rng(seed)
    named = [t if t.placement == config.placement else replace(t, dataset=ELSEWHERE) for t in trials]
    pool = build_pool(named, shape, variants=config.variants, set_weights=SET_WEIGHTS, rng=rng)
    return fit(pool, shape, config, seed=seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, cross-validate, fit on everybody, write the bundle."""
    config = TrainConfig.from_args(argv)
    if config.fast:
        config = TrainConfig(**{**vars(config), "steps": 60, "variants": 1, "folds": 2, "averaging": 0.8})
    torch.set_num_threads(1)
    console, shape = Console(), Shape()
    found, _ = load(dict.fromkeys([*SETS[config.placement], *BORROWED[config.placement]]))
    trials = [t for t in found if t.placement == config.placement or t.dataset in BORROWED[config.placement]]
    if config.fast:
        trials = trials[::12]
    console.print(
        f"{len(trials)} trials of {len({t.person for t in trials})} people, data {fingerprint(trials)[:12]}"
    )

    if config.leave_out:  # train without a whole set, choose the threshold on the others, test on it
        known = [t for t in trials if not t.dataset.startswith(config.leave_out)]
        held = [t for t in trials if t.dataset.startswith(config.leave_out) and t.placement == config.placement]
        fold = split_by_person(known, config)
        scored = cross_validate(known, fold, shape, config)
        threshold = evaluate.choose_threshold(
            scored, bundle.draft_card(config.placement, shape), THRESHOLD_WEIGHTS, target=config.target
        )
        net = train_on(known, shape, config, seed=config.seed)
        with bundle.temporary(net, config.placement, shape, threshold) as scorer:
            tested = list(evaluate.score_people(held, scorer, seed=config.seed))
            console.print(
                bundle.results_table(
                    evaluate.report(tested, scorer.card), f"without {config.leave_out}, threshold {threshold:.3f}"
                )
            )
        return

    fold = split_by_person(trials, config)
    scored = cross_validate(trials, fold, shape, config)
    card = bundle.draft_card(config.placement, shape)
    # Each fold is judged at the threshold that the other folds' people chose.
    thresholds: list[float] = []
    results: dict[str, dict[str, Tally]] = {}
    people: dict[str, Tally] = {}
    for k in range(config.folds):
        others = [s for s in scored if fold[s.stream.person] != k]
        tested = [s for s in scored if fold[s.stream.person] == k]
        threshold = evaluate.choose_threshold(others, card, THRESHOLD_WEIGHTS, target=config.target)
        judged = evaluate.with_threshold(card, threshold)
        thresholds.append(threshold)
        for name, kinds in evaluate.report(tested, judged).items():
            for kind, count in kinds.items():
                results.setdefault(name, {}).setdefault(kind, Tally()).add(count)
        people |= evaluate.by_person(tested, judged)
    console.print(bundle.results_table(results, f"{config.placement}: unseen people, {config.folds} folds"))

    odds = [math.log(p / (1 - p)) for p in thresholds]
    shipped = 1 / (1 + math.exp(-float(np.median(odds))))
    net = train_on(trials, shape, config, seed=config.seed)
    bundle.write(
        net,
        config.out,
        placement=config.placement,
        shape=shape,
        threshold=shipped,
        trials=trials,
        evidence=bundle.Evidence(tuple(thresholds), results, people),
        run={k: v for k, v in vars(config).items() if k != "out"},
    )
    console.print(f"wrote {config.out}; look at it with: python -m training evaluate --model {config.out}")


def cross_validate(
    trials: Sequence[Trial], fold: dict[str, int], shape: Shape, config: TrainConfig
) -> list[Scored]:
    """Score everybody with a network that never saw them."""
    scored: list[Scored] = []
    for k in range(config.folds):
        net = train_on([t for t in trials if fold.get(t.person) != k], shape, config, seed=config.seed + k)
        with bundle.temporary(net, config.placement, shape, 0.5) as scorer:
            tested = [t for t in trials if fold.get(t.person) == k and t.placement == config.placement]
            found = evaluate.score_people(tested, scorer, seed=config.seed)
            scored += tqdm(found, desc=f"test fold {k}", leave=False, disable=None)
    return scored
