"""Open the ways in and hear what comes, as the detect service does, without its counters and its answers."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from edge.clock import monotonic_s
from edge.detect.links import Links
from edge.detect.pipeline import Pipeline
from edge.keys import KeyStore, KeyUnusable
from edge.settings import Settings
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.session import Counters, Gateway

TURN_S = 0.2
SETTLE_S = 1.0  # after the last one was heard: a status may follow


@dataclass(slots=True)
class Heard:
    """What came by the links of some settings."""

    pipeline: Pipeline
    waited_s: float = 0.0
    opened: set[str] = field(default_factory=set)
    octets: dict[str, int] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)  # link: why
    without_key: dict[str, str] = field(default_factory=dict)  # wearable: why

    def speaks(self, wearable: str) -> bool:
        """Tell whether samples of a wearable came and could be used."""
        return self.pipeline.wearers[wearable].heard_s is not None

    def forged(self, wearable: str) -> int:
        """Return how many frames came in a wearable's name that its key does not open."""
        session = self.pipeline.gateway.session(wearable)
        return 0 if session is None else session.counts.forged


def listen(settings: Settings, keys: KeyStore, wearables: Collection[str], *, wait_s: float) -> Heard:
    """Return what was heard within ``wait_s``, or sooner once every link and wearable has spoken.

    Every counter is taken and none is stored, so the services find all as they left it; nothing is sealed.
    """
    gateway = Gateway(lambda _counters: None)
    heard_of: dict[str, str] = {}
    for wearable in filter(settings.is_sealed, wearables):
        try:
            key = keys.load(wearable)
        except KeyUnusable as error:
            heard_of[wearable] = error.reason
            continue
        if key is None:
            heard_of[wearable] = "has no key"
        else:
            gateway.add(wearable, key, Counters())
    links = Links(settings)
    pipeline = Pipeline(
        gateway,
        dict.fromkeys(wearables),
        devices=links.devices,
        broker=links.broker,
        unsealed=[w for w in wearables if not settings.is_sealed(w)],
    )
    heard = Heard(pipeline, without_key=heard_of)
    events: queue.Queue[LinkEvent] = queue.Queue()
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(events.put, stop), daemon=True) for run in links.runs]
    for thread in threads:
        thread.start()
    begun_s = monotonic_s()
    until_s, said_s = begun_s + wait_s, 0.0
    while (now_s := monotonic_s()) < until_s:
        with contextlib.suppress(queue.Empty):
            _take(events.get(timeout=min(TURN_S, until_s - now_s)), heard, links)
        if now_s - said_s >= 1.0:  # some devices want to be asked again and again
            said_s = now_s
            for port, data in pipeline.say(now_s):
                links.send(data, port)
        if heard.opened >= set(links.names) and all(map(heard.speaks, wearables)):
            until_s = min(until_s, now_s + SETTLE_S)
    heard.waited_s = monotonic_s() - begun_s
    stop.set()
    for thread in threads:
        thread.join(3.0)  # a port that hangs ends with the program
    return heard


def _take(event: LinkEvent, heard: Heard, links: Links) -> None:
    match event:
        case Opened(port=port):
            heard.opened.add(port)
            heard.lost.pop(port, None)
            for data in heard.pipeline.opened(port):
                links.send(data, port)
            links.greet(port)
        case Lost(port=port, reason=reason):
            heard.lost[port] = reason
        case Received():
            heard.octets[event.port] = heard.octets.get(event.port, 0) + len(event.data)
            heard.pipeline.feed(
                event.port, event.data, event.received_s, channel=event.channel, rssi_dbm=event.rssi_dbm
            )
