"""Bytes from dongles in, findings out: all of detection between the ports and the journal.

It opens nothing and never asks for the time, so the same object serves the daemon, the benchmark
and the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from edge.core.detector import SILENT_S, Finding
from edge.detect.judge import score_round
from edge.detect.wearer import Heard, Wearer
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

    def __init__(
        self, gateway: Gateway, scorers: Mapping[str, Scorer | None], *, shadowed: Collection[str] = ()
    ) -> None:
        """Begin with each wearable's scorer, None where no model may run.

        What wearables in ``shadowed`` send is also kept for `take_heard`.
        """
        self._heard: list[Heard] = []
        self.gateway = gateway
        self.wearers = {w: Wearer(w, s, self._heard if w in shadowed else None) for w, s in scorers.items()}
        self.dongles: dict[str, Dongle] = {}
        self.windows = 0

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

    def take_heard(self) -> list[Heard]:
        """Return what the shadowed wearables sent since the last call."""
        heard = self._heard.copy()
        self._heard.clear()
        return heard

    def _score(self, wearers: list[Wearer]) -> list[News]:
        """Score the windows that are due, one per wearable and round, each round in one batch per model."""
        news: list[News] = []
        judges = [w.judge for w in wearers if w.judge is not None]
        while judges:
            scored = score_round(judges)
            self.windows += len(scored)
            for judge, findings in scored:
                news += self._found(self.wearers[judge.wearable], findings)
            judges = [judge for judge, _ in scored]
        return news

    def _found(self, wearer: Wearer, findings: list[Finding]) -> list[News]:
        return [Found(wearer.wearable, f, wearer.offset.monotonic_s(f.impact_s)) for f in findings]
