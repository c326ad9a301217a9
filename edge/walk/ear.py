"""What is heard of the wearables now: from the detect service, or from the receivers where it does not run."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.clock import monotonic_s
from edge.core.walk import Packet
from edge.detect.links import Links
from edge.detect.pipeline import Pipeline
from edge.keys import KeyStore
from edge.runfile import read_runfile
from edge.settings import FEELS_SKIN, Settings
from firmware_bridge.link import LinkEvent, Lost, Opened, Received

STALE_S = 6.0  # a service that said nothing for so long does not run


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of one wearable now, ``packets`` of the last seconds."""

    heard_s_ago: float | None
    rssi_dbm: int | None
    lost_part: float  # of the samples of those packets
    battery_pct: int | None
    rate_hz: float
    cause: str | None  # why it protects nobody, where the service says
    packets: tuple[Packet, ...]


class Ear(Protocol):
    """Where it is heard."""

    name: str

    def look(self) -> dict[str, Told] | None:
        """Return what is known of each wearable; None where nothing tells."""

    def problem(self) -> str:
        """Return why nothing is heard at all, or nothing."""

    def close(self) -> None:
        """Let go."""


def told_of(words: Mapping[str, Any]) -> Told:
    """Return what the words of a run file say of one wearable."""
    packets = tuple(Packet(*packet) for packet in words.get("trail", ()))
    span = {(p.boot, p.first): p.n for p in packets}
    lost = 0
    for (boot, first), (boot_2, first_2) in zip(sorted(span), sorted(span)[1:], strict=False):
        lost += max(first_2 - first - span[boot, first], 0) if boot == boot_2 else 0
    return Told(
        words["heard_s_ago"],
        words["rssi_dbm"],
        lost / (lost + sum(span.values())) if span else 0.0,
        words["battery_pct"],
        words["rate_hz"],
        words.get("cause"),
        packets,
    )


class ServiceEar:
    """Reads what the detect service says of itself each second."""

    name = "the detect service"

    def __init__(self, run: Path) -> None:
        self._path = run / "detect.json"

    def look(self) -> dict[str, Told] | None:
        """Return what it last said; None where it no longer says anything."""
        said = read_runfile(self._path)
        if said is None or said["age_s"] > STALE_S:
            return None
        return {wearable: told_of(words) for wearable, words in said["wearables"].items()}

    def problem(self) -> str:
        """Return which receivers it has lost, if it has all of them."""
        links = (read_runfile(self._path) or {}).get("links", {})
        lost = [f"{name}: {link['cause']}" for name, link in links.items() if not link["well"]]
        return "; ".join(lost) if len(lost) == len(links) else ""

    def close(self) -> None:
        """Nothing is held."""


class ReceiverEar:
    """Listens to the receivers itself, as the detect service would, and judges no movement."""

    name = "the receivers, as the detect service does not run"

    def __init__(self, settings: Settings, state: Path) -> None:
        wearables = [w for resident in settings.resident for w in resident.wearables]
        sealed = [w for w in wearables if settings.is_sealed(w)]
        self._links = Links(settings)
        self._gateway = KeyStore(settings.secrets, state).gateway(sealed)
        self._pipeline = Pipeline(
            self._gateway,
            dict.fromkeys(wearables),
            devices=self._links.devices,
            broker=self._links.broker,
            unsealed=set(wearables) - set(sealed),
            feels_nothing={w for w in wearables if settings.wearable_kind(w) not in FEELS_SKIN},
        )
        self._lost = dict.fromkeys(self._links.names, "not open yet")
        self._events: queue.Queue[LinkEvent] = queue.Queue()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, args=(self._events.put, self._stop), name="link", daemon=True)
            for run in self._links.runs
        ]
        for thread in self._threads:
            thread.start()

    def look(self) -> dict[str, Told] | None:
        """Take what came since the last look."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._events.get_nowait())
        now_s = monotonic_s()
        for port, data in self._pipeline.say(now_s):
            self._links.send(data, port)
        if len(self._lost) < len(self._links.names):
            for _, packet in self._gateway.proofs_due(now_s):
                self._links.send_packet(packet)
        return {w: told_of(wearer.words(now_s)) for w, wearer in self._pipeline.wearers.items()}

    def _take(self, event: LinkEvent) -> None:
        match event:
            case Received():
                self._pipeline.feed(
                    event.port, event.data, event.received_s, channel=event.channel, rssi_dbm=event.rssi_dbm
                )
            case Opened(port=port):
                self._lost.pop(port, None)
                for data in self._pipeline.opened(port):
                    self._links.send(data, port)
                self._links.greet(port)
            case Lost(port=port, reason=reason):
                self._lost[port] = reason
                self._pipeline.lost(port, monotonic_s())

    def problem(self) -> str:
        """Return why no receiver can be heard, if none can."""
        if not self._links.names:
            return "the settings name no receiver"
        lost = [f"{name}: {reason}" for name, reason in self._lost.items()]
        return "; ".join(lost) if len(lost) == len(self._links.names) else ""

    def close(self) -> None:
        """Close the receivers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2.0)
        self._gateway.stop()


def open_ear(settings: Settings, state: Path, run: Path) -> Ear:
    """Return the detect service's ear where it runs, else one of our own."""
    service = ServiceEar(run)
    return service if service.look() is not None else ReceiverEar(settings, state)
