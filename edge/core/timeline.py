"""From a wearable's batches, with its own ticks and sample numbers, to samples in order on one time line.

The radio loses, repeats and reorders batches; ticks wrap and drift. Stream time is the device's own
clock in seconds since its first sample here, so it does not depend on when the Pi got round to
reading the port: any chunking of the bytes gives the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.preprocess import BRIDGE_S, Accel, Times

TICK_BITS = 32
RATE_TOLERANCE = 0.10  # a sensor's true rate lies within this of what it declares
REORDER_BATCHES = 2  # a missing batch is given up once so many later ones are waiting


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as a wearable sent them."""

    boot: int  # counts the device's starts
    tick: int  # device ticks of the first sample; wraps
    first: int  # number of the first sample since boot
    rate_hz: float
    accel_g: Accel  # shape (n, 3), float32, g, axes x y z


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples in order; ``restart`` when a hole too long to bridge lies before them."""

    t_s: Times  # shape (n,), float64, seconds of stream time, rising
    accel_g: Accel  # shape (n, 3), float32, g
    restart: bool


@dataclass(slots=True)
class TimelineCounts:
    """What the radio did to one wearable's batches."""

    samples: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    restarts: int = 0


class Timeline:
    """Put one wearable's batches in order and give each sample its time."""

    def __init__(self, tick_hz: float = 32768.0) -> None:
        self._tick_hz = tick_hz
        self._boot: int | None = None
        self._ticks = 0  # unwrapped, of the newest batch seen
        self._origin_ticks = 0
        self._next = 0  # number of the next sample
        self._spacing_s = 0.0  # measured; 0 until the first batch
        self._anchor: tuple[int, int] | None = None  # sample number, ticks: where measuring the spacing began
        self._rate_hz = 0.0
        self._last_s = -np.inf
        self._waiting: dict[int, tuple[int, Batch]] = {}
        self._base_s = 0.0  # stream time at which this boot began
        self.counts = TimelineCounts()

    @property
    def last_s(self) -> float | None:
        """Stream time of the newest sample in order, None before the first."""
        return None if self._last_s == -np.inf else self._last_s

    def push(self, batch: Batch) -> list[Chunk]:
        """Take one batch and return the chunks that are now in order."""
        chunks: list[Chunk] = []
        if batch.boot != self._boot:
            chunks += self.flush()
            self._begin_boot(batch)
        ticks = self._unwrap(batch.tick)
        if batch.first + len(batch.accel_g) <= self._next or batch.first in self._waiting:
            self.counts.duplicates += 1
            return chunks
        if self._waiting and batch.first < max(self._waiting):
            self.counts.reordered += 1
        self._waiting[batch.first] = (ticks, batch)
        return chunks + self._release(everything=False)

    def flush(self) -> list[Chunk]:
        """Give up what is missing and return what was waiting behind it; for a stream that fell silent."""
        return self._release(everything=True)

    def _begin_boot(self, batch: Batch) -> None:
        if self._boot is not None:
            self.counts.restarts += 1
            # How long the device was away is not in its ticks; what matters is that nothing is bridged.
            self._base_s = self._last_s + 2 * BRIDGE_S
        self._boot, self._next = batch.boot, batch.first
        self._ticks = self._origin_ticks = batch.tick
        self._anchor, self._rate_hz = None, 0.0

    def _unwrap(self, tick: int) -> int:
        half, full = 1 << TICK_BITS - 1, 1 << TICK_BITS
        ticks = self._ticks + (tick - self._ticks + half) % full - half
        self._ticks = max(self._ticks, ticks)
        return ticks

    def _release(self, *, everything: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self._waiting:
            first = min(self._waiting)
            if first > self._next and not everything and len(self._waiting) < REORDER_BATCHES:
                break
            chunks += self._place(*self._waiting.pop(first))
        return chunks

    def _place(self, ticks: int, batch: Batch) -> list[Chunk]:
        skip = max(self._next - batch.first, 0)  # a batch may overlap what came before
        accel_g = batch.accel_g[skip:]
        if not len(accel_g):  # it waited, and a longer one beside it held all of it
            self.counts.duplicates += 1
            return []
        self.counts.lost += max(batch.first - self._next, 0)
        self.counts.samples += len(accel_g)
        self._next = batch.first + len(batch.accel_g)
        spacing_s = self._measure_spacing(ticks, batch)
        begin_s = self._base_s + (ticks - self._origin_ticks) / self._tick_hz
        t_s: Times = begin_s + np.arange(skip, len(batch.accel_g), dtype=np.float64) * spacing_s
        hole_s = t_s[0] - self._last_s
        if hole_s <= 0:  # measured spacing and ticks disagree by a little: never step back
            t_s += spacing_s / 2 - hole_s
        self._last_s = float(t_s[-1])
        return [Chunk(t_s, accel_g, restart=bool(hole_s > BRIDGE_S + spacing_s))]

    def _measure_spacing(self, ticks: int, batch: Batch) -> float:
        """Return the true time between samples: a sensor's own oscillator is off by some per cent."""
        nominal_s = 1 / batch.rate_hz
        if self._anchor is None or batch.rate_hz != self._rate_hz:
            self._anchor, self._rate_hz, self._spacing_s = (batch.first, ticks), batch.rate_hz, nominal_s
            return nominal_s
        count, elapsed_s = batch.first - self._anchor[0], (ticks - self._anchor[1]) / self._tick_hz
        if count > 0:
            measured_s = elapsed_s / count
            if abs(measured_s / nominal_s - 1) <= RATE_TOLERANCE:
                self._spacing_s = measured_s
            if elapsed_s > 60.0:  # follow the drift of the last minute, not of the whole day
                self._anchor = (batch.first, ticks)
        return self._spacing_s


class ClockOffset:
    """Where a device's stream time lies on the Pi's monotonic clock.

    Batches arrive late, never early, so the least lateness lately seen is nearest to the truth. It
    may rise by `DRIFT` of the time passed, to follow a crystal that runs slow.
    """

    DRIFT = 200e-6

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._at_s = 0.0

    def observe(self, stream_s: float, received_s: float) -> None:
        """Note that the sample of stream time ``stream_s`` had arrived by ``received_s`` (monotonic)."""
        offset_s = received_s - stream_s
        if self._offset_s is not None:
            allowed_s = self._offset_s + (received_s - self._at_s) * self.DRIFT
            # A step of seconds is no drift: the device restarted or its clock was set.
            if offset_s - allowed_s < 5.0:
                offset_s = min(offset_s, allowed_s)
        self._offset_s, self._at_s = offset_s, received_s

    def monotonic_s(self, stream_s: float) -> float:
        """Turn stream time into the Pi's monotonic time."""
        return stream_s + (self._offset_s or 0.0)
