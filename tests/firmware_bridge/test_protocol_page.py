from __future__ import annotations

import re
from pathlib import Path

import pytest

import firmware_bridge
from firmware_bridge import wire
from firmware_bridge.session import Counters, GatewaySession, WearableCounters, WearableSession
from firmware_bridge.wire import Downlink, FrameDecoder, Uplink, decode_message, encode_frame, encode_message

PAGE = (Path(firmware_bridge.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")
EXAMPLES = [
    dict(line.split(": ", 1) for line in block.strip().splitlines())
    for block in re.findall(r"```example\n(.*?)```", PAGE, re.DOTALL)
]
SEALED = [example for example in EXAMPLES if "packet" in example]


def name(example: dict[str, str]) -> str:
    return example["content"].split("(")[0]


@pytest.mark.parametrize("example", SEALED, ids=name)
def test_the_page_and_the_codec_seal_alike(example: dict[str, str]) -> None:
    key, counter, wearable = bytes.fromhex(example["key"]), int(example["counter"]), example["wearable"]
    packet, plaintext = bytes.fromhex(example["packet"]), bytes.fromhex(example["plaintext"])
    message = decode_message(packet[1], plaintext)
    assert repr(message) == example["content"]
    assert encode_message(message) == (packet[1], plaintext)
    device = WearableSession(wearable, key, WearableCounters(uplink=counter - 1), save=lambda _: None)
    pi = GatewaySession(wearable, key, Counters(downlink=counter - 1), reserve=lambda: True)
    if example["direction"] == "up":
        assert device.seal(message) == packet  # type: ignore[arg-type]
        assert pi.open(packet) == message
    else:
        assert pi.seal(message) == packet  # type: ignore[arg-type]
        assert device.open(packet) == message


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_the_page_and_the_codec_frame_alike(example: dict[str, str]) -> None:
    line = bytes.fromhex(example["frame"])
    [frame] = FrameDecoder().feed(line)
    assert encode_frame(frame) == line
    if "packet" not in example:
        assert repr(frame) == example["content"]
    elif example["direction"] == "up":
        assert frame == Uplink(int(example["rssi_dbm"]), bytes.fromhex(example["packet"]))
    else:
        assert frame == Downlink(bytes.fromhex(example["packet"]))


def test_the_page_shows_every_message_and_frame() -> None:
    shown = {name(example) for example in EXAMPLES}
    kinds = {t.__name__ for t in (*wire.Message.__args__, *wire.Frame.__args__)}
    assert kinds - shown == {"Uplink", "Downlink"}  # shown around every packet


@pytest.mark.parametrize("message", ["HELLO", "SAMPLES", "STATUS", "BUTTON"])
def test_the_pages_tables_have_no_holes_and_sum_up(message: str) -> None:
    section = PAGE.split(f" {message}**, ", 1)[1].split("**", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\d+)? ?(?:n|6 n)? ?\| ([^|]+) \| (\w+) \|", section, re.MULTILINE)
    at = 0
    for offset, octets, type_, _field in rows:
        assert int(offset) == at
        if octets and type_ != "i16":
            count, _, unit = type_.rpartition(" x ")
            assert int(octets) == int(count or 1) * {"u8": 1, "i8": 1, "u16": 2, "u32": 4}[unit.strip()]
            at += int(octets)
    example = next(e for e in SEALED if name(e) == message.capitalize())
    length = len(bytes.fromhex(example["plaintext"]))
    assert length == at + (18 if message == "SAMPLES" else 0)
    assert section.startswith(f"{at} + 6 n octets" if message == "SAMPLES" else f"{at} octets")


def test_the_page_counts_the_octets_right() -> None:
    samples = wire.Samples(1, 0, 0, 5000, 16, 1, bytes(6 * 25))
    packet = WearableSession("0042", bytes(16), WearableCounters(), save=lambda _: None).seal(samples)
    line = encode_frame(Uplink(-60, packet))
    assert f"packet {len(packet)}, frame {len(packet) + 4}, on the line {len(line)} with COBS" in PAGE
    assert (len(packet), len(line)) == (187, 193)
    fast = wire.Samples(1, 0, 0, 20000, 16, 1, bytes(6 * 30))
    packet = WearableSession("0042", bytes(16), WearableCounters(), save=lambda _: None).seal(fast)
    assert f"{len(encode_frame(Uplink(-60, packet)))} octets on the line, 6.7 times a second" in PAGE
