"""How long a wearable's battery still lasts, from what it reported. Standard library only."""

from __future__ import annotations

from collections import deque

LOW_H = 26.0  # staff have a day, and the rest of the shift, to charge it
LOW_PCT = 10  # low whatever the forecast says
REMEMBER_S = 24 * 3600.0
EVERY_S = 900.0
LEAST_DROP_PCT = 3  # a forecast from less would be one from the steps of its scale


class Battery:
    """One wearable's charge, and how fast it has been falling lately."""

    def __init__(self) -> None:
        self.pct: int | None = None
        self.low = False
        self._seen: deque[tuple[float, int]] = deque()  # when, percent; since it was last charged

    def observe(self, pct: int, *, charging: bool, now_s: float) -> None:
        """Note a report; a charge that rises begins the forecast anew."""
        if charging or (self.pct is not None and pct > self.pct + 1):
            self._seen.clear()
        self.pct = pct
        if not charging and (not self._seen or now_s - self._seen[-1][0] >= EVERY_S):
            self._seen.append((now_s, pct))
            while now_s - self._seen[0][0] > REMEMBER_S:
                self._seen.popleft()
        hours = self.hours_left()
        if charging:
            self.low = False
        elif pct <= LOW_PCT or (hours is not None and hours <= LOW_H):
            self.low = True
        elif pct > 1.5 * LOW_PCT and hours is not None and hours > 1.5 * LOW_H:  # hovering at the limit: told once
            self.low = False

    def hours_left(self) -> float | None:
        """Return how long it lasts at the pace of the last day; None while that cannot be told."""
        if self.pct is None or len(self._seen) < 2:
            return None
        (from_s, from_pct), (to_s, to_pct) = self._seen[0], self._seen[-1]
        if from_pct - to_pct < LEAST_DROP_PCT:
            return None
        return to_pct * (to_s - from_s) / 3600.0 / (from_pct - to_pct)
