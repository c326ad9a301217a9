"""Recordings of nobody, for tests that need no data set."""

from __future__ import annotations

import numpy as np

from training.readers import Trial


def trial(
    *,
    seconds: float = 12.0,
    rate_hz: float = 50.0,
    impact_s: float | None = None,
    person: str = "set/1",
    placement: str = "wrist",
    seed: int = 0,
) -> Trial:
    """A person standing, then (with an impact) lying on another side."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    a = np.tile([0.0, 1.0, 0.0], (len(t), 1)) + rng.normal(0, 0.02, (len(t), 3))
    if impact_s is not None:
        a[t > impact_s] += [1.0, -1.0, 0.0]
        a[(t > impact_s - 0.4) & (t < impact_s)] *= 0.2
        a[(t >= impact_s) & (t < impact_s + 0.15)] = [4.0, 3.0, 2.0]
    return Trial(
        dataset=person.partition("/")[0],
        person=person,
        activity="fall" if impact_s is not None else "stand",
        is_fall=impact_s is not None,
        placement=placement,
        rate_hz=rate_hz,
        range_g=16.0,
        age_group="young",
        time_s=t,
        accel_g=a.astype(np.float32),
        source="made up",
    )


def trials_of(*sets: str, people: int, lent: str = "") -> list[Trial]:
    """A fall and two daily trials of each person of each set, and those of one set at the waist as well."""
    made: list[Trial] = []
    for name in sets:
        for number in range(people):
            person, seed = f"{name}/{number}", 100 * len(made)
            for placement in ("wrist", "waist") if name == lent else ("wrist",):
                made += [
                    trial(person=person, placement=placement, seed=seed, impact_s=5.0 + number / people),
                    trial(person=person, placement=placement, seed=seed + 1),
                    trial(person=person, placement=placement, seed=seed + 2, seconds=8.0),
                ]
    return made
