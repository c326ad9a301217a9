"""Bytes to frames to messages and back, as `PROTOCOL.md` has them; opens nothing, keeps no keys.

Two layers: a *frame* travels between dongle and Pi (COBS, CRC-16); a *message* travels between wearable and
Pi inside a sealed *packet* that the dongle passes on unread (`firmware_bridge.session` seals and opens it).
"""

from __future__ import annotations

import re
import struct
from binascii import crc_hqx
from dataclasses import dataclass

from cobs import cobs  # type: ignore[import-untyped]

VERSION = 1
TICK_HZ = 32768  # a wearable's clock; u32 ticks wrap after 36 h
RANGES_G = (2, 4, 8, 16)
MAX_SAMPLES = 30  # in one packet
MAX_FRAME = 250  # octets of a decoded frame: COBS then adds one octet, never two
MIC_OCTETS = 8
HEADER = struct.Struct("<BB8sI")  # version, type, wearable, counter
MAX_PACKET = MAX_FRAME - 4  # kind, rssi, crc
MIN_PACKET = HEADER.size + MIC_OCTETS

WORN, CHARGING, BUTTON_HELD, CLIPPED = 1, 2, 4, 8  # bits of the flags octet
_ALL_FLAGS = WORN | CHARGING | BUTTON_HELD | CLIPPED
_WEARABLE = re.compile(r"[A-Za-z0-9-]{1,8}")


class FirmwareBridgeError(Exception):
    """Base of all errors of this package."""


class WireError(FirmwareBridgeError):
    """Octets that are no message or packet of this protocol version."""


def _need(ok: bool, what: str) -> None:
    if not ok:
        raise ValueError(what)


# --- messages: what a sealed packet holds -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """A wearable introduces itself: at start, every 60 s, and after a proof."""

    boot: int  # counts restarts, wraps
    firmware: tuple[int, int, int]
    hardware: int
    range_g: int
    rate_chz: int  # hundredths of a hertz
    tick_hz: int = TICK_HZ
    last_command: int = 0  # highest counter of a command it has taken

    def __post_init__(self) -> None:
        _need(self.range_g in RANGES_G, f"range {self.range_g} g")
        _need(self.rate_chz > 0, "rate 0")
        _need(self.tick_hz > 0, "tick rate 0")

    @property
    def rate_hz(self) -> float:
        """Nominal sample rate."""
        return self.rate_chz / 100


@dataclass(frozen=True, slots=True)
class Samples:
    """A gap-free run of accelerations; ``xyz`` holds int16 little-endian x y z, ``range_g / 32768`` g a count."""

    boot: int
    tick: int  # device clock at the first sample, wraps
    first: int  # index of the first sample since boot
    rate_chz: int
    range_g: int
    flags: int
    xyz: bytes

    def __post_init__(self) -> None:
        n, rest = divmod(len(self.xyz), 6)
        _need(rest == 0 and 1 <= n <= MAX_SAMPLES, f"{len(self.xyz)} octets of samples")
        _need(self.range_g in RANGES_G, f"range {self.range_g} g")
        _need(self.rate_chz > 0, "rate 0")
        _need(self.flags & ~_ALL_FLAGS == 0, f"flags {self.flags:#x}")

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.xyz) // 6

    @property
    def rate_hz(self) -> float:
        """Nominal sample rate."""
        return self.rate_chz / 100

    @property
    def worn(self) -> bool:
        """Whether the wearable feels skin."""
        return bool(self.flags & WORN)

    @property
    def charging(self) -> bool:
        """Whether it is on its charger."""
        return bool(self.flags & CHARGING)

    @property
    def clipped(self) -> bool:
        """Whether a value in this run lies at the end of the range: the true peak is higher."""
        return bool(self.flags & CLIPPED)


@dataclass(frozen=True, slots=True)
class Status:
    """Battery and wear of one wearable, every 30 s."""

    battery_pct: int
    battery_mv: int
    temperature_c: int
    flags: int
    uptime_s: int

    def __post_init__(self) -> None:
        _need(0 <= self.battery_pct <= 100, f"battery {self.battery_pct} %")
        _need(self.flags & ~_ALL_FLAGS == 0, f"flags {self.flags:#x}")

    @property
    def worn(self) -> bool:
        """Whether the wearable feels skin."""
        return bool(self.flags & WORN)

    @property
    def charging(self) -> bool:
        """Whether it is on its charger."""
        return bool(self.flags & CHARGING)


@dataclass(frozen=True, slots=True)
class Button:
    """The help button was pressed; repeated every second, each time sealed anew, until acknowledged."""

    boot: int
    press: int  # counts presses since boot: boot and press name one press
    tick: int  # device clock at the press, wraps
    held_ms: int


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer to `Prove`: the same eight octets."""

    challenge: bytes

    def __post_init__(self) -> None:
        _need(len(self.challenge) == 8, f"challenge of {len(self.challenge)} octets")


@dataclass(frozen=True, slots=True)
class Identify:
    """Vibrate and blink for so long, to find a wearable in a drawer."""

    seconds: int = 5


@dataclass(frozen=True, slots=True)
class AcknowledgeButton:
    """The press reached the Pi's disk: stop repeating it."""

    boot: int
    press: int


@dataclass(frozen=True, slots=True)
class Prove:
    """Answer with a `Proof` now: tells a live wearable from a recording of it."""

    challenge: bytes

    def __post_init__(self) -> None:
        _need(len(self.challenge) == 8, f"challenge of {len(self.challenge)} octets")


@dataclass(frozen=True, slots=True)
class Configure:
    """Sample at another rate or range; the wearable answers with a `Hello`."""

    rate_chz: int
    range_g: int

    def __post_init__(self) -> None:
        _need(self.range_g in RANGES_G, f"range {self.range_g} g")
        _need(self.rate_chz > 0, "rate 0")


@dataclass(frozen=True, slots=True)
class Reassure:
    """The alarm was passed on to staff: let the wearer feel it."""


UplinkMessage = Hello | Samples | Status | Button | Proof
Command = Identify | AcknowledgeButton | Prove | Configure | Reassure
Message = UplinkMessage | Command

TYPE_HELLO, TYPE_SAMPLES, TYPE_STATUS, TYPE_BUTTON, TYPE_PROOF, TYPE_COMMAND = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20

_HELLO = struct.Struct("<H3BBBHII")
_SAMPLES = struct.Struct("<HIIHBBB")
_STATUS = struct.Struct("<BHbBI")
_BUTTON = struct.Struct("<HHIH")
_CHALLENGE = struct.Struct("<8s")
_IDENTIFY = struct.Struct("<BB")
_ACKNOWLEDGE = struct.Struct("<BHH")
_PROVE = struct.Struct("<B8s")
_CONFIGURE = struct.Struct("<BHB")
_REASSURE = struct.Struct("<B")


def encode_message(message: Message) -> tuple[int, bytes]:
    """Return the message's packet type and body.

    Raises:
        ValueError: a field does not fit its place.
    """
    try:
        match message:
            case Samples():
                head = _SAMPLES.pack(
                    message.boot,
                    message.tick,
                    message.first,
                    message.rate_chz,
                    message.range_g,
                    message.flags,
                    message.n,
                )
                return TYPE_SAMPLES, head + message.xyz
            case Hello():
                return TYPE_HELLO, _HELLO.pack(
                    message.boot,
                    *message.firmware,
                    message.hardware,
                    message.range_g,
                    message.rate_chz,
                    message.tick_hz,
                    message.last_command,
                )
            case Status():
                return TYPE_STATUS, _STATUS.pack(
                    message.battery_pct,
                    message.battery_mv,
                    message.temperature_c,
                    message.flags,
                    message.uptime_s,
                )
            case Button():
                return TYPE_BUTTON, _BUTTON.pack(message.boot, message.press, message.tick, message.held_ms)
            case Proof():
                return TYPE_PROOF, _CHALLENGE.pack(message.challenge)
            case Identify():
                return TYPE_COMMAND, _IDENTIFY.pack(1, message.seconds)
            case AcknowledgeButton():
                return TYPE_COMMAND, _ACKNOWLEDGE.pack(2, message.boot, message.press)
            case Prove():
                return TYPE_COMMAND, _PROVE.pack(3, message.challenge)
            case Configure():
                return TYPE_COMMAND, _CONFIGURE.pack(4, message.rate_chz, message.range_g)
            case Reassure():
                return TYPE_COMMAND, _REASSURE.pack(5)
    except struct.error as error:
        raise ValueError(f"{type(message).__name__}: {error}") from None


def decode_message(type_: int, body: bytes) -> Message:
    """Return the message of an opened packet.

    Raises:
        WireError: unknown type, wrong length, or a value outside its range.
    """
    try:
        if type_ == TYPE_SAMPLES:
            boot, tick, first, rate_chz, range_g, flags, n = _SAMPLES.unpack_from(body)
            xyz = body[_SAMPLES.size :]
            _need(len(xyz) == 6 * n, f"{len(xyz)} octets for {n} samples")
            return Samples(boot, tick, first, rate_chz, range_g, flags, xyz)
        if type_ == TYPE_HELLO:
            boot, major, minor, patch, *rest = _HELLO.unpack(body)
            return Hello(boot, (major, minor, patch), *rest)
        if type_ == TYPE_STATUS:
            return Status(*_STATUS.unpack(body))
        if type_ == TYPE_BUTTON:
            return Button(*_BUTTON.unpack(body))
        if type_ == TYPE_PROOF:
            return Proof(*_CHALLENGE.unpack(body))
        if type_ == TYPE_COMMAND:
            return _decode_command(body)
    except (struct.error, ValueError) as error:
        raise WireError(f"type {type_:#04x}: {error}") from None
    raise WireError(f"type {type_:#04x} is unknown")


def _decode_command(body: bytes) -> Command:
    match body[:1]:
        case b"\x01":
            return Identify(_IDENTIFY.unpack(body)[1])
        case b"\x02":
            return AcknowledgeButton(*_ACKNOWLEDGE.unpack(body)[1:])
        case b"\x03":
            return Prove(_PROVE.unpack(body)[1])
        case b"\x04":
            return Configure(*_CONFIGURE.unpack(body)[1:])
        case b"\x05":
            _REASSURE.unpack(body)
            return Reassure()
        case action:
            raise ValueError(f"command {action.hex() or 'without an action'} is unknown")


# --- packets: the clear header of a sealed message --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """What anybody may read of a sealed packet; authenticated, not secret."""

    type: int
    wearable: str
    counter: int


def pack_wearable(wearable: str) -> bytes:
    """Return the id's eight octets.

    Raises:
        ValueError: no wearable has such an id.
    """
    _need(bool(_WEARABLE.fullmatch(wearable)), f"{wearable!r} is no wearable id")
    return wearable.encode("ascii").ljust(8, b"\0")


def read_header(packet: bytes) -> PacketHeader:
    """Return the clear header of a sealed packet; nothing in it is proved until the packet is opened.

    Raises:
        WireError: another version, a length no packet has, or no wearable's id.
    """
    if not MIN_PACKET <= len(packet) <= MAX_PACKET:
        raise WireError(f"packet of {len(packet)} octets")
    version, type_, raw, counter = HEADER.unpack_from(packet)
    if version != VERSION:
        raise WireError(f"packet of version {version}; this is {VERSION}")
    wearable = raw.rstrip(b"\0").decode("ascii", "replace")
    if not _WEARABLE.fullmatch(wearable):
        raise WireError("packet without a wearable's id")
    return PacketHeader(type_, wearable, counter)


# --- frames: between dongle and Pi ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DongleHello:
    """The dongle introduces itself: at start, and when asked."""

    version: int
    firmware: tuple[int, int, int]
    serial: bytes  # 8 octets

    def __post_init__(self) -> None:
        _need(len(self.serial) == 8, f"serial number of {len(self.serial)} octets")


@dataclass(frozen=True, slots=True)
class DongleStatus:
    """The dongle lives: once a second."""

    uptime_ms: int
    frames_received: int  # packets heard on the radio
    frames_dropped: int  # of those, not passed on because the Pi did not read


@dataclass(frozen=True, slots=True)
class Uplink:
    """A sealed packet from a wearable."""

    rssi_dbm: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class Downlink:
    """A sealed packet for a wearable."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class DongleAsk:
    """Say hello."""


Frame = DongleHello | DongleStatus | Uplink | Downlink | DongleAsk

KIND_DONGLE_HELLO, KIND_DONGLE_STATUS, KIND_UPLINK, KIND_DOWNLINK, KIND_DONGLE_ASK = 0x01, 0x02, 0x10, 0x20, 0x21

_DONGLE_HELLO = struct.Struct("<B3B8s")
_DONGLE_STATUS = struct.Struct("<III")


def encode_frame(frame: Frame) -> bytes:
    """Return the frame as it goes over the line, with its closing zero.

    Raises:
        ValueError: a field does not fit its place.
    """
    try:
        match frame:
            case Uplink():
                data = struct.pack("<Bb", KIND_UPLINK, frame.rssi_dbm) + frame.packet
            case Downlink():
                data = bytes([KIND_DOWNLINK]) + frame.packet
            case DongleStatus():
                data = bytes([KIND_DONGLE_STATUS]) + _DONGLE_STATUS.pack(
                    frame.uptime_ms, frame.frames_received, frame.frames_dropped
                )
            case DongleHello():
                data = bytes([KIND_DONGLE_HELLO]) + _DONGLE_HELLO.pack(
                    frame.version, *frame.firmware, frame.serial
                )
            case DongleAsk():
                data = bytes([KIND_DONGLE_ASK])
    except struct.error as error:
        raise ValueError(f"{type(frame).__name__}: {error}") from None
    data += crc_hqx(data, 0xFFFF).to_bytes(2, "little")
    _need(len(data) <= MAX_FRAME, f"frame of {len(data)} octets")
    encoded: bytes = cobs.encode(data)
    return encoded + b"\0"


def _decode_frame(data: bytes) -> Frame:
    kind = data[0]
    if kind == KIND_UPLINK:
        _need(MIN_PACKET <= len(data) - 4 <= MAX_PACKET, "no packet")
        rssi = data[1]
        return Uplink(rssi - 256 if rssi > 127 else rssi, data[2:-2])
    body = data[1:-2]
    if kind == KIND_DONGLE_STATUS:
        return DongleStatus(*_DONGLE_STATUS.unpack(body))
    if kind == KIND_DONGLE_HELLO:
        version, major, minor, patch, serial = _DONGLE_HELLO.unpack(body)
        return DongleHello(version, (major, minor, patch), serial)
    if kind == KIND_DOWNLINK:
        _need(MIN_PACKET <= len(body) <= MAX_PACKET, "no packet")
        return Downlink(body)
    _need(kind == KIND_DONGLE_ASK and not body, "no frame")
    return DongleAsk()


class FrameDecoder:
    """Turn line bytes into frames; any split of a stream gives the same frames.

    Garbage costs at most the frames it touches. ``bad_frames`` counts runs between two zeros that were no
    frame, ``bad_bytes`` their octets. The buffer never holds more than one frame.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._overrun = False  # inside a run too long for a frame
        self.bad_frames = 0
        self.bad_bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the line, any number; return the frames they complete."""
        *runs, self._rest = (self._rest + data).split(b"\0")
        frames: list[Frame] = []
        for run in runs:
            if self._overrun:
                self._overrun = False
            elif not run:
                continue
            else:
                frame = _frame_of(run)
                if frame is not None:
                    frames.append(frame)
                    continue
            self.bad_frames += 1
            self.bad_bytes += len(run)
        if len(self._rest) > MAX_FRAME + 1 or (self._overrun and self._rest):
            self.bad_bytes += len(self._rest)
            self._rest = b""
            self._overrun = True
        return frames


def _frame_of(run: bytes) -> Frame | None:
    if not 4 <= len(run) <= MAX_FRAME + 1:
        return None
    try:
        data: bytes = cobs.decode(run)
        if len(data) < 3 or crc_hqx(data[:-2], 0xFFFF) != int.from_bytes(data[-2:], "little"):
            return None
        return _decode_frame(data)
    except (cobs.DecodeError, struct.error, ValueError):
        return None
