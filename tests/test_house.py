"""The picture of the house stays true: arrows of imports point up, and a pager never waits for a model."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("firmware_bridge", "models", "edge", "training")
ABOVE = {"edge", "firmware_bridge", "models", "numpy", "rich", "segno", "typer", "tomlkit"}
PLAN = {"edge.channels", "edge.checked", "edge.settings"}

# What a module may import beside the standard library; the longest name that fits it counts.
ARROWS: dict[str, set[str]] = {
    "firmware_bridge": {"firmware_bridge"},
    "firmware_bridge.wire": {"cobs"},
    "firmware_bridge.session": {"firmware_bridge.wire", "cryptography"},
    "firmware_bridge.link": set(),
    "firmware_bridge.serial_link": {"firmware_bridge.link", "firmware_bridge.wire", "serial"},
    "firmware_bridge.dongle": {"firmware_bridge.serial_link", "firmware_bridge.wire"},
    "firmware_bridge.devices": {"firmware_bridge.devices", "firmware_bridge.wire"},
    "edge.broker": {"edge.settings", "paho"},
    "edge.sources": {"edge.sources", "edge.broker", "edge.settings", "firmware_bridge", "paho"},
    "edge.sources.ble": {"edge.core.ble_ladder", "edge.sources", "firmware_bridge"},
    "edge.sources.bleak_radio": {"edge.sources.ble", "bleak", "dbus_fast"},
    "edge.sources.depth": {"edge.sources.depth", "edge.clock", "edge.depth", "cv2", "numpy"}
    | {"pyorbbecsdk", "depthai", "ArducamDepthCamera", "pyrealsense2"},
    "edge.depth": {"edge.depth", "edge.core.seen", "edge.core.supervision", "cv2", "numpy"},
    "models": {"models", "numpy", "onnxruntime"},
    "models.bundle": {"cryptography"},
    "models.selftest": {"models.bundle", "models.scorer"},
    "edge.core": {"edge.core", "models", "numpy"},
    "edge.core.seen": set(),
    "edge.core.fusion": {"edge.core.seen"},
    "edge.core.incident": set(),
    "edge.core.supervision": set(),
    "edge.core.poisson": set(),
    "edge.core.radio": set(),
    "edge.core.walk": {"edge.core.radio"},
    "edge.core.routing": set(),
    "edge.core.ble_ladder": set(),
    "edge.core.delivery": set(),
    "edge.core.escalation": {"edge.core.incident"},
    "edge.core.words": {"edge.core.incident", "edge.core.escalation"},
    "edge.clock": set(),
    "edge.checked": set(),
    "edge.channels": {"edge.checked"},
    "edge.settings": {"edge.channels", "edge.checked"},
    "edge.runfile": {"edge.clock"},
    "edge.pause": {"edge.clock", "edge.core.incident", "edge.runfile"},
    "edge.eye": {
        "edge.clock",
        "edge.core.seen",
        "edge.core.supervision",
        "edge.depth",
        "edge.sources.depth",
        "cv2",
    },
    "edge.failpoint": set(),
    "edge.watchdog": set(),
    "edge.journal": {"edge.clock", "edge.core.incident", "edge.failpoint"},
    "edge.report": {"edge.core.incident", "edge.core.poisson", "edge.journal"},
    "edge.cover": {"edge.core.incident", "edge.journal"},
    "edge.directory": {"edge.settings", "edge.sinks.fhir"},
    "edge.export": {"edge.core.incident", "edge.journal", "edge.settings", "edge.sinks.fhir"},
    "edge.form": {"edge.core.incident", "edge.export", "edge.journal", "edge.settings", "edge.sinks.fhir"},
    "edge.keys": {"edge.settings", "firmware_bridge"},
    "edge.replay_camera": {"edge.core", "edge.depth", "edge.sources.depth", "models", "cv2"},
    "edge.cwa": {"models", "numpy"},
    "edge.recording": {"edge.cwa", "models", "numpy"},
    "edge.sinks": {"edge.sinks", "edge.broker", "edge.channels", "edge.core.incident", "edge.journal"}
    | {"edge.settings"}
    | {"edge.checked", "gpiod", "jwt", "paho", "serial"},
    "edge.sealed": {"cryptography"},
    "edge.backup": {"edge.clock", "edge.core.incident", "edge.failpoint", "edge.journal", "edge.keys"}
    | {"edge.runfile", "edge.sealed", "edge.settings"},
    "edge.bundles": {"edge.failpoint", "edge.settings", "models.bundle", "models.selftest", "cryptography"},
    "edge.detect": {
        "edge.detect",
        "edge.bundles",
        "edge.core",
        "edge.clock",
        "edge.journal",
        "edge.keys",
        "edge.runfile",
    }
    | {"edge.pause", "edge.settings", "edge.sources", "edge.watchdog", "firmware_bridge", "models", "numpy"},
    "edge.alarm": {"edge.alarm", "edge.channels", "edge.clock", "edge.failpoint", "edge.journal", "edge.runfile"}
    | {f"edge.core.{name}" for name in ("delivery", "escalation", "incident", "routing", "supervision", "words")}
    | {"edge.settings", "edge.sinks", "edge.watchdog"},
    "edge.walk": {"edge.walk", "edge.clock", "edge.core.walk", "edge.settings"},
    "edge.walk.ear": {"edge.detect", "edge.clock", "edge.core.walk", "edge.keys", "edge.runfile", "edge.settings"}
    | {"firmware_bridge"},
    "edge.simulate": {"edge.keys", "edge.recording", "edge.settings", "firmware_bridge", "numpy"},
    "edge.home": ABOVE | {"training", "matplotlib"},  # tries the whole system on people's recordings
    "edge.home.scenario": {"edge.core.supervision", "numpy"},
    "edge.selftest": ABOVE,  # loads what there is, to see whether it loads here
    "edge.doctor": ABOVE | {"paho"},  # tries every part of a home for real
    "edge.doctor.finding": set(),
    "edge.bench": ABOVE,
    "edge.bench_alarm": ABOVE,
    "edge.bench_camera": ABOVE | {"cv2"},
    "edge.demo": ABOVE,
    "edge.cli": ABOVE,
    "edge.setup": ABOVE,
    "edge.setup.questions": PLAN,
    "edge.setup.comments": set(),
    "edge.setup.written": PLAN | {"edge.setup.comments", "edge.setup.questions", "tomlkit"},
    "edge.setup.terminal": {"questionary"},
    "edge.setup.guide": PLAN
    | {"edge.clock", "edge.doctor.finding"}
    | {f"edge.setup.{name}" for name in ("progress", "questions", "terminal", "written")},
    "edge.setup.machine": ABOVE | {"cryptography", "dbus_fast", "jwt"},
    "edge.cli.model": ABOVE | {"cryptography"},
    "training": {"training", "models", "edge.core", "firmware_bridge.wire", "numpy", "torch", "scipy", "rich"}
    | {"tqdm", "sklearn", "threadpoolctl", "onnx", "onnxruntime", "onnxscript", "matplotlib", "optuna", "ray"},
    "training.depth": {"training", "edge.depth", "edge.core", "models"}
    | {"cv2", "matplotlib", "mujoco", "numpy", "scipy", "tqdm", "rich", "torch"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imported(path: Path) -> Iterator[str]:
    """Yield every name that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            # Of a package a module may be meant: `from edge.sinks import fhir`.
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in MODULES else module


@pytest.mark.parametrize("module", [m for m in MODULES if m not in PACKAGES])
def test_imports_point_up(module: str) -> None:
    fitting = [name for name in ARROWS if within(module, name)]
    assert fitting, f"{module} has no place in the picture yet: give it one in ARROWS"
    allowed = ARROWS[max(fitting, key=len)]
    for name in imported(MODULES[module]):
        own = name.split(".")[0] in sys.stdlib_module_names
        assert own or any(within(name, package) for package in allowed), f"{module} imports {name}"


@pytest.mark.parametrize("module", ["firmware_bridge.wire", *(m for m in MODULES if within(m, "edge.core"))])
def test_the_core_opens_nothing_and_sleeps_nowhere(module: str) -> None:
    doing = {"asyncio", "logging", "pathlib", "select", "signal", "socket", "sqlite3", "subprocess", "threading"}
    assert not doing & set(imported(MODULES[module]))
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "open"
            assert not called.endswith((".sleep", ".monotonic", ".now", ".utcnow"))


def loaded(*modules: str) -> set[str]:
    """Return what is in memory after importing some modules, and nothing else, in a fresh process."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_a_broken_model_cannot_silence_a_pager() -> None:
    """No page, no key, no command waits for numpy, onnxruntime or a bundle: none is even loaded."""
    lean = ["edge.cli", "edge.journal", "edge.keys", "edge.runfile", "edge.settings"]
    core = ("incident", "escalation", "routing", "delivery", "words", "supervision")
    lean += [f"edge.core.{name}" for name in core]
    lean += [m for m in MODULES if m.startswith(("edge.alarm.", "edge.sinks.", "firmware_bridge.", "edge.cli."))]
    lean.remove("edge.cli.__main__")  # it would run
    assert not loaded(*lean) & {"numpy", "onnxruntime", "models", "torch", "training"}


def test_an_eye_loads_no_model_and_detection_loads_no_image() -> None:
    assert not loaded("edge.eye") & {"onnxruntime", "models", "typer", "sqlite3"}
    assert not loaded("edge.detect.service") & {"cv2"}


def test_detection_loads_no_training_and_no_command_line() -> None:
    heavy = loaded("edge.detect.service")
    assert {"numpy", "onnxruntime"} <= heavy
    assert not heavy & {"torch", "training", "onnx", "scipy", "rich", "typer", "paho", "urllib3", "bleak"}


SKIPPED = {
    ".git",
    ".venv",
    "__pycache__",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "build",
    "dist",
}
# Written apart, so that this file does not hold them itself.
UNWANTED = re.compile(
    "|".join(["/" + "work/", "/" + "root/", "/" + r"home/\w", "/" + "Users/", "py" + r"pi\.", "python" + "hosted"])
)


def texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        skipped = SKIPPED & set(parts) or any(part.endswith(".egg-info") for part in parts)
        if not skipped and path.is_file() and path.suffix not in {".npz", ".png"}:
            yield path


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            if UNWANTED.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_every_module_says_in_a_line_what_it_is_for() -> None:
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []
