"""How well the radio covers a room, from what was heard of the wearables carried into it. Standard library only.

The limits are those by which supervision and the detector judge in service, so that a room which is handed over
as good does not begin its first night with a fault. An empty home with one person walking is the best case: there
is no limit here that is gentler than in service.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.core.radio import AWAY_S, FADED_DBM, NOT_STRONG_DBM, WEAK_PART

GOOD_PART = 0.05  # up to so much lost costs the wrist model 4 falls in 100, see docs/robustness.md
BRIDGE_S = 1.0  # as in models.preprocess: a longer hole begins the detector's window anew
LEAST_S = 10.0  # one packet of half a second is a twentieth of that
NEAR_M = 12.0  # rooms that lie so near to each other may share a new receiver
_LATE = 1.5  # of a packet's length: a packet due at the edge of the time measured may come just outside of it


class Cover(StrEnum):
    """What a room is worth to the detector."""

    GOOD = "good"
    WEAK = "weak"
    NONE = "no cover"


_ORDER = list(Cover)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of samples as it was heard; ``first`` numbers its samples since the wearable's start ``boot``."""

    at_s: float  # monotonic
    rssi_dbm: int | None
    boot: int
    first: int
    n: int


@dataclass(frozen=True, slots=True)
class Carried:
    """What one wearable's radio did in a room."""

    wearable: str
    packets: int
    lost: int  # packets that were due and did not come
    lost_part: float  # of its samples
    rssi_median_dbm: float | None  # None where nothing tells
    rssi_worst_dbm: int | None
    gap_s: float  # the longest time without samples
    battery_pct: int | None = None


def measured(
    wearable: str,
    packets: Iterable[Packet],
    *,
    begin_s: float,
    end_s: float,
    rate_hz: float,
    battery_pct: int | None = None,
) -> Carried:
    """Return what was heard of a wearable in ``[begin_s, end_s)``, from its packets' sample numbers.

    Sample numbers tell what was lost between packets; at the edges, and where nothing came, the clock does.
    """
    heard = sorted({(p.boot, p.first): p for p in packets if begin_s <= p.at_s < end_s}.values(), key=_order)
    strengths = [p.rssi_dbm for p in heard if p.rssi_dbm is not None]
    samples = sum(p.n for p in heard)
    if not samples or rate_hz <= 0:
        return Carried(wearable, 0, 0, 1.0, None, None, round(end_s - begin_s, 1), battery_pct)
    packet_s = samples / len(heard) / rate_hz
    holes_s = [_edge_s(heard[0].at_s - begin_s, packet_s), _edge_s(end_s - heard[-1].at_s, packet_s)]
    got_s = 0.0
    for before, after in zip([None, *heard], heard, strict=False):
        new = after.n
        if before is not None and before.boot == after.boot:  # a packet may repeat what the one before it bore
            new = min(max(after.first + after.n - (before.first + before.n), 0), after.n)
            holes_s.append(max(after.first - before.first - before.n, 0) / rate_hz)
        elif before is not None:  # it started again: its numbers say nothing of what was missed
            holes_s.append(_edge_s(after.at_s - before.at_s, packet_s))
        got_s += new / rate_hz
    lost_s = sum(holes_s)
    return Carried(
        wearable,
        len(heard),
        round(lost_s / packet_s),
        round(lost_s / (lost_s + got_s), 4),
        statistics.median(strengths) if strengths else None,
        min(strengths, default=None),
        round(max(holes_s), 1),
        battery_pct,
    )


def _order(packet: Packet) -> tuple[int, int]:
    return packet.boot, packet.first


def _edge_s(silent_s: float, packet_s: float) -> float:
    """Return how much is missing of a time without packets, given that one is on its way all the time."""
    return silent_s - packet_s if silent_s > _LATE * packet_s else 0.0


def judged(carried: Carried) -> tuple[Cover, tuple[str, ...]]:
    """Return what a wearable found, and why it is not good."""
    if not carried.packets:
        return Cover.NONE, ("nothing was heard",)
    median_dbm = math.inf if carried.rssi_median_dbm is None else carried.rssi_median_dbm
    worst_dbm = math.inf if carried.rssi_worst_dbm is None else carried.rssi_worst_dbm
    none = {
        f"{carried.lost_part:.0%} lost, from {WEAK_PART:.0%} on it counts as barely heard": carried.lost_part
        >= WEAK_PART,
        f"silent for {carried.gap_s:g} s, from {AWAY_S:g} s on it counts as away": carried.gap_s >= AWAY_S,
        f"{median_dbm:g} dBm, at {FADED_DBM:g} it counts as faded": median_dbm <= FADED_DBM,
    }
    weak = {
        f"{carried.lost_part:.0%} lost, up to {GOOD_PART:.0%} is good": carried.lost_part > GOOD_PART,
        f"a hole of {carried.gap_s:g} s, up to {BRIDGE_S:g} s is bridged": carried.gap_s > BRIDGE_S,
        f"{median_dbm:g} dBm, a body on it may bring it down to {FADED_DBM:g}": median_dbm <= NOT_STRONG_DBM,
        f"down to {worst_dbm:g} dBm at times": worst_dbm <= FADED_DBM < median_dbm,
    }
    for cover, reasons in ((Cover.NONE, none), (Cover.WEAK, weak)):
        if any(reasons.values()):
            return cover, tuple(reason for reason, holds in reasons.items() if holds)
    return Cover.GOOD, ()


@dataclass(frozen=True, slots=True)
class Room:
    """A room that was walked; it is worth what its worst wearable found."""

    name: str
    at: str  # when, UTC
    seconds: float
    carried: tuple[Carried, ...]

    @property
    def cover(self) -> Cover:
        """What it is worth."""
        return max((judged(one)[0] for one in self.carried), key=_ORDER.index, default=Cover.NONE)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not good, each reason with its wearable where several were carried."""
        return tuple(
            f"{one.wearable}: {reason}" if len(self.carried) > 1 else reason
            for one in self.carried
            for reason in judged(one)[1]
        )

    @property
    def worst(self) -> Carried | None:
        """The wearable that found least."""
        return max(self.carried, key=lambda c: (_ORDER.index(judged(c)[0]), c.lost_part, c.gap_s), default=None)


Places = Mapping[str, tuple[float, float] | None]  # room: metres x, y on the plan, where known


def advice(rooms: Sequence[Room], places: Places, unwalked: Sequence[str]) -> tuple[str, ...]:
    """Return what to do about rooms that are not good, those without cover first."""
    said = []
    bad = [room for room in rooms if room.cover is not Cover.GOOD]
    if len(bad) == len(rooms) > 1:
        said.append("No room is good: first look at the receiver, its aerial and its place, and at the wearable.")
    for group in _neighbours([room.name for room in bad], places):
        worst = max((room.cover for room in bad if room.name in group), key=_ORDER.index)
        names = ", ".join(group)
        if worst is Cover.NONE:
            said.append(f"Add a receiver near {_rooms(group)} {names}, or move one there; then walk them again.")
        else:
            near = "move a receiver nearer, or add one"
            said.append(f"Falls may be missed at times in {_rooms(group)} {names}: {near}; then walk again.")
    if any(not one.packets for room in bad for one in room.carried):
        said.append(
            "Where nothing was heard: is the wearable heard beside the receiver? If not, charge it and walk again."
        )
    if unwalked:
        said.append(
            f"Walk {_rooms(unwalked)} {', '.join(unwalked)}: nobody knows yet whether falls are heard there."
        )
    return tuple(said)


def _rooms(names: Sequence[str]) -> str:
    return "room" if len(names) == 1 else "rooms"


def _neighbours(names: Sequence[str], places: Places) -> list[list[str]]:
    """Return rooms in groups of neighbours; those without a place are one group."""
    groups: list[list[str]] = []
    for name in names:
        near = [group for group in groups if any(_near(name, other, places) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([other for group in near for other in group] + [name])
    return sorted(groups)


def _near(a: str, b: str, places: Places) -> bool:
    at_a, at_b = places.get(a), places.get(b)
    if at_a is None or at_b is None:
        return at_a is at_b
    return math.dist(at_a, at_b) <= NEAR_M
