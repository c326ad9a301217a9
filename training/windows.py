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
    """

    samples: Accel
    ends: NDArray[np.int64]
    falls: NDArray[np.bool_]
    weights: NDArray[np.float64]


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
        for start in rng.uniform(0, t[-1], size=rng.integers(1, 5)):
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
    day: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        if not trial.is_fall:
            day.setdefault((trial.person, trial.dataset), []).append(trial)
    window, rate_hz = shape.window_samples, shape.rate_hz
    parts: list[Accel] = []
    ends: list[NDArray[np.int64]] = []
    falls: list[bool] = []
    owners: list[tuple[str, str]] = []
    at = 0
    learnt = [t for t in trials if not (t.is_fall and t.is_cut_by_hand and peak_g(t) < IMPACT_G)]
    for variant in range(variants):
        for trial in learnt:
            t, a, stretch = as_device(trial, rng)
            first, body = at_rate(t, a, rate_hz)
            if len(body) == 0:
                continue
            before = day.get((trial.person, trial.dataset), [])
            lead = np.repeat(body[:1], window, axis=0)  # as the daemon begins a segment
            if before and (variant % 2 == 1 or (trial.is_fall and rng.random() < 0.5)):
                _, other = at_rate(*as_device(before[rng.integers(len(before))], rng)[:2], rate_hz)
                if len(other):
                    lead = np.concatenate([lead, other])[-window - rng.integers(0, window) :]
                    lead = np.concatenate([np.repeat(lead[:1], max(0, window - len(lead)), axis=0), lead])
            if trial.impact_s is None:
                # Every hop of the trial, the joint with what came before included.
                cut = np.arange(int(rng.integers(1, shape.hop_samples + 1)), len(body) + 1, shape.hop_samples)
                labels = np.zeros(len(cut), bool)
            else:
                impact = int((trial.impact_s - trial.time_s[0]) * stretch * rate_hz) - first + 1
                soon, late = as_samples(NOT_YET_S, rate_hz=rate_hz), as_samples(BEFORE_FALL_S, rate_hz=rate_hz)
                yes = np.arange(impact + soon, min(impact + window - soon, len(body)) + 1, 4)
                no = np.arange(int(rng.integers(1, shape.hop_samples + 1)), impact - late, shape.hop_samples)
                if trial.is_cut_by_hand:  # what comes before the impact may be the fall
                    no = no[:0]
                cut = np.concatenate([yes[yes > 0], no])
                labels = np.arange(len(cut)) < np.count_nonzero(yes > 0)
            parts += [lead, body]
            ends.append(cut + at + len(lead))
            falls += labels.tolist()
            owners += [(trial.dataset, trial.person)] * len(cut)
            at += len(lead) + len(body)
    is_fall = np.array(falls)
    weights = _weights(owners, is_fall, set_weights)
    return Pool(np.concatenate(parts), np.concatenate(ends), is_fall, weights)


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
    rows = pool.ends[index][:, None] + np.arange(-window_samples, 0)
    windows: Accel = pool.samples[rows]
    return windows
