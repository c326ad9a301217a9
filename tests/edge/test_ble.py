"""Wearables by Bluetooth: end to end on a virtual radio, and a scripted one that goes deaf without an error."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from edge.core.ble_ladder import LadderTimes
from edge.detect.links import Links
from edge.detect.pipeline import Pipeline
from edge.recording import read_recording
from edge.settings import load_settings
from edge.simulate import virtual_recording
from edge.sources import ble
from edge.sources.ble import BATTERY, BleRadio, BleWearable, Connection, RadioLost, WearableLost
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import VirtualDongle, VirtualWearable
from firmware_bridge.wire import AcknowledgeButton, Downlink, FrameDecoder, encode_frame
from tests.edge.virtual_ble import (
    BATTERY_LEVEL,
    BATTERY_SERVICE,
    NOTIFY,
    READ,
    UART_NOTIFY,
    UART_WRITE,
    WRITE,
    Air,
    NordicUart,
    Peripheral,
)

DATA = Path(__file__).parent.parent / "data"
RADIO = "ble:hci0"
FAST = LadderTimes(restart_scan_s=0.4, power_cycle_s=0.8, reset_usb_s=1.2, tell_s=1.6, repeat_s=300.0)


def address(number: int) -> str:
    return f"F0:F1:F2:F3:F4:{number:02X}"


def port(number: int) -> str:
    return f"ble:{address(number)}"


def uart(number: int, *, battery: bool = False) -> BleWearable:
    return BleWearable(port(number), address(number), (UART_NOTIFY,), UART_WRITE, battery)


class Heard:
    """What a radio told, while it runs in a thread of its own."""

    def __init__(self, radio: BleRadio) -> None:
        self.radio = radio
        self.events: list[LinkEvent] = []
        self._stop = threading.Event()
        self.thread = threading.Thread(target=radio.run, args=(self.events.append, self._stop), name="ble")

    def stop(self) -> None:
        self._stop.set()
        self.thread.join(timeout=5.0)
        assert not self.thread.is_alive()

    def of(self, name: str) -> list[LinkEvent]:
        return [event for event in self.events if event.port == name]

    def data(self, name: str, channel: str = UART_NOTIFY) -> bytes:
        return b"".join(e.data for e in self.of(name) if isinstance(e, Received) and e.channel == channel)

    def is_open(self, name: str) -> bool:
        told = [event for event in self.of(name) if not isinstance(event, Received)]
        return bool(told) and isinstance(told[-1], Opened)

    def lost(self, name: str) -> list[str]:
        return [event.reason for event in self.of(name) if isinstance(event, Lost)]


@contextmanager
def running(radio: BleRadio) -> Iterator[Heard]:
    heard = Heard(radio)
    heard.thread.start()
    try:
        yield heard
    finally:
        heard.stop()


def until(true: Callable[[], object], within_s: float = 8.0) -> None:
    end_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_BACKOFF_S", (0.02, 0.05))
    monkeypatch.setattr(ble, "_TICK_S", 0.02)


def virtual(*peripherals: Peripheral, battery: bool = False, **how: object) -> tuple[BleRadio, Air]:
    air = Air(*peripherals)
    wearables = [uart(i, battery=battery) for i in range(1, len(peripherals) + 1)]
    return BleRadio("hci0", wearables, radio_factory=air.radio, **how), air  # type: ignore[arg-type]  # as given


def test_a_watch_is_found_connected_and_heard() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch, battery=True)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        began_s = time.monotonic()
        watch.say(b"accelerations")
        until(lambda: heard.data(port(1)) == b"accelerations")
        assert heard.data(port(1), BATTERY) == bytes([87])
        watch.notify(BATTERY_LEVEL, bytes([86]))
        until(lambda: heard.data(port(1), BATTERY) == bytes([87, 86]))
        assert isinstance(heard.of(RADIO)[0], Opened)
        last = heard.of(port(1))[-1]
        assert isinstance(last, Received)
        assert last.rssi_dbm == -50  # as the virtual controller has it, from the last advertisement
        assert began_s <= last.received_s <= time.monotonic()
    assert heard.lost(port(1)) == []


def test_a_battery_that_notifies_nothing_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_BATTERY_S", 0.1)
    watch = NordicUart(address(1))
    radio, _ = virtual(watch, battery=True)
    with running(radio) as heard:
        until(lambda: heard.data(port(1), BATTERY)[:1] == bytes([87]))
        watch.values[BATTERY_LEVEL] = bytes([40])
        until(lambda: heard.data(port(1), BATTERY)[-1:] == bytes([40]))


def test_what_is_sent_reaches_the_watch_in_order_and_in_pieces_that_fit() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch)
    link = radio.link(port(1))
    assert not link.send(b"before there is a loop")
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        sent = [bytes([i]) * 300 for i in range(10)]
        began_s = time.monotonic()
        assert all(link.send(data) for data in sent)
        assert time.monotonic() - began_s < 0.2
        until(lambda: b"".join(data for _, data in watch.written) == b"".join(sent))
        assert max(len(data) for _, data in watch.written) == 244  # a MTU of 247 less the header
        watch.leave()
        until(lambda: not heard.is_open(port(1)))
        assert not link.send(b"to nobody")
    assert not link.send(b"after the end")


def test_a_sender_that_floods_is_refused_and_never_waits() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        began_s = time.monotonic()
        taken = [radio.link(port(1)).send(bytes(2000)) for _ in range(500)]
        assert time.monotonic() - began_s < 0.2 * len(taken)
        assert not all(taken)
        until(lambda: radio.link(port(1)).send(b"again"))


def test_a_device_commanded_on_one_characteristic_streams_on_another() -> None:
    """As Polar's do: written with response, data on a characteristic of its own, answers on the first."""
    control, stream = "fb005c81-02e7-f387-1cad-8acd2d8df0c8", "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
    strap = Peripheral(
        address(1),
        {"fb005c80-02e7-f387-1cad-8acd2d8df0c8": {control: READ | WRITE | NOTIFY, stream: NOTIFY}}
        | {BATTERY_SERVICE: {BATTERY_LEVEL: READ}},
    )
    strap.values[BATTERY_LEVEL] = bytes([50])
    wearable = BleWearable(port(1), address(1), (control.upper(), stream.upper()), control.upper(), battery=True)
    radio = BleRadio("hci0", [wearable], radio_factory=Air(strap).radio)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        assert radio.link(port(1)).send(b"start")
        until(lambda: strap.written == [(control, b"start")])
        strap.notify(control, b"started")
        strap.notify(stream, b"samples")
        until(lambda: heard.data(port(1), stream) == b"samples")
        assert heard.data(port(1), control) == b"started"
        assert heard.data(port(1), BATTERY) == bytes([50])  # which it does not notify


def test_a_watch_that_goes_and_comes_back_is_told_once_each_way() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        watch.leave()
        until(lambda: heard.lost(port(1)))
        time.sleep(0.5)
        assert heard.lost(port(1)) == ["the connection broke off"]
        watch.come_back()
        until(lambda: heard.is_open(port(1)))
        watch.say(b"here")
        until(lambda: heard.data(port(1)) == b"here")
    assert [type(event) for event in heard.of(port(1))] == [Opened, Lost, Opened, Received]


def test_a_watch_that_never_comes_is_told_and_the_radio_is_not_deaf() -> None:
    here, away = NordicUart(address(1)), NordicUart(address(2))
    away.in_reach = False
    radio, _ = virtual(here, away, silent_s=1.0, times=FAST)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        for _ in range(20):  # longer than the whole ladder
            here.say(b"x")
            time.sleep(0.1)
        assert heard.lost(port(2)) == ["is not in reach, or flat"]
        assert heard.lost(port(1)) == heard.lost(RADIO) == []
        away.come_back()
        until(lambda: heard.is_open(port(2)))


def test_two_at_once_do_not_mix() -> None:
    watches = [NordicUart(address(1)), NordicUart(address(2))]
    radio, _ = virtual(*watches)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)) and heard.is_open(port(2)))
        for i in range(20):
            for number, watch in enumerate(watches, start=1):
                watch.say(bytes([number, i]))
        radio.link(port(2)).send(b"two")
        for number in (1, 2):
            wanted = b"".join(bytes([number, i]) for i in range(20))
            until(lambda number=number, wanted=wanted: heard.data(port(number)) == wanted)  # type: ignore[misc]  # bound now
        until(lambda: watches[1].written)
        assert watches[0].written == []


def test_connected_but_silent_is_lost_and_tried_again() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch, silent_s=0.3)
    with running(radio) as heard:
        until(lambda: watch.connections >= 2 and heard.is_open(port(1)))
        assert heard.lost(port(1))[0] == "is connected but says nothing for 0.3 s"
        for _ in range(10):
            watch.say(b"now it speaks")
            time.sleep(0.1)
        assert heard.is_open(port(1))


def test_twenty_watches_are_all_connected_though_five_of_them_never_answer() -> None:
    """One attempt at a time, the longest waiting first: who fails goes to the end of the queue."""
    deaf = {address(i) for i in range(1, 6)}
    radio = Scripted([address(i) for i in range(1, 21)], refuses=deaf)
    with running(BleRadio("hci0", [uart(i) for i in range(1, 21)], radio_factory=lambda _: radio)) as heard:
        until(lambda: sum(heard.is_open(port(i)) for i in range(1, 21)) == 15)
        assert radio.most_at_once == 1
        until(lambda: all(heard.lost(port(i)) for i in range(1, 6)))


def test_thirty_disconnections_leave_no_thread_task_or_descriptor_behind() -> None:
    watch = NordicUart(address(1))
    radio, _ = virtual(watch)
    threads = threading.active_count()
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        loop = radio._loop
        assert loop is not None

        def held() -> tuple[int, int]:
            gc.collect()
            tasks = asyncio.run_coroutine_threadsafe(count_tasks(), loop).result(5.0)
            return tasks, len(os.listdir("/proc/self/fd"))

        watch.say(b"first")
        before = held()
        for i in range(30):
            watch.drop()
            until(lambda i=i: len(heard.lost(port(1))) == i + 1 and heard.is_open(port(1)))  # type: ignore[misc]  # i now
        watch.say(b"last")
        until(lambda: heard.data(port(1)) == b"firstlast")
        until(lambda: held() <= before)
        assert watch.connections == 31
    assert threading.active_count() == threads


async def count_tasks() -> int:
    return len(asyncio.all_tasks())


# -- a radio that follows a script ------------------------------------------------------------


class ScriptedConnection:
    def __init__(self, gone: Callable[[], None]) -> None:
        self.gone = gone

    async def subscribe(self, characteristic: str) -> None: ...

    async def read(self, characteristic: str) -> bytes:
        return b""

    async def write(self, characteristic: str, data: bytes) -> None: ...

    def chunk_octets(self, characteristic: str) -> int:
        return 20

    async def close(self) -> None:
        self.gone()


class Scripted:
    """A stack that never fails by itself. ``hears`` turns its ears off; ``cures`` is what brings them back."""

    def __init__(self, addresses: list[str], *, refuses: set[str] = frozenset(), cures: str = "") -> None:  # type: ignore[assignment]  # read
        self.addresses = addresses
        self.refuses = refuses
        self.cures = cures
        self.hears = True
        self.lost = ""
        self.done: list[tuple[str, float]] = []
        self.most_at_once = self._at_once = 0
        self.says = UART_NOTIFY
        self.attempts: list[float] = []
        self._scan: asyncio.Task[None] | None = None
        self._seen: Callable[[str, int | None], None] = lambda _address, _rssi: None
        self._streams: list[asyncio.Task[None]] = []

    def steps(self, name: str) -> list[float]:
        return [at_s for done, at_s in self.done if done == name]

    def _do(self, name: str) -> None:
        self.done.append((name, time.monotonic()))
        if self.lost:
            raise RadioLost(self.lost)
        if name == self.cures:
            self.hears = True

    def reset_usb(self) -> None:
        self._do("reset usb")

    async def ready(self) -> None:
        self._do("ready")

    async def start_scan(self, seen: Callable[[str, int | None], None]) -> None:
        self._do("start scan")
        for one in self.addresses:
            seen(one, None)  # connected from before, says the stack
        self._scan = asyncio.create_task(self._advertise(seen))

    async def _advertise(self, seen: Callable[[str, int | None], None]) -> None:
        while True:
            if self.hears:
                for one in self.addresses:
                    seen(one, -60)
            await asyncio.sleep(0.05)

    async def stop_scan(self) -> None:
        self._do("stop scan")
        await self._end(self._scan)
        self._scan = None

    async def connect(
        self, address: str, on_data: Callable[[str, bytes], None], on_gone: Callable[[], None]
    ) -> Connection:
        self.attempts.append(time.monotonic())
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.02)
        self._at_once -= 1
        if address in self.refuses or not self.hears:
            raise WearableLost("does not answer")
        self._streams.append(asyncio.create_task(self._stream(on_data)))
        return ScriptedConnection(on_gone)

    async def _stream(self, on_data: Callable[[str, bytes], None]) -> None:
        while True:
            if self.hears:
                on_data(self.says, b"s")
            await asyncio.sleep(0.05)

    async def power_cycle(self) -> None:
        self._do("power cycle")

    async def close(self) -> None:
        for task in [self._scan, *self._streams]:
            await self._end(task)
        self._scan, self._streams = None, []

    async def _end(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def scripted(radio: Scripted, n: int = 1, *, usb: bool = False) -> BleRadio:
    wearables = [uart(i) for i in range(1, n + 1)]
    return BleRadio(
        "hci0",
        wearables,
        radio_factory=lambda _: radio,
        times=FAST,
        silent_s=0.3,
        usb_reset=radio.reset_usb if usb else None,
    )


def test_a_radio_gone_deaf_without_an_error_is_shaken_and_a_person_told() -> None:
    stack = Scripted([address(1)])
    with running(scripted(stack, usb=True)) as heard:
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))
        stack.hears, deaf_s = False, time.monotonic()
        until(lambda: heard.lost(RADIO))
        assert 1.5 <= time.monotonic() - deaf_s <= 2.5
        assert heard.lost(RADIO)[0].startswith("radio deaf: nothing heard for 2 s")
        assert stack.steps("power cycle")[0] < stack.steps("reset usb")[0]
        assert heard.lost(port(1))  # and its wearables are not said to be well
        time.sleep(0.5)
        assert len(heard.lost(RADIO)) == len(stack.steps("power cycle")) == len(stack.steps("reset usb")) == 1
        stack.hears = True
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))


@pytest.mark.parametrize("cure", ["start scan", "power cycle", "reset usb"])
def test_a_step_that_helps_is_the_last(cure: str) -> None:
    stack = Scripted([address(1)])
    with running(scripted(stack, usb=True)) as heard:
        until(lambda: heard.is_open(port(1)))
        stack.cures, stack.hears = cure, False
        until(lambda: stack.hears)
        until(lambda: heard.is_open(port(1)))
        done = {name for name, _ in stack.done}
        assert ("power cycle" in done) == (cure != "start scan")
        assert ("reset usb" in done) == (cure == "reset usb")
        assert heard.lost(RADIO) == []


def test_all_connected_and_streaming_is_life_without_any_advertisement() -> None:
    stack = Scripted([address(1), address(2)])
    with running(scripted(stack, 2)) as heard:
        until(lambda: heard.is_open(port(1)) and heard.is_open(port(2)))
        until(lambda: stack._scan is None)  # the air is theirs
        time.sleep(2.0)  # longer than the ladder
        assert heard.lost(RADIO) == heard.lost(port(1)) == []
        assert stack.steps("power cycle") == []


def test_a_room_with_nothing_in_it_is_told_and_then_left_in_peace() -> None:
    stack = Scripted([])
    with running(scripted(stack)) as heard:
        until(lambda: heard.lost(RADIO))
        until(lambda: heard.lost(port(1)) == ["is not in reach, or flat"])
        time.sleep(1.0)
        assert len(stack.steps("power cycle")) == 1
        assert len(heard.lost(RADIO)) == 1
        stack.addresses.append(address(1))
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))


def test_who_refuses_is_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_BACKOFF_S", (0.1, 0.4))
    stack = Scripted([address(1)], refuses={address(1)})
    with running(scripted(stack)) as heard:
        until(lambda: len(stack.attempts) >= 5)
        waits_s = [later - sooner for sooner, later in pairwise(stack.attempts)][:4]
        assert all(wait_s >= least_s for wait_s, least_s in zip(waits_s, (0.1, 0.2, 0.4, 0.4), strict=True))
        assert heard.lost(port(1)) == ["does not answer"]
        stack.refuses = set()
        until(lambda: heard.is_open(port(1)))


def test_a_battery_that_speaks_is_no_sign_of_samples() -> None:
    stack = Scripted([address(1)])
    stack.says = BATTERY
    with running(scripted(stack)) as heard:
        until(lambda: heard.lost(port(1)))
        assert heard.lost(port(1)) == ["is connected but says nothing for 0.3 s"]


def test_a_strength_is_told_only_while_it_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_SEEN_S", 0.4)
    with running(scripted(Scripted([address(1)]))) as heard:

        def strengths() -> list[int | None]:
            return [e.rssi_dbm for e in heard.of(port(1)) if isinstance(e, Received)]

        until(lambda: None in strengths())
        assert strengths()[0] == -60


def test_no_adapter_is_told_with_what_to_do_and_tried_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    stack = Scripted([address(1)])
    stack.lost = "there is no adapter hci0: plug it in"
    with caplog.at_level(logging.INFO), running(scripted(stack)) as heard:
        until(lambda: len(stack.steps("ready")) >= 5)
        assert heard.lost(RADIO) == [stack.lost]
        assert heard.lost(port(1)) == [f"no radio: {stack.lost}"]
        assert len([r for r in caplog.records if r.name == "edge.sources.ble"]) == 1
        stack.lost = ""
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))


def test_an_adapter_unplugged_in_the_midst_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_READY_EVERY_S", 0.1)
    stack = Scripted([address(1)])
    with running(scripted(stack)) as heard:
        until(lambda: heard.is_open(port(1)))
        stack.lost = "there is no adapter hci0: plug it in"
        until(lambda: heard.lost(RADIO) == [stack.lost])
        until(lambda: heard.lost(port(1)) == [f"no radio: {stack.lost}"])
        stack.lost = ""
        until(lambda: heard.is_open(RADIO) and heard.is_open(port(1)))


def test_a_stack_that_never_answers_is_lost_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble, "_RADIO_S", 0.1)
    stack = Scripted([address(1)])

    async def hang() -> None:
        await asyncio.sleep(3600)

    stack.ready = hang  # type: ignore[method-assign]  # a stack that hangs
    with running(scripted(stack)) as heard:
        until(lambda: heard.lost(RADIO) == ["Bluetooth does not answer: restart the bluetooth service"])


def test_those_who_stream_keep_their_connections_when_a_scan_cannot_start() -> None:
    stack = Scripted([address(1)])
    with running(scripted(stack, 2)) as heard:
        until(lambda: heard.is_open(port(1)))

        async def refuse(_seen: object) -> None:
            raise RadioLost("busy")

        stack.start_scan = refuse  # type: ignore[assignment]
        time.sleep(1.5)
        assert heard.lost(port(1)) == heard.lost(RADIO) == []


# -- the whole way ----------------------------------------------------------------------------

KEY = bytes(range(16))


def test_a_virtual_watch_is_taken_by_the_pipeline_and_obeys() -> None:
    session = WearableSession("0001", KEY, WearableCounters(), save=lambda _: None)
    wearable = VirtualWearable(session, virtual_recording(read_recording(DATA / "walk-wrist.csv")))
    dongle = VirtualDongle([wearable])
    watch = NordicUart(address(1))
    obeyed: list[Downlink] = []
    decoder = FrameDecoder()
    watch.on_write = lambda _uuid, data: obeyed.extend(f for f in decoder.feed(data) if isinstance(f, Downlink))
    gateway = Gateway(lambda _: None)
    gateway.add("0001", KEY, Counters())
    pipeline = Pipeline(gateway, {"0001": None}, shadowed={"0001"})
    radio, _ = virtual(watch)
    with running(radio) as heard:
        until(lambda: heard.is_open(port(1)))
        sent = b"".join(dongle.frames_until(0.1 * i) for i in range(1, 51))
        watch.say(sent)
        until(lambda: len(heard.data(port(1))) == len(sent))
        for event in heard.of(port(1)):
            if isinstance(event, Received):
                pipeline.feed(event.port, event.data, event.received_s, rssi_dbm=event.rssi_dbm)
        packet = gateway.seal("0001", AcknowledgeButton(1, 1))
        assert radio.link(port(1)).send(encode_frame(Downlink(packet)))
        until(lambda: obeyed == [Downlink(packet)])
    wearer = pipeline.wearers["0001"]
    assert wearer.hello is not None
    assert wearer.heard_s is not None
    assert pipeline.take_heard()  # samples, on their timeline
    assert pipeline.dongles[port(1)].decoder.bad_bytes == 0


HOME = """
[home]
id = "rose"

[[wearable]]
id = "0001"
kind = "bangle"
address = "F0:F1:F2:F3:F4:01"
"""


def test_a_bangle_in_the_settings_has_a_link_of_its_own_below_that_of_the_radio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = NordicUart(address(1))
    monkeypatch.setattr(ble, "_bleak", Air(watch).radio)
    (tmp_path / "fallwatch.toml").write_text(HOME, encoding="utf-8")
    links = Links(load_settings(tmp_path / "fallwatch.toml"))
    assert links.names == (RADIO, port(1))
    assert links.devices == {}  # its frames are our own
    (run,) = links.runs
    events: list[LinkEvent] = []
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(events.append, stop))
    thread.start()
    try:
        until(lambda: Opened(port(1)) in events)
        links.send_packet(b"sealed packet")
        links.send(b"straight", port(1))
        until(lambda: b"".join(data for _, data in watch.written).endswith(b"straight"))
    finally:
        stop.set()
        thread.join(timeout=5.0)
    assert b"".join(data for _, data in watch.written) == encode_frame(Downlink(b"sealed packet")) + b"straight"


def test_a_home_without_bluetooth_loads_none_of_it() -> None:
    code = (
        "import sys; from edge.detect.links import Links; from edge.settings import HomeSettings, Settings\n"
        "names = Links(Settings(HomeSettings('rose'))).names\n"
        "print(names, *sorted({'asyncio', 'bleak', 'edge.sources.ble'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "()"
