"""Read what the computer says of itself; `edge.doctor.judge` makes findings of it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from edge.clock import clock_ok

ROOT = Path("/")
TRIAL_OCTETS = 65_536
UNITS = ("fallwatch-detect.service", "fallwatch-alarm.service")
TARGET = "fallwatch.target"
PACKAGE = "fallwatch"
_ASK_S = 5.0
_UNIT_KEYS = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState"),
    *("NRestarts", "ActiveEnterTimestampMonotonic", "ProtectClock"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer; what it does not tell is None."""

    bits: int
    temperature_c: float | None = None
    throttled: int | None = None  # a Pi's word, bit by bit: see `edge.doctor.judge`
    under_voltage: bool | None = None  # now
    memory_mib: float | None = None
    memory_free_mib: float | None = None
    swaps: tuple[str, ...] = ()
    has_rtc: bool = False
    has_watchdog: bool = False
    up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Storage:
    """The disk under the state folder."""

    free_mib: float
    size_mib: float
    read_only: bool
    write_s: float | None  # of a small file, synced; None where it cannot be written
    write_error: str = ""
    used_life_pct: tuple[tuple[str, int], ...] = ()  # of cards and eMMC that tell it: name, at most so much


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock."""

    synchronised: bool
    has_rtc: bool
    up_s: float
    timezone: str  # of the home
    by_timesyncd: bool = True  # which leaves a mark that the services see


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as systemd knows it."""

    name: str
    loaded: bool
    active: str  # active, inactive, failed, activating ...
    enabled: str  # enabled, disabled, static ...
    restarts: int
    ready_s: float | None  # how long ago it said that it is ready
    asks_clock: bool = True  # it may ask the kernel whether the clock is set


@dataclass(frozen=True, slots=True)
class Systemd:
    """What systemd says of the services."""

    units: tuple[Unit, ...]
    target: Unit
    runtime_watchdog: bool


@dataclass(frozen=True, slots=True)
class Packages:
    """What dpkg says."""

    status: str  # of our own package, such as "install ok installed"; empty: not from a package
    half: tuple[str, ...]  # packages that were left half way


def read_machine(root: Path = ROOT) -> Machine:
    """Return what files under ``root`` say: /sys, /proc, /dev."""
    memory = _meminfo(root)
    temperatures = [n / 1000 for p in root.glob("sys/class/thermal/thermal_zone*/temp") if (n := _number(p))]
    throttled = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    swaps = _text(root / "proc/swaps").splitlines()[1:]
    return Machine(
        bits=64 if sys.maxsize > 2**32 else 32,
        temperature_c=max(temperatures, default=None),
        throttled=int(throttled, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]+", throttled) else None,
        under_voltage=_under_voltage(root),
        memory_mib=memory.get("MemTotal"),
        memory_free_mib=memory.get("MemAvailable"),
        swaps=tuple(line.split()[0] for line in swaps if line.split()),
        has_rtc=(root / "sys/class/rtc/rtc0").exists(),
        has_watchdog=any(root.glob("dev/watchdog*")),
        up_s=up_s(root),
    )


def up_s(root: Path = ROOT) -> float:
    """Return for how long the computer has run."""
    with contextlib.suppress(ValueError, IndexError):
        return float(_text(root / "proc/uptime").split()[0])
    return 0.0


def read_clock(timezone: str, root: Path = ROOT) -> Clock:
    """Return whether the wall clock is set, and by what it would be after a power cut."""
    mark = root / "run/systemd/timesync/synchronized"
    return Clock(clock_ok(), (root / "sys/class/rtc/rtc0").exists(), up_s(root), timezone, mark.exists())


def read_storage(state: Path, root: Path = ROOT) -> Storage:
    """Write a small file beside the journal, sync it and take it away; tell how the disk is."""
    found = os.statvfs(state)
    write_s, write_error = None, ""
    trial = state / f".doctor-{uuid4().hex}"
    began_s = time.monotonic()
    try:
        number = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(number, os.urandom(TRIAL_OCTETS))
            os.fsync(number)
            write_s = time.monotonic() - began_s
        finally:
            os.close(number)
    except OSError as error:
        write_error = error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)
    return Storage(
        free_mib=found.f_bavail * found.f_frsize / 2**20,
        size_mib=found.f_blocks * found.f_frsize / 2**20,
        read_only=bool(found.f_flag & os.ST_RDONLY),
        write_s=write_s,
        write_error=write_error,
        used_life_pct=tuple(sorted(_wear(root))),
    )


def _wear(root: Path) -> list[tuple[str, int]]:
    """Return how much of its life each card that tells has used: JEDEC's steps of ten per cent, the worse one."""
    found = []
    for path in root.glob("sys/block/*/device/life_time"):
        steps = [int(word, 16) for word in _text(path).split() if re.fullmatch(r"0x[0-9a-fA-F]+", word)]
        if any(steps):  # 0 is "not told"
            found.append((path.parts[-3], 10 * max(steps)))
    return found


def _under_voltage(root: Path) -> bool | None:
    for path in root.glob("sys/class/hwmon/hwmon*/name"):
        if _text(path) == "rpi_volt":
            return _text(path.with_name("in0_lcrit_alarm")) == "1"
    return None


def _meminfo(root: Path) -> dict[str, float]:
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.M)
    return {name: int(kib) / 1024 for name, kib in lines}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?\d+", text) else None


# -- systemd and dpkg ---------------------------------------------------------------------------


def ask(command: Sequence[str]) -> str | None:
    """Return what a program of the system prints; None where there is none, or it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words of ours
            command, capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read_systemd(root: Path = ROOT) -> Systemd | None:
    """Return what systemd says; None where it does not run."""
    if not (root / "run/systemd/system").is_dir():
        return None
    shown = ask(["systemctl", "show", *UNITS, TARGET, f"--property={','.join(_UNIT_KEYS)}"])
    manager = ask(["systemctl", "show", "--property=RuntimeWatchdogUSec"])
    return None if shown is None else parse_systemd(shown, manager or "", now_s=time.monotonic())


def parse_systemd(shown: str, manager: str, *, now_s: float) -> Systemd | None:
    """Read what ``systemctl show`` prints: of the units, an empty line between them, and of systemd itself."""
    units = {}
    for block in shown.strip().split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        since_us = said.get("ActiveEnterTimestampMonotonic", "0")
        units[said.get("Id", "")] = Unit(
            said.get("Id", ""),
            said.get("LoadState") == "loaded",
            said.get("ActiveState", ""),
            said.get("UnitFileState", ""),
            int(said["NRestarts"]) if said.get("NRestarts", "").isdecimal() else 0,
            now_s - int(since_us) / 1e6 if since_us.isdecimal() and int(since_us) else None,
            asks_clock=said.get("ProtectClock") != "yes",
        )
    if not {*UNITS, TARGET} <= units.keys():
        return None
    watchdog = manager.strip().partition("=")[2] not in {"", "0", "infinity"}
    return Systemd(tuple(units[name] for name in UNITS), units[TARGET], watchdog)


def read_packages() -> Packages | None:
    """Return what dpkg says; None where there is none."""
    audit = ask(["dpkg-query", "-W", "-f=${db:Status-Abbrev} ${Package}\n"])
    if audit is None:
        return None
    # Unpacked, half configured, half installed, or to be installed again.
    half = [line.split()[1] for line in audit.splitlines() if re.match(r".[UFH]|..R", line)]
    status = ask(["dpkg-query", "-W", "-f=${Status}", PACKAGE])
    return Packages((status or "").strip(), tuple(half))
