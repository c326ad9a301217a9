"""What a service says of itself, replaced whole and never believed when old."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from edge import runfile
from edge.runfile import leave_word, read_runfile, take_words, write_runfile


def test_what_was_written_is_read_with_its_age(tmp_path: Path) -> None:
    for windows in range(20):  # also read in the very millisecond it was written in
        assert write_runfile(tmp_path / "detect.json", {"windows": windows})
        told = read_runfile(tmp_path / "detect.json")
        assert told is not None
        assert told["windows"] == windows
        assert 0 <= told["age_s"] < 5
    assert [p.name for p in tmp_path.iterdir()] == ["detect.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "{}", '{"mono_s": "soon"}', '{"mono_s": 1}', "\x00"])
def test_what_makes_no_sense_is_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "detect.json").write_text(text)
    assert read_runfile(tmp_path / "detect.json") is None


def test_a_service_that_never_ran_said_nothing(tmp_path: Path) -> None:
    assert read_runfile(tmp_path / "detect.json") is None


def test_what_was_said_before_a_reboot_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_runfile(tmp_path / "detect.json", {})
    monkeypatch.setattr(runfile, "boot_id", lambda: "another boot")
    assert read_runfile(tmp_path / "detect.json") is None


def test_what_was_said_in_the_future_is_not_believed(tmp_path: Path) -> None:
    write_runfile(tmp_path / "detect.json", {"mono_s": 1e12})
    assert read_runfile(tmp_path / "detect.json") is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert not write_runfile(tmp_path / "nowhere" / "detect.json", {})


def test_readers_never_see_half_of_one(tmp_path: Path) -> None:
    path, done = tmp_path / "detect.json", threading.Event()
    write_runfile(path, {"filler": ["x" * 50] * 200})

    def write() -> None:
        for i in range(200):
            write_runfile(path, {"filler": ["x" * 50] * (200 + i)})
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not done.is_set() or not reads:
        assert json.loads(path.read_text())["filler"]
        reads += 1
    thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for somebody else")
def test_what_root_leaves_belongs_to_the_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4711)
    assert leave_word(tmp_path, {"do": "test"})
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {4711}
    assert [word["do"] for word in take_words(tmp_path)] == ["test"]
