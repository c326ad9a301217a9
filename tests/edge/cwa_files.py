"""Writes CWA files as an AX3 or AX6 does: from the layout in the makers' `cwa.h`, one block at a time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime, timedelta

BEGIN = datetime(2026, 11, 22, 3, 14, 7)  # noqa: DTZ001  # the logger knows no time zone
CAPACITY = {0x30: 120, 0x32: 80, 0x62: 40}
COUNTS = tuple[int, int, int]


def clock(when: datetime) -> int:
    packed = (when.year - 2000) << 26 | when.month << 22 | when.day << 17
    return packed | when.hour << 12 | when.minute << 6 | when.second


def pack(xyz: COUNTS) -> bytes:
    """Return three values in 32 bits: the smallest exponent that holds them."""
    exponent = next(e for e in range(4) if all(-512 <= value >> e <= 511 for value in xyz))
    x, y, z = ((value >> exponent) & 0x3FF for value in xyz)
    return (exponent << 30 | z << 20 | y << 10 | x).to_bytes(4, "little")


def block(
    counts: Sequence[COUNTS],
    first_at: datetime,
    sequence: int,
    *,
    layout: int = 0x32,
    rate_code: int = 0x4A,
    rate_hz: float = 100.0,
    fractional: bool = True,
    session: int = 7,
    scale: int = 0,
) -> bytes:
    """Return a block of samples that begins at a time; its own clock is read at the first whole tick after."""
    into_s = first_at.microsecond / 1e6
    if fractional:  # the clock is read at sample 11
        at_sample = 11
        when = first_at + timedelta(seconds=at_sample / rate_hz)
        fraction16 = round(when.microsecond / 1e6 * 65536) & 0xFFFE
        device = 0x8000 | fraction16 >> 1
        offset = at_sample - (fraction16 * int(3200 / (1 << (15 - (rate_code & 15)))) >> 16)
    else:
        when = first_at + timedelta(seconds=(1 - into_s) % 1)
        device, offset = 1234, round((1 - into_s) % 1 * rate_hz)
    if layout == 0x30:
        data = b"".join(pack(xyz) for xyz in counts)
    else:
        gyroscope = b"\x11\x22\x33\x44\x55\x66" if layout == 0x62 else b""
        data = b"".join(gyroscope + struct.pack("<3h", *xyz) for xyz in counts)
    head = struct.pack("<2sHHIII", b"AX", 508, device, session, sequence, clock(when))
    head += struct.pack("<HHBBBBhH", scale << 13 | 100, 300, 0, 200, rate_code, layout, offset, len(counts))
    return sealed(head + data.ljust(480, b"\0"))


def sealed(octets: bytes) -> bytes:
    """Add the checksum: all words of a block sum up to 0."""
    total: int = sum(struct.unpack("<255H", octets))
    return octets + (-total & 0xFFFF).to_bytes(2, "little")


def header(device: int = 4321) -> bytes:
    head = struct.pack("<2sHBHI", b"MD", 1020, 0, device, 7).ljust(64, b"\xff")
    return (head + b"_p=wrist").ljust(1024, b" ")


def blocks(
    counts: Sequence[COUNTS], *, begin: datetime = BEGIN, layout: int = 0x32, rate_hz: float = 100.0, **how: int
) -> list[bytes]:
    """Return the blocks of one recording, the last perhaps not full; ``rate_hz`` is the sensor's own."""
    size = CAPACITY[layout]
    return [
        block(
            counts[at : at + size],
            begin + timedelta(seconds=at / rate_hz),
            at // size,
            layout=layout,
            rate_hz=rate_hz,
            **how,  # type: ignore[arg-type]  # a test's own keywords
        )
        for at in range(0, len(counts), size)
    ]
