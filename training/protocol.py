"""Who learns and who is tested: folds of people, sets left out whole, several seeds.

Every network is one task, and a task counts once its file is on disk, so a run that was interrupted goes
on where it was. Files are named by all that shapes them: configuration, data and code.
"""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models.card import Card
from models.preprocess import Accel
from training import arm, baselines, committee, evaluate, fit, network, readers, windows
from training.arm import gestures
from training.bundle import draft_card
from training.datasets import fingerprint
from training.evaluate import NETWORK, UNSEEN, Run, Scored, Stream
from training.fit import FitConfig
from training.network import FallNet, Probability
from training.readers import Trial
from training.windows import Pool, Shape, build_pool

METHODS = (NETWORK, *baselines.METHODS)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
GESTURES_PER = 6  # one made-up gesture to so many recorded trials
CHOOSERS = -1  # in place of a fold: the people who choose the threshold for a set left out, the same for all seeds
ONE_CHOOSES_OF = 3
ELSEWHERE = "elsewhere"  # what recordings from another place on the body count as
# How much each set's windows count in training: +-2 g sensors and put-back gravity teach less.
SET_WEIGHTS = {
    ELSEWHERE: 0.5,
    "hifd": 0.6,
    "smartfallmm-meta-wrist": 0.3,
    "smartfallmm-meta-hip": 0.6,
    "geotec": 0.4,
    "hmp": 0.4,
}
# How much each set's daily trials count in choosing the threshold: least where no fall or no impact can show.
THRESHOLD_WEIGHTS = {
    "umafall": 1.0,
    "smartfallmm-watch": 1.0,
    "sisfall": 1.0,
    "smartfallmm-meta-hip": 0.5,
    "hifd": 0.5,
    "hmp": 0.5,
    "geotec": 0.5,
    "assist-iot": 0.5,
}


@dataclass(frozen=True, slots=True)
class Task:
    """One method fitted once and tested once."""

    method: str
    seed: int
    left_out: str = ""  # the beginning of a set's name; nobody in it learns
    fold: int | None = None  # the people tested; None: all that is not left out learns, what is left out is tested


@dataclass(frozen=True, slots=True)
class NetworkScorer:
    """The network in the place of its ONNX file, for tests in bulk; the bundle is checked to agree with it."""

    net: torch.nn.Module
    card: Card

    @torch.no_grad()
    def score(self, samples_g: Accel) -> NDArray[np.float32]:
        """Return the probability of a fall for each window."""
        parts = [Probability(self.net)(torch.from_numpy(part)).numpy() for part in _in_parts(samples_g)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def split_by_person(trials: Iterable[Trial], placement: str, folds: int, seed: int) -> dict[str, int]:
    """Deal the placement's people into folds, set by set, those with falls first: every fold has of each."""
    rng = np.random.default_rng(seed)
    own = [t for t in trials if t.placement == placement]
    fallers = {t.person for t in own if t.is_fall}
    people = sorted({t.person for t in own})
    order = [people[i] for i in rng.permutation(len(people))]
    order.sort(key=lambda p: (p.split("/")[0], p not in fallers))
    return {person: i % folds for i, person in enumerate(order)}


class Protocol:
    """All tasks over one collection of trials; `finish` does what is not done, `runs` reads the results."""

    def __init__(
        self, trials: Sequence[Trial], placement: str, shape: Shape, config: FitConfig, *, folds: int, folder: Path
    ) -> None:
        self.placement = placement
        self.card = draft_card(placement, shape)
        self._trials = trials
        self._shape = shape
        self._config = config
        self._folds = min(folds, len({t.person for t in trials if t.placement == placement}))
        self._folder = folder
        made_of = (placement, shape, config, folds, ONE_CHOOSES_OF, SET_WEIGHTS, fingerprint(trials))
        self._made_of = " ".join(str(part) for part in made_of)
        rng = np.random.default_rng(1)
        self._made_up = gestures(len(trials) // GESTURES_PER, rng) if placement == "wrist" else []
        self._own = [i for i, t in enumerate(trials) if t.placement == placement]
        by_person: dict[tuple[str, str], list[Trial]] = {}
        for i in self._own:
            by_person.setdefault((trials[i].dataset, trials[i].person), []).append(trials[i])
        self._single = {i: evaluate.single(trials[i]) for i in self._own}
        self._stitched = {key: evaluate.stitched(own) for key, own in by_person.items()}

    # -- doing --------------------------------------------------------------------------------

    def finish(self, tasks: Sequence[Task], *, workers: int) -> None:
        """Do the tasks that are not on disk yet, each in one thread, so many at a time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        todo = [task for task in dict.fromkeys(tasks) if not self.is_done(task)]
        bar = tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc="fits", unit="fit", disable=None)
        with (
            bar,
            ProcessPoolExecutor(
                min(workers, max(len(todo), 1)),
                mp_context=multiprocessing.get_context("fork"),  # the trials are there already, shared
                initializer=_begin,
                initargs=(self,),
            ) as pool,
        ):
            for future in as_completed([pool.submit(_do, task) for task in todo]):
                future.result()
                bar.update()

    def do(self, task: Task) -> None:
        """Fit, test, and leave the result on disk whole or not at all."""
        net = None
        if task.method == NETWORK:
            number = self._folds if task.fold is None else task.fold  # no two tasks begin from the same weights
            net = fit.fit(self._pool(task), self._shape, self._config, seed=1000 * task.seed + number + 1)
            scorer: evaluate.Scores = NetworkScorer(net, self.card)
        else:
            rng = np.random.default_rng(task.seed)
            scorer = baselines.learn(task.method, self._pool(task), self._shape, self.card, rng)
        scores = [scorer.score(evaluate.windows_of(s, self.card)) for s, _ in self._tested(task)]
        result = {
            "lengths": [len(s) for s in scores],
            "scores": np.concatenate([*scores, np.empty(0, np.float32)]),
        }
        path = self._path(task)
        unfinished = path.with_suffix(f".{os.getpid()}")
        weights = None if net is None else net.state_dict()
        torch.save({"task": asdict(task), "result": result, "weights": weights}, unfinished)
        unfinished.rename(path)

    def _pool(self, task: Task) -> Pool:
        fold = self._fold_of(task)
        learners = [
            t if t.placement == self.placement else replace(t, dataset=ELSEWHERE)
            for t in self._trials
            if not (task.left_out and t.dataset.startswith(task.left_out))
            and (task.fold is None or fold.get(t.person) != task.fold)
        ]
        rng = np.random.default_rng(task.seed)
        variants = self._config.variants
        return build_pool(
            learners + self._made_up, self._shape, variants=variants, set_weights=SET_WEIGHTS, rng=rng
        )

    def _fold_of(self, task: Task) -> dict[str, int]:
        known = (t for t in self._trials if not (task.left_out and t.dataset.startswith(task.left_out)))
        if not task.left_out:
            return split_by_person(known, self.placement, self._folds, task.seed)
        dealt = split_by_person(known, self.placement, ONE_CHOOSES_OF, seed=1)
        return {person: k or CHOOSERS for person, k in dealt.items()}

    def _tested(self, task: Task) -> Iterator[tuple[Stream, bool]]:
        """Return what a task is tested on, always in this order; True for single trials."""
        fold = self._fold_of(task)

        def is_tested(dataset: str, person: str) -> bool:
            left_out = bool(task.left_out) and dataset.startswith(task.left_out)
            return left_out if task.fold is None else not left_out and fold[person] == task.fold

        for i in self._own:
            if is_tested(self._trials[i].dataset, self._trials[i].person):
                yield self._single[i], True
        if task.left_out and task.fold is not None:
            return  # single trials choose the threshold
        for key, stream in self._stitched.items():
            if is_tested(*key):
                yield stream, False

    def _path(self, task: Task) -> Path:
        made_of = f"{self._made_of} {task}".encode() + _code_of(task.method)
        return self._folder / f"{hashlib.sha256(made_of).hexdigest()[:16]}.pt"

    # -- reading ------------------------------------------------------------------------------

    def tasks(self, method: str, seed: int, left_out: str = "") -> list[Task]:
        """Return the tasks of one run: everybody tested once, or one set left out and its threshold."""
        if left_out:
            return [Task(method, seed, left_out, CHOOSERS), Task(method, seed, left_out)]
        return [Task(method, seed, fold=k) for k in range(self._folds)]

    def is_done(self, task: Task) -> bool:
        """Return whether a task's result is on disk."""
        return self._path(task).is_file()

    def scored(self, task: Task) -> list[Scored]:
        """Return what a finished task said of all that it was tested on."""
        said = self._said(task)
        return [Scored(stream, single, said[id(stream)].tolist()) for stream, single in self._tested(task)]

    def _said(self, task: Task) -> dict[int, NDArray[np.float32]]:
        """Return the probabilities that a finished task gave, by the stream's identity."""
        result = torch.load(self._path(task), weights_only=False)["result"]
        parts = np.split(result["scores"], np.cumsum(result["lengths"])[:-1])
        return {id(stream): said for (stream, _), said in zip(self._tested(task), parts, strict=True)}

    def network(self, task: Task) -> FallNet:
        """Return the network of a finished task."""
        net = FallNet(self._shape.window_samples, self._shape.rate_hz)
        net.load_state_dict(torch.load(self._path(task), weights_only=False)["weights"])
        return net.eval()

    def run(self, method: str, seeds: Sequence[int], left_out: str = "", *, target: float) -> Run:
        """Return one run: scores of people never seen, and the threshold that others chose for each.

        Args:
            seeds: their scores are averaged, in log odds, as a committee's are; the first one deals the people.
        """
        heard = [self._said(task) for seed in seeds for task in self.tasks(method, seed, left_out)]
        by_task: dict[Task, list[Scored]] = {}
        for task in self.tasks(method, seeds[0], left_out):
            scored = by_task[task] = []
            for stream, is_single in self._tested(task):
                said = [one[id(stream)] for one in heard if id(stream) in one]
                assert len(said) == len(seeds)
                scored.append(Scored(stream, is_single, committee.agree(said).tolist()))
        tested = [task for task in by_task if task.fold != CHOOSERS]
        thresholds: dict[str, float] = {}
        for task in tested:
            others = [s for t, scored in by_task.items() if t != task for s in scored]
            threshold = evaluate.choose_threshold(others, self.card, THRESHOLD_WEIGHTS, target=target)
            thresholds |= {s.stream.person: threshold for s in by_task[task]}
        split = f"without {left_out}" if left_out else UNSEEN
        return Run(method, split, seeds[0], [s for task in tested for s in by_task[task]], thresholds)


_inherited: list[Protocol] = []  # in a worker: the one that began it


def _begin(protocol: Protocol) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a worker ends with the run that began it
    torch.set_num_threads(1)
    _inherited.append(protocol)


def _do(task: Task) -> None:
    _inherited[-1].do(task)


# As it was when it was imported: a file saved during a run must not name what the old code made.
_CODE = {m: Path(str(m.__file__)).read_bytes() for m in (arm, windows, readers, fit, network, baselines)}


def _code_of(method: str) -> bytes:
    """Return what shapes a result besides data and configuration."""
    modules = (arm, windows, readers, fit, network) if method == NETWORK else (arm, windows, readers, baselines)
    return b"".join(_CODE[module] for module in modules)


def _in_parts(samples_g: Accel) -> Iterator[Accel]:
    for start in range(0, len(samples_g), 1024):
        yield samples_g[start : start + 1024]
