"""Polar H10 and Verity Sense: acceleration by the PMD service, battery by the standard one.

Formats, settings, error numbers, and that a frame's time is its last sample's: the vendor's open SDK and its
tests. Bluetooth keeps notifications whole: one is one frame, never split.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from firmware_bridge.devices.clock import SampleWriter
from firmware_bridge.wire import CHARGING, WORN, Status, UplinkMessage

SERVICE = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"  # takes commands, indicates answers
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"  # notifies
BATTERY_SERVICE = "0000180f-0000-1000-8000-00805f9b34fb"
BATTERY = "00002a19-0000-1000-8000-00805f9b34fb"  # one octet, per cent

ERRORS = (
    *("success", "invalid op code", "invalid measurement type", "not supported", "invalid length"),
    *("invalid parameter", "already in state", "invalid resolution", "invalid sample rate", "invalid range"),
    *("invalid MTU", "invalid number of channels", "invalid state", "device in charger", "disk full"),
)
GET_SETTINGS = b"\x01\x02"
STOP_ACC = b"\x03\x02"
H10_RATES_HZ = (25, 50, 100, 200)
VERITY_CHANNELS = 3
START_SDK_MODE = b"\x02\x09"  # opens the Verity Sense's other rates and ranges

_ACC, _COMPRESSED = 2, 0x80
_ANSWER, _STOPPED, _START = 0xF0, 0x01, 0x02
_IN_CHARGER = 13
_SETTING_OCTETS = {0: 2, 1: 2, 2: 2, 3: 4, 4: 1, 5: 4}  # rate, resolution, range, milli-range, channels, factor
_FACTOR = 5
_HEAD = struct.Struct("<BQB")  # measurement, ns, frame type
_GAP_S = 0.1  # its own clock does not jitter: a shorter gap than by arrival is a lost frame


def start_acc(rate_hz: int, range_g: int, channels: int | None = None) -> bytes:
    """Return the command that starts acceleration at 16 bit.

    The Verity Sense is said to want its 3 ``channels`` named; that was not tried on one.
    """
    command = struct.pack("<BBBBHBBHBBH", _START, _ACC, 0, 1, rate_hz, 1, 1, 16, 2, 1, range_g)
    return command if channels is None else command + bytes([4, 1, channels])


class Polar:
    """One Polar sensor; ``control_error`` names the last command's refusal."""

    def __init__(
        self, rate_hz: int = 50, range_g: int = 8, channels: int | None = None, *, sdk_mode: bool = False
    ) -> None:
        self._start = [START_SDK_MODE] if sdk_mode else []
        self._start += [start_acc(rate_hz, range_g, channels)]
        self._range_g = range_g
        self._writer = SampleWriter(rate_hz, range_g, _GAP_S)
        self._factor: float | None = None
        self._since_s: float | None = None
        self._flags = WORN
        self._pct: int | None = None
        self.control_error: str | None = None
        self.bad_bytes = 0

    def opened(self) -> list[bytes]:
        """Begin anew; return the commands for `CONTROL` that make it stream."""
        self._writer.restart()
        self._factor = self._since_s = self.control_error = self._pct = None
        self._flags = WORN
        return list(self._start)

    def lost(self) -> list[UplinkMessage]:
        """Return nothing: frames are passed on at once."""
        return []

    def say(self, now_s: float) -> list[bytes]:  # noqa: ARG002 - the interface has it
        """Return nothing: it is only told to begin."""
        return []

    def feed(self, data: bytes, received_s: float, channel: str = "") -> list[UplinkMessage]:
        """Take one notification of the characteristic ``channel``: `DATA`, `CONTROL` or `BATTERY`."""
        if self._since_s is None:
            self._since_s = received_s
        channel = channel.lower()
        if channel == BATTERY and len(data) == 1 and data[0] <= 100:
            self._pct = data[0]
            return self._status(received_s)
        if channel == CONTROL and self._take_answer(data):
            return self._status(received_s)
        if channel == DATA:
            samples = self._counts(data)
            if samples:
                return [*self._writer.write(samples, _HEAD.unpack_from(data)[1] * 1e-9, self._flags)]
        if channel != CONTROL:
            self.bad_bytes += len(data)
        return []

    def _status(self, received_s: float) -> list[UplinkMessage]:
        if self._pct is None or self._since_s is None:
            return []
        return [Status(self._pct, 0, 0, self._flags, max(int(received_s - self._since_s), 0))]

    def _take_answer(self, data: bytes) -> bool:
        """Take an answer or a word of the device's own; return whether it changed what is known of charging."""
        before = self._flags
        if data[:1] == bytes([_STOPPED]) and _ACC in data[1:]:
            self.control_error = "stopped by the device"
        elif len(data) >= 4 and data[0] == _ANSWER:
            op, measurement, error = data[1:4]
            if error:
                self.control_error = ERRORS[error] if error < len(ERRORS) else f"error {error}"
                if error == _IN_CHARGER:
                    self._flags |= CHARGING
            elif (op, measurement) == (_START, _ACC):
                self.control_error = None
                self._flags &= ~CHARGING
                factor = settings(data[5:]).get(_FACTOR)
                if factor:
                    self._factor = float(struct.unpack("<f", factor[0].to_bytes(4, "little"))[0])
        else:
            self.bad_bytes += len(data)
        return self._flags != before

    def _counts(self, data: bytes) -> bytes | None:
        """Return the samples of a data frame as int16 little-endian x y z, or nothing if it is no such frame."""
        if len(data) <= _HEAD.size or data[0] != _ACC:
            return None
        kind = data[9]
        raw = _compressed(data[10:]) if kind & _COMPRESSED else _plain(data[10:], kind)
        if raw is None:
            return None
        if kind == _COMPRESSED:  # type 0: g by the factor; all others: mg
            factor = self._factor if _usable(self._factor, 1.0) else self._range_g / 32768
            mg = 1000 * (factor or 0.0)
        elif kind == _COMPRESSED | 1:
            mg = self._factor if self._factor and _usable(self._factor, 1000.0) else 1.0
        elif kind in (0, 1, 2):
            mg = 1.0
        else:
            return None
        scale = mg * 32.768 / self._range_g
        end = min(32767, (1000 * self._range_g - 1) / mg) if kind != 2 else 1000 * self._range_g - 1
        counts = [
            round(min(max(value * scale, -32768), 32767)) if -end < value < end else 32767 if value > 0 else -32768
            for value in raw
        ]
        return struct.pack(f"<{len(counts)}h", *counts)


def _usable(factor: float | None, most: float) -> bool:
    return factor is not None and 1e-6 < factor < most  # never true of a NaN


def _plain(body: bytes, kind: int) -> list[int] | None:
    octets = kind + 1  # types 0, 1, 2 have 8, 16, 24 bits
    if octets > 3 or len(body) % (3 * octets):
        return None
    if octets == 2:
        return list(struct.unpack(f"<{len(body) // 2}h", body))
    return [int.from_bytes(body[i : i + octets], "little", signed=True) for i in range(0, len(body), octets)]


def _compressed(body: bytes) -> list[int] | None:
    """Return the values of a reference sample and the blocks of differences that follow it: bits, count, data."""
    if len(body) < 6:
        return None
    x, y, z = struct.unpack_from("<hhh", body)
    values = [x, y, z]
    at = 6
    while at < len(body):
        if at + 2 > len(body):
            return None
        bits, count = body[at], body[at + 1]
        end = at + 2 + (3 * bits * count + 7) // 8
        if not 1 <= bits <= 17 or end > len(body):  # 17 bits hold any difference of two int16
            return None
        packed, at = int.from_bytes(body[at + 2 : end], "little"), end
        mask, sign = (1 << bits) - 1, 1 << bits - 1
        for shift in range(0, 3 * bits * count, bits):
            values.append(values[-3] + (((packed >> shift & mask) ^ sign) - sign))
    return values


def settings(parameters: bytes) -> dict[int, list[int]]:
    """Return the values by setting: 0 rate, 1 resolution, 2 range, 4 channels, 5 factor; no cut-off ones."""
    found: dict[int, list[int]] = {}
    at = 0
    while at + 2 <= len(parameters) and parameters[at] in _SETTING_OCTETS:
        octets, end = _SETTING_OCTETS[parameters[at]], at + 2
        end += octets * parameters[at + 1]
        if end > len(parameters):
            break
        values = [int.from_bytes(parameters[i : i + octets], "little") for i in range(at + 2, end, octets)]
        found[parameters[at]] = values
        at = end
    return found


def encode_acc(last_ns: int, mg: Sequence[tuple[int, int, int]]) -> bytes:
    """Return the uncompressed data frame of type 1 that ends with the sample taken at ``last_ns``."""
    return _HEAD.pack(_ACC, last_ns, 1) + b"".join(struct.pack("<hhh", *xyz) for xyz in mg)


def encode_answer(op: int, error: int = 0, parameters: bytes = b"") -> bytes:
    """Return the control point's answer to command ``op`` for acceleration."""
    return bytes([_ANSWER, op, _ACC, error]) + (b"" if error else b"\0" + parameters)
