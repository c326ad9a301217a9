"""Search how a network is best fitted: Optuna, spread by Ray if wished.

A fifth of the people, the same each time, is never looked at here. The others are dealt into two folds; a way of
fitting is worth the share of falls found at the threshold where 1 % of the daily trials alarm, the mean over
the sets with falls. That threshold is chosen on the very scores that are then counted, so the figure flatters: it
ranks ways of fitting, and nothing else. What is poor after the first fold is given up.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from models.card import Card
from training import evaluate
from training.datasets import fingerprint
from training.evaluate import NETWORK, Scored
from training.fit import FitConfig
from training.protocol import THRESHOLD_WEIGHTS, Protocol, split_by_person
from training.readers import Trial
from training.train import DEFAULTS, trials_for
from training.windows import Shape

FOLDS, SEED = 2, 1
KEPT_BACK = 5  # one in so many people is kept from the search
TARGET = 0.01  # share of daily trials allowed to alarm
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(5e-4, 1e-2, log=True),
    "weight_decay": FloatDistribution(1e-3, 0.2, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
    "averaging": CategoricalDistribution((0.99, 0.995, 0.998, 0.999, 0.9995)),
    "fall_share": FloatDistribution(0.2, 0.6),
    "mining": FloatDistribution(0.02, 1.0, log=True),
    "batch": CategoricalDistribution((128, 256, 512)),
}
# Fits and tests the first so many folds somewhere, and gives what they are worth.
Submit: TypeAlias = Callable[[FitConfig, int], "Future[float]"]


def not_kept_back(trials: Sequence[Trial], placement: str) -> list[Trial]:
    """Return the trials of all but the fifth that is kept back, wherever on the body they were recorded."""
    fold = split_by_person(trials, placement, KEPT_BACK, seed=0)
    return [t for t in trials if fold.get(t.person) != 0]


def found_at_target(scored: Sequence[Scored], card: Card) -> float:
    """Return the share of falls found where `TARGET` of the daily trials alarm, the mean over the sets."""
    threshold = evaluate.choose_threshold(scored, card, THRESHOLD_WEIGHTS, target=TARGET)
    judged = evaluate.with_threshold(card, threshold)
    falls = (one for one in scored if one.single and one.stream.falls)
    by_set = evaluate.grouped((one.stream.dataset, evaluate.tally(one, judged)) for one in falls)
    return float(np.mean([count.detected / count.falls for count in by_set.values()]))


def worth(trials: Sequence[Trial], placement: str, folder: Path, config: FitConfig, folds: int) -> float:
    """Fit and test the first ``folds`` folds, unless that is on disk; return what is found in them together."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    work = Protocol(trials, placement, Shape(), config, folds=FOLDS, folder=folder)
    scored: list[Scored] = []
    for task in work.tasks(NETWORK, SEED)[:folds]:
        if not work.is_done(task):
            work.do(task)
        scored += work.scored(task)
    return found_at_target(scored, work.card)


@contextmanager
def on_this_machine(trials: Sequence[Trial], placement: str, folder: Path, workers: int) -> Iterator[Submit]:
    """Give what submits work to processes here."""
    with ProcessPoolExecutor(workers) as pool:
        yield lambda config, folds: pool.submit(worth, trials, placement, folder, config, folds)


@contextmanager
def on_ray(trials: Sequence[Trial], placement: str, folder: Path, workers: int, address: str) -> Iterator[Submit]:
    """Give what submits work to a Ray cluster, or to one started here if the address is ``local``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    if address == "local":  # it listens on the network, and runs whatever is sent to it
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray  # noqa: PLC0415  # few have it, and it is large
    except ModuleNotFoundError as missing:
        raise SystemExit("--ray needs the package ray: pip install -e '.[search]'") from missing
    if address == "local":
        ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)
    else:
        ray.init(address)
    try:
        remote, shared = ray.remote(worth), ray.put(trials)
        yield lambda config, folds: remote.remote(shared, placement, folder, config, folds).future()
    finally:
        ray.shutdown()


def search(study: optuna.Study, submit: Submit, base: FitConfig, *, trials: int, at_once: int) -> None:
    """Try ways of fitting until the study has ``trials`` that ended well or were given up."""
    bar = tqdm(total=trials, initial=_done(study), desc="trials", disable=None)
    running: dict[Future[float], tuple[optuna.Trial, int]] = {}

    def begin(trial: optuna.Trial, folds: int) -> None:
        running[submit(config_of(base, trial.params), folds)] = (trial, folds)

    with bar:
        while running or _done(study) < trials:
            while len(running) < min(at_once, trials - _done(study)):
                begin(study.ask(SPACE), 1)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                trial, folds = running.pop(future)
                trial.report(future.result(), folds)
                if folds < FOLDS and not trial.should_prune():
                    begin(trial, folds + 1)
                    continue
                study.tell(trial, *((future.result(),) if folds == FOLDS else (None, TrialState.PRUNED)))
                bar.update()


def config_of(base: FitConfig, params: dict[str, Any]) -> FitConfig:
    """Return the configuration with a trial's values, rounded as they are printed."""
    rounded: dict[str, Any] = {k: v if isinstance(v, int) else float(f"{v:.4g}") for k, v in params.items()}
    return replace(base, **rounded)


def _done(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def open_study(path: Path, name: str, base: FitConfig) -> optuna.Study:
    """Return the study of this name in the file; a new one begins with the present way of fitting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".db":
        storage: str | optuna.storages.BaseStorage = f"sqlite:///{path}"
    else:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(),
    )
    # A seed of its own each time: with the same one a search that goes on would draw what it drew before.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    if not study.trials:
        study.enqueue_trial({key: value for key, value in asdict(base).items() if key in SPACE})
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # a search that was interrupted left them
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def table(study: optuna.Study, base: FitConfig) -> Table:
    """Return the best trials, a column each, and last the way of fitting that was there before."""
    ended = study.get_trials(states=(TrialState.COMPLETE,))
    given_up = len(study.get_trials(states=(TrialState.PRUNED,)))
    ranked = [(t, config_of(base, t.params)) for t in sorted(ended, key=lambda t: -(t.value or 0.0))]
    columns = [*[pair for pair in ranked if pair[1] != base][:4], *(pair for pair in ranked if pair[1] == base)]
    shown = Table("trial", title=f"{len(ended)} tried, {given_up} given up after the first fold")
    for trial, config in columns:
        shown.add_column("as it is" if config == base else str(trial.number))
    shown.add_row("falls found", *(f"{100 * (trial.value or 0.0):.1f} %" for trial, _ in columns))
    for key in SPACE:
        shown.add_row(key, *(f"{getattr(config, key):g}" for _, config in columns))
    return shown


def command_line(placement: str, config: FitConfig) -> str:
    """Return how such a network is trained in earnest."""
    chosen = " ".join(f"--{key.replace('_', '-')} {getattr(config, key):g}" for key in ("steps", *SPACE))
    return f"python -m training train --placement {placement} {chosen}"


def main(argv: Sequence[str] | None = None) -> None:
    """Search, or go on with a search, and print the best."""
    parser = argparse.ArgumentParser(
        prog="python -m training search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--placement", choices=tuple(DEFAULTS), default="wrist", help="(%(default)s)")
    parser.add_argument("--trials", type=int, default=30, help="ways of fitting to try in all (%(default)s)")
    parser.add_argument(
        "--study", type=Path, help="where it is kept, FILE.log or FILE.db (SQLite) (search-PLACEMENT.log)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster; local: one started here")
    parser.add_argument("--workers", type=int, default=2, help="networks fitted at the same time (%(default)s)")
    parser.add_argument("--steps", type=int, default=FitConfig().steps, help="batches per network (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th recording, to try it (%(default)s)")
    options = parser.parse_args(argv)
    placement, path = options.placement, options.study or Path(f"search-{options.placement}.log")
    base = FitConfig(steps=options.steps, dropout=DEFAULTS[placement].get("dropout", FitConfig().dropout))
    learnt_from = not_kept_back(trials_for(placement, every=options.every), placement)
    # Figures of other steps or data do not compare, so the same file keeps them as another study.
    name = f"{placement}, {options.steps} steps, data {fingerprint(learnt_from)[:12]}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, folder, at_once = open_study(path, name, base), path.with_suffix(".work"), options.workers
    where = (learnt_from, placement, folder.resolve(), at_once)
    with on_ray(*where, options.ray) if options.ray else on_this_machine(*where) as submit:
        search(study, submit, base, trials=options.trials, at_once=at_once)
    console = Console(soft_wrap=True)
    console.print(table(study, base))
    console.print(command_line(placement, config_of(base, study.best_params)))
