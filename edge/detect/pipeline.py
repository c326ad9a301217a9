"""Bytes from dongles in, findings out: all of detection between the ports and the journal.

It opens nothing and never asks for the time, so the same object serves the daemon, the benchmark
and the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from edge.core.detector import SILENT_S, Finding
from edge.detect.judge import score_round
from edge.detect.wearer import Heard, Wearer
from firmware_bridge.devices import Device
from firmware_bridge.devices.broker import BrokerDecoder
from firmware_bridge.devices.broker import Heard as BrokerHeard
from firmware_bridge.devices.broker import Said as BrokerSaid
from firmware_bridge.session import Gateway
from firmware_bridge.wire import (
    TYPE_SAMPLES,
    Button,
    DongleHello,
    DongleStatus,
    FrameDecoder,
    Hello,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
)
from models.scorer import Scorer

BROKER = "mqtt"  # the link by that name carries topics
RSSI_UNKNOWN_DBM = -128  # says a wearable that frames its packets itself: the link knows better
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
Message: TypeAlias = tuple[str, UplinkMessage, int | None]  # wearable, what it said, how strong it was heard


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
        self,
        gateway: Gateway,
        scorers: Mapping[str, Scorer | None],
        *,
        devices: Mapping[str, tuple[str, Device]] | None = None,
        unsealed: Collection[str] = (),
        feels_nothing: Collection[str] = (),
        shadowed: Collection[str] = (),
        broker: BrokerDecoder | None = None,
    ) -> None:
        """Begin.

        Args:
            gateway: opens what is sealed.
            scorers: each wearable's, None where no model may run.
            devices: links that carry one wearable with a format of its own, and which.
            unsealed: wearables that have no key, and are taken at their word.
            feels_nothing: wearables that cannot tell whether they are worn.
            shadowed: what these send is also kept for `take_heard`.
            broker: reads what comes by the building's broker.
        """
        self._heard: list[Heard] = []
        self._devices = dict(devices or {})
        self._broker = broker
        self.gateway = gateway
        self.wearers = {
            w: Wearer(
                w,
                scorer,
                self._heard if w in shadowed else None,
                sealed=w not in unsealed,
                feels_skin=w not in feels_nothing,
            )
            for w, scorer in scorers.items()
        }
        self.dongles: dict[str, Dongle] = {}
        self.windows = 0

    def feed(
        self, port: str, data: bytes, received_s: float, *, channel: str = "", rssi_dbm: int | None = None
    ) -> list[News]:
        """Take bytes as they came from one link; any split gives the same findings."""
        if port in self._devices:
            wearable, device = self._devices[port]
            heard = [(wearable, m, rssi_dbm) for m in device.feed(data, received_s, channel)]
        elif port == BROKER and self._broker is not None:
            heard = self._from_broker(self._broker.feed(channel, data, received_s), received_s)
        else:
            heard = self._from_dongle(port, data, received_s, rssi_dbm)
        return self.on_messages(heard, received_s)

    def on_messages(self, heard: Iterable[Message], received_s: float) -> list[News]:
        """Take what wearables said, with the strength at which it was heard."""
        news: list[News] = []
        touched: dict[str, Wearer] = {}
        for wearable, message, rssi_dbm in heard:
            wearer = self.wearers.get(wearable)
            if wearer is None:
                continue
            match message:
                case Samples():
                    touched[wearable] = wearer
                    news += self._found(wearer, wearer.on_samples(message, received_s, rssi_dbm))
                    if wearer.backlog_s > BACKLOG_S:  # many batches in one read
                        news += self._score([wearer])
                case Button():
                    news.append(Pressed(wearable, message, received_s))
                case Status():
                    wearer.on_status(message, received_s)
                case Hello():
                    wearer.hello = message
        return news + self._score(list(touched.values()))

    def opened(self, port: str) -> list[bytes]:
        """Begin anew on a link that was opened; return what to send there."""
        return self._devices[port][1].opened() if port in self._devices else []

    def lost(self, port: str, received_s: float) -> list[News]:
        """Take what a lost link had still held back."""
        if port not in self._devices:
            return []
        wearable, device = self._devices[port]
        return self.on_messages([(wearable, message, None) for message in device.lost()], received_s)

    def say(self, now_s: float) -> list[tuple[str, bytes]]:
        """Return what devices want to be sent now, and by which links."""
        return [(port, data) for port, (_, device) in self._devices.items() for data in device.say(now_s)]

    def bad_bytes(self, wearable: str) -> int:
        """Return how much came from one wearable's own link and was nothing in its format."""
        return sum(device.bad_bytes for w, device in self._devices.values() if w == wearable)

    def _open(self, packet: bytes, received_s: float, receiver: str) -> tuple[str, UplinkMessage] | None:
        """Open a packet, unless it holds samples of a wearable that floods: those are not even decrypted."""
        if packet[1] == TYPE_SAMPLES:
            wearer = self.wearers.get(packet[2:10].rstrip(b"\0").decode("ascii", "replace"))
            if wearer is not None and wearer.floods(received_s):
                return None
        return self.gateway.open(packet, receiver)

    def _from_broker(self, told: BrokerHeard | BrokerSaid | None, received_s: float) -> list[Message]:
        match told:
            case BrokerHeard(receiver=receiver, uplink=uplink):
                opened = self._open(uplink.packet, received_s, f"{BROKER}:{receiver}")
                return [] if opened is None else [(*opened, uplink.rssi_dbm)]
            case BrokerSaid(wearable=wearable, messages=messages):
                return [(wearable, message, None) for message in messages]
        return []

    def _from_dongle(self, port: str, data: bytes, received_s: float, rssi_dbm: int | None) -> list[Message]:
        dongle = self.dongles.setdefault(port, Dongle(FrameDecoder()))
        heard: list[Message] = []
        for frame in dongle.decoder.feed(data):
            match frame:
                case Uplink():
                    opened = self._open(frame.packet, received_s, port)
                    if opened is not None:
                        unknown = frame.rssi_dbm == RSSI_UNKNOWN_DBM
                        heard.append((*opened, rssi_dbm if unknown else frame.rssi_dbm))
                case DongleHello():
                    dongle.hello = frame
                case DongleStatus():
                    dongle.status = frame
                case _:
                    dongle.unexpected += 1
        return heard

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
