"""The package for the Pi's kind of machine, under emulation: it installs, its core is right, and the demo runs.

What this cannot show is in docs/hardware.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.installed.conftest import OLD, PYTHON
from tests.installed.roots import CHECKOUT, EMULATOR, System, build, make

PROGRAM = f"/opt/fallwatch/versions/{OLD}+py{PYTHON}"
PACKAGES = f"{PROGRAM}/lib/python{PYTHON}/site-packages"
TESTERS = ("pytest", "hypothesis", "pytest-timeout", "pluggy", "iniconfig", "sortedcontainers")
# What decides, what is received, what is kept; what talks to peers and services is tried by the demo. Sessions are
# not here: a million replayed packets take too long under emulation.
CORE = (
    "tests/models/test_preprocess.py",
    "tests/firmware_bridge/test_wire.py",
    "tests/firmware_bridge/test_sample_clock.py",
    "tests/edge/test_timeline.py",
    "tests/edge/test_detector.py",
    "tests/edge/test_escalation.py",
    "tests/edge/test_routing.py",
    "tests/edge/test_delivery.py",
    "tests/edge/test_incident.py",
    "tests/edge/test_sensor.py",
    "tests/edge/test_radio.py",
    "tests/edge/test_supervision.py",
    "tests/edge/test_camera_judge.py",
    "tests/edge/test_words.py",
    "tests/edge/test_keys.py",
    "tests/edge/test_journal.py",
)


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> System:
    """Return a system of the Pi's kind with the package in it, and what tests need."""
    folder = tmp_path_factory.mktemp("arm64")
    began_s = time.monotonic()
    pi = make("arm64", folder / "root")
    made_s = time.monotonic() - began_s
    package = build("arm64", OLD, folder)
    began_s = time.monotonic()
    pi.install(package)
    installed = sum(path.lstat().st_size for path in (pi.folder / "opt").rglob("*") if path.is_file())
    print(f"\nsystem made in {made_s:.0f} s, package installed in {time.monotonic() - began_s:.0f} s")
    print(
        f"package {package.stat().st_size / 2**20:.0f} MiB (packed loosely), installed {installed / 2**20:.0f} MiB"
    )
    lock = (CHECKOUT / "locks/dev.txt").read_text()
    wanted = [block for block in re.split(r"\n(?=\w)", lock) if block.partition("==")[0] in TESTERS]
    (folder / "testers.txt").write_text("\n".join(wanted))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
    machine = "--only-binary :all: --implementation cp --abi abi3 --abi none"
    machine += (
        f" --abi cp{PYTHON.replace('.', '')} --platform manylinux_2_17_aarch64 --platform manylinux_2_28_aarch64"
    )
    machine += f" --platform manylinux2014_aarch64 --python-version {PYTHON}"
    into = ["--target", f"{pi.folder}{PACKAGES}"]  # also found by what tests start
    into += ["--require-hashes", "--requirement", str(folder / "testers.txt")]
    subprocess.run([*pip, *machine.split(), *into], check=True)
    # Copies: tests that run alone lock their own files, and who waits for them here holds the checkout's.
    shutil.copytree(CHECKOUT / "tests", f"{pi.folder}{PACKAGES}/tests")
    return pi


@pytest.mark.parametrize("file", CORE)
def test_the_core_is_right_on_the_pis_kind_of_machine(pi: System, file: str) -> None:
    began_s = time.monotonic()
    options = f"-q -p no:cacheprovider --import-mode=importlib --rootdir={PACKAGES} -c /dev/null".split()
    options += ["-o", "markers=alone: no other test runs meanwhile"]
    python = ["timeout", "300", "env", f"--chdir={PACKAGES}", f"{PROGRAM}/bin/python3", "-m", "pytest"]
    last = pi.run(*python, *options, file, check=False).strip().splitlines()[-1]
    print(f"\n{file}: {last}; {time.monotonic() - began_s:.0f} s under emulation")
    assert re.match(r"\d+ passed(, \d+ (skipped|warnings?))* in", last)


def test_the_main_job_is_done_on_the_pis_kind_of_machine(pi: System) -> None:
    said = pi.run("fallwatch", "demo", env={"COLUMNS": "100"})
    assert "All of it happened." in said
    print("\n" + "\n".join(line for line in said.splitlines() if line.endswith("since impact")))


def test_emulation_is_what_ran_it(pi: System) -> None:
    assert EMULATOR.exists()
    assert pi.run("uname", "-m").strip() == "aarch64"
