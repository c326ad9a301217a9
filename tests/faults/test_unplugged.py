"""The receiver is pulled out and put back, often under another device's number, while detect runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.wire import DongleStatus, encode_frame
from tests.edge.home import Home, Service, until
from tests.edge.test_services import Line
from tests.faults.counts import count, tell

ALIVE = encode_frame(DongleStatus(1000, 0, 0))


def held(detect: Service) -> tuple[int, int]:
    """Return how many descriptors and threads it has."""
    return len(os.listdir(f"/proc/{detect.pid}/fd")), len(os.listdir(f"/proc/{detect.pid}/task"))


@pytest.mark.timeout(1800)
def test_a_receiver_pulled_and_put_back_is_heard_again_within_five_seconds_and_nothing_leaks(
    tmp_path: Path,
) -> None:
    cycles, took_s, ports = count(3, 100), [], set()
    with Home(tmp_path) as home:
        detect = home.start("detect").ready()
        before = (0, 0)
        for i in range(cycles):
            line = Line(home.dongle_link)
            ports.add(line.name)
            keeps = os.openpty() if i % 3 == 0 else ()  # takes the number that would be next
            back_s = time.monotonic()
            while not home.receiver()["well"]:
                line.say(ALIVE)
                time.sleep(0.05)
                assert time.monotonic() - back_s < 30.0
            took_s.append(time.monotonic() - back_s)
            before = before if i else held(detect)
            after = held(detect)
            line.unplug()
            until(lambda: not home.receiver()["well"])
            for fd in keeps:
                os.close(fd)
        lasted_s = time.monotonic() - detect.started_s
        lines = len(detect.lines())
    p99_s = float(np.percentile(took_s, 99))
    tell(
        f"receiver pulled {cycles} times",
        resumed_p50_s=float(np.median(took_s)),
        resumed_p99_s=p99_s,
        ports=len(ports),
        descriptors_more=after[0] - before[0],
        threads_more=after[1] - before[1],
        log_lines=lines,
        lasted_s=lasted_s,
    )
    assert p99_s <= 5.0
    assert after == before
    assert lines <= 5 + lasted_s / 10
