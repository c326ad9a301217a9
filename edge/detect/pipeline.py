"""Bytes from dongles in, findings out: all of detection between the ports and the journal.

It opens nothing and never asks for the time, so the same object serves the daemon, the benchmark
and the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from edge.core.detector import SILENT_S, Finding
from edge.detect.wearer import Wearer
from firmware_bridge.session import Gateway
from firmware_bridge.wire import Button, DongleHello, DongleStatus, FrameDecoder, Hello, Samples, Status, Uplink
from models.scorer import Scorer

BACKLOG_S = 4.0  # a stream this far ahead of its scores is scored before more of it is taken


@dataclass(frozen=True, slots=True)
class Found:
    """A finding about one wearable's stream; ``impact_at_s`` is on the Pi's monotonic clock."""

    wearable: str
    finding: Finding
    impact_at_s: float


@dataclass(frozen=True, slots=True)
class Pressed:
    """The button of a wearable was pressed; it repeats until the press is acknowledged."""

    wearable: str
    button: Button
    received_s: float


News: TypeAlias = Found | Pressed


@dataclass(slots=True)
class Dongle:
    """What one dongle said, and what was wrong with it."""

    decoder: FrameDecoder
    hello: DongleHello | None = None
    status: DongleStatus | None = None
    unexpected: int = 0  # well-formed frames that a dongle does not send


class Pipeline:
    """Decode, open, order, resample, score in one batch over all wearables, decide."""

    def __init__(self, gateway: Gateway, scorers: Mapping[str, Scorer | None]) -> None:
        """Begin with each wearable's scorer; None where no model may run."""
        self.gateway = gateway
        self.wearers = {wearable: Wearer(wearable, scorer) for wearable, scorer in scorers.items()}
        self.dongles: dict[str, Dongle] = {}
        self.windows = 0
        self._scorers = list({id(s): s for s in scorers.values() if s is not None}.values())

    def feed(self, port: str, data: bytes, received_s: float) -> list[News]:
        """Take bytes as they came from one port; any split gives the same findings."""
        dongle = self.dongles.setdefault(port, Dongle(FrameDecoder()))
        news: list[News] = []
        heard: dict[str, Wearer] = {}
        for frame in dongle.decoder.feed(data):
            match frame:
                case Uplink(rssi_dbm=rssi_dbm, packet=packet):
                    opened = self.gateway.open(packet)
                    if opened is None or (wearer := self.wearers.get(opened[0])) is None:
                        continue
                    wearer.rssi_dbm = rssi_dbm
                    match opened[1]:
                        case Samples() as samples:
                            wearer.heard_s = received_s  # samples alone protect: a hello is no sign of it
                            heard[wearer.wearable] = wearer
                            news += self._found(wearer, wearer.on_samples(samples, received_s))
                            if wearer.backlog_s > BACKLOG_S:  # many batches in one read
                                news += self._score([wearer])
                        case Button() as button:
                            news.append(Pressed(wearer.wearable, button, received_s))
                        case Status() as status:
                            wearer.status = status
                            wearer.worn, wearer.charging = status.worn, status.charging
                        case Hello() as hello:
                            wearer.hello = hello
                case DongleHello() as hello:
                    dongle.hello = hello
                case DongleStatus() as status:
                    dongle.status = status
                case _:
                    dongle.unexpected += 1
        return news + self._score(list(heard.values()))

    def on_timer(self, now_s: float) -> list[News]:
        """Settle the streams that fell silent; call it about once a second."""
        news: list[News] = []
        for wearer in self.wearers.values():
            if wearer.heard_s is not None and now_s - wearer.heard_s > SILENT_S:
                news += self._found(wearer, wearer.on_silence())
        return news

    def _score(self, wearers: list[Wearer]) -> list[News]:
        """Score the windows that are due, one per wearable and round, each round in one batch per model."""
        news: list[News] = []
        while wearers:
            waiting: list[Wearer] = []
            for scorer in self._scorers:
                batch = [(w, *due) for w in wearers if w.scorer is scorer and (due := w.due()) is not None]
                if not batch:
                    continue
                self.windows += len(batch)
                probabilities = scorer.score(np.stack([window for _, _, window in batch]))
                for (wearer, end, _), probability in zip(batch, probabilities.tolist(), strict=True):
                    news += self._found(wearer, wearer.detector.decide(end, probability))
                    waiting.append(wearer)
            wearers = waiting
        return news

    def _found(self, wearer: Wearer, findings: list[Finding]) -> list[News]:
        return [Found(wearer.wearable, f, wearer.offset.monotonic_s(f.impact_s)) for f in findings]
