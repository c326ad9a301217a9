from __future__ import annotations

import struct
from unittest.mock import Mock

import bleakheart  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.devices.polar import (
    BATTERY,
    CONTROL,
    DATA,
    ERRORS,
    GET_SETTINGS,
    Polar,
    encode_acc,
    encode_answer,
    settings,
    start_acc,
)
from firmware_bridge.wire import CHARGING, CLIPPED, WORN, Hello, Samples, Status, UplinkMessage

mg16 = st.integers(-7998, 7998)


def values_of(messages: list[UplinkMessage]) -> list[int]:
    xyz = b"".join(m.xyz for m in messages if isinstance(m, Samples))
    return list(struct.unpack(f"<{len(xyz) // 2}h", xyz))


def compressed(head: bytes, samples: list[tuple[int, int, int]], sizes: list[int]) -> bytes:
    """Pack differences as strings of bits, least significant first: nothing in common with the decoder."""
    out = head + struct.pack("<hhh", *samples[0])
    at = 1
    for size in sizes:
        block = samples[at : at + size]
        deltas = [
            b - a
            for old, new in zip(samples[at - 1 :], block, strict=False)
            for a, b in zip(old, new, strict=True)
        ]
        bits = max((d.bit_length() if d >= 0 else (~d).bit_length()) + 1 for d in deltas)
        text = "".join(format(d % (1 << bits), f"0{bits}b")[::-1] for d in deltas)
        text += "0" * (-len(text) % 8)
        out += bytes([bits, len(block)]) + bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))
        at += size
    return out


def head(kind: int, ns: int = 2_000_000_000) -> bytes:
    return struct.pack("<BQB", 2, ns, kind)


def test_a_frame_of_an_h10_is_its_samples_as_counts() -> None:
    polar = Polar(rate_hz=200, range_g=2)
    assert polar.opened() == [bytes.fromhex("02020001c8000101100002010200")]
    frame = bytes.fromhex("02EA54A2428B45520801F4FFEB032D00000800F80000")
    hello, samples = polar.feed(frame, 1.0, DATA)
    assert isinstance(hello, Hello)
    assert (hello.range_g, hello.rate_hz) == (2, 200)
    assert isinstance(samples, Samples)
    assert samples.flags == WORN | CLIPPED
    # -12, 1003, 45 mg; then 2048, -2048, 0 mg, beyond the range.
    assert values_of([samples]) == [-197, 16433, 737, 32767, -32768, 0]


@given(st.lists(st.tuples(mg16, mg16, mg16), min_size=1, max_size=36))
def test_bleakheart_reads_the_same_milli_g(samples: list[tuple[int, int, int]]) -> None:
    frame = encode_acc(1_000_000_000, samples)
    theirs = bleakheart.PolarMeasurementData(Mock())._decode_acc_data(bytearray(frame))
    mine = values_of(Polar(range_g=8).feed(frame, 1.0, DATA))
    assert mine == [round(v * 4.096) for xyz in theirs for v in xyz]


def test_the_vendors_compressed_frame_of_type_1() -> None:
    messages = Polar(range_g=8).feed(head(0x81) + bytes.fromhex("F1FF1400F00306017B0F08"), 1.0, DATA)
    assert values_of(messages) == [round(v * 4.096) for v in (-15, 20, 1008, -20, 17, 1008)]


def test_the_vendors_compressed_frame_of_type_0_by_the_factor_of_the_start_answer() -> None:
    polar = Polar(rate_hz=52, range_g=8, channels=3)
    polar.opened()
    polar.feed(encode_answer(2, 0, b"\x05\x01" + struct.pack("<f", 2.44e-4)), 0.0, CONTROL)
    # The head of the vendor's frame: two differences of 10 bits.
    body = bytes.fromhex("7107F06A9E8D 0A01 BE5CBE3A")
    scale = 2.44e-4 * 32768 / 8
    raw = (1905, 27376, -29282, 1905 + 190, 27376 - 105, -29282 - 85)
    assert values_of(polar.feed(head(0x80) + body, 1.0, DATA)) == [round(v * scale) for v in raw]


@given(st.lists(st.tuples(mg16, mg16, mg16), min_size=3, max_size=60), st.data())
def test_compressed_frames_are_read_back(samples: list[tuple[int, int, int]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(samples) - 2))
    frame = compressed(head(0x81), samples, [cut, len(samples) - 1 - cut])
    messages = Polar(range_g=8).feed(frame, 1.0, DATA)
    assert values_of(messages) == [round(v * 4.096) for xyz in samples for v in xyz]


def test_a_lost_notification_is_a_hole_in_the_numbers() -> None:
    polar = Polar(rate_hz=50, range_g=8)
    messages: list[UplinkMessage] = []
    for k in (0, 1, 2, 4, 5):
        messages += polar.feed(encode_acc(round((k + 1) * 0.72e9), [(0, 0, 1000)] * 36), 9.0, DATA)
    firsts = [m.first for m in messages if isinstance(m, Samples) and m.n == 30]
    assert firsts == [0, 36, 72, 144, 180]


def test_a_battery_is_a_status_and_a_charger_is_told_of() -> None:
    polar = Polar()
    polar.opened()
    assert polar.feed(b"\x57", 3.0, BATTERY.upper()) == [Status(87, 0, 0, WORN, 0)]
    assert polar.feed(encode_answer(2, 13), 4.0, CONTROL) == [Status(87, 0, 0, WORN | CHARGING, 1)]
    assert polar.control_error == "device in charger"
    polar.feed(encode_answer(2), 5.0, CONTROL)
    assert polar.control_error is None


@pytest.mark.parametrize("error", range(1, len(ERRORS) + 1))
def test_every_refusal_has_a_name(error: int) -> None:
    polar = Polar()
    polar.feed(encode_answer(2, error), 1.0, CONTROL)
    assert polar.control_error == (ERRORS[error] if error < len(ERRORS) else f"error {error}")


def test_settings_are_read_from_an_answer() -> None:
    assert GET_SETTINGS == b"\x01\x02"
    assert settings(start_acc(52, 8, 3)[2:]) == {0: [52], 1: [16], 2: [8], 4: [3]}


@given(st.binary(max_size=60), st.sampled_from([DATA, CONTROL, BATTERY, ""]), st.booleans())
def test_junk_never_raises(data: bytes, channel: str, framed: bool) -> None:
    polar = Polar()
    polar.feed(data[:1] + head(0x80 | data[0] % 3)[1:] + data if framed and data else data, 1.0, channel)
    polar.feed(head(0x81) + data, 1.1, DATA)


@given(st.data())
def test_a_cut_compressed_frame_is_counted_as_bad(data: st.DataObject) -> None:
    frame = compressed(head(0x81), [(0, 0, 1000), (5, 9, 990), (-40, 3, 1010)], [2])
    cut = frame[: data.draw(st.integers(17, len(frame) - 1))]
    polar = Polar()
    assert polar.feed(cut, 1.0, DATA) == []
    assert polar.bad_bytes == len(cut)
