"""What a camera's observations say about falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.camera import AGAIN_S, FLOOR_S, FLOOR_STILL_S, SUSPECT_FLOOR_S, CameraJudge
from edge.core.detector import FallDetected, Finding, Motion, MotionChanged
from edge.core.seen import FEATURES, Person, Seen, parse_seen
from models.card import Card, Decision
from models.scorer import Scorer

FPS = 15.0


class Low(Scorer):
    """As light a model as can be: how much lower the middle is now than it was."""

    def __init__(self, confirm_windows: int = 2) -> None:
        decision = Decision(
            threshold=0.6, confirm_windows=confirm_windows, suspect_threshold=0.4, weigh_s=3.0, refractory_s=10.0
        )
        self.card = Card("low", "camera", 10.0, 60, 5, float("inf"), decision, "", {}, FEATURES)

    def score(self, windows: np.ndarray) -> np.ndarray:
        height = windows[:, :, FEATURES.index("centroid_m")]
        return np.asarray(np.clip(height.max(axis=1) - height[:, -3:].mean(axis=1), 0, 1), np.float32)


def person(
    head_m: float, *, track: int = 1, on_floor_s: float = 0.0, moving: float = 0.0, in_bed: float = 0.0
) -> Person:
    """Return somebody of that height."""
    facts = {
        "head_m": head_m,
        "centroid_m": 0.55 * head_m,
        "moving_part": moving,
        "in_bed": in_bed,
        "seen_part": 1.0,
    }
    return Person(track, tuple(facts.get(name, 0.0) for name in FEATURES), on_floor_s)


def play(
    judge: CameraJudge, parts: list[tuple[float, float, float]], *, until_s: float | None = None
) -> list[Finding]:
    """Play (seconds, head height, moving part); whoever is lower than 0.7 m is on the floor."""
    found, at_s, floor_s = [], 0.0, None
    for seconds, head_m, moving in parts:
        for _ in range(round(seconds * FPS)):
            floor_s = None if head_m > 0.7 else at_s if floor_s is None else floor_s
            on_floor_s = 0.0 if floor_s is None else at_s - floor_s
            found += judge.observe(Seen(at_s, (person(head_m, on_floor_s=on_floor_s, moving=moving),), 0.9))
            at_s += 1 / FPS
    return found


def falls(found: list[Finding]) -> list[FallDetected]:
    return [f for f in found if isinstance(f, FallDetected)]


def test_somebody_who_falls_raises_one_alarm_with_the_time_of_the_impact() -> None:
    [fall] = falls(play(CameraJudge(Low()), [(5.0, 1.7, 0.3), (60.0, 0.3, 0.3)]))
    assert fall.impact_s == pytest.approx(5.0, abs=0.15)
    assert 5.3 < fall.raised_s < 7.0
    assert not fall.long_lie


def test_a_slow_slide_alarms_by_the_time_on_the_floor_with_or_without_a_model() -> None:
    slide = [(5.0, 1.3, 0.1), *((1.0, 1.3 - 0.08 * i, 0.1) for i in range(1, 13)), (60.0, 0.34, 0.0)]
    for judge in (CameraJudge(None), CameraJudge(Low())):
        [fall] = falls(play(judge, slide))
        assert fall.long_lie
        assert fall.raised_s - fall.impact_s == pytest.approx(FLOOR_STILL_S, abs=1.0)


def test_who_moves_about_on_the_floor_is_given_more_time_but_not_for_ever() -> None:
    [fall] = falls(play(CameraJudge(None), [(5.0, 1.3, 0.1), (120.0, 0.5, 0.3)]))
    assert fall.raised_s - fall.impact_s == pytest.approx(FLOOR_S, abs=0.5)
    assert not falls(play(CameraJudge(None), [(5.0, 1.3, 0.1), (60.0, 0.5, 0.3), (20.0, 1.6, 0.2)]))


def test_after_an_alarm_it_is_told_whether_they_move_lie_still_or_are_up() -> None:
    found = play(CameraJudge(Low()), [(5.0, 1.7, 0.3), (12.0, 0.3, 0.0), (12.0, 0.3, 0.3), (12.0, 1.6, 0.2)])
    told = [f.motion for f in found if isinstance(f, MotionChanged)]
    assert told == [Motion.STILL, Motion.MOVING, Motion.UPRIGHT]


def test_a_second_fall_after_getting_up_is_a_second_alarm() -> None:
    twice = [(5.0, 1.7, 0.3), (10.0, 0.3, 0.2), (AGAIN_S + 8.0, 1.7, 0.3), (10.0, 0.3, 0.2)]
    assert len(falls(play(CameraJudge(Low()), twice))) == 2


def test_a_camera_that_falls_silent_while_a_fall_is_weighed_raises_it() -> None:
    judge = CameraJudge(Low(confirm_windows=9))
    assert not falls(play(judge, [(5.0, 1.7, 0.3), (2.0, 0.3, 0.3)]))
    [fall] = falls(judge.on_silence())
    assert fall.impact_s == pytest.approx(5.0, abs=0.15)
    assert judge.on_silence() == []


def test_a_suspicion_and_five_seconds_on_the_floor_are_a_fall() -> None:
    [fall] = falls(play(CameraJudge(Low(confirm_windows=99)), [(5.0, 1.7, 0.3), (12.0, 0.3, 0.3)]))
    assert fall.impact_s == pytest.approx(5.0, abs=0.15)
    assert fall.raised_s == pytest.approx(5.0 + SUSPECT_FLOOR_S, abs=0.3)
    assert not fall.long_lie
    assert not falls(
        play(CameraJudge(Low(confirm_windows=99)), [(5.0, 1.7, 0.3), (3.0, 0.3, 0.3), (9.0, 1.7, 0.3)])
    )


def test_two_people_are_judged_apart() -> None:
    judge, found = CameraJudge(Low()), []
    for i in range(round(12 * FPS)):
        at_s = i / FPS
        down = at_s > 5.0
        two = (person(0.3 if down else 1.7, track=4, on_floor_s=max(at_s - 5.0, 0.0)), person(1.65, track=9))
        found += judge.observe(Seen(at_s, two, 0.9))
    assert len(falls(found)) == 1


@given(st.lists(st.floats(0.02, 0.4), min_size=30, max_size=120), st.integers(0, 3))
def test_whatever_the_frame_rate_and_its_holes_nobody_is_lost_and_nothing_grows(
    steps: list[float], hole: int
) -> None:
    judge, at_s, found = CameraJudge(Low()), 0.0, []
    for i, step_s in enumerate(steps):
        at_s += step_s + (4.0 if i == 10 * hole else 0.0)
        found += judge.observe(Seen(at_s, (person(1.6, track=i // 7),), 0.9))
    for _ in range(round(40 * FPS)):
        at_s += 1 / FPS
        found += judge.observe(Seen(at_s, (person(0.3, track=99, on_floor_s=(at_s - 1e-6)),), 0.9))
    assert len(falls(found)) >= 1
    assert len(judge._watched) <= 1


@given(st.lists(st.floats(-10, 10), min_size=len(FEATURES), max_size=len(FEATURES)), st.floats(0, 1e6))
def test_a_line_is_read_as_it_was_written(features: list[float], time_s: float) -> None:
    seen = Seen(round(time_s, 4), (Person(7, tuple(round(f, 4) for f in features), 1.5),), 0.5, "camera gone")
    assert parse_seen(seen.to_line()) == seen
    with pytest.raises(ValueError, match="no line of a camera"):
        parse_seen(replace(seen, people=(Person(7, (1.0,), 0.0),)).to_line())


@given(st.text(max_size=80))
def test_what_is_no_line_is_refused_and_nothing_else_happens(line: str) -> None:
    try:
        parse_seen(line)
    except ValueError:
        return
    raise AssertionError("taken for a line")
