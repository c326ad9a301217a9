"""Bought wearables by Bluetooth, from a virtual radio to what the service says of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.detect import links
from edge.detect.service import DetectService
from edge.runfile import read_runfile
from edge.settings import Settings, WearableSettings, load_settings
from edge.sources.ble import BleRadio, BleWearable
from firmware_bridge.devices import polar, witmotion
from firmware_bridge.session import WearableCounters, WearableSession
from firmware_bridge.virtual import Recording, Run, VirtualDongle, VirtualWearable
from firmware_bridge.wire import DongleAsk, FrameDecoder
from tests.edge.virtual_ble import (
    BATTERY_LEVEL,
    BATTERY_SERVICE,
    COMMAND,
    NOTIFY,
    READ,
    WRITE,
    Air,
    NordicUart,
    Peripheral,
)

KEY = bytes(range(16))
SETTINGS = """
[home]
id = "home"
"""
RESIDENT = '[[resident]]\nid = "r{0}"\nroom = "{0}"\nwearable = "{0}"\n'
WEARABLE = '[[wearable]]\nid = "{0}"\nkind = "{1}"\naddress = "{2}"\n'
ADDRESSES = {"bangle": "F0:F1:F2:F3:F4:01", "polar": "F0:F1:F2:F3:F4:02", "witmotion-ble": "F0:F1:F2:F3:F4:03"}


def accel_g(i: int) -> tuple[float, float, float]:
    return 0.2 * math.sin(i / 9), 0.1 * math.sin(i / 5), 1.0 + 0.05 * math.sin(i / 7)


class Strap(Peripheral):
    """A Polar that streams once it has been told to."""

    def __init__(self) -> None:
        super().__init__(
            ADDRESSES["polar"],
            {polar.SERVICE: {polar.CONTROL: READ | WRITE | NOTIFY, polar.DATA: NOTIFY}}
            | {BATTERY_SERVICE: {BATTERY_LEVEL: READ}},
        )
        self.values[BATTERY_LEVEL] = bytes([64])
        self.sent = 0

    def play(self) -> None:
        if (polar.CONTROL, polar.start_acc(50, 8)) not in self.written:
            return
        if not self.sent:
            self.notify(polar.CONTROL, polar.encode_answer(2))
        mg = [tuple(round(1000 * g) for g in accel_g(self.sent + i)) for i in range(10)]
        self.sent += 10
        self.notify(polar.DATA, polar.encode_acc(round(self.sent / 50 * 1e9), mg))  # type: ignore[arg-type]


class Clip(Peripheral):
    """A WitMotion; it streams at once, and tells its battery when asked."""

    def __init__(self) -> None:
        super().__init__(
            ADDRESSES["witmotion-ble"],
            {witmotion.SERVICE: {witmotion.DATA: NOTIFY, witmotion.CONTROL: WRITE | COMMAND}},
        )
        self.sent = 0

    def play(self) -> None:
        if not self.connections:
            return
        if (witmotion.CONTROL, witmotion.READ_BATTERY) in self.written:
            self.written.remove((witmotion.CONTROL, witmotion.READ_BATTERY))
            self.notify(witmotion.DATA, witmotion.encode_ble_battery(388))
        for _ in range(10):
            x, y, z = (round(g / 16 * 32768) for g in accel_g(self.sent))
            self.notify(witmotion.DATA, witmotion.encode_ble((x, y, z)))
            self.sent += 1


class Watch(NordicUart):
    """A watch with our app: silent until it is asked, then the frames of a dongle."""

    def __init__(self) -> None:
        super().__init__(ADDRESSES["bangle"])
        session = WearableSession("12", KEY, WearableCounters(), save=lambda _: None)
        counts = b"\x00\x01\x00\x02\x00\x10" * 50 * 60
        self._dongle = VirtualDongle(
            [VirtualWearable(session, Recording([Run(0.0, counts)], rate_hz=50, range_g=8))]
        )
        self._decoder = FrameDecoder()
        self._asked = False
        self._played_s = 0.0
        self.on_write = self._wrote

    def _wrote(self, _uuid: str, data: bytes) -> None:
        self._asked |= any(isinstance(frame, DongleAsk) for frame in self._decoder.feed(data))
        self._dongle.take(data)  # it has to prove itself, as its counters are not known here

    def play(self) -> None:
        if self._asked:
            self._played_s += 0.2
            self.say(self._dongle.frames_until(self._played_s))


@contextmanager
def running(settings: Settings, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run the service in a thread; yield what its heartbeat says."""
    service = DetectService(settings, folder / "state", folder)
    thread = threading.Thread(target=service.run, name="detect")
    thread.start()
    try:
        yield lambda: read_runfile(folder / "detect.json") or {}
    finally:
        service.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_watch_strap_and_clip_are_told_to_stream_and_are_heard_by_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = dict(zip(ADDRESSES, ("12", "13", "14"), strict=True))
    config = tmp_path / "fallwatch.toml"
    config.write_text(
        SETTINGS
        + "".join(RESIDENT.format(name) for name in named.values())
        + "".join(WEARABLE.format(named[kind], kind, at) for kind, at in ADDRESSES.items())
    )
    keys = tmp_path / "secrets" / "wearables"
    keys.mkdir(parents=True)
    (keys / "12.key").write_text(KEY.hex())
    (tmp_path / "state").mkdir()
    watch, strap, clip = Watch(), Strap(), Clip()
    air = Air(watch, strap, clip)

    def virtual(settings: Settings, wearables: Sequence[WearableSettings]) -> BleRadio:
        found = [BleWearable(w.link, w.address, *links.CHARACTERISTICS[w.kind]) for w in wearables]
        return BleRadio(settings.ble.adapter, found, radio_factory=air.radio)

    monkeypatch.setattr(links, "_ble", virtual)
    with running(load_settings(config), tmp_path) as told:
        end_s = time.monotonic() + 40
        while True:
            assert time.monotonic() < end_s, told().get("wearables")
            for wearable in (watch, strap, clip):
                if wearable.connections:
                    wearable.play()
            time.sleep(0.05)
            known = told().get("wearables", {})
            enough = known and all(w["samples"] > 100 for w in known.values())
            if enough and known["13"]["battery_pct"] and known["14"]["battery_pct"]:
                break
        assert {name: w["cause"] for name, w in known.items()} == dict.fromkeys(named.values())
        assert (known["13"]["battery_pct"], known["14"]["battery_pct"]) == (64, 75)
        assert (known["12"]["range_g"], known["13"]["range_g"], known["14"]["range_g"]) == (8, 8, 16)
        assert all(link["well"] for link in told()["links"].values())
