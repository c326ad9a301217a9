"""From an empty Debian system to a home that is watched over, by package and answers file; then an update."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.installed.conftest import NEW, OLD, PYTHON, on_top
from tests.installed.roots import CHECKOUT, Booted, System

SERVICES = ("fallwatch-alarm", "fallwatch-detect")
ANSWERS = """\
home_name = "Rosewood House"
home_id = "rosewood"
timezone = "Europe/London"
receivers = ["/run/peers/dongle"]
groups = ["12", "20"]
steps_s = [120, 240]
test_page = true
record = "embedded"
residents_from = "typed"
cover = "must"
broker = "none"
start = true

[[pagers]]
kind = "espa444"
url = "tcp://127.0.0.1:4440"

[[residents]]
id = "r12"
room = "12"
bed = "A"

[[wearables]]
resident = "r12"
wearable = "0042"
placement = "wrist"
"""
# What stands around the home's computer: a paging system, and a wearable with its receiver.
PAGER = """\
import threading
from edge.sinks.espa_station import EspaStation
EspaStation.on_tcp(lambda pager, text, call, priority: print("pager", pager, text, flush=True), port=4440)
threading.Event().wait()
"""
PAGER_UNIT = """\
[Service]
ExecStart=/opt/fallwatch/current/bin/python3 -I -u /opt/pager.py
"""
WEARABLE_UNIT = """\
[Service]
User=fallwatch
RuntimeDirectory=peers
# Its counters stay when it stops: one that counted from the start again would be taken for a recording.
RuntimeDirectoryPreserve=yes
# Its key is made by set-up.
ExecStartPre=+/bin/sh -c 'until [ -e /etc/fallwatch/secrets/wearables/0042.key ]; do sleep 0.2; done'
ExecStart=/usr/bin/fallwatch --state /run/peers/state simulate --port /run/peers/dongle --play {play}
TimeoutStartSec=infinity
"""


@pytest.fixture
def installed(system: System, old: Path) -> tuple[System, float]:
    """Return a system in which the older version was just installed, and how long that took."""
    began_s = time.monotonic()
    system.install(old)
    took_s = time.monotonic() - began_s
    (system.folder / "opt/pager.py").write_text(PAGER)
    (system.folder / "srv/answers.toml").write_text(ANSWERS)
    for name in ("walk-wrist", "fall-forward-wrist"):
        shutil.copy(CHECKOUT / f"tests/data/{name}.csv", system.folder / "opt")
    units = system.folder / "etc/systemd/system"
    (units / "pager.service").write_text(PAGER_UNIT)
    for name, play in (
        ("walking", "walk-wrist.csv,wearable=0042,loop"),
        ("falling", "fall-forward-wrist.csv,wearable=0042"),
    ):
        (units / f"{name}.service").write_text(WEARABLE_UNIT.format(play=f"/opt/{play}"))
    return system, took_s


def test_a_home_is_watched_over_after_one_package_and_one_command(installed: tuple[System, float]) -> None:
    system, install_s = installed
    with system.booted() as home:
        home.run("systemctl", "start", "--no-block", "pager", "walking")
        began_s = time.monotonic()
        said = home.run("fallwatch", "setup", "--answers", "/srv/answers.toml", "--json", check=False)
        print(f"\n{said[:-2]}")
        done = json.loads(said.splitlines()[-1])
        setup_s = time.monotonic() - began_s
        wait_until_well(home)
        print(f"\ninstalled in {install_s:.1f} s, set up in {setup_s:.1f} s")
        print(f"{done['asked']} questions asked, {done['answers']} answers from the file")
        print(f"well after {time.monotonic() - began_s + install_s:.1f} s in all")
        for name in SERVICES:
            print(f"{name}: ready after {ready_s(home, name):.2f} s, {rss_mib(home, name):.1f} MiB")
        assert done["asked"] == 0
        assert "disabled" not in home.run("systemctl", "is-enabled", "fallwatch.target")
        # What it is all for.
        home.run("systemctl", "stop", "walking")
        home.run("systemctl", "start", "falling")
        wait_for(home, "FALL? RM 12 BED A", "journalctl", "--output=cat", "--unit=pager")
        home.run("systemctl", "start", "fallwatch-report")
        assert home.run("stat", "--format=%U %a", "/var/lib/fallwatch/report.txt").strip() == "fallwatch 600"
        # Nothing that is no business of ours is kept or written.
        assert not (system.folder / "var/lib/fallwatch/.cache").exists()
        denied = home.run(
            "journalctl", "--output=cat", "--unit=fallwatch-*", "--grep=denied|not permitted", check=False
        )
        assert denied.strip() in {"", "-- No entries --"}


def test_an_update_and_the_way_back_keep_the_home_watched_over(
    installed: tuple[System, float], old: Path, new: Path
) -> None:
    system, _ = installed
    with system.booted() as home:
        home.run("systemctl", "start", "--no-block", "pager", "walking")
        home.run("fallwatch", "setup", "--answers", "/srv/answers.toml", check=False)
        wait_until_well(home)
        kept = {path: path.read_bytes() for path in (system.folder / "etc/fallwatch").rglob("*.key")}
        assert len(kept) == 1
        home.run("timeout", "3", "fallwatch", "drill", "--room", "12", check=False)
        before = incidents(home)
        for package, version in ((new, NEW), (old, OLD)):
            shutil.copy(package, system.folder / "srv")
            if version == OLD:  # a setting that the older version has not heard of
                settings = system.folder / "etc/fallwatch/fallwatch.toml"
                text = settings.read_text() + "\n[detect]\nfrom_the_future_s = 3\n"
                settings.write_text(text.replace("[detect]\n", "[detect]\n", 1))
            pids = [pid(home, name) for name in SERVICES]
            began_s = time.monotonic()
            said = home.run("dpkg", "--install", f"/srv/{package.name}")
            wait_until_well(home)
            print(f"\nto {version}: {time.monotonic() - began_s:.1f} s")
            assert home.run("readlink", "/opt/fallwatch/current").strip() == f"versions/{version}+py{PYTHON}"
            assert all(pid(home, name) not in pids for name in SERVICES)
            assert version != OLD or "detect.from_the_future_s" in said
            assert {path: path.read_bytes() for path in kept} == kept
            assert incidents(home) >= before
            text = (system.folder / "etc/fallwatch/fallwatch.toml").read_text()
            assert 'wearable = "0042"' in text
            assert "from_the_future_s" not in text


def test_a_version_that_does_not_work_here_does_not_take_over(
    installed: tuple[System, float], new: Path, tmp_path: Path
) -> None:
    system, _ = installed
    folder = tmp_path / "spoilt"
    folder.mkdir()
    with on_top(system, folder) as spoilt:
        spoilt.run("dpkg-deb", "--raw-extract", f"/srv/{copied(spoilt, new)}", "/srv/package")
        model = next(spoilt.folder.glob("srv/package/opt/fallwatch/versions/*/lib/*/site-packages/models/wrist-2"))
        (model / "golden.npz").write_bytes(b"no golden vectors")
        spoilt.run("dpkg-deb", "-Znone", "--build", "/srv/package", "/srv/spoilt.deb")
        said = spoilt.run("dpkg", "--install", "/srv/spoilt.deb", check=False)
        assert "does not work here: nothing was switched over" in said
        assert f"{OLD}+py{PYTHON}.kept" in spoilt.run("readlink", "/opt/fallwatch/current")
        spoilt.run("fallwatch", "--help")
        # The next good one mends it.
        spoilt.install(new)
        assert spoilt.run("readlink", "/opt/fallwatch/current").strip() == f"versions/{NEW}+py{PYTHON}"


def test_it_runs_on_a_read_only_system_with_a_partition_for_data(
    installed: tuple[System, float], tmp_path: Path
) -> None:
    system, _ = installed
    (system.folder / "etc/fallwatch/fallwatch.toml").write_text(
        '[home]\nid = "rosewood"\n\n[[resident]]\nid = "r12"\nroom = "12"\n'
    )
    system.run("systemctl", "enable", "fallwatch.target")
    system.binds = ["--read-only", "--tmpfs=/tmp"]
    for place in ("etc/fallwatch", "var/lib/fallwatch"):
        data = tmp_path / place.replace("/", "-")
        shutil.copytree(system.folder / place, data)
        for path in [data, *data.rglob("*")]:
            there = system.folder / place / path.relative_to(data)
            shutil.copystat(there, path)
            shutil.chown(path, there.stat().st_uid, there.stat().st_gid)
        system.binds.append(f"--bind={data}:/{place}")
    system.binds += ["--tmpfs=/var/log", "--tmpfs=/var/lib/systemd"]
    with system.booted() as home:
        assert home.run("touch", "/etc/anything", check=False).endswith("Read-only file system\n")
        wait_for(home, '"name": "detect", "well": true', "fallwatch", "status", "--json")
        wait_for(home, '"name": "alarm", "well": true', "fallwatch", "status", "--json")
    assert (tmp_path / "var-lib-fallwatch/journal.db").exists()


def test_removing_it_leaves_what_a_home_has_recorded(installed: tuple[System, float]) -> None:
    system, _ = installed
    (system.folder / "etc/fallwatch/fallwatch.toml").write_text('[home]\nid = "rosewood"\n')
    (system.folder / "var/lib/fallwatch/journal.db").write_bytes(b"incidents")
    said = system.run("dpkg", "--purge", "fallwatch")
    assert "stay in /etc/fallwatch and /var/lib/fallwatch" in said
    assert not (system.folder / "opt/fallwatch").exists()
    assert (system.folder / "var/lib/fallwatch/journal.db").read_bytes() == b"incidents"
    assert (system.folder / "etc/fallwatch/fallwatch.toml").exists()


def test_the_papers_are_in_the_package(installed: tuple[System, float]) -> None:
    system, _ = installed
    papers = system.folder / "usr/share/doc/fallwatch"
    parts = json.loads((papers / "sbom.cdx.json").read_text())["components"]
    lock = (CHECKOUT / "locks/run.txt").read_text()
    assert {part["name"] for part in parts} >= {"fallwatch", "numpy", "onnxruntime", "cryptography"}
    for part in parts:
        assert part["name"] == "fallwatch" or f"{part['name']}=={part['version']}" in lock
    assert (system.folder / "usr/share/man/man1/fallwatch-pair.1.gz").exists()
    offered = system.run(
        "bash",
        "-c",
        ". /usr/share/bash-completion/completions/fallwatch; COMP_WORDS=(fallwatch pai); "
        "COMP_CWORD=1; _fallwatch; echo ${COMPREPLY[@]}; COMP_WORDS=(fallwatch pair 0042 --res); "
        "COMP_CWORD=3; _fallwatch; echo ${COMPREPLY[@]}",
    )
    assert offered.split() == ["pair", "--resident"]


def copied(system: System, package: Path) -> str:
    """Put a package into a system."""
    shutil.copy(package, system.folder / "srv")
    return package.name


def wait_for(home: Booted, wanted: str, *command: str) -> None:
    """Wait until a command says something."""
    for _ in range(120):
        said = home.run(*command, check=False)
        if wanted in said:
            return
        time.sleep(0.5)
    raise AssertionError(f"{command} never says {wanted}: {said[-3000:]}")


def wait_until_well(home: Booted) -> None:
    """Wait until every part is well."""
    wait_for(home, '"well": true, "parts"', "fallwatch", "status", "--json")


def incidents(home: Booted) -> set[str]:
    """Return the ids of all incidents."""
    said = home.run("fallwatch", "incidents", "--all", "--json")
    return set(re.findall(r'"incident": "([^"]+)"', said))


def pid(home: Booted, service: str) -> str:
    """Return the process of a service."""
    return home.run("systemctl", "show", "--property=MainPID", "--value", service).strip()


def rss_mib(home: Booted, service: str) -> float:
    """Return what a service has in memory."""
    status = home.run("cat", f"/proc/{pid(home, service)}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def ready_s(home: Booted, service: str) -> float:
    """Return how long a service took from its start to READY."""
    asked = "--property=ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"
    said = dict(line.split("=") for line in home.run("systemctl", "show", asked, service).split())
    return (int(said["ActiveEnterTimestampMonotonic"]) - int(said["ExecMainStartTimestampMonotonic"])) / 1e6
