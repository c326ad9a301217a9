"""A throwaway care home for tests: settings, keys, wearables, a pager, and the real services as processes.

Run as a program it is the writer of `test_kill`: a process that commits incidents and may be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import onnx.parser

from edge.clock import utc_now
from edge.core.incident import Incident, Kind, new_incident_id
from edge.journal import JOURNAL_FILE, Case, Journal
from edge.keys import KeyStore
from edge.recording import read_recording
from edge.runfile import read_runfile
from edge.settings import load_settings
from edge.simulate import virtual_recording
from edge.sinks.espa_station import EspaStation
from edge.sinks.record import RECORD_FILE, EmbeddedRecord, RecordEntry
from firmware_bridge.session import WearableSession
from firmware_bridge.virtual import DonglePty, VirtualDongle, VirtualWearable
from models.preprocess import PREPROCESSING_VERSION

DATA = Path(__file__).parent.parent / "data"
FALL = "fall-forward-wrist.csv"
FALL_IMPACT_S = 5.3  # from its start to its greatest acceleration, 5.6 g
FALL_LENGTH_S = 14.9  # as a virtual wearable plays it
WALK = "walk-wrist.csv"
FALLWATCH = [sys.executable, "-m", "edge.cli"]
SLOW_S = 30.0  # for what takes a second on an idle machine

SETTINGS = """
[home]
id = "{home}"

[[dongle]]
port = "{folder}/dongle"
"""
RESIDENT = """
[[resident]]
id = "r{number}"
room = "{number}"
bed = "A"
wearable = "{number:04d}"
placement = "wrist"
"""
PAGER = """
[[pager]]
kind = "espa444"
port = "{folder}/pager"
"""
CALLS = """
[escalation]
groups = ["12", "20", "0"]
steps_s = [1.5, 3]
repeat_every_s = 2
"""

# A model that needs no training: somebody fell who was shaken by more than 4 g. Walking stays under 3 g.
MODEL = """
<ir_version: 10, opset_import: ["" : 18]>
shaken (float[b, 160, 3] accel_g) => (float[b] probability)
<int64[1] samples = {1}, int64[1] axes = {2}, float limit_g = {4.0}> {
    magnitude_g = ReduceL2<keepdims = 0>(accel_g, axes)
    peak_g = ReduceMax<keepdims = 0>(magnitude_g, samples)
    over_g = Sub(peak_g, limit_g)
    probability = Sigmoid(over_g)
}
"""
CARD = {
    "schema": 1,
    "name": "shaken",
    "placement": "wrist",
    "rate_hz": 32,
    "window_samples": 160,
    "hop_samples": 16,
    "clip_g": 16,
    "preprocessing": PREPROCESSING_VERSION,
    "decision": {
        "threshold": 0.5,
        "confirm_windows": 2,
        "suspect_threshold": 0.4,
        "weigh_s": 3,
        "refractory_s": 10,
    },
}

T = TypeVar("T")


def write_model(folder: Path) -> None:
    """Write `MODEL` as a bundle."""
    folder.mkdir()
    octets = onnx.parser.parse_model(MODEL).SerializeToString()
    (folder / "model.onnx").write_bytes(octets)
    card = {**CARD, "onnx_sha256": hashlib.sha256(octets).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    windows = np.zeros((2, 160, 3), np.float32)
    windows[1, 80] = 8.0
    probabilities = 1 / (1 + np.exp(4 - np.linalg.norm(windows, axis=2).max(axis=1)))
    np.savez(folder / "golden.npz", windows=windows, probabilities=probabilities)


def until(what: Callable[[], T | None], timeout_s: float = SLOW_S, *, hint: str = "") -> T:
    """Return the first true answer of ``what``."""
    until_s = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s: {hint or what}"
        time.sleep(0.02)
    return answer


@dataclass(frozen=True)
class Paged:
    """A page as the pager system took it."""

    at_s: float  # monotonic
    to: str
    text: str
    cancels: bool
    priority: str = ""

    def __str__(self) -> str:
        return f"{self.to}: {'(reset) ' * self.cancels}{self.text}"


class Pager:
    """A pager system on a pty, and all that it was told."""

    def __init__(self, link: Path) -> None:
        self.pages: list[Paged] = []
        self.on_page: Callable[[Paged], object] | None = None  # runs before the station answers
        self.station = EspaStation.on_pty(link, self._take)

    def _take(self, to: str, text: str, call_type: str, priority: str) -> None:
        page = Paged(time.monotonic(), to, text, cancels=call_type == "1", priority=priority)
        self.pages.append(page)
        if self.on_page is not None:
            self.on_page(page)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.station.stop()

    def texts(self, to: str | None = None) -> list[str]:
        return [page.text for page in self.pages if to in {None, page.to}]

    def wait(self, start: str, *, to: str | None = None, after_s: float = 0.0, timeout_s: float = SLOW_S) -> Paged:
        """Return the first page since ``after_s`` (monotonic) whose text begins with ``start``."""

        def first() -> Paged | None:
            pages = list(self.pages)
            return next(
                (p for p in pages if p.text.startswith(start) and to in {None, p.to} and p.at_s >= after_s), None
            )

        return until(first, timeout_s, hint=f"page {start!r} to {to or 'anybody'}")


class Service:
    """One command of fallwatch as a process of its own, its log beside it."""

    def __init__(self, home: Home, *command: str) -> None:
        self._home = home
        self.name = command[0]
        self.log = home.folder / f"{self.name}.log"
        self.started_s = time.monotonic()
        self._ready_s: float | None = None
        with self.log.open("ab") as out:
            self.process = subprocess.Popen([*FALLWATCH, *command], env=home.environment, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready_s(self) -> float | None:
        """Return how long after its start the service first spoke, or None if it has not yet."""
        told = self._home.told(self.name)
        if self._ready_s is None and told is not None and told["mono_s"] > self.started_s:
            self._ready_s = float(told["mono_s"]) - self.started_s
        return self._ready_s

    def ready(self, timeout_s: float = SLOW_S) -> Self:
        until(lambda: self.ready_s() is not None, timeout_s, hint=f"{self.name} ready; {self.tail()}")
        return self

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def tail(self) -> str:
        return "\n".join(self.lines()[-15:])

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def children(self) -> dict[int, str]:
        """Return pid and command of each process it started."""
        pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8") for pid in pids}

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Home:
    """Folders, settings and keys of a home with ``wearables`` residents, and whatever was started in it.

    Resident ``rN`` of room ``N`` wears ``000N``. ``more`` is TOML that goes after the rest. What is at stake
    here is the services, so a plain `MODEL` decides, unless ``shipped``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wearables: int = 2,
        calls: str = CALLS,
        pager: str = PAGER,
        silence_s: float = 60.0,
        more: str = "",
        shipped: bool = False,
    ) -> None:
        self.folder = folder
        self.id = "site-7"
        self.config, self.state, self.run = folder / "fallwatch.toml", folder / "state", folder / "run"
        self.dongle_link, self.pager_link = folder / "dongle", folder / "pager"
        text = SETTINGS.format(home=self.id, folder=folder)
        text += "".join(RESIDENT.format(number=number) for number in range(1, wearables + 1))
        text += f"\n[detect]\nsilence_s = {silence_s}\n"
        if not shipped:
            write_model(folder / "model")
            text += f'wrist_model = "{folder}/model"\n'
        self.config.write_text(text + pager.format(folder=folder) + calls + more, encoding="utf-8")
        self.environment = {
            **os.environ,
            "FALLWATCH_CONFIG": str(self.config),
            "FALLWATCH_STATE": str(self.state),
            "FALLWATCH_RUN": str(self.run),
        }
        self._settings = load_settings(self.config)
        self.keys = KeyStore(self._settings.secrets, self.state)
        for wearable in (w for resident in self._settings.resident for w in resident.wearables):
            self.keys.make(wearable)
        self._services: list[Service] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for service in reversed(self._services):
            service.stop()

    # -- services -----------------------------------------------------------------------------

    def start(self, *command: str) -> Service:
        service = Service(self, *command)
        self._services.append(service)
        return service

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FALLWATCH, *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def status(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the exit status and, by part and name, what is told of it."""
        result = self.ask("status", "--json")
        assert not result.stderr, result.stderr
        parts = json.loads(result.stdout)["parts"]
        return result.returncode, {f"{p['part']} {p['name']}".replace(f"{self.folder}/", ""): p for p in parts}

    def told(self, service: str) -> dict[str, Any] | None:
        """Return what a service last said of itself."""
        return read_runfile(self.run / f"{service}.json")

    def told_of(self, wearable: str) -> dict[str, Any]:
        """Return what detect last said of a wearable."""
        told: dict[str, Any] = (self.told("detect") or {})["wearables"][wearable]
        return told

    def receiver(self) -> dict[str, Any]:
        """Return what detect last said of the home's one receiver."""
        told: dict[str, Any] = (self.told("detect") or {})["links"][str(self.dongle_link)]
        return told

    # -- what they wrote ----------------------------------------------------------------------

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        journal = Journal(self.state / JOURNAL_FILE)
        try:
            yield journal
        finally:
            journal.close()

    def cases(self) -> list[Case]:
        if not (self.state / JOURNAL_FILE).exists():
            return []
        with self.journal() as journal:
            return journal.cases(limit=100_000)

    def case(self, kind: Kind = Kind.FALL, *, timeout_s: float = SLOW_S) -> Case:
        """Return the first incident of a kind, once there is one."""
        return until(
            lambda: next((case for case in self.cases() if case.facts.kind is kind), None),
            timeout_s,
            hint=f"incident {kind}",
        )

    def entries(self) -> list[RecordEntry]:
        record = EmbeddedRecord(self.state / RECORD_FILE, read_only=True)
        try:
            return record.entries()
        finally:
            record.close()

    # -- wearables ----------------------------------------------------------------------------

    def wearable(self, wearer: int | WearableSession, recording: str = WALK, **options: Any) -> VirtualWearable:
        """Return resident rN's wearable, or one with another key; ``options`` as `VirtualWearable` takes them."""
        session = self.keys.simulated_wearable(f"{wearer:04d}") if isinstance(wearer, int) else wearer
        return VirtualWearable(session, virtual_recording(read_recording(DATA / recording)), **options)

    @contextlib.contextmanager
    def wear(
        self, wearables: Iterable[VirtualWearable], *, speed: float = 1.0, deaf: float = 0.0
    ) -> Iterator[SharedDongle]:
        """Play ``wearables`` from now on; ``deaf`` is the part of commands that none of them hears."""
        dongle, ended = SharedDongle(list(wearables), deaf), threading.Event()
        with DonglePty(dongle, self.dongle_link, speed=speed) as pty:
            player = threading.Thread(target=pty.run, args=(ended,), name="dongle")
            player.start()
            try:
                yield dongle
            finally:
                ended.set()
                player.join()


class SharedDongle(VirtualDongle):
    """A virtual dongle whose buttons one thread presses while another plays it."""

    def __init__(self, wearables: list[VirtualWearable], deaf: float) -> None:
        self._turn = threading.RLock()
        self._deaf, self._ears = deaf, random.Random(1)
        super().__init__(wearables)

    def frames_until(self, t_s: float) -> bytes:
        with self._turn:
            return super().frames_until(t_s)

    def due_s(self) -> float:
        with self._turn:
            return super().due_s()

    def take(self, data: bytes) -> None:
        with self._turn:
            super().take(data if self._ears.random() >= self._deaf else b"")

    def press_button(self, wearable: str) -> None:
        with self._turn:
            super().press_button(wearable)


class Writer:
    """A process that commits incidents, each for a room of its own, and says so once they are on disk."""

    def __init__(self, home: Home, seed: int, first: int, *, pause_s: float = 2.0) -> None:
        command = [sys.executable, __file__, str(home.state), str(seed), str(first), str(pause_s)]
        self.process = subprocess.Popen(
            command, env=home.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._committed: dict[str, str] = {}  # incident: room
        self._reader = threading.Thread(target=self._read, name="writer")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            incident, room = line.split()
            self._committed[incident] = room

    def end(self, *, kill: bool = False) -> dict[str, str]:
        """Stop or kill it; return incident and room of all it said were committed."""
        assert self.process.stdin is not None
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(30)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self._committed


def write_incidents(state: Path, seed: int, first: int, pause_s: float) -> None:
    """Commit a fall now and then until stdin is closed; say incident and room after each commit."""
    rng = random.Random(seed)
    journal = Journal(state / JOURNAL_FILE)
    number = first
    while not select.select([sys.stdin], [], [], pause_s * rng.uniform(0.2, 1.0))[0]:
        room = f"W{number}"
        incident = Incident(
            incident=new_incident_id(),
            home="site-7",
            kind=Kind.FALL,
            raised_at=utc_now(),
            impact_at=utc_now(),
            resident="r1",
            room=room,
            wearable="0001",
            placement="wrist",
            probability=0.99,
            model="test",
        )
        journal.raise_incident(incident, since_impact_s=0.0)
        sys.stdout.write(f"{incident.incident} {room}\n")
        sys.stdout.flush()
        number += 1
    journal.close()


if __name__ == "__main__":
    write_incidents(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
