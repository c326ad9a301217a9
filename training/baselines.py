"""Older and simpler ways to tell a fall, judged by the same events and thresholds as the network.

Each method is fitted on windows of training people alone and gives graded probabilities, so that the
threshold is chosen on people outside the test as it is for the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from models.card import Card
from models.preprocess import Accel, as_samples
from training.windows import Pool, Shape, gather

RATE_HZ = Shape().rate_hz
SECOND = as_samples(1.0, rate_hz=RATE_HZ)
FALLS, DAILY = 10_000, 30_000  # windows a method learns from
BATCH = 64  # windows at once: what lies between them stays in the cache
THREADS = ThreadpoolController()  # on a busy machine threads that wait for each other take a hundred times longer
Values: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.bool_]
Weights: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.floating]
Score: TypeAlias = Callable[[Accel], Floats]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted method in the place of the network: `evaluate` takes it as a scorer."""

    name: str
    card: Card
    probability: Score

    def score(self, windows: Accel) -> Values:
        """Return the probability of a fall for each window, shape (batch,), float32.

        Args:
            windows: shape (batch, window_samples, 3), float32, g, at the card's rate.
        """
        if len(windows) == 0:
            return np.empty(0, np.float32)
        with THREADS.limit(limits=1):
            said = self.probability(np.clip(windows, -self.card.clip_g, self.card.clip_g))
        return said.astype(np.float32)


def learn(name: str, pool: Pool, shape: Shape, card: Card, rng: np.random.Generator) -> Baseline:
    """Fit the method of `METHODS` with this name on windows drawn from the pool by their weights.

    Raises:
        ValueError: the pool is cut at another rate than the methods count their seconds at.
    """
    if shape.rate_hz != RATE_HZ:
        raise ValueError(f"the baselines are made for {RATE_HZ} Hz, not {shape.rate_hz}")
    share = pool.weights / np.where(pool.falls, pool.weights[pool.falls].sum(), pool.weights[~pool.falls].sum())
    picked = np.concatenate(
        [
            np.sort(rng.choice(len(share), FALLS, p=np.where(pool.falls, share, 0.0))),
            np.sort(rng.choice(len(share), DAILY, p=np.where(pool.falls, 0.0, share))),
        ]
    )
    falls = pool.falls[picked]
    windows = np.clip(gather(pool, picked, shape.window_samples), -card.clip_g, card.clip_g)
    # Both classes weigh the same, as they do in the pool; each window weighs 1 on average.
    weights = len(picked) / 2 / np.where(falls, FALLS, DAILY)
    with THREADS.limit(limits=1):
        return Baseline(name, card, METHODS[name](windows, falls, weights, rng))


# -- Thresholds ------------------------------------------------------------------------------------


def fit_impact(windows: Accel, falls: Labels, weights: Weights, rng: np.random.Generator) -> Score:  # noqa: ARG001
    """Return a score that knows only the largest |a| of the window.

    The upper threshold of Bourke, O'Brien and Lyons, Gait & Posture 26 (2007) 194-199.
    """

    def impact(part: Accel) -> Floats:
        ln_g: Floats = np.log(magnitude(part).max(axis=1) + 0.1)
        return ln_g

    graded = _graded(impact(windows[~falls]))
    return lambda part: graded(impact(part))


def fit_impact_and_posture(windows: Accel, falls: Labels, weights: Weights, rng: np.random.Generator) -> Score:  # noqa: ARG001
    """Return a score for an impact, after which the sensor points elsewhere and is quieter.

    Impact, then posture, as in Kangas et al., Gait & Posture 28 (2008) 285-291, with the turn in place of an
    angle to the vertical, which a sensor worn any way round does not know. The three limits are those that
    find the most falls of the training people at no more than 1 % of their daily windows; the score
    says by how much all three could be tightened, or would have to be loosened, together.
    """
    clues = in_parts(aftermath, windows)
    # In common units: how much of the falls' own spread lies between the clue and its limit.
    falls_clues = clues[falls]
    grids = [np.quantile(falls_clues[:, i], np.linspace(0.0, 0.6, 13)) for i in range(3)]
    spread = falls_clues.std(axis=0) + 1e-6
    best, limits = -1.0, np.array([grid[0] for grid in grids])
    daily_sum, fall_sum = weights[~falls].sum(), weights[falls].sum()
    passes = [clues[:, i, None] >= grid for i, grid in enumerate(grids)]
    for i, j, k in itertools.product(*(range(len(grid)) for grid in grids)):
        alarm = passes[0][:, i] & passes[1][:, j] & passes[2][:, k]
        found = float(weights[alarm & falls].sum() / fall_sum)
        if found > best and weights[alarm & ~falls].sum() <= 0.01 * daily_sum:
            best, limits = found, np.array([grids[0][i], grids[1][j], grids[2][k]])

    def least(found: Floats) -> Floats:
        margin: Floats = ((found - limits) / spread).min(axis=1)
        return margin

    graded = _graded(least(clues[~falls]))
    return lambda part: graded(least(in_parts(aftermath, part)))


def aftermath(windows: Accel) -> Values:
    """Return clues that rise with a fall, shape (n, 3): ln of the impact in g, turn in degrees, quietness.

    Turn: between the mean directions up to half a second before the largest |a| and from a second after it.
    Quietness: minus ln of the standard deviation of |a| from a second after it, in g.
    """
    m = magnitude(windows)
    at, k = m.argmax(axis=1)[:, None], np.arange(m.shape[1])
    # At the edges of the window a quarter of a second has to do.
    before = (k < at - SECOND // 2) | (k < SECOND // 4)
    after = (k >= at + SECOND) | (k >= m.shape[1] - SECOND // 4)
    turn = angle_deg(_mean(windows, before), _mean(windows, after))
    mean = (m * after).sum(axis=1) / after.sum(axis=1)
    std = np.sqrt((np.square(m - mean[:, None]) * after).sum(axis=1) / after.sum(axis=1))
    return np.stack([np.log(m.max(axis=1) + 0.1), turn, -np.log(std + 0.02)], axis=1).astype(np.float32)


# -- Gradient boosting -----------------------------------------------------------------------------


def fit_boosting(windows: Accel, falls: Labels, weights: Weights, rng: np.random.Generator) -> Score:
    """Return gradient-boosted trees over some forty quantities that a turned sensor does not change."""
    model = HistGradientBoostingClassifier(
        max_iter=300,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        l2_regularization=5.0,
        max_features=0.4,
        early_stopping=False,
        random_state=int(rng.integers(2**31)),
    )
    own, x = _own(falls), in_parts(features, windows)
    model.fit(x[own], falls[own], sample_weight=weights[own])
    graded = _graded(model.decision_function(x[~own & ~falls]))
    return lambda part: graded(model.decision_function(in_parts(features, part)))


def features(windows: Accel) -> Values:
    """Return orientation-free quantities of windows, shape (n, 42), float32."""
    m, slow = magnitude(windows), slow_part(windows)
    n = m.shape[1]
    heading = slow / (magnitude(slow)[:, :, None] + 0.05)
    fast = magnitude(windows - slow)
    jerk = magnitude(np.diff(windows, axis=1)) * RATE_HZ
    turning = magnitude(heading[:, 4:] - heading[:, :-4])
    at, k = m.argmax(axis=1)[:, None], np.arange(n)
    short = _smooth(m, max(SECOND // 10, 1))
    fell = (k > at - SECOND) & (k <= at)  # the second that ends in the impact
    before, after = k < at - SECOND // 4, k > at + SECOND // 2
    energy = np.square(m - 1.0)
    spectrum = np.square(np.abs(np.fft.rfft(m - m.mean(axis=1, keepdims=True), axis=1)))
    hz = np.fft.rfftfreq(n, 1 / RATE_HZ)
    columns = [
        *np.quantile(m, (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0), axis=1),
        m.mean(axis=1),
        m.std(axis=1),
        *np.quantile(jerk, (0.5, 0.95, 1.0), axis=1),
        jerk.mean(axis=1),
        *np.quantile(fast, (0.5, 0.95, 1.0), axis=1),
        *(fast[:, i * n // 4 : (i + 1) * n // 4].mean(axis=1) for i in range(4)),
        short.min(axis=1),
        np.where(fell, short, 9.0).min(axis=1),
        ((short < 0.7) & fell).sum(axis=1) / SECOND,
        (m > 2.0).mean(axis=1),
        (m > 3.0).mean(axis=1),
        at[:, 0] / n,
        *(np.log((energy * part).sum(axis=1) / (part.sum(axis=1) + 1) + 1e-4) for part in (before, after)),
        m[:, -SECOND:].std(axis=1),
        m[:, -2 * SECOND :].std(axis=1),
        aftermath(windows)[:, 1],
        aftermath(windows)[:, 2],
        angle_deg(windows[:, :SECOND].mean(axis=1), windows[:, -SECOND:].mean(axis=1)),
        turning.max(axis=1),
        turning.sum(axis=1),
        turning.argmax(axis=1) / n - at[:, 0] / n,
        (np.diff(np.signbit(m - m.mean(axis=1, keepdims=True)), axis=1)).mean(axis=1),
        *(np.log(spectrum[:, (hz >= low) & (hz < high)].sum(axis=1) + 1e-4) for low, high in BANDS_HZ),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


BANDS_HZ = ((0.1, 1.0), (1.0, 2.5), (2.5, 5.0), (5.0, 9.0), (9.0, 16.1))


# -- MiniRocket ------------------------------------------------------------------------------------

KERNELS = np.full((84, 9), -1.0, np.float32)
for _row, _three in zip(KERNELS, itertools.combinations(range(9), 3), strict=True):
    _row[list(_three)] = 2.0
DILATIONS = (1, 2, 4, 8, 16)
BIASES = 4  # of each kernel and dilation
RIDGE = 30.0


class MiniRocket:
    """Share of the time that 84 fixed kernels, stretched, stay above fixed levels.

    After Dempster, Schmidt and Webb, MiniRocket, KDD 2021: weights -1 and 2, levels drawn from the
    training windows, every second kernel without padding; several channels are added up in random choices.
    """

    def __init__(self, windows: Accel, rng: np.random.Generator) -> None:
        self._scale = 1 / channels(windows).std(axis=(0, 2))[:, None]
        self._kernels: list[Values] = []
        self._levels: list[Values] = []
        quantiles = (np.arange(1, 84 * BIASES + 1) * (np.sqrt(5) + 1) / 2 % 1).reshape(84, BIASES)
        for dilation in DILATIONS:
            heard = rng.random((84, 4)) < rng.choice((0.25, 0.5, 0.75), (84, 1))
            heard[np.arange(84), rng.integers(4, size=84)] = True
            # (84, 9 taps * 4 channels), as `_convolved` lays them out
            self._kernels.append((KERNELS[:, :, None] * heard[:, None, :]).reshape(84, 36))
            said = self._convolved(channels(windows) * self._scale, dilation, self._kernels[-1])
            rows = said.transpose(1, 0, 2).reshape(84, -1)
            self._levels.append(
                np.stack([np.quantile(row, q) for row, q in zip(rows, quantiles, strict=True)]).astype(np.float32)
            )

    def transform(self, windows: Accel) -> Values:
        """Return features from 0 to 1, shape (n, 84 * dilations * levels), float32."""
        x = channels(windows) * self._scale
        found = []
        for dilation, kernels, levels in zip(DILATIONS, self._kernels, self._levels, strict=True):
            y = self._convolved(x, dilation, kernels)
            inside = np.ascontiguousarray(y[:, 1::2, 4 * dilation : -4 * dilation])
            for i in range(BIASES):
                found.append(_share_above(y[:, ::2], levels[::2, i]))
                found.append(_share_above(inside, levels[1::2, i]))
        return np.concatenate(found, axis=1)

    @staticmethod
    def _convolved(x: Values, dilation: int, kernels: Values) -> Values:
        """Return shape (n, 84, window_samples)."""
        n, _, length = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (4 * dilation, 4 * dilation)))
        taps = [padded[:, :, i * dilation : i * dilation + length] for i in range(9)]
        convolved: Values = kernels @ np.concatenate(taps, axis=1).reshape(n, -1, length)
        return convolved


def _share_above(y: Values, levels: Values) -> Values:
    """Return the share of the last axis, a multiple of 8 long, that lies above each row's level."""
    # Eight comparisons lie in one word, so that adding words counts eight at once; none of the eight overflows.
    words = np.greater(y, levels[:, None]).view(np.uint64).sum(axis=2)
    share: Values = words.view(np.uint8).reshape(*words.shape, 8).sum(axis=2, dtype=np.float32) / y.shape[2]
    return share


def channels(windows: Accel) -> Values:
    """Return |a|, its fast part, the part of a along gravity, and gravity's turn, shape (n, 4, window_samples)."""
    slow = slow_part(windows)
    heading = slow / (magnitude(slow)[:, :, None] + 0.05)
    along = np.einsum("nij,nij->ni", windows, heading)
    turned = np.einsum("nij,nj->ni", heading, heading[:, 0])
    fast = magnitude(windows - slow)
    return np.stack([np.log1p(magnitude(windows)), np.log1p(fast), along, turned], axis=1).astype(np.float32)


def fit_minirocket(windows: Accel, falls: Labels, weights: Weights, rng: np.random.Generator) -> Score:
    """Return ridge regression over MiniRocket's features."""
    own = _own(falls)
    rocket = MiniRocket(windows[rng.choice(len(windows), 256)], rng)
    x = in_parts(rocket.transform, windows)
    mean = np.average(x[own], axis=0, weights=weights[own]).astype(np.float32)
    centred = (x[own] - mean) * np.sqrt(weights[own, None]).astype(np.float32)
    wanted = (falls[own] - 0.5) * np.sqrt(weights[own])
    gram = (centred.T @ centred).astype(np.float64) + RIDGE * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, centred.T @ wanted).astype(np.float32)
    graded = _graded((x[~own & ~falls] - mean) @ slope)

    def evidence(part: Accel) -> Floats:
        said: Floats = (rocket.transform(part) - mean) @ slope
        return said

    return lambda windows: graded(in_parts(evidence, windows))


# -- Shared ----------------------------------------------------------------------------------------


def magnitude(a: Accel) -> Values:
    """Return the length of vectors on the last axis."""
    length: Values = np.sqrt(np.einsum("...i,...i->...", a, a))
    return length


def slow_part(windows: Accel) -> Accel:
    """Return the mean over a second around each sample: gravity, mostly; shape as given."""
    return np.stack([_smooth(windows[:, :, i], SECOND | 1) for i in range(3)], axis=2)


def _smooth(x: Values, width: int) -> Values:
    """Return the running mean over ``width`` samples, over fewer at the ends."""
    sums = np.pad(np.cumsum(x, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    k = np.arange(x.shape[1])
    low, high = np.maximum(k - width // 2, 0), np.minimum(k + (width + 1) // 2, x.shape[1])
    mean: Values = ((sums[:, high] - sums[:, low]) / (high - low)).astype(np.float32)
    return mean


def _mean(windows: Accel, mask: Labels) -> Accel:
    """Return the mean of each window's marked samples, shape (n, 3)."""
    sums = np.einsum("nij,ni->nj", windows, mask.astype(np.float32))
    mean: Accel = (sums / mask.sum(axis=1, keepdims=True)).astype(np.float32)
    return mean


def angle_deg(a: Accel, b: Accel) -> Values:
    """Return the angle between vectors of shape (n, 3)."""
    cosine = np.einsum("ni,ni->n", a, b) / (magnitude(a) * magnitude(b) + 1e-6)
    degrees: Values = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).astype(np.float32)
    return degrees


def in_parts(of: Score, windows: Accel) -> Floats:
    """Return what a function says of windows, a few at a time."""
    return np.concatenate([of(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)])


def _own(falls: Labels) -> Labels:
    """Mark the four fifths of the windows to fit to; the rest, in blocks of neighbours, says what scores mean."""
    number = np.where(falls, np.cumsum(falls) / falls.sum(), np.cumsum(~falls) / (~falls).sum())
    own: Labels = (number * 25).astype(int) % 5 != 4
    return own


def _graded(daily: Floats) -> Score:
    """Turn a number that rises with a fall into a score by how rare it is in daily life.

    The odds of a fall are put at 1 to a hundred times the share of daily windows that reach the number, which
    changes no order and spreads the thresholds over the rates of false alarms that matter, for every method
    alike. Above the fifth largest number a straight line goes on.
    """
    rising = np.sort(np.asarray(daily, np.float64))
    above = np.unique(np.geomspace(5, len(rising), 60).astype(int))[::-1]  # so many daily windows reach it
    known, first = np.unique(rising[len(rising) - above], return_index=True)
    odds = -np.log(100.0 * above[first] / len(rising))
    back = max(len(known) // 4, 1)
    slope = (odds[-1] - odds[-1 - back]) / (known[-1] - known[-1 - back]) if len(known) > back else 1.0

    def probability(numbers: Floats) -> Floats:
        log_odds = np.interp(numbers, known, odds) + np.maximum(numbers - known[-1], 0.0) * slope
        said: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -15.0, 15.0)))
        return said

    return probability


METHODS: dict[str, Callable[[Accel, Labels, Weights, np.random.Generator], Score]] = {
    "impact threshold": fit_impact,
    "threshold and posture": fit_impact_and_posture,
    "gradient boosting": fit_boosting,
    "MiniRocket ridge": fit_minirocket,
}
