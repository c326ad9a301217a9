"""The files in ``systemd/``: systemd itself reads them where it is, and every hardening has its reason."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

from edge.cli import app
from edge.cli.services import STUCK_S
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE

UNITS = Path(__file__).resolve().parent.parent / "systemd"
JOBS = [UNITS / f"fallwatch-{name}.service" for name in ("backup", "report")]  # begun by a timer, and done
SERVICES = sorted(set(UNITS.glob("*.service")) - set(JOBS))
TIMERS = sorted(UNITS.glob("*.timer"))
PROGRAM = "/opt/fallwatch/current/bin/fallwatch"
# Tenths; 100 is no hardening at all. With systemd 252 they are 15, 6, 2 and 2, and none may be above 15.
MOST_EXPOSED = 15
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze (Debian package systemd) is not installed"
)


def read(unit: Path) -> configparser.ConfigParser:
    """Return a unit's settings; of one that is given more than once, the last."""
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",)
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case
    parser.read(unit, encoding="utf-8")
    return parser


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_units(tmp_path: Path) -> None:
    # It also looks for the program, which is not at its place on this machine: any that exists will do.
    for unit in [*SERVICES, *JOBS, *TIMERS, UNITS / "fallwatch.target"]:
        text = unit.read_text(encoding="utf-8")
        (tmp_path / unit.name).write_text(text.replace(PROGRAM, "/bin/true"), encoding="utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def verified_with(folder: Path, unit: Path, drop_in: Path) -> tuple[int, str]:
    """Return what systemd says of a unit together with a drop-in."""
    there = folder / unit.name
    there.write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, "/bin/true"), encoding="utf-8")
    (folder / f"{unit.name}.d").mkdir()
    shutil.copy(drop_in, folder / f"{unit.name}.d" / "more.conf")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", there], capture_output=True, text=True, check=False
    )
    return checked.returncode, checked.stdout + checked.stderr


@needs_systemd
def test_the_network_for_mqtt_opens_this_machine_and_no_more(tmp_path: Path) -> None:
    unit, more = UNITS / "fallwatch-detect.service", UNITS / "fallwatch-detect-mqtt.conf"
    assert verified_with(tmp_path, unit, more) == (0, "")
    wanted = {
        "PrivateNetwork": "no",
        "RestrictAddressFamilies": "AF_INET AF_INET6",
        "IPAddressAllow": "localhost",
    }
    assert dict(read(more)["Service"]) == wanted
    assert read(unit)["Service"]["IPAddressDeny"] == "any"  # stays, and the drop-in makes its hole in it
    lines = [line for line in more.read_text(encoding="utf-8").splitlines() if line]
    reasons = [before[0] for before, line in pairwise(lines) if not line.startswith(("#", "["))]
    assert set(reasons) == {"#"}


@needs_systemd
def test_the_drop_in_for_bluetooth_adds_a_group_and_no_more(tmp_path: Path) -> None:
    unit, more = UNITS / "fallwatch-detect.service", UNITS / "fallwatch-detect-bluetooth.conf"
    assert verified_with(tmp_path, unit, more) == (0, "")
    assert dict(read(more)["Service"]) == {"SupplementaryGroups": "bluetooth"}


@needs_systemd
def test_the_drop_in_for_cameras_opens_them_and_keeps_images_in_memory(tmp_path: Path) -> None:
    unit, more = UNITS / "fallwatch-detect.service", UNITS / "fallwatch-detect-camera.conf"
    assert verified_with(tmp_path, unit, more) == (0, "")
    text = more.read_text(encoding="utf-8")
    assert re.findall(r"^DeviceAllow=(.*)$", text, re.M) == ["char-usb_device rw", "char-video4linux rw"]
    given = dict(read(more)["Service"])
    assert (given["MemorySwapMax"], given["LimitCORE"], given["OOMPolicy"]) == ("0", "0", "continue")
    assert given["RestrictAddressFamilies"] == "AF_NETLINK"  # and no network
    lines = [line for line in text.splitlines() if line]
    assert {before[0] for before, line in pairwise(lines) if not line.startswith(("#", "["))} == {"#"}


@needs_systemd
def test_systemd_would_speak_up_about_a_mistake(tmp_path: Path) -> None:
    unit = tmp_path / "wrong.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nNoNewPriviledges=yes\n", encoding="utf-8")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert "NoNewPriviledges" in checked.stderr


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, *JOBS], ids=lambda unit: unit.name)
def test_a_service_is_as_closed_as_can_be(unit: Path) -> None:
    threshold = f"--threshold={MOST_EXPOSED}"
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout[-3000:] + checked.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_never_gives_up(unit: Path) -> None:
    parser = read(unit)
    assert parser["Service"]["Restart"] == "always"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"
    assert 0 < float(parser["Service"]["RestartSec"]) <= 5
    assert "RestartPreventExitStatus" not in parser["Service"]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_that_is_stuck_is_ended_as_under_fallwatch_run(unit: Path) -> None:
    service = read(unit)["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    name = unit.stem.removeprefix("fallwatch-")
    assert float(service["WatchdogSec"]) == STUCK_S[name]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_has_an_account_without_powers(unit: Path) -> None:
    service = read(unit)["Service"]
    wanted = {
        "User": "fallwatch",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "DevicePolicy": "closed",
        "MemoryDenyWriteExecute": "yes",
        "SystemCallArchitectures": "native",
        "UMask": "0077",
    }
    assert {key: service.get(key) for key in wanted} == wanted
    # The id of the boot must stay readable.
    assert "ProcSubset" not in service


def test_detection_has_no_network_and_the_alarm_service_no_keys_of_wearables() -> None:
    detect, alarm = (read(UNITS / f"fallwatch-{name}.service")["Service"] for name in ("detect", "alarm"))
    assert detect["PrivateNetwork"] == "yes"
    assert detect["RestrictAddressFamilies"] == "AF_UNIX"
    assert alarm["InaccessiblePaths"] == f"-{DEFAULT_CONFIG.parent}/secrets/wearables"


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_starts_a_command_that_there_is(unit: Path) -> None:
    program, name, *options = read(unit)["Service"]["ExecStart"].split()
    assert program == PROGRAM
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # it is a group
    command.make_context(name, options)
    assert unit.name == f"fallwatch-{name}.service"


@pytest.mark.parametrize("unit", [*SERVICES, *JOBS], ids=lambda unit: unit.name)
def test_every_line_of_a_service_has_its_reason(unit: Path) -> None:
    plain = {
        "ExecStart",
        "Group",
        "StateDirectoryMode",
        "RuntimeDirectoryMode",
    }  # and what goes with the line above
    lines = unit.read_text(encoding="utf-8").partition("[Service]\n")[2].partition("[Install]")[0].splitlines()
    explained, last = False, ""
    for line in lines:
        key = line.partition("=")[0]
        if line.startswith("#"):
            explained, last = True, ""
        elif not line:
            explained = False
        else:
            goes_on = key == last or key.startswith(("RuntimeDirectory", "StateDirectory"))
            assert explained or goes_on or key in plain, f"{unit.name}: {line} has no reason above it"
            explained, last = False, key


def test_the_target_starts_all_services_and_stops_them() -> None:
    target = read(UNITS / "fallwatch.target")
    assert sorted(target["Unit"]["Wants"].split()) == sorted(unit.name for unit in [*SERVICES, *TIMERS])
    assert target["Install"]["WantedBy"] == "multi-user.target"
    assert {read(unit)["Unit"]["PartOf"] for unit in [*SERVICES, *TIMERS]} == {"fallwatch.target"}


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_drop_in_for_another_time_service_asks_the_clock_and_sets_none(tmp_path: Path, unit: Path) -> None:
    more = UNITS / "fallwatch-clock.conf"
    assert verified_with(tmp_path, unit, more) == (0, "")
    assert dict(read(more)["Service"]) == {"ProtectClock": "no", "SystemCallFilter": "adjtimex clock_adjtime"}
    assert read(unit)["Service"]["CapabilityBoundingSet"] == ""  # without CAP_SYS_TIME neither call sets anything


def test_each_job_has_its_timer_and_makes_up_for_a_night_without_power() -> None:
    assert [timer.stem for timer in TIMERS] == [job.stem for job in JOBS]
    assert {read(timer)["Timer"]["Persistent"] for timer in TIMERS} == {"yes"}


def test_account_and_folders_are_those_of_the_services_and_settings() -> None:
    entries = [line.split() for line in lines_of("fallwatch.sysusers.conf")]
    assert [entry[:2] for entry in entries] == [["u", "fallwatch"]]
    folders = {
        path: (mode, user, group)
        for _, path, mode, user, group in map(str.split, lines_of("fallwatch.tmpfiles.conf"))
    }
    assert folders == {
        str(DEFAULT_CONFIG.parent): ("2750", "root", "fallwatch"),
        f"{DEFAULT_CONFIG.parent}/secrets": ("2750", "root", "fallwatch"),
        f"{DEFAULT_CONFIG.parent}/secrets/wearables": ("0700", "fallwatch", "fallwatch"),
        f"{DEFAULT_CONFIG.parent}/model-keys": ("0755", "root", "fallwatch"),
        str(DEFAULT_STATE): ("0750", "fallwatch", "fallwatch"),
        f"{DEFAULT_STATE}/models": ("0755", "root", "fallwatch"),
        "/var/backups/fallwatch": ("0700", "fallwatch", "fallwatch"),
    }
    for unit in SERVICES:
        service = read(unit)["Service"]
        assert Path("/var/lib", service["StateDirectory"]) == DEFAULT_STATE
        assert Path("/run", service["RuntimeDirectory"]) == DEFAULT_RUN
        assert service["RuntimeDirectoryPreserve"] == "yes"  # the other service writes there as well


def test_every_serial_driver_the_units_name_is_loaded_at_boot() -> None:
    drivers = {"ttyACM": "cdc_acm", "ttyUSB": "usbserial"}  # the others are part of the kernel
    allowed = {
        name for unit in SERVICES for name in re.findall(r"^DeviceAllow=char-(\w+) rw$", unit.read_text(), re.M)
    }
    assert allowed == {*drivers, "ttyAMA", "ttyS", "gpiochip"}
    assert set(lines_of("fallwatch.modules-load.conf")) == {drivers[name] for name in allowed if name in drivers}


def test_the_udev_rules_match_and_assign_as_udev_writes_it() -> None:
    rules = lines_of("70-fallwatch.rules")
    assert len(rules) == 2
    term = re.compile(r'[A-Z]+(\{[\w/]+\})?(==|\+=|=)"[^"]+"')
    for rule in rules:
        assert all(term.fullmatch(part) for part in rule.split(", ")), rule
        assert "fallwatch" in rule
    assert 'SYMLINK+="serial/by-id/usb-fallwatch-dongle"' in rules[0]


@pytest.mark.skipif(
    shutil.which("udevadm") is None
    or b"verify" not in subprocess.run(["udevadm", "--help"], capture_output=True, check=False).stdout,
    reason="udevadm verify came with systemd 254 (Debian 13)",
)
def test_udev_has_nothing_to_say_against_the_rules() -> None:
    subprocess.run(["udevadm", "verify", UNITS / "70-fallwatch.rules"], check=True, capture_output=True)


def lines_of(name: str) -> list[str]:
    """Return the lines of a file that say something."""
    text = (UNITS / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
