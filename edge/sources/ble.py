"""Wearables by this computer's own Bluetooth Low Energy radio: all of a home in one thread and one asyncio loop.

What the stack below must do is `Radio` and `Connection`: BlueZ in the daemon, virtual controllers in the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from edge.core.ble_ladder import Ladder, LadderTimes, Step
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.wire import FirmwareBridgeError

log = logging.getLogger(__name__)

BATTERY = "00002a19-0000-1000-8000-00805f9b34fb"  # one octet, percent
SILENT_S = 10.0  # a wearable that is connected and says nothing for so long is dropped
MAX_WRITES = 16  # waiting for one wearable
_TICK_S = 0.1
_READY_EVERY_S = 5.0
_SCAN_AGAIN_S = 5.0  # after a scan that would not start
_SEEN_S = 10.0  # an advertisement this old says neither that the wearable is in reach nor how strong it is
_CONNECT_S = 10.0  # with all subscriptions
_BATTERY_S = 300.0  # between two readings of a battery
_WRITE_S = 5.0  # one command, in all its pieces
_CLOSE_S = 5.0
_RADIO_S = 10.0  # one call to the stack
_END_S = 1.5  # for all that is to be closed at the end: the service waits 2 s
_BACKOFF_S = (0.5, 30.0)
_STEADY_S = 10.0  # a link that held for so long begins anew with the shortest wait
_LOG_EVERY_S = 10.0

T = TypeVar("T")


class RadioLost(FirmwareBridgeError):
    """The radio cannot be used; ``reason`` says why, and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WearableLost(FirmwareBridgeError):
    """One wearable cannot be connected, read or written; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection(Protocol):
    """One connected wearable. Characteristics are named by their UUIDs in lower case."""

    async def subscribe(self, characteristic: str) -> None:
        """Have its notifications; raises `WearableLost` where it has none."""

    async def read(self, characteristic: str) -> bytes:
        """Return its value; raises `WearableLost`."""

    async def write(self, characteristic: str, data: bytes) -> None:
        """Write, with response where the characteristic offers it; raises `WearableLost`."""

    def chunk_octets(self, characteristic: str) -> int:
        """Return how much one write may hold."""

    async def close(self) -> None:
        """Disconnect; closing again does nothing. Raises `WearableLost`."""


class Radio(Protocol):
    """One adapter. Its methods raise `RadioLost`; none is called while another is, but during `connect`."""

    async def ready(self) -> None:
        """Check that the adapter is there, and switch it on if it is off."""

    async def start_scan(self, seen: Callable[[str, int | None], None]) -> None:
        """Report the address and dBm of every advertisement of anything; without dBm, who is connected already."""

    async def stop_scan(self) -> None:
        """Scan no more; stopping again does nothing."""

    async def connect(
        self, address: str, on_data: Callable[[str, bytes], None], on_gone: Callable[[], None]
    ) -> Connection:
        """Connect, and find out what the wearable offers; raises `WearableLost`."""

    async def power_cycle(self) -> None:
        """Switch the adapter off and on, which ends the scan and all connections."""

    async def close(self) -> None:
        """Let go of all; closing again does nothing. Raises nothing."""


@dataclass(frozen=True, slots=True)
class BleWearable:
    """How one wearable is reached, and by which of its characteristics."""

    port: str
    address: str
    notify: tuple[str, ...]
    write: str
    battery: bool = False


@dataclass(slots=True)
class _Session:
    connection: Connection
    opened_s: float
    heard_s: float
    outbox: deque[bytes] = field(default_factory=deque)  # other threads append
    has_mail: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Held:
    """What is known of one wearable."""

    wearable: BleWearable
    seen_s: float = -math.inf
    rssi_dbm: int | None = None
    due_s: float = -math.inf
    backoff_s: float = _BACKOFF_S[0]
    attempt: int = 0  # of which what is heard belongs to
    session: _Session | None = None
    closing: asyncio.Task[None] | None = None
    told_lost: bool = False


class BleLink:
    """Sends to one wearable, from any thread."""

    def __init__(self, radio: BleRadio, held: _Held) -> None:
        self._radio = radio
        self._held = held

    def send(self, data: bytes) -> bool:
        """Hand octets to the radio's thread; return whether they were taken. Waits for nothing, raises nothing."""
        return self._radio.hand_over(self._held, data)


class BleRadio:
    """The adapter and its wearables. `run` is the body of a thread; `BleLink.send` may be called from any other.

    The radio reports under a name of its own: lost when there is none, or none that hears anything; opened at the
    first sign of life. ``usb_reset`` is the ladder's last means, and may block for some seconds.
    """

    def __init__(
        self,
        adapter: str,
        wearables: Sequence[BleWearable],
        *,
        radio_factory: Callable[[str], Radio] | None = None,
        usb_reset: Callable[[], None] | None = None,
        times: LadderTimes | None = None,
        silent_s: float = SILENT_S,
    ) -> None:
        self.port = f"ble:{adapter}"
        self._adapter = adapter
        self._factory = radio_factory or _bleak
        self._usb_reset = usb_reset
        self._silent_s = silent_s
        self._held = {wearable.address.upper(): _Held(wearable) for wearable in wearables}
        self._ladder = Ladder(times or LadderTimes(), now_s=time.monotonic())
        self._put: Callable[[LinkEvent], None] = _nowhere
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun_s = 0.0
        self._alive = False  # told as opened
        self._told_lost = False
        self._scanning = False
        self._scan_due_s = 0.0
        self._scan_error = ""
        self._logged_s = -math.inf

    def link(self, port: str) -> BleLink:
        """Return what sends to one wearable.

        Raises:
            ValueError: no wearable has that port.
        """
        for held in self._held.values():
            if held.wearable.port == port:
                return BleLink(self, held)
        raise ValueError(f"no wearable is reached by {port}")

    def send(self, _data: bytes) -> bool:
        """Take nothing: the radio itself is spoken to by nobody."""
        return False

    def hand_over(self, held: _Held, data: bytes) -> bool:
        """Queue octets for one wearable; return whether it is there and has room."""
        session, loop = held.session, self._loop
        if session is None or loop is None or len(session.outbox) >= MAX_WRITES:
            return False
        session.outbox.append(data)
        try:
            loop.call_soon_threadsafe(session.has_mail.set)
        except RuntimeError:  # the loop has just ended
            return False
        return True

    def run(self, put: Callable[[LinkEvent], None], stop: threading.Event) -> None:
        """Hear the wearables until ``stop`` is set, whatever is lost on the way. ``put`` gets every event."""
        self._put = put
        try:
            asyncio.run(self._run(stop))
        finally:
            self._loop = None

    # -- the radio ----------------------------------------------------------------------------

    async def _run(self, stop: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        backoff_s = _BACKOFF_S[0]
        while not stop.is_set():
            radio = self._factory(self._adapter)
            self._begun_s = time.monotonic()
            try:
                await self._serve(radio, stop)
            except RadioLost as lost:
                if time.monotonic() - self._begun_s >= _STEADY_S:
                    backoff_s = _BACKOFF_S[0]
                self._tell_radio_lost(lost.reason)
                for held in self._held.values():
                    self._tell_lost(held, f"no radio: {lost.reason}")
            finally:
                await self._let_go(radio)
            again_s = time.monotonic() + backoff_s
            while not stop.is_set() and time.monotonic() < again_s:
                await asyncio.sleep(_TICK_S)
            backoff_s = min(2 * backoff_s, _BACKOFF_S[1])

    async def _serve(self, radio: Radio, stop: threading.Event) -> None:
        """Work until ``stop`` is set.

        Raises:
            RadioLost: the radio cannot be used any more.
        """
        await _answer(radio.ready())
        now_s = time.monotonic()
        self._ladder.begin(now_s=now_s)
        self._begun_s = now_s
        self._scanning, self._scan_due_s, self._scan_error = False, now_s, ""
        for held in self._held.values():
            held.due_s, held.backoff_s = -math.inf, _BACKOFF_S[0]
        ready_s = now_s + _READY_EVERY_S
        connecting = asyncio.create_task(self._connect_in_turn(radio))
        try:
            while not stop.is_set():
                now_s = time.monotonic()
                if connecting.done():
                    await connecting
                self._find_silent(now_s)
                await self._scan_if_needed(radio, now_s)
                step = self._ladder.step(
                    now_s=now_s, scanning=self._scanning, has_usb_reset=self._usb_reset is not None
                )
                if step is not None:
                    await self._take(step, radio, now_s)
                if now_s >= ready_s:
                    await _answer(radio.ready())
                    ready_s = time.monotonic() + _READY_EVERY_S
                await asyncio.sleep(_TICK_S)
        finally:
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, RadioLost):
                await connecting

    async def _scan_if_needed(self, radio: Radio, now_s: float) -> None:
        """Scan while somebody is missing: when all stream, the air is theirs."""
        needed = any(held.session is None for held in self._held.values())
        if needed == self._scanning or (needed and now_s < self._scan_due_s):
            return
        try:
            if needed:
                await _answer(radio.start_scan(self._on_seen))
                self._ladder.scan_began(now_s=now_s)
            else:
                await _answer(radio.stop_scan())
        except RadioLost as lost:  # those who are connected keep their connections
            self._scanning, self._scan_due_s, self._scan_error = False, now_s + _SCAN_AGAIN_S, lost.reason
            self._warn("%s: cannot scan: %s", self.port, lost.reason)
        else:
            self._scanning, self._scan_error = needed, ""

    async def _take(self, step: Step, radio: Radio, now_s: float) -> None:
        silent_s = self._ladder.silent_s(now_s=now_s)
        if step is Step.TELL:
            why = f"; {self._scan_error}" if self._scan_error else ""
            self._tell_radio_lost(
                f"radio deaf: nothing heard for {silent_s:.0f} s, or nobody is in reach{why}; "
                "unplug the adapter and plug it in again, or restart this computer"
            )
            return
        self._warn("%s: nothing heard for %.0f s: %s", self.port, silent_s, step)
        with contextlib.suppress(RadioLost):  # it may be running no more
            await _answer(radio.stop_scan())
        self._scanning, self._scan_due_s = False, now_s
        if step is Step.POWER_CYCLE:
            await _answer(radio.power_cycle())
        elif step is Step.RESET_USB and self._usb_reset is not None:
            try:
                await _answer(asyncio.to_thread(self._usb_reset))
            except OSError as error:
                self._warn("%s: cannot reset the USB port: %s", self.port, error)

    async def _let_go(self, radio: Radio) -> None:
        for held in self._held.values():
            self._end_session(held)
        closing = [held.closing for held in self._held.values() if held.closing is not None]
        if closing:
            _, late = await asyncio.wait(closing, timeout=_END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await radio.close()

    def _lives(self, now_s: float) -> None:
        self._ladder.lives(now_s=now_s)
        if not self._alive:
            self._alive, self._told_lost = True, False
            self._put(Opened(self.port))
            log.info("%s hears", self.port)

    def _tell_radio_lost(self, reason: str) -> None:
        if not self._told_lost:
            self._put(Lost(self.port, reason))
        self._alive, self._told_lost = False, True
        self._warn("%s is lost: %s", self.port, reason)

    def _warn(self, text: str, *values: object) -> None:
        """Log at most one line in 10 s."""
        now_s = time.monotonic()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.warning(text, *values)

    # -- the wearables ------------------------------------------------------------------------

    def _on_seen(self, address: str, rssi_dbm: int | None) -> None:
        now_s = time.monotonic()
        if rssi_dbm is not None:  # what the stack only remembers is no life
            self._ladder.advertised(now_s=now_s)
            self._lives(now_s)
        held = self._held.get(address.upper())
        if held is not None:
            held.seen_s, held.rssi_dbm = now_s, rssi_dbm

    def _find_silent(self, now_s: float) -> None:
        for held in self._held.values():
            session = held.session
            if session is not None:
                if now_s - session.heard_s >= self._silent_s:
                    self._lose(held, f"is connected but says nothing for {self._silent_s:g} s")
            elif not held.told_lost and now_s - max(self._begun_s, held.due_s) >= self._silent_s:
                seen = now_s - held.seen_s < _SEEN_S
                self._tell_lost(held, "waits to be connected" if seen else "is not in reach, or flat")

    async def _connect_in_turn(self, radio: Radio) -> None:
        """Connect who is in reach, one at a time, the longest waiting first."""
        while True:
            now_s = time.monotonic()
            waiting = [
                held
                for held in self._held.values()
                if held.session is None
                and (held.closing is None or held.closing.done())
                and held.due_s <= now_s
                and now_s - held.seen_s < _SEEN_S
            ]
            if waiting:
                await self._connect(radio, min(waiting, key=lambda held: held.due_s))
            else:
                await asyncio.sleep(_TICK_S)

    async def _connect(self, radio: Radio, held: _Held) -> None:
        held.attempt += 1
        attempt, early = held.attempt, list[tuple[str, bytes, float]]()
        gone = False
        connection: Connection | None = None

        def on_data(characteristic: str, data: bytes) -> None:
            now_s = time.monotonic()
            if held.attempt == attempt and held.session is not None:
                self._on_data(held, held.session, characteristic, data, now_s)
            elif held.attempt == attempt:
                early.append((characteristic, data, now_s))

        def on_gone() -> None:
            nonlocal gone
            gone = True
            if held.attempt == attempt and held.session is not None:
                self._lose(held, "the connection broke off")

        reason = ""
        try:
            async with asyncio.timeout(_CONNECT_S):
                connection = await radio.connect(held.wearable.address, on_data, on_gone)
                for characteristic in held.wearable.notify:
                    await connection.subscribe(characteristic)
                battery = await self._battery(held, connection)
            if gone:
                reason = "the connection broke off"
        except WearableLost as lost:
            reason = lost.reason
        except TimeoutError:
            reason = f"did not connect within {_CONNECT_S:g} s"
        except asyncio.CancelledError:  # the end, or no radio any more
            if connection is not None:
                held.closing = asyncio.create_task(_close(connection))
            raise
        if reason or connection is None:
            if connection is not None:
                held.closing = asyncio.create_task(_close(connection))
            self._lose(held, reason)
            return
        now_s = time.monotonic()
        session = held.session = _Session(connection, now_s, now_s)
        session.writer = asyncio.create_task(self._write(held.wearable, session))
        held.told_lost = False
        self._put(Opened(held.wearable.port))
        self._lives(now_s)
        for characteristic, data, received_s in early:
            self._on_data(held, session, characteristic, data, received_s)
        if battery:
            self._put(Received(held.wearable.port, battery, now_s, BATTERY, self._rssi_dbm(held, now_s)))

    async def _battery(self, held: _Held, connection: Connection) -> bytes:
        """Return what the battery says now, or nothing, and have it told when it changes."""
        if not held.wearable.battery:
            return b""
        level = b""
        with contextlib.suppress(WearableLost):  # some have none, or tell nothing by themselves
            level = await connection.read(BATTERY)
            await connection.subscribe(BATTERY)
        return level

    def _on_data(self, held: _Held, session: _Session, characteristic: str, data: bytes, now_s: float) -> None:
        if characteristic.lower() != BATTERY:  # which says nothing of the samples
            session.heard_s = now_s
        self._lives(now_s)
        rssi_dbm = self._rssi_dbm(held, now_s)
        self._put(Received(held.wearable.port, data, now_s, characteristic.lower(), rssi_dbm))

    async def _write(self, wearable: BleWearable, session: _Session) -> None:
        """Write what is handed over, in order; what cannot be written is dropped, as it would come too late."""
        connection = session.connection
        while True:
            try:
                async with asyncio.timeout(_BATTERY_S if wearable.battery else None):
                    await session.has_mail.wait()
            except TimeoutError:  # nothing to write for so long
                await self._read_battery(wearable, session)
                continue
            session.has_mail.clear()
            while session.outbox:
                data = session.outbox.popleft()
                try:
                    async with asyncio.timeout(_WRITE_S):
                        n = connection.chunk_octets(wearable.write)
                        for start in range(0, len(data), n):
                            await connection.write(wearable.write, data[start : start + n])
                except (WearableLost, TimeoutError) as error:
                    log.debug("%s: on writing: %s", wearable.port, error)

    async def _read_battery(self, wearable: BleWearable, session: _Session) -> None:
        """Ask for the battery once more: not every stack passes on what a device notifies of it."""
        with contextlib.suppress(WearableLost, TimeoutError):
            async with asyncio.timeout(_WRITE_S):
                level = await session.connection.read(BATTERY)
            self._put(Received(wearable.port, level, time.monotonic(), BATTERY))

    def _lose(self, held: _Held, reason: str) -> None:
        now_s = time.monotonic()
        session = held.session
        if session is not None and session.heard_s - session.opened_s >= _STEADY_S:
            held.backoff_s = _BACKOFF_S[0]
        self._end_session(held)
        held.due_s = now_s + held.backoff_s
        held.backoff_s = min(2 * held.backoff_s, _BACKOFF_S[1])
        self._tell_lost(held, reason)

    def _tell_lost(self, held: _Held, reason: str) -> None:
        if not held.told_lost:
            held.told_lost = True
            self._put(Lost(held.wearable.port, reason))
        log.debug("%s is lost: %s", held.wearable.port, reason)

    def _end_session(self, held: _Held) -> None:
        session, held.session = held.session, None
        held.attempt += 1  # what the old connection still says is nobody's
        if session is not None:
            held.closing = asyncio.create_task(_close(session.connection, session.writer))

    def _rssi_dbm(self, held: _Held, now_s: float) -> int | None:
        return held.rssi_dbm if now_s - held.seen_s < _SEEN_S else None


async def _answer(call: Awaitable[T]) -> T:
    """Return what the stack says; raises `RadioLost` where it says nothing."""
    try:
        async with asyncio.timeout(_RADIO_S):
            return await call
    except TimeoutError as error:
        raise RadioLost("Bluetooth does not answer: restart the bluetooth service") from error


async def _close(connection: Connection, writer: asyncio.Task[None] | None = None) -> None:
    if writer is not None:
        writer.cancel()
        await asyncio.wait([writer])
    with contextlib.suppress(WearableLost, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await connection.close()


def _nowhere(_event: LinkEvent) -> None:
    """Take what is told before anybody listens."""


def _bleak(adapter: str) -> Radio:
    from edge.sources.bleak_radio import BleakRadio  # noqa: PLC0415 - bleak takes its time, and tests need none

    return BleakRadio(adapter)
