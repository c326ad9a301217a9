"""The whole way from a stand-in for BlueZ on a real D-Bus, through the real bleak, to what a link tells."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core.ble_ladder import LadderTimes
from edge.sources import ble, bleak_radio
from edge.sources.ble import BATTERY, BleRadio, BleWearable
from tests.edge.bluez import BlueZ
from tests.edge.test_ble import FAST, RADIO, address, port, running, uart, until
from tests.edge.virtual_ble import UART_NOTIFY, UART_WRITE

if shutil.which("dbus-daemon") is None:
    pytest.skip("no dbus-daemon here", allow_module_level=True)

UART = {UART_NOTIFY: ["notify"], UART_WRITE: ["write-without-response", "write"], BATTERY: ["read", "notify"]}


@pytest.fixture
def bluez(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlueZ]:
    monkeypatch.setattr(ble, "_BACKOFF_S", (0.02, 0.1))
    monkeypatch.setattr(ble, "_READY_EVERY_S", 0.2)
    monkeypatch.setattr(bleak_radio, "_OFF_S", 0.05)
    made = BlueZ(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", made.address)
    yield made
    made.stop()


def radio(*wearables: BleWearable, times: LadderTimes | None = None) -> BleRadio:
    return BleRadio("hci0", wearables or (uart(1, battery=True),), times=times)


def test_a_watch_is_heard_and_written_to_through_bluez(bluez: BlueZ) -> None:
    bluez.add(address(1), UART)
    one = radio()
    with running(one) as heard:
        until(lambda: heard.is_open(port(1)))
        bluez.notify(address(1), UART_NOTIFY, b"accelerations")
        until(lambda: heard.data(port(1)) == b"accelerations")
        assert heard.data(port(1), BATTERY) == bytes([87])
        assert one.link(port(1)).send(bytes(300))
        until(lambda: len(bluez.written) == 2)
        assert bluez.written == [(UART_WRITE, bytes(244), "request"), (UART_WRITE, bytes(56), "request")]


def test_links_that_drop_come_back_and_leave_no_descriptor_behind(bluez: BlueZ) -> None:
    bluez.add(address(1), UART)
    bluez.add(address(2), UART)
    with running(radio(uart(1), uart(2))) as heard:
        until(lambda: heard.is_open(port(1)) and heard.is_open(port(2)))
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for i in range(10):
            bluez.drop(address(1))
            until(lambda i=i: len(heard.lost(port(1))) == i + 1 and heard.is_open(port(1)))  # type: ignore[misc]  # i now
        bluez.notify(address(1), UART_NOTIFY, b"1")
        bluez.notify(address(2), UART_NOTIFY, b"2")
        until(lambda: heard.data(port(1)) == b"1" and heard.data(port(2)) == b"2")
        assert heard.lost(port(2)) == []
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_watch_still_connected_from_before_a_crash_is_taken_over(bluez: BlueZ) -> None:
    bluez.add(address(1), UART, connected=True)
    with running(radio()) as heard:
        until(lambda: heard.is_open(port(1)))
        bluez.notify(address(1), UART_NOTIFY, b"still here")
        until(lambda: heard.data(port(1)) == b"still here")
        assert bluez.connects == 0


def test_a_deaf_adapter_is_switched_off_and_on_and_hears_again(bluez: BlueZ) -> None:
    bluez.add(address(1), UART)
    bluez.hears = False
    with running(radio(times=FAST)) as heard:
        until(lambda: heard.is_open(port(1)))
        assert bluez.power == [False, True]
        assert bluez.scans >= 2
        assert heard.lost(RADIO) == []


def test_an_adapter_unplugged_is_told_and_one_plugged_in_is_taken(bluez: BlueZ) -> None:
    bluez.add(address(1), UART)
    with running(radio()) as heard:
        until(lambda: heard.is_open(port(1)))
        bluez.unplug()
        until(lambda: heard.lost(RADIO))
        assert heard.lost(RADIO)[0].startswith("there is no adapter hci0: plug it in")
        until(lambda: heard.lost(port(1)))
        bluez.plug_in()
        bluez.add(address(1), UART)
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))


def test_bluetooth_that_is_off_is_switched_on(bluez: BlueZ) -> None:
    bluez.add(address(1), UART)
    bluez._power(on=False)
    with running(radio()) as heard:
        until(lambda: heard.is_open(port(1)))
        assert bluez.power == [False, True]


def test_a_bus_that_dies_is_told(bluez: BlueZ, caplog: pytest.LogCaptureFixture) -> None:
    bluez.add(address(1), UART)
    with running(radio()) as heard:
        until(lambda: heard.is_open(port(1)))
        bluez.kill_bus()
        until(lambda: heard.lost(RADIO) and heard.lost(port(1)))
        assert "D-Bus" in heard.lost(RADIO)[0]
