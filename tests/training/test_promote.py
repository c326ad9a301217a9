"""A bundle takes the place of the one that runs, or is refused with the gate it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

from models import bundle as shelf
from models.card import BundleRefused, newest, read_card, shipped
from models.scorer import Scorer
from tests.conftest import MakeBundle
from training import bundle, promote

Change = Callable[[dict[str, Any]], object]


def facts(
    *, falls: int, found: int, trials: int, alarming: int, hours: float = 10.0, false: int = 10
) -> dict[str, Any]:
    delay = {"p50": 1.3, "p95": 6.0}
    return {
        "trials": {
            "falls": falls,
            "detected": found,
            "delay_s": delay,
            "daily_hours": 0.0,
            "false_alarms": 0,
            "daily_trials": trials,
            "daily_trials_alarming": alarming,
            "false_by_activity": {},
        },
        "streams": {
            "falls": falls,
            "detected": found,
            "delay_s": delay,
            "daily_hours": hours,
            "false_alarms": false,
            "daily_trials": 0,
            "daily_trials_alarming": 0,
            "false_by_activity": {},
        },
    }


def history() -> dict[str, Any]:
    """What a sound card has besides what the daemon needs."""
    return {
        "parity_to_torch": 2e-7,
        "training": {"sets": [{"name": "a", "sha256": "0" * 64}]},
        "results": {
            "seeds": 5,
            "control_auc": 0.55,
            "by_set": {
                "a": facts(falls=1000, found=800, trials=2000, alarming=20),
                "b": facts(falls=0, found=0, trials=1000, alarming=0),
            },
            "left_out": {"a": facts(falls=1000, found=700, trials=2000, alarming=60)},
        },
    }


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """A folder of shipped bundles with `wrist-1` in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.move(make_bundle("wrist-1", **history()), folder / "wrist-1")
    monkeypatch.setattr(shelf, "BUNDLES", folder)
    monkeypatch.setattr(bundle, "us_per_window", lambda scorers, _batch: [10.0] * len(scorers))
    return folder


@pytest.fixture
def candidate(make_bundle: MakeBundle) -> Callable[[Change], Path]:
    def make(change: Change) -> Path:
        own = history()
        change(own)
        return make_bundle("trial", **own)

    return make


def trials(own: dict[str, Any], name: str = "a", where: str = "by_set") -> dict[str, Any]:
    found: dict[str, Any] = own["results"][where][name]["trials"]
    return found


def streams(own: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = own["results"]["by_set"]["a"]["streams"]
    return found


def test_a_better_bundle_lands_and_runs(home: Path, candidate: Callable[[Change], Path]) -> None:
    folder = candidate(lambda own: trials(own).update(detected=850))
    assert promote.main([str(folder)]) == 0
    assert newest("wrist") == home / "wrist-2"
    scorer = Scorer(home / "wrist-2")
    assert scorer.card.name == "wrist-2"
    assert scorer.card.facts["promoted"] == {"against": "wrist-1", "worse": [], "reason": ""}
    assert sorted(p.name for p in (home / "wrist-2").iterdir()) == [
        "card.json",
        "card.md",
        "golden.npz",
        "model.onnx",
    ]
    assert "850 of 1000" in (home / "wrist-2" / "card.md").read_text(encoding="utf-8")
    assert (home / "wrist-2").stat().st_mode & 0o777 == 0o755
    assert read_card(folder).name == "trial"  # the candidate stays as it was


def test_an_equal_bundle_lands(home: Path, candidate: Callable[[Change], Path]) -> None:
    assert promote.main([str(candidate(lambda _: None))]) == 0
    assert [f.name for f in shipped("wrist")] == ["wrist-2", "wrist-1"]


WORSE: dict[str, tuple[Change, str]] = {
    "fewer falls": (lambda own: trials(own).update(detected=789), "falls found: 1.10 points lower"),
    "more daily trials": (
        lambda own: trials(own).update(daily_trials_alarming=27),  # of 3000 in both sets
        "daily trials alarming: 0.23 points higher",
    ),
    "one set of daily trials": (
        lambda own: (
            trials(own).update(daily_trials_alarming=0),
            trials(own, "b").update(daily_trials_alarming=21),
        ),
        "b: daily trials alarming: 2.10 points higher",
    ),
    "more per hour": (lambda own: streams(own).update(false_alarms=15), "false alarms per hour: 0.25 more"),
    "a set left out": (
        lambda own: trials(own, where="left_out").update(detected=680),
        "set left out: falls found: 2.00 points lower",
    ),
    "a set fewer": (lambda own: own["results"]["by_set"].pop("b"), "sets: not tested on b"),
    "a set without its daily life": (
        lambda own: trials(own).update(daily_trials=0, daily_trials_alarming=0),
        "sets: not tested on a",
    ),
    "control": (lambda own: own["results"].update(control_auc=0.66), "control AUC at chance: 0.06 too far"),
    "late": (lambda own: trials(own).update(delay_s={"p50": 2.0, "p95": 31.0}), "delay p95, slowest set: 1.0 s"),
}


@pytest.mark.parametrize(("change", "said"), WORSE.values(), ids=WORSE.keys())
def test_a_worse_bundle_is_refused_with_the_gate_and_by_how_much(
    home: Path, candidate: Callable[[Change], Path], capsys: pytest.CaptureFixture[str], change: Change, said: str
) -> None:
    assert promote.main([str(candidate(change))]) == 1
    assert said in capsys.readouterr().err
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda own: trials(own).update(detected=790),
        lambda own: trials(own).update(daily_trials_alarming=26),
        lambda own: streams(own).update(false_alarms=14),
        lambda own: own["results"].update(control_auc=0.4),
    ],
    ids=["falls", "daily trials", "per hour", "control"],
)
def test_a_difference_within_counting_noise_is_no_worse(
    home: Path, candidate: Callable[[Change], Path], change: Change
) -> None:
    assert promote.main([str(candidate(change))]) == 0
    assert (home / "wrist-2").is_dir()


def test_five_times_the_counts_are_the_same_shares(home: Path, candidate: Callable[[Change], Path]) -> None:
    def five_seeds(own: dict[str, Any]) -> None:
        for kinds in own["results"]["by_set"].values():
            for kind in kinds.values():
                kind.update({k: v * 5 for k, v in kind.items() if isinstance(v, int | float)})

    assert promote.main([str(candidate(five_seeds))]) == 0
    assert (home / "wrist-2").is_dir()


def test_a_slower_bundle_is_refused(
    home: Path,
    candidate: Callable[[Change], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundle, "us_per_window", lambda _scorers, _batch: [16.0, 10.0])
    assert promote.main([str(candidate(lambda _: None))]) == 1
    assert "1.60 times as long" in capsys.readouterr().err
    assert not (home / "wrist-2").exists()


UNSOUND: dict[str, tuple[Change, str]] = {
    "parity": (lambda own: own.pop("parity_to_torch"), "parity_to_torch is None"),
    "wide parity": (lambda own: own.update(parity_to_torch=1e-3), "parity_to_torch is 0.001"),
    "data hash": (lambda own: own["training"]["sets"][0].pop("sha256"), "no data hash"),
    "results": (lambda own: own.pop("results"), "no falls of unseen people"),
    "seeds": (lambda own: own["results"].update(seeds=1), "results.seeds is 1"),
    "control": (lambda own: own["results"].pop("control_auc"), "control_auc is missing"),
}


@pytest.mark.parametrize(("change", "said"), UNSOUND.values(), ids=UNSOUND.keys())
def test_missing_evidence_is_refused_and_no_reason_overrules_that(
    home: Path, candidate: Callable[[Change], Path], capsys: pytest.CaptureFixture[str], change: Change, said: str
) -> None:
    assert promote.main([str(candidate(change)), "--force-reason", "in a hurry"]) == 1
    assert said in capsys.readouterr().err
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


def test_another_onnx_file_is_refused_and_no_reason_overrules_that(
    home: Path, candidate: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = candidate(lambda _: None)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert promote.main([str(folder), "--force-reason", "in a hurry"]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


def test_a_reason_lands_a_worse_bundle_and_stays_in_its_card(
    home: Path, candidate: Callable[[Change], Path]
) -> None:
    folder = candidate(lambda own: trials(own).update(detected=700))
    assert promote.main([str(folder), "--force-reason", "wrist-1 fails on the new wearable"]) == 0
    promoted = read_card(home / "wrist-2").facts["promoted"]
    assert promoted["reason"] == "wrist-1 fails on the new wearable"
    assert [w.partition(":")[0] for w in promoted["worse"]] == ["falls found", "a"]


def test_what_the_card_in_place_does_not_say_is_not_judged(
    home: Path, candidate: Callable[[Change], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((home / "wrist-1" / "card.json").read_text())
    before["results"] = {"by_set": before["results"]["by_set"]}  # as the first bundles were
    (home / "wrist-1" / "card.json").write_text(json.dumps(before))
    assert promote.main([str(candidate(lambda own: trials(own, where="left_out").update(detected=0)))]) == 0
    assert "not judged" in capsys.readouterr().out


def test_the_first_bundle_of_a_placement_is_judged_by_itself(
    home: Path, candidate: Callable[[Change], Path]
) -> None:
    folder = candidate(lambda own: own.update(placement="waist"))
    assert promote.main([str(folder)]) == 0
    assert newest("waist") == home / "waist-1"


def test_a_broken_bundle_in_place_is_passed_over_as_the_daemon_does(
    home: Path, make_bundle: MakeBundle, candidate: Callable[[Change], Path]
) -> None:
    shutil.move(make_bundle("wrist-2", onnx_sha256="0" * 64), home / "wrist-2")
    assert promote.main([str(candidate(lambda _: None))]) == 0
    assert read_card(home / "wrist-3").facts["promoted"]["against"] == "wrist-1"


@pytest.mark.parametrize("name", ["wrist-1", "wrist-0", "waist-2", "wrist", "wrist-new"])
def test_a_name_that_would_not_run_is_bad_usage(
    home: Path, candidate: Callable[[Change], Path], name: str
) -> None:
    assert promote.main([str(candidate(lambda _: None)), "--name", name]) == 2
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


def test_a_failure_on_the_way_leaves_nothing_behind(
    home: Path, candidate: Callable[[Change], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_card", full)
    with pytest.raises(OSError, match="No space"):
        promote.main([str(candidate(lambda _: None))])
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


def test_a_candidate_that_changes_under_the_copy_does_not_land(
    home: Path, candidate: Callable[[Change], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = candidate(lambda _: None)
    (folder / "golden.npz").write_bytes(b"no archive")
    with pytest.raises(BundleRefused, match="golden"):
        promote.land(folder, "wrist-2", {})
    assert [p.name for p in home.iterdir()] == ["wrist-1"]


def test_killed_midway_no_bundle_is_half_there(home: Path, candidate: Callable[[Change], Path]) -> None:
    folder = candidate(lambda _: None)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from models import bundle as shelf; from training import promote\n"
        "shelf.BUNDLES = Path(sys.argv[1])\n"
        "promote.bundle.write_card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "promote.land(Path(sys.argv[2]), 'wrist-2', {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home), str(folder)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [name for name in os.listdir(home) if name != "wrist-1"]
    assert left
    assert all(name.startswith(".promoting-") for name in left)
    assert [f.name for f in shipped("wrist")] == ["wrist-1"]
    assert promote.main([str(folder)]) == 0  # and the next one lands
    assert newest("wrist").name == "wrist-2"
