"""A made-up home at real speed: the services of `fallwatch run` hear it through a pty, a pager system is paged.

Its troubles are shortened, one to a resident, and begin together; limits that would outlast it are set shorter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.core.incident import Kind
from edge.home.motion import Pool
from edge.home.player import Heard, play
from edge.home.scenario import FOR_EVER, LIMITS_S, Activity, Doing, Event, Home, Life, Place, Truth
from edge.home.score import BLIND, HOME, WARNING, Alarm, Name, Page, Told
from edge.journal import JOURNAL_FILE, Journal
from edge.keys import KeyStore
from edge.runfile import read_runfile
from edge.settings import load_settings
from edge.sinks.espa_station import EspaStation
from firmware_bridge.session import WearableCounters, WearableSession
from firmware_bridge.virtual import DonglePty, VirtualDongle
from firmware_bridge.wire import (
    VERSION,
    DongleHello,
    Downlink,
    FrameDecoder,
    Hello,
    Proof,
    Prove,
    Status,
    Uplink,
    encode_frame,
    read_header,
)

BEGIN_S, AFTERWARDS_S, UNPLUGGED_S = 60.0, 60.0, 45.0
TO_ACT_S = 5.0  # what is shortened is over soon
LEAST_S = BEGIN_S + 120.0 + AFTERWARDS_S + UNPLUGGED_S + 30.0
FORGED_EVERY_S = 0.5
PLAYED = (  # truth, how; what can be named within minutes
    (Truth.WELL, 0.0),
    (Truth.FALL, 0.0),
    (Truth.FALL, 0.0),
    (Truth.CHARGING, 0.0),
    (Truth.FLAT, 0.0),
    (Truth.LOW_BATTERY, 0.0),
    (Truth.BROKEN, 0.0),
    (Truth.OUT_OF_RANGE, 0.0),
    (Truth.OFF_FELT, 0.0),
    (Truth.FROZEN, 0.0),
    (Truth.SATURATED, 0.0),
    (Truth.AXES, 0.0),
    (Truth.SCALE, 2.0),
    (Truth.SCALE, 0.5),
    (Truth.RATE, 2.0),
    (Truth.RATE, 0.5),
    (Truth.CLOCK, 0.0),
    (Truth.CLOCK, 1.0),
    (Truth.FIRMWARE, 0.0),
    (Truth.WELL, 0.0),
)
SETTINGS = """
[home]
id = "made-up"
name = "A made-up home"

[[dongle]]
port = "{folder}/dongle"

{residents}
[[pager]]
kind = "espa444"
port = "{folder}/pager"

[detect]
not_worn_page_s = 30
charging_page_s = 30
"""
RESIDENT = """[[resident]]
id = "r{wearable}"
room = "{wearable}"
wearable = "{wearable}"

"""


def live_home(length_s: float, rng: np.random.Generator) -> Home:
    """Return a home in which everything happens within minutes.

    Raises:
        ValueError: that is too short for it.
    """
    if length_s < LEAST_S:
        raise ValueError(f"a live home takes at least {LEAST_S:.0f} s")
    unplug_s = length_s - UNPLUGGED_S - 30.0
    until_s = unplug_s - AFTERWARDS_S
    lives = []
    for number, (truth, how) in enumerate(PLAYED, start=1):
        wearable = f"{number:04d}"
        begin_s = BEGIN_S + (number % 10) * 2.0
        event = Event(begin_s, until_s, truth, wearable, how, begin_s + LIMITS_S.get(truth, 60.0))
        events: tuple[Event, ...] = () if truth is Truth.WELL else (event,)
        if truth is Truth.FLAT:  # it is low from the beginning
            events = (Event(0.0, begin_s, Truth.LOW_BATTERY, wearable), event)
        part = {Truth.FLAT: 0.02, Truth.LOW_BATTERY: 0.12}.get(truth, 0.8)
        later = {Truth.FLAT: 0.0, Truth.LOW_BATTERY: 0.08}.get(truth, part)
        lives.append(
            Life(
                wearable,
                f"{wearable}-2",
                (
                    Doing(0.0, BEGIN_S, Activity.BUSY, Place.ROOM),
                    Doing(BEGIN_S, length_s, Activity.REST, Place.ROOM),
                ),
                events,
                feels_skin=True,
                buffers=number % 2 == 0,
                place_dbm=dict.fromkeys(Place, float(rng.uniform(-75, -60))),
                charge=((0.0, part), (begin_s, part), (begin_s + 1.0, later), (length_s, later)),
                dies_at_pct=0,
            )
        )
    home = (
        Event(BEGIN_S, until_s, Truth.FORGED, "", 0.0, BEGIN_S + 60.0),
        Event(unplug_s, unplug_s + UNPLUGGED_S, Truth.UNPLUGGED, "", 0.0, unplug_s + 60.0),
    )
    return Home(tuple(lives), home, length_s)


class HomeDongle(VirtualDongle):
    """A dongle that hears a made-up home; packets are sealed as they are sent."""

    def __init__(self, home: Home, heard: Iterator[Heard], session_of: Callable[[str], WearableSession]) -> None:
        super().__init__([])
        self.base_s = 0.0  # how far it had been played when it was plugged in last
        self._sessions = {life.wearable: session_of(life.wearable) for life in home.lives}
        self._coming = heard
        self._ahead = next(heard, None)
        self._answers: list[bytes] = [encode_frame(DongleHello(VERSION, (1, 0, 0), b"made-up1"))]
        self._frames = FrameDecoder()
        self._attacker = WearableSession(
            home.lives[0].wearable, os.urandom(16), WearableCounters(), save=lambda _: None
        )
        self._forged = [e for e in home.events if e.truth is Truth.FORGED]
        self._forge_s = 0.0

    def due_s(self) -> float:
        """Return when the next bytes come, in the time of who plays it."""
        if self._answers:
            return 0.0
        return (self._ahead[0] if self._ahead else FOR_EVER) - self.base_s

    def frames_until(self, t_s: float) -> bytes:
        """Return all frames due by ``t_s`` of who plays it."""
        now_s = self.base_s + t_s
        out, self._answers = self._answers, []
        while self._ahead is not None and self._ahead[0] <= now_s:
            _, wearable, message, dbm = self._ahead
            session = self._sessions[wearable]
            if isinstance(message, Hello):
                message = replace(message, last_command=session.last_command)
            out.append(encode_frame(Uplink(max(dbm, -127), session.seal(message))))
            self._ahead = next(self._coming, None)
        while self._forge_s < now_s:
            self._forge_s += FORGED_EVERY_S
            if any(e.begin_s <= self._forge_s < e.end_s for e in self._forged):
                out.append(encode_frame(Uplink(-60, self._attacker.seal(Status(50, 3700, 30, 0, 0)))))
        self._now_s = now_s
        return b"".join(out)

    def take(self, data: bytes) -> None:
        """Hear commands; a challenge is answered, even while its wearable is away: it is about the key alone."""
        for frame in self._frames.feed(data):
            if isinstance(frame, Downlink):
                session = self._sessions.get(read_header(frame.packet).wearable)
                command = None if session is None else session.open(frame.packet)
                if session is not None and isinstance(command, Prove):
                    self._answers.append(encode_frame(Uplink(-60, session.seal(Proof(command.challenge)))))


@dataclass
class Seen:
    """What the outside saw of the services."""

    told: Told = field(default_factory=Told)
    paged: list[tuple[float, str, str]] = field(default_factory=list)  # s of the home's time, pager, text
    raise_to_pager_s: list[float] = field(default_factory=list)
    _now: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)

    def look(self, detect: dict[str, Any] | None, now_s: float) -> None:
        """Take what the detect service says of itself."""
        for resident, words in ((detect or {}).get("residents") or {}).items():
            self.name(resident[1:], BLIND, words["cause"], now_s)
            self.name(resident[1:], WARNING, words["warning"], now_s)

    def name(self, wearable: str, layer: str, cause: str | None, now_s: float) -> None:
        """Note what one resident is said to be now."""
        known, since_s = self._now.get((wearable, layer), (None, 0.0))
        if known == cause:
            return
        if known is not None:
            self.told.names.append(Name(wearable, layer, known, since_s, now_s))
            del self._now[wearable, layer]
        if cause is not None:
            self._now[wearable, layer] = (cause, now_s)

    def read(self, journal: Path, begun_s: float, end_s: float) -> None:
        """Take what the journal has, and end what still holds."""
        for wearable, layer in list(self._now):
            self.name(wearable, layer, None, end_s)
        opened = Journal(journal)
        for case in opened.cases(limit=1000):
            facts, raised, closed = case.facts, case.first("raised"), case.first("resolved")
            if raised is None:
                continue
            at_s, wearable = raised.mono_s - begun_s, (facts.resident or "r")[1:]
            room = f"RM {facts.room}" if facts.room else str(facts.cause or "").upper()
            texts = [s for s, _, text in self.paged if room in text.upper() and s >= at_s - 0.5]
            if facts.kind is Kind.BLIND:
                layer = HOME if not wearable else WARNING if facts.fault else BLIND
                self.told.pages.append(Page(wearable, layer, str(facts.cause), at_s, facts.board_only))
                if layer == HOME:
                    gone_s = end_s if closed is None else closed.mono_s - begun_s
                    self.told.names.append(Name("", HOME, str(facts.cause), at_s, gone_s))
            elif facts.kind in {Kind.FALL, Kind.LONG_LIE}:
                since_s = float(raised.body.get("since_impact_s", 0.0))
                self.told.alarms.append(Alarm(wearable, at_s - since_s, at_s))
            if texts and not facts.board_only:
                self.raise_to_pager_s.append(max(min(texts) - at_s, 0.0))
        opened.close()


def run_live(home: Home, pool: Pool, seed: int, say: Callable[[str], None], keep: Path | None = None) -> Seen:
    """Play a home into the real services, in real time, and return what they told."""
    with tempfile.TemporaryDirectory(prefix="fallwatch-home-") as temporary:
        folder = (keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return _run_in(folder, home, pool, seed, say)


def _run_in(folder: Path, home: Home, pool: Pool, seed: int, say: Callable[[str], None]) -> Seen:
    config, state, run = folder / "fallwatch.toml", folder / "state", folder / "run"
    residents = "".join(RESIDENT.format(wearable=life.wearable) for life in home.lives)
    config.write_text(SETTINGS.format(folder=folder, residents=residents), encoding="utf-8")
    store = KeyStore(load_settings(config).secrets, state)
    for life in home.lives:
        store.make(life.wearable)
    dongle = HomeDongle(home, play(home, pool, np.random.default_rng([seed, 1])), store.simulated_wearable)
    seen, begun_s = Seen(), FOR_EVER
    unplugged = next(e for e in home.events if e.truth is Truth.UNPLUGGED)

    def on_page(address: str, text: str, _call: str, _priority: str) -> None:
        seen.paged.append((time.monotonic() - begun_s, address, text))
        say(f"{seen.paged[-1][0]:6.1f} s  pager {address}: {text}")

    places = {"FALLWATCH_CONFIG": config, "FALLWATCH_STATE": state, "FALLWATCH_RUN": run}
    environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
    command = [sys.executable, "-m", "edge.cli", "run"]
    with EspaStation.on_pty(folder / "pager", on_page), (folder / "services.log").open("wb") as log:
        services = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603
        try:
            until_s = time.monotonic() + 20.0
            while read_runfile(run / "detect.json") is None and time.monotonic() < until_s:
                time.sleep(0.05)
            begun_s = time.monotonic()

            def plugged(from_s: float, to_s: float) -> None:
                ended = threading.Event()
                dongle.base_s = from_s
                with DonglePty(dongle, folder / "dongle") as pty:
                    player = threading.Thread(target=pty.run, args=(ended,), daemon=True)
                    player.start()
                    _follow(seen, run, begun_s, to_s)
                    ended.set()
                    player.join(timeout=5)

            plugged(0.0, unplugged.begin_s)
            _follow(seen, run, begun_s, unplugged.end_s)
            plugged(unplugged.end_s, home.end_s)
        finally:
            services.terminate()
            services.wait(timeout=15)
    seen.told.judged_s = home.end_s * len(home.lives)
    seen.read(state / JOURNAL_FILE, begun_s, home.end_s)
    return seen


def _follow(seen: Seen, run: Path, begun_s: float, until_s: float) -> None:
    while (now_s := time.monotonic() - begun_s) < until_s:
        seen.look(read_runfile(run / "detect.json"), now_s)
        time.sleep(min(0.5, max(until_s - now_s, 0.0)))
