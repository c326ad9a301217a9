"""What waiting for more windows buys and costs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="the training extra is not installed")

from models.card import Card, Decision
from models.preprocess import Accel
from training.decide import CONFIRM_WINDOWS, waiting
from training.evaluate import NETWORK, UNSEEN, Fall, Run, Scored, Stream

DECISION = Decision(threshold=0.5, confirm_windows=2, suspect_threshold=0.2, weigh_s=4.0, refractory_s=10.0)
CARD = Card("draft", "wrist", 32.0, 160, 16, 16.0, DECISION, "", {})


def scored(person: str, high: int, *, fall: bool, single: bool) -> Scored:
    """A minute in which so many windows in a row speak for a fall, from the 20th second on."""
    t = np.arange(60 * 50) / 50
    accel: Accel = np.zeros((len(t), 3), np.float32)
    accel[:, 1] = 1 + 0.3 * np.sin(12 * t)  # walking: nobody lies still, which would be watched for longer
    falls = (Fall(18.0, 19.9),) if fall else ()
    stream = Stream("set", person, "young", [(t, accel)], falls, ((0.0, "walk"),), 0.0 if fall else 60.0)
    said = [0.99 if 39 <= i < 39 + high else 0.001 for i in range(120)]
    return Scored(stream, single, said)


def test_waiting_makes_alarms_later_and_fewer_of_them_false() -> None:
    short, lasting = 3, 12  # windows that a gesture and a fall keep up
    ones = [scored(f"set/{i}", lasting, fall=True, single=False) for i in range(4)]
    ones += [scored("set/9", 0, fall=False, single=True) for _ in range(4)]
    ones += [scored("set/9", short, fall=False, single=False)]
    runs = [Run(NETWORK, UNSEEN, 1, ones, {}), Run("another", UNSEEN, 1, ones, {})]
    rows = waiting(runs, CARD, {"set": 1.0}, target=0.0)
    assert [row.confirm_windows for row in rows] == list(CONFIRM_WINDOWS)
    assert [(row.found, row.falls, row.alarming, row.trials) for row in rows] == [(4, 4, 0, 4)] * len(rows)
    assert [row.false_per_hour > 0 for row in rows] == [windows <= short for windows in CONFIRM_WINDOWS]
    delays = [row.delay_p50_s for row in rows]
    assert np.diff(delays) == pytest.approx(np.diff(CONFIRM_WINDOWS) * 0.5, abs=0.01)
