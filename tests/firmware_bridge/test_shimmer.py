"""Shimmer3 over a serial line: worked vectors, any split, junk, loss, wrap; pyshimmer reads the same octets."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyshimmer.bluetooth.bt_api import BluetoothRequestHandler  # type: ignore[import-untyped]
from pyshimmer.bluetooth.bt_commands import InquiryCommand, SetSamplingRateCommand, SetSensorsCommand  # type: ignore[import-untyped]
from pyshimmer.bluetooth.bt_serial import BluetoothSerial  # type: ignore[import-untyped]
from pyshimmer.dev.calibration import AllCalibration  # type: ignore[import-untyped]
from pyshimmer.dev.channels import ChDataTypeAssignment, EChannelType, ESensorGroup  # type: ignore[import-untyped]
from pyshimmer.util import battery_voltage_to_percent  # type: ignore[import-untyped]

from firmware_bridge.devices import Device
from firmware_bridge.devices.shimmer import (
    KXRB5_2042,
    LSM303AH,
    LSM303DLHC,
    Accelerometer,
    Calibration,
    Shimmer,
    _charge_pct,
)
from firmware_bridge.wire import CHARGING, CLIPPED, WORN, Samples, Status, UplinkMessage

PERIOD = 640  # ticks at 51.2 Hz
G_COUNTS = 4001  # 1 g of the LSM303DLHC at +-8 g: 408 counts per m/s^2
DEFAULT_WIDE = struct.pack(">6h9b", 0, 0, 0, 408, 408, 408, -100, 0, 0, 0, 100, 0, 0, 0, -100)


def crc(message: bytes) -> bytes:
    """Return the CRC as the firmware's own self-test has it, bit by bit."""
    value = 0xB0CA
    for octet in message + b"\0" * (len(message) % 2):
        value ^= octet << 8
        for _ in range(8):
            value = (value << 1 ^ (0x1021 if value & 0x8000 else 0)) & 0xFFFF
    return value.to_bytes(2, "little")


def packet(ticks: int, *channels: int) -> bytes:
    return b"\0" + (ticks % (1 << 24)).to_bytes(3, "little") + struct.pack(f"<{len(channels)}h", *channels)


def wide(index: int, xyz: Sequence[int] = (0, 0, G_COUNTS), *, begin: int = 1_000_000) -> bytes:
    return packet(begin + index * PERIOD, 2750, *xyz)


def steady(*xyz: int, begin: int = 0) -> bytes:
    """Return five packets of a wearable that does not move."""
    return b"".join(wide(i, xyz or (0, 0, G_COUNTS)) for i in range(begin, begin + 5))


class Firmware:
    """Answers as LogAndStream does: one command at a time; loses what ``deaf`` says, each once."""

    def __init__(
        self, *, calibration: bytes = DEFAULT_WIDE, deaf: Sequence[int] = (), inquiry: bytes = b""
    ) -> None:
        self.calibration, self.inquiry = calibration, inquiry
        self.deaf = list(deaf)
        self.crc_on = False
        self.docked = 0
        self.sensors, self.ticks, self.config = 0, 0, 0
        self.heard: list[bytes] = []

    def answer(self, command: bytes) -> bytes:
        self.heard.append(command)
        if command[0] in self.deaf:
            self.deaf.remove(command[0])
            return b""
        said = b"\xff"
        match command[0]:
            case 0x8B:
                self.crc_on = command[1] == 2
            case 0x08:
                self.sensors = int.from_bytes(command[1:], "little")
            case 0x05:
                self.ticks = int.from_bytes(command[1:], "little")
            case 0x09:
                self.config = command[1] << 2
            case 0x72:
                said += bytes([0x8A, 0x71, self.docked])
            case 0x13 | 0x1C:
                said += bytes([command[0] - 1]) + self.calibration
            case 0x01:
                channels = bytes(range(3)) * bool(self.sensors & 0x80) + b"\x03" * bool(self.sensors & 0x2000)
                channels += b"\x04\x05\x06" * bool(self.sensors & 0x1000)
                head = struct.pack("<BHIBB", 2, self.ticks, self.config, len(channels), 1)
                said += self.inquiry or head + channels
        return said + crc(said) * self.crc_on


def set_up(shimmer: Shimmer, firmware: Firmware | None = None, *, until_s: float = 20.0) -> Firmware:
    """Let both talk, a tenth of a second at a time, until it is to stream."""
    firmware = firmware or Firmware()
    sent = shimmer.opened()
    now_s = 0.0
    while now_s < until_s and not shimmer._streams:
        for command in sent:
            shimmer.feed(firmware.answer(command), now_s)
        now_s += 0.1
        sent = shimmer.say(now_s)
    return firmware


def streaming(*args: Any, **options: Any) -> Shimmer:
    shimmer = Shimmer(*args, **options)
    set_up(shimmer)
    return shimmer


def run(shimmer: Shimmer, stream: bytes, *cuts: int) -> list[UplinkMessage]:
    cuts = tuple(sorted(min(cut, len(stream)) for cut in cuts))
    messages: list[UplinkMessage] = []
    for begin, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        messages += shimmer.feed(stream[begin:end], 30.0)
    return messages + shimmer.lost()


def indices(messages: list[UplinkMessage]) -> list[int]:
    return [m.first + i for m in messages if isinstance(m, Samples) for i in range(m.n)]


def in_g(messages: list[UplinkMessage]) -> list[tuple[float, ...]]:
    runs = [m for m in messages if isinstance(m, Samples)]
    return [
        tuple(count * m.range_g / 32768 for count in xyz) for m in runs for xyz in struct.iter_unpack("<3h", m.xyz)
    ]


def test_a_wide_range_stream_becomes_samples_in_g() -> None:
    shimmer = streaming()
    messages = run(shimmer, b"".join(wide(i) for i in range(30)))
    status, *runs = sorted(messages, key=lambda m: isinstance(m, Samples))
    assert [m.n for m in runs if isinstance(m, Samples)] == [13, 13, 4]
    first = runs[0]
    assert isinstance(first, Samples)
    assert (first.boot, first.tick, first.first) == (1, 1_000_000, 0)
    assert (first.rate_chz, first.range_g, first.flags) == (5120, 8, WORN)
    assert indices(messages) == list(range(30))
    assert in_g(messages)[7] == pytest.approx((0, 0, -1.0), abs=0.001)  # the chip lies upside down in its case
    assert isinstance(status, Status)
    assert (status.battery_mv, status.flags) == (4005, WORN)
    assert shimmer.bad_bytes == 0


def test_it_is_a_device() -> None:
    device: Device = Shimmer()
    assert device.opened() == [b"\x20"]


# -- worked vectors and peers -------------------------------------------------------------------

INQUIRY = bytes.fromhex("02 80 02 00000000 03 01 00 01 02")
LOW_NOISE = bytes.fromhex("00 87D612 FF07 3408 540B")
LN_TYPES = [EChannelType.TIMESTAMP, EChannelType.ACCEL_LN_X, EChannelType.ACCEL_LN_Y, EChannelType.ACCEL_LN_Z]
NO_CALIBRATION = b"\xff" * 21


class Line:
    """Looks like a serial port to pyshimmer, and holds what it will read."""

    timeout = None

    def __init__(self, data: bytes) -> None:
        self.data, self.sent = bytearray(data), bytearray()

    def read(self, size: int) -> bytes:
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    def write(self, data: bytes) -> int:
        self.sent += data
        return len(data)


def test_pyshimmer_reads_the_same_octets() -> None:
    first = int.from_bytes(LOW_NOISE[1:4], "little")
    stream = b"\xff" + LOW_NOISE + b"".join(packet(first + i * PERIOD, 2047 + i, 2100, 2900) for i in (1, 2, 4))

    handler = BluetoothRequestHandler(BluetoothSerial(Line(b"\xff" + INQUIRY + stream)))
    _, answer = handler.queue_command(InquiryCommand())
    for _ in range(2):
        handler.process_single_input_event()
    rate_hz, _, channels = answer.get_result()
    assert (rate_hz, channels) == (51.2, LN_TYPES[1:])
    theirs: list[Any] = []
    handler.add_stream_callback(theirs.append)
    handler.set_stream_types([(t, ChDataTypeAssignment[t]) for t in LN_TYPES])
    handler.queue_command(SetSamplingRateCommand(51.2))
    for _ in range(5):
        handler.process_single_input_event()

    shimmer = Shimmer(KXRB5_2042)
    set_up(shimmer, Firmware(calibration=NO_CALIBRATION, inquiry=INQUIRY))
    ours = run(shimmer, stream)
    ticks = [p[EChannelType.TIMESTAMP] for p in theirs]
    assert ticks[0] == 1_234_567
    assert indices(ours) == [(t - ticks[0]) // PERIOD for t in ticks] == [0, 1, 2, 4]
    for xyz_g, p in zip(in_g(ours), theirs, strict=True):
        raw = [(p[t] - 2047) / 83 / 9.80665 for t in LN_TYPES[1:]]
        assert xyz_g == pytest.approx((-raw[1], -raw[0], -raw[2]), abs=1e-4)


def test_pyshimmer_would_say_the_same_to_the_device() -> None:
    line = Line(b"")
    SetSensorsCommand([ESensorGroup.ACCEL_WR, ESensorGroup.BATTERY]).send(BluetoothSerial(line))
    SetSamplingRateCommand(51.2).send(BluetoothSerial(line))
    heard = set_up(Shimmer()).heard
    assert heard[1] + heard[2] == bytes(line.sent)
    assert [command[0] for command in heard] == [0x20, 0x08, 0x05, 0x43, 0x46, 0x40, 0x09, 0x1C, 0x72, 0x01, 0x07]


def test_the_firmwares_own_crc_vectors() -> None:
    assert crc(bytes(range(1, 9))).hex() == "aa48"
    assert crc(bytes(range(1, 10))).hex() == "5d2a"
    assert crc(bytes(range(1, 11))).hex() == "178b"


@pytest.mark.parametrize("volts", [2.9, 3.2, 3.4, 3.65, 3.72, 3.8, 3.9, 4.05, 4.167, 4.3])
def test_the_battery_is_as_full_as_the_manual_says(volts: float) -> None:
    assert _charge_pct(round(volts * 1000)) == pytest.approx(float(battery_voltage_to_percent(volts)), abs=3)


# -- calibration and range ----------------------------------------------------------------------


def test_the_devices_own_calibration_is_used_and_read_as_pyshimmer_does() -> None:
    own = struct.pack(">6h9b", 100, -50, 20, 400, 410, 420, -98, 2, 0, 1, 99, 0, 0, 3, -100)
    theirs = AllCalibration(own * 4)
    k, b = theirs.get_sensitivity(0), theirs.get_offset_bias(0)
    shimmer = Shimmer()
    set_up(shimmer, Firmware(calibration=own))
    messages = run(shimmer, steady(1000, 2000, 3000))
    x, y, z = in_g(messages)[0]
    rows = [theirs.get_ali_mat(0)[i : i + 3] for i in (0, 3, 6)]
    back = [sum(r / 100 * v for r, v in zip(row, (x, y, z), strict=True)) * 9.80665 for row in rows]
    assert [back[i] * k[i] + b[i] for i in range(3)] == pytest.approx([1000, 2000, 3000], abs=1.5)


@pytest.mark.parametrize("own", [b"\xff" * 21, bytes(21), DEFAULT_WIDE[:6] + b"\x7f\xff" * 3 + DEFAULT_WIDE[12:]])
def test_a_calibration_that_was_never_written_leaves_the_defaults(own: bytes) -> None:
    shimmer = Shimmer()
    set_up(shimmer, Firmware(calibration=own))
    assert in_g(run(shimmer, steady()))[0] == pytest.approx((0, 0, -1), abs=0.001)


def test_a_calibration_given_is_used_and_the_device_is_not_asked() -> None:
    shimmer = Shimmer(calibration=Calibration((1, 1, 1), (400, 400, 400), ((1, 0, 0), (0, 1, 0), (0, 0, 1))))
    assert b"\x1c" not in set_up(shimmer).heard
    assert in_g(run(shimmer, steady()))[0] == pytest.approx((0, 0, 4000 / 400 / 9.80665), abs=0.001)


def test_a_chip_named_wrongly_is_still_scaled_rightly() -> None:
    """Code 2 is +-8 g for one chip and +-4 g for the other; the calibration tells."""
    shimmer = Shimmer(LSM303DLHC, range_g=8)
    own = struct.pack(">6h9b", 0, 0, 0, 836, 836, 836, 0, -100, 0, 100, 0, 0, 0, 0, -100)
    set_up(shimmer, Firmware(calibration=own))
    messages = run(shimmer, steady(0, 0, 8198))
    assert {m.range_g for m in messages if isinstance(m, Samples)} == {4}
    assert in_g(messages)[0] == pytest.approx((0, 0, -1), abs=0.001)


@pytest.mark.parametrize(
    ("chip", "range_g", "one_g"),
    [(LSM303DLHC, 16, 1324), (LSM303DLHC, 2, 15995), (LSM303AH, 8, 4099), (LSM303AH, 16, 2050)],
)
def test_every_range_has_its_scale(chip: Accelerometer, range_g: int, one_g: int) -> None:
    shimmer = Shimmer(chip, range_g=range_g)
    set_up(shimmer, Firmware(calibration=b"\xff" * 21))
    messages = run(shimmer, steady(0, 0, -one_g))
    assert {m.range_g for m in messages if isinstance(m, Samples)} == {range_g}
    assert in_g(messages)[0] == pytest.approx((0, 0, 1), abs=0.001)


def test_a_value_at_the_end_of_the_range_is_told_as_clipped() -> None:
    shimmer = streaming()
    peak = [wide(i, (32752 if i == 4 else 0, 0, G_COUNTS)) for i in range(20)]
    messages = run(shimmer, b"".join(peak))
    flags = [m.flags for m in messages if isinstance(m, Samples)]
    assert flags == [WORN | CLIPPED, WORN]
    assert in_g(messages)[4][0] == -8.0


@pytest.mark.parametrize("wrong", [{"range_g": 3}, {"rate_hz": 5}, {"rate_hz": 1000}])
def test_what_no_shimmer_can_do_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"range|rate"):
        Shimmer(**wrong)
    with pytest.raises(ValueError, match="undone"):
        Calibration((0, 0, 0), (1, 0, 1), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


# -- set-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [0x08, 0x05, 0x43, 0x09, 0x1C, 0x72, 0x01, 0x07])
def test_a_command_whose_answer_was_lost_is_asked_again(command: int) -> None:
    shimmer = Shimmer()
    firmware = set_up(shimmer, Firmware(deaf=[command, command]))
    assert [heard[0] for heard in firmware.heard].count(command) >= 2
    assert len(indices(run(shimmer, b"".join(wide(i) for i in range(5))))) == 5
    assert shimmer.bad_answers == 2


def test_an_old_stream_is_stopped_before_anything_is_asked() -> None:
    shimmer = Shimmer()
    assert shimmer.opened() == [b"\x20"]
    for i in range(40):  # 0.8 s of packets full of octets that look like answers
        assert shimmer.feed(b"\0\xff\xff\xff" + b"\xff\x02" * 4, i / 50) == []
        assert shimmer.say(i / 50) == []
    assert shimmer.say(1.05) == [b"\x20"]  # it has not become silent: again
    assert shimmer.say(1.2) == []
    (asked,) = shimmer.say(1.4)
    assert asked[0] == 0x08


def test_a_range_or_rate_that_was_not_taken_is_set_again() -> None:
    for wrong in ({"config": 0}, {"ticks": 1000}, {"sensors": 0x80}):
        shimmer = Shimmer()
        firmware = Firmware()
        honest, once = firmware.answer, [wrong]

        def answer(command: bytes, f: Firmware = firmware, honest: Any = honest, once: Any = once) -> bytes:
            if command == b"\x01" and once:
                for name, value in once.pop().items():
                    setattr(f, name, value)
            return bytes(honest(command))

        firmware.answer = answer  # type: ignore[method-assign]
        set_up(shimmer, firmware)
        assert (shimmer.bad_answers, firmware.heard.count(b"\x01")) == (1, 2)


def test_a_stream_that_stops_is_set_up_anew_and_counts_as_another_boot() -> None:
    shimmer = streaming()
    before = run(shimmer, steady())
    assert shimmer.say(32.9) == []
    assert shimmer.say(33.1) == [b"\x20"]
    firmware = Firmware()
    now_s, sent = 33.1, [b"\x20"]
    while firmware.heard[-1:] != [b"\x07"]:
        for command in sent:
            shimmer.feed(firmware.answer(command), now_s)
        now_s += 0.1
        sent = shimmer.say(now_s)
        if sent == [b"\x07"]:
            shimmer.feed(firmware.answer(b"\x07"), now_s)
    after = run(shimmer, steady(begin=200))
    boots = [m.boot for m in before + after if isinstance(m, Samples)]
    assert boots == [1, 2]


def test_opening_the_link_again_is_another_boot() -> None:
    shimmer = streaming()
    first = run(shimmer, steady())
    set_up(shimmer)
    second = run(shimmer, steady(begin=9))
    assert [(m.boot, m.first) for m in first + second if isinstance(m, Samples)] == [(1, 0), (2, 0)]


# -- stream -------------------------------------------------------------------------------------


def test_lost_packets_are_holes_in_the_numbers() -> None:
    kept = [0, 1, 2, 5, 6, 30, 31, 32, 33]
    messages = run(streaming(), b"".join(wide(i) for i in kept))
    assert indices(messages) == kept
    assert [m.tick for m in messages if isinstance(m, Samples)] == [1_000_000 + i * PERIOD for i in (0, 5, 30)]


def test_the_clock_of_a_packet_wraps() -> None:
    begin = (1 << 24) - 5 * PERIOD - 100
    messages = run(streaming(), b"".join(wide(i, begin=begin) for i in range(20) if i != 6))
    assert indices(messages) == [i for i in range(20) if i != 6]
    assert [m.tick for m in messages if isinstance(m, Samples)] == [begin, begin + 7 * PERIOD]


def test_ticks_that_jitter_keep_their_numbers() -> None:
    jitter = (0, 30, -40, 70, -70, 5)
    stream = b"".join(packet(1000 + i * PERIOD + jitter[i % 6], 2750, 0, 0, 0) for i in range(600) if i % 50)
    assert indices(run(streaming(), stream)) == [i - 1 for i in range(600) if i % 50]


def test_eleven_minutes_keep_their_numbers() -> None:
    shimmer = streaming()
    messages: list[UplinkMessage] = []
    for i in range(0, 33_280, 10):
        messages += shimmer.feed(b"".join(wide(j, begin=77) for j in range(i, i + 10)), i / 51.2)
    last = [m for m in messages if isinstance(m, Samples)][-1]
    assert last.first + last.n >= 33_260
    assert last.tick == 77 + last.first * PERIOD
    assert sum(isinstance(m, Status) for m in messages) == 22


def test_what_the_device_pushes_between_packets_is_no_noise_and_its_dock_is_its_charger() -> None:
    shimmer = streaming()
    docked, undocked = b"\xff\x8a\x71\x13", b"\xff\x8a\x71\x12"
    battery = b"\xff\x8a\x94\x00\x0a\x40"
    parts = [wide(i) for i in range(60)]
    parts[13] = docked + parts[13]
    parts[20] = battery + parts[20]
    parts[39] = undocked + parts[39]
    messages = run(shimmer, b"\xff" + b"".join(parts))
    assert indices(messages) == list(range(60))
    assert [m.flags for m in messages if isinstance(m, Samples)] == [WORN, CHARGING, CHARGING, WORN, WORN]
    assert shimmer.bad_bytes == 0


def test_a_device_that_is_opened_in_its_dock_is_charging() -> None:
    shimmer, firmware = Shimmer(), Firmware()
    firmware.docked = 1
    set_up(shimmer, firmware)
    messages = run(shimmer, steady())
    assert {m.flags for m in messages if isinstance(m, Samples | Status)} == {CHARGING}


junk = st.binary(max_size=40) | st.lists(st.sampled_from([0, 0x8A, 0x71, 0xFF, 2]), max_size=40).map(bytes)


@given(noise=st.lists(st.tuples(st.integers(0, 59), junk), max_size=4), cuts=st.lists(st.integers(0, 900)))
def test_any_split_gives_the_same_messages(noise: list[tuple[int, bytes]], cuts: list[int]) -> None:
    parts = [wide(i) for i in range(60)]
    for at, octets in noise:
        parts[at] += octets
    stream = b"".join(parts)
    one, other = streaming(), streaming()
    assert run(one, stream, *cuts) == run(other, stream)
    assert one.bad_bytes == other.bad_bytes


@given(at=st.integers(5, 50), octets=junk, cut=st.integers(0, 11), begin=st.integers(0, (1 << 24) - 1))
@example(at=5, octets=bytes(11), cut=1, begin=0)  # looks like a packet of the stream's beginning
@example(at=5, octets=b"\x00\x15\xff" + bytes(8), cut=1, begin=0)  # and one of long before it
def test_noise_costs_what_it_touches_and_no_number_moves(at: int, octets: bytes, cut: int, begin: int) -> None:
    parts = [wide(i, (i * 16, -i * 16, G_COUNTS), begin=begin) for i in range(60)]
    parts[at] = parts[at][:cut] + octets
    messages = run(streaming(), b"".join(parts))
    got = dict(zip(indices(messages), in_g(messages), strict=True))
    assert set(range(60)) - set(got) <= {at - 1, at, at + 1, at + 2, at + 3}
    for i, xyz_g in got.items():
        if i != at:  # of which the end may be missing and the noise look like it
            assert xyz_g == pytest.approx((-i * 16 / 4001, -i * 16 / 4001, -1), abs=0.001)


@given(data=st.lists(st.binary(max_size=200), max_size=8), crc_on=st.booleans())
def test_nothing_that_comes_raises_and_nothing_piles_up(data: list[bytes], crc_on: bool) -> None:
    fresh = Shimmer(crc=crc_on)
    fresh.opened()
    for shimmer in (fresh, streaming()):
        for i, octets in enumerate(data):
            shimmer.feed(octets, 40.0 + i)
            shimmer.say(40.0 + i)
        shimmer.feed(b"\xff" * 500 + b"\0" * 500 + b"\xff\x02\xff" * 300, 60.0)
        assert len(shimmer._buf) < 300
        shimmer.lost()


def test_noise_that_looks_like_two_packets_is_none() -> None:
    parts = [wide(i) for i in range(60)]
    parts[20] += wide(9_000, (-9000, 9000, 0)) + wide(9_001, (-9000, 9000, 0))
    messages = run(streaming(), b"".join(parts))
    assert indices(messages) == [i for i in range(60) if i != 20]
    assert {m.boot for m in messages if isinstance(m, Samples)} == {1}


# -- CRC ----------------------------------------------------------------------------------------


def sealed(i: int) -> bytes:
    return wide(i) + crc(wide(i))


def test_with_a_crc_only_the_packet_that_is_damaged_is_lost() -> None:
    shimmer = Shimmer(crc=True)
    firmware = set_up(shimmer)
    assert firmware.heard[1] == b"\x8b\x02"
    parts = [sealed(i) for i in range(40)]
    parts[7] = parts[7][:6] + b"\x99" + parts[7][7:]
    status = b"\xff\x8a\x71\x13"
    parts[20] += status + crc(status)
    messages = run(shimmer, b"\xff" + crc(b"\xff") + b"".join(parts))
    assert indices(messages) == [i for i in range(40) if i != 7]
    assert shimmer.bad_bytes == len(parts[7])
    assert [m.flags for m in messages if isinstance(m, Samples)][-1] == CHARGING
