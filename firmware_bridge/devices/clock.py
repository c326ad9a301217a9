"""Numbers, times and messages for the samples of wearables that give them none, or only their own time."""

from __future__ import annotations

from struct import iter_unpack

from firmware_bridge.wire import CLIPPED, MAX_SAMPLES, TICK_HZ, WORN, Hello, Samples

GAP_S = 0.5  # samples that come so much later than they should follow others that were lost
GATHER_S = 0.25  # so long single samples are gathered for one message
MAX_GATHERED = 1024  # samples; more never wait, whatever the time of arrival says

_SETTLE_S, _STEADY_S = 4.0, 30.0  # time constant of the loop: at first, and when the rate has long been known
_MEMORY = 1 / 6  # of the time known, in between
_RATE_TOLERANCE = 0.08  # a device's rate is off by less; the time line behind would take 0.10
_SLEW = 0.05  # of the time passed: ticks are never drawn together or apart by more
_TRUSTED_S = 0.25  # what exceeds this is no drift of the rate
_SET_BACK_S, _SET_ON_S = 5.0, 3600.0  # beyond these the device's clock was set: it starts anew
_U32 = 1 << 32


class SampleClock:
    """Number samples and say when they were taken, at the device's true rate.

    A loop of the second order follows the times it is told, so bursts are spaced out and an oscillator that is
    off by up to 8 % is followed within seconds. Times that jump forward by more than ``gap_s`` tell of lost
    samples: number and tick jump as well. Neither ever steps back but by `restart`.
    """

    def __init__(self, rate_hz: float, gap_s: float = GAP_S) -> None:
        if rate_hz <= 0:
            raise ValueError(f"rate {rate_hz} Hz")
        self.boot = 0  # counts restarts, wraps
        self._nominal_s = 1 / rate_hz
        self._gap_s = gap_s
        self._begin()

    def _begin(self) -> None:
        self.spacing_s = self._nominal_s  # between two samples, as measured
        self._number = 0  # of the next sample
        self._next_s: float | None = None  # when the next sample is due
        self._known_s = 0.0  # so long the loop has run

    def restart(self) -> None:
        """Begin anew: the device, or the link to it, did."""
        self.boot = (self.boot + 1) % 0x10000
        self._begin()

    def place(self, n: int, last_s: float) -> tuple[int, int]:
        """Return number and tick of the first of ``n`` consecutive samples.

        ``last_s`` is when the last of them was taken, by the device's own clock if it has one, else when it came.
        A clock that was set, or numbers that are used up, restart: read ``boot`` afterwards.
        """
        if n < 1:
            raise ValueError(f"{n} samples")
        late_s = 0.0 if self._next_s is None else last_s - self._next_s - (n - 1) * self.spacing_s
        if not -_SET_BACK_S < late_s < _SET_ON_S or self._number + n + late_s / self.spacing_s >= _U32:
            self.restart()
            late_s = 0.0
        if self._next_s is None:
            self._next_s = last_s - (n - 1) * self.spacing_s
        if late_s > self._gap_s:
            lost = round(late_s / self.spacing_s)
            self._number += lost
            self._next_s += lost * self.spacing_s
            late_s -= lost * self.spacing_s
        first, first_s = self._number, self._next_s
        self._number += n
        self._next_s += n * self.spacing_s + self._follow(n * self.spacing_s, late_s)
        return first, round(first_s * TICK_HZ) % _U32

    def _follow(self, passed_s: float, late_s: float) -> float:
        """Correct the spacing by what is late; return the correction of the time."""
        self._known_s += passed_s
        gain = min(passed_s / min(max(self._known_s * _MEMORY, _SETTLE_S), _STEADY_S), 0.5)
        drift_s = min(max(late_s, -_TRUSTED_S), _TRUSTED_S)
        spacing_s = self.spacing_s * (1 + gain * gain * drift_s / passed_s)
        low_s, high_s = self._nominal_s * (1 - _RATE_TOLERANCE), self._nominal_s * (1 + _RATE_TOLERANCE)
        self.spacing_s = min(max(spacing_s, low_s), high_s)
        return min(max(2 * gain * late_s, -_SLEW * passed_s), _SLEW * passed_s)


class SampleWriter:
    """Write runs of samples as messages, introduced by a `Hello` after every start.

    Nobody can tell from outside whether a bought device is worn: each message says it is, and what watches over
    wearables judges by the samples.
    """

    def __init__(self, rate_hz: float, range_g: int, gap_s: float = GAP_S) -> None:
        self._clock = SampleClock(rate_hz, gap_s)
        self._range_g = range_g
        self._rate_chz = round(100 * rate_hz)
        self._introduced: int | None = None  # the boot that was
        self._hello()  # refuses a rate or range that has no place in it

    def _hello(self) -> Hello:
        return Hello(self._clock.boot, (0, 0, 0), 0, self._range_g, self._rate_chz)

    def restart(self) -> None:
        """Begin anew: the link has just been opened."""
        self._clock.restart()

    def write(self, xyz: bytes, last_s: float, flags: int = WORN) -> list[Hello | Samples]:
        """Return the messages for one gap-free run of any length; ``last_s`` as for `SampleClock.place`."""
        messages: list[Hello | Samples] = []
        left = len(xyz) // 6
        for start in range(0, len(xyz), 6 * MAX_SAMPLES):
            piece = xyz[start : start + 6 * MAX_SAMPLES]
            left -= len(piece) // 6
            first, tick = self._clock.place(len(piece) // 6, last_s - left * self._clock.spacing_s)
            boot = self._clock.boot
            if boot != self._introduced:
                self._introduced = boot
                messages.append(self._hello())
            flags_now = flags | CLIPPED if _clipped(piece) else flags
            messages.append(Samples(boot, tick, first, self._rate_chz, self._range_g, flags_now, piece))
        return messages


def _clipped(xyz: bytes) -> bool:
    return any(not -32767 < value < 32767 for (value,) in iter_unpack("<h", xyz))


class Batcher:
    """Gather the samples of a device that sends them one by one into messages of about 0.25 s.

    What comes after a pause opens a new run, and what comes in one burst stays together: it was held up on its
    way, and none of it is taken for lost. So a message leaves when the first octets after it arrive.
    """

    def __init__(self, writer: SampleWriter) -> None:
        self._writer = writer
        self._xyz = bytearray()
        self._begin_s = self._last_s = 0.0

    def add(self, xyz: bytes, received_s: float) -> list[Hello | Samples]:
        """Take samples, int16 little-endian x y z, that came at ``received_s``; return what is complete."""
        full = received_s - self._begin_s >= GATHER_S or len(self._xyz) >= 6 * MAX_GATHERED
        messages = self.flush() if full else []
        if not self._xyz:
            self._begin_s = received_s
        self._xyz += xyz
        self._last_s = received_s
        return messages

    def flush(self) -> list[Hello | Samples]:
        """Return what was still being gathered."""
        xyz, self._xyz = bytes(self._xyz), bytearray()
        return self._writer.write(xyz, self._last_s) if xyz else []

    def restart(self) -> None:
        """Begin anew: the link has just been opened."""
        self._xyz.clear()
        self._writer.restart()
