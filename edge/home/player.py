"""What the Pi hears from a made-up home: messages in order of their arrival, with their strength.

Known to be simpler than life: sensors keep their nominal rate to the last digit, and one receiver hears all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.home.motion import RANGE_G, RATE_HZ, Counts, Mover, Pool
from edge.home.scenario import BATCH_S, Activity, Event, Home, Life, Truth
from firmware_bridge.wire import BUTTON_HELD, CHARGING, CLIPPED, TICK_HZ, WORN, Button, Hello, Samples, Status

Message: TypeAlias = Samples | Status | Hello | Button
Heard: TypeAlias = tuple[float, str, Message, int]  # received (s), wearable, message, rssi (dBm)

BLOCK_S = 60.0
BATCH = round(BATCH_S * RATE_HZ)  # samples
STATUS_EVERY_S, HELLO_EVERY_S = 30.0, 60.0
KEPT_BATCHES = 60  # 30 s, by a wearable that keeps what was lost
GOOD, OLD = (1, 0, 0), (0, 0, 1)  # versions of firmware
# Radio; all assumed: half of the packets are lost at `HALF_DBM`, and few are 5 dB above it.
HALF_DBM, SLOPE_DB, BASE_LOSS = -94.0, 1.3, 0.005
SHADOW_DB, PACKET_DB = 3.0, 2.0
DEAD_SPOT_DBM, WEAK_DBM, FADED_DBM = -97.0, -93.7, -98.0
FADE_S = 30.0  # walking away, and coming back
BURST_LOSS = 0.9
_OFF = frozenset({Truth.BROKEN, Truth.FLAT})
_BEGINS_ANEW = frozenset({Truth.RATE, Truth.SCALE, Truth.FIRMWARE})  # settings and firmware change at a start
_ENDS_ANEW = _BEGINS_ANEW | {Truth.CLOCK, Truth.BUTTON}
_UNWORN = frozenset({Truth.CHARGING, Truth.OFF_FELT, Truth.OFF_UNFELT})


def play(home: Home, pool: Pool, rng: np.random.Generator, lives: Sequence[int] | None = None) -> Iterator[Heard]:
    """Yield what is heard from the named lives, all by default, in order of time."""
    children = rng.spawn(len(home.lives))
    chosen = range(len(home.lives)) if lives is None else lives
    unplugged = [e for e in home.events if e.truth is Truth.UNPLUGGED]
    players = [LifePlayer(home.lives[i], pool, children[i]) for i in chosen]
    late: list[Heard] = []
    for block in range(math.ceil(home.end_s / BLOCK_S)):
        begin_s, end_s = block * BLOCK_S, min((block + 1) * BLOCK_S, home.end_s)
        for player in players:
            late += player.block(begin_s, end_s)
        late.sort(key=itemgetter(0))
        if any(e.begin_s < end_s + BLOCK_S and begin_s < e.end_s for e in unplugged):
            late = [h for h in late if not any(e.begin_s <= h[0] < e.end_s for e in unplugged)]
        for i, heard in enumerate(late):
            if heard[0] >= end_s:
                late = late[i:]
                break
            yield heard
        else:
            late = []


class LifePlayer:
    """One resident's wearables."""

    def __init__(self, life: Life, pool: Pool, rng: np.random.Generator) -> None:
        self._life = life
        self._rng = rng
        self._mover = Mover(pool, rng)
        self._main = _Wearable(life.wearable, life, rng)
        self._spare = _Wearable(life.spare, life, rng)
        self._spare_mover = Mover(pool, rng)
        self._falling: Counts = np.empty((0, 3), np.int16)
        self._fallen: set[float] = set()
        self._events = deque(life.events)
        self._near: list[Event] = []  # begun or soon to begin, not yet long over

    def block(self, begin_s: float, end_s: float) -> list[Heard]:
        """Return what is heard of what is sampled in ``[begin_s, end_s)``; blocks follow each other."""
        while self._events and self._events[0].begin_s < end_s + FADE_S:
            self._near.append(self._events.popleft())
        self._near = [e for e in self._near if e.end_s + FADE_S > begin_s]
        cuts = {begin_s, end_s}
        cuts.update(c for e in self._near for c in (e.begin_s, e.end_s) if begin_s < c < end_s)
        at_s = begin_s
        while (at_s := self._life.doing(at_s).end_s) < end_s:
            cuts.add(at_s)
        heard: list[Heard] = []
        times = sorted(cuts)
        for i in range(len(times) - 1):
            heard += self._stretch(times[i], times[i + 1])
        return heard

    def _stretch(self, begin_s: float, end_s: float) -> list[Heard]:
        now = [e for e in self._near if e.begin_s <= begin_s < e.end_s]
        n = round((end_s - begin_s) * RATE_HZ)
        counts = self._counts(begin_s, n, now)
        dbm = self._dbm(begin_s, round((end_s - begin_s) / BATCH_S))
        heard = self._main.hear(begin_s, end_s, counts, dbm, now)
        if any(e.truth is Truth.TWO_WORN for e in now):
            doing = self._life.doing(begin_s)
            # The other arm does much the same at the same time, but not the very same.
            other = self._spare_mover.asleep(n) if doing.activity is Activity.SLEEP else counts[:, [1, 2, 0]]
            heard += self._spare.hear(begin_s, end_s, other, dbm, [])
        else:
            self._spare.off = True
        return heard

    def _counts(self, begin_s: float, n: int, now: list[Event]) -> Counts:
        if any(e.truth in _UNWORN for e in now):
            return self._mover.lying_about(n)
        activity = self._life.doing(begin_s).activity
        fall = next((e for e in now if e.truth is Truth.FALL), None)
        if fall is not None:
            if fall.begin_s not in self._fallen:
                self._fallen.add(fall.begin_s)
                fallen, impact = self._mover.fall()
                # The event begins with the impact: what came before it is cut to 3 s and played at once.
                self._falling = fallen[max(impact - 3 * RATE_HZ, 0) :]
            parts = [self._falling[:n]]
            self._falling = self._falling[n:]
            if len(parts[0]) < n:
                parts.append(self._mover.asleep(n - len(parts[0])))
            return np.concatenate(parts)
        return self._mover.asleep(n) if activity is Activity.SLEEP else self._mover.awake(activity, n)

    def _dbm(self, begin_s: float, batches: int) -> NDArray[np.float64]:
        """Return the strength of each batch, shape (batches,), dBm."""
        at_s = begin_s + np.arange(batches) * BATCH_S
        dbm = np.full(batches, self._life.place_dbm[self._life.doing(begin_s).place])
        dbm += self._rng.normal(0, SHADOW_DB)
        for event in self._near:
            if event.truth is Truth.OUT_OF_RANGE:
                away_s = np.maximum(event.begin_s - at_s, at_s - event.end_s)  # below zero: away
                part = np.clip(1 - away_s / FADE_S, 0, 1)
                dbm = np.where(away_s <= 0, -130.0, dbm + (np.minimum(FADED_DBM, dbm) - dbm) * part)
            elif event.truth in {Truth.DEAD_SPOT, Truth.WEAK_RADIO}:
                inside = (at_s >= event.begin_s) & (at_s < event.end_s)
                least = DEAD_SPOT_DBM if event.truth is Truth.DEAD_SPOT else WEAK_DBM
                dbm = np.where(inside, np.minimum(dbm, least), dbm)
        dbm += self._rng.normal(0, PACKET_DB, batches)
        return dbm


class _Wearable:
    """One device: numbers its samples, has faults, keeps what was lost."""

    def __init__(self, wearable: str, life: Life, rng: np.random.Generator) -> None:
        self._wearable = wearable
        self._life = life
        self._rng = rng
        self._phase_s = float(rng.uniform(0, BATCH_S))
        self._boot, self._boot_s, self._next = 0, 0.0, 0
        self._stuck_tick = 0
        self._jump_ticks = 0
        self._kept: deque[Samples] = deque(maxlen=KEPT_BATCHES)
        self._last = np.zeros(3, np.int16)
        self._was: set[Truth] = set()
        self.off = True

    def hear(
        self, begin_s: float, end_s: float, counts: Counts, dbm: NDArray[np.float64], now: list[Event]
    ) -> list[Heard]:
        """Return what is heard of a stretch within which nothing changes; it begins on a batch."""
        truths = {e.truth for e in now}
        how = {e.truth: e.how for e in now}
        if truths & _OFF:
            self.off = True
            self._kept.clear()
            self._was = truths
            return []
        if self.off or (self._was - truths) & _ENDS_ANEW or (truths - self._was) & _BEGINS_ANEW:
            self._start(begin_s)
        counts = self._with_faults(counts, truths, how)
        flags = 0 if truths & {Truth.CHARGING, Truth.OFF_FELT} else WORN
        flags |= CHARGING * (Truth.CHARGING in truths) | BUTTON_HELD * (Truth.BUTTON in truths)
        samples = self._samples(begin_s, counts, flags, truths, how)
        heard = self._send(begin_s, samples, dbm, Truth.LOSS_BURST in truths)
        heard += self._say(begin_s, end_s, flags, truths, dbm)
        self._was = truths
        return heard

    def _start(self, begin_s: float) -> None:
        self.off = False
        self._boot, self._boot_s, self._next = self._boot + 1, begin_s, 0
        self._jump_ticks = 0
        self._was = set()
        self._kept.clear()

    def _with_faults(self, counts: Counts, truths: set[Truth], how: dict[Truth, float]) -> Counts:
        if Truth.FROZEN in truths:
            if Truth.FROZEN not in self._was:
                self._last = counts[0].copy()
            return np.broadcast_to(self._last, counts.shape)
        if Truth.SATURATED in truths:
            counts = counts.copy()
            counts[:, 0] = 32767
        if Truth.AXES in truths:  # one line of the bus is read twice
            counts = counts[:, [0, 0, 2]]
        if Truth.SCALE in truths:
            counts = np.clip(counts * how[Truth.SCALE], -32768, 32767).astype(np.int16)
        return counts

    def _samples(
        self, begin_s: float, counts: Counts, flags: int, truths: set[Truth], how: dict[Truth, float]
    ) -> list[tuple[int, Samples]]:
        """Return the batches and in which slot of `BATCH_S` each is complete."""
        rate_chz, every = RATE_HZ * 100, 1
        if Truth.RATE in truths:
            if how[Truth.RATE] > 1:  # samples at 25 Hz, says 50
                counts, every = counts[::2], 2
            else:
                rate_chz //= 2
        octets = np.ascontiguousarray(counts, "<i2").tobytes()
        size = 6 * BATCH
        base = round((begin_s - self._boot_s) * TICK_HZ) + self._jump_ticks
        step = round(BATCH_S * every * TICK_HZ)
        if Truth.CLOCK in truths and how[Truth.CLOCK] == 0.0:
            if Truth.CLOCK not in self._was:
                self._stuck_tick = base
            base, step = self._stuck_tick, 0
        railed = Truth.SATURATED in truths or int(counts.max()) == 32767 or int(counts.min()) == -32768
        samples = []
        for i, at in enumerate(range(0, len(octets), size)):
            if Truth.CLOCK in truths and how[Truth.CLOCK] and self._rng.random() < BATCH_S / 10:
                leap = int(self._rng.uniform(-600, 600) * TICK_HZ)
                self._jump_ticks += leap
                base += leap
            xyz = octets[at : at + size]
            tick = (base + i * step) & 0xFFFF_FFFF
            flagged = flags | CLIPPED * railed
            slot = min((i + 1) * every - 1, round(len(octets) / size * every) - 1)
            message = Samples(self._boot, tick, self._next & 0xFFFF_FFFF, rate_chz, RANGE_G, flagged, xyz)
            samples.append((slot, message))
            self._next += len(xyz) // 6
        return samples

    def _send(
        self, begin_s: float, samples: list[tuple[int, Samples]], dbm: NDArray[np.float64], burst: bool
    ) -> list[Heard]:
        lost_part = BASE_LOSS + 1 / (1 + np.exp(np.minimum((dbm - HALF_DBM) / SLOPE_DB, 50.0)))
        if burst:
            lost_part = np.maximum(lost_part, BURST_LOSS)
        lost = (self._rng.random(len(dbm)) < lost_part).tolist()
        delay_s = self._rng.uniform(0, 0.04, len(dbm)).tolist()
        strength = np.round(dbm).astype(int).tolist()
        done_s = begin_s + BATCH_S + self._phase_s
        heard: list[Heard] = []
        for slot, message in samples:
            if slot >= len(lost):
                break
            if lost[slot]:
                if self._life.buffers:
                    self._kept.append(message)
                continue
            received_s = done_s + slot * BATCH_S + delay_s[slot]
            heard.append((received_s, self._wearable, message, strength[slot]))
            if self._kept and lost_part[slot] < 0.5:
                heard += [
                    (received_s + 0.02 * k, self._wearable, kept, strength[slot])
                    for k, kept in enumerate(self._kept, start=1)
                ]
                self._kept.clear()
        return heard

    def _say(
        self, begin_s: float, end_s: float, flags: int, truths: set[Truth], dbm: NDArray[np.float64]
    ) -> list[Heard]:
        """Return hello, status and a stuck button's press, when due; all at the mercy of the radio."""
        rate_chz = RATE_HZ * 100
        firmware = OLD if Truth.FIRMWARE in truths else GOOD
        hello = Hello(self._boot, firmware, 0, RANGE_G, rate_chz)
        said: list[tuple[float, Message]] = [
            (at_s, hello) for at_s in _due(begin_s, end_s, HELLO_EVERY_S, self._boot_s)
        ]
        for at_s in _due(begin_s, end_s, STATUS_EVERY_S, self._boot_s):
            pct = self._life.battery_pct(at_s)
            said.append((at_s, Status(pct, 3300 + 9 * pct, 30, flags, int(at_s - self._boot_s))))
        if Truth.BUTTON in truths and Truth.BUTTON not in self._was:
            said.append((begin_s, Button(self._boot, 1, round((begin_s - self._boot_s) * TICK_HZ), 1500)))
        heard: list[Heard] = []
        for at_s, message in said:
            strength = float(dbm[min(int((at_s - begin_s) / BATCH_S), len(dbm) - 1)])
            if self._rng.random() >= 1 / (1 + math.exp(min((strength - HALF_DBM) / SLOPE_DB, 50.0))):
                heard.append((at_s + self._phase_s, self._wearable, message, round(strength)))
        return heard


def _due(begin_s: float, end_s: float, every_s: float, from_s: float) -> list[float]:
    first = math.ceil((begin_s - from_s) / every_s)
    last = math.ceil((end_s - from_s) / every_s)
    return [from_s + k * every_s for k in range(first, last)]
