"""The Bluetooth radio as BlueZ has it, by way of bleak."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from bleak import BleakAdapter, BleakClient, BleakScanner
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from edge.sources.ble import RadioLost, WearableLost

log = logging.getLogger(__name__)

_SERVICES = ["1800", "1801", "6e400001-b5a3-f393-e0a9-e50e24dcca9e"]  # one of these has whatever is connected
_NO_RSSI_DBM = -127  # says bleak where BlueZ knows none: it tells something of a device, but has not heard it
_OFF_S = 1.0  # between off and on
_REMEDIES = {
    "org.freedesktop.DBus.Error.ServiceUnknown": "BlueZ does not run: start the bluetooth service",
    "org.freedesktop.DBus.Error.NameHasNoOwner": "BlueZ does not run: start the bluetooth service",
    "org.freedesktop.DBus.Error.UnknownObject": "there is no adapter {adapter}: plug it in, or name the right one "
    "under [ble]",
    "org.freedesktop.DBus.Error.AccessDenied": "BlueZ refuses us: this user must be in the group bluetooth",
    "org.bluez.Error.Blocked": "the adapter is blocked: run rfkill unblock bluetooth",
    "org.bluez.Error.NotReady": "the adapter {adapter} cannot be switched on: run rfkill unblock bluetooth",
}


class BleakRadio:
    """One adapter of BlueZ, such as ``hci0``; see `edge.sources.ble.Radio`."""

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self._path = f"/org/bluez/{adapter}"
        self._bus: MessageBus | None = None
        self._scanner: BleakScanner | None = None
        self._devices: dict[str, BLEDevice] = {}  # seen in this scan: BlueZ connects to no other

    async def ready(self) -> None:
        """Check that the adapter is there, and switch it on if it is off."""
        with self._telling():
            if not (await self._call("Get", "ss", "Powered"))[0].value:
                await self._power(on=True)

    async def start_scan(self, seen: Callable[[str, int | None], None]) -> None:
        """Report all advertisements, and who is still connected from before, as such a one advertises no more."""

        def detected(device: BLEDevice, advertisement: AdvertisementData) -> None:
            self._devices[device.address.upper()] = device
            seen(device.address, advertisement.rssi if advertisement.rssi > _NO_RSSI_DBM else None)

        with self._telling():
            self._scanner = BleakScanner(detected, bluez={"adapter": self._adapter})
            await self._scanner.start()
            adapter = await BleakAdapter.get(bluez={"adapter": self._adapter})
            for device in await adapter.get_connected_devices(_SERVICES):
                self._devices[device.address.upper()] = device
                seen(device.address, None)

    async def stop_scan(self) -> None:
        """Scan no more."""
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            with self._telling():
                await scanner.stop()

    async def connect(
        self, address: str, on_data: Callable[[str, bytes], None], on_gone: Callable[[], None]
    ) -> BleakConnection:
        """Connect to a wearable that was seen."""
        device = self._devices.get(address.upper())
        if device is None:
            raise WearableLost("was not seen yet")
        client = BleakClient(device, lambda _client: on_gone(), bluez={"adapter": self._adapter})
        with _told():
            await client.connect()
        return BleakConnection(client, on_data)

    async def power_cycle(self) -> None:
        """Switch the adapter off and on."""
        self._devices.clear()
        with self._telling():
            await self._power(on=False)
            await asyncio.sleep(_OFF_S)
            await self._power(on=True)

    async def close(self) -> None:
        """Let go of the scan and of D-Bus."""
        with contextlib.suppress(RadioLost):
            await self.stop_scan()
        await self._leave_bus()

    async def _power(self, *, on: bool) -> None:
        await self._call("Set", "ssv", "Powered", Variant("b", on))

    async def _call(self, member: str, signature: str, *values: Any) -> list[Any]:
        """Get or set a property of the adapter."""
        if self._bus is None or not self._bus.connected:
            await self._leave_bus()
            bus = MessageBus(bus_type=BusType.SYSTEM)
            try:
                self._bus = await bus.connect()
            except BaseException:
                bus.disconnect()  # it has a descriptor all the same
                raise
        reply = await self._bus.call(
            Message(
                destination="org.bluez",
                path=self._path,
                interface="org.freedesktop.DBus.Properties",
                member=member,
                signature=signature,
                body=["org.bluez.Adapter1", *values],
            )
        )
        if reply is None or reply.message_type is MessageType.ERROR:
            name = "no reply" if reply is None else str(reply.error_name)
            raise RadioLost(self._words(name))
        return list(reply.body)

    async def _leave_bus(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()  # though it is dead: only now its descriptor is closed
            with contextlib.suppress(Exception):  # whatever it died of
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def _words(self, error: str) -> str:
        known = _REMEDIES.get(error)
        return f"Bluetooth fails ({error})" if known is None else known.format(adapter=self._adapter)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn whatever bleak and D-Bus raise, which is of many kinds, into what we tell."""
        try:
            yield
        except (RadioLost, TimeoutError):
            raise
        except (EOFError, OSError) as error:
            raise RadioLost(
                "D-Bus is not there: install BlueZ, and start the services dbus and bluetooth"
            ) from error
        except Exception as error:
            name = getattr(error, "dbus_error", "")
            raise RadioLost(self._words(name or f"{type(error).__name__}: {error}")) from error


class BleakConnection:
    """One connected wearable; see `edge.sources.ble.Connection`."""

    def __init__(self, client: BleakClient, on_data: Callable[[str, bytes], None]) -> None:
        self._client = client
        self._on_data = on_data

    async def subscribe(self, characteristic: str) -> None:
        """Have its notifications."""

        def notified(_sender: BleakGATTCharacteristic, data: bytearray) -> None:
            self._on_data(characteristic, bytes(data))

        self._named(characteristic)
        with _told():
            await self._client.start_notify(characteristic, notified)

    async def read(self, characteristic: str) -> bytes:
        """Return its value."""
        self._named(characteristic)
        with _told():
            return bytes(await self._client.read_gatt_char(characteristic))

    async def write(self, characteristic: str, data: bytes) -> None:
        """Write, with response where it is offered: BlueZ drops what has none without a word."""
        response = "write" in self._named(characteristic).properties
        with _told():
            await self._client.write_gatt_char(characteristic, data, response=response)

    def chunk_octets(self, characteristic: str) -> int:
        """Return what fits in one packet."""
        return int(self._named(characteristic).max_write_without_response_size)

    async def close(self) -> None:
        """Disconnect."""
        with _told():
            await self._client.disconnect()

    def _named(self, characteristic: str) -> BleakGATTCharacteristic:
        with _told():
            found = self._client.services.get_characteristic(characteristic)
        if found is None:
            raise WearableLost(f"has no characteristic {characteristic}: is it another device?")
        return found


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn whatever bleak raises about a wearable into `WearableLost`."""
    try:
        yield
    except (WearableLost, TimeoutError):
        raise
    except Exception as error:
        raise WearableLost(str(error) or type(error).__name__) from error
