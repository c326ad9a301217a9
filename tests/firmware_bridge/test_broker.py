from __future__ import annotations

import json
import struct
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.devices.broker import (
    MAX_OCTETS,
    MAX_RUN,
    BrokerDecoder,
    Heard,
    Said,
)
from firmware_bridge.session import Counters, Gateway
from firmware_bridge.wire import CHARGING, CLIPPED, WORN, Button, Proof, Samples, Status, Uplink, encode_message

# PROTOCOL.md, section 6: the STATUS packet of wearable 0042, counter 3.
KEY = bytes(range(16))
PACKET = bytes.fromhex("01033030343200000000030000004a5bda7975c398c6b9e9e4088ac60393 61".replace(" ", ""))
UPLINK = "fallwatch/site-7/receiver/room-12/uplink"
OTHER = "fallwatch/site-7/receiver/room-14/uplink"
MESSAGE = "fallwatch/site-7/wearable/W1/message"
SAMPLES = "fallwatch/site-7/wearable/W1/samples"


def decoder() -> BrokerDecoder:
    return BrokerDecoder("site-7", ["W1"])


def document(n: int = 25, **more: Any) -> bytes:
    return json.dumps({"rate_hz": 50, "range_g": 8, "xyz_g": [[0.5, -0.25, 1.0]] * n, **more}).encode()


def samples_of(said: Heard | Said | None) -> list[Samples]:
    assert isinstance(said, Said)
    return [message for message in said.messages if isinstance(message, Samples)]


def test_a_packet_that_a_receiver_heard_is_opened_by_the_session() -> None:
    heard = decoder().feed(UPLINK, b"\xc4" + PACKET, 1.0)
    assert heard == Heard("room-12", Uplink(-60, PACKET))
    gateway = Gateway(lambda _: None)
    gateway.add("0042", KEY, Counters())
    assert gateway.open(PACKET) == ("0042", Status(87, 4083, 30, WORN, 61))


def test_what_several_receivers_hear_is_no_interference() -> None:
    broker, gateway = decoder(), Gateway(lambda _: None)
    session = gateway.add("0042", KEY, Counters())
    for topic in (UPLINK, OTHER, OTHER.replace("14", "16")):
        if (heard := broker.feed(topic, b"\xc4" + PACKET, 1.0)) is not None:
            assert isinstance(heard, Heard)
            gateway.open(heard.uplink.packet, heard.receiver)
    assert (session.counts.opened, session.counts.stale, session.counts.echoes) == (1, 0, 2)


def test_a_replay_to_the_same_receiver_is_counted() -> None:
    broker, gateway = decoder(), Gateway(lambda _: None)
    session = gateway.add("0042", KEY, Counters())
    for _ in range(3):
        heard = broker.feed(UPLINK, b"\xc4" + PACKET, 1.0)
        assert isinstance(heard, Heard)
        gateway.open(heard.uplink.packet, heard.receiver)
    assert (session.counts.opened, session.counts.stale, session.counts.echoes) == (1, 2, 0)


def test_a_forged_packet_with_the_next_counter_does_not_keep_the_true_one_out() -> None:
    broker = decoder()
    forged = PACKET[:-1] + bytes([PACKET[-1] ^ 1])
    assert broker.feed(OTHER, b"\xc4" + forged, 1.0) == Heard("room-14", Uplink(-60, forged))
    assert broker.feed(UPLINK, b"\xc4" + PACKET, 1.0) == Heard("room-12", Uplink(-60, PACKET))


@pytest.mark.parametrize(
    "message",
    [
        Status(87, 4083, 30, WORN, 61),
        Button(3, 1, 2_000_000, 1500),
        Samples(3, 16384, 25, 5000, 16, WORN, bytes(6)),
    ],
)
def test_a_declared_wearable_may_speak_without_a_seal(message: Status | Button | Samples) -> None:
    type_, body = encode_message(message)
    assert decoder().feed(MESSAGE, bytes([type_]) + body, 1.0) == Said("W1", (message,))


def test_a_wearable_that_is_not_declared_is_not_heard_without_a_seal() -> None:
    broker = decoder()
    type_, body = encode_message(Button(3, 1, 0, 1500))
    assert broker.feed(MESSAGE.replace("W1", "W2"), bytes([type_]) + body, 1.0) is None
    assert broker.feed(SAMPLES.replace("W1", "W2"), document(), 1.0) is None
    assert broker.feed(MESSAGE.replace("site-7", "site-8"), bytes([type_]) + body, 1.0) is None
    assert (broker.bad_topics, broker.bad_messages) == (3, 0)


def test_a_proof_or_a_command_needs_its_seal() -> None:
    broker = decoder()
    type_, body = encode_message(Proof(bytes(8)))
    for payload in (bytes([type_]) + body, b"\x20\x05"):
        assert broker.feed(MESSAGE, payload, 1.0) is None
    assert broker.bad_messages == 2


def test_json_becomes_samples_and_battery() -> None:
    said = decoder().feed(SAMPLES, document(2, boot=3, first=250, worn=False, charging=True, battery_pct=87), 1.0)
    counts = struct.pack("<6h", *([2048, -1024, 4096] * 2))
    samples = Samples(3, 5 * 32768, 250, 5000, 8, CHARGING, counts)
    assert said == Said("W1", (samples, Status(87, 0, 0, CHARGING, 0)))


def test_a_long_document_becomes_several_messages_without_a_gap() -> None:
    parts = samples_of(decoder().feed(SAMPLES, document(MAX_RUN, boot=3, first=2**32 - 10), 1.0))
    assert [part.n for part in parts] == [30] * 10
    assert [part.first for part in parts] == [(2**32 - 10 + 30 * i) % 2**32 for i in range(10)]
    steps = {(after.tick - before.tick) % 2**32 for before, after in pairwise(parts)}
    assert steps <= {19660, 19661}  # 0.6 s


def test_a_wearable_that_cannot_feel_skin_is_taken_for_worn_and_a_peak_beyond_the_range_is_marked() -> None:
    (calm,) = samples_of(decoder().feed(SAMPLES, document(1), 1.0))
    (peak,) = samples_of(decoder().feed(SAMPLES, document(0).replace(b"[]", b"[[0, -9.5, 1e5]]"), 1.0))
    assert (calm.flags, peak.flags) == (WORN, WORN | CLIPPED)
    assert struct.unpack("<3h", peak.xyz) == (0, -32768, 32767)


def test_samples_without_numbers_are_numbered_by_the_senders_time() -> None:
    broker = decoder()
    times_s = [100.0, 100.5, 101.0, 103.0, 103.5, 2.0]  # a batch or three lost, then it started again
    parts = [samples_of(broker.feed(SAMPLES, document(time_s=t), 7.0 + i))[0] for i, t in enumerate(times_s)]
    assert [part.first for part in parts] == [0, 25, 50, 150, 175, 0]
    assert [part.tick for part in parts] == [round(t * 32768) % 2**32 for t in times_s]
    assert [(part.boot - parts[0].boot) % 65536 for part in parts] == [0, 0, 0, 0, 0, 1]


def test_samples_without_any_time_are_numbered_by_their_arrival() -> None:
    broker = decoder()
    arrivals_s = [10.0, 10.5, 11.3, 11.5, 12.0, 15.0]  # the third was held up; then samples were lost
    parts = [samples_of(broker.feed(SAMPLES, document(), t))[0] for t in arrivals_s]
    assert [part.first for part in parts[:5]] == [0, 25, 50, 75, 100]
    assert abs(parts[5].first - 250) <= 2  # how many were lost is told by the time alone, and one came late before
    assert all(after.boot == parts[0].boot for after in parts)


@given(rate_error=st.floats(-0.04, 0.04), jitter_s=st.lists(st.floats(0, 0.2), min_size=40, max_size=40))
@settings(max_examples=30)
def test_a_rate_a_little_off_and_late_messages_are_no_loss(rate_error: float, jitter_s: list[float]) -> None:
    broker = decoder()
    firsts = [
        samples_of(broker.feed(SAMPLES, document(), 10.0 + 0.5 * i * (1 + rate_error) + late_s))[0].first
        for i, late_s in enumerate(jitter_s)
    ]
    assert firsts == [25 * i for i in range(40)]


def test_another_rate_begins_anew() -> None:
    broker = decoder()
    (before,) = samples_of(broker.feed(SAMPLES, document(), 10.0))
    (after,) = samples_of(broker.feed(SAMPLES, document(rate_hz=100), 10.25))
    assert after.boot == before.boot + 1
    assert (after.first, after.rate_hz) == (0, 100.0)


def test_the_same_document_twice_is_taken_once() -> None:
    broker = decoder()
    assert broker.feed(SAMPLES, document(time_s=5.0), 10.0) is not None
    assert broker.feed(SAMPLES, document(time_s=5.0), 10.1) is None


def test_the_battery_is_told_when_it_is_news_and_every_half_minute() -> None:
    broker = decoder()
    told = []
    for at_s, pct in [(0.0, 87), (0.5, 87), (1.0, 86), (30.0, 86), (31.5, 86)]:
        said = broker.feed(SAMPLES, document(battery_pct=pct), at_s)
        assert isinstance(said, Said)
        told += [at_s for message in said.messages if isinstance(message, Status)]
    assert told == [0.0, 1.0, 31.5]


BAD = [
    b"", b"{}", b"[]", b"null", b"\xff", b"[" * 1000, b"{" * 5000, b"[" * MAX_OCTETS, b" " * (MAX_OCTETS + 1),
    document(0), document(MAX_RUN + 1), document(boot=3), document(first=3), document(boot=-1, first=0),
    document(boot=3.0, first=0), document(boot=True, first=0), document(boot=65536, first=0),
    document(boot=0, first=2**32), document(Worn=False), document(worn=1), document(worn="no"),
    document(charging=None), document(battery_pct=101), document(battery_pct="87"), document(time_s=-1),
    document(time_s=float("nan")), document(time_s=float("inf")), document(rate_hz=0), document(rate_hz="50"),
    document(rate_hz=True), document(rate_hz=1e9), document(range_g=3), document(range_g=8.0),
    document(range_g=[8]),
    document(xyz_g=[[0, 0]]), document(xyz_g=[[0, 0, 0, 0]]), document(xyz_g=[[0, 0, float("nan")]]),
    document(xyz_g=[[0, 0, "1"]]), document(xyz_g=[[0, 0, True]]), document(xyz_g=[[0, 0, None]]),
    document(xyz_g=[[0, 0, 1e7]]), document(xyz_g={"x": 1}), document(xyz_g="xyz"), document(xyz_g=[1, 2, 3]),
    document(xyz_g=[[0, 0, 7]]).replace(b"7", b"1e999"), document(xyz_g=[[0, 0, 7]]).replace(b"7", b"7" * 4000),
    document(xyz_g=[[0, 0, 7]]).replace(b"7", b"7" * 9000), document().decode().encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("payload", BAD, ids=range(len(BAD)))
def test_anything_else_is_counted_and_the_next_good_document_is_taken(payload: bytes) -> None:
    broker = decoder()
    assert broker.feed(SAMPLES, payload, 1.0) is None
    assert broker.bad_messages == 1
    assert samples_of(broker.feed(SAMPLES, document(), 1.5))[0].first == 0


@pytest.mark.parametrize(
    "payload", [b"", b"\xc4", b"\xc4" + bytes(22), b"\xc4" + PACKET[:21], b"\xc4" + PACKET * 9]
)
def test_an_uplink_that_is_no_packet_is_counted(payload: bytes) -> None:
    broker = decoder()
    assert broker.feed(UPLINK, payload, 1.0) is None
    assert broker.bad_messages == 1


@given(
    topic=st.sampled_from([UPLINK, OTHER, MESSAGE, SAMPLES]) | st.text(max_size=60),
    payload=st.binary(max_size=300)
    | st.builds(lambda head, body: bytes([head]) + body, st.integers(0, 255), st.binary(max_size=200))
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["rate_hz", "range_g", "xyz_g", "boot", "first", "time_s"]), inner)
        ),
    ).map(lambda said: json.dumps(said).encode()),
    received_s=st.floats(0, 1e9),
)
def test_nothing_published_raises(topic: str, payload: bytes, received_s: float) -> None:
    broker = decoder()
    said = broker.feed(topic, payload, received_s)
    assert (said is None) == (broker.bad_topics + broker.bad_messages == 1)


@given(
    xyz=st.lists(st.tuples(*[st.floats(-8, 7.9997)] * 3), min_size=1, max_size=80),
    first=st.integers(0, 2**32 - 1),
    boot=st.integers(0, 65535),
)
def test_samples_are_what_was_measured_to_half_a_count(
    xyz: list[tuple[float, ...]], first: int, boot: int
) -> None:
    parts = samples_of(decoder().feed(SAMPLES, document(xyz_g=xyz, boot=boot, first=first), 1.0))
    counts = struct.iter_unpack("<3h", b"".join(part.xyz for part in parts))
    for counted, measured in zip(counts, xyz, strict=True):
        assert [count * 8 / 32768 for count in counted] == pytest.approx(measured, abs=0.5 * 8 / 32768 + 1e-9)


def test_a_flood_of_documents_does_not_grow_what_is_kept() -> None:
    broker = decoder()
    for i in range(500):
        broker.feed(SAMPLES, document(1, time_s=float(i)), float(i))
        broker.feed(f"fallwatch/site-7/wearable/{i}/samples", document(1), float(i))
    assert len(broker._wearables) == 2
    assert sum(map(sys.getsizeof, vars(broker).values())) < 10_000
