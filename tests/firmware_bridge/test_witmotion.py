from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.devices import Device
from firmware_bridge.devices.witmotion import (
    UNLOCK,
    WitMotionBle,
    WitMotionSerial,
    encode_ble,
    encode_ble_battery,
    encode_serial,
)
from firmware_bridge.wire import CLIPPED, WORN, Hello, Samples, Status, UplinkMessage

i16 = st.integers(-32768, 32767)
counts = st.lists(st.tuples(i16, i16, i16), min_size=1, max_size=40)
junk = st.binary(max_size=30).map(lambda data: data.replace(b"\x55", b"\x54"))


def played(device: Device, pieces: list[bytes]) -> list[UplinkMessage]:
    device.opened()
    return [m for i, piece in enumerate(pieces) for m in device.feed(piece, 100.0 + i)] + device.lost()


def xyz_of(messages: list[UplinkMessage]) -> bytes:
    return b"".join(m.xyz for m in messages if isinstance(m, Samples))


def test_a_serial_frame_of_the_data_sheet_is_one_sample() -> None:
    device = WitMotionSerial()
    assert device.opened() == [UNLOCK, bytes.fromhex("ffaa020200"), bytes.fromhex("ffaa030800")]
    assert device.feed(bytes.fromhex("5551000400000008E609A1"), 7.0) == []
    hello, samples = device.lost()
    assert isinstance(hello, Hello)
    assert (hello.range_g, hello.rate_hz) == (16, 50)
    assert isinstance(samples, Samples)
    assert samples.flags == WORN
    assert samples.xyz == bytes.fromhex("000400000008")  # 0.5, 0, 1 g


def test_a_bluetooth_frame_is_one_sample_and_a_battery_is_a_status() -> None:
    device = WitMotionBle()
    device.opened()
    device.feed(bytes.fromhex("5561000000000008") + bytes(12), 1.0)
    assert device.feed(encode_ble_battery(393), 1.1) == [Status(90, 3930, 0, WORN, 0)]
    assert xyz_of(device.lost()) == bytes.fromhex("000000000008")


def test_a_value_at_the_end_of_the_range_is_clipped() -> None:
    for value, flags in ((32766, WORN), (32767, WORN | CLIPPED), (-32768, WORN | CLIPPED)):
        samples = played(WitMotionSerial(), [encode_serial((0, value, 0))])[-1]
        assert isinstance(samples, Samples)
        assert samples.flags == flags


def test_other_serial_frames_are_passed_over_in_silence() -> None:
    device = WitMotionSerial()
    assert played(device, [encode_serial((1, 2, 3), kind=0x52) + encode_serial((1, 2, 3), kind=0x53)]) == []
    assert device.bad_bytes == 0


@given(samples=counts, noise=st.lists(junk, min_size=1, max_size=5), ble=st.booleans(), data=st.data())
def test_any_split_gives_the_same_messages_and_junk_costs_no_good_frame(
    samples: list[tuple[int, int, int]], noise: list[bytes], ble: bool, data: st.DataObject
) -> None:
    frames = [encode_ble(xyz) if ble else encode_serial(xyz) for xyz in samples]
    stream = b"".join(f + noise[i % len(noise)] for i, f in enumerate(frames))
    one, two = (WitMotionBle(), WitMotionBle()) if ble else (WitMotionSerial(), WitMotionSerial())
    one.opened(), two.opened()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole = one.feed(stream, 5.0) + one.lost()
    split = [m for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for m in two.feed(stream[a:b], 5.0)]
    assert split + two.lost() == whole
    assert one.bad_bytes == two.bad_bytes
    if not ble:
        assert xyz_of(whole) == b"".join(f[2:8] for f in frames)


@given(stream=st.binary(max_size=300), ble=st.booleans())
def test_junk_never_raises_and_the_buffer_stays_short(stream: bytes, ble: bool) -> None:
    device = WitMotionBle() if ble else WitMotionSerial()
    device.opened()
    for octet in stream:
        device.feed(bytes([octet]), 1.0)
        assert len(device._buf) <= 22
    device.lost()
