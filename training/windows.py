"""From trials to the windows a network learns from: other devices, radio loss, and what came before.

A trial's samples go through the daemon's resampler as if another device had sent them, behind a
stretch of the same person's day or behind its own first sample held, as the daemon begins a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Accel, CausalResampler, Times, as_samples
from training.readers import Trial

RATES_HZ = (20.0, 25.0, 32.0, 50.0, 100.0)
RANGES_G = (2.0, 4.0, 8.0, 16.0)
NOT_YET_S = 0.6  # a window that ends so soon after an impact is no fall yet; nor one whose impact leaves soon
BEFORE_FALL_S = 1.5  # windows that end later than this before an impact are not held against the network
# A fall cut by hand that shows no impact is not learnt from, though it is tested on.
IMPACT_G = 1.8
HELD_SHARE = 0.15  # of windows that begin with their first sample held, as the daemon begins a segment
HELD_CLEAR_S = 0.3  # before an impact that is not held over


@dataclass(frozen=True, slots=True)
class Shape:
    """How windows are cut."""

    rate_hz: float = 32.0
    window_samples: int = 160
    hop_samples: int = 16


@dataclass(frozen=True, slots=True)
class Pool:
    """Streams end to end, and the windows in them.

    ``samples``: shape (n, 3), float32, g. ``ends``: int64, a window is the `window_samples` before its
    end. ``falls``: bool. ``weights``: float64, by set and person, summing to 1 within each class.
    ``held``: int64, how many samples of a window repeat the one after them, as at a segment's beginning.
    """

    samples: Accel
    ends: NDArray[np.int64]
    falls: NDArray[np.bool_]
    weights: NDArray[np.float64]
    held: NDArray[np.int64]


def as_device(trial: Trial, rng: np.random.Generator) -> tuple[Times, Accel, float]:
    """Return a trial as another device might have recorded it.

    Returns:
        Times in seconds, samples in g, and the factor by which time was stretched.
    """
    a: NDArray[np.floating] = trial.accel_g
    t = trial.time_s
    stretch = float(rng.uniform(0.88, 1.14))
    t = (t - t[0]) * stretch
    rate_hz = float(rng.choice(RATES_HZ))
    if rng.random() < 0.6 and rate_hz < trial.rate_hz * 0.9:
        even = np.arange(0.0, t[-1], 1 / rate_hz) + rng.uniform(0, 1 / rate_hz)
        if rng.random() < 0.5:  # a sensor that filters before it samples
            smooth = max(1, round(trial.rate_hz / rate_hz))
            kernel = np.ones(smooth) / smooth
            a = np.stack([np.convolve(a[:, i], kernel, mode="same") for i in range(3)], axis=1)
        a = np.stack([np.interp(even, t, a[:, i]) for i in range(3)], axis=1)
        t = even
    # Another way round, left or right: the network sees no difference, but the range cuts axis by axis.
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a = a @ turn * rng.uniform(0.94, 1.06) + rng.normal(0, 0.02, 3)
    if rng.random() < 0.5:
        limit_g = float(rng.choice(RANGES_G, p=(0.08, 0.22, 0.45, 0.25)))
        a = np.clip(a, -limit_g, limit_g)
    if rng.random() < 0.25:  # packets lost; the resampler bridges
        keep = np.ones(len(t), bool)
        # So many a second, whatever the trial's length: falls and daily trials are not equally long.
        for start in rng.uniform(0, t[-1], size=1 + rng.poisson(0.15 * t[-1])):
            keep &= (t < start) | (t > start + rng.uniform(0.05, 0.7))
        if keep.sum() > 2:
            t, a = t[keep], a[keep]
    return t, a.astype(np.float32), stretch


def peak_g(trial: Trial) -> float:
    """Return the largest |a|."""
    return float(np.linalg.norm(trial.accel_g, axis=1).max())


def at_rate(t_s: Times, accel_g: Accel, rate_hz: float) -> tuple[int, Accel]:
    """Return samples at the model's rate and the grid index of the first."""
    return CausalResampler(rate_hz).push(t_s, accel_g)


def build_pool(
    trials: Sequence[Trial],
    shape: Shape,
    *,
    variants: int,
    set_weights: dict[str, float],
    rng: np.random.Generator,
) -> Pool:
    """Cut windows from ``variants`` renderings of every trial."""
    day: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        if not trial.is_fall:
            day.setdefault(trial.dataset, {}).setdefault(trial.person, []).append(trial)
    window, rate_hz = shape.window_samples, shape.rate_hz
    parts: list[Accel] = []
    ends: list[NDArray[np.int64]] = []
    falls: list[bool] = []
    owners: list[tuple[str, str]] = []
    impacts: list[NDArray[np.int64]] = []  # where in its window a fall's impact is; -1 for the others
    at = 0
    learnt = [t for t in trials if not (t.is_fall and t.is_cut_by_hand and peak_g(t) < IMPACT_G)]
    for _ in range(variants):
        for trial in learnt:
            t, a, stretch = as_device(trial, rng)
            first, body = at_rate(t, a, rate_hz)
            if len(body) == 0:
                continue
            lead = _lead(trial, day.get(trial.dataset, {}), body, shape, rng)
            if trial.impact_s is None:
                # Every hop of the trial, the joint with what came before included.
                cut = np.arange(int(rng.integers(1, shape.hop_samples + 1)), len(body) + 1, shape.hop_samples)
                labels = np.zeros(len(cut), bool)
                impacts.append(np.full(len(cut), -1))
            else:
                impact = int((trial.impact_s - trial.time_s[0]) * stretch * rate_hz) - first + 1
                soon, late = as_samples(NOT_YET_S, rate_hz=rate_hz), as_samples(BEFORE_FALL_S, rate_hz=rate_hz)
                yes = np.arange(impact + soon, min(impact + window - soon, len(body)) + 1, 4)
                no = np.arange(int(rng.integers(1, shape.hop_samples + 1)), impact - late, shape.hop_samples)
                if trial.is_cut_by_hand:  # what comes before the impact may be the fall
                    no = no[:0]
                cut = np.concatenate([yes[yes > 0], no])
                labels = np.arange(len(cut)) < np.count_nonzero(yes > 0)
                impacts.append(np.where(labels, impact + window - cut, -1))
            parts += [lead, body]
            ends.append(cut + at + len(lead))
            falls += labels.tolist()
            owners += [(trial.dataset, trial.person)] * len(cut)
            at += len(lead) + len(body)
    is_fall = np.array(falls)
    weights = _weights(owners, is_fall, set_weights)
    held = _held(np.concatenate(impacts), as_samples(HELD_CLEAR_S, rate_hz=rate_hz), weights, rng)
    return Pool(np.concatenate(parts), np.concatenate(ends), is_fall, weights, held)


def _lead(trial: Trial, day: dict[str, list[Trial]], body: Accel, shape: Shape, rng: np.random.Generator) -> Accel:
    """Return a window or more of daily life to stand before a trial: the person's own, or another's of that set.

    Where the set has none, the trial's first sample held.
    """
    own = day.get(trial.person) or [t for trials in day.values() for t in trials]
    parts: list[Accel] = []
    while own and sum(map(len, parts)) < shape.window_samples:
        parts.append(at_rate(*as_device(own[rng.integers(len(own))], rng)[:2], shape.rate_hz)[1])
    return np.concatenate(parts) if parts else np.repeat(body[:1], shape.window_samples, axis=0)


def _held(
    impacts: NDArray[np.int64], clear: int, weights: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how much of each window's beginning is held; it says nothing of the class.

    A fall is held at most up to shortly before its impact. A daily window borrows a fall's impact, so that it is
    held as far.
    """
    real = np.flatnonzero(impacts >= 0)
    if len(real) == 0:
        return np.zeros(len(impacts), np.int64)
    borrowed = rng.choice(real, len(impacts), p=weights[real] / weights[real].sum())
    most = np.maximum(np.where(impacts >= 0, impacts, impacts[borrowed]) - clear, 0)
    held: NDArray[np.int64] = rng.integers(0, most + 1) * (rng.random(len(impacts)) < HELD_SHARE)
    return held


def _weights(
    owners: list[tuple[str, str]], falls: NDArray[np.bool_], set_weights: dict[str, float]
) -> NDArray[np.float64]:
    """Weigh each set as told, and within a set each person by the root of what there is of them."""
    names = sorted(set(owners))
    number = {name: i for i, name in enumerate(names)}
    owner = np.array([number[o] for o in owners])
    weights = np.zeros(len(owner))
    for label in (False, True):
        counts = np.bincount(owner[falls == label], minlength=len(names)).astype(np.float64)
        share = np.sqrt(counts)
        for dataset in {d for d, _ in names}:
            of = np.array([d == dataset for d, _ in names])
            share[of] *= set_weights.get(dataset, 1.0) / max(share[of].sum(), 1e-9)
        per_window = share / np.maximum(counts, 1.0)
        mine = falls == label
        weights[mine] = per_window[owner[mine]] / max(share.sum(), 1e-9)
    return weights


def gather(pool: Pool, index: NDArray[np.int64], window_samples: int) -> Accel:
    """Return windows, shape (len(index), window_samples, 3), float32, g."""
    held = pool.held[index][:, None]
    rows = pool.ends[index][:, None] + np.maximum(np.arange(-window_samples, 0), held - window_samples)
    windows: Accel = pool.samples[rows]
    return windows
