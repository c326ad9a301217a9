"""The search for a better way of fitting: who is kept from it, what is tried, what is kept for the next time."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("optuna", reason="the training extra is not installed")

import optuna
from optuna.trial import TrialState

from tests.training.bounded import finish
from tests.training.made_up import trial, trials_of
from training import bundle, evaluate, search, train
from training.evaluate import Scored
from training.fit import FitConfig
from training.windows import Shape

TRIALS = trials_of("umafall", "sisfall", people=4, lent="umafall")
PRESENT = FitConfig()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is needed, and little time."""
    monkeypatch.setattr(search, "trials_for", lambda placement, every: TRIALS)
    monkeypatch.setattr(search, "FitConfig", partial(FitConfig, variants=1, batch=128))


@pytest.mark.usefixtures("made_up")
def test_a_search_ends_with_a_table_and_the_command_that_trains_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(tmp_path / "trial" / "search.log")
    search.main(["--trials", "2", "--steps", "4", "--study", study])
    *shown, command = capsys.readouterr().out.splitlines()
    assert "as it is" in "".join(shown)
    config, fitting = train.from_args(command.split()[4:])
    assert (config.placement, fitting.steps) == ("wrist", 4)
    # Again, with one more: what is there is not done again.
    search.main(["--trials", "3", "--steps", "4", "--study", study, "--workers", "1"])
    assert "3 tried" in capsys.readouterr().out
    assert len(list((tmp_path / "trial" / "search.work").iterdir())) == 3 * search.FOLDS


def test_one_in_five_people_of_each_set_is_kept_back_wherever_they_wore_it() -> None:
    left = search.not_kept_back(TRIALS, "wrist")
    away = {t.person for t in TRIALS} - {t.person for t in left}
    assert sorted(p.split("/")[0] for p in away) == ["sisfall", "umafall"]
    assert {t.placement for t in left} == {"wrist", "waist"}
    other_order = search.not_kept_back(TRIALS[::-1], "wrist")
    assert {t.person for t in other_order} == {t.person for t in left}


def test_people_who_were_kept_back_change_nothing_in_what_is_found(tmp_path: Path) -> None:
    config = FitConfig(steps=5, batch=32, variants=1)
    away = {t.person for t in TRIALS} - {t.person for t in search.not_kept_back(TRIALS, "wrist")}
    silent = [replace(t, accel_g=t.accel_g * np.float32(0.9)) if t.person in away else t for t in TRIALS]
    found = []
    for name, trials in (("a", TRIALS), ("b", silent)):
        left = search.not_kept_back(trials, "wrist")
        found.append(search.worth(left, "wrist", tmp_path / name, config, 1))
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "ab"]
    assert names[0] == names[1]  # named by the data
    assert found[0] == found[1]


def scored(dataset: str, probability: float, impact_s: float | None) -> Scored:
    """A recording whose every window has the same score."""
    stream = evaluate.single(trial(person=f"{dataset}/1", impact_s=impact_s))
    return Scored(stream, True, [probability] * 24)


def test_a_way_of_fitting_is_worth_the_mean_over_the_sets_of_falls_found_at_one_in_a_hundred() -> None:
    daily = [scored("umafall", p, None) for p in np.linspace(0.1, 0.5, 99)] + [scored("umafall", 0.9, None)]
    falls = [scored("umafall", p, 4.0) for p in (0.6, 0.7, 0.8, 0.3)] + [
        scored("hifd", p, 4.0) for p in (0.6, 0.3)
    ]
    card = bundle.draft_card("wrist", Shape())
    assert search.found_at_target([*daily, *falls], card) == pytest.approx((3 / 4 + 1 / 2) / 2)
    # Twice as many would alarm: the threshold goes up, and nothing is found below it.
    louder = [*daily, scored("umafall", 0.9, None), *falls]
    assert search.found_at_target(louder, card) == 0.0


# -- the loop, with a peer that answers at once --------------------------------------------------


class Peer:
    """Answers with the learning rate, times a hundred; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[FitConfig, int]] = []

    def __call__(self, config: FitConfig, folds: int) -> Future[float]:
        self.asked.append((config, folds))
        answer: Future[float] = Future()
        answer.set_result(100 * config.learning_rate)
        return answer


def begun(path: Path) -> optuna.Study:
    return search.open_study(path, "wrist", PRESENT)


@pytest.mark.parametrize("name", ["s.log", "s.db"])
def test_the_first_trial_is_the_present_way_and_the_study_is_found_again(tmp_path: Path, name: str) -> None:
    peer = Peer()
    search.search(begun(tmp_path / name), peer, PRESENT, trials=4, at_once=2)
    assert [folds for _, folds in peer.asked].count(1) == 4
    assert peer.asked[0] == (PRESENT, 1)
    later = Peer()
    search.search(begun(tmp_path / name), later, PRESENT, trials=6, at_once=2)
    assert [folds for _, folds in later.asked].count(1) == 2
    assert not {config for config, _ in later.asked} & {config for config, _ in peer.asked}
    search.search(begun(tmp_path / name), later, PRESENT, trials=6, at_once=2)
    assert [folds for _, folds in later.asked].count(1) == 2


def test_what_is_poor_after_the_first_fold_is_not_tried_on_the_second(tmp_path: Path) -> None:
    peer = Peer()
    study = begun(tmp_path / "s.log")
    search.search(study, peer, PRESENT, trials=20, at_once=1)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    ended = study.get_trials(states=(TrialState.COMPLETE,))
    assert (len(pruned) + len(ended), len(pruned) > 0) == (20, True)
    assert len(peer.asked) == 2 * len(ended) + len(pruned)
    assert study.best_value == max(100 * config.learning_rate for config, _ in peer.asked)


def test_as_many_as_asked_for_run_at_once_and_no_more(tmp_path: Path) -> None:
    running, most, lock, three = 0, 0, threading.Lock(), threading.Event()

    def work() -> float:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if running == 3:
            three.set()
        assert three.wait(timeout=30)
        with lock:
            running -= 1
        return 0.5

    with ThreadPoolExecutor(8) as pool:
        study = begun(tmp_path / "s.log")
        search.search(study, lambda config, folds: pool.submit(work), PRESENT, trials=8, at_once=3)
    assert most == 3
    assert len(study.trials) == 8


def test_a_trial_that_was_running_when_the_search_died_is_tried_again(tmp_path: Path) -> None:
    dead = begun(tmp_path / "s.log").ask(search.SPACE)
    peer = Peer()
    study = begun(tmp_path / "s.log")
    search.search(study, peer, PRESENT, trials=2, at_once=1)
    assert peer.asked[0] == (search.config_of(PRESENT, dead.params), 1)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]


@given(seed=st.integers(0, 2**16), placement=st.sampled_from(["wrist", "waist"]))
def test_the_command_line_gives_the_very_configuration_that_was_tried(seed: int, placement: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    config = search.config_of(PRESENT, study.ask(search.SPACE).params)
    assert train.from_args(search.command_line(placement, config).split()[4:])[1] == config


# -- Ray -----------------------------------------------------------------------------------------


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(os, "environ", {})  # what it sets for Ray is for Ray
    with (
        pytest.raises(SystemExit, match=r"^--ray needs the package ray: pip install"),
        search.on_ray(TRIALS, "wrist", tmp_path, 1, "local"),
    ):
        pass


ON_RAY = """
import os, subprocess, sys
from pathlib import Path
from training import search
from training.fit import FitConfig

def worth(trials, placement, folder, config, folds):  # goes to Ray whole, so that no worker waits for torch
    assert (len(trials), placement, folder.name) == (3, "wrist", "work")
    return config.learning_rate * folds

search.worth = worth
base = FitConfig()
study = search.open_study(Path("s.log"), "wrist", base)
with search.on_ray(["some", "trials", "more"], "wrist", Path("work"), 2, "local") as submit:
    search.search(study, submit, base, trials=3, at_once=2)
    address = sys.modules["ray"].get_runtime_context().gcs_address
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    code = f"import ray; ray.init({address!r}, logging_level=50)"
    print(subprocess.run([sys.executable, "-c", code], env=stranger, stderr=subprocess.DEVNULL).returncode)
print([t.value == search.FOLDS * search.config_of(base, t.params).learning_rate for t in study.trials])
"""


@pytest.mark.timeout(300)  # some seconds, but a machine that is busy training gives it little of them
def test_ray_brings_back_what_its_workers_found_and_lets_no_stranger_in(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the search extra is not installed")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = finish([sys.executable, "-c", ON_RAY], cwd=tmp_path, env=env, timeout_s=280)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "1\n[True, True, True]\n"
