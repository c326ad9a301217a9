"""From scores to a page: what waiting for more evidence buys, and what it costs.

The longer the daemon waits, the fewer false alarms, or, at the same false alarms, the more falls found; and the
longer somebody lies on the floor. The table shows both for each number of windows that must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from models.card import Card
from training.evaluate import NETWORK, UNSEEN, Run, Tally, choose_threshold, tally, with_threshold

CONFIRM_WINDOWS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one number of windows gives at a given share of daily trials alarming."""

    confirm_windows: int
    threshold: float  # the middle one of the seeds
    falls: int
    found: int
    trials: int
    alarming: int
    false_per_hour: float
    delay_p50_s: float
    delay_p95_s: float


def waiting(runs: Sequence[Run], card: Card, weights: dict[str, float], *, target: float) -> list[Waiting]:
    """Return what waiting buys, over unseen people; counts are sums over the seeds.

    Falls are those in streams: at the end of a trial by itself whatever is weighed is raised, however few windows.

    The thresholds are chosen on the very people they are shown on, for each row in the same way, so that rows
    can be compared; what the model is worth stands elsewhere.
    """
    mine = [run for run in runs if run.method == NETWORK and run.split == UNSEEN]
    found: list[Waiting] = []
    for windows in tqdm(CONFIRM_WINDOWS, desc="decision", leave=False, disable=None):
        # A suspicion must live long enough for so many windows to come.
        lasting_s = max(card.decision.weigh_s, windows * card.hop_samples / card.rate_hz + 1.0)
        decision = replace(card.decision, confirm_windows=windows, weigh_s=lasting_s)
        own = replace(card, decision=decision)
        single, streams, thresholds = Tally(), Tally(), []
        for run in mine:
            threshold = choose_threshold(run.scored, own, weights, target=target)
            thresholds.append(threshold)
            judged = with_threshold(own, threshold)
            for one in run.scored:
                if one.stream.dataset in weights:
                    (single if one.single else streams).add(tally(one, judged))
        p50, p95 = np.quantile(streams.delays_s or [0.0], (0.5, 0.95))
        found.append(
            Waiting(
                windows,
                float(np.median(thresholds)),
                streams.falls,
                streams.detected,
                single.trials,
                single.alarming,
                streams.false_alarms / max(streams.daily_s / 3600, 1e-9),
                round(float(p50), 2),
                round(float(p95), 2),
            )
        )
    return found
