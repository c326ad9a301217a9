"""How soon a committed incident is on the pager, and what the alarm service costs a small computer's card.

The real service as a process of its own, a home of sixty residents, and a pager system on a pty that takes
every page at once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.clock import monotonic_s, utc_now
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.journal import JOURNAL_FILE, Journal
from edge.runfile import read_runfile, write_runfile
from edge.sinks.espa_station import EspaStation

RESIDENTS = 60
START_S = 20.0
PAGE_S = 20.0
HEARTBEAT_S = 1.0  # of detect, whose part is played here
SETTLE_S = 2.0


def run_alarm_bench(incidents: int, idle_s: float) -> dict[str, Any]:
    """Commit ``incidents`` one after the other, answer and close each, and measure; then look at an idle service.

    Raises:
        RuntimeError: the service does not start, or a page does not come.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrived_s: dict[str, float] = {}  # room: when its page was on the pager

        def on_page(_to: str, text: str, _call: str, _priority: str) -> None:
            arrived_s.setdefault(text.partition("RM ")[2].partition(" ")[0], monotonic_s())

        with EspaStation.on_pty(folder / "pager", on_page):
            (folder / "fallwatch.toml").write_text(_settings(folder), encoding="utf-8")
            _place_run(folder)
            options = [
                "--config",
                f"{folder}/fallwatch.toml",
                "--state",
                f"{folder}/state",
                "--run",
                f"{folder}/run",
            ]
            begun_s = monotonic_s()
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "edge.cli", "alarm", *options], stderr=subprocess.DEVNULL
            )
            try:
                ready_s = _wait_for(folder / "run" / "alarm.json", begun_s)
                return {"ready_s": round(ready_s, 2)} | _measure(folder, process.pid, incidents, idle_s, arrived_s)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
                shutil.rmtree((folder / "run").resolve())


def _measure(folder: Path, pid: int, incidents: int, idle_s: float, arrived_s: dict[str, float]) -> dict[str, Any]:
    rng = random.Random(1)  # noqa: S311 - a bench keeps no secrets
    journal = Journal(folder / "state" / JOURNAL_FILE)
    _pause(folder, SETTLE_S)
    size_0, written_0 = _size(folder), _written(pid)
    page_s = []
    for number in range(incidents):
        _pause(folder, rng.uniform(0.0, 0.4))  # at any point of the service's turn
        arrived_s.clear()
        room = str(number % RESIDENTS + 1)
        incident = _fall(room)
        journal.raise_incident(incident, since_impact_s=0.0)
        committed_s = monotonic_s()
        while room not in arrived_s:
            if monotonic_s() - committed_s > PAGE_S:
                raise RuntimeError(f"no page within {PAGE_S:g} s")
            _pause(folder, 0.002)
        page_s.append(arrived_s[room] - committed_s)
        journal.acknowledge(incident.incident, "bench")
        journal.resolve(incident.incident, Outcome.FALL, "bench")
    while journal.waiting("record"):
        _pause(folder, 0.1)
    _pause(folder, SETTLE_S)
    size_1, written_1 = _size(folder), _written(pid)
    cpu_0 = _cpu_s(pid)
    _pause(folder, idle_s)
    written_2, cpu_s = _written(pid), _cpu_s(pid) - cpu_0
    journal.close()
    ordered = sorted(page_s)
    return {
        "incidents": incidents,
        "page_s": {
            "p50": round(statistics.median(ordered), 3),
            "p99": round(ordered[min(round(0.99 * incidents), incidents - 1)], 3),
            "max": round(ordered[-1], 3),
        },
        "rss_mib": round(_rss_mib(pid), 1),
        "stored_kib_per_incident": round((size_1 - size_0) / incidents / 1024, 1),
        "written_kib_per_incident": round((written_1 - written_0) / incidents / 1024, 1),
        "idle_written_kib_per_day": round((written_2 - written_1) / idle_s * 86_400 / 1024),
        "idle_cpu_percent": round(100 * cpu_s / idle_s, 2),
    }


def _place_run(folder: Path) -> None:
    """Make the run folder, on tmpfs as in a home: a heartbeat is no write to a card."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    if memory.is_dir():
        place = Path(tempfile.mkdtemp(dir=memory))
        (folder / "run").symlink_to(place)
    else:
        (folder / "run").mkdir()


def _settings(folder: Path) -> str:
    residents = "".join(f'[[resident]]\nid = "r{n}"\nroom = "{n}"\n' for n in range(1, RESIDENTS + 1))
    calls = '[escalation]\ngroups = ["12", "20", "0", "99"]\n'
    return f'[home]\nid = "bench"\n{residents}[[pager]]\nport = "{folder}/pager"\n{calls}'


def _fall(room: str) -> Incident:
    now = utc_now()
    return Incident(
        incident=new_incident_id(),
        home="bench",
        kind=Kind.FALL,
        raised_at=now,
        impact_at=now,
        resident=f"r{room}",
        room=room,
        wearable="0001",
        placement="wrist",
        probability=0.97,
        model="bench",
    )


def _wait_for(path: Path, begun_s: float) -> float:
    while read_runfile(path) is None:
        if monotonic_s() - begun_s > START_S:
            raise RuntimeError(f"the alarm service is not ready within {START_S:g} s")
        time.sleep(0.01)
    return monotonic_s() - begun_s


def _pause(folder: Path, seconds: float) -> None:
    """Wait, and speak for detect meanwhile: its silence would be an incident too."""
    until_s = monotonic_s() + seconds
    while True:
        write_runfile(folder / "run" / "detect.json", {"unwritten": []})
        left_s = until_s - monotonic_s()
        if left_s <= 0:
            return
        time.sleep(min(left_s, HEARTBEAT_S))


def _size(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in (folder / "state").iterdir() if not path.name.endswith(("-wal", "-shm"))
    )


def _written(pid: int) -> int:
    """Return the bytes a process has handed to the kernel for disks."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
