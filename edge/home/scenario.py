"""The lives of a made-up home's residents and their wearables: a timetable with the truth, from one seed.

Nothing here reacts: staff come at a time that was drawn beforehand, whether they were called or not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from edge.core.supervision import Cause

BATCH_S = 0.5  # all times are multiples of it: one message of samples
DAY_S, HOUR_S, MINUTE_S = 86_400.0, 3600.0, 60.0
APART_S = 900.0  # between two troubles of one wearable, so that each is judged alone
LIE_S = (60.0, 900.0)  # how long somebody lies after a fall
FOR_EVER = math.inf


class Activity(StrEnum):
    """What somebody does."""

    SLEEP = "sleep"
    REST = "rest"
    BUSY = "busy"
    WALK = "walk"


class Place(StrEnum):
    """Where somebody is."""

    ROOM = "room"
    LOUNGE = "lounge"
    BATHROOM = "bathroom"


class Truth(StrEnum):
    """What is really the matter."""

    WELL = "well"
    FALL = "fall"
    DEAD_SPOT = "dead spot"
    LOSS_BURST = "loss burst"
    CHARGING = "charging"
    FLAT = "flat"
    LOW_BATTERY = "low battery"
    BROKEN = "broken"
    OUT_OF_RANGE = "out of range"
    WEAK_RADIO = "weak radio"
    OFF_FELT = "taken off, feels it"
    OFF_UNFELT = "taken off, cannot feel it"
    FROZEN = "frozen"
    SATURATED = "saturated"
    AXES = "axes wrong"
    SCALE = "scale wrong"
    RATE = "rate wrong"
    CLOCK = "clock wrong"
    BUTTON = "button stuck"
    FIRMWARE = "old firmware"
    TWO_WORN = "spare worn too"
    FORGED = "forged packets"
    UNPLUGGED = "receiver unplugged"


# What each truth is to be called: the first is right, the others will do. Not in here: nothing need be said.
CAUSES: dict[Truth, tuple[Cause, ...]] = {
    Truth.CHARGING: (Cause.CHARGING,),
    Truth.FLAT: (Cause.FLAT,),
    Truth.LOW_BATTERY: (Cause.LOW_BATTERY,),
    Truth.BROKEN: (Cause.SILENT,),
    Truth.OUT_OF_RANGE: (Cause.OUT_OF_RANGE,),
    Truth.WEAK_RADIO: (Cause.WEAK_RADIO,),
    Truth.OFF_FELT: (Cause.NOT_WORN,),
    Truth.OFF_UNFELT: (Cause.NOT_WORN,),
    Truth.FROZEN: (Cause.FROZEN,),
    Truth.SATURATED: (Cause.SATURATED,),
    Truth.AXES: (Cause.WRONG_AXES,),
    Truth.SCALE: (Cause.WRONG_SCALE, Cause.SATURATED),  # 9.81 times as much is past the end of the range
    Truth.RATE: (Cause.WRONG_RATE,),
    Truth.CLOCK: (Cause.CLOCK_WRONG,),
    Truth.BUTTON: (Cause.BUTTON_STUCK,),
    Truth.FIRMWARE: (Cause.OLD_FIRMWARE,),
    Truth.TWO_WORN: (Cause.TWO_WORN,),
    Truth.FORGED: (Cause.INTERFERENCE,),
    Truth.UNPLUGGED: (Cause.DONGLE_GONE,),
}
WARNINGS = frozenset(
    {Truth.LOW_BATTERY, Truth.WEAK_RADIO, Truth.BUTTON, Truth.FIRMWARE, Truth.TWO_WORN, Truth.FORGED}
)  # somebody should mend it, but the wearable protects

# Within what it must be named: what was promised where a promise is, else assumed.
LIMITS_S: dict[Truth, float] = {
    **dict.fromkeys((Truth.FLAT, Truth.BROKEN, Truth.OUT_OF_RANGE), 90.0),
    **dict.fromkeys((Truth.OFF_FELT, Truth.OFF_UNFELT, Truth.TWO_WORN, Truth.WEAK_RADIO), 20 * MINUTE_S),
    **dict.fromkeys((Truth.FROZEN, Truth.SATURATED, Truth.AXES, Truth.SCALE, Truth.RATE, Truth.CLOCK), 60.0),
    **dict.fromkeys((Truth.CHARGING, Truth.UNPLUGGED), 60.0),
    **dict.fromkeys((Truth.BUTTON, Truth.FIRMWARE, Truth.FORGED), 10 * MINUTE_S),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happens to one wearer, how long it lasts, and how it may be: one of ``how``."""

    truth: Truth
    per_day: float
    shortest_s: float
    longest_s: float  # durations lie evenly on a logarithmic scale between the two
    source: str
    how: tuple[float, ...] = (0.0,)
    by_day: bool = False
    fault: bool = True  # drawn more or less often with `Habits.faults`


_OFTEN = "assumed; far more often than in life, so that there is something to count"
RATES: tuple[Rate, ...] = (
    Rate(Truth.LOSS_BURST, 6.0, 1.0, 20.0, "assumed: lifts, microwave ovens, bodies in the way", fault=False),
    Rate(Truth.OUT_OF_RANGE, 0.30, 5 * MINUTE_S, 2 * HOUR_S, "assumed: two outings a week", (0.0,), True, False),
    Rate(Truth.OFF_UNFELT, 0.15, 30 * MINUTE_S, 8 * HOUR_S, "assumed: once a week for a wash, then forgotten"),
    Rate(Truth.WEAK_RADIO, 0.04, 40 * MINUTE_S, 3 * HOUR_S, _OFTEN),
    Rate(Truth.BROKEN, 0.04, 20 * MINUTE_S, 6 * HOUR_S, _OFTEN),
    Rate(Truth.FROZEN, 0.04, 15 * MINUTE_S, 2 * HOUR_S, _OFTEN),
    Rate(Truth.SATURATED, 0.04, 15 * MINUTE_S, 2 * HOUR_S, _OFTEN),
    Rate(Truth.AXES, 0.04, 30 * MINUTE_S, 2 * HOUR_S, _OFTEN),
    Rate(Truth.SCALE, 0.06, 15 * MINUTE_S, 2 * HOUR_S, _OFTEN, (2.0, 0.5, 9.81)),
    Rate(Truth.RATE, 0.06, 15 * MINUTE_S, 2 * HOUR_S, _OFTEN, (2.0, 0.5)),
    Rate(Truth.CLOCK, 0.06, 15 * MINUTE_S, 2 * HOUR_S, _OFTEN, (0.0, 1.0)),  # stands still, jumps
    Rate(Truth.BUTTON, 0.04, 30 * MINUTE_S, 3 * HOUR_S, _OFTEN),
    Rate(Truth.FIRMWARE, 0.02, 2 * HOUR_S, 6 * HOUR_S, _OFTEN),
    Rate(Truth.TWO_WORN, 0.04, 40 * MINUTE_S, 6 * HOUR_S, _OFTEN),
)


@dataclass(frozen=True, slots=True)
class Habits:
    """All that is drawn from beside `RATES`; assumed unless a source stands beside it."""

    falls_per_day: float = 0.5  # a resident; 30 a day in a home of 60, to count; about 1.5 a year in life
    faults: float = 1.0  # times the rates of faults in `RATES`
    night_visits: float = 1.3  # bathroom visits a night
    dead_spot: float = 0.3  # of bathroom visits lie in a dead spot
    dead_spot_s: tuple[float, float] = (15.0, 80.0)
    life_days: tuple[float, float] = (7.0, 1.0)  # of a full battery: mean, standard deviation
    rota_days: int = 3  # wearables are charged every so often
    forgotten: float = 0.15  # of charges
    left_on_charger: float = 0.05  # of charges; 4 to 10 h
    feels_skin: float = 0.6  # of wearables
    buffers: float = 0.5  # of wearables keep 30 s of what was lost and send it late
    dies_early: float = 0.1  # of wearables die with 5 % told
    unplugged_per_day: float = 0.1  # a home
    unplugged_s: tuple[float, float] = (180.0, 1800.0)
    forged_per_day: float = 0.1  # a home


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something true of one wearable in ``[begin_s, end_s)``; wearable "" is the home as a whole."""

    begin_s: float
    end_s: float
    truth: Truth
    wearable: str
    how: float = 0.0
    told_by_s: float = FOR_EVER  # named later than this is too late


@dataclass(frozen=True, slots=True)
class Doing:
    """What somebody does, where, in ``[begin_s, end_s)``."""

    begin_s: float
    end_s: float
    activity: Activity
    place: Place


@dataclass(frozen=True, slots=True)
class Life:
    """One resident and what they wear; ``doings`` follow each other without a hole from 0 to the end."""

    wearable: str
    spare: str  # a second one of the same resident, on only while `Truth.TWO_WORN`
    doings: tuple[Doing, ...]
    events: tuple[Event, ...]  # in order
    feels_skin: bool
    buffers: bool
    place_dbm: dict[Place, float]
    charge: tuple[tuple[float, float], ...]  # knots (s, part of full), straight between
    dies_at_pct: int
    _begins: list[float] = field(default_factory=list, compare=False)

    def doing(self, at_s: float) -> Doing:
        """Return what goes on at a time."""
        if not self._begins:
            self._begins.extend(d.begin_s for d in self.doings)
        return self.doings[max(bisect_right(self._begins, at_s) - 1, 0)]

    def battery_pct(self, at_s: float) -> int:
        """Return what the wearable says of its charge: a gauge a few per cent off in the middle (assumed)."""
        times, parts = zip(*self.charge, strict=True)
        part = float(np.interp(at_s, times, parts))
        told = part + 0.03 * math.sin(2 * math.pi * part)
        return min(max(round(self.dies_at_pct + told * (100 - self.dies_at_pct)), 0), 100)


@dataclass(frozen=True, slots=True)
class Home:
    """A home for some days: lives, and what befalls all at once."""

    lives: tuple[Life, ...]
    events: tuple[Event, ...]
    end_s: float


def imagine_home(rng: np.random.Generator, *, residents: int, days: float, habits: Habits | None = None) -> Home:
    """Return a home; the same generator state gives the same one."""
    habits = habits or Habits()
    end_s = _snap(days * DAY_S)
    home: list[Event] = []
    lengths = {Truth.UNPLUGGED: habits.unplugged_s, Truth.FORGED: (600.0, 3600.0)}
    for truth, per_day in ((Truth.UNPLUGGED, habits.unplugged_per_day), (Truth.FORGED, habits.forged_per_day)):
        for _ in range(int(rng.poisson(per_day * days))):
            _place(home, truth, "", span_s=lengths[truth], end_s=end_s, rng=rng)
    lives = tuple(
        _imagine_life(f"{number:04d}", end_s, habits, home, child)
        for number, child in enumerate(rng.spawn(residents), start=1)
    )
    return Home(lives, tuple(sorted(home)), end_s)


def _imagine_life(
    wearable: str, end_s: float, habits: Habits, home: Sequence[Event], rng: np.random.Generator
) -> Life:
    feels_skin = bool(rng.random() < habits.feels_skin)
    events, charge = _imagine_battery(wearable, end_s, habits, rng)
    taken = [*events, *(e for e in home if e.truth is Truth.UNPLUGGED)]
    events = [e for e in taken if e.wearable]
    doings = _imagine_days(end_s, habits, rng)
    for rate in RATES:
        truth = Truth.OFF_FELT if rate.truth is Truth.OFF_UNFELT and feels_skin else rate.truth
        expected = rate.per_day * end_s / DAY_S * (habits.faults if rate.fault else 1.0)
        for _ in range(int(rng.poisson(expected))):
            span = (rate.shortest_s, rate.longest_s)
            how = float(rng.choice(rate.how))
            _place(taken, truth, wearable, span_s=span, end_s=end_s, rng=rng, how=how, by_day=rate.by_day)
    for _ in range(int(rng.poisson(habits.falls_per_day * end_s / DAY_S))):
        _place(taken, Truth.FALL, wearable, span_s=LIE_S, end_s=end_s, rng=rng, awake=doings)
    for doing in doings:
        if doing.place is Place.BATHROOM and rng.random() < habits.dead_spot:
            length_s = float(rng.uniform(*habits.dead_spot_s))
            spot = _event(Truth.DEAD_SPOT, wearable, doing.begin_s + 30.0, length_s)
            if spot.end_s < doing.end_s and _is_free(taken, spot, 120.0):
                taken.append(spot)
    events = sorted({*events, *(e for e in taken if e.wearable)})
    return Life(
        wearable,
        f"{wearable}-2",
        tuple(doings),
        tuple(events),
        feels_skin=feels_skin,
        buffers=bool(rng.random() < habits.buffers),
        place_dbm={
            Place.ROOM: float(rng.uniform(-78, -55)),
            Place.LOUNGE: float(rng.uniform(-72, -50)),
            Place.BATHROOM: float(rng.uniform(-87, -70)),
        },
        charge=tuple(charge),
        dies_at_pct=5 if rng.random() < habits.dies_early else 0,
    )


def _imagine_battery(
    wearable: str, end_s: float, habits: Habits, rng: np.random.Generator
) -> tuple[list[Event], list[tuple[float, float]]]:
    """Return charges, flat batteries and their warnings, and the charge as knots."""
    life_s = max(float(rng.normal(*habits.life_days)), 2.0) * DAY_S
    part, now_s = float(rng.uniform(0.15, 1.0)), 0.0
    rota_s = float(rng.integers(0, habits.rota_days)) * DAY_S + 10 * HOUR_S
    events: list[Event] = []
    knots = [(0.0, part)]
    while now_s < end_s:
        flat_s = _snap(now_s + part * life_s)
        charge_s = _snap(rota_s + float(rng.uniform(-HOUR_S, HOUR_S)))
        rota_s += habits.rota_days * DAY_S
        if charge_s <= now_s or (charge_s < flat_s and rng.random() < habits.forgotten):
            continue
        begin_s = charge_s
        if flat_s < charge_s:  # flat before anybody charges it
            begin_s = _snap(flat_s + float(rng.uniform(HOUR_S, 10 * HOUR_S)))
            events.append(_event(Truth.FLAT, wearable, flat_s, begin_s - flat_s))
            rota_s = max(rota_s - habits.rota_days * DAY_S, charge_s + DAY_S)
        low_s, low_until_s = max(flat_s - 48 * HOUR_S, now_s), min(begin_s, flat_s)
        due_s = flat_s - 24 * HOUR_S
        if low_s < low_until_s:  # to be told a day ahead, where there was that day and nobody charged it before
            told_by_s = due_s if low_s + HOUR_S < due_s < low_until_s else FOR_EVER
            events.append(Event(low_s, low_until_s, Truth.LOW_BATTERY, wearable, told_by_s=told_by_s))
        part = max(part - (begin_s - now_s) / life_s, 0.0)
        length_s = max((1 - part) * 2.5 * HOUR_S, 0.5 * HOUR_S)
        if rng.random() < habits.left_on_charger:
            length_s = float(rng.uniform(4, 10)) * HOUR_S
        events.append(_event(Truth.CHARGING, wearable, begin_s, length_s))
        knots += [(min(begin_s, flat_s), part), (begin_s, part), (begin_s + length_s, 1.0)]
        now_s, part = events[-1].end_s, 1.0
    knots.append((now_s + life_s, 0.0))
    return [e for e in events if e.begin_s < end_s], knots


def _imagine_days(end_s: float, habits: Habits, rng: np.random.Generator) -> list[Doing]:
    """Return days of rest, care and walks, and nights with visits to the bathroom."""
    doings: list[Doing] = []
    now_s = 0.0

    def go_on(until_s: float, activity: Activity, place: Place) -> None:
        nonlocal now_s
        until_s = min(_snap(until_s), end_s)
        if until_s > now_s:
            doings.append(Doing(now_s, until_s, activity, place))
            now_s = until_s

    while now_s < end_s:
        midnight_s = now_s // DAY_S * DAY_S
        rise_s = _snap(midnight_s + float(rng.normal(7.0, 0.5)) * HOUR_S)
        bed_s = _snap(midnight_s + float(rng.normal(21.5, 0.5)) * HOUR_S)
        for visit_s in sorted(rng.uniform(midnight_s + 600, rise_s - 1200, rng.poisson(habits.night_visits))):
            go_on(visit_s, Activity.SLEEP, Place.ROOM)
            go_on(now_s + float(rng.uniform(20, 60)), Activity.WALK, Place.ROOM)
            go_on(now_s + float(rng.uniform(150, 480)), Activity.REST, Place.BATHROOM)
            go_on(now_s + float(rng.uniform(20, 60)), Activity.WALK, Place.ROOM)
        go_on(rise_s, Activity.SLEEP, Place.ROOM)
        go_on(now_s + float(rng.uniform(10, 40)) * MINUTE_S, Activity.BUSY, Place.BATHROOM)
        while now_s < min(bed_s, end_s):
            kind = rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))
            activity = (Activity.REST, Activity.BUSY, Activity.WALK, Activity.REST)[kind]
            place = Place.BATHROOM if kind == 3 else (Place.ROOM, Place.LOUNGE)[int(rng.integers(2))]
            longest_min = {Activity.REST: 60, Activity.BUSY: 40, Activity.WALK: 8}[activity]
            longest_min = 10 if kind == 3 else longest_min
            go_on(min(now_s + float(rng.uniform(2, longest_min)) * MINUTE_S, bed_s), activity, place)
        go_on(midnight_s + DAY_S, Activity.SLEEP, Place.ROOM)
    return doings


def _event(truth: Truth, wearable: str, begin_s: float, length_s: float, how: float = 0.0) -> Event:
    begin_s, end_s = _snap(begin_s), _snap(begin_s + max(length_s, BATCH_S))
    return Event(begin_s, end_s, truth, wearable, how, begin_s + LIMITS_S.get(truth, FOR_EVER))


def _place(
    taken: list[Event],
    truth: Truth,
    wearable: str,
    *,
    span_s: tuple[float, float],
    end_s: float,
    rng: np.random.Generator,
    how: float = 0.0,
    by_day: bool = False,
    awake: Sequence[Doing] = (),
) -> None:
    """Add an event where nothing else is near; after some tries in vain there is one less."""
    length_s = math.exp(float(rng.uniform(*np.log(span_s))))
    apart_s = 60.0 if truth is Truth.LOSS_BURST else APART_S
    up = [d for d in awake if d.activity in {Activity.WALK, Activity.BUSY}]
    for _ in range(20):
        begin_s = float(rng.uniform(MINUTE_S * 10, max(end_s - length_s - APART_S, MINUTE_S * 10 + 1)))
        if up:
            doing = up[int(rng.integers(len(up)))]
            begin_s = float(rng.uniform(doing.begin_s, doing.end_s))
        event = _event(truth, wearable, begin_s, length_s, how)
        hour = begin_s % DAY_S / HOUR_S
        inside = event.begin_s >= 300 and event.end_s <= end_s - 60
        if inside and not (by_day and not 9 <= hour <= 17) and _is_free(taken, event, apart_s):
            taken.append(event)
            return


def _is_free(taken: Iterable[Event], event: Event, apart_s: float) -> bool:
    return all(
        e.truth is Truth.LOW_BATTERY or e.end_s + apart_s <= event.begin_s or event.end_s + apart_s <= e.begin_s
        for e in taken
    )


def _snap(at_s: float) -> float:
    return round(at_s / BATCH_S) * BATCH_S
