"""How well one wearable is heard: strength and loss, now and lately. Standard library only."""

from __future__ import annotations

from collections import deque

SLOT_S = 5.0
SLOTS = 12  # the last minute
AWAY_S = 10.0  # whoever was not heard for so long was away: what was missed meanwhile says nothing of the radio
WEAK_PART = 0.20  # of its samples lost over the last minute: falls begin to be missed
FADED_DBM = -85.0  # near the end of what receivers hear
FADING_DB = 8.0  # so far below its usual strength, and no longer strong
NOT_STRONG_DBM = -72.0
FADING_PART = 0.3  # lost just before it fell silent
TRAIL_S = 5.0  # so far back each packet is remembered, for whoever looks once a second
TRAIL = 64  # ... but no more of them
_QUICK, _SLOW = 0.3, 0.005  # of each new reading: a few seconds, a few minutes


class Radio:
    """One wearable's strength and losses."""

    def __init__(self) -> None:
        self.rssi_dbm: int | None = None
        self._quick_dbm = self._slow_dbm = 0.0
        self._heard_s = self._away_until_s = float("-inf")
        self._trail: deque[tuple[float, int | None, int, int, int]] = deque(maxlen=TRAIL)
        self._slots: deque[tuple[float, int, int]] = deque(maxlen=SLOTS + 1)  # begun, samples, lost: totals

    def observe(self, rssi_dbm: int | None, *, samples: int, lost: int, now_s: float) -> None:
        """Note a packet, with how many samples have come and been lost in all."""
        if rssi_dbm is not None:
            if self.rssi_dbm is None:
                self._quick_dbm = self._slow_dbm = float(rssi_dbm)
            self.rssi_dbm = rssi_dbm
            self._quick_dbm += (rssi_dbm - self._quick_dbm) * _QUICK
            self._slow_dbm += (rssi_dbm - self._slow_dbm) * _SLOW
        if now_s - self._heard_s > AWAY_S:
            self._away_until_s = now_s + SLOT_S  # some of what was missed is counted as lost only then
        self._heard_s = now_s
        if now_s < self._away_until_s:
            self._slots.clear()
        if not self._slots or now_s - self._slots[-1][0] >= SLOT_S:
            self._slots.append((now_s, samples, lost))

    def follow(self, rssi_dbm: int | None, *, boot: int, first: int, n: int, now_s: float) -> None:
        """Note which samples a packet bore, and how strong it was heard."""
        self._trail.append((now_s, rssi_dbm, boot, first, n))

    def trail(self, *, now_s: float) -> list[tuple[float, int | None, int, int, int]]:
        """Return the packets of the last seconds: when, strength, start of the device, first sample, how many."""
        return [packet for packet in self._trail if now_s - packet[0] <= TRAIL_S]

    def lost_part(self, *, slots: int = SLOTS, samples: int, lost: int) -> float:
        """Return which part was lost over the last slots, given how many samples came and were lost in all."""
        if not self._slots:
            return 0.0
        _, samples_0, lost_0 = self._slots[max(len(self._slots) - 1 - slots, 0)]
        total = samples - samples_0 + lost - lost_0
        return (lost - lost_0) / total if total > 0 else 0.0

    def is_weak(self, *, samples: int, lost: int) -> bool:
        """Tell whether so much is lost that falls may be missed."""
        return len(self._slots) > SLOTS and self.lost_part(samples=samples, lost=lost) >= WEAK_PART

    def was_fading(self, *, samples: int, lost: int) -> bool:
        """Tell whether it was hardly heard when it was last heard: it went away rather than broke."""
        faint = self.rssi_dbm is not None and (
            self._quick_dbm <= FADED_DBM
            or (self._slow_dbm - self._quick_dbm >= FADING_DB and self._quick_dbm <= NOT_STRONG_DBM)
        )
        return faint or self.lost_part(slots=2, samples=samples, lost=lost) >= FADING_PART
