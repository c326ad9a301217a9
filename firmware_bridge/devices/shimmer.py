"""Shimmer3 with LogAndStream firmware, over the serial line of its Bluetooth (SPP).

Facts are from the firmware's and the vendor's own sources and from pyshimmer (names of both in the comments). Not
tried on a device. Assumed: LogAndStream 0.6 or newer (timestamps of 24 bits); the strap is worn unless the device
stands in its dock, as it feels no skin. Shimmer3R answers an inquiry otherwise and is not read.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firmware_bridge.wire import CHARGING, CLIPPED, MAX_SAMPLES, TICK_HZ, WORN, Samples, Status, UplinkMessage

BAUD = 115200
STANDARD_GRAVITY = 9.80665
ANSWER_S = 1.0  # a command is answered within some ms; after this, all begins anew
QUIET_S = 0.3  # so long silent after a stop: nothing of an old stream is on its way
STALL_S = 3.0  # so long no packet although it should stream
BATCH_S = 0.25
STATUS_S = 30.0

DATA, ACK, IN_STREAM = 0x00, 0xFF, 0x8A
INQUIRY, INQUIRY_ANSWER = 0x01, 0x02
SET_RATE, START, STOP, SET_SENSORS, SET_CRC = 0x05, 0x07, 0x20, 0x08, 0x8B
SET_WIDE_RANGE, SET_WIDE_RATE, SET_WIDE_LOW_POWER, SET_WIDE_HIGH_RESOLUTION = 0x09, 0x40, 0x43, 0x46
GET_STATUS, STATUS_ANSWER, BATTERY_ANSWER = 0x72, 0x71, 0x94
BATTERY_SENSOR, BATTERY_CHANNEL = 0x2000, 0x03
DOCKED, SENSING, STREAMING = 0x01, 0x02, 0x10  # bits of the status

_TICKS = 1 << 24  # the clock of a packet wraps after 512 s
_PROOF_PACKETS = 3  # in step with each other: noise full of 00 and FF looks like two packets now and then
_MOST_PERIODS = 100  # from one packet to the next; below 256, where a stream read one octet off looks in step
_OCTETS = {0x1B: 3, 0x1D: 1, 0x1E: 3, 0x1F: 3, 0x20: 1, 0x21: 3, 0x22: 3}  # of a channel; all others have 2
_CHANNELS = range(0x29)
# Rest of a charge by voltage, from the Shimmer user manual, rev 3p, page 53; straight lines between.
_BATTERY = (
    *((3200, 0), (3627, 6), (3663, 14), (3699, 22), (3735, 33), (3757, 41), (3789, 49)),
    *((3811, 57), (3861, 65), (3908, 73), (3969, 81), (4041, 89), (4113, 96), (4167, 100)),
)

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How counts become m/s^2: inverse of ``alignment`` times (counts - ``offset``) / ``sensitivity``."""

    offset: Vector  # counts
    sensitivity: Vector  # counts per m/s^2
    alignment: Matrix  # rows; sensor axes in those of the case

    def __post_init__(self) -> None:
        if not all(self.sensitivity) or abs(_determinant(self.alignment)) < 0.1:
            raise ValueError("a calibration that cannot be undone")

    def matrix(self) -> Matrix:
        """Return rows that turn (counts - offset) into g."""
        a, b, c = self.alignment
        det = _determinant(self.alignment)
        columns = (_cross(b, c), _cross(c, a), _cross(a, b))  # of the inverse, times det
        scale = [1 / (det * k * STANDARD_GRAVITY) for k in self.sensitivity]
        x, y, z = (tuple(columns[j][i] * scale[j] for j in range(3)) for i in range(3))
        return x, y, z  # type: ignore[return-value]  # three of three


@dataclass(frozen=True, slots=True)
class Accelerometer:
    """One of the accelerometers that a Shimmer3 may have, with the vendor's defaults."""

    sensor: int  # bit of SET_SENSORS
    channels: tuple[int, int, int]
    ask_calibration: int  # command; its answer is the octet before
    offset: float
    alignment: Matrix
    sensitivity: Mapping[int, float]  # by range in g
    codes: Mapping[int, int]  # of SET_WIDE_RANGE, by range in g; empty: one range alone
    rate_code: int  # of SET_WIDE_RATE: 200 Hz inside, so never slower than the stream
    ends: tuple[int, int]  # counts at and beyond which it is clipped


_FLIPPED: Matrix = ((0, -1, 0), (-1, 0, 0), (0, 0, -1))
_WIDE = (0x1000, (0x04, 0x05, 0x06), 0x1C, 0.0)
# The wide-range chip: LSM303DLHC in older devices (to SR47), LSM303AH in newer ones; 12 and 14 bits, left-aligned.
LSM303DLHC = Accelerometer(
    *_WIDE,
    alignment=((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    sensitivity={2: 1631, 4: 815, 8: 408, 16: 135},
    codes={2: 0, 4: 1, 8: 2, 16: 3},
    rate_code=6,
    ends=(-32752, 32752),
)
LSM303AH = Accelerometer(
    *_WIDE,
    alignment=((0, -1, 0), (1, 0, 0), (0, 0, -1)),
    sensitivity={2: 1671, 4: 836, 8: 418, 16: 209},
    codes={2: 0, 4: 2, 8: 3, 16: 1},
    rate_code=5,
    ends=(-32752, 32752),
)
# The low-noise chip, analogue into 12 bits: it clips at 2 g, so the peak of an impact is lost.
KXRB5_2042 = Accelerometer(0x80, (0, 1, 2), 0x13, 2047, _FLIPPED, {2: 83}, {}, 0, (0, 4095))
KXTC9_2050 = Accelerometer(0x80, (0, 1, 2), 0x13, 2253, _FLIPPED, {2: 92}, {}, 0, (0, 4095))


class Shimmer:
    """One Shimmer3: set up, started, and its packets told as `Samples` and `Status`.

    The device takes one command at a time: `opened` gives the first, `say` every further one when it is due. Call
    `say` after each `feed` and a few times a second. What is not answered, or does not stream, is set up anew.

    A packet counts once the next one bears it out, the first of a stream once three do; where ``crc`` asks for it,
    its CRC does. Noise costs the packets it touches and the one before it. ``boot`` counts the streams begun: at
    least one each time the link opens.

    Args:
        accelerometer: which one to use; of the wide-range ones say which chip the device has.
        range_g: of the accelerometer; the device's own calibration is believed where it tells another.
        rate_hz: 20 to 200, rounded to a whole number of ticks of its clock of 32768 Hz.
        calibration: that of this device; without one it is asked for its own, and the vendor's defaults stand in.
        crc: whether the device adds a CRC of two octets to all it sends; needs firmware that knows how.
    """

    def __init__(
        self,
        accelerometer: Accelerometer = LSM303DLHC,
        *,
        range_g: int | None = None,
        rate_hz: float = 51.2,
        calibration: Calibration | None = None,
        crc: bool = False,
    ) -> None:
        range_g = range_g or (8 if accelerometer.codes else 2)
        if range_g not in accelerometer.sensitivity:
            raise ValueError(f"range {range_g} g: this accelerometer has {[*accelerometer.sensitivity]}")
        if not 20 <= rate_hz <= 200:
            raise ValueError(f"rate {rate_hz} Hz is not from 20 to 200")
        self.bad_bytes = 0
        self.bad_answers = 0  # set-ups begun anew
        self._chip = accelerometer
        self._wanted_g = range_g
        self._given = calibration
        self._crc_octets = 2 if crc else 0
        self._commands = _set_up(accelerometer, range_g, rate_hz, crc=crc, calibrated=calibration is not None)
        self._boot = -1
        self._period = round(TICK_HZ / rate_hz)
        self._rate_chz = round(100 * TICK_HZ / self._period)
        self._batch = min(MAX_SAMPLES, round(BATCH_S * rate_hz))
        self._begin()

    def opened(self) -> list[bytes]:
        """Begin anew; return what to send first: a stop, in case it streams from before."""
        self._begin()
        self._due.clear()
        return [self._commands[0]]

    def _begin(self) -> None:
        self._buf = bytearray()
        self._step = 0  # command that is waiting for its answer; past the last: it streams
        self._due = [self._commands[0]]
        self._sent_s: float | None = None  # when the last command went, or something good came
        self._heard_s: float | None = None
        self._restart_index()
        self._calibrate(self._given, self._wanted_g)
        self._docked = False

    def _restart_index(self) -> None:
        self._boot = (self._boot + 1) & 0xFFFF
        self._ticks: int | None = None  # of the last packet, unwrapped
        self._status_due = 0
        self._index = -1
        self._gathered: list[bytes] = []
        self._first, self._first_ticks, self._flags = 0, 0, 0

    def _calibrate(self, calibration: Calibration | None, range_g: int) -> None:
        k = self._chip.sensitivity[range_g]
        calibration = calibration or Calibration((self._chip.offset,) * 3, (k, k, k), self._chip.alignment)
        self._offset, self._matrix, self._range_g = calibration.offset, calibration.matrix(), range_g

    def say(self, now_s: float) -> list[bytes]:
        """Return what is to be sent to the device by the monotonic time ``now_s``."""
        if self._sent_s is None:
            self._sent_s = now_s
        heard_s = max(self._sent_s, self._heard_s or self._sent_s)
        limit_s = STALL_S if self._streams else ANSWER_S
        if self._step == 0 and now_s - heard_s >= QUIET_S:
            self._next()
        elif now_s - self._sent_s >= limit_s:
            self.bad_answers += 1
            self._begin()
        if self._due:
            self._sent_s = now_s
        due, self._due = self._due, []
        return due

    @property
    def _streams(self) -> bool:
        return self._step == len(self._commands)

    def _next(self) -> None:
        self._step += 1
        self._due = [] if self._streams else [self._commands[self._step]]

    def feed(self, data: bytes, received_s: float, channel: str = "") -> list[UplinkMessage]:
        """Take octets as they came; return what they complete. Any split gives the same messages."""
        del channel  # it has one
        self._heard_s = received_s
        if self._step == 0:
            return []  # the rest of an old stream
        self._buf += data
        while not self._streams:
            begin = self._buf.find(ACK)
            del self._buf[: begin if begin >= 0 else len(self._buf)]
            taken = self._answer()
            if taken is None:
                return []
            del self._buf[: taken or 1]
            if taken:
                self._sent_s = received_s
                self._next()
        messages: list[UplinkMessage] = []
        while (taken := self._taken(messages)) is not None:
            if not taken:
                self.bad_bytes += 1
            elif self._buf[0] == DATA:
                self._sent_s = received_s
            del self._buf[: taken or 1]
        return messages

    def lost(self) -> list[UplinkMessage]:
        """Return what was still being gathered."""
        messages: list[UplinkMessage] = []
        if self._streams and self._ticks is not None and not self._crc_octets and len(self._buf) >= self._length:
            last_is_one = self._buf[0] == DATA and self._in_step(self._ticks % _TICKS, _ticks(self._buf, 0))
            if last_is_one:  # nothing follows that could bear it out
                self._packet(messages)
        self._flush(messages)
        self._buf.clear()
        return messages

    # -- set-up ------------------------------------------------------------------------------------

    def _answer(self) -> int | None:
        """Return the octets of the awaited answer at the start; 0: it is none, None: wait for more."""
        buf, command = self._buf, self._commands[self._step][0]
        length = 1
        if command == GET_STATUS:
            length = 4
            if len(buf) >= length and buf[1:3] != bytes([IN_STREAM, STATUS_ANSWER]):
                return 0
        if command in (INQUIRY, self._chip.ask_calibration):
            if len(buf) < 10:
                return None
            if buf[1] != (INQUIRY_ANSWER if command == INQUIRY else command - 1):
                return 0
            length = 10 + buf[8] if command == INQUIRY else 23
        if len(buf) < length + self._crc_octets:
            return None
        if not self._sound(0, length):
            return 0
        if command == INQUIRY:
            return length + self._crc_octets if self._layout(bytes(buf[2:length])) else 0
        if command == GET_STATUS:
            self._docked = bool(buf[3] & DOCKED)
        elif command == self._chip.ask_calibration:
            self._read_calibration(bytes(buf[2:length]))
        return length + self._crc_octets

    def _layout(self, answer: bytes) -> bool:
        """Whether the device does what it was told: rate, range, sensors; then where in a packet they are."""
        period, config, channels = int.from_bytes(answer[:2], "little"), answer[2], answer[8:]
        code = self._chip.codes.get(self._wanted_g)
        if period != self._period or (code is not None and config >> 2 & 3 != code):
            return False
        if not set(self._chip.channels) <= set(channels) <= set(_CHANNELS):
            return False
        at: dict[int, int] = {}
        self._length = 4
        for channel in channels:
            at[channel] = self._length
            self._length += _OCTETS.get(channel, 2)
        self._at = [at[channel] for channel in self._chip.channels]
        self._battery_at = at.get(BATTERY_CHANNEL)
        return True

    def _read_calibration(self, answer: bytes) -> None:
        """Take the device's own calibration if it is one of these chips'; what was never written is not."""
        offset, sensitivity = struct.unpack(">3h", answer[:6]), struct.unpack(">3h", answer[6:12])
        rows = [value / 100 for value in struct.unpack(">9b", answer[12:])]
        chips = (LSM303DLHC, LSM303AH) if self._chip.codes else (KXRB5_2042, KXTC9_2050)
        fitting = [
            range_g
            for chip in chips
            for range_g, usual in chip.sensitivity.items()
            if all(0.85 < k / usual < 1.15 for k in sensitivity)
        ]
        alignment: Matrix = (tuple(rows[:3]), tuple(rows[3:6]), tuple(rows[6:]))
        if fitting and 0.8 < abs(_determinant(alignment)) < 1.2:
            range_g = self._wanted_g if self._wanted_g in fitting else fitting[0]
            self._calibrate(Calibration(offset, sensitivity, alignment), range_g)

    # -- stream ------------------------------------------------------------------------------------

    def _taken(self, messages: list[UplinkMessage]) -> int | None:
        """Return the octets of the good thing at the start, told; 0: there is none, None: wait for more."""
        if not self._buf:
            return None
        if self._buf[0] != DATA:
            length = self._other(0)
            if length == 4 + self._crc_octets:  # pushed when it is put into its dock, or taken out
                self._docked = bool(self._buf[3] & DOCKED)
            return length
        borne_out = self._borne_out()
        if not borne_out:
            return None if borne_out is None else 0
        self._packet(messages)
        return self._length + self._crc_octets

    def _borne_out(self) -> bool | None:
        """Whether the packet at the start is one: by its CRC, else by the clocks of those that follow."""
        end, before = self._length, _ticks(self._buf, 0)
        if self._crc_octets:
            return None if len(self._buf) < end + self._crc_octets else self._sound(0, end)
        follows = self._ticks is not None and self._in_step(self._ticks % _TICKS, before)
        for _ in range(1 if follows else _PROOF_PACKETS):
            if end < len(self._buf) and self._buf[end] != DATA:
                other = self._other(end)
                if not other:
                    return None if other is None else False
                end += other
            if end < len(self._buf) and self._buf[end] != DATA:
                return False
            if len(self._buf) < end + 4:
                return None
            after = _ticks(self._buf, end)
            if not self._in_step(before, after):
                return False
            if self._ticks is not None and not follows and self._in_step(self._ticks % _TICKS, after):
                return False  # what comes after follows what came before: this one is noise between them
            end, before = end + self._length, after
        return True

    def _other(self, at: int) -> int | None:
        """Return the octets of an acknowledgement or a pushed answer; 0: it is none, None: wait for more."""
        head = bytes(self._buf[at : at + 4])
        if head[0] != ACK:
            return 0  # the firmware's default puts an ACK before all it pushes
        if len(head) < 2:
            return None
        length = 1
        if head[1] == IN_STREAM:
            if len(head) < 4:
                return None
            streams = head[3] & (SENSING | STREAMING) == SENSING | STREAMING
            length = {STATUS_ANSWER: 4 if streams else 0, BATTERY_ANSWER: 6}.get(head[2], 0)
        if len(self._buf) < at + length + self._crc_octets:
            return None
        return length + self._crc_octets if length and self._sound(at, length) else 0

    def _sound(self, at: int, length: int) -> bool:
        """Whether the CRC after a message is right, if there is one: the dock's, an odd length filled up by 00."""
        if not self._crc_octets:
            return True
        message = bytes(self._buf[at : at + length])
        crc = crc_hqx(message + b"\0" * (length % 2), 0xB0CA)
        return crc == int.from_bytes(self._buf[at + length : at + length + 2], "little")

    def _in_step(self, before: int, after: int) -> bool:
        periods, rest = divmod((after - before) % _TICKS + self._period // 4, self._period)
        return 1 <= periods <= _MOST_PERIODS and rest <= self._period // 2

    def _packet(self, messages: list[UplinkMessage]) -> None:
        ticks, periods = _ticks(self._buf, 0), 1
        if self._ticks is not None:
            passed = (ticks - self._ticks) % _TICKS
            periods = (passed + self._period // 2) // self._period
            if passed > _TICKS // 2:  # too long ago, or its clock began anew: no number would be right
                self._flush(messages)
                self._restart_index()
                periods = 1
            else:
                ticks = self._ticks + passed
        if periods == 0:
            return  # told twice
        if periods != 1:
            self._flush(messages)
        self._ticks = ticks
        self._index += periods
        xyz, clipped = self._scaled()
        if not self._gathered:
            self._first, self._first_ticks = self._index, ticks
        self._gathered.append(xyz)
        self._flags |= CLIPPED * clipped
        if len(self._gathered) == self._batch:
            self._flush(messages)
        if self._battery_at is not None and ticks >= self._status_due:
            self._status_due = ticks + round(STATUS_S * TICK_HZ)
            messages.append(self._status(self._battery_at, ticks))

    def _scaled(self) -> tuple[bytes, bool]:
        counts = [struct.unpack_from("<h", self._buf, at)[0] for at in self._at]
        low, high = self._chip.ends
        clipped = not all(low < count < high for count in counts)
        u = [count - offset for count, offset in zip(counts, self._offset, strict=True)]
        full = 32768 / self._range_g
        exact = [round(full * (row[0] * u[0] + row[1] * u[1] + row[2] * u[2])) for row in self._matrix]
        kept = [min(max(value, -32768), 32767) for value in exact]
        return struct.pack("<3h", *kept), clipped or kept != exact

    def _status(self, at: int, ticks: int) -> Status:
        raw = int.from_bytes(self._buf[at : at + 2], "little")
        battery_mv = min(round(raw / 4095 * 3000 * 1.988), 0xFFFF)  # 12 bits of 3 V, behind a divider
        return Status(_charge_pct(battery_mv), battery_mv, 0, self._wear, ticks // TICK_HZ)

    @property
    def _wear(self) -> int:
        return CHARGING if self._docked else WORN

    def _flush(self, messages: list[UplinkMessage]) -> None:
        if self._gathered:
            flags = self._flags | self._wear
            tick, first = self._first_ticks & 0xFFFFFFFF, self._first & 0xFFFFFFFF
            xyz = b"".join(self._gathered)
            messages.append(Samples(self._boot, tick, first, self._rate_chz, self._range_g, flags, xyz))
        self._gathered, self._flags = [], 0


def _set_up(chip: Accelerometer, range_g: int, rate_hz: float, *, crc: bool, calibrated: bool) -> list[bytes]:
    commands = [bytes([STOP])]
    if crc:
        commands.append(bytes([SET_CRC, 2]))
    commands.append(bytes([SET_SENSORS]) + (chip.sensor | BATTERY_SENSOR).to_bytes(3, "little"))
    commands.append(bytes([SET_RATE]) + round(TICK_HZ / rate_hz).to_bytes(2, "little"))
    if chip.codes:
        commands.append(bytes([SET_WIDE_LOW_POWER, 0]))
        commands.append(bytes([SET_WIDE_HIGH_RESOLUTION, 1]))
        commands.append(bytes([SET_WIDE_RATE, chip.rate_code]))
        commands.append(bytes([SET_WIDE_RANGE, chip.codes[range_g]]))
    if not calibrated:
        commands.append(bytes([chip.ask_calibration]))
    return [*commands, bytes([GET_STATUS]), bytes([INQUIRY]), bytes([START])]


def _ticks(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at + 1 : at + 4], "little")


def _charge_pct(battery_mv: int) -> int:
    right = bisect_right(_BATTERY, (battery_mv, 100))
    if right in (0, len(_BATTERY)):
        return 0 if right == 0 else 100
    (low_mv, low_pct), (high_mv, high_pct) = _BATTERY[right - 1 : right + 1]
    return round(low_pct + (high_pct - low_pct) * (battery_mv - low_mv) / (high_mv - low_mv))


def _cross(a: Sequence[float], b: Sequence[float]) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _determinant(rows: Matrix) -> float:
    return sum(p * q for p, q in zip(rows[0], _cross(rows[1], rows[2]), strict=True))
