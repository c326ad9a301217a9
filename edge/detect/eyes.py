"""The eyes: a process for each camera, started, heard, and started again; images stay in there."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

from edge.clock import monotonic_s
from edge.core.seen import Seen, parse_seen
from edge.core.supervision import CAMERA_SILENCE_S, Cause
from edge.settings import INTRINSICS, CameraSettings

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "edge.eye")
# Each thread of OpenBLAS has memory of its own; what one image took is given back before the next.
LEAN = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
RESTART_S = (1.0, 30.0)  # the first pause, which doubles up to the second
STEADY_S = 60.0  # one that looked for so long begins again with the first
START_S = 20.0  # until its first word: a Pi takes its time to load OpenCV
LONGEST_LINE = 65_536
AHEAD_S = 1.0  # the clock is the same in both processes
LOOK_EVERY_S = 0.25  # at whether it may still look


@dataclass(frozen=True, slots=True)
class Saw:
    """A camera's eye said something."""

    camera: str
    seen: Seen
    received_s: float


@dataclass(frozen=True, slots=True)
class Shut:
    """A camera's eye is shut; ``reason`` is empty where it was told to."""

    camera: str
    reason: str


EyeEvent: TypeAlias = Saw | Shut
Put: TypeAlias = Callable[[EyeEvent], None]


def orders_of(camera: CameraSettings) -> str:
    """Return the line that an eye begins with."""
    lens = [getattr(camera, key) for key in INTRINSICS]
    orders = {
        "camera": camera.id,
        "kind": camera.kind,
        "device": camera.device,
        "width": camera.width,
        "height": camera.height,
        "fps": camera.fps,
        "intrinsics": lens if all(lens) else None,
        "floor": camera.floor or None,
        "zones": [asdict(zone) for zone in camera.zone],
    }
    return json.dumps(orders) + "\n"


class Eye:
    """One camera's process, looked after by one thread."""

    def __init__(self, camera: CameraSettings, command: tuple[str, ...] = COMMAND) -> None:
        self.camera = camera
        self.bad_lines = 0
        self.restarts = 0
        self.pid: int | None = None
        self._command = command
        self._may_look = threading.Event()

    @property
    def may_look(self) -> bool:
        """Whether it is to run."""
        return self._may_look.is_set()

    def allow(self, allowed: bool) -> None:
        """Let it look, or shut it."""
        if allowed:
            self._may_look.set()
        else:
            self._may_look.clear()

    def run(self, put: Put, stop: threading.Event) -> None:
        """Keep it looking while it may; the body of a thread."""
        pause_s = RESTART_S[0]
        while not stop.is_set():
            if not self._may_look.wait(LOOK_EVERY_S):
                pause_s = RESTART_S[0]
                continue
            begun_s = monotonic_s()
            reason = self._look(put, stop)
            put(Shut(self.camera.id, reason))
            if not reason:
                continue
            self.restarts += 1
            if monotonic_s() - begun_s >= STEADY_S:
                pause_s = RESTART_S[0]
            log.warning("camera %s: its program %s; again in %.0f s", self.camera.id, reason, pause_s)
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, RESTART_S[1])

    def _look(self, put: Put, stop: threading.Event) -> str:
        """Start it and hear it until it is to stop or no longer speaks; return why it did not."""
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **LEAN},
                bufsize=0,
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        try:
            process.stdin.write(orders_of(self.camera).encode())
            return self._hear(process.stdout.fileno(), put, stop)
        except BrokenPipeError:
            return "ended at once"
        finally:
            self._end(process)
            self.pid = None

    def _hear(self, out: int, put: Put, stop: threading.Event) -> str:
        poll = select.poll()
        poll.register(out, select.POLLIN | select.POLLHUP)
        silent_s = monotonic_s() + START_S
        held = b""
        while self._may_look.is_set() and not stop.is_set():
            if poll.poll(LOOK_EVERY_S * 1000):
                data = os.read(out, LONGEST_LINE)
                if not data:
                    return "ended"
                *lines, held = (held + data).split(b"\n")
                for line in lines:
                    if self._on_line(line, put):
                        silent_s = monotonic_s() + CAMERA_SILENCE_S
                if len(held) > LONGEST_LINE:
                    held, self.bad_lines = b"", self.bad_lines + 1
            if monotonic_s() > silent_s:
                return "says nothing"
        return ""

    def _on_line(self, line: bytes, put: Put) -> bool:
        try:
            seen, now_s = parse_seen(line.decode("utf-8")), monotonic_s()
            Cause(seen.cause or Cause.CAMERA_GONE)
            if not 0.0 <= seen.time_s <= now_s + AHEAD_S:
                raise ValueError("a frame of another time")
        except ValueError:
            self.bad_lines += 1
            return False
        put(Saw(self.camera.id, seen, now_s))
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Shut it: its standard input closes, which it ends by; else it is killed."""
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
