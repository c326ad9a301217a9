"""What to try, and when, on a Bluetooth radio that has gone deaf without an error. Standard library only.

BlueZ does so after hours or days (bluez issues 343, 1126, 1500, 1554; bleak issue 832). Deaf is: no advertisement
and no data from anything. Where everything is connected and streams, nothing advertises, and the data is life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What may bring a deaf radio back, the mildest first; the last is a person."""

    RESTART_SCAN = "restart the scan"
    POWER_CYCLE = "switch the adapter off and on"
    RESET_USB = "reset the adapter's USB port"
    TELL = "tell a person"


@dataclass(frozen=True, slots=True)
class LadderTimes:
    """Seconds of silence after which each step is due, and how often it may be repeated.

    The ladder starts within 30 s. A person is told at ``tell_s``, and what a step takes is to fit between that
    and the 90 s after which somebody must know.
    """

    restart_scan_s: float = 20.0  # also the time to its repetition
    power_cycle_s: float = 30.0
    reset_usb_s: float = 45.0
    tell_s: float = 60.0
    repeat_s: float = 300.0  # of a power cycle and of a USB reset: each costs every connection
    tries: int = 3  # of each within one silence: a room may be quiet because nobody is in it

    def __post_init__(self) -> None:
        """Check that the steps come in their order.

        Raises:
            ValueError: they do not, or the ladder is too slow.
        """
        if not 0 < self.restart_scan_s < self.power_cycle_s < self.reset_usb_s < self.tell_s <= self.repeat_s:
            raise ValueError("the steps of the ladder must come one after the other")
        if self.restart_scan_s > 30 or self.tell_s > 90:
            raise ValueError("the ladder must start within 30 s and tell a person within 90 s")


class Ladder:
    """Climbs while nothing is heard, comes down at the first sign of life.

    A scan may be deaf while connections live. Then it alone is restarted: what more there is would cost those
    who are heard their connections. Nobody can tell a deaf radio from a room with nothing in it, so after
    ``tries`` of the harder steps only the scan is restarted, until something is heard.
    """

    def __init__(self, times: LadderTimes, *, now_s: float) -> None:
        self.told = False  # a person was to be told, and nothing was heard since
        self._times = times
        self._life_s = now_s  # the last sign of life, or the beginning
        self._scan_s = now_s  # the last advertisement, or the last beginning of a scan
        self._done_s = dict.fromkeys(Step, -math.inf)
        self._tries = dict.fromkeys(Step, 0)  # within this silence

    def begin(self, *, now_s: float) -> None:
        """Count silence from now, as the radio has just been opened; what was done lately stays known."""
        self._life_s, self._scan_s, self.told = now_s, now_s, False

    def scan_began(self, *, now_s: float) -> None:
        """Note that a scan has just been started, so that what it may hear counts from now."""
        self._scan_s = now_s

    def advertised(self, *, now_s: float) -> None:
        """Note an advertisement, of whatever it is."""
        self._scan_s = now_s
        self.lives(now_s=now_s)

    def lives(self, *, now_s: float) -> None:
        """Note a sign of life: an advertisement, a connection, data."""
        self._life_s, self.told = now_s, False
        self._tries = dict.fromkeys(Step, 0)

    def silent_s(self, *, now_s: float) -> float:
        """Return for how long nothing has been heard."""
        return now_s - self._life_s

    def step(self, *, now_s: float, scanning: bool, has_usb_reset: bool = False) -> Step | None:
        """Return what is due now, which the caller then does; ``scanning``: whether a scan should hear things.

        One step at a time. Who asks late is told to tell a person first.
        """
        times, silent_s = self._times, self.silent_s(now_s=now_s)
        due = None
        if silent_s >= times.tell_s and not self.told:
            due, self.told = Step.TELL, True
        elif has_usb_reset and silent_s >= times.reset_usb_s and self._may(Step.RESET_USB, now_s):
            due = Step.RESET_USB
        elif silent_s >= times.power_cycle_s and self._may(Step.POWER_CYCLE, now_s):
            due = Step.POWER_CYCLE
        elif scanning and now_s - max(self._scan_s, self._done_s[Step.RESTART_SCAN]) >= times.restart_scan_s:
            due = Step.RESTART_SCAN
        if due is not None:
            self._done_s[due] = now_s
            self._tries[due] += 1
        return due

    def _may(self, step: Step, now_s: float) -> bool:
        return now_s - self._done_s[step] >= self._times.repeat_s and self._tries[step] < self._times.tries
