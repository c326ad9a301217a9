"""What receivers and wearables publish to the building's MQTT broker: sealed packets, messages, JSON.

`docs/mqtt.md`, "Wearables by MQTT", has the topics and formats. Whatever is none of them is counted and dropped.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from firmware_bridge.devices.clock import SampleClock
from firmware_bridge.wire import (
    CHARGING,
    CLIPPED,
    MAX_PACKET,
    MAX_SAMPLES,
    RANGES_G,
    TICK_HZ,
    WORN,
    Button,
    Hello,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
    WireError,
    decode_message,
    read_header,
)

MAX_OCTETS = 16384  # of one payload; also what the link asks the broker to keep to
MAX_RUN = 300  # samples in one JSON document: 6 s at 50 Hz
STATUS_EVERY_S = 30.0
_U32 = 1 << 32
_RECEIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEEDED = {"rate_hz", "range_g", "xyz_g"}
_ALLOWED = _NEEDED | {"boot", "first", "time_s", "worn", "charging", "battery_pct"}


@dataclass(frozen=True, slots=True)
class Heard:
    """A sealed packet, as one receiver heard it."""

    receiver: str
    uplink: Uplink


@dataclass(frozen=True, slots=True)
class Said:
    """What a wearable that cannot seal said; nothing but the broker's access list vouches for it."""

    wearable: str
    messages: tuple[UplinkMessage, ...]


def uplink_topic(home: str, receiver: str = "+") -> str:
    """Return where a receiver publishes what it hears; of all receivers, as a filter, when none is named."""
    return f"fallwatch/{home}/receiver/{receiver}/uplink"


def downlink_topic(home: str, receiver: str) -> str:
    """Return where a receiver is given packets for wearables."""
    return f"fallwatch/{home}/receiver/{receiver}/downlink"


def wearable_topics(home: str, wearable: str) -> tuple[str, str]:
    """Return where messages and JSON of a wearable that cannot seal are published."""
    return f"fallwatch/{home}/wearable/{wearable}/message", f"fallwatch/{home}/wearable/{wearable}/samples"


def receiver_of(home: str, topic: str) -> str | None:
    """Return the receiver whose uplink a topic is, if it is one."""
    levels = topic.split("/")
    if len(levels) != 5 or not _RECEIVER.fullmatch(levels[3]) or topic != uplink_topic(home, levels[3]):
        return None
    return levels[3]


class BrokerDecoder:
    """Turn what the broker passes on into packets and messages.

    ``wearables`` are those that the settings declare as fed without a seal; of others nothing unsealed is taken.
    """

    def __init__(self, home: str, wearables: Collection[str] = ()) -> None:
        self.bad_messages = 0  # in a topic of ours, yet not in its format
        self.bad_topics = 0  # no topic of ours, or of a wearable that is not declared
        self._home = home
        self._wearables = {
            topic: (wearable, parse)
            for wearable in wearables
            for topic, parse in zip(wearable_topics(home, wearable), (_parse_message, _Json().parse), strict=True)
        }

    def feed(self, topic: str, payload: bytes, received_s: float) -> Heard | Said | None:
        """Return what was published at the monotonic time ``received_s``; count and drop any other."""
        receiver = receiver_of(self._home, topic)
        declared = self._wearables.get(topic)
        if receiver is not None:
            return self._uplink(receiver, payload)
        if declared is None:
            self.bad_topics += 1
            return None
        wearable, parse = declared
        try:
            return Said(wearable, parse(payload, received_s))
        except (ValueError, RecursionError, WireError):
            self.bad_messages += 1
            return None

    def _uplink(self, receiver: str, payload: bytes) -> Heard | None:
        rssi_dbm, packet = int.from_bytes(payload[:1], "little", signed=True), payload[1:]
        try:
            read_header(packet)
        except WireError:
            self.bad_messages += 1
            return None
        return Heard(receiver, Uplink(rssi_dbm, packet))


def _parse_message(payload: bytes, _received_s: float) -> tuple[UplinkMessage, ...]:
    if not 0 < len(payload) <= MAX_PACKET:
        raise ValueError(f"{len(payload)} octets")
    message = decode_message(payload[0], payload[1:])
    if not isinstance(message, Samples | Status | Button | Hello):
        raise ValueError("nothing that is said without a seal")
    return (message,)


class _Json:
    """The documents of one wearable: numbers samples that come without, knows when its battery was told."""

    def __init__(self) -> None:
        self._numbering = SampleClock(1.0)
        self._as: tuple[int, int] | None = None  # rate and range it numbers for
        self._time_s: float | None = None  # of the document before
        self._told: tuple[int, float] | None = None  # battery, when
        self._began_s: float | None = None

    def parse(self, payload: bytes, received_s: float) -> tuple[UplinkMessage, ...]:
        """Return the messages of one document.

        Raises:
            ValueError, RecursionError: it is none.
        """
        said = _document(payload)
        rate_chz = round(100 * _number(said["rate_hz"], 1, 655))
        range_g = said["range_g"]
        if type(range_g) is not int or range_g not in RANGES_G:
            raise ValueError("range_g")
        xyz, clipped = _counts(said["xyz_g"], range_g)
        battery_pct = None if "battery_pct" not in said else round(_number(said["battery_pct"], 0, 100))
        # Who cannot feel skin leaves `worn` out, and is taken for worn: not worn would mean not watched.
        flags = WORN * _yes(said, "worn", True) | CHARGING * _yes(said, "charging", False)
        boot, first, tick = self._place(said, rate_chz, range_g, len(xyz) // 6, received_s)
        messages: list[UplinkMessage] = []
        for start in range(0, len(xyz) // 6, MAX_SAMPLES):
            piece = xyz[6 * start : 6 * (start + MAX_SAMPLES)]
            at = (first + start) % _U32, (tick + round(start * 100 * TICK_HZ / rate_chz)) % _U32
            messages.append(Samples(boot, at[1], at[0], rate_chz, range_g, flags | CLIPPED * clipped, piece))
        return (*messages, *self._status(battery_pct, flags, received_s))

    def _place(
        self, said: dict[str, Any], rate_chz: int, range_g: int, n: int, received_s: float
    ) -> tuple[int, int, int]:
        """Return boot, number and tick of the first sample: as the sender says, or else made here."""
        time_s = None if "time_s" not in said else _number(said["time_s"], 0, 1e11)
        if ("boot" in said) != ("first" in said):
            raise ValueError("boot and first go together")
        if "boot" in said:
            boot, first = _whole(said["boot"], 0xFFFF), _whole(said["first"], _U32 - 1)
            seconds = first * 100 / rate_chz if time_s is None else time_s
            return boot, first, round(seconds * TICK_HZ) % _U32
        if (rate_chz, range_g) != self._as:
            boot, self._as = self._numbering.boot, (rate_chz, range_g)
            self._numbering = SampleClock(rate_chz / 100)
            self._numbering.boot = boot
            self._numbering.restart()
        if time_s is not None and time_s == self._time_s:
            raise ValueError("the same document again")
        self._time_s = time_s
        last_s = received_s if time_s is None else time_s + (n - 1) * 100 / rate_chz
        first, tick = self._numbering.place(n, last_s)
        return self._numbering.boot, first, tick  # the boot that holds since then

    def _status(self, battery_pct: int | None, flags: int, received_s: float) -> list[Status]:
        """Return the battery when it is news, or was not told for `STATUS_EVERY_S`."""
        if self._began_s is None:
            self._began_s = received_s
        told = self._told
        if battery_pct is None or (
            told is not None and told[0] == battery_pct and received_s - told[1] < STATUS_EVERY_S
        ):
            return []
        self._told = battery_pct, received_s
        uptime_s = max(0, int(received_s - self._began_s)) % _U32  # since it was first heard: it says no more
        return [Status(battery_pct, battery_mv=0, temperature_c=0, flags=flags, uptime_s=uptime_s)]


def _document(payload: bytes) -> dict[str, Any]:
    """Return the object, with the keys it may have; what is too large or too deep is refused before it is read."""
    if len(payload) > MAX_OCTETS or payload.count(b"[") > MAX_RUN + 1 or payload.count(b"{") != 1:
        raise ValueError("too large or too deep")
    said = json.loads(payload.decode(), parse_constant=_no_number)
    # A misspelt key is refused: a `Worn` that goes unread would look like a wearable that is worn.
    if not isinstance(said, dict) or not _NEEDED <= said.keys() <= _ALLOWED:
        raise ValueError("no document of samples")
    return said


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no measurement")


def _number(value: object, least: float, most: float) -> float:
    """Return a number in its range, which neither NaN nor infinity nor a truth value is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError("no number in range")
    return float(value)


def _whole(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("no whole number in range")
    return value


def _yes(said: dict[str, Any], key: str, default: bool) -> bool:
    value = said.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(key)
    return value


def _counts(xyz_g: object, range_g: int) -> tuple[bytes, bool]:
    """Return int16 little-endian x y z, ``range_g / 32768`` g a count, and whether a value is clipped."""
    if not isinstance(xyz_g, list) or not 1 <= len(xyz_g) <= MAX_RUN:
        raise ValueError("xyz_g")
    values: list[int] = []
    for one in xyz_g:
        if not isinstance(one, list) or len(one) != 3:
            raise ValueError("a sample is x, y, z")
        # A reading beyond the range is cut to it below; the limit only keeps out what is no reading at all.
        values += (round(_number(value, -1e6, 1e6) * 32768 / range_g) for value in one)
    cut = [min(max(value, -32768), 32767) for value in values]
    return struct.pack(f"<{len(cut)}h", *cut), not -32768 < min(values) <= max(values) < 32767
