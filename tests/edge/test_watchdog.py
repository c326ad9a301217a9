"""What a service tells its supervisor, as systemd hears it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core.incident import Kind
from edge.watchdog import Watchdog
from tests.edge.home import Home, Pager, Service, until


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


def test_a_service_says_that_it_is_ready_that_it_lives_and_that_it_ends(supervisor: socket.socket) -> None:
    watchdog = Watchdog()
    watchdog.ready()
    watchdog.alive()
    watchdog.alive("6 incidents open")
    watchdog.stopping()
    watchdog.alive()  # says nothing any more
    said = [supervisor.recv(100) for _ in range(4)]
    assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1\nSTATUS=6 incidents open", b"STOPPING=1"]


def test_an_abstract_socket_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0fallwatch-test-{os.getpid()}")
        heard.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@fallwatch-test-{os.getpid()}")
        watchdog = Watchdog()
        watchdog.ready()
        assert heard.recv(100) == b"READY=1"
        watchdog.stopping()


def test_without_a_supervisor_nothing_is_said_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    watchdog = Watchdog()
    watchdog.ready()
    watchdog.alive()
    watchdog.stopping()


def test_a_supervisor_that_went_away_does_not_end_the_service(supervisor: socket.socket, tmp_path: Path) -> None:
    watchdog = Watchdog()
    (tmp_path / "notify").unlink()
    watchdog.alive()
    watchdog.stopping()


@pytest.mark.parametrize("service", ["detect", "alarm"])
def test_a_service_feeds_the_watchdog_while_its_loop_turns_and_not_when_it_is_stuck(
    service: str, supervisor: socket.socket, tmp_path: Path
) -> None:
    with Home(tmp_path) as home, Pager(home.pager_link):
        process = home.start(service)
        assert supervisor.recv(100) == b"READY=1"
        begun_s = time.monotonic()
        assert [supervisor.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert time.monotonic() - begun_s < 10
        os.kill(process.pid, signal.SIGSTOP)
        supervisor.settimeout(2.5)
        with pytest.raises(TimeoutError):
            any(supervisor.recv(100) == b"" for _ in range(10))  # the first few were on their way
        os.kill(process.pid, signal.SIGCONT)


def child(supervisor: Service, name: str) -> int | None:
    """Return the pid of one of the services that `fallwatch run` has started."""
    return next((pid for pid, command in supervisor.children().items() if f"\0{name}\0" in command), None)


def test_the_supervisor_ends_an_alarm_service_that_is_stuck_and_what_is_open_is_called_again(
    tmp_path: Path,
) -> None:
    with Home(tmp_path) as home, Pager(home.pager_link) as pager:
        supervisor = home.start("run")
        pids = {
            "alarm": until(lambda: child(supervisor, "alarm")),
            "detect": until(lambda: child(supervisor, "detect")),
        }
        until(lambda: home.told("alarm") and home.told("detect"))
        os.kill(pids["detect"], signal.SIGSTOP)  # stuck as well: staff hear of it within 10 s
        stuck_s = time.monotonic()
        assert pager.wait("NO COVER FALL DETECTION STOPPED").at_s - stuck_s < 10
        os.kill(pids["alarm"], signal.SIGSTOP)
        stuck_s = time.monotonic()
        again = pager.wait("NO COVER FALL DETECTION STOPPED", after_s=stuck_s + 1)
        assert again.at_s - stuck_s < 10
        pager.wait("CANCELLED NO COVER", timeout_s=60)  # detect was ended and started again too
        assert home.case(Kind.BLIND).first("resolved") is not None
