"""The camera's network is taught from what the observer saw, and shipped as the daemon takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

from edge.core.detector import FallDetected
from edge.core.seen import FEATURES, Person, Seen
from models.card import newest
from models.scorer import Scorer
from training.depth.learn import (
    Taught,
    choose_threshold,
    cross_validate,
    draft_card,
    fit,
    made_up_windows,
    report,
    score,
    verdict,
    write_bundle,
)
from training.depth.observed import Observed, alarms, lessons, with_threshold

FPS = 15


def clip(number: int, *, falls: bool, fall_s: float = 6.0, seconds: float = 14.0) -> Observed:
    """Return a made-up clip of somebody who falls, or sits down."""
    rng = np.random.default_rng(number)
    t_s = np.arange(round(seconds * FPS)) / FPS
    low, lasts_s = (0.3, 0.6) if falls else (1.15, 1.5)
    down = np.clip((t_s - fall_s + lasts_s) / lasts_s, 0, 1)
    head_m = (1.65 + (low - 1.65) * down).astype(np.float32)
    speed = np.gradient(head_m * 0.55, 1 / FPS)
    seen = []
    for i, at_s in enumerate(t_s):
        facts: dict[str, Any] = {"head_m": head_m[i], "centroid_m": 0.55 * head_m[i], "speed_mps": speed[i]}
        facts |= {"extent_m": 0.6 + 1.0 * down[i] * falls, "width_m": 0.4, "seen_part": 1.0, "in_bed": 0.0}
        facts |= {"low_part": 0.05 + 0.9 * down[i] * falls, "area_m2": 0.2 + 0.25 * down[i] * falls}
        facts["moving_part"] = 0.4 if abs(speed[i]) > 0.1 else 0.1
        features = tuple(float(facts.get(name, 0.1)) + float(rng.normal(0, 0.02)) for name in FEATURES)
        on_floor_s = max(at_s - fall_s, 0.0) if falls else 0.0
        seen.append(Seen(float(at_s), (Person(1, features, on_floor_s),), 0.9))
    meta = {
        "source": "synthetic",
        "person": f"p{number // 2}",
        "activity": "trip" if falls else "sit",
        "label": "fall" if falls else "adl",
        "fall_s": fall_s if falls else None,
        "camera": {"height_m": 2.2, "tilt_deg": 25.0, "ceiling": False},
        "sensor": "tof",
        "room_shown": True,
    }
    on_floor = np.array([falls and at_s >= fall_s for at_s in t_s])
    return Observed(f"clip-{number}", meta, seen, head_m, (head_m * 0.5), on_floor, np.ones(len(t_s), np.int32))


@pytest.fixture(scope="module")
def taught() -> list[Taught]:
    clips = [clip(i, falls=i % 2 == 0, fall_s=4.0 + i % 5) for i in range(20)]
    return [Taught(one, lessons(one, draft_card())) for one in clips]


def test_a_network_taught_on_some_people_finds_the_falls_of_others(taught: list[Taught]) -> None:
    verdicts, thresholds = cross_validate(taught, seed=0, steps=60)
    assert sum(v.found for v in verdicts) == 10
    assert not any(v.false_alarm for v in verdicts)
    results = report(verdicts, thresholds, 1)
    assert results["shares"]["by source"]["synthetic"]["falls"] == 10
    assert abs(results["floor_error_s"]["p50"]) < 1.5


def test_windows_that_end_soon_after_a_fall_are_the_lessons_of_falls(taught: list[Taught]) -> None:
    fallen, sat = taught[0], taught[1]
    ends = fallen.lessons.end_s[fallen.lessons.is_fall]
    assert fallen.clip.fall_s is not None
    assert (ends > fallen.clip.fall_s).all()
    assert (ends < fallen.clip.fall_s + 4.5).all()
    assert fallen.lessons.weight[~fallen.lessons.is_fall].max() == 1.0
    assert not sat.lessons.is_fall.any()


def test_the_bundle_says_what_the_network_says_and_the_daemon_takes_it(
    taught: list[Taught], tmp_path: Path
) -> None:
    net = fit(taught, seed=1, steps=60)
    scorer = write_bundle(net, tmp_path / "camera-9", 0.8, {}, made_up_windows())
    assert (scorer.card.name, scorer.card.placement, scorer.card.features) == ("camera-9", "camera", FEATURES)
    said = score(net, taught[:1])[0]
    assert scorer.score(taught[0].lessons.windows) == pytest.approx(said, abs=1e-4)


def test_the_threshold_is_the_one_that_parts_falls_from_the_rest(taught: list[Taught]) -> None:
    said = [np.where(t.lessons.is_fall, 0.9, 0.6).astype(np.float32) for t in taught]
    assert 0.6 < choose_threshold(taught, said) <= 0.9
    card = with_threshold(draft_card(), 0.95)
    assert not verdict(taught[0], card, np.zeros(len(taught[0].lessons.end_s), np.float32)).found


def test_the_shipped_network_finds_a_made_up_fall_and_leaves_a_chair_alone() -> None:
    scorer = Scorer(newest("camera"))
    for falls in (True, False):
        one = clip(3, falls=falls)
        found = alarms(one, scorer.card, scorer.score(lessons(one, scorer.card).windows).tolist())
        assert [isinstance(f, FallDetected) and not f.long_lie for f in found] == [True] * falls
