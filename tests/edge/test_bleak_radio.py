"""The radio as BlueZ has it, against small stand-ins for bleak's classes and for D-Bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from bleak.exc import BleakDBusError, BleakError
from dbus_fast import Message, MessageType, Variant

from edge.sources import bleak_radio
from edge.sources.ble import BATTERY, RadioLost, WearableLost
from edge.sources.bleak_radio import BleakRadio

WATCH = "F0:F1:F2:F3:F4:01"
NOTIFIES, WRITES, COMMANDS = "notifies", "writes", "commands"
CHARACTERISTICS = {
    NOTIFIES: ["notify"],
    WRITES: ["write-without-response", "write"],
    COMMANDS: ["write-without-response"],
    BATTERY: ["read"],
}


class Bus:
    """The system bus with BlueZ on it: ``answers`` maps a D-Bus member to an error's name."""

    powered: ClassVar[bool] = True
    answers: ClassVar[dict[str, str]] = {}
    switched: ClassVar[list[bool]] = []

    def __init__(self, **_how: object) -> None:
        self.connected = False

    async def connect(self) -> Bus:
        self.connected = True
        return self

    def disconnect(self) -> None:
        self.connected = False

    async def wait_for_disconnect(self) -> None: ...

    async def call(self, message: Message) -> Any:
        assert message.path in {"/org/bluez/hci0", "/org/bluez/hci1", "/org/bluez/hci7"}
        assert message.body[:2] == ["org.bluez.Adapter1", "Powered"]
        error = Bus.answers.get(message.member or "")
        if error is not None:
            return SimpleNamespace(message_type=MessageType.ERROR, error_name=error, body=[])
        if message.member == "Set":
            Bus.powered = message.body[2].value
            Bus.switched.append(Bus.powered)
        body = [Variant("b", Bus.powered)] if message.member == "Get" else []
        return SimpleNamespace(message_type=MessageType.METHOD_RETURN, error_name=None, body=body)


class Scanner:
    made: ClassVar[list[Scanner]] = []
    fails: ClassVar[Exception | None] = None

    def __init__(self, detected: Callable[[Any, Any], None], *, bluez: dict[str, str]) -> None:
        self.detected = detected
        self.adapter = bluez["adapter"]
        self.runs = False
        Scanner.made.append(self)

    async def start(self) -> None:
        if Scanner.fails is not None:
            raise Scanner.fails
        self.runs = True

    async def stop(self) -> None:
        self.runs = False


class Adapter:
    connected: ClassVar[list[Any]] = []

    @classmethod
    async def get(cls, *, bluez: dict[str, str]) -> Adapter:
        return cls()

    async def get_connected_devices(self, _services: list[str]) -> list[Any]:
        return Adapter.connected


class Client:
    fails: ClassVar[Exception | None] = None
    made: ClassVar[list[Client]] = []

    def __init__(self, device: Any, gone: Callable[[Any], None], *, bluez: dict[str, str]) -> None:
        self.address, self.gone, self.adapter = device.address, gone, bluez["adapter"]
        self.writes: list[tuple[str, bytes, bool]] = []
        self.notified: dict[str, Callable[[Any, bytearray], None]] = {}
        self.services = SimpleNamespace(get_characteristic=self._characteristic)
        Client.made.append(self)

    def _characteristic(self, uuid: str) -> Any:
        if uuid not in CHARACTERISTICS:
            return None
        return SimpleNamespace(properties=CHARACTERISTICS[uuid], max_write_without_response_size=244)

    def _fail(self) -> None:
        if Client.fails is not None:
            raise Client.fails

    async def connect(self) -> None:
        self._fail()

    async def disconnect(self) -> None:
        self._fail()
        self.gone(self)

    async def start_notify(self, uuid: str, callback: Callable[[Any, bytearray], None]) -> None:
        self._fail()
        self.notified[uuid] = callback

    async def read_gatt_char(self, uuid: str) -> bytearray:
        self._fail()
        return bytearray([87])

    async def write_gatt_char(self, uuid: str, data: bytes, *, response: bool) -> None:
        self._fail()
        self.writes.append((uuid, data, response))


def device(address: str) -> Any:
    return SimpleNamespace(address=address)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stand_in in {
        "MessageBus": Bus,
        "BleakScanner": Scanner,
        "BleakAdapter": Adapter,
        "BleakClient": Client,
        "_OFF_S": 0.0,
    }.items():
        monkeypatch.setattr(bleak_radio, name, stand_in)
    Bus.powered, Bus.answers, Bus.switched = True, {}, []
    Scanner.made, Scanner.fails = [], None
    Client.made, Client.fails = [], None
    Adapter.connected = []


class Told:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []
        self.data: list[tuple[str, bytes]] = []
        self.gone = 0

    def on_seen(self, address: str, rssi_dbm: int | None) -> None:
        self.seen.append((address, rssi_dbm))

    def on_data(self, characteristic: str, data: bytes) -> None:
        self.data.append((characteristic, data))

    def on_gone(self) -> None:
        self.gone += 1


async def connected(radio: BleakRadio, told: Told) -> bleak_radio.BleakConnection:
    await radio.ready()
    await radio.start_scan(told.on_seen)
    Scanner.made[-1].detected(device(WATCH), SimpleNamespace(rssi=-61))
    return await radio.connect(WATCH, told.on_data, told.on_gone)


def test_a_wearable_that_was_seen_is_connected_heard_and_let_go() -> None:
    async def go() -> None:
        radio, told = BleakRadio("hci1"), Told()
        connection = await connected(radio, told)
        assert told.seen == [(WATCH, -61)]
        assert Scanner.made[0].adapter == Client.made[0].adapter == "hci1"
        await connection.subscribe(NOTIFIES)
        Client.made[0].notified[NOTIFIES](None, bytearray(b"data"))
        assert told.data == [(NOTIFIES, b"data")]
        assert await connection.read(BATTERY) == bytes([87])
        await connection.close()
        assert told.gone == 1
        await radio.close()
        assert not Scanner.made[0].runs

    asyncio.run(go())


def test_writes_want_a_response_where_the_characteristic_gives_one() -> None:
    async def go() -> None:
        connection = await connected(BleakRadio("hci0"), Told())
        assert connection.chunk_octets(WRITES) == 244
        await connection.write(WRITES, b"a")
        await connection.write(COMMANDS, b"b")
        assert Client.made[0].writes == [(WRITES, b"a", True), (COMMANDS, b"b", False)]

    asyncio.run(go())


def test_who_is_connected_from_before_is_reported_but_is_no_sign_of_life() -> None:
    """It advertises no more, so no scan would ever find it; and what BlueZ remembers was not heard."""

    async def go() -> None:
        Adapter.connected = [device(WATCH)]
        radio, told = BleakRadio("hci0"), Told()
        await radio.start_scan(told.on_seen)
        Scanner.made[-1].detected(device("F0:F1:F2:F3:F4:02"), SimpleNamespace(rssi=-127))
        assert told.seen == [(WATCH, None), ("F0:F1:F2:F3:F4:02", None)]
        await radio.connect(WATCH, told.on_data, told.on_gone)

    asyncio.run(go())


def test_a_wearable_that_was_not_seen_is_not_connected() -> None:
    async def go() -> None:
        with pytest.raises(WearableLost, match="not seen"):
            await BleakRadio("hci0").connect(WATCH, Told().on_data, Told().on_gone)

    asyncio.run(go())


def test_another_device_under_that_address_is_told() -> None:
    async def go() -> None:
        connection = await connected(BleakRadio("hci0"), Told())
        with pytest.raises(WearableLost, match="has no characteristic 6e40: is it another device"):
            await connection.subscribe("6e40")
        with pytest.raises(WearableLost, match="has no characteristic"):
            connection.chunk_octets("6e40")

    asyncio.run(go())


@pytest.mark.parametrize(
    "error",
    [BleakError("failed"), BleakDBusError("org.bluez.Error.Failed", ["busy"]), EOFError(), OSError("broken")],
)
def test_whatever_bleak_raises_about_a_wearable_is_a_lost_wearable(error: Exception) -> None:
    async def go() -> None:
        radio, told = BleakRadio("hci0"), Told()
        connection = await connected(radio, told)
        Client.fails = error
        for call in (
            connection.subscribe(NOTIFIES),
            connection.read(BATTERY),
            connection.write(WRITES, b""),
            connection.close(),
            radio.connect(WATCH, told.on_data, told.on_gone),
        ):
            with pytest.raises(WearableLost) as lost:
                await call
            assert lost.value.reason

    asyncio.run(go())


@pytest.mark.parametrize(
    "error", [BleakError("adapter 'hci0' not found"), BleakDBusError("org.bluez.Error.NotReady", []), EOFError()]
)
def test_whatever_bleak_raises_about_a_scan_is_a_lost_radio(error: Exception) -> None:
    async def go() -> None:
        Scanner.fails = error
        with pytest.raises(RadioLost):
            await BleakRadio("hci0").start_scan(Told().on_seen)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("org.freedesktop.DBus.Error.ServiceUnknown", "start the bluetooth service"),
        ("org.freedesktop.DBus.Error.UnknownObject", "there is no adapter hci7: plug it in"),
        ("org.freedesktop.DBus.Error.AccessDenied", "group bluetooth"),
        ("org.something.Else", "org.something.Else"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(error: str, says: str) -> None:
    async def go() -> None:
        Bus.answers["Get"] = error
        with pytest.raises(RadioLost, match=says):
            await BleakRadio("hci7").ready()

    asyncio.run(go())


def test_a_computer_without_d_bus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/system_bus_socket")
    fds = len(os.listdir("/proc/self/fd"))

    async def go() -> None:
        for _ in range(5):
            radio = BleakRadio("hci0")
            with pytest.raises(RadioLost, match="D-Bus is not there: install BlueZ"):
                await radio.ready()
            await radio.close()

    asyncio.run(go())
    assert len(os.listdir("/proc/self/fd")) == fds


def test_an_adapter_that_is_off_is_switched_on() -> None:
    async def go() -> None:
        Bus.powered = False
        await BleakRadio("hci0").ready()
        assert Bus.powered
        Bus.answers["Set"] = "org.bluez.Error.Blocked"
        Bus.powered = False
        with pytest.raises(RadioLost, match="rfkill unblock"):
            await BleakRadio("hci0").ready()

    asyncio.run(go())


def test_a_power_cycle_is_off_and_then_on() -> None:
    async def go() -> None:
        radio = BleakRadio("hci0")
        await radio.power_cycle()
        assert Bus.switched == [False, True]

    asyncio.run(go())


def test_a_bus_that_was_lost_is_joined_again() -> None:
    async def go() -> None:
        radio = BleakRadio("hci0")
        await radio.ready()
        assert radio._bus is not None
        radio._bus.disconnect()
        await radio.ready()
        assert radio._bus.connected

    asyncio.run(go())
