"""Virtual Bluetooth wearables, and the air between them and a virtual radio.

    air = Air(NordicUart("F0:F1:F2:F3:F4:01"))
    radio = BleRadio("hci0", [...], radio_factory=air.radio)

All lives in the radio's loop; a test speaks to a `Peripheral` from its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from bumble.core import UUID, BaseBumbleError
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.link import LocalLink

from tests.edge.bumble_radio import BumbleRadio, virtual_device

T = TypeVar("T")
Properties = Characteristic.Properties
READ, WRITE, NOTIFY = Properties.READ, Properties.WRITE, Properties.NOTIFY
COMMAND = Properties.WRITE_WITHOUT_RESPONSE
ADVERTISES_EVERY_MS = 30.0

UART_SERVICE, UART_WRITE, UART_NOTIFY = (f"6e40000{i}-b5a3-f393-e0a9-e50e24dcca9e" for i in (1, 2, 3))
BATTERY_SERVICE, BATTERY_LEVEL = "180f", "00002a19-0000-1000-8000-00805f9b34fb"


class Peripheral:
    """One virtual wearable. ``services`` maps each to its characteristics, and these to their properties.

    What is written to it goes to ``on_write`` (characteristic, octets), in the radio's thread, and is kept in
    ``written``. `values` holds what is read.
    """

    def __init__(self, address: str, services: dict[str, dict[str, Properties]]) -> None:
        self.address = address
        self.services = services
        self.values: dict[str, bytes] = {}
        self.written: list[tuple[str, bytes]] = []
        self.on_write: Callable[[str, bytes], None] = lambda _uuid, _data: None
        self.connections = 0  # so far
        self.in_reach = True
        self._device: Device | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._characteristics: dict[str, Characteristic[bytes]] = {}

    async def begin(self, link: LocalLink) -> None:
        """Appear in the air; called in the radio's loop."""
        self._loop = asyncio.get_running_loop()
        device = self._device = virtual_device(link, self.address)
        services = [
            Service(UUID(service), [self._characteristic(uuid, properties) for uuid, properties in parts.items()])
            for service, parts in self.services.items()
        ]
        device.add_services(services)
        device.on(Device.EVENT_CONNECTION, self._on_connection)
        await device.power_on()
        if self.in_reach:
            await self._advertise()

    def _characteristic(self, uuid: str, properties: Properties) -> Characteristic[bytes]:
        def wrote(_connection: Any, data: bytes) -> None:
            self.written.append((uuid, bytes(data)))
            self.on_write(uuid, bytes(data))

        value = CharacteristicValue(read=lambda _connection: self.values.get(uuid, b""), write=wrote)
        made: Characteristic[bytes] = Characteristic(
            UUID(uuid),
            properties,
            Characteristic.Permissions.READABLE | Characteristic.Permissions.WRITEABLE,
            value,
        )
        self._characteristics[uuid] = made
        return made

    def _on_connection(self, connection: Connection) -> None:
        self.connections += 1
        connection.on(Connection.EVENT_DISCONNECTION, lambda _reason: self._soon(self._advertise()))

    async def _advertise(self) -> None:
        if self._device is not None and self.in_reach and not self._device.is_advertising:
            await self._device.start_advertising(
                advertising_interval_min=ADVERTISES_EVERY_MS, advertising_interval_max=ADVERTISES_EVERY_MS
            )

    def _soon(self, doing: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(doing, self._loop)

    # -- for a test's own thread ----------------------------------------------------------------

    def notify(self, uuid: str, data: bytes) -> None:
        """Send octets to who has subscribed; wait until they are under way."""
        assert self._device is not None
        self._soon(self._device.notify_subscribers(self._characteristics[uuid], data)).result(5.0)

    def drop(self) -> None:
        """Break off the connection, and advertise again if in reach."""
        self._soon(self._drop()).result(5.0)

    def leave(self) -> None:
        """Go out of reach."""
        self.in_reach = False
        self._soon(self._drop()).result(5.0)

    def come_back(self) -> None:
        """Be in reach again."""
        self.in_reach = True
        self._soon(self._advertise()).result(5.0)

    async def _drop(self) -> None:
        assert self._device is not None
        if not self.in_reach and self._device.is_advertising:
            await self._device.stop_advertising()
        for connection in list(self._device.connections.values()):
            with contextlib.suppress(BaseBumbleError):
                await connection.disconnect()


class NordicUart(Peripheral):
    """A watch that speaks through the Nordic UART service, with a battery as most have."""

    def __init__(self, address: str, *, battery_pct: int | None = 87) -> None:
        services = {UART_SERVICE: {UART_WRITE: WRITE | COMMAND, UART_NOTIFY: NOTIFY}}
        if battery_pct is not None:
            services[BATTERY_SERVICE] = {BATTERY_LEVEL: READ | NOTIFY}
        super().__init__(address, services)
        self.values[BATTERY_LEVEL] = bytes([battery_pct or 0])

    def say(self, data: bytes) -> None:
        """Notify octets, in pieces of 20 as a small packet holds."""
        for start in range(0, len(data), 20):
            self.notify(UART_NOTIFY, data[start : start + 20])


class Air:
    """What a virtual radio and virtual wearables share; it begins in the loop that first asks for the radio."""

    def __init__(self, *peripherals: Peripheral) -> None:
        self.peripherals = peripherals
        self.radios: list[BumbleRadio] = []
        self._central: Device | None = None
        self._link: LocalLink | None = None

    def radio(self, _adapter: str) -> BumbleRadio:
        """Return a radio in this air, as `BleRadio` wants its factory."""
        if self._central is None or self._link is None:
            self._link = LocalLink()  # type: ignore[no-untyped-call]
            self._central = virtual_device(self._link, "F0:00:00:00:00:00")
        made = _AirRadio(self._central, self._begin)
        self.radios.append(made)
        return made

    async def _begin(self) -> None:
        assert self._link is not None
        for peripheral in self.peripherals:
            await peripheral.begin(self._link)


class _AirRadio(BumbleRadio):
    def __init__(self, device: Device, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__(device)
        self._begin = begin

    async def ready(self) -> None:
        begins = not self._device.powered_on
        await super().ready()
        if begins:
            await self._begin()

    async def close(self) -> None:
        await super().close()
        await asyncio.sleep(0.05)  # whoever was connected begins to advertise: let them
