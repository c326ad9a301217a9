"""``python -m training`` as a model developer types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("optuna", reason="the training extra is not installed")

import training.__main__
from tests.training.bounded import finish


def run(*args: str, timeout_s: float = 110, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "FALLWATCH_DATA"}
    return finish([sys.executable, "-m", "training", *args], env=kept | env, timeout_s=timeout_s)


COMMANDS = ("data", "train", "search", "evaluate", "quantise", "promote", "depth-clips", "depth-folder", "camera")


def test_no_command_says_which_there_are() -> None:
    done = run()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(command in done.stderr for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", command, "--help"])
    with pytest.raises(SystemExit) as left:
        training.__main__.main()
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m training {command}")
    assert len(said) > 120


def test_missing_data_is_said_in_one_line() -> None:
    done = run("data")
    assert done.returncode == 1
    assert "FALLWATCH_DATA" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    "FALLWATCH_DATA" not in os.environ, reason="FALLWATCH_DATA names no folder with the real data sets"
)
@pytest.mark.timeout(600)
@pytest.mark.first
def test_a_fast_run_goes_from_recordings_to_a_bundle_and_again_without_fitting(tmp_path: Path) -> None:
    asked = ("train", "--placement", "waist", "--out", str(tmp_path / "waist-9"), "--fast")
    where, work = os.environ["FALLWATCH_DATA"], tmp_path / "waist-9.work"
    done = run(*asked, timeout_s=280, FALLWATCH_DATA=where)
    assert done.returncode == 0, done.stderr
    files = sorted(p.name for p in (tmp_path / "waist-9").iterdir())
    assert files == ["card.json", "card.md", "golden.npz", "model.onnx"]
    assert (tmp_path / "waist-9.report" / "report.html").stat().st_size > 10_000
    said = json.loads((tmp_path / "waist-9" / "card.json").read_text(encoding="utf-8"))["results"]
    assert said["by_set"].keys() == {"assist-iot", "sisfall", "smartfallmm-meta-hip", "umafall"}
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    done = run(*asked, timeout_s=280, FALLWATCH_DATA=where)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in work.iterdir()} == before
