"""The eye: one depth camera in a process of its own, which lets out numbers about people and nothing else.

It is told what to look through by one line on its standard input, and ends when that is closed. A line of
`Seen` goes to its standard output for each frame, and once a second while none comes. Its memory, which holds
images, is dumped nowhere; whatever a maker's library prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import cv2

from edge.clock import monotonic_s
from edge.core.seen import Seen
from edge.core.supervision import Cause
from edge.depth.frame import Calibration, Frame, Intrinsics, Plane, Zone
from edge.depth.observer import Observer
from edge.depth.watch import FrameWatch
from edge.sources.depth import CameraGone, DepthCamera, Wanted, open_camera

SAY_EVERY_S = 1.0
REOPEN_S = 1.0  # between two tries
READ_S = 0.5
STUCK_S = 20.0  # a maker's library that holds us up for longer does not come back
LISTEN_S = 0.25
OOM_SCORE = Path("/proc/self/oom_score_adj")
COMPLAINT_MOST = 200  # characters
NOTHING_TO_SEE = frozenset({Cause.CAMERA_BLOCKED, Cause.CAMERA_DARK, Cause.CAMERA_FROZEN})
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # prctl(2)


@dataclass(frozen=True, slots=True)
class Orders:
    """What to look through."""

    camera: str  # its id
    wanted: Wanted
    floor: Plane | None
    zones: tuple[Zone, ...]


def read_orders(line: str) -> Orders:
    """Read the line that `edge.detect.eyes` writes.

    Raises:
        ValueError: it is something else.
    """
    try:
        told = json.loads(line)
        size = int(told["width"]), int(told["height"])
        lens = Intrinsics(*size, *map(float, told["intrinsics"])) if told["intrinsics"] else None
        return Orders(
            str(told["camera"]),
            Wanted(str(told["kind"]), str(told["device"]), *size, float(told["fps"]), lens),
            Plane(*map(float, told["floor"])) if told["floor"] else None,
            tuple(
                Zone(zone["kind"], tuple((x, z) for x, z in zone["polygon_m"]), zone["height_m"])
                for zone in told["zones"]
            ),
        )
    except (TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"no orders for a camera: {error!r}") from None


class Eye:
    """Looks through one camera, and opens it again when it went; `turn` by `turn`."""

    def __init__(self, orders: Orders, say: Callable[[Seen], None], complain: Callable[[str], None]) -> None:
        self.turned_s = self.said_s = monotonic_s()
        self._orders = orders
        self._say_out = say
        self._complain = complain
        self._camera: DepthCamera | None = None
        self._lens: Intrinsics | None = None
        self._observer: Observer | None = None
        self._watch = FrameWatch(orders.wanted.fps, now_s=monotonic_s())
        self._frame_s = 0.0  # when the newest frame was taken; 0 before the first
        self._cause: Cause | None = Cause.CAMERA_GONE
        self._complained = ""
        self._turn = threading.Lock()  # of speaking

    def turn(self) -> float:
        """Take a frame if one comes; return how long to leave the camera alone. Raises nothing of a camera's."""
        self.turned_s = monotonic_s()
        try:
            if self._camera is None:
                self._open()
            frame = None if self._camera is None else self._camera.read(READ_S)
        except CameraGone as error:
            self._lose(error.reason)
            return REOPEN_S
        if frame is None:
            self._cause = self._watch.late(now_s=monotonic_s()) or (None if self._frame_s else Cause.CAMERA_GONE)
            self.say_if_due()
            return 0.0
        self._complained = ""
        self._say(self._look(frame))
        return 0.0

    def say_if_due(self) -> None:
        """Say that no frame has come, once a second."""
        if monotonic_s() - self.said_s >= SAY_EVERY_S:
            self._say(Seen(self._frame_s, (), 0.0, self._cause or ""))

    def close(self) -> None:
        """Let the camera go."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def _open(self) -> None:
        self._camera = open_camera(self._orders.wanted)
        lens = self._camera.intrinsics
        if lens != self._lens:  # what was learnt holds for as long as the images are the same
            self._lens = lens
            known = Calibration(lens, self._orders.wanted.fps, self._orders.floor, self._orders.zones)
            self._observer = Observer(known)

    def _lose(self, reason: str) -> None:
        self.close()
        if reason != self._complained:
            self._complained = reason
            self._complain(reason)
        self._cause = self._watch.late(now_s=monotonic_s()) or Cause.CAMERA_GONE
        self.say_if_due()

    def _look(self, frame: Frame) -> Seen:
        self._frame_s = frame.time_s
        self._cause = self._watch.observe(frame, now_s=monotonic_s())
        if self._observer is None or self._cause in NOTHING_TO_SEE:  # of which the room is not learnt anew
            return Seen(frame.time_s, (), 0.0, self._cause or "")
        seen = self._observer.on_frame(frame)
        return Seen(seen.time_s, seen.people, seen.valid_part, self._cause or seen.cause)

    def _say(self, seen: Seen) -> None:
        with self._turn:
            self.said_s = monotonic_s()
            self._say_out(seen)


def step_back() -> None:
    """Have this process go before detection when memory runs out, and wait for it when the processor is short."""
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text("500", encoding="ascii")
    with contextlib.suppress(OSError):  # the service may forbid it
        os.nice(5)


def keep_memory_here(*, with_parent: bool = True) -> None:
    """Have no core dump and no debugger read what is in memory, and end when the parent does."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 0)  # the kernel then writes no core, whatever it is piped into
    if with_parent:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError, ValueError):  # where no limit may be changed, the service has set this one
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()


class Outside:
    """The two ways out, taken from the standard ones, which lead nowhere from now on."""

    def __init__(self) -> None:
        self._out, self._err = os.dup(1), os.dup(2)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        self.name = "camera"

    def say(self, seen: Seen) -> None:
        """Write a line for the parent; end where nobody listens."""
        line = f"{seen.to_line()}\n".encode()
        try:
            while line:
                line = line[os.write(self._out, line) :]
        except OSError:
            os._exit(0)

    def complain(self, reason: str) -> None:
        """Write one plain line for the log."""
        plain = "".join(c if c.isprintable() else " " for c in reason)[:COMPLAINT_MOST]
        with contextlib.suppress(OSError):
            os.write(self._err, f"{self.name}: {' '.join(plain.split())}\n".encode("utf-8", "replace"))

    def on_error(self, kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
        """Say where it went wrong: what an error says of itself may hold part of an image."""
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = trace.tb_frame.f_code if trace is not None else None
        place = (
            ""
            if code is None or trace is None
            else f" in {code.co_qualname} of {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        )
        self.complain(f"its program ends: {kind.__name__}{place}")


def watch_over(eye: Eye, outside: Outside) -> NoReturn:
    """End with the parent, speak while a library holds the eye up, and end when it does so for good."""
    while True:
        if select.select([0], [], [], LISTEN_S)[0] and not os.read(0, 4096):
            os._exit(0)
        if monotonic_s() - eye.turned_s > STUCK_S:
            outside.complain(f"its driver did not return for {STUCK_S:.0f} s")
            os._exit(1)
        eye.say_if_due()


def main() -> None:
    """Look until standard input is closed."""
    step_back()
    keep_memory_here()
    # numpy.random wants it and nobody here uses it: OpenSSL takes 3.4 MB of memory.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]  # as Python documents it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal it is for the parent
    outside = Outside()
    sys.excepthook = outside.on_error
    threading.excepthook = lambda _: os._exit(1)
    cv2.setNumThreads(1)
    orders = read_orders(_first_line())
    outside.name = f"camera {orders.camera}"
    eye = Eye(orders, outside.say, outside.complain)
    threading.Thread(target=watch_over, args=(eye, outside), daemon=True).start()
    wait = threading.Event()
    try:
        while True:
            wait.wait(eye.turn())
    finally:
        eye.close()


def _first_line() -> str:
    """Return the first line of standard input, read so that what comes after it is left there."""
    line = bytearray()
    while not line.endswith(b"\n"):
        octet = os.read(0, 1)
        if not octet:
            os._exit(0)
        line += octet
    return line.decode("utf-8", "replace")


if __name__ == "__main__":
    main()
