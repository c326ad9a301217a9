"""An update that is cut short at any of its writes leaves a version that works, and can be done again."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from tests.installed.conftest import NEW, OLD, PYTHON, on_top
from tests.installed.roots import System

CUTS = 20  # one at every 5 % of the writes
HOME = """\
[home]
id = "trial"

[[dongle]]
port = "/run/fallwatch/no-dongle"

[[resident]]
id = "r12"
room = "12"
"""


@pytest.fixture(scope="module")
def home(bare: System, old: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    """Return a system with the older version, a paired wearable and an incident in the journal."""
    folder = tmp_path_factory.mktemp("home")
    home = System(folder / "root", "amd64")
    subprocess.run(["cp", "--archive", "--reflink=auto", bare.folder, home.folder], check=True)
    home.install(old)
    (home.folder / "etc/fallwatch/fallwatch.toml").write_text(HOME)
    home.run("fallwatch", "pair", "0042", "--resident", "r12", "--no-qr")
    # Nobody hears a wearable: after a while the services write an incident of it.
    home.run(
        "sh",
        "-c",
        "timeout 60 fallwatch run & for i in $(seq 50); do "
        "fallwatch incidents --json | grep -q blind && break; sleep 1; done; kill %1 || true; wait",
    )
    assert "blind" in home.run("fallwatch", "incidents", "--json")
    return home


def upgrade(system: System, package: Path, power_cut: Path, cut_at: int) -> tuple[str, int]:
    """Install a package until so many calls that change the disk; return what was said, and their number."""
    for name, data in (("power_cut.so", power_cut.read_bytes()), ("calls", bytes(8))):
        (system.folder / name).write_bytes(data)
    env = {"LD_PRELOAD": "/power_cut.so", "CALLS": "/calls", "CUT_AT": str(cut_at)}
    said = system.install(package, check=not cut_at, env=env)
    return said, struct.unpack("<Q", (system.folder / "calls").read_bytes())[0]


@pytest.fixture(scope="module")
def power_cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that ends everything at a call."""
    library = tmp_path_factory.mktemp("power-cut") / "power_cut.so"
    source = Path(__file__).with_name("power_cut.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def writes(home: System, new: Path, power_cut: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Return how many calls of a whole update change the disk."""
    with on_top(home, tmp_path_factory.mktemp("whole")) as system:
        _, calls = upgrade(system, new, power_cut, 0)
        assert version(system) == f"{NEW}+py{PYTHON}"
    return calls


@pytest.mark.parametrize("twentieth", range(CUTS))
def test_a_version_works_after_an_update_was_cut_short(
    home: System, new: Path, power_cut: Path, writes: int, tmp_path: Path, *, twentieth: int
) -> None:
    cut_at = max(1, round((twentieth + 0.5) / CUTS * writes))
    before = held(home)
    with on_top(home, tmp_path) as system:
        _, calls = upgrade(system, new, power_cut, cut_at)
        assert cut_at <= calls < writes  # it was cut
        works = version(system)
        print(f"cut at write {cut_at} of {writes}: {works} works")
        assert works.removesuffix(".kept") in {f"{OLD}+py{PYTHON}", f"{NEW}+py{PYTHON}"}
        assert held(system) == before
        services_come_up(system)
        # The power is back, and whoever installs does it again.
        system.install(new)
        assert version(system) == f"{NEW}+py{PYTHON}"
        assert held(system) == before
        assert system.run("dpkg", "--audit") == ""


def version(system: System) -> str:
    """Return the version that `fallwatch` is now, which must stand its own test."""
    works = (system.folder / "opt/fallwatch/current").readlink().name
    python = "/opt/fallwatch/current/bin/python3"
    system.run(python, "-I", "-m", "edge.selftest", "--settings", "/etc/fallwatch/fallwatch.toml")
    return works


def held(system: System) -> dict[str, object]:
    """Return what must never be lost: settings, keys and incidents."""
    incidents = json.loads(system.run("fallwatch", "incidents", "--all", "--json").splitlines()[0])
    etc = system.folder / "etc/fallwatch"
    files = {str(path.relative_to(etc)): path.read_bytes() for path in etc.rglob("*") if path.is_file()}
    return {"incident": incidents, **files}


def services_come_up(system: System) -> None:
    """Start both services, and wait until each says of itself that it is well."""
    script = "timeout 40 fallwatch run & for i in $(seq 60); do fallwatch status --json > /root/status; "
    script += """grep -q '"name": "detect", "well": true' /root/status && """
    script += """grep -q '"name": "alarm", "well": true' /root/status && break; sleep 0.3; done; """
    system.run("sh", "-c", f"{script} kill %1; wait || true")
    status = json.loads((system.folder / "root/status").read_text())
    services = {part["name"]: part["well"] for part in status["parts"] if part["part"] == "service"}
    assert services == {"detect": True, "alarm": True}
