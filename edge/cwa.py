"""CWA files of Axivity AX3 and AX6 loggers: blocks of 512 octets, each with its own clock and checksum.

The layout is in the makers' `cwa.h`. Light, temperature, battery and gyroscope are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Accel, Times

MAGIC = (b"MD", b"AX")  # of a file: its header comes first, unless only blocks were saved
RATE_OFF = 0.15  # a sensor's own rate is nearer than that to the one it was set to
JUMP_S = 0.5  # a clock that is further off than that between two blocks was set, or the logger stopped
SET_BACK_S = 2.0  # the hole put where a clock was set back
_BLOCK_OCTETS = 512
_HEADER_BLOCKS = 2
_CHUNK = 2048  # blocks decoded at a time: a megabyte stays in the processor's cache
_CAPACITY = {0x30: 120, 0x32: 80, 0x62: 40}  # samples by axes and packing; 62: gyroscope first, then acceleration
_BLOCK = np.dtype(
    [
        *(("magic", "S2"), ("length", "<u2"), ("fraction", "<u2"), ("session", "<u4"), ("sequence", "<u4")),
        *(("clock", "<u4"), ("scale", "<u2"), ("skipped", "V4"), ("rate", "u1"), ("layout", "u1")),
        *(("offset", "<i2"), ("count", "<u2"), ("data", "V480"), ("checksum", "<u2")),
    ]
)


@dataclass(frozen=True, slots=True)
class Cwa:
    """The acceleration in a file."""

    runs: list[tuple[Times, Accel]]  # seconds from the first sample, shape (n,); g, shape (n, 3), axes x y z
    bad_rows: int  # samples of the blocks that cannot be used
    rate_hz: float | None = None
    range_g: float | None = None
    device: str | None = None


def read_cwa(path: Path | str) -> Cwa:
    """Read a file; a block that is damaged is counted and leaves a gap, and so does a logger that stopped.

    The samples of a run lie evenly between the times that its blocks give.

    Raises:
        OSError: it cannot be opened.
    """
    octets = np.memmap(path, np.uint8, "r")
    whole, rest = divmod(len(octets), _BLOCK_OCTETS)
    blocks = octets[: whole * _BLOCK_OCTETS].view(_BLOCK)
    device = None
    if octets[:2].tobytes() == b"MD":
        device = str(int.from_bytes(octets[5:7].tobytes(), "little"))
        blocks = blocks[_HEADER_BLOCKS:]
    good = np.flatnonzero(_sound(blocks))
    if len(good):  # all are as the first: one recording has one setting
        settings = [blocks["rate"][good], blocks["layout"][good], blocks["scale"][good] >> 13]
        good = good[np.all([setting == setting[0] for setting in settings], axis=0)]
    capacity = _CAPACITY[int(blocks["layout"][good[0]])] if len(good) else 80
    bad_rows = (len(blocks) - len(good) + bool(rest)) * capacity
    if not len(good):
        return Cwa([], bad_rows, device=device)
    rate = int(blocks["rate"][good[0]])
    rate_hz = 3200 / (1 << (15 - (rate & 15)))
    accel_g = _accel_g(blocks, good, capacity)
    runs = [(times, accel_g[begin:end]) for begin, end, times in _timed(blocks, good, rate_hz)]
    return Cwa(runs, bad_rows, rate_hz, float(16 >> (rate >> 6)), device)


def _sound(blocks: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether each block is whole and says what can be: shape (blocks,)."""
    words = blocks.view(np.uint16).reshape(len(blocks), _BLOCK_OCTETS // 2)
    ok: NDArray[np.bool_] = words.sum(axis=1, dtype=np.uint16) == 0
    ok &= (blocks["magic"] == b"AX") & (blocks["length"] == _BLOCK_OCTETS - 4) & (blocks["rate"] & 15 >= 4)
    capacity = np.zeros(256, np.uint16)
    capacity[list(_CAPACITY)] = list(_CAPACITY.values())
    ok &= (blocks["count"] >= 1) & (blocks["count"] <= capacity[blocks["layout"]])
    clock = blocks["clock"]
    month, day = clock >> 22 & 15, clock >> 17 & 31
    ok &= (month >= 1) & (month <= 12) & (day >= 1)
    ok &= ((clock >> 12 & 31) < 24) & ((clock >> 6 & 63) < 60) & ((clock & 63) < 60)
    return ok


def _accel_g(blocks: NDArray[np.void], good: NDArray[np.intp], capacity: int) -> Accel:
    counts = blocks["count"][good].astype(np.int64)
    accel_g = np.empty((int(counts.sum()), 3), np.float32)
    unit_g = np.float32(1 / (256 << int(blocks["scale"][good[0]] >> 13)))  # the top bits are 0 on an AX3
    packed = capacity == _CAPACITY[0x30]
    at = 0
    for begin in range(0, len(good), _CHUNK):
        data = blocks["data"][good[begin : begin + _CHUNK]]
        n = len(data)
        if packed:  # from the top bit: 2 of exponent, then z, y, x of 10 bits each
            dwords = data.view("<u4").reshape(n, capacity)
            values = np.stack([(dwords << (22 - shift)).view(np.int32) >> 22 for shift in (0, 10, 20)], axis=2)
            values <<= (dwords >> 30).astype(np.int32)[:, :, None]
        else:
            values = data.view("<i2").reshape(n, capacity, -1)[:, :, -3:]
        some = counts[begin : begin + _CHUNK]
        used = values.reshape(-1, 3) if (some == capacity).all() else values[np.arange(capacity) < some[:, None]]
        np.multiply(used, unit_g, out=accel_g[at : at + len(used)])
        at += len(used)
    return accel_g


def _timed(
    blocks: NDArray[np.void], good: NDArray[np.intp], rate_hz: float
) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Return the first sample, the one past the last and the times of each run."""
    # Field by field: several at once would copy whole blocks.
    names = ("fraction", "session", "sequence", "clock", "offset", "count")
    head = {name: blocks[name][good].astype(np.int64) for name in names}
    counts = head["count"]
    firsts = counts.cumsum() - counts
    # A block tells the time of one sample, ``offset`` from its first. Older readers, which know whole seconds
    # alone, must not see the fraction: the offset was moved back by as many samples.
    fraction = np.where(head["fraction"] & 0x8000, (head["fraction"] & 0x7FFF) << 1, 0)
    offset = head["offset"] + (fraction * int(rate_hz) >> 16)
    clock_s = _seconds(head["clock"]) + fraction / 65536
    starts_s = clock_s - offset / rate_hz
    joined = np.diff(head["sequence"]) == 1
    joined &= (np.diff(head["session"]) == 0) & (np.diff(good) == 1)
    lasts_s = counts[:-1] / rate_hz
    joined &= np.abs(np.diff(starts_s) - lasts_s) <= np.maximum(JUMP_S, RATE_OFF * lasts_s)
    cuts = [0, *(np.flatnonzero(~joined) + 1).tolist(), len(good)]
    runs: list[tuple[int, int, NDArray[np.float64]]] = []
    shift_s = 0.0  # so that the first sample is at 0, and no run begins before the last one ended
    for k, (a, b) in enumerate(pairwise(cuts)):
        begin, end = int(firsts[a]), int(firsts[b - 1] + counts[b - 1])
        times = _between(firsts[a:b] + offset[a:b] - begin, clock_s[a:b], end - begin, rate_hz)
        if k == 0:
            shift_s = -float(times[0])
        elif float(times[0]) + shift_s <= runs[-1][2][-1]:
            shift_s = float(runs[-1][2][-1]) + SET_BACK_S - float(times[0])
        times += shift_s
        runs.append((begin, end, times))
    return runs


def _between(
    index: NDArray[np.int64], time_s: NDArray[np.float64], count: int, rate_hz: float
) -> NDArray[np.float64]:
    """Return the times of samples 0 to ``count``, on straight lines between those that are known."""
    # A moment told twice tells no rate: those count that are later than all before.
    later = np.ones(len(index), np.bool_)
    later[1:] = (index[1:] > np.maximum.accumulate(index)[:-1]) & (time_s[1:] > np.maximum.accumulate(time_s)[:-1])
    index, time_s = index[later], time_s[later]
    step_s = (time_s[-1] - time_s[0]) / max(index[-1] - index[0], 1)
    if not abs(step_s * rate_hz - 1) <= RATE_OFF:
        step_s = 1 / rate_hz
    # Beyond the first and the last known one: the run's own rate.
    low, high = min(0, int(index[0])) - 1, max(count, int(index[-1])) + 1
    index = np.concatenate([[low], index, [high]])
    time_s = np.concatenate(
        [[time_s[0] - (index[1] - low) * step_s], time_s, [time_s[-1] + (high - index[-2]) * step_s]]
    )
    return np.interp(np.arange(count), index, time_s)


def _seconds(c: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return seconds since 2000 of packed clocks: year 6 bits, month 4, day 5, hour 5, minute 6, second 6."""
    months = np.datetime64("2000-01", "M") + ((c >> 26) * 12 + (c >> 22 & 15) - 1)
    first_days = (months.astype("datetime64[D]") - np.datetime64("2000-01-01", "D")).astype(np.int64)
    hours = (first_days + (c >> 17 & 31) - 1) * 24 + (c >> 12 & 31)
    return np.asarray((hours * 60 + (c >> 6 & 63)) * 60 + (c & 63), np.float64)
