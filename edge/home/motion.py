"""What wearables measure, from recordings of people: int16 counts at 50 Hz, in blocks.

Recorded pieces are joined by still ones in the posture in which the last piece ended. What nobody
recorded is made up: sleep, a table, a charger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.home.scenario import Activity
from edge.recording import read_recording

Counts: TypeAlias = NDArray[np.int16]  # shape (n, 3), axes x y z, `COUNTS_PER_G` to one g
RATE_HZ = 50
RANGE_G = 16
COUNTS_PER_G = 32768 / RANGE_G
RECORDINGS = Path(__file__).resolve().parent.parent.parent / "tests" / "data"

# Assumed, in g: noise of a cheap sensor; breath at the wrist of somebody who sleeps, 0.25 Hz.
NOISE_G, BREATH_G, BREATH_HZ = 0.003, 0.004, 0.25
TWITCH_EVERY_S, TURN_EVERY_S = 300.0, 1500.0  # in sleep, on average; assumed, after wrist actigraphy
JOIN_SAMPLES = 20
SHORTEST_SAMPLES = RATE_HZ
_TAPE = 20_000  # samples of noise made once; pieces of it start anywhere

SETS = ("umafall", "smartfallmm", "geotec")  # with wrist sensors of 8 g and more
WALKS = ("walk", "stairs", "step-up")
UNLIKELY = ("jog", "hop", "applau", "aplau")  # not in a care home
BUSY_PART = {Activity.WALK: 0.8, Activity.BUSY: 0.5, Activity.REST: 0.06}  # of the time, recorded motion; assumed


@dataclass(frozen=True, slots=True)
class Fall:
    """One recorded fall; ``impact`` is the index of the greatest acceleration."""

    name: str
    counts: Counts
    impact: int


@dataclass(frozen=True, slots=True)
class Pool:
    """What can be played, and where it is from."""

    walks: tuple[Counts, ...]
    busy: tuple[Counts, ...]
    falls: tuple[Fall, ...]
    said: str

    def of(self, activity: Activity) -> tuple[Counts, ...]:
        """Return the recordings of an activity."""
        return self.walks if activity is Activity.WALK else self.busy


@cache
def load_pool(data: str | None) -> Pool:
    """Return the recordings of the public sets in ``data``, else the short ones, else made-up motion."""
    if data:
        try:
            return _public_pool(Path(data))
        except ImportError as error:
            why = f"the training extra is not installed ({error.name}); "
        except (OSError, ValueError) as error:
            why = f"the public sets cannot be used ({error}); "
    else:
        why = "FALLWATCH_DATA is not set; "
    if RECORDINGS.is_dir():
        return _short_pool(why)
    return _made_up_pool(why)


def _public_pool(data: Path) -> Pool:
    from training.datasets import DataMissing, load  # noqa: PLC0415  # heavy, and not always installed

    try:
        trials, _ = load(SETS, root=data)
    except DataMissing as error:
        raise ValueError(str(error)) from None
    walks: list[Counts] = []
    busy: list[Counts] = []
    falls: list[Fall] = []
    for trial in trials:
        if trial.placement != "wrist" or trial.range_g < 4 or any(w in trial.activity.lower() for w in UNLIKELY):
            continue
        counts = as_counts(trial.time_s, trial.accel_g)
        if trial.is_fall and trial.impact_s is not None:
            impact = round((trial.impact_s - float(trial.time_s[0])) * RATE_HZ)
            falls.append(Fall(f"{trial.dataset}/{trial.source}", counts, min(impact, len(counts) - 1)))
        elif not trial.is_fall and len(counts) >= SHORTEST_SAMPLES:
            (walks if any(w in trial.activity.lower() for w in WALKS) else busy).append(counts)
    hours = sum(map(len, (*walks, *busy))) / RATE_HZ / 3600
    said = (
        f"{len(walks) + len(busy)} activities ({hours:.1f} h) and {len(falls)} falls of {', '.join(SETS)}, wrist"
    )
    return Pool(tuple(walks), tuple(busy), tuple(falls), said + "; the shipped models learnt from these people")


def _short_pool(why: str) -> Pool:
    walks: list[Counts] = []
    busy: list[Counts] = []
    falls: list[Fall] = []
    for path in sorted(RECORDINGS.glob("*-wrist.csv")):
        run = max(read_recording(path).runs, key=lambda r: len(r.t_s))
        counts = as_counts(run.t_s, run.accel_g)
        if path.name.startswith("fall"):
            falls.append(Fall(path.name, counts, _impact(counts)))
        else:
            (walks if path.name.startswith("walk") else busy).append(counts)
    return Pool(tuple(walks), tuple(busy), tuple(falls), f"{why}the short recordings in tests/data are played")


def _made_up_pool(why: str) -> Pool:
    rng = np.random.default_rng(0)
    t_s = np.arange(20 * RATE_HZ) / RATE_HZ

    def moved(hz: float, swing_g: float) -> Counts:
        motion_g = np.outer(np.sin(2 * np.pi * hz * t_s), swing_g * rng.uniform(0.3, 1, 3))
        return as_counts(t_s, (motion_g + rng.normal(0, 0.02, motion_g.shape) + (0, 0, 1)).astype(np.float32))

    falls = []
    for number in range(2):
        fallen = moved(0.3, 0.1)
        fallen[300:315] = fallen[300:315] // 4
        fallen[315:320] = fallen[315:320] * 5
        falls.append(Fall(f"made up {number}", fallen, _impact(fallen)))
    walks, busy = tuple(moved(1.8, 0.3) for _ in range(8)), tuple(moved(0.7, 0.2) for _ in range(8))
    return Pool(walks, busy, tuple(falls), f"{why}made-up motion is played, recordings of nobody")


def as_counts(time_s: NDArray[np.float64], accel_g: NDArray[np.float32]) -> Counts:
    """Return samples of any rate as counts at `RATE_HZ`, holes bridged."""
    at_s = np.arange(float(time_s[0]), float(time_s[-1]) + 1e-9, 1 / RATE_HZ)
    even_g = np.stack([np.interp(at_s, time_s, accel_g[:, axis]) for axis in range(3)], axis=1)
    counts: Counts = np.clip(np.round(even_g * COUNTS_PER_G), -32768, 32767).astype(np.int16)
    return counts


def _impact(counts: Counts) -> int:
    return int(np.linalg.norm(counts.astype(np.float32), axis=1).argmax())


class Mover:
    """One wrist: blocks of counts that follow each other without a jump."""

    def __init__(self, pool: Pool, rng: np.random.Generator) -> None:
        self._pool = pool
        self._rng = rng
        self._noise = np.round(rng.normal(0, NOISE_G * COUNTS_PER_G, (_TAPE, 3))).astype(np.int16)
        turns = np.arange(_TAPE) * (2 * np.pi * BREATH_HZ / RATE_HZ)
        breath = np.outer(np.sin(turns), rng.normal(0, 1, 3)) * BREATH_G * COUNTS_PER_G
        self._breath = self._noise + np.round(breath).astype(np.int16)
        self._posture = self._turned()
        self._rest: Counts = np.empty((0, 3), np.int16)  # of the recording that is being played
        self._last_fall = ""

    def awake(self, activity: Activity, n: int) -> Counts:
        """Return ``n`` samples of somebody up, or sitting."""
        parts: list[Counts] = []
        while n > 0:
            if not len(self._rest) and self._rng.random() < BUSY_PART[activity]:
                recordings = self._pool.of(activity)
                self._rest = self._joined(recordings[int(self._rng.integers(len(recordings)))])
            part = self._rest[:n] if len(self._rest) else self._still(self._breath, min(n, 6 * RATE_HZ))
            self._rest = self._rest[len(part) :]
            parts.append(part)
            n -= len(part)
        return self._ended(parts)

    def asleep(self, n: int) -> Counts:
        """Return ``n`` samples of somebody asleep: breath, now and then a twitch, or a turn."""
        self._rest = self._rest[:0]
        counts = self._still(self._breath, n)
        seconds = n / RATE_HZ
        for _ in range(int(self._rng.poisson(seconds / TWITCH_EVERY_S))):
            at = int(self._rng.integers(n))
            length = min(int(self._rng.uniform(0.5, 2.0) * RATE_HZ), n - at)
            swing = self._rng.normal(0, self._rng.uniform(0.02, 0.15) * COUNTS_PER_G, (length, 3))
            counts[at : at + length] += swing.astype(np.int16)
        if self._rng.random() < seconds / TURN_EVERY_S:
            self._posture = self._turned()
            at = int(self._rng.integers(n))
            counts[at:] = self._joined(self._still(self._breath, n - at), counts[max(at - 1, 0)])
        return counts

    def lying_about(self, n: int) -> Counts:
        """Return ``n`` samples of a wearable that nobody wears: noise of its sensor alone."""
        self._rest = self._rest[:0]
        return self._still(self._noise, n)

    def fall(self) -> tuple[Counts, int]:
        """Return a fall and the index of its impact; never the same one twice in a row."""
        others = [f for f in self._pool.falls if f.name != self._last_fall] or list(self._pool.falls)
        fall = others[int(self._rng.integers(len(others)))]
        self._last_fall, self._rest = fall.name, self._rest[:0]
        counts = self._joined(fall.counts)
        self._posture = _posture(counts)
        return counts, fall.impact

    def _still(self, tape: Counts, n: int) -> Counts:
        at = int(self._rng.integers(_TAPE))
        counts: Counts = self._posture + np.take(tape, range(at, at + n), axis=0, mode="wrap")
        return counts

    def _joined(self, counts: Counts, before: Counts | None = None) -> Counts:
        """Return counts whose beginning turns over from the present posture: |a| never dips on the way."""
        n = min(JOIN_SAMPLES, len(counts))
        part = np.linspace(0, 1, n, dtype=np.float32)[:, None]
        old = (self._posture if before is None else before).astype(np.float32)
        new = counts[:n].astype(np.float32)
        mixed = old + (new - old) * part
        length = np.linalg.norm(old) + (np.linalg.norm(new, axis=1, keepdims=True) - np.linalg.norm(old)) * part
        mixed *= length / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1.0)
        joined: Counts = counts.copy()
        joined[:n] = mixed.astype(np.int16)
        return joined

    def _ended(self, parts: Sequence[Counts]) -> Counts:
        counts: Counts = np.concatenate(parts)
        if len(counts) >= JOIN_SAMPLES:
            self._posture = _posture(counts)
        return counts

    def _turned(self) -> Counts:
        direction = self._rng.normal(0, 1, 3)
        turned: Counts = np.round(direction / np.linalg.norm(direction) * COUNTS_PER_G).astype(np.int16)
        return turned


def _posture(counts: Counts) -> Counts:
    """Return which way is down at the end of a block, one g long."""
    mean = counts[-RATE_HZ:].astype(np.float64).mean(axis=0)
    posture: Counts = np.round(mean / max(float(np.linalg.norm(mean)), 1.0) * COUNTS_PER_G).astype(np.int16)
    return posture
