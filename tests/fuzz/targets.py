"""One target per decoder: what a fuzzer feeds it, and what must hold whatever that is.

The first octets of an input say how the rest is used, so that the fuzzer also gets past checksums and seals.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cobs import cobs  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from edge.checked import SettingsError
from edge.core.camera import CameraJudge
from edge.core.seen import FEATURES, parse_seen
from edge.core.supervision import Cause
from edge.detect.pipeline import Pipeline
from edge.recording import RecordingUnreadable, read_recording
from edge.settings import load_settings
from firmware_bridge.devices import Device, broker, polar, shimmer, witmotion
from firmware_bridge.session import Counters, Gateway, GatewaySession, WearableCounters, WearableSession
from firmware_bridge.wire import (
    HEADER,
    MAX_FRAME,
    MAX_SAMPLES,
    Button,
    DongleAsk,
    DongleHello,
    DongleStatus,
    Downlink,
    Frame,
    FrameDecoder,
    Hello,
    Identify,
    Message,
    Proof,
    Prove,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
    WireError,
    decode_message,
    encode_frame,
    encode_message,
)
from models.card import Card, Decision
from models.preprocess import Accel
from models.scorer import Scorer

WEARABLE, KEY, OTHER_KEY = "0042", bytes(range(16)), bytes(16)
XYZ = struct.pack("<75h", *range(-1000, 1250, 30))
MESSAGES: tuple[Message, ...] = (
    Samples(1, 32768, 50, 5000, 8, 1, XYZ),
    Hello(1, (1, 0, 0), 0, 16, 5000),
    Status(87, 4083, 30, 1, 61),
    Button(1, 1, 99, 1500),
    Proof(b"8 octets"),
    Prove(b"8 octets"),
    Identify(5),
)
WORKSHOP = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"fallwatch-fuzz-{os.getpid()}"


@dataclass(frozen=True)
class Target:
    """A decoder: ``try_one`` raises when it breaks a promise; ``seeds`` are good inputs to begin with."""

    try_one: Callable[[bytes], None]
    seeds: Sequence[bytes]
    longest: int = 4096  # octets of an input


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Cut the input after its first octet where that octet says."""
    rest = data[1:]
    at = len(rest) * data[0] // 256 if data else 0
    return rest[:at], rest[at:]


# --- our own wire ------------------------------------------------------------------------------------------


def _closed(pieces: bytes) -> bytes:
    """Return a line on which each piece between two zeros has a right sum and is coded right."""
    frames = [piece[: MAX_FRAME - 2] for piece in pieces.split(b"\0\0\0") if piece]
    sums = [crc_hqx(piece, 0xFFFF).to_bytes(2, "little") for piece in frames]
    return b"".join(cobs.encode(piece + crc) + b"\0" for piece, crc in zip(frames, sums, strict=True))


def frames(data: bytes) -> None:
    mode, data = data[:1], data[1:]
    line = data[:1] + _closed(data[1:]) if mode > b"\x7f" else data
    whole, split = FrameDecoder(), FrameDecoder()
    first, second = _cut(line)
    heard: list[Frame] = whole.feed(first + second)
    again = split.feed(first)
    assert len(split._rest) <= MAX_FRAME + 1, "the buffer holds more than a frame"
    again += split.feed(second)
    assert (heard, whole.bad_frames, whole.bad_bytes) == (again, split.bad_frames, split.bad_bytes), (
        "a split tells"
    )
    assert len(whole._rest) <= MAX_FRAME + 1, "the buffer holds more than a frame"
    runs = (first + second).split(b"\0")
    assert all(encode_frame(frame)[:-1] in runs for frame in heard), "a frame that nobody sends was taken"


def sealed(data: bytes) -> None:
    """Whatever is done to packets without the key, none is taken; with it, each once."""
    gateway = Gateway(lambda _: None)
    session = gateway.add(WEARABLE, KEY, Counters())
    device = WearableSession(WEARABLE, KEY, WearableCounters(), save=lambda _: None)
    true = [device.seal(message) for message in MESSAGES[:5]]  # type: ignore[arg-type]
    mode, which, rest = data[:1], int.from_bytes(data[1:2], "little"), data[2:]
    packet = true[which % len(true)]
    match int.from_bytes(mode, "little") % 5:
        case 0:  # anything
            packet = rest
        case 1:  # anything, under a header that is ours
            packet = HEADER.pack(1, which, WEARABLE.encode().ljust(8, b"\0"), 7) + rest
        case 2:  # changed
            changes = rest[: len(packet)].ljust(len(packet), b"\0")
            if not any(changes):
                return
            packet = bytes(a ^ b for a, b in zip(packet, changes, strict=True))
        case 3:  # sealed with another key
            packet = _sealed(OTHER_KEY, which, 9, rest)
        case _:  # sealed with the key, whatever is in it: taken once, and only what it says
            _taken_once(session, which, rest)
            return
    assert gateway.open(packet) is None, "taken without the key"
    assert session.counts.opened == session.counts.malformed == 0, "taken without the key"
    assert [gateway.open(good) is not None for good in true] == [True] * len(true), (
        "forgery keeps the true one out"
    )


def _sealed(key: bytes, type_: int, counter: int, body: bytes) -> bytes:
    header = HEADER.pack(1, type_, WEARABLE.encode().ljust(8, b"\0"), counter)
    return header + AESCCM(key, tag_length=8).encrypt(b"\x01" + header[2:], body, header)


def _taken_once(session: GatewaySession, type_: int, body: bytes) -> None:
    packet = _sealed(KEY, type_, 9, body)
    message = session.open(packet)
    if message is not None:
        assert encode_message(message) == (type_, body), "another message than was sealed"
    assert session.open(packet) is None, "taken twice"


def messages(data: bytes) -> None:
    type_, body = int.from_bytes(data[:1], "little"), data[1:]
    try:
        message = decode_message(type_, body)
    except WireError:
        return
    assert encode_message(message) == (type_, body), "it does not come back as it was"


# --- bought wearables --------------------------------------------------------------------------------------


def _check(said: Sequence[UplinkMessage]) -> None:
    for message in said:
        type_, body = encode_message(message)
        assert decode_message(type_, body) == message, "a device says what our wire cannot"


def _split_alike(make: Callable[[], Device], data: bytes, channel: str = "") -> None:
    first, second = _cut(data)
    whole, split = make(), make()
    said = whole.feed(first + second, 9.0, channel)
    pieces = split.feed(first, 9.0, channel) + split.feed(second, 9.0, channel)
    assert (said, whole.bad_bytes) == (pieces, split.bad_bytes), "a split tells"
    assert len(getattr(whole, "_buf", b"")) <= 600, "the buffer grows"
    rest = whole.lost()
    assert rest == split.lost(), "a split tells"
    _check(said + rest)


def wit_serial(data: bytes) -> None:
    mode, data = data[:1], data[1:]
    if mode > b"\x7f":  # with right sums
        frames = [data[1:][i : i + 10] for i in range(0, len(data), 10)]
        data = data[:1] + b"".join(frame + bytes([sum(frame) & 0xFF]) for frame in frames)
    _split_alike(_opened(witmotion.WitMotionSerial), data)


def wit_ble(data: bytes) -> None:
    _split_alike(_opened(witmotion.WitMotionBle), data)


def _opened(make: Callable[[], Device]) -> Callable[[], Device]:
    def opened() -> Device:
        device = make()
        device.opened()
        return device

    return opened


def polar_frames(data: bytes) -> None:
    """Notifications, each with its channel and length before it."""
    device = _opened(polar.Polar)()
    channels = (polar.DATA, polar.CONTROL, polar.BATTERY, "")
    while data:
        channel, length = channels[data[0] & 3], data[0] >> 2
        said = device.feed(data[1 : 1 + 4 * length], 9.0, channel)
        _check(said)
        assert sum(message.n for message in said if isinstance(message, Samples)) <= 86 * 255
        data = data[1 + 4 * length :]
    polar.settings(data)


def _streaming() -> Device:
    """Return a Shimmer whose set-up is through: it was answered as its firmware does."""
    device = shimmer.Shimmer(rate_hz=51.2)
    device.opened()
    device.say(0.0)
    now_s, answers = 1.0, 0
    while (due := device.say(now_s)) and answers < 20:
        answers += 1
        answer = b"\xff"
        match due[0][0]:
            case shimmer.GET_STATUS:
                answer += bytes([shimmer.IN_STREAM, shimmer.STATUS_ANSWER, 0])
            case shimmer.INQUIRY:
                answer += struct.pack("<BHBBBBBBB", shimmer.INQUIRY_ANSWER, 640, 2 << 2, 0, 0, 0, 4, 1, 3)
                answer += bytes([4, 5, 6])
            case 0x1C:
                answer += b"\x1b" + struct.pack(
                    ">6h9b", 0, 0, 0, 408, 408, 408, *(-100, 0, 0, 0, 100, 0, 0, 0, -100)
                )
        device.feed(answer, now_s)
        now_s += 0.01
    assert device._streams, "the set-up of this target is out of date"
    return device


def shimmer_line(data: bytes) -> None:
    """The answers of its set-up, or its stream."""
    mode, data = data[:1], data[1:]

    def asked() -> Device:
        device = shimmer.Shimmer(rate_hz=51.2, crc=mode > b"\xbf")
        device.opened()
        device.say(0.0)
        device.say(1.0)
        return device

    _split_alike(_streaming if mode < b"\x80" else asked, data)


def broker_payload(data: bytes) -> None:
    """Messages, JSON and packets in their topics, one after the other."""
    topics = (*broker.wearable_topics("home", WEARABLE), broker.uplink_topic("home", "room-1"), "fallwatch/else")
    decoder, now_s = broker.BrokerDecoder("home", [WEARABLE]), 100.0
    if not data:
        return
    topic = topics[data[0] & 3]
    for payload in data[1:].split(b"\xff\xff"):
        now_s += 0.5
        heard = decoder.feed(topic, payload, now_s)
        if isinstance(heard, broker.Said):
            assert heard.wearable == WEARABLE
            _check(heard.messages)
            samples = [message for message in heard.messages if isinstance(message, Samples)]
            assert sum(message.n for message in samples) <= broker.MAX_RUN
            if topic == topics[0]:
                [message] = heard.messages
                assert encode_message(message) == (payload[0], payload[1:])
        elif heard is not None:
            assert heard.uplink.packet == payload[1:]
    assert decoder.bad_messages + decoder.bad_topics <= data.count(b"\xff\xff") + 1


# --- all that may come out of them -------------------------------------------------------------------------


class _Peak(Scorer):
    """As light a model as can be: the peak of a window."""

    def __init__(self) -> None:
        decision = Decision(
            threshold=0.5, confirm_windows=2, suspect_threshold=0.4, weigh_s=3.0, refractory_s=10.0
        )
        self.card = Card("peak", "wrist", 32.0, 160, 16, 16.0, decision, "", {})

    def score(self, windows: Accel) -> np.ndarray:
        peak_g = np.sqrt((windows.astype(np.float32) ** 2).sum(axis=2)).max(axis=1)
        return np.asarray(1 / (1 + np.exp(3.0 - peak_g)), np.float32)


_SCORER = _Peak()
_SAYS = struct.Struct("<BBHHIIHBB")


def pipeline(data: bytes) -> None:
    """Authentic samples of any number, time, rate and range: a wearable gone mad stops nobody."""
    line = Pipeline(
        Gateway(lambda _: None),
        {WEARABLE: _SCORER},
        unsealed=[WEARABLE],
        feels_nothing=[WEARABLE] * (data[:1] > b"\x7f"),
    )
    wearer, now_s = line.wearers[WEARABLE], 1000.0
    for at in range(1, len(data) - _SAYS.size + 1, _SAYS.size):
        n, pause, boot, rate_chz, tick, first, value, range_code, flags = _SAYS.unpack_from(data, at)
        now_s += pause / 64
        xyz = struct.pack("<3H", value, first & 0xFFFF, tick & 0xFFFF) * (n % MAX_SAMPLES + 1)
        said = Samples(boot & 1, tick, first, max(rate_chz, 1), 2 << range_code % 4, flags & 15, xyz)
        for news in line.on_messages([(WEARABLE, said, -60)], now_s) + line.on_timer(now_s + pause / 8):
            assert np.isfinite(news.impact_at_s), "a fall at no time"  # type: ignore[union-attr]
        assert wearer.sensor.cause() is None or isinstance(wearer.sensor.cause(), Cause)
        assert wearer.backlog_s < 10.0, "it waits to be scored and waits"
        assert len(wearer.timeline._waiting) <= 2, "batches wait and wait"


# --- files -------------------------------------------------------------------------------------------------


def _file(data: bytes, name: str) -> Path:
    WORKSHOP.mkdir(exist_ok=True)
    path = WORKSHOP / name
    path.write_bytes(data)
    return path


def csv(data: bytes) -> None:
    _recording(data[2:] if data[:2] in (b"MD", b"AX") else data)


def cwa(data: bytes) -> None:
    """A file of blocks; the first octet says whether the fuzzer's blocks get right sums."""
    mode, data = data[:1], data[1:]
    if mode > b"\x7f":
        at = 1024 * (data[:2] == b"MD")
        blocks = [data[i : i + 510].ljust(510, b"\0") for i in range(at, len(data), 512)]
        data = data[:at] + b"".join(_with_sum(block) for block in blocks)
    _recording(b"AX" + data[2:] if data[:2] not in (b"MD", b"AX") else data)


def _with_sum(block: bytes) -> bytes:
    total: int = sum(struct.unpack("<255H", block))
    return block + (-total & 0xFFFF).to_bytes(2, "little")


def _recording(data: bytes) -> None:
    try:
        read = read_recording(_file(data, "recording"))
    except RecordingUnreadable:
        return
    end_s = -1.0
    for run in read.runs:
        assert run.t_s.shape == (len(run.accel_g),)
        assert run.accel_g.shape == (len(run.t_s), 3)
        assert np.isfinite(run.t_s).all()
        assert np.isfinite(run.accel_g).all()
        assert (np.diff(run.t_s) >= 0).all(), "time steps back"
        assert run.t_s[0] >= end_s, "runs overlap"
        end_s = float(run.t_s[-1])
    assert np.isfinite(read.duration_s)
    assert read.bad_rows >= 0
    assert np.isfinite(read.measured_rate_hz)


def seen(data: bytes) -> None:
    """What an eye says, line by line: read as it was written, or refused; and whatever is read can be judged."""
    judge = CameraJudge(None)
    for line in data.split(b"\n"):
        try:
            first = parse_seen(line.decode("utf-8", "replace"))
        except ValueError:
            continue
        again = parse_seen(first.to_line())
        assert parse_seen(again.to_line()) == again, "a line is not read as it was written"
        assert all(len(person.features) == len(FEATURES) for person in first.people)
        if 0 <= first.time_s < 1e9:
            for found in judge.observe(first):
                assert np.isfinite(found.impact_s)
    judge.on_silence()


def settings(data: bytes) -> None:
    with contextlib.suppress(SettingsError):
        load_settings(_file(data, "fallwatch.toml"))


# --- what to begin with ------------------------------------------------------------------------------------

_ENCODED = [bytes([type_]) + body for type_, body in map(encode_message, MESSAGES)]
_PACKET = _sealed(KEY, 2, 9, _ENCODED[0][1:])
_LINE: list[Frame] = [
    DongleHello(1, (1, 0, 0), b"12345678"),
    DongleStatus(1000, 2, 0),
    Uplink(-60, _PACKET),
    Downlink(_PACKET),
    DongleAsk(),
]
_JSON = json.dumps({"rate_hz": 50, "range_g": 8, "xyz_g": [[0.1, -0.2, 0.98]] * 25, "battery_pct": 80}).encode()
_CSV = b"# placement: wrist\n# rate_hz: 50\ntime_s,x_g,y_g,z_g\n" + b"".join(
    b"%.2f,0.01,-0.02,%.3f\n" % (i / 50, 1 + i % 7 / 100) for i in range(60)
)
_CWA_HEAD = struct.pack(
    "<2sHHIII", b"AX", 508, 0x8000, 7, 0, 26 << 26 | 11 << 22 | 28 << 17 | 12 << 12
) + struct.pack("<HHBBBBhH", 100, 300, 0, 200, 0x4A, 0x32, 0, 80)
_CWA = b"".join((_CWA_HEAD + struct.pack("<240h", *([0, 0, 256] * 80)))[:510] + b"\0\0" for _ in range(2))
_TOML = b"""[home]
id = "site-7"
timezone = "Europe/London"
[[dongle]]
port = "/dev/ttyACM0"
[[resident]]
id = "r12"
room = "12"
wearable = "0042"
placement = "wrist"
[[pager]]
kind = "espa444"
port = "/dev/ttyUSB1"
[escalation]
groups = ["12", "20"]
steps_s = [120, 240]
[mqtt]
host = "localhost"
"""
_SHIMMER = b"".join(
    b"\0" + (640 * i).to_bytes(3, "little") + struct.pack("<4h", 2750, 0, 0, 4001) for i in range(1, 40)
)
_POLAR = polar.encode_acc(2_000_000_000, [(10, -20, 990)] * 19)
_POLAR_SEED = bytes([(len(_POLAR) // 4) << 2]) + _POLAR[: len(_POLAR) // 4 * 4]
_ANSWER = polar.encode_answer(2, parameters=b"\x05\x01\x02\x79\x7f\x39")
_SAID = b"".join(_SAYS.pack(24, 32, 1, 5000, 16384 * i, 25 * i, 4096 + i, 2, 1) for i in range(20))

_SEEN = b'[1%02d.5, [[1, 0.3, 0.2, 0.0, 1.6, 0.5, 1.0, 0.5, 0.0, 0.0, 0.9, 90.0]], 0.91, "camera too slow"]'
TARGETS = {
    "frames": Target(
        frames,
        [b"\0\x80" + b"".join(map(encode_frame, _LINE)), b"\xff\x80\x10\xc4" + _PACKET + b"\0\0\0\x21"],
    ),
    "sealed": Target(
        sealed,
        [
            b"\0\0" + _sealed(OTHER_KEY, 2, 9, _ENCODED[0][1:]),
            b"\1\2" + bytes(30),
            b"\2\0" + bytes(20) + b"\1",
            b"\3\3" + bytes(10),
        ]
        + [bytes([4]) + one for one in _ENCODED],
        512,
    ),
    "messages": Target(messages, _ENCODED, 512),
    "witmotion": Target(
        wit_serial,
        [
            b"\0\x80" + witmotion.encode_serial((1, 2, 2048)) * 20,
            b"\xff\x80" + bytes.fromhex("5551" + "00" * 8) * 9,
        ],
    ),
    "witmotion-ble": Target(
        wit_ble, [b"\x80" + witmotion.encode_ble((1, 2, 2048)) * 20 + witmotion.encode_ble_battery(390)]
    ),
    "polar": Target(
        polar_frames, [_POLAR_SEED * 4, bytes([1 | 4 << 2]) + _ANSWER.ljust(16, b"\0") + _POLAR_SEED, b"\x06\x50"]
    ),
    "shimmer": Target(
        shimmer_line, [b"\0\x80" + _SHIMMER, b"\x80\x80" + b"\xff" * 40, b"\xc0\x80" + b"\xff" * 40], 700
    ),
    "broker": Target(
        broker_payload,
        [b"\1" + _JSON + b"\xff\xff" + _JSON, b"\2\xc4" + _PACKET] + [b"\0" + one for one in _ENCODED],
        16384,
    ),
    "pipeline": Target(pipeline, [b"\0" + _SAID, b"\xff" + _SAID], 400),
    "cwa": Target(cwa, [b"\xff" + _CWA, b"\0" + _CWA, b"\xff" + b"MD".ljust(1024, b"\xff") + _CWA]),
    "csv": Target(
        csv, [_CSV, _CSV.replace(b"\n", b"\r\n"), b"time_s,x_g,y_g,z_g\n0,nan,0,1\n1e9,0,0,1\n-5,0,0,1\n"]
    ),
    "seen": Target(seen, [b"\n".join([_SEEN % i for i in range(0, 100, 20)]), b'[1e999, [["1"]], NaN, "x"]']),
    "settings": Target(settings, [_TOML, b"[home]\nid = 7\n"]),
}
