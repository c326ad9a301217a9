"""``python -m training`` as a model developer types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", *args],
        env={k: v for k, v in os.environ.items() if k != "FALLWATCH_DATA"} | env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_no_command_says_which_there_are() -> None:
    done = run()
    assert done.returncode == 2
    assert "train" in done.stderr


def test_missing_data_is_said_in_one_line() -> None:
    done = run("data")
    assert done.returncode == 1
    assert "FALLWATCH_DATA" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    "FALLWATCH_DATA" not in os.environ, reason="FALLWATCH_DATA names no folder with the real data sets"
)
def test_a_fast_run_goes_from_recordings_to_a_bundle(tmp_path: Path) -> None:
    where = os.environ["FALLWATCH_DATA"]
    done = run("train", "--placement", "waist", "--out", str(tmp_path / "waist-9"), "--fast", FALLWATCH_DATA=where)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "waist-9").iterdir()) == ["card.json", "golden.npz", "model.onnx"]
