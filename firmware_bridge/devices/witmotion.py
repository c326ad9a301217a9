"""WitMotion inertial sensors, by serial line (11 octets with a sum) and by Bluetooth (20 octets without one).

Formats, registers and commands: data sheets WT901, BWT61CL, WT901BLECL. The battery's register and table are the
vendor's support's, as ESPHome's component has them. All have a range of 16 g: their counts are ours.
"""

from __future__ import annotations

import struct

from firmware_bridge.devices.clock import Batcher, SampleWriter
from firmware_bridge.wire import WORN, Status, UplinkMessage

# Not the Bluetooth base: the vendor writes 9a where that has 9b.
SERVICE = "0000ffe5-0000-1000-8000-00805f9a34fb"
DATA = "0000ffe4-0000-1000-8000-00805f9a34fb"  # notifies
CONTROL = "0000ffe9-0000-1000-8000-00805f9a34fb"  # takes commands

RANGE_G = 16
RATES_HZ = {1: 3, 2: 4, 5: 5, 10: 6, 20: 7, 50: 8, 100: 9, 200: 10}  # and their codes in the rate register
UNLOCK = bytes.fromhex("ffaa6988b5")  # registers may be set for 10 s
ACCELERATION_ONLY = bytes.fromhex("ffaa020200")  # 50 Hz of all frames would not fit a line of 9600 baud
BATTERY_EVERY_S = 300.0
READ_BATTERY = bytes.fromhex("ffaa276400")

_SERIAL_OCTETS, _BLE_OCTETS = 11, 20
_ACCELERATION = 0x51
_STREAM, _REGISTERS = 0x61, 0x71
_BATTERY_REGISTER = 0x64
_BATTERY_PCT = (
    *((397, 100), (393, 90), (387, 75), (382, 60), (379, 50), (377, 40)),
    *((373, 30), (370, 20), (368, 15), (350, 10), (340, 5)),
)  # from so many hundredths of a volt


def set_rate(rate_hz: int) -> bytes:
    """Return the command that sets the rate until power goes; it needs `UNLOCK` before it.

    Raises:
        ValueError: the device has no such rate.
    """
    if rate_hz not in RATES_HZ:
        raise ValueError(f"rate {rate_hz} Hz is none of {list(RATES_HZ)}")
    return bytes([0xFF, 0xAA, 0x03, RATES_HZ[rate_hz], 0])


class _WitMotion:
    """What both transports share: octets in, frames by `_take`, samples out."""

    def __init__(self, rate_hz: int = 50) -> None:
        self._rate = set_rate(rate_hz)
        self._batcher = Batcher(SampleWriter(rate_hz, RANGE_G))
        self._buf = bytearray()
        self._since_s: float | None = None  # the first octets since the link was opened
        self.bad_bytes = 0

    def lost(self) -> list[UplinkMessage]:
        """Return what was still being gathered."""
        self.bad_bytes += len(self._buf)
        self._buf.clear()
        return [*self._batcher.flush()]

    def say(self, now_s: float) -> list[bytes]:  # noqa: ARG002 - the interface has it
        """Return nothing: it is only told to begin."""
        return []

    def _begin(self) -> None:
        self._buf.clear()
        self._since_s = None
        self._batcher.restart()

    def _skip(self) -> None:
        del self._buf[:1]
        self.bad_bytes += 1


class WitMotionSerial(_WitMotion):
    """A WitMotion on a serial line."""

    def opened(self) -> list[bytes]:
        """Begin anew; return the commands that make it stream acceleration at its rate."""
        self._begin()
        return [UNLOCK, ACCELERATION_ONLY, self._rate]

    def feed(self, data: bytes, received_s: float, channel: str = "") -> list[UplinkMessage]:  # noqa: ARG002 - the interface has it
        """Take octets of the line; any split gives the same messages."""
        messages: list[UplinkMessage] = []
        buf = self._buf
        buf += data
        while len(buf) >= _SERIAL_OCTETS:
            if buf[0] != 0x55 or not 0x50 <= buf[1] <= 0x5F or sum(buf[:10]) & 0xFF != buf[10]:
                self._skip()
                continue
            if buf[1] == _ACCELERATION:
                messages += self._batcher.add(bytes(buf[2:8]), received_s)
            del buf[:_SERIAL_OCTETS]
        return messages


class WitMotionBle(_WitMotion):
    """A WitMotion by Bluetooth.

    No sum tells a good frame from junk: after junk, a frame counts only once the next one's head follows it.
    """

    def __init__(self, rate_hz: int = 50) -> None:
        super().__init__(rate_hz)
        self._in_step = True  # the octets so far ended with a frame
        self._asked_s: float | None = None  # when it was last asked for its battery

    def opened(self) -> list[bytes]:
        """Begin anew; return the commands that set the rate and ask for the battery."""
        self._begin()
        self._in_step, self._asked_s = True, None
        return [UNLOCK, self._rate]

    def say(self, now_s: float) -> list[bytes]:
        """Return the question for its battery, every five minutes."""
        if self._since_s is None or (self._asked_s is not None and now_s - self._asked_s < BATTERY_EVERY_S):
            return []
        self._asked_s = now_s
        return [READ_BATTERY]

    def feed(self, data: bytes, received_s: float, channel: str = "") -> list[UplinkMessage]:  # noqa: ARG002 - the interface has it
        """Take notifications; any split gives the same messages."""
        if self._since_s is None:
            self._since_s = received_s
        messages: list[UplinkMessage] = []
        buf = self._buf
        buf += data
        while len(buf) >= (_BLE_OCTETS if self._in_step else _BLE_OCTETS + 2):
            if not _is_head(buf, 0) or not (self._in_step or _is_head(buf, _BLE_OCTETS)):
                self._in_step = False
                self._skip()
                continue
            self._in_step = True
            if buf[1] == _STREAM:
                messages += self._batcher.add(bytes(buf[2:8]), received_s)
            elif buf[2] == _BATTERY_REGISTER:
                (hundredths_v,) = struct.unpack_from("<H", buf, 4)
                messages.append(_status(hundredths_v, int(received_s - self._since_s)))
            del buf[:_BLE_OCTETS]
        return messages


def _is_head(buf: bytearray, at: int) -> bool:
    return buf[at] == 0x55 and buf[at + 1] in (_STREAM, _REGISTERS)


def _status(hundredths_v: int, uptime_s: int) -> Status:
    pct = next((pct for at_least, pct in _BATTERY_PCT if hundredths_v >= at_least), 0)
    return Status(pct, min(10 * hundredths_v, 0xFFFF), 0, WORN, max(uptime_s, 0))  # it tells no temperature


def encode_serial(xyz: tuple[int, int, int], kind: int = _ACCELERATION, temperature: int = 0) -> bytes:
    """Return the serial frame of three counts."""
    frame = struct.pack("<BB4h", 0x55, kind, *xyz, temperature)
    return frame + bytes([sum(frame) & 0xFF])


def encode_ble(xyz: tuple[int, int, int]) -> bytes:
    """Return the Bluetooth frame of three counts; rotation and angles are 0."""
    return struct.pack("<BB9h", 0x55, _STREAM, *xyz, 0, 0, 0, 0, 0, 0)


def encode_ble_battery(hundredths_v: int) -> bytes:
    """Return the answer to `READ_BATTERY`."""
    return struct.pack("<BBHH14x", 0x55, _REGISTERS, _BATTERY_REGISTER, hundredths_v)
