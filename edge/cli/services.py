"""Commands that run services."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from edge.cli import Config, Run, State, app, begin_service, say
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]
RESTART_AFTER_S = (0.2, 5.0)
STUCK_S = {"detect": 15.0, "alarm": 6.0}  # as WatchdogSec= of the units
START_S = 60.0
PR_SET_PDEATHSIG = 1  # prctl(2)


def _on_signal(stop_service: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_service())


def _end_with_parent() -> None:
    """Have the kernel stop this process when its parent dies, however that dies: two sets would page twice."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@app.command(epilog="Example: fallwatch detect --config fallwatch.toml --state state --run run")
def detect(
    config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE, run: Run = DEFAULT_RUN, verbose: Verbose = False
) -> None:
    """Sensors to incidents: the service that reads wearables and decides."""
    settings = begin_service(config, state, run, verbose=verbose)
    from edge.detect.service import DetectService  # numpy and onnxruntime stay out of the rest

    service = DetectService(settings, state, run)
    _on_signal(service.stop)
    service.run()


@app.command(epilog="Example: fallwatch alarm --config fallwatch.toml --state state --run run")
def alarm(
    config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE, run: Run = DEFAULT_RUN, verbose: Verbose = False
) -> None:
    """Incidents to people and the care record: the service that pages until somebody answers."""
    settings = begin_service(config, state, run, verbose=verbose)
    from edge.alarm.service import AlarmService  # one service does not load the other

    service = AlarmService(settings, state, run)
    _on_signal(service.stop)
    service.run()


@app.command(epilog="Example: fallwatch run --config fallwatch.toml --state state --run run")
def run(
    config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE, run: Run = DEFAULT_RUN, verbose: Verbose = False
) -> None:
    """All services of one home in the foreground; one that ends or no longer turns is started again."""
    begin_service(config, state, run, verbose=verbose)
    options = ["--config", str(config), "--state", str(state), "--run", str(run)] + ["--verbose"] * verbose
    children = [
        _Child(name, [sys.executable, "-m", "edge.cli", name, *options], stuck_s)
        for name, stuck_s in STUCK_S.items()
    ]
    stopping = False

    def on_stop() -> None:
        nonlocal stopping
        stopping = True

    _on_signal(on_stop)
    while not stopping:
        for child in children:
            child.look_after(time.monotonic())
        time.sleep(0.1)
    for child in children:
        child.end()


class _Child:
    """One service under ``fallwatch run``: what systemd does for it in a home."""

    def __init__(self, name: str, command: list[str], stuck_s: float) -> None:
        self._name, self._command, self._stuck_s = name, command, stuck_s
        self._process: subprocess.Popen[bytes] | None = None
        self._next_start_s = 0.0
        self._started_s = self._alive_s = 0.0
        self._ready = False
        self._pause_s = RESTART_AFTER_S[0]
        # In the abstract namespace: a path may be too long, and nothing is left behind.
        self._notify_name = f"fallwatch-{name}-{secrets.token_hex(8)}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.bind(f"\0{self._notify_name}")

    def look_after(self, now_s: float) -> None:
        """Start it, hear it, and end it when it is stuck."""
        self._hear(now_s)
        if self._process is not None and self._process.poll() is not None:
            say(f"{self._name} ended with status {self._process.returncode}: starting it again")
            self._process = None
            # One that ran for a while begins again at once; one that cannot start is not hurried.
            well = now_s - self._started_s > 2 * RESTART_AFTER_S[1]
            self._pause_s = RESTART_AFTER_S[0] if well else min(2 * self._pause_s, RESTART_AFTER_S[1])
            self._next_start_s = now_s + (0.0 if well else self._pause_s / 2)
        if self._process is not None and now_s - self._alive_s > (self._stuck_s if self._ready else START_S):
            say(f"{self._name} has said nothing for {now_s - self._alive_s:.0f} s: ending it")
            self._process.kill()
            self._process.wait()
        elif self._process is None and now_s >= self._next_start_s:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                env={**os.environ, "NOTIFY_SOCKET": f"@{self._notify_name}"},
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # one thread
            )
            self._started_s = self._alive_s = now_s
            self._ready = False

    def _hear(self, now_s: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                said = self._notify.recv(4096)
                self._alive_s = now_s
                self._ready = self._ready or b"READY=1" in said

    def end(self) -> None:
        """End it in its own time, or else at once."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._notify.close()
