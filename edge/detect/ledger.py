"""How long each model judged each worn wearable: what false alarms are divided by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from edge.journal import Moment, Wear


class Judged(NamedTuple):
    """Which model judges whom."""

    model: str
    shadow: bool
    placement: str
    wearable: str


@dataclass(slots=True)
class _Stretch:
    begun_s: float  # monotonic
    from_s: float  # worn before it began
    begun_at: datetime | None = None  # set when first written: the clock may be right only by then


class WearLedger:
    """Turn what judges count since they began into stretches of at most a day."""

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s
        self._running: dict[Judged, _Stretch] = {}
        self._ended: list[Wear] = []

    def rows(self, worn_s: Mapping[Judged, float], now: Moment) -> list[Wear]:
        """Return the stretches up to now that may not be on disk yet; with a new day (UTC) new ones begin."""
        running: list[Wear] = []
        for judged, total_s in worn_s.items():
            stretch = self._running.setdefault(judged, _Stretch(self._begun_s, 0.0))
            if total_s <= stretch.from_s:
                continue
            if stretch.begun_at is None:
                stretch.begun_at = now.at - timedelta(seconds=now.mono_s - stretch.begun_s)
            row = Wear(*judged, stretch.begun_at, now.at, round(total_s - stretch.from_s, 1))
            if stretch.begun_at.date() == now.at.date():
                running.append(row)
            else:
                self._ended.append(row)
                self._running[judged] = _Stretch(now.mono_s, total_s)
        return self._ended + running

    def written(self) -> None:
        """Forget the stretches that have ended: they are on disk."""
        self._ended = []
