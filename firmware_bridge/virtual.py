"""A virtual dongle with virtual wearables: recordings, sealed and framed as the real ones do, on a pty.

`VirtualDongle` is a pure machine in stream time; `DonglePty` plays it into a pty in real time, or faster.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import random
import select
import statistics
import struct
import threading
import time
import tty
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.session import WearableSession
from firmware_bridge.wire import (
    BUTTON_HELD,
    CHARGING,
    CLIPPED,
    MAX_SAMPLES,
    TICK_HZ,
    VERSION,
    WORN,
    AcknowledgeButton,
    Button,
    DongleAsk,
    DongleHello,
    DongleStatus,
    Downlink,
    FrameDecoder,
    Hello,
    Proof,
    Prove,
    Samples,
    Status,
    Uplink,
    WireError,
    encode_frame,
    read_header,
)

HELLO_EVERY_S = 60.0
STATUS_EVERY_S = 30.0
BUTTON_EVERY_S = 1.0
_NOISE_G = 0.003  # of a real sensor at rest
_STALE_S = 1.0  # frames nobody fetched for so long are dropped, oldest first


@dataclass(frozen=True, slots=True)
class Run:
    """A gap-free piece of a recording; ``counts`` holds int16 little-endian x y z."""

    start_s: float
    counts: bytes


class Recording:
    """What a virtual wearable plays: runs of samples on one grid, with nothing sent in the gaps between."""

    def __init__(self, runs: Sequence[Run], *, rate_hz: float, range_g: int) -> None:
        """Take runs in order of time; time zero is where playing starts.

        Raises:
            ValueError: no samples, runs out of order, or an odd number of octets.
        """
        self.rate_hz = rate_hz
        self.range_g = range_g
        self._starts: list[int] = []
        self._counts: list[bytes] = []
        end = 0
        for run in runs:
            start = round(run.start_s * rate_hz)
            if start < end or len(run.counts) % 6:
                raise ValueError(f"run at {run.start_s:g} s overlaps the one before or holds broken samples")
            if run.counts:
                self._starts.append(start)
                self._counts.append(run.counts)
                end = start + len(run.counts) // 6
        if not end:
            raise ValueError("a recording without samples")
        self.n = end  # samples from time zero to the end, gaps included

    def next_run(self, index: int) -> tuple[int, int] | None:
        """Return the span of samples at or after ``index`` up to the next gap, or nothing at the end."""
        i = max(bisect_right(self._starts, index) - 1, 0)
        for start, counts in zip(self._starts[i:], self._counts[i:], strict=True):
            end = start + len(counts) // 6
            if index < end:
                return max(start, index), end
        return None

    def counts(self, start: int, end: int) -> bytes:
        """Return the samples of a span within one run."""
        i = bisect_right(self._starts, start) - 1
        return self._counts[i][6 * (start - self._starts[i]) : 6 * (end - self._starts[i])]

    def posture(self) -> tuple[int, int, int]:
        """Return the middle value of each axis over the last second: how the wearer came to rest."""
        tail = self._counts[-1][-6 * max(1, round(self.rate_hz)) :]
        values = struct.unpack(f"<{len(tail) // 2}h", tail)
        x, y, z = (statistics.median_low(values[axis::3]) for axis in range(3))
        return x, y, z


class VirtualWearable:
    """One wearable: plays a recording, seals what it says, obeys commands.

    With ``loop`` the recording starts again at its end; without, the wearable lies still in the last posture,
    as it would on its wearer, and goes on sending. Sampling starts at ``offset_s`` of stream time; after
    ``silent_from_s`` nothing is sent or heard. `Configure` is answered with the settings the recording has.
    """

    def __init__(
        self,
        session: WearableSession,
        recording: Recording,
        *,
        loop: bool = False,
        battery_pct: int = 87,
        worn: bool = True,
        charging: bool = False,
        silent_from_s: float = math.inf,
        offset_s: float = 0.0,
    ) -> None:
        self.id = session.wearable
        self.silent_from_s = silent_from_s
        self._session = session
        self._recording = recording
        self._loop = loop
        self._battery_pct = battery_pct
        self._flags = WORN * worn | CHARGING * charging
        self._offset_s = offset_s
        self._rate_chz = round(recording.rate_hz * 100)
        self._batch = min(MAX_SAMPLES, math.ceil(recording.rate_hz / 2))
        self._next = 0  # index of the next sample, since the start, not of the recording
        self._still: tuple[int, int, int] = recording.posture()
        self._noise = random.Random(self.id)  # noqa: S311  # noise, no secret
        self._presses = 0
        self._pressed: Button | None = None
        self._due: list[tuple[float, int, Callable[[float], list[bytes]]]] = []
        self._order = 0
        self._at(offset_s, self._hello)
        self._at(offset_s, self._status)
        self._plan_samples()

    def due_s(self) -> float:
        """Return when it next speaks, in stream time."""
        due_s = self._due[0][0]
        return due_s if due_s < self.silent_from_s else math.inf

    def speak(self) -> list[bytes]:
        """Return the sealed packets of what is due first."""
        due_s, _, action = heapq.heappop(self._due)
        return action(due_s)

    def take(self, packet: bytes, now_s: float) -> None:
        """Hear a sealed command; the answer is due at once."""
        if now_s >= self.silent_from_s:
            return
        match self._session.open(packet):
            case Prove(challenge):
                self._at(now_s, lambda _: [self._session.seal(Proof(challenge)), self._session.seal(self._hail())])
            case AcknowledgeButton(boot, press):
                if self._pressed is not None and (boot, press) == (self._pressed.boot, self._pressed.press):
                    self._pressed = None
            case None:
                pass
            case _:
                self._at(now_s, lambda _: [self._session.seal(self._hail())])

    def press_button(self, now_s: float, *, held_ms: int = 1500) -> None:
        """Press the help button: told every second until acknowledged."""
        idle = self._pressed is None
        self._presses += 1
        self._pressed = Button(self._session.boot, self._presses & 0xFFFF, self._tick(now_s), held_ms)
        if idle:
            self._at(now_s, self._button)

    def _at(self, due_s: float, action: Callable[[float], list[bytes]]) -> None:
        self._order += 1  # first come, first served: actions themselves have no order
        heapq.heappush(self._due, (due_s, self._order, action))

    def _tick(self, now_s: float) -> int:
        return round((now_s - self._offset_s) * TICK_HZ) & 0xFFFF_FFFF

    def _hail(self) -> Hello:
        return Hello(
            boot=self._session.boot,
            firmware=(1, 0, 0),
            hardware=0,
            range_g=self._recording.range_g,
            rate_chz=self._rate_chz,
            last_command=self._session.last_command,
        )

    def _hello(self, now_s: float) -> list[bytes]:
        self._at(now_s + HELLO_EVERY_S, self._hello)
        return [self._session.seal(self._hail())]

    def _status(self, now_s: float) -> list[bytes]:
        self._at(now_s + STATUS_EVERY_S, self._status)
        volts_mv = 3300 + 9 * self._battery_pct
        status = Status(self._battery_pct, volts_mv, 30, self._flags, int(now_s - self._offset_s))
        return [self._session.seal(status)]

    def _button(self, now_s: float) -> list[bytes]:
        if self._pressed is None:
            return []
        self._at(now_s + BUTTON_EVERY_S, self._button)
        return [self._session.seal(self._pressed)]

    def _plan_samples(self) -> None:
        """Make the next batch due when its last sample has been taken."""
        span = self._span()
        self._at(self._offset_s + span[1] / self._recording.rate_hz, lambda _: self._samples(*span))

    def _span(self) -> tuple[int, int]:
        """Return the next batch, as indices since the start: it ends at a gap, and at the recording's end."""
        turn, index = divmod(self._next, self._recording.n) if self._loop else (0, self._next)
        run = self._recording.next_run(index)
        if run is None:  # the recording has ended: lie still
            return self._next, self._next + self._batch
        start, end = run
        base = turn * self._recording.n
        return base + start, base + min(end, start + self._batch)

    def _samples(self, start: int, end: int) -> list[bytes]:
        recording = self._recording
        index = start % recording.n if self._loop else start
        n = end - start
        counts = recording.counts(index, index + n) if index < recording.n else self._lying(n)
        values = struct.unpack(f"<{3 * n}h", counts)
        clipped = max(values) == 32767 or min(values) == -32768
        message = Samples(
            boot=self._session.boot,
            tick=round(start * TICK_HZ / recording.rate_hz) & 0xFFFF_FFFF,
            first=start & 0xFFFF_FFFF,
            rate_chz=self._rate_chz,
            range_g=recording.range_g,
            flags=self._flags | CLIPPED * clipped | BUTTON_HELD * (self._pressed is not None),
            xyz=counts,
        )
        self._next = end
        self._plan_samples()
        return [self._session.seal(message)]

    def _lying(self, n: int) -> bytes:
        swing = max(1, round(_NOISE_G * 32768 / self._recording.range_g))
        noise = self._noise.choices(range(-swing, swing + 1), k=3 * n)
        return struct.pack(
            f"<{3 * n}h", *(max(-32768, min(32767, self._still[i % 3] + noise[i])) for i in range(3 * n))
        )


class VirtualDongle:
    """A dongle and its wearables as a machine in stream time: ask it for the bytes up to a time.

    ``loss`` is the part of packets the radio loses, both ways; ``garbage`` the part of frames with noise on
    the line before them.
    """

    def __init__(
        self,
        wearables: Sequence[VirtualWearable],
        *,
        loss: float = 0.0,
        garbage: float = 0.0,
        seed: int = 0,
        serial: bytes = b"virtual1",
    ) -> None:
        self.frames_dropped = 0  # raised by who could not pass frames on
        self._wearables = {wearable.id: wearable for wearable in wearables}
        if len(self._wearables) != len(wearables):
            raise ValueError("two wearables have the same id")
        self._loss = loss
        self._garbage = garbage
        self._random = random.Random(seed)  # noqa: S311  # faults, no secrets
        self._serial = serial
        self._decoder = FrameDecoder()
        self._received = 0
        self._now_s = 0.0
        self._status_s = 1.0
        self._asked = True  # says hello at its start
        self._queue: list[tuple[float, int, VirtualWearable]] = []
        self._plan()

    @property
    def now_s(self) -> float:
        """How far in stream time the dongle has been played."""
        return self._now_s

    def due_s(self) -> float:
        """Return when the next bytes come, in stream time."""
        if self._asked:
            return self._now_s
        return min(self._status_s, self._queue[0][0]) if self._queue else self._status_s

    def frames_until(self, t_s: float) -> bytes:
        """Return all frames due before or at ``t_s``, in order of time."""
        out: list[bytes] = []
        if self._asked:
            self._asked = False
            out.append(encode_frame(DongleHello(VERSION, (1, 0, 0), self._serial)))
        while (due_s := self.due_s()) <= t_s:
            self._now_s = max(self._now_s, due_s)
            if due_s == self._status_s:
                uptime_ms = round(due_s * 1000) & 0xFFFF_FFFF
                out.append(encode_frame(DongleStatus(uptime_ms, self._received, self.frames_dropped)))
                self._status_s += 1.0
                continue
            _, i, wearable = self._queue[0]
            for packet in wearable.speak():
                out.extend(self._heard(packet))
            heapq.heapreplace(self._queue, (wearable.due_s(), i, wearable))
        self._now_s = max(self._now_s, t_s)
        return b"".join(out)

    def _heard(self, packet: bytes) -> list[bytes]:
        if self._loss and self._random.random() < self._loss:
            return []
        self._received += 1
        frame = encode_frame(Uplink(-60 - self._received % 7, packet))
        if self._garbage and self._random.random() < self._garbage:
            return [self._random.randbytes(self._random.randint(1, 300)), frame]
        return [frame]

    def take(self, data: bytes) -> None:
        """Take bytes from the Pi; answers come with the next `frames_until`."""
        for frame in self._decoder.feed(data):
            if isinstance(frame, DongleAsk):
                self._asked = True
            elif isinstance(frame, Downlink):
                with contextlib.suppress(WireError):
                    wearable = self._wearables.get(read_header(frame.packet).wearable)
                    if wearable is not None and self._random.random() >= self._loss:
                        wearable.take(frame.packet, self._now_s)
        self._plan()

    def press_button(self, wearable: str) -> None:
        """Press a wearable's help button now."""
        self._wearables[wearable].press_button(self._now_s)
        self._plan()

    def _plan(self) -> None:
        self._queue = [(wearable.due_s(), i, wearable) for i, wearable in enumerate(self._wearables.values())]
        heapq.heapify(self._queue)


class DonglePty:
    """A pty that plays a virtual dongle in real time times ``speed``, behind a symbolic link.

    Readers may come and go. While nobody reads, whole frames are dropped, oldest first, never half of one.
    """

    def __init__(self, dongle: VirtualDongle, link: Path, *, speed: float = 1.0) -> None:
        """Open the pty and put the link in place.

        Raises:
            FileExistsError: there is something at ``link`` that is no symbolic link.
        """
        if link.exists() and not link.is_symlink():
            raise FileExistsError(f"{link} is there and is no symbolic link")
        self.link = link
        self._dongle = dongle
        self._speed = speed
        # Our own hold on the far end keeps the pty alive, and raw, between readers.
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self._name = os.ttyname(self._far)
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(self._name)
        new.replace(link)
        self._rest = b""  # of the frame that is half written
        self._frames: deque[tuple[float, bytes]] = deque()

    def run(self, stop: threading.Event) -> None:
        """Play until ``stop`` is set."""
        started_s = time.monotonic()
        while not stop.is_set():
            now_s = time.monotonic()
            for frame in self._dongle.frames_until((now_s - started_s) * self._speed).split(b"\0"):
                if frame:
                    self._frames.append((now_s, frame + b"\0"))
            self._write(now_s)
            waits_s = started_s + self._dongle.due_s() / self._speed - time.monotonic()
            wants = [self._near] if self._rest else []
            ready, _, _ = select.select([self._near], wants, [], min(max(waits_s, 0.0), 0.1))
            if ready:
                with contextlib.suppress(BlockingIOError):
                    self._dongle.take(os.read(self._near, 4096))

    def _write(self, now_s: float) -> None:
        while self._rest or self._frames:
            if not self._rest:
                _, self._rest = self._frames.popleft()
            try:
                self._rest = self._rest[os.write(self._near, self._rest) :]
            except BlockingIOError:
                break
        while self._frames and now_s - self._frames[0][0] > _STALE_S:
            self._frames.popleft()
            self._dongle.frames_dropped += 1

    def close(self) -> None:
        """Take the link away, if it is still ours, and close the pty."""
        with contextlib.suppress(OSError):
            if os.readlink(self.link) == self._name:
                self.link.unlink()
        for fd in (self._near, self._far):
            os.close(fd)

    def __enter__(self) -> DonglePty:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
