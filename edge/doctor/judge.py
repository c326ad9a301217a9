"""What is to be thought of facts about the computer, its files and its services: no file is opened here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge.core.supervision import Cause
from edge.doctor.finding import Finding, fault, skipped, warning, well
from edge.doctor.machine import Clock, Machine, Packages, Storage, Systemd, Unit
from edge.journal import Overview

START_S = 300.0  # so long a clock may take to be set after the computer was switched on
HOT_C = 80.0  # a Pi slows down from here on
WARM_C = 70.0
MEMORY_LOW_MIB = 100.0  # both services at their largest in a home of sixty, and a little
FREE_LOW_MIB = 500.0  # a year of a home's journal, and room for an update
FREE_LEAST_MIB = 50.0
SLOW_WRITE_S = 1.0  # from here on the journal counts as refusing
WORN_PCT = 80
JOURNAL_LARGE_MIB = 500.0  # a home writes a few MiB a year
WAITING_MANY = 100
RESTARTS_MANY = 3
STALE_S = 6.0
DRILL_AFTER_DAYS = 92  # in a quarter enough of a home's staff change that some on duty have never heard a call
TEST_AFTER_H = 26  # a daily page, and two hours for a clock change or a restart
# A Pi's get_throttled: now, and since it was switched on.
UNDER_VOLTAGE, THROTTLED = 1 << 0, 1 << 2
UNDER_VOLTAGE_BEFORE, THROTTLED_BEFORE = 1 << 16, 1 << 18
POWER = "use the maker's power supply and a short cable; a weak one corrupts cards"


# -- files --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """A file or folder that holds something secret or personal; ``content`` is looked at, never told."""

    path: str
    mode: int  # permission bits
    readable: bool  # by the account of the services
    writable: bool = True
    must_write: bool = False
    secret: bytes | None = None  # of a file in the secrets folder


# What documents and devices come with: whoever tries, tries these first.
GUESSED = frozenset(
    b"admin changeme change-me default fallwatch mosquitto password public secret test token 1234 123456".split()
)


def judge_kept(found: list[Kept], account: str) -> Iterator[Finding]:
    """Say who may read and write what."""
    bad = 0
    for kept in found:
        part, before = f"settings {kept.path}", bad
        if kept.mode & 0o007:
            bad += 1
            yield fault(part, f"can be read by everybody (mode {kept.mode:o})", f"sudo chmod o= {kept.path}")
        if not kept.readable or (kept.must_write and not kept.writable):
            bad += 1
            what = "write" if kept.readable else "read"
            todo = f"sudo chgrp {account} {kept.path}; sudo chmod g+rX {kept.path}"
            if kept.must_write:
                todo = f"sudo chown -R {account}: {kept.path}"
            yield fault(part, f"the account {account} cannot {what} it", todo)
        if kept.secret is not None and bad == before:
            bad += (found_bad := _bad_secret(part, kept.secret)) is not None
            if found_bad is not None:
                yield found_bad
    if not bad:
        yield well("settings", f"load; {len(found)} files and folders, read by {account} alone")


def _bad_secret(part: str, secret: bytes) -> Finding | None:
    text = secret.strip()
    if not text:
        return fault(part, "is empty", "put the secret in, or take its name out of the settings")
    if text.lower() in GUESSED or len(set(text)) == 1:
        return fault(part, "holds a secret that anybody would guess", "change it at the far end, then here")
    return None


# -- the computer -------------------------------------------------------------------------------


def judge_clock(clock: Clock, systemd: Systemd | None) -> Finding:
    """Say whether the time on pages and in the record can be believed."""
    if clock.synchronised and not clock.by_timesyncd and systemd and not all(u.asks_clock for u in systemd.units):
        todo = (
            "put fallwatch-clock.conf beside both units, as it says in its first lines, or use systemd-timesyncd"
        )
        return warning("clock", "synchronised by a time service that our services cannot ask", todo)
    if clock.synchronised:
        kept = "kept by a clock chip without power" if clock.has_rtc else "no clock chip"
        return well("clock", f"synchronised, {clock.timezone}; {kept}")
    if clock.up_s < START_S:
        return warning("clock", "not set yet, the computer has just started", "wait five minutes and ask again")
    if clock.has_rtc:
        todo = "see timedatectl; name a time server of the building in /etc/systemd/timesyncd.conf"
        return warning("clock", "not synchronised; a clock chip keeps it", todo)
    todo = "see timedatectl; name a time server of the building, or fit a clock chip with a battery"
    return fault("clock", "not synchronised, and no clock chip: pages and record carry no time", todo)


def judge_machine(machine: Machine) -> Iterator[Finding]:
    """Say how the computer itself is."""
    part, bad = "machine", False
    word = machine.throttled or 0
    if machine.bits != 64:
        bad = True
        yield fault(part, "runs a 32-bit system", "install Raspberry Pi OS 64-bit")
    if machine.under_voltage or word & UNDER_VOLTAGE:
        bad = True
        yield fault(part, "gets too little voltage", POWER)
    elif word & UNDER_VOLTAGE_BEFORE:
        bad = True
        yield warning(part, "got too little voltage since it was switched on", POWER)
    if word & THROTTLED or (machine.temperature_c or 0) >= HOT_C:
        bad = True
        says = f"is too hot and slows down ({_c(machine)})"
        yield fault(part, says, "give it air and a heat sink, out of cupboards and the sun")
    elif word & THROTTLED_BEFORE or (machine.temperature_c or 0) >= WARM_C:
        bad = True
        says = f"is or was hot ({_c(machine)})"
        yield warning(part, says, "give it air and a heat sink, out of cupboards and the sun")
    if machine.memory_free_mib is not None and machine.memory_free_mib < MEMORY_LOW_MIB:
        bad = True
        says = f"has {machine.memory_free_mib:.0f} MiB of memory left"
        yield warning(part, says, "end other programs on it: ps aux --sort=-rss | head")
    if not bad:
        memory = "" if machine.memory_free_mib is None else f", {machine.memory_free_mib:.0f} MiB memory free"
        yield well(part, f"64-bit, {_c(machine)}{memory}, up {span(machine.up_s)}")


def judge_swap(machine: Machine, *, cameras: bool) -> Iterator[Finding]:
    """Say whether memory may end up on a disk, where images of cameras would."""
    on_disk = [name for name in machine.swaps if "zram" not in name]
    if on_disk and cameras:
        todo = "sudo swapoff -a, then sudo systemctl disable --now dphys-swapfile, or take it out of /etc/fstab"
        yield fault("machine", f"swaps to {', '.join(on_disk)}: a camera's images could reach it", todo)


def _c(machine: Machine) -> str:
    return "no thermometer" if machine.temperature_c is None else f"{machine.temperature_c:.0f} C"


def judge_storage(storage: Storage) -> Iterator[Finding]:
    """Say how the disk under the state folder is."""
    part, bad = "disk", True
    free = f"{storage.free_mib:.0f} MiB free"
    todo = "see what fills it: sudo du -xh / | sort -h | tail"
    if storage.read_only:
        yield fault(
            part, "is mounted read-only", "it may be worn out: see dmesg, replace the card, restore a backup"
        )
    elif storage.write_s is None:
        yield fault(part, f"cannot be written: {storage.write_error}", "run as root, or as the account fallwatch")
    elif storage.free_mib < FREE_LEAST_MIB:
        yield fault(part, f"is full: {free}", todo)
    elif storage.free_mib < FREE_LOW_MIB:
        yield warning(part, f"is nearly full: {free}", todo)
    elif storage.write_s > SLOW_WRITE_S:
        todo = "the card is slow or worn: use a good one (A1, A2), or an SSD"
        yield warning(part, f"took {storage.write_s:.1f} s for a small synced write", todo)
    else:
        bad = False
    for name, pct in storage.used_life_pct:
        if pct >= WORN_PCT:
            bad = True
            todo = "make a backup, then replace it"
            yield warning(part, f"{name} has used up to {pct} % of its life", todo)
    if not bad and storage.write_s is not None:
        yield well(part, f"{free}; a synced write took {storage.write_s * 1000:.0f} ms")


def judge_journal(found: Overview) -> Iterator[Finding]:
    """Say how the journal is, and what waits in it."""
    part, bad = "journal", False
    if found.verdict != "ok":
        bad = True
        todo = "restart fallwatch: it keeps this one aside and begins anew; then restore a backup"
        yield fault(part, "is damaged", todo)
    if found.open_incidents:
        bad = True
        says = f"{found.open_incidents} incidents are open"
        yield warning(part, says, "fallwatch incidents lists them; somebody may be waiting for help")
    if parked := sum(n for name, n in found.outbox.items() if name.endswith(" parked")):
        bad = True
        yield fault(part, f"{parked} entries were refused by the record", "fallwatch record parked says why")
    waiting = sum(n for name, n in found.outbox.items() if name.endswith(" waiting"))
    if waiting >= WAITING_MANY:
        bad = True
        yield warning(part, f"{waiting} entries wait for the record", "see the line record here")
    size_mib = found.size_octets / 2**20
    if size_mib >= JOURNAL_LARGE_MIB:
        bad = True
        todo = "see what repeats: fallwatch incidents --all; send fallwatch support-bundle"
        yield warning(part, f"has grown to {size_mib:.0f} MiB", todo)
    if not bad:
        yield well(part, f"whole, {size_mib:.1f} MiB, nothing open, {waiting} entries wait for the record")


def judge_practice(found: Overview, now: datetime, daily: Mapping[str, str]) -> Iterator[Finding]:
    """Say when staff last answered a drill and pagers last took a test page.

    Args:
        found: the journal.
        now: aware.
        daily: each channel and when its daily test is, empty where it has none.
    """
    todo = "rehearse with staff, by day and at night: fallwatch drill --room ROOM"
    if found.drilled_at is None:
        yield warning("practice", "no drill was answered yet", todo)
    elif (now - found.drilled_at).days >= DRILL_AFTER_DAYS:
        yield warning("practice", f"the last drill was on {found.drilled_at:%Y-%m-%d}, months ago", todo)
    else:
        yield well("practice", f"the last drill was answered on {found.drilled_at:%Y-%m-%d}")
    for name, at in daily.items():
        part, tested = f"practice {name}", found.tested_at.get(name)
        if not at:
            yield warning(part, "has no daily test page", 'add test_at = "10:30" to it in the settings')
        elif tested is None or (now - tested).total_seconds() > TEST_AFTER_H * 3600:
            last = "never" if tested is None else f"last on {tested:%Y-%m-%d}"
            todo = "see the line pager here; the service must run at test_at"
            yield warning(part, f"took its daily test page {last}", todo)


# -- the services -------------------------------------------------------------------------------


def runs(told: Mapping[str, Any] | None) -> bool:
    """Tell whether a service speaks now, by its run file."""
    return told is not None and told["age_s"] <= STALE_S


def judge_services(
    detect: Mapping[str, Any] | None, alarm: Mapping[str, Any] | None, systemd: Systemd | None
) -> Iterator[Finding]:
    """Say whether both services speak, and how systemd looks after them."""
    speak = {"detect": runs(detect), "alarm": runs(alarm)}
    logs = "journalctl -u fallwatch-detect -u fallwatch-alarm -n 50"
    if not any(speak.values()):
        todo = "sudo systemctl enable --now fallwatch.target"
        yield warning("services", "do not run: parts were tried directly", todo)
    for name, speaks in speak.items():
        if not speaks and any(speak.values()):
            todo = f"sudo systemctl restart fallwatch.target; then see {logs}"
            yield fault(f"services {name}", "does not run, or is stuck", todo)
    if systemd is None:
        if all(speak.values()):
            yield well("services", "both speak; systemd does not look after them")
        return
    if not systemd.target.loaded:
        yield warning("services", "have no units in systemd", "install the package: docs/install.md")
        return
    restarted = [unit for unit in systemd.units if unit.restarts >= RESTARTS_MANY]
    for unit in systemd.units:
        if unit.active in {"failed", "activating"}:
            yield fault(f"services {unit.name}", f"is {unit.active} in systemd", f"see {logs}")
    for unit in restarted:
        yield warning(f"services {unit.name}", f"was started again {unit.restarts} times", f"see {logs}")
    if systemd.target.enabled != "enabled":
        todo = "sudo systemctl enable fallwatch.target"
        yield fault("services", "do not start by themselves after a power cut", todo)
    elif all(speak.values()) and not restarted:
        yield well("services", f"both speak, ready for {_ready(systemd.units)}; they start at boot")


def _ready(units: tuple[Unit, ...]) -> str:
    since_s = [unit.ready_s for unit in units if unit.ready_s is not None]
    return span(min(since_s)) if since_s else "an unknown time"


def judge_watchdog(machine: Machine, systemd: Systemd | None) -> Finding:
    """Say whether the computer starts again by itself when it hangs."""
    if not machine.has_watchdog:
        todo = "on a Pi: dtparam=watchdog=on in /boot/firmware/config.txt; else sudo modprobe softdog"
        return warning("watchdog", "this computer has none: one that hangs stays so", todo)
    if systemd is None:
        return skipped("watchdog", "is there; systemd does not run here")
    if not systemd.runtime_watchdog:
        todo = "RuntimeWatchdogSec=15 in /etc/systemd/system.conf.d/fallwatch.conf, then restart"
        return warning("watchdog", "is there, but systemd does not feed it", todo)
    return well("watchdog", "a computer that hangs starts again by itself")


def judge_packages(packages: Packages | None) -> Finding:
    """Say whether an upgrade was left half way."""
    if packages is None or (not packages.status and not packages.half):
        return skipped("package", "fallwatch runs from a checkout, not from a package")
    if packages.status not in {"", "install ok installed"}:
        todo = "sudo dpkg --configure -a; sudo apt-get -f install"
        return fault("package", f"fallwatch was left half way: {packages.status}", todo)
    if packages.half:
        todo = "sudo dpkg --configure -a; sudo apt-get -f install"
        return warning("package", f"left half way by an upgrade: {', '.join(packages.half[:3])}", todo)
    return well("package", "fallwatch is installed whole")


# -- what detect and alarm say of their parts ---------------------------------------------------


def wearable_remedy(cause: str, wearable: str) -> str:
    """Return what to do about a wearable, by what the service says of it."""
    match cause:
        case Cause.NO_KEY:
            return f"sudo fallwatch pair {wearable}, then sudo systemctl restart fallwatch.target"
        case Cause.OTHER_KEY | Cause.UNPROVED | Cause.GARBLED:
            return f"sudo fallwatch pair {wearable}, and give it the new key"
        case Cause.FLAT | Cause.LOW_BATTERY | Cause.CHARGING:
            return "charge it; give the resident a spare meanwhile"
        case Cause.NOT_WORN:
            return "put it on; or wait until it is worn"
        case Cause.NO_MODEL:
            return "see the line model here"
        case Cause.WEAK_RADIO | Cause.OUT_OF_RANGE | Cause.INTERFERENCE:
            return "put a receiver nearer to its room, away from metal and screens"
        case Cause.NEVER_HEARD | Cause.SILENT:
            return "charge it, switch it on and bring it near; then try in its room"
    return "restart the wearable; if it comes back, use a spare and send it in"


def judge_told_link(name: str, told: Mapping[str, Any] | None) -> Finding:
    """Say how a way in is by what detect says of it."""
    word = "bluetooth" if name.startswith("ble:") else "receiver"
    part = f"{word} {name.removeprefix('ble:')}"
    if told is None:
        return fault(part, "is not known to the running service", "sudo systemctl restart fallwatch.target")
    if not told["well"]:
        todo = "plug it in; compare the port in the settings with ls /dev/serial/by-id/"
        return fault(part, f"cannot be used: {told['cause']}", todo)
    return well(part, "speaks to the running service")


def judge_told_wearable(
    wearable: str,
    told: Mapping[str, Any] | None,
    before: Mapping[str, Any] | None,
    *,
    waited_s: float,
    spare: bool,
) -> Finding:
    """Say how a wearable is by what detect says of it, now and ``waited_s`` before.

    ``spare``: another wearable of the same resident is well, so nobody is less protected.
    """
    part = f"wearable {wearable}"
    if told is None:
        return fault(part, "is not known to the running service", "sudo systemctl restart fallwatch.target")
    came = told["samples"] - (before or told)["samples"]
    battery = told.get("battery_pct")
    level = "" if battery is None else f", battery {battery} %"
    if told["cause"]:
        judged = warning if spare or told["cause"] in RESTING else fault
        return judged(part, f"{told['cause']}{level}", wearable_remedy(told["cause"], wearable))
    if came <= 0:
        if spare:
            return skipped(part, f"silent for {waited_s:.0f} s; the resident's other one is heard")
        todo = wearable_remedy(Cause.SILENT, wearable)
        return fault(part, f"no sample was decrypted within {waited_s:.0f} s", todo)
    return low_battery(part, battery) or well(part, f"{came} samples in {waited_s:.0f} s{level}")


RESTING = (Cause.NOT_WORN, Cause.CHARGING, Cause.LOW_BATTERY)  # it works; whoever wears it is to be asked
BATTERY_LOW_PCT = 20  # sooner than the services tell: whoever stands there with a charger can plug it in


def low_battery(part: str, battery_pct: int | None) -> Finding | None:
    """Return what is to be said of a battery that is low."""
    if battery_pct is None or battery_pct >= BATTERY_LOW_PCT:
        return None
    return warning(
        part, f"is heard, but its battery is at {battery_pct} %", "charge it; is its charger in the room?"
    )


def judge_told_channel(name: str, told: Mapping[str, Any] | None) -> Finding:
    """Say how a channel is by the alarm service's own checks, without a test page."""
    part = f"pager {name}"
    if told is None:
        return fault(part, "is not known to the running service", "sudo systemctl restart fallwatch.target")
    if not told["well"]:
        todo = "see its cable and the far end; then fallwatch pager test --trace with the service stopped"
        return fault(part, f"is down: {told['cause']}", todo)
    return well(part, "answers the running service; no test page was sent")


def span(seconds: float) -> str:
    """Write a length of time for people."""
    for unit_s, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"
