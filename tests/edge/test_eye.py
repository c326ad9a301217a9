"""One camera in a process of its own: numbers come out, it ends with its parent, and it opens again what went."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.core.seen import Seen, parse_seen
from edge.core.supervision import Cause
from edge.detect.eyes import COMMAND, LEAN, Eye, EyeEvent, Saw, Shut, orders_of
from edge.eye import read_orders
from edge.settings import CameraSettings, CameraZoneSettings
from tests.edge.depth_scene import Scene, lying, upright
from tests.edge.eyes import FPS, empty_room, take_away, write_folder

SLOW_S = 30.0  # for what takes a second on an idle machine


def camera(folder: Path, **changes: Any) -> CameraSettings:
    lens = {"fx": 280.0, "fy": 280.0, "cx": 159.5, "cy": 119.5}
    made = CameraSettings("cam-12", "12", "folder", str(folder), width=320, height=240, fps=FPS, **lens)  # type: ignore[arg-type]
    return dataclasses.replace(made, **changes)


class Process:
    """An eye without anybody who restarts it."""

    def __init__(
        self, settings: CameraSettings, environment: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **LEAN, **(environment or {})},
            cwd=cwd,
            bufsize=0,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(orders_of(settings).encode())
        self._held = b""

    def line(self, timeout_s: float = SLOW_S) -> str:
        assert self.process.stdout is not None
        until_s = time.monotonic() + timeout_s
        while b"\n" not in self._held:
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"no line within {timeout_s} s"
            if select.select([self.process.stdout], [], [], left_s)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, f"ended: {self.errors()}"
                self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line.decode()

    def until(self, what: Callable[[Seen], bool], timeout_s: float = SLOW_S) -> Seen:
        until_s = time.monotonic() + timeout_s
        while not what(seen := parse_seen(self.line())):
            assert time.monotonic() < until_s, f"not within {timeout_s} s, but {seen}"
        return seen

    def errors(self) -> str:
        assert self.process.stderr is not None
        self.process.wait(10)
        return self.process.stderr.read().decode()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def test_an_eye_says_a_line_for_each_frame_and_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    with Process(camera(empty_room(tmp_path / "room"))) as eye:
        first = eye.until(lambda seen: seen.valid_part > 0)
        begun_s = time.monotonic()
        later = [parse_seen(eye.line()) for _ in range(20)]
        assert 1.0 < time.monotonic() - begun_s < 5.0
        assert all(seen.cause == "" and seen.people == () for seen in later)
        assert np.all(np.diff([first.time_s, *(seen.time_s for seen in later)]) > 0)
        assert abs(later[-1].time_s - time.monotonic()) < 1.0
        assert eye.process.stdin is not None
        eye.process.stdin.close()
        assert eye.process.wait(3) == 0
        assert eye.errors() == ""


def test_somebody_who_comes_in_and_lies_down_is_seen_in_less_than_60_mib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene()
    room = [scene.depth_mm() for _ in range(10)]
    walk = [scene.depth_mm(upright(-1.0 + 0.05 * i, 3.0)) for i in range(20)]
    lie = [scene.depth_mm(lying(0.0, 3.0)) for _ in range(20)] * 3
    folder = write_folder(tmp_path / "room", [*room, *walk, *lie])
    with Process(camera(folder, fps=30.0)) as eye:
        up = eye.until(lambda seen: any(p.head_m > 1.4 for p in seen.people))
        assert len(up.people) == 1
        eye.until(lambda seen: any(p.on_floor_s > 1.0 for p in seen.people))
        status = Path(f"/proc/{eye.process.pid}/status").read_text()
    rss_mib = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    with capsys.disabled():
        sys.stdout.write(f"\nan eye at 320 x 240 and 30 fps: {rss_mib:.1f} MiB")
    assert rss_mib < 60.0


@pytest.mark.alone
def test_a_camera_that_is_taken_away_is_reported_and_opened_again_within_two_seconds_of_its_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = empty_room(tmp_path / "room")
    with Process(camera(folder)) as eye:
        eye.until(lambda seen: seen.valid_part > 0)
        take_away(folder)
        gone_s = time.monotonic()
        assert eye.until(lambda seen: seen.cause != "", 10).cause == Cause.CAMERA_GONE
        reported_s = time.monotonic() - gone_s
        for _ in range(2):  # it speaks while there is nothing to see
            assert time.monotonic() - gone_s < 10
            eye.line(2.0)
        empty_room(folder)
        back_s = time.monotonic()
        eye.until(lambda seen: seen.valid_part > 0, 10)
        opened_s = time.monotonic() - back_s
        eye.until(lambda seen: seen.valid_part > 0 and seen.cause == "", 15)
        well_s = time.monotonic() - back_s
    with capsys.disabled():
        sys.stdout.write(
            f"\ngone: told after {reported_s:.1f} s; back: {opened_s:.1f} s to a frame, {well_s:.1f} s to well"
        )
    assert reported_s < 5.0
    assert opened_s < 2.5
    assert well_s < 10.0


def test_a_camera_that_is_not_there_yet_is_gone_and_waited_for(tmp_path: Path) -> None:
    with Process(camera(tmp_path / "room")) as eye:
        assert parse_seen(eye.line()).cause == Cause.CAMERA_GONE
        empty_room(tmp_path / "room")
        eye.until(lambda seen: seen.valid_part > 0, 10)


def test_a_room_without_a_floor_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    noise = [rng.integers(500, 4000, (240, 320)).astype(np.uint16) for _ in range(10)]
    with Process(camera(write_folder(tmp_path / "room", noise))) as eye:
        eye.until(lambda seen: seen.cause == Cause.CAMERA_FLOOR)


def test_a_covered_lens_is_named(tmp_path: Path) -> None:
    scene, hand = Scene(), np.full((240, 320), 150, np.uint16)
    frames = [*(scene.depth_mm() for _ in range(10)), *[hand] * 60]
    with Process(camera(write_folder(tmp_path / "room", frames))) as eye:
        blocked = eye.until(lambda seen: seen.cause == Cause.CAMERA_BLOCKED, 15)
        assert blocked.people == ()


def test_what_a_makers_library_prints_goes_nowhere_and_an_error_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'edge.sources.depth.folder':\n"
        "            os.write(1, b'noise on 1\\n'); os.write(2, b'noise on 2\\n'); print('printed', flush=True)\n"
        "            raise ValueError('array([[1234, 1235]])')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    with Process(camera(tmp_path / "room"), {"PYTHONPATH": str(tmp_path / "site")}) as eye:
        assert eye.process.wait(SLOW_S) == 1
        out, errors = (pipe.read() for pipe in (eye.process.stdout, eye.process.stderr) if pipe is not None)
    assert out == b""
    (line,) = errors.decode().splitlines()
    assert line.startswith("camera cam-12: its program ends: ValueError in ")
    assert "1234" not in line


def test_what_is_no_orders_ends_it() -> None:
    with pytest.raises(ValueError, match="no orders"):
        read_orders("[]")
    zone = CameraZoneSettings("bed", ((0.0, 1.0), (1.0, 1.0), (1.0, 2.0)), 0.5)
    made = camera(Path("x"), zone=(zone,), floor=(0.0, -1.0, 0.0, 2.2))
    orders = read_orders(orders_of(made))
    assert orders.camera == "cam-12"
    assert orders.wanted.intrinsics is not None
    assert orders.floor is not None
    assert orders.zones[0].polygon_m == zone.polygon_m
    assert (
        json.loads(orders_of(dataclasses.replace(made, fx=0, fy=0, cx=0, cy=0, kind="oak")))["intrinsics"] is None
    )


def crash(command: list[str], folder: Path) -> None:
    """Have a program crash in a folder."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSEGV)
        assert process.wait(10) == -signal.SIGSEGV


def test_its_memory_can_be_dumped_by_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "crash"
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        crash([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"], folder)
        dumps = [path.rename(tmp_path / path.name) for path in folder.iterdir()]
        with Process(camera(empty_room(tmp_path / "room")), cwd=folder) as eye:
            eye.until(lambda seen: seen.valid_part > 0)
            proc = Path(f"/proc/{eye.process.pid}")
            (core,) = [line.split() for line in (proc / "limits").read_text().splitlines() if "core file" in line]
            assert core[4:6] == ["0", "0"]
            assert (proc / "oom_score_adj").read_text() == "500\n"
            if os.getuid() != 0:  # where it cannot be dumped, its files are root's
                with pytest.raises(PermissionError):
                    (proc / "mem").open("rb").close()
            eye.process.send_signal(signal.SIGSEGV)
            assert eye.process.wait(5) == -signal.SIGSEGV
            assert eye.errors() == ""
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert list(folder.iterdir()) == []
    # The other program left one, where core files go to where a program runs and any are written.
    wanted = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").startswith("core")
    assert bool(dumps) is (wanted and before[1] != 0)


# -- who looks after it -------------------------------------------------------------------------------------


class Minder:
    """The thread of one eye, and what it hands over."""

    def __init__(self, settings: CameraSettings, command: tuple[str, ...] = COMMAND) -> None:
        self.eye = Eye(settings, command)
        self.events: queue.Queue[EyeEvent] = queue.Queue()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.eye.run, args=(self.events.put, self.stop))

    def wait(self, what: Callable[[EyeEvent], bool], timeout_s: float = SLOW_S) -> EyeEvent:
        until_s = time.monotonic() + timeout_s
        while not what(event := self.events.get(timeout=max(until_s - time.monotonic(), 0.01))):
            pass
        return event

    def sees(self) -> None:
        self.wait(lambda event: isinstance(event, Saw) and event.seen.valid_part > 0)


@contextmanager
def minded(settings: CameraSettings, command: tuple[str, ...] = COMMAND) -> Iterator[Minder]:
    minder = Minder(settings, command)
    minder.thread.start()
    try:
        yield minder
    finally:
        minder.stop.set()
        minder.thread.join(10)
        assert not minder.thread.is_alive()


def is_there(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def test_an_eye_that_is_killed_is_told_and_started_again(tmp_path: Path) -> None:
    with minded(camera(empty_room(tmp_path / "room"))) as minder:
        minder.eye.allow(True)
        minder.sees()
        pid = minder.eye.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        assert minder.wait(lambda event: isinstance(event, Shut)) == Shut("cam-12", "ended")
        assert time.monotonic() - killed_s < 1.0
        minder.sees()
        assert minder.eye.restarts == 1
        assert minder.eye.pid != pid


@pytest.mark.alone
def test_an_eye_that_is_held_up_is_killed_by_its_number_and_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with minded(camera(empty_room(tmp_path / "room"))) as minder:
        minder.eye.allow(True)
        minder.sees()
        pid = minder.eye.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        held_s = time.monotonic()
        assert minder.wait(lambda event: isinstance(event, Shut), 15) == Shut("cam-12", "says nothing")
        told_s = time.monotonic() - held_s
        assert not is_there(pid)
        minder.sees()
        back_s = time.monotonic() - held_s
    with capsys.disabled():
        sys.stdout.write(f"\nheld up: told after {told_s:.1f} s, a frame again after {back_s:.1f} s")
    assert 4.0 < told_s < 8.0


def test_no_process_runs_unless_it_may_look(tmp_path: Path) -> None:
    with minded(camera(empty_room(tmp_path / "room"))) as minder:
        time.sleep(0.5)
        assert minder.eye.pid is None
        minder.eye.allow(True)
        minder.sees()
        pid = minder.eye.pid
        minder.eye.allow(False)
        assert minder.wait(lambda event: isinstance(event, Shut)) == Shut("cam-12", "")
        assert not is_there(pid)
        assert minder.eye.pid is None
        minder.eye.allow(True)
        minder.sees()
        assert minder.eye.restarts == 0


def test_what_is_no_line_of_an_eye_is_counted_and_passed_over(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "print('hello'); print('[1e999, [], 1, \"\"]'); print('[1e9, [], 1, \"\"]')\n"
        "print('[1, [], 1, \"all is well\"]')\n"
        "print('x' * 300000)\n"
        "print('[1.0, [], 0.5, \"\"]', flush=True)\n"
        "sys.stdin.read(); sys.stdin.read()\n"
    )
    with minded(camera(tmp_path), (sys.executable, "-c", script)) as minder:
        minder.eye.allow(True)
        event = minder.wait(lambda event: isinstance(event, Saw))
        assert isinstance(event, Saw)
        assert event.seen == Seen(1.0, (), 0.5)
        assert minder.eye.bad_lines >= 5


def test_an_eye_that_cannot_be_started_is_tried_again_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.detect.eyes.RESTART_S", (0.05, 0.4))
    with minded(camera(tmp_path), (str(tmp_path / "no-such-program"),)) as minder:
        minder.eye.allow(True)
        told_s = []
        for _ in range(6):
            event = minder.wait(lambda event: isinstance(event, Shut))
            assert event == Shut("cam-12", "cannot be started (No such file or directory)")
            told_s.append(time.monotonic())
        pauses_s = np.diff(told_s)
        assert pauses_s[0] < 0.2
        assert pauses_s[-1] >= 0.4
