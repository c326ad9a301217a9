"""The main job in a minute: real services, virtual wearables and pager, one of six people falls.

Nothing is stood in for but the radio, the pager system and the carer: the services are the ones a
home runs, the bytes are the real wire format, the motion is that of real people.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from edge.journal import JOURNAL_FILE, Journal
from edge.keys import KeyStore
from edge.recording import read_recording
from edge.runfile import read_runfile
from edge.settings import load_settings
from edge.simulate import virtual_dongle
from edge.sinks.espa_station import EspaStation
from edge.sinks.record import RECORD_FILE, EmbeddedRecord
from firmware_bridge.virtual import DonglePty

RECORDINGS = Path(__file__).resolve().parent.parent / "tests" / "data"
FALL = "fall-forward-wrist.csv"
PARTS = [  # recording, room, bed, placement
    ("walk-wrist.csv", "10", "", "wrist"),
    ("sit-wrist.csv", "11", "", "wrist"),
    (FALL, "12", "A", "wrist"),
    ("bend-wrist.csv", "12", "B", "wrist"),
    ("walk-wrist.csv", "14", "", "wrist"),
    ("stairs-waist.csv", "15", "", "waist"),
]
FALLER = "0003"
CARER = "night-carer"
STEP_S = 6.0
GIVE_UP_S = 55.0

SETTINGS = """
[home]
id = "demo"
name = "Demonstration"

[[dongle]]
port = "{folder}/dongle"

{residents}
[[pager]]
kind = "espa444"
port = "{folder}/pager"

[escalation]
groups = ["12", "20", "0"]
steps_s = [{step}, {two_steps}]
repeat_every_s = {step}
"""
RESIDENT = """[[resident]]
id = "r{number}"
room = "{room}"
bed = "{bed}"
wearable = "{number:04d}"
placement = "{placement}"

"""


@dataclass
class Story:
    """What has happened so far, and when."""

    begun_s: float = 0.0  # monotonic; the wearables begin to play
    impact_s: float = float("inf")
    pages: list[tuple[float, str, str]] = field(default_factory=list)  # monotonic, pager, text
    done: dict[str, float] = field(default_factory=dict)  # step: monotonic
    incident: str = ""

    def after_impact(self, at_s: float) -> str:
        """Say a moment as seconds since the impact."""
        return f"{at_s - self.impact_s:+.1f} s"

    def finish(self, step: str) -> None:
        """Note a step the first time it is seen."""
        self.done.setdefault(step, time.monotonic())


STEPS = {
    "fall detected": "incident in the journal",
    "paged": "on the pager of group 12",
    "escalated": "nobody answered: groups 12 and 20",
    "acknowledged": f"by {CARER}",
    "resolved": "outcome: fall",
    "in the record": "Observation, Task, AdverseEvent, once each",
}


def run_demo(keep: Path | None) -> int:
    """Play the demonstration; return 0 only if every step of it happened."""
    console = Console()
    if not RECORDINGS.is_dir():
        console.print(f"The demonstration plays the recordings in {RECORDINGS}: run it in a checkout.")
        return 1
    console.print("[bold]fallwatch demonstration[/]: six people wear a sensor, the one in room 12 bed A falls.")
    console.print(
        f"Escalation is shortened for it: the call widens after {STEP_S:.0f} s here, after minutes in a home.\n"
    )
    with tempfile.TemporaryDirectory(prefix="fallwatch-demo-") as temporary:
        return _play(console, Path(keep.resolve() if keep else temporary))


def _play(console: Console, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    config, state, run = folder / "fallwatch.toml", folder / "state", folder / "run"
    residents = "".join(
        RESIDENT.format(number=i, room=room, bed=bed, placement=placement)
        for i, (_, room, bed, placement) in enumerate(PARTS, start=1)
    )
    config.write_text(
        SETTINGS.format(folder=folder, residents=residents, step=STEP_S, two_steps=2 * STEP_S), encoding="utf-8"
    )
    settings = load_settings(config)
    store = KeyStore(settings.secrets, state)
    for resident in settings.resident:
        store.make(resident.wearable)
    plays = [f"{RECORDINGS / name},wearable={i:04d}" for i, (name, *_) in enumerate(PARTS, start=1)]
    plays = [play if FALL in play else f"{play},loop" for play in plays]
    dongle, names = virtual_dongle(settings, state, plays)
    story, ended = Story(), threading.Event()

    def on_page(address: str, text: str, _call: str, _priority: str) -> None:
        story.pages.append((time.monotonic(), address, text))

    environment = {
        **os.environ,
        "FALLWATCH_CONFIG": str(config),
        "FALLWATCH_STATE": str(state),
        "FALLWATCH_RUN": str(run),
    }
    command = [sys.executable, "-m", "edge.cli"]
    with (
        EspaStation.on_pty(folder / "pager", on_page),
        DonglePty(dongle, folder / "dongle") as pty,
        (folder / "services.log").open("wb") as log,
    ):
        services = subprocess.Popen([*command, "run"], env=environment, stdout=log, stderr=log)  # noqa: S603
        player = threading.Thread(target=pty.run, args=(ended,), daemon=True)
        try:
            _wait(lambda: read_runfile(run / "detect.json") is not None, 15.0)
            story.begun_s = time.monotonic()
            story.impact_s = story.begun_s + names.index(FALLER) * 0.5 / len(names) + _impact_s(RECORDINGS / FALL)
            player.start()

            def ask(*arguments: str) -> str:
                return subprocess.run(  # noqa: S603
                    [*command, *arguments],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=20,
                    check=False,
                ).stdout

            ok = _follow(console, story, ask, run, state)
        finally:
            services.terminate()
            services.wait(timeout=15)
            ended.set()
            if player.is_alive():
                player.join(timeout=5)
        if not ok:
            console.print((folder / "services.log").read_text(encoding="utf-8")[-3000:])
    return _summarise(console, story, ok=ok)


def _follow(console: Console, story: Story, ask: Callable[..., str], run: Path, state: Path) -> bool:
    """Watch the services do their work, be the carer, and look into the record."""
    until_s = time.monotonic() + GIVE_UP_S
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while time.monotonic() < until_s and len(story.done) < len(STEPS):
            live.update(_picture(story, read_runfile(run / "detect.json")))
            _next_step(story, ask, state)
            time.sleep(0.2)
        live.update(_picture(story, read_runfile(run / "detect.json")))
    return len(story.done) == len(STEPS)


def _next_step(story: Story, ask: Callable[..., str], state: Path) -> None:
    if "fall detected" not in story.done and (state / JOURNAL_FILE).exists():
        journal = Journal(state / JOURNAL_FILE)
        for case in journal.open_cases():
            raised = case.first("raised")
            if case.facts.wearable == FALLER and raised is not None:
                story.incident = case.facts.incident
                story.done["fall detected"] = raised.mono_s
        journal.close()
    for at_s, pager, text in story.pages:
        if "FALL?" in text and "CANCELLED" not in text:
            story.done.setdefault("paged", at_s)
            if pager == "20":
                story.done.setdefault("escalated", at_s)
    if "escalated" in story.done and "acknowledged" not in story.done:
        if f"Acknowledged by {CARER}" in ask("ack", story.incident, "--by", CARER):
            story.finish("acknowledged")
    elif "acknowledged" in story.done and "resolved" not in story.done:
        if "Closed as fall" in ask("resolve", story.incident, "--outcome", "fall", "--by", CARER):
            story.finish("resolved")
    elif "resolved" in story.done:
        entries = [
            e
            for e in EmbeddedRecord(state / RECORD_FILE, read_only=True).entries()
            if e.incident == story.incident
        ]
        kinds = [e.type for e in entries]
        once = all(kinds.count(kind) == 1 for kind in ("Observation", "Task", "AdverseEvent"))
        if once and any(e.type == "Observation" and e.status == "final" for e in entries):
            story.finish("in the record")


def _picture(story: Story, detect: dict[str, Any] | None) -> Group:
    since_s = time.monotonic() - story.impact_s
    wearers = Table("room", "wearable", "samples", "state", expand=True, box=None)
    for i, (name, room, bed, _) in enumerate(PARTS, start=1):
        told = (detect or {}).get("wearables", {}).get(f"{i:04d}", {})
        fallen = f"{i:04d}" == FALLER and since_s > 0
        doing = "[bold red]has fallen[/]" if fallen else name.partition("-")[0].replace("fall", "about to fall")
        watched = "[green]watched[/]" if told.get("well") else f"[yellow]{told.get('cause') or 'starting'}[/]"
        wearers.add_row(f"{room} {bed}", f"{i:04d} {watched}", str(told.get("samples", 0)), doing)
    pager = Table.grid(padding=(0, 2))
    for at_s, to, text in story.pages[-6:]:
        pager.add_row(f"[dim]{story.after_impact(at_s)}[/]", f"pager {to}", f"[bold]{text}[/]")
    steps = Table.grid(padding=(0, 2))
    for step, words in STEPS.items():
        if step in story.done:
            told = f"{story.after_impact(story.done[step])} after the impact, {words}"
            steps.add_row("[green]done[/]", step, told)
        else:
            steps.add_row("[dim]waiting[/]", step, "")
    clock = f"{since_s:.0f} s since the impact" if since_s > 0 else "everybody is up and about"
    return Group(
        Panel(wearers, title="residents", title_align="left"),
        Panel(pager, title=f"what the pager shows ({clock})", title_align="left", height=8),
        Panel(steps, title="the main job", title_align="left"),
    )


def _summarise(console: Console, story: Story, *, ok: bool) -> int:
    console.print()
    for step in STEPS:
        words = f"{story.after_impact(story.done[step])} since impact" if step in story.done else "DID NOT HAPPEN"
        console.print(f"  {step:<16} {words}")
    alarms = {text for _, _, text in story.pages if "RM 12 BED A" not in text}
    if alarms:
        console.print(f"  Unexpected pages: {', '.join(sorted(alarms))}")
    if ok and not alarms:
        console.print(
            "[green]All of it happened.[/] Next: docs/install.md for a home, fallwatch --help for the rest."
        )
        return 0
    console.print("[bold red]Not all of it happened:[/] see the log of the services above.")
    return 1


def _impact_s(path: Path) -> float:
    """Return when the recorded person hits the floor: the greatest acceleration."""
    runs = read_recording(path).runs
    t_s = np.concatenate([run.t_s for run in runs])
    accel_g = np.concatenate([run.accel_g for run in runs])
    return float(t_s[np.linalg.norm(accel_g, axis=1).argmax()])


def _wait(ready: Callable[[], bool], timeout_s: float) -> None:
    until_s = time.monotonic() + timeout_s
    while not ready() and time.monotonic() < until_s:
        time.sleep(0.05)
