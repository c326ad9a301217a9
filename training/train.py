"""Fit a fall detector for one placement, test it on people and sets it never saw, report, write the bundle."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from tqdm import tqdm

from training import bundle, control, decide, report
from training.committee import Committee
from training.datasets import fingerprint, load
from training.evaluate import NETWORK, UNSEEN, judge
from training.fit import FitConfig
from training.protocol import METHODS, SET_WEIGHTS, THRESHOLD_WEIGHTS, Protocol, Task
from training.readers import Trial
from training.windows import Shape

SETS = {
    "wrist": ("umafall", "smartfallmm", "hifd", "geotec", "hmp"),
    "waist": ("umafall", "smartfallmm", "sisfall", "assist-iot"),
}
# Recordings at another place on the body, to learn from as well: falls on the wrist are few.
BORROWED = {"wrist": {"umafall": ("waist", "chest", "ankle"), "sisfall": ("waist",)}, "waist": {}}
LEFT_OUT = {"wrist": "umafall smartfallmm", "waist": "umafall sisfall"}
ONE_OF_THEM = "one network alone"
# Where a placement has its own.
DEFAULTS: dict[str, dict[str, float]] = {
    "wrist": {},
    "waist": {"dropout": 0.15, "target": 0.005},
}  # where a placement has its own


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What is fitted and tested; how one network is fitted stands in `FitConfig`."""

    placement: str = field(default="wrist", metadata={"help": "wrist or waist"})
    out: Path = field(
        default=Path("bundle"), metadata={"help": "folder of the bundle; report and work lie beside"}
    )
    seeds: int = field(default=5, metadata={"help": "everything is done so many times"})
    members: int = field(default=3, metadata={"help": "networks that the bundle averages"})
    folds: int = field(default=5, metadata={"help": "groups of people; 1000 leaves out each person alone"})
    leave_out: str = field(
        default="", metadata={"help": "sets to leave out one by one; none, or '' for the usual"}
    )
    left_out_seeds: int = field(default=5, metadata={"help": "seeds with a set left out"})
    baseline_seeds: int = field(default=1, metadata={"help": "seeds of the simpler methods"})
    baselines_left_out: bool = field(default=False, metadata={"help": "test them with sets left out, too"})
    target: float = field(default=0.0075, metadata={"help": "share of daily trials that may alarm"})
    workers: int = field(default=2, metadata={"help": "networks fitted at the same time"})
    fast: bool = field(default=False, metadata={"help": "a smoke run of a minute; the bundle is of no use"})


def from_args(argv: Sequence[str] | None) -> tuple[TrainConfig, FitConfig]:
    """Read the command line: every field of both is an option."""
    parser = argparse.ArgumentParser(prog="python -m training train", description=__doc__)
    for kind in (TrainConfig, FitConfig):
        for each in fields(kind):
            name, default = "--" + each.name.replace("_", "-"), each.default
            if isinstance(default, bool):
                parser.add_argument(name, action="store_true", help=each.metadata["help"])
            else:
                help_text = each.metadata["help"] + " (%(default)s)"
                known = tuple(SETS) if each.name == "placement" else None
                parser.add_argument(name, type=type(default), default=default, choices=known, help=help_text)
    parser.set_defaults(**DEFAULTS[parser.parse_known_args(argv)[0].placement])
    options = parser.parse_args(argv)
    config = TrainConfig(**{f.name: getattr(options, f.name) for f in fields(TrainConfig)})
    fitting = FitConfig(**{f.name: getattr(options, f.name) for f in fields(FitConfig)})
    if config.fast:
        config = replace(config, seeds=1, folds=2, baseline_seeds=1, workers=2)
        fitting = replace(fitting, steps=60, variants=1, averaging=0.8)
    return config, fitting


def trials_for(placement: str, *, every: int = 1) -> list[Trial]:
    """Return the trials at a placement, and those it borrows; ``every`` n-th only.

    Raises:
        DataMissing: `FALLWATCH_DATA` does not hold the sets.
    """
    borrowed = BORROWED[placement]
    found, _ = load(dict.fromkeys([*SETS[placement], *borrowed]))
    own = [t for t in found if t.placement == placement and t.dataset.startswith(SETS[placement])]
    lent = [t for t in found if t.placement in borrowed.get(t.dataset, ())]
    return [*own, *lent][::every]


class Plan(NamedTuple):
    """One test of one method: what the report has a line for."""

    name: str
    method: str
    seeds: tuple[int, ...]  # of the networks whose log odds are averaged
    left_out: str = ""


def plan(config: TrainConfig) -> list[Plan]:
    """Return all tests: every person by networks that never saw them, then with each set left out whole.

    There are as many committees as seeds, each network in several: what the bundle is, tested over and over.
    """
    left_out = [] if config.leave_out == "none" else (config.leave_out or LEFT_OUT[config.placement]).split()
    found: list[Plan] = []
    for split in ("", *left_out):
        seeds = range(1, (min(config.left_out_seeds, config.seeds) if split else config.seeds) + 1)
        size = min(config.members, len(seeds))
        committees = [tuple((first + i - 1) % len(seeds) + 1 for i in range(size)) for first in seeds]
        found += [Plan(NETWORK, NETWORK, members, split) for members in committees]
        if size > 1:
            found += [Plan(ONE_OF_THEM, NETWORK, (seed,), split) for seed in seeds]
        methods = METHODS[1:3] if config.fast else METHODS[1:]  # the others take their time
        if not split or config.baselines_left_out:
            found += [Plan(m, m, (seed,), split) for m in methods for seed in seeds[: config.baseline_seeds]]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Do all of it; what an interrupted run has done is not done again."""
    config, fitting = from_args(argv)
    console, shape = Console(soft_wrap=True), Shape()
    trials = trials_for(config.placement, every=12 if config.fast else 1)
    people = len({t.person for t in trials})
    console.print(f"{len(trials)} trials of {people} people, data {fingerprint(trials)[:12]}")
    folder = config.out.parent / f"{config.out.name}.work"
    work = Protocol(trials, config.placement, shape, fitting, folds=config.folds, folder=folder)

    everybody = [Task(NETWORK, seed) for seed in range(1, min(config.members, config.seeds) + 1)]
    planned = plan(config)
    tested = [
        task for each in planned for seed in each.seeds for task in work.tasks(each.method, seed, each.left_out)
    ]
    work.finish([*everybody, *tested], workers=config.workers)
    runs = []
    for each in tqdm(planned, desc="thresholds", leave=False, disable=None):
        run = work.run(each.method, each.seeds, each.left_out, target=config.target)
        runs.append(replace(run, method=each.name))

    judged = judge(runs, work.card)
    mine = [run for run in runs if run.method == NETWORK and run.split == UNSEEN]
    thresholds = [threshold for run in mine for threshold in set(run.thresholds.values())]
    # The middle one, in log odds: they spread over orders of magnitude there.
    shipped = 1 / (1 + math.exp(-float(np.median([math.log(t / (1 - t)) for t in thresholds]))))
    rng = np.random.default_rng(1)
    own = [t for t in trials if t.placement == config.placement]
    windows = control.sample(own, shape, variants=2, set_weights=SET_WEIGHTS, count=6000, rng=rng)
    bundle.write(
        Committee([work.network(task) for task in everybody]),
        config.out,
        placement=config.placement,
        shape=shape,
        threshold=shipped,
        trials=trials,
        evidence=bundle.Evidence(judged, control.control(*windows, rng=rng)),
        run=vars_of(config) | vars_of(fitting),
    )
    waiting = decide.waiting(runs[:1], work.card, THRESHOLD_WEIGHTS, target=config.target)
    report.write(runs, config.out.parent / f"{config.out.name}.report", work.card, judged=judged, waiting=waiting)
    console.print(f"wrote {config.out}, and what it is worth to {config.out}.report/report.html")


def vars_of(config: TrainConfig | FitConfig) -> dict[str, object]:
    """Return what a card says of a configuration."""
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in {"out", "workers"}}
