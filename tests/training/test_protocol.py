"""Who learns, who is tested, and what a run that was interrupted still has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("onnxscript", reason="the training extra is not installed")

import torch

from models.card import Card
from tests.training.made_up import trials_of
from training import bundle, evaluate
from training.committee import agree
from training.evaluate import NETWORK, UNSEEN, Scored
from training.fit import FitConfig
from training.protocol import Protocol, Task
from training.readers import Trial
from training.windows import Shape

SHAPE = Shape()
torch.set_num_threads(1)  # on a busy machine threads that wait for each other take many times longer
CONFIG = FitConfig(steps=8, batch=32, variants=1, averaging=0.8)
FOLDS = 3
TRIALS = trials_of("umafall", "sisfall", people=4, lent="umafall")
PEOPLE = {t.person for t in TRIALS}


def protocol(folder: Path, trials: Sequence[Trial] = TRIALS) -> Protocol:
    return Protocol(trials, "wrist", SHAPE, CONFIG, folds=FOLDS, folder=folder)


def result(work: Protocol, task: Task) -> list[Scored]:
    """What one finished task said."""
    said = work._said(task)
    return [Scored(stream, single, said[id(stream)].tolist()) for stream, single in work._tested(task)]


def people(scored: Sequence[Scored]) -> set[str]:
    return {one.stream.person for one in scored}


def said(scored: Sequence[Scored]) -> list[list[float]]:
    return [one.scores for one in scored]


def weights(of: Protocol, task: Task) -> list[float]:
    return [v for p in of.network(task).parameters() for v in p.detach().flatten().tolist()]


def otherwise(trials: Sequence[Trial], who: set[str]) -> list[Trial]:
    """The same trials, but those of some people came out differently, wherever on the body."""
    return [replace(t, accel_g=t.accel_g[::-1] * np.float32(1.3)) if t.person in who else t for t in trials]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    """A protocol whose tasks of one seed are finished: all people, and one set left out."""
    work = protocol(tmp_path_factory.mktemp("work"))
    work.finish([*work.tasks(NETWORK, 1), *work.tasks(NETWORK, 1, "umafall")], workers=2)
    return work


def test_everybody_is_tested_once_alone_and_end_to_end(done: Protocol) -> None:
    scored = [one for task in done.tasks(NETWORK, 1) for one in result(done, task)]
    own = [t for t in TRIALS if t.placement == "wrist"]
    assert sum(one.single for one in scored) == len(own)
    assert sorted(one.stream.person for one in scored if not one.single) == sorted(PEOPLE)
    assert sum(len(one.stream.falls) for one in scored if one.single) == sum(t.is_fall for t in own)


def test_what_a_tested_person_did_changes_nothing_in_the_network_that_tests_them(
    done: Protocol, tmp_path: Path
) -> None:
    tested, other, _ = done.tasks(NETWORK, 1)
    who = people(result(done, tested))
    again = protocol(tmp_path, otherwise(TRIALS, who))
    again.finish([tested, other], workers=2)
    assert people(result(again, tested)) == who
    assert weights(again, tested) == weights(done, tested)
    assert weights(again, other) != weights(done, other)
    assert said(result(again, tested)) != said(result(done, tested))


def test_a_set_left_out_neither_teaches_nor_chooses_the_threshold(done: Protocol, tmp_path: Path) -> None:
    who = {p for p in PEOPLE if p.startswith("umafall")}
    tasks = done.tasks(NETWORK, 1, "umafall")
    again = protocol(tmp_path, otherwise(TRIALS, who))
    again.finish(tasks, workers=2)
    for task in tasks:
        assert weights(again, task) == weights(done, task)
    runs = [work.run(NETWORK, [1], "umafall", target=0.1) for work in (done, again)]
    for run in runs:
        assert run.split == "without umafall"
        assert people(run.scored) == run.thresholds.keys() == who
    assert runs[0].thresholds == runs[1].thresholds
    assert said(runs[0].scored) != said(runs[1].scored)


def test_nobody_helps_to_choose_the_threshold_they_are_judged_at(
    done: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []

    def choose(scored: Sequence[Scored], card: Card, weights: dict[str, float], *, target: float) -> float:
        asked.append(people(scored))
        return float(len(asked))

    monkeypatch.setattr(evaluate, "choose_threshold", choose)
    run = done.run(NETWORK, [1], target=0.1)
    assert (run.split, len(asked), set(run.thresholds)) == (UNSEEN, FOLDS, PEOPLE)
    for person, threshold in run.thresholds.items():
        others = asked[int(threshold) - 1]
        assert person not in others
        assert others == {p for p, t in run.thresholds.items() if t != threshold}
    asked.clear()
    run = done.run(NETWORK, [1], "umafall", target=0.1)
    (others,) = asked
    assert people(run.scored) == run.thresholds.keys() == {p for p in PEOPLE if p.startswith("umafall")}
    assert others
    assert others < PEOPLE - run.thresholds.keys()
    # Who chose the threshold was scored by a network that did not know them.
    assert others == people(result(done, done.tasks(NETWORK, 1, "umafall")[0]))


def test_a_committee_says_what_its_members_agree_on_about_people_none_of_them_knew(done: Protocol) -> None:
    done.finish(done.tasks(NETWORK, 2), workers=2)
    by_seed = [
        {id(one.stream): one.scores for task in done.tasks(NETWORK, seed) for one in result(done, task)}
        for seed in (1, 2)
    ]
    run = done.run(NETWORK, [1, 2], target=0.1)
    assert len(run.scored) == len(by_seed[0]) == len(by_seed[1])
    for one in run.scored:
        members = [np.array(said[id(one.stream)], np.float32) for said in by_seed]
        assert one.scores == agree(members).tolist()
    assert by_seed[0] != by_seed[1]


def test_two_workers_find_what_one_finds(done: Protocol, tmp_path: Path) -> None:
    alone = protocol(tmp_path)
    tasks = alone.tasks(NETWORK, 1)[:2]
    alone.finish(tasks, workers=1)
    for task in tasks:
        assert said(result(alone, task)) == said(result(done, task))


def test_the_bundle_of_a_network_says_what_the_network_said(done: Protocol) -> None:
    task = done.tasks(NETWORK, 1)[0]
    with bundle.temporary(done.network(task), "wrist", SHAPE, 0.5) as scorer:
        for one in result(done, task):
            assert scorer.score(evaluate.windows_of(one.stream, scorer.card)) == pytest.approx(
                np.array(one.scores), abs=bundle.PARITY
            )


# -- files ----------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again_and_what_is_missing_is(tmp_path: Path) -> None:
    work = protocol(tmp_path)
    tasks = work.tasks(NETWORK, 1)
    work.finish(tasks, workers=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(before) == len(tasks)
    protocol(tmp_path).finish(tasks, workers=2)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    gone, *kept = before
    gone.unlink()
    protocol(tmp_path).finish(tasks, workers=2)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == [gone]
    assert kept


def test_a_file_that_was_being_written_when_the_run_died_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = protocol(tmp_path)
    task = work.tasks(NETWORK, 1)[0]
    with monkeypatch.context() as dying:

        def save(what: object, path: Path) -> None:
            path.write_bytes(b"half a fi")
            raise KeyboardInterrupt

        dying.setattr(torch, "save", save)
        with pytest.raises(KeyboardInterrupt):
            work.do(task)
    (torn,) = tmp_path.iterdir()
    with pytest.raises(FileNotFoundError):
        result(work, task)
    work.finish([task], workers=1)
    assert result(work, task)
    assert torn.read_bytes() == b"half a fi"


def test_another_configuration_data_or_split_takes_no_result_of_this_one(done: Protocol) -> None:
    task = done.tasks(NETWORK, 1)[0]
    folder = done._folder

    def other(**changed: object) -> Protocol:
        asked = {"trials": TRIALS, "shape": SHAPE, "config": CONFIG, "folds": FOLDS} | changed
        return Protocol(placement="wrist", folder=folder, **asked)  # type: ignore[arg-type]  # a dict of fields, so mypy tries every type

    assert said(result(other(), task)) == said(result(done, task))
    for changed in (
        {"config": replace(CONFIG, dropout=0.1)},
        {"trials": otherwise(TRIALS, {"umafall/0"})},
        {"shape": Shape(hop_samples=8)},
        {"folds": 2},
    ):
        with pytest.raises(FileNotFoundError):
            result(other(**changed), task)
