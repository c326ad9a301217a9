"""All ways in that the settings name, each with the thread it wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge.detect.pipeline import BROKER
from edge.settings import BLE_KINDS, SERIAL_KINDS, Settings, WearableSettings
from firmware_bridge.devices import Device, polar, witmotion
from firmware_bridge.devices.broker import BrokerDecoder
from firmware_bridge.devices.shimmer import Shimmer
from firmware_bridge.dongle import DonglePort
from firmware_bridge.link import Link, LinkEvent
from firmware_bridge.serial_link import SerialLink
from firmware_bridge.wire import DongleAsk, Downlink, encode_frame

if TYPE_CHECKING:
    from edge.sources.ble import BleRadio

Run = Callable[[Callable[[LinkEvent], None], threading.Event], None]
# What a kind of Bluetooth wearable notifies and is written to, and whether the level of its battery comes apart.
CHARACTERISTICS: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "bangle": (
        ("6e400003-b5a3-f393-e0a9-e50e24dcca9e",),  # the Nordic UART service
        "6e400002-b5a3-f393-e0a9-e50e24dcca9e",
        False,  # in its sealed frames
    ),
    "polar": ((polar.CONTROL, polar.DATA), polar.CONTROL, True),
    "witmotion-ble": ((witmotion.DATA,), witmotion.CONTROL, False),
}
FRAMED_KINDS = ("bangle",)  # these send our own frames by a link of their own


class Sender(Protocol):
    """What takes octets for the far end of a link."""

    def send(self, data: bytes) -> bool:
        """Return whether they were taken. Raises nothing."""


def device_of(wearable: WearableSettings) -> Device:
    """Return the decoder for a wearable that has a format of its own.

    Raises:
        ValueError: its kind has none.
    """
    match wearable.kind:
        case "witmotion":
            return witmotion.WitMotionSerial(round(wearable.rate_hz))
        case "witmotion-ble":
            return witmotion.WitMotionBle(round(wearable.rate_hz))
        case "polar":  # the Verity Sense has other rates than the H10, such as 52
            rate_hz = round(wearable.rate_hz)
            channels = None if rate_hz in polar.H10_RATES_HZ else polar.VERITY_CHANNELS
            return polar.Polar(rate_hz, wearable.range_g, channels)
        case "shimmer":
            return Shimmer(range_g=wearable.range_g, rate_hz=wearable.rate_hz)
    raise ValueError(f"a wearable of kind {wearable.kind} has no format of its own")


class Links:
    """The links of one home: receivers, serial devices, Bluetooth, the broker."""

    def __init__(self, settings: Settings) -> None:
        self.devices: dict[str, tuple[str, Device]] = {}  # link: the one wearable that it carries, its format
        self.runs: list[Run] = []  # bodies of threads
        self._links: dict[str, Sender] = {}
        self._framed: list[Sender] = []  # these carry our own frames
        self._asked: set[str] = set()  # these say nothing before they are asked; a dongle's port asks by itself
        for dongle in settings.dongle:
            link = DonglePort(dongle.port, dongle.baud)
            self._links[dongle.port] = link
            self._framed.append(link)
            self.runs.append(link.run)
        for wearable in settings.wearable:
            if wearable.kind in SERIAL_KINDS:
                line = SerialLink(wearable.port, wearable.baud, quiet=True)
                self._links[wearable.port] = line
                self.devices[wearable.port] = (wearable.id, device_of(wearable))
                self.runs.append(line.run)
        by_ble = [w for w in settings.wearable if w.kind in BLE_KINDS]
        for wearable in by_ble:
            if wearable.kind not in FRAMED_KINDS:
                self.devices[wearable.link] = (wearable.id, device_of(wearable))
        if by_ble:
            radio = _ble(settings, by_ble)
            self._links[radio.port] = radio
            self._links |= {w.link: radio.link(w.link) for w in by_ble}
            self._asked = {w.link for w in by_ble if w.kind in FRAMED_KINDS}
            self._framed += [self._links[name] for name in sorted(self._asked)]
            self.runs.append(radio.run)
        self.broker: BrokerDecoder | None = None
        self._mqtt: Link | None = None
        if settings.mqtt.wearables:
            unsealed = [w.id for w in settings.wearable if w.kind == "mqtt"]
            self.broker = BrokerDecoder(settings.home.id, unsealed)
            self._mqtt = self._links[BROKER] = _mqtt(settings, unsealed)
            self.runs.append(self._mqtt.run)

    @property
    def names(self) -> tuple[str, ...]:
        """All links, by the names under which they report."""
        return tuple(self._links)

    def greet(self, name: str) -> None:
        """Say what the far end of a link that was opened waits for, where that is no matter of a format."""
        if name in self._asked:
            self._links[name].send(encode_frame(DongleAsk()))

    def send(self, data: bytes, name: str) -> None:
        """Send octets by one link."""
        self._links[name].send(data)

    def send_packet(self, packet: bytes) -> None:
        """Send a sealed packet by every link that may reach the wearable."""
        for link in self._framed:
            link.send(encode_frame(Downlink(packet)))
        if self._mqtt is not None:
            self._mqtt.send(packet)


def _ble(settings: Settings, wearables: Sequence[WearableSettings]) -> BleRadio:
    from edge.sources.ble import BleRadio, BleWearable  # noqa: PLC0415 - asyncio, which not every home needs

    found = [BleWearable(w.link, w.address, *CHARACTERISTICS[w.kind]) for w in wearables]
    return BleRadio(settings.ble.adapter, found)


def _mqtt(settings: Settings, unsealed: list[str]) -> Link:
    from edge.sources.mqtt import MqttLink  # noqa: PLC0415 - paho, which not every home needs

    return MqttLink(settings.mqtt, settings.home.id, wearables=unsealed, password=settings.broker_password())
