"""A classifier that must know nothing: it sees only what a device and a trial's cut leave in a window.

Rate, length and range of a recording are fingerprints of its set, and in no set do falls and daily trials
share them. A network that could read the class from them would score well and detect nothing. So
the prepared windows are shown to a classifier that sees nothing else; it must stay at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.preprocess import Accel
from training.readers import Trial
from training.windows import Shape, build_pool, gather

FOLDS = 5
GROUPS = 12
RESAMPLES = 400
SAME_G = 1e-5  # two samples as near as that are one value
TOGETHER = "all together"
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the curve on unseen people, 0.5 is chance, and its 95 % interval from resampled people."""

    value: float
    low: float
    high: float

    def touches(self, band: float) -> bool:
        """Return whether the interval reaches the band around chance."""
        return self.low <= 0.5 + band and self.high >= 0.5 - band


def clues(windows: Accel) -> dict[str, Floats]:
    """Return what a window shows of device and cut, each of shape (n, columns).

    ``held start``: share that repeats the first sample, as before a segment's beginning. ``straight lines``:
    share of the rest on a line through its neighbours, as where a slow source or a lost packet was bridged.
    ``clipping``: share of neighbours that both sit at the window's largest value, and that value if any do.
    ``repeats``: share of the rest that repeats the sample before it, as a coarse sensor does at rest.
    """
    n = windows.shape[1]
    moved = np.abs(np.diff(windows, axis=1)).max(axis=2) > SAME_G
    held = np.where(moved.any(axis=1), moved.argmax(axis=1), n - 1)
    live = np.arange(n)[None, :] >= held[:, None]
    count = live.sum(axis=1)
    bend = np.abs(np.diff(windows, n=2, axis=1)).max(axis=2)
    straight = (bend <= 4 * SAME_G) & moved[:, 1:] & live[:, :-2]
    size = np.abs(windows)
    most = size.max(axis=(1, 2))
    at_most = size >= most[:, None, None] - SAME_G
    clipped = ((at_most[:, 1:] & at_most[:, :-1]).any(axis=2) & live[:, :-1]).sum(axis=1) / count
    repeats = (~moved & live[:, :-1]).sum(axis=1) / count
    return {
        "held start": np.stack([held / n], axis=1),
        "straight lines": np.stack([straight.sum(axis=1) / count], axis=1),
        "clipping": np.stack([clipped, np.where(clipped > 0, most, 0.0)], axis=1),
        "repeats": np.stack([repeats], axis=1),
    }


def control(
    windows: Accel,
    falls: NDArray[np.bool_],
    weights: Floats,
    people: NDArray[np.int64],
    *,
    rng: np.random.Generator,
) -> dict[str, Auc]:
    """Return how well falls are told from each clue alone and from all together, on people not learnt from.

    Args:
        windows: shape (n, window_samples, 3), float32, g, as the network gets them.
        falls: shape (n,), bool.
        weights: shape (n,), float64, as in training.
        people: shape (n,), int64, whose window it is.
        rng: deals people into folds and resamples them.
    """
    seen = clues(windows)
    seen[TOGETHER] = np.concatenate(list(seen.values()), axis=1)
    share = np.where(falls, weights / weights[falls].sum(), weights / weights[~falls].sum())
    return {
        name: _auc_by_person(_unseen(x, falls, share, people, rng), falls, share, people, rng)
        for name, x in seen.items()
    }


def _unseen(
    x: Floats, falls: NDArray[np.bool_], weights: Floats, people: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return scores for each window by trees that learnt from other people."""
    known = np.unique(people)
    # Those with falls are dealt first, so that every fold has some.
    order = rng.permutation(known)
    order = order[np.argsort(~np.isin(order, people[falls]), kind="stable")]
    fold = {person: i % FOLDS for i, person in enumerate(order.tolist())}
    fold_of = np.array([fold[person] for person in people.tolist()])
    score = np.zeros(len(x))
    with threadpool_limits(1):
        for k in range(min(FOLDS, len(known))):
            mine = fold_of == k
            trees = HistGradientBoostingClassifier(
                max_iter=40, max_leaf_nodes=8, min_samples_leaf=100, early_stopping=False, random_state=0
            )
            trees.fit(x[~mine], falls[~mine], sample_weight=weights[~mine] * len(x))
            score[mine] = trees.predict_proba(x[mine])[:, 1]
    return score


def _auc_by_person(
    score: Floats, falls: NDArray[np.bool_], weights: Floats, people: NDArray[np.int64], rng: np.random.Generator
) -> Auc:
    _, person = np.unique(people, return_inverse=True)
    levels, level = np.unique(score, return_inverse=True)
    shape = (int(person.max()) + 1, len(levels))
    fall, daily = (
        np.bincount((person * shape[1] + level)[of], weights[of], shape[0] * shape[1]).reshape(shape)
        for of in (falls, ~falls)
    )
    value = _auc(fall.sum(axis=0), daily.sum(axis=0))
    resampled = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(shape[0], size=shape[0]), minlength=shape[0]).astype(np.float64)
        some_fall, some_daily = times @ fall, times @ daily
        if some_fall.sum() and some_daily.sum():
            resampled.append(_auc(some_fall, some_daily))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Auc(value, float(low), float(high))


def _auc(fall: Floats, daily: Floats) -> float:
    """Return the area from the weight of falls and of daily windows at each level of the score, rising."""
    below = np.cumsum(daily) - daily / 2
    return float((fall * below).sum() / (fall.sum() * daily.sum()))


def sample(
    trials: Sequence[Trial],
    shape: Shape,
    *,
    variants: int,
    set_weights: dict[str, float],
    count: int,
    rng: np.random.Generator,
) -> tuple[Accel, NDArray[np.bool_], Floats, NDArray[np.int64]]:
    """Return ``count`` prepared windows of each class as training draws them, for `control`.

    Its people are up to `GROUPS` groups of people with a faller in each, every group prepared by itself: a pool
    does not say whose a window is.
    """
    fallers = {t.person for t in trials if t.is_fall}
    people = sorted({t.person for t in trials})
    order = sorted((people[i] for i in rng.permutation(len(people))), key=lambda p: p not in fallers)
    windows, falls, groups = [], [], []
    parts = min(GROUPS, len(fallers))
    for group in range(parts):
        own = set(order[group::parts])
        pool = build_pool(
            [t for t in trials if t.person in own], shape, variants=variants, set_weights=set_weights, rng=rng
        )
        for label in (False, True):
            chance = np.where(pool.falls == label, pool.weights, 0.0)
            if chance.any():
                picked = rng.choice(len(chance), count // parts, p=chance / chance.sum())
                windows.append(gather(pool, picked, shape.window_samples))
                falls.append(np.full(len(picked), label))
                groups.append(np.full(len(picked), group))
    found = np.concatenate(falls)
    return np.concatenate(windows), found, np.ones(len(found)), np.concatenate(groups)
