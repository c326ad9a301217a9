"""The Bluetooth radio as bumble has it: a host and a controller in software, in one air with virtual wearables."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from bumble.controller import Controller
from bumble.core import UUID, BaseBumbleError
from bumble.device import Connection, Device, Peer
from bumble.gatt import Characteristic
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink

from edge.sources.ble import RadioLost, WearableLost

HCI_LOCAL_END = 0x16  # connection terminated by the local host


def virtual_device(link: LocalLink, address: str, **how: Any) -> Device:
    controller = Controller(address, link=link)
    return Device(host=Host(controller, AsyncPipeSink(controller)), address=Address(address), **how)


class BumbleRadio:
    """An adapter in software; ``lost`` says why it cannot be used. While ``deaf`` it hears nothing, no error."""

    def __init__(self, device: Device) -> None:
        self.lost = ""
        self.deaf = False
        self.done: list[str] = []
        self._device = device
        self._seen: Callable[[str, int | None], None] | None = None
        self._connections: set[BumbleConnection] = set()
        device.on(Device.EVENT_ADVERTISEMENT, self._on_advertisement)

    def _on_advertisement(self, advertisement: Any) -> None:
        if self._seen is not None and not self.deaf:
            self._seen(advertisement.address.to_string(False), advertisement.rssi)

    def _check(self, done: str) -> None:
        self.done.append(done)
        if self.lost:
            raise RadioLost(self.lost)

    async def ready(self) -> None:
        self._check("ready")
        if not self._device.powered_on:
            await self._device.power_on()

    async def start_scan(self, seen: Callable[[str, int | None], None]) -> None:
        self._check("start scan")
        self._seen = seen
        await self._device.start_scanning()

    async def stop_scan(self) -> None:
        self._check("stop scan")
        self._seen = None
        await self._device.stop_scanning()

    async def connect(
        self, address: str, on_data: Callable[[str, bytes], None], on_gone: Callable[[], None]
    ) -> BumbleConnection:
        with told():
            connection = await self._device.connect(Address(address))
            made = BumbleConnection(connection, lambda uuid, data: None if self.deaf else on_data(uuid, data))
            self._connections.add(made)

            def gone(_reason: int) -> None:
                self._connections.discard(made)
                on_gone()

            connection.on(Connection.EVENT_DISCONNECTION, gone)
            try:
                await made.discover()
            except asyncio.CancelledError:
                await made.close()
                raise
            return made

    async def power_cycle(self) -> None:
        self._check("power cycle")
        self.deaf = False
        await self._drop_all()

    async def close(self) -> None:
        self._seen = None
        self._device.remove_all_listeners(Device.EVENT_ADVERTISEMENT)
        await self._drop_all()
        if self._device.powered_on:
            await self._device.stop_scanning()

    async def _drop_all(self) -> None:
        for connection in list(self._connections):
            with contextlib.suppress(WearableLost):
                await connection.close()


class BumbleConnection:
    def __init__(self, connection: Connection, on_data: Callable[[str, bytes], None]) -> None:
        self._connection = connection
        self._peer = Peer(connection)
        self._on_data = on_data
        self._closed = False
        connection.on(Connection.EVENT_DISCONNECTION, lambda _reason: setattr(self, "_closed", True))

    async def discover(self) -> None:
        await self._peer.request_mtu(247)
        await self._peer.discover_services()
        await self._peer.discover_characteristics()

    async def subscribe(self, characteristic: str) -> None:
        with told():
            named = self._named(characteristic)
            if not named.properties & Characteristic.Properties.NOTIFY:
                raise WearableLost(f"{characteristic} does not notify")
            await named.discover_descriptors()
            await named.subscribe(lambda data: self._on_data(characteristic, bytes(data)))

    async def read(self, characteristic: str) -> bytes:
        with told():
            return bytes(await self._named(characteristic).read_value())

    async def write(self, characteristic: str, data: bytes) -> None:
        with told():
            named = self._named(characteristic)
            response = bool(named.properties & Characteristic.Properties.WRITE)
            await named.write_value(data, with_response=response)

    def chunk_octets(self, characteristic: str) -> int:
        return self._connection.att_mtu - 3

    async def close(self) -> None:
        if not self._closed:
            with told():
                await self._connection.disconnect()

    def _named(self, characteristic: str) -> Any:
        found = self._peer.get_characteristics_by_uuid(UUID(characteristic))
        if self._closed or not found:
            raise WearableLost(f"has no {characteristic}, or is gone")
        return found[0]


@contextlib.contextmanager
def told() -> Iterator[None]:
    try:
        yield
    except (BaseBumbleError, asyncio.InvalidStateError) as error:
        raise WearableLost(str(error)) from error
