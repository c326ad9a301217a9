"""A stand-in for BlueZ on a D-Bus of its own: one adapter, devices that advertise, connect and notify.

It says over D-Bus what bluetoothd says, as far as bleak asks, so that the real bleak can be tried against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADAPTER = "/org/bluez/hci0"
PROPERTIES, MANAGER = "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.ObjectManager"
Interfaces = dict[str, dict[str, Variant]]


class BlueZ:
    """Runs a bus and the stand-in on it, in a thread. ``hears`` off: the radio is deaf, and says nothing of it."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:path={socket}"
        self.hears = True
        self.power: list[bool] = []
        self.scans = 0  # so far
        self.connects = 0
        self.written: list[tuple[str, bytes, str]] = []
        self.objects: dict[str, Interfaces] = {}
        self._paths: dict[str, str] = {}  # of characteristics, by device and UUID
        self._advertising: dict[str, int] = {}
        self._daemon = subprocess.Popen(
            [
                "dbus-daemon",
                "--session",
                "--nofork",
                "--nopidfile",
                "--print-address",
                f"--address={self.address}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._daemon.stdout is not None
        with self._daemon.stdout as told:
            assert told.readline(), "dbus-daemon did not start"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bluez")
        self._thread.start()
        self._bus: MessageBus | None = None
        self.plug_in()
        self._ask(self._begin())

    def stop(self) -> None:
        self._ask(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.kill_bus()

    def kill_bus(self) -> None:
        self._daemon.kill()
        self._daemon.wait()

    def _ask(self, doing: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop).result(5.0)

    async def _begin(self) -> None:
        self._bus = await MessageBus(bus_address=self.address).connect()
        self._bus.add_message_handler(self._answer)
        await self._bus.request_name("org.bluez")
        self._ticking = asyncio.create_task(self._tick())

    async def _end(self) -> None:
        self._ticking.cancel()
        await asyncio.wait([self._ticking])
        assert self._bus is not None
        self._bus.disconnect()
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus_fast types it not

    # -- what a test does to it -----------------------------------------------------------------

    def plug_in(self) -> None:
        adapter = {
            "Address": Variant("s", "00:00:00:00:00:01"),
            "Powered": Variant("b", True),
            "Discovering": Variant("b", False),
            "Roles": Variant("as", ["central"]),
        }
        self._appear(ADAPTER, "org.bluez.Adapter1", adapter)

    def unplug(self) -> None:
        for path, interfaces in list(self.objects.items()):
            self._signal("/", MANAGER, "InterfacesRemoved", "oas", [path, list(interfaces)])
        self.objects.clear()

    def add(self, address: str, characteristics: dict[str, list[str]], *, connected: bool = False) -> None:
        """Have a device in reach; ``characteristics`` maps UUIDs to flags."""
        path = f"{ADAPTER}/dev_{address.replace(':', '_')}"
        device = {
            "Address": Variant("s", address),
            "AddressType": Variant("s", "random"),
            "Alias": Variant("s", address.replace(":", "-")),
            "Adapter": Variant("o", ADAPTER),
            "UUIDs": Variant("as", ["00001801-0000-1000-8000-00805f9b34fb"]),
            "Connected": Variant("b", connected),
            "ServicesResolved": Variant("b", connected),
            "Paired": Variant("b", False),
        }
        self._appear(path, "org.bluez.Device1", device)
        service = f"{path}/service0001"
        parts = {
            "UUID": Variant("s", "0000180f-0000-1000-8000-00805f9b34fb"),
            "Device": Variant("o", path),
            "Primary": Variant("b", True),
        }
        self._appear(service, "org.bluez.GattService1", parts)
        for i, (uuid, flags) in enumerate(characteristics.items(), start=2):
            named = self._paths[address + uuid] = f"{service}/char{i:04x}"
            characteristic = {
                "UUID": Variant("s", uuid),
                "Service": Variant("o", service),
                "Flags": Variant("as", flags),
                "MTU": Variant("q", 247),
                "Notifying": Variant("b", False),
            }
            self._appear(named, "org.bluez.GattCharacteristic1", characteristic)
        self._advertising[path] = -60

    def notify(self, address: str, uuid: str, data: bytes) -> None:
        path = self._paths[address + uuid]
        if self.objects[path]["org.bluez.GattCharacteristic1"]["Notifying"].value:
            self._change(path, "org.bluez.GattCharacteristic1", Value=Variant("ay", data))

    def is_notifying(self, address: str, uuid: str) -> bool:
        path = self._paths[address + uuid]
        return bool(self.objects[path]["org.bluez.GattCharacteristic1"]["Notifying"].value)

    def drop(self, address: str) -> None:
        self._set_connected(f"{ADAPTER}/dev_{address.replace(':', '_')}", connected=False)

    # -- what bluetoothd does -------------------------------------------------------------------

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        message = Message(
            message_type=MessageType.SIGNAL,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        assert self._bus is not None
        if threading.current_thread() is self._thread:
            self._bus.send(message)  # before the reply to what caused it
        else:
            self._loop.call_soon_threadsafe(self._bus.send, message)

    def _appear(self, path: str, interface: str, properties: dict[str, Variant]) -> None:
        self.objects[path] = {interface: properties}
        if self._bus is not None:
            self._signal("/", MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, self.objects[path]])

    def _change(self, path: str, interface: str, **changed: Variant) -> None:
        self.objects[path][interface] |= changed
        self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, []])

    def _set_connected(self, path: str, *, connected: bool) -> None:
        if not connected:
            for name, interfaces in self.objects.items():
                if name.startswith(f"{path}/") and "org.bluez.GattCharacteristic1" in interfaces:
                    interfaces["org.bluez.GattCharacteristic1"]["Notifying"] = Variant("b", False)
        both = Variant("b", connected)
        self._change(path, "org.bluez.Device1", Connected=both, ServicesResolved=both)

    async def _tick(self) -> None:
        """Advertise: a device's dBm is never twice the same."""
        while True:
            await asyncio.sleep(0.05)
            adapter = self.objects.get(ADAPTER, {}).get("org.bluez.Adapter1")
            if adapter is None or not self.hears or not adapter["Discovering"].value:
                continue
            for path in self._advertising:
                if path in self.objects and not self.objects[path]["org.bluez.Device1"]["Connected"].value:
                    self._advertising[path] ^= 1
                    self._change(path, "org.bluez.Device1", RSSI=Variant("n", self._advertising[path]))

    def _answer(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.destination == "":
            return False
        path = message.path or ""
        if message.member == "GetManagedObjects":
            return Message.new_method_return(message, "a{oa{sa{sv}}}", [self.objects])
        if path not in self.objects:
            return Message.new_error(message, "org.freedesktop.DBus.Error.UnknownObject", f"no {path}")
        match message.member:
            case "Get":
                interface, name = message.body
                return Message.new_method_return(message, "v", [self.objects[path][interface][name]])
            case "Set":
                self._power(on=message.body[2].value)
            case "StartDiscovery" | "StopDiscovery":
                self.scans += message.member == "StartDiscovery"
                scans = Variant("b", message.member == "StartDiscovery")
                self._change(ADAPTER, "org.bluez.Adapter1", Discovering=scans)
            case "Connect" | "Disconnect":
                self.connects += message.member == "Connect"
                self._set_connected(path, connected=message.member == "Connect")
            case "StartNotify":
                self._change(path, "org.bluez.GattCharacteristic1", Notifying=Variant("b", True))
            case "ReadValue":
                return Message.new_method_return(message, "ay", [bytes([87])])
            case "WriteValue":
                data, options = message.body
                uuid = self.objects[path]["org.bluez.GattCharacteristic1"]["UUID"].value
                self.written.append((uuid, bytes(data), options["type"].value))
        return Message.new_method_return(message)

    def _power(self, *, on: bool) -> None:
        self.power.append(on)
        off = {} if on else {"Discovering": Variant("b", False)}
        self._change(ADAPTER, "org.bluez.Adapter1", Powered=Variant("b", on), **off)
        if not on:
            for path in self._advertising:
                self._set_connected(path, connected=False)
        else:
            self.hears = True
