"""Measure a home's computer and write it down: ``sudo python3 package/measure.py --name 'Raspberry Pi 4, 4 GiB'``.

It runs on a computer with the package installed, by day: what it measures takes the processor from the services
for some minutes, and they are started again once. One line of the table in docs/hardware.md is this computer's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parent.parent / "docs/hardware.md"
COLUMNS = (
    "computer",
    "40 wearables: times real time",
    "decision p99 ms",
    "MiB",
    "one camera: CPU ms a frame",
    "start to READY s: detect, alarm",
    "sync of 4 KiB: median, worst ms",
    "hottest °C, throttled",
)


def main() -> None:
    """Measure, and put the line in its place."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True, help="what the computer is, for the table")
    parser.add_argument("--table", type=Path, default=TABLE, help="page whose table gets the line")
    parser.add_argument("--program", default="fallwatch", help="another fallwatch than the installed one")
    parser.add_argument("--seconds", type=int, default=60, help="length of each bench")
    options = parser.parse_args()
    wearables = _asked(options.program, "bench", "--wearables", "40", "--seconds", str(options.seconds), "--json")
    camera = _asked(options.program, "bench", "--cameras", "1", "--seconds", str(options.seconds // 3), "--json")
    median_ms, worst_ms = _sync_ms(options.table.parent)
    line = [
        options.name,
        f"{wearables['realtime_factor']:.0f}",
        f"{wearables['decision_ms']['p99']:.1f}",
        f"{wearables['rss_mib']:.0f}",
        f"{camera['cpu_ms_per_frame']:.1f}",
        ", ".join(_ready_s(name) for name in ("fallwatch-detect", "fallwatch-alarm")),
        f"{median_ms:.1f}, {worst_ms:.1f}",
        _heat(),
    ]
    options.table.write_text(with_line(options.table.read_text(encoding="utf-8"), line), encoding="utf-8")
    print("| " + " | ".join(line) + " |")
    print(f"Next: look at {options.table}, and send us the line.")


def with_line(page: str, line: list[str]) -> str:
    """Return the page with the line in its table, instead of one of the same computer."""
    begins, ends = "<!-- measured -->\n", "<!-- /measured -->"
    before, _, rest = page.partition(begins)
    _, _, after = rest.partition(ends)
    rows = [row for row in rest.partition(ends)[0].splitlines()[2:] if not row.startswith(f"| {line[0]} |")]
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return before + begins + "\n".join([*head, *rows, f"| {' | '.join(line)} |"]) + f"\n{ends}" + after


def _asked(*command: str) -> dict[str, Any]:
    print(f"{' '.join(command)} ...", file=sys.stderr)
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def _ready_s(service: str) -> str:
    """Return how long a service takes from its start to READY; the kernel's clock, by systemd."""
    if (
        not Path("/run/systemd/system").exists()
        or subprocess.run(["systemctl", "restart", service], check=False).returncode
    ):
        return "not run"
    asked = "--property=ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"
    said = subprocess.run(["systemctl", "show", asked, service], check=True, capture_output=True, text=True).stdout
    start_us, active_us = (int(re.search(rf"{name}\w*=(\d+)", said)[1]) for name in ("ExecMain", "Active"))  # type: ignore[index]
    return f"{(active_us - start_us) / 1e6:.1f}"


def _sync_ms(folder: Path) -> tuple[float, float]:
    """Return how long a small write takes to be on the disk: each incident waits for some of them."""
    path = folder / ".sync-trial"
    times_ms = []
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(100):
                began_s = time.perf_counter()
                file.write(bytes(4096))
                os.fsync(file.fileno())
                times_ms.append((time.perf_counter() - began_s) * 1000)
    finally:
        path.unlink(missing_ok=True)
    times_ms.sort()
    return times_ms[50], times_ms[-1]


def _heat() -> str:
    zones = [int(path.read_text()) / 1000 for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    throttled = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
    said = throttled.read_text().strip() if throttled.exists() else "not told"
    return f"{max(zones):.0f}, {said}" if zones else f"not told, {said}"


if __name__ == "__main__":
    main()
