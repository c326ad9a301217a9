"""From one wearable's samples to findings: the decision, and everything a stream can do meanwhile."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.detector import Detector, FallDetected, Finding, Motion, MotionChanged, Suspected
from edge.core.replay import replay
from models.card import Card
from models.preprocess import Accel, Times
from tests.conftest import PeakScorer

HZ = 50
STRONG_G, WEAK_G = 6.0, 2.8  # peaks that speak for a fall, and that are weighed only
REST_G = (0.0, 0.6, 0.8)


def still(seconds: float) -> Accel:
    return np.tile(np.array(REST_G, np.float32), (round(seconds * HZ), 1))


def moving(seconds: float, seed: int = 0) -> Accel:
    return still(seconds) + np.random.default_rng(seed).normal(0, 0.2, (round(seconds * HZ), 3)).astype(np.float32)


def knock(accel_g: Accel, at_s: float, peak_g: float) -> Accel:
    """Put one hard sample, three samples long so that resampling keeps its height, into a copy."""
    accel_g = accel_g.copy()
    at = round(at_s * HZ)
    accel_g[max(at - 1, 0) : at + 2] = np.array(REST_G) * peak_g
    return accel_g


def run(accel_g: Accel, begin_s: float = 0.0) -> tuple[Times, Accel]:
    return begin_s + np.arange(len(accel_g)) / HZ, accel_g


def falls(findings: list[Finding]) -> list[FallDetected]:
    return [f for f in findings if isinstance(f, FallDetected)]


def motions(findings: list[Finding]) -> list[MotionChanged]:
    return [f for f in findings if isinstance(f, MotionChanged)]


def test_a_fall_is_raised_once_and_its_impact_named(peak_scorer: PeakScorer) -> None:
    (fall,) = falls(replay([run(knock(moving(30), 12.0, STRONG_G))], peak_scorer))
    assert fall.impact_s == pytest.approx(12.0, abs=0.1)
    assert fall.impact_s <= fall.raised_s <= 13.1  # two windows, half a second apart
    assert fall.probability == pytest.approx(0.92, abs=0.02)
    assert not fall.long_lie


def test_daily_life_raises_nothing(peak_scorer: PeakScorer) -> None:
    assert replay([run(moving(120))], peak_scorer) == []


def test_one_window_alone_raises_no_alarm(peak_scorer: PeakScorer) -> None:
    detector = Detector(peak_scorer.card)
    said = iter([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    raised = []
    for i in range(12):
        detector.push(i * 16, moving(16 / HZ))
        end = detector.due()
        assert end is not None
        raised += [falls(detector.decide(end, next(said)))]
    # The first window's suspicion was dropped after weigh_s, and does not count for the next.
    assert [len(found) for found in raised] == [0] * 11 + [1]


def test_one_event_raises_one_alarm_however_many_windows_see_it(peak_scorer: PeakScorer) -> None:
    lying = moving(60)
    for at_s in (10.0, 11.5, 14.0, 19.0):  # struggles after the impact
        lying = knock(lying, at_s, STRONG_G)
    assert len(falls(replay([run(lying)], peak_scorer))) == 1


def test_a_second_fall_a_minute_later_is_a_second_alarm(peak_scorer: PeakScorer) -> None:
    twice = knock(knock(moving(120), 20.0, STRONG_G), 80.0, STRONG_G)
    assert [round(fall.impact_s) for fall in falls(replay([run(twice)], peak_scorer))] == [20, 80]


def test_a_recording_shorter_than_the_window_is_judged(peak_scorer: PeakScorer) -> None:
    (fall,) = falls(replay([run(knock(moving(1.5), 0.4, STRONG_G))], peak_scorer))
    assert fall.impact_s == pytest.approx(0.4, abs=0.1)


def test_a_fall_in_the_first_sample_is_not_before_the_recording(peak_scorer: PeakScorer) -> None:
    (fall,) = falls(replay([run(knock(moving(20), 0.0, STRONG_G))], peak_scorer))
    assert 0 <= fall.impact_s < 0.1


@given(after_s=st.floats(0.06, 15.0))
def test_wherever_a_recording_ends_after_a_fall_it_is_raised_once(peak_scorer: PeakScorer, after_s: float) -> None:
    cut = knock(moving(30), 12.0, STRONG_G)[: round((12 + after_s) * HZ)]
    (fall,) = falls(replay([run(cut)], peak_scorer))
    assert fall.impact_s == pytest.approx(12.0, abs=0.1)
    assert fall.impact_s <= fall.raised_s <= 12.0 + after_s + 0.05


@given(after_s=st.floats(0.06, 2.9))
def test_even_weak_evidence_is_raised_when_silence_follows(peak_scorer: PeakScorer, after_s: float) -> None:
    weak = knock(moving(30), 12.0, WEAK_G)
    assert falls(replay([run(weak)], peak_scorer)) == []
    assert len(falls(replay([run(weak[: round((12 + after_s) * HZ)])], peak_scorer))) == 1


def test_a_stream_that_ends_long_after_weak_evidence_raises_nothing(peak_scorer: PeakScorer) -> None:
    assert falls(replay([run(knock(moving(30), 12.0, WEAK_G))], peak_scorer)) == []


def test_a_suspicion_is_told_once_when_it_begins(peak_scorer: PeakScorer) -> None:
    (suspected,) = replay([run(knock(moving(60), 12.0, WEAK_G))], peak_scorer)
    assert isinstance(suspected, Suspected)
    assert suspected.impact_s == pytest.approx(12.0, abs=0.1)
    assert 0.0 <= suspected.at_s - suspected.impact_s < 1.0
    assert 0.4 <= suspected.probability < 0.45


def test_a_suspicion_that_grows_or_moves_is_told_again_and_one_that_lasts_is_not(peak_scorer: PeakScorer) -> None:
    def told(*scores: float) -> list[float]:
        detector, found = Detector(peak_scorer.card), []
        for i, score in enumerate(scores):
            detector.push(i * 16, moving(16 / HZ, seed=i))
            end = detector.due()
            assert end is not None
            found += detector.decide(end, score)
        return [f.probability for f in found if isinstance(f, Suspected)]

    assert told(*[0.41, 0.45] * 3) == [0.41]
    assert told(0.41, 0.55, 0.6) == [0.41, 0.55]  # one window above the threshold: not enough alone
    weak = knock(knock(moving(60), 12.0, 2.8), 17.5, 2.9)
    assert [round(f.impact_s, 1) for f in replay([run(weak)], peak_scorer)] == [12.0, 17.5]


def test_the_window_that_raises_an_alarm_tells_no_suspicion_as_well(peak_scorer: PeakScorer) -> None:
    detector = Detector(peak_scorer.card)
    detector.push(0, moving(0.32))
    (first,) = detector.decide(16, 0.9)
    assert isinstance(first, Suspected)
    detector.push(16, moving(0.32))
    (second,) = detector.decide(32, 0.9)
    assert isinstance(second, FallDetected)


def test_silence_is_told_once(peak_scorer: PeakScorer) -> None:
    detector = Detector(peak_scorer.card)
    detector.push(0, moving(0.32))
    detector.decide(16, 0.45)
    assert len(detector.on_silence()) == 1
    assert detector.on_silence() == []


def test_a_rest_between_hops_is_scored_once(peak_scorer: PeakScorer) -> None:
    detector = Detector(peak_scorer.card)
    detector.push(0, moving(20 / HZ))
    assert detector.due() == 16
    detector.decide(16, 0.1)
    assert detector.last() == 20
    detector.decide(20, 0.9)
    assert detector.last() is None
    detector.push(20, moving(12 / HZ))
    assert detector.due() == 32


def test_a_short_gap_is_bridged_and_the_window_goes_on(peak_scorer: PeakScorer) -> None:
    stream = knock(moving(30), 12.0, STRONG_G)
    first, second = stream[: round(12.1 * HZ)], stream[round(13.0 * HZ) :]
    (fall,) = falls(replay([run(first), run(second, 13.0)], peak_scorer))
    # Raised by the windows after the gap, which still show the impact; silence would have raised it before.
    assert fall.raised_s > 12.6


def test_a_long_gap_settles_what_was_being_weighed(peak_scorer: PeakScorer) -> None:
    stream = knock(moving(30), 12.0, WEAK_G)
    first, second = stream[: round(13.0 * HZ)], stream[round(16.0 * HZ) :]
    (fall,) = falls(replay([run(first), run(second, 16.0)], peak_scorer))
    assert fall.raised_s == pytest.approx(13.0, abs=0.1)


def test_a_long_gap_begins_a_fresh_window_that_is_judged_at_once(peak_scorer: PeakScorer) -> None:
    first, second = moving(10), knock(moving(10), 0.3, STRONG_G)
    (fall,) = falls(replay([run(first), run(second, 20.0)], peak_scorer))
    assert fall.impact_s == pytest.approx(20.3, abs=0.1)
    assert fall.raised_s < 21.6


def test_an_impact_in_the_first_sample_after_a_gap_is_not_dated_before_it(peak_scorer: PeakScorer) -> None:
    first, second = moving(10), knock(moving(10), 0.0, STRONG_G)
    (fall,) = falls(replay([run(first), run(second, 20.0)], peak_scorer))
    assert 20.0 <= fall.impact_s < 20.2


def test_a_slide_to_the_floor_and_then_stillness_is_a_long_lie(peak_scorer: PeakScorer) -> None:
    lying = knock(np.concatenate([moving(12), still(150)]), 11.0, WEAK_G)
    (lie,) = falls(replay([run(lying)], peak_scorer))
    assert lie.long_lie
    assert lie.impact_s == pytest.approx(11.0, abs=0.1)
    assert lie.raised_s == pytest.approx(12 + 2 + 90, abs=3)


def test_who_moves_after_weak_evidence_is_no_long_lie(peak_scorer: PeakScorer) -> None:
    seated = knock(np.concatenate([moving(12), still(60), moving(2), still(200)]), 11.0, WEAK_G)
    assert falls(replay([run(seated)], peak_scorer)) == []


def test_stillness_without_any_evidence_is_sleep(peak_scorer: PeakScorer) -> None:
    assert falls(replay([run(np.concatenate([moving(12), still(600)]))], peak_scorer)) == []


def test_silence_is_no_good_news_for_whoever_lies_still_after_weak_evidence(peak_scorer: PeakScorer) -> None:
    before = knock(np.concatenate([moving(12), still(30)]), 11.0, WEAK_G)
    (fall,) = falls(replay([run(before), run(still(150), 42 + 40)], peak_scorer))
    assert not fall.long_lie
    assert 41.5 < fall.raised_s < 42.5


@pytest.mark.parametrize("gap_s", [1.5, 2.9])
def test_a_hole_does_not_forget_a_suspicion_or_its_timers(peak_scorer: PeakScorer, gap_s: float) -> None:
    before = knock(np.concatenate([moving(12), still(30)]), 11.0, WEAK_G)
    (lie,) = falls(replay([run(before), run(still(150), 42 + gap_s)], peak_scorer))
    assert lie.long_lie
    assert lie.impact_s == pytest.approx(11.0, abs=0.1)
    assert lie.raised_s == pytest.approx(12 + 2 + 90, abs=3)


def test_after_an_alarm_it_is_told_whether_the_person_moves_lies_still_or_is_up(peak_scorer: PeakScorer) -> None:
    stream = np.concatenate([moving(12), still(40), moving(60, seed=1)])
    told = motions(replay([run(knock(stream, 11.5, STRONG_G))], peak_scorer))
    assert [t.motion for t in told] == [Motion.STILL, Motion.MOVING, Motion.UPRIGHT]
    assert [t.at_s for t in told] == [pytest.approx(at_s, abs=2.5) for at_s in (12 + 2 + 6, 52 + 6, 52 + 20)]
    assert {t.impact_s for t in told} == {told[0].impact_s}


def test_motion_is_told_for_a_quarter_of_an_hour_only(peak_scorer: PeakScorer) -> None:
    stream = np.concatenate([moving(12), still(1000), moving(60)])
    told = motions(replay([run(knock(stream, 11.5, STRONG_G))], peak_scorer))
    assert [t.motion for t in told] == [Motion.STILL]


def test_a_batch_of_a_very_slow_sensor_is_taken_whole(peak_scorer: PeakScorer) -> None:
    detector = Detector(peak_scorer.card)
    many = moving(60 * 32 / HZ)
    detector.push(0, many)
    ends = []
    while (end := detector.due()) is not None:
        ends.append(end)
        window = detector.window(end)
        held = np.concatenate([np.repeat(many[:1], max(160 - end, 0), axis=0), many[max(end - 160, 0) : end]])
        assert np.array_equal(window, held)
        detector.decide(end, 0.0)
    assert ends == list(range(16, 1921, 16))


streams = st.lists(
    st.tuples(
        st.sampled_from(["still", "moving", "knock", "weak", "gap", "hole"]), st.floats(0.1, 12.0, allow_nan=False)
    ),
    min_size=1,
    max_size=12,
)


def build(parts: list[tuple[str, float]]) -> list[tuple[Times, Accel]]:
    runs: list[tuple[Times, Accel]] = []
    now_s = 0.0
    for number, (what, seconds) in enumerate(parts):
        if what in {"gap", "hole"}:
            now_s += min(seconds / 12, 0.9) if what == "gap" else 1.1 + seconds
            continue
        piece = still(seconds) if what == "still" else moving(seconds, seed=number)
        if what in {"knock", "weak"}:
            piece = knock(piece, seconds / 2, STRONG_G if what == "knock" else WEAK_G)
        if len(piece):
            runs.append(run(piece, now_s))
        now_s += len(piece) / HZ
    return runs


@settings(deadline=None)
@given(parts=streams, cuts=st.lists(st.integers(1, 3000), max_size=30))
def test_any_chunking_gives_the_same_findings(
    peak_scorer: PeakScorer, parts: list[tuple[str, float]], cuts: list[int]
) -> None:
    whole = build(parts)
    pieces = []
    for t_s, accel_g in whole:
        bounds = sorted({0, len(t_s), *(cut % len(t_s) for cut in cuts)})
        pieces += [(t_s[a:b], accel_g[a:b]) for a, b in pairwise(bounds)]
    found = replay(whole, peak_scorer)
    assert replay(pieces, peak_scorer) == found
    for fall, following in pairwise(falls(found)):
        assert following.raised_s - fall.raised_s >= peak_scorer.card.decision.refractory_s
    end_s = max((float(t_s[-1]) for t_s, _ in whole), default=0.0)
    for fall in falls(found):
        assert 0 <= fall.impact_s <= fall.raised_s <= end_s + 0.04  # one sample at 32 Hz


def test_the_decision_follows_the_card(peak_scorer: PeakScorer) -> None:
    stream = [run(knock(moving(40), 12.0, STRONG_G))]

    def raised(**changes: float) -> list[FallDetected]:
        card: Card = replace(
            peak_scorer.card,
            decision=replace(peak_scorer.card.decision, **changes),  # type: ignore[arg-type]
        )
        return falls(replay(stream, PeakScorer(card)))

    (usual,) = raised()
    (slow,) = raised(confirm_windows=5)
    assert slow.raised_s == pytest.approx(usual.raised_s + 1.5)
    assert raised(threshold=0.99, suspect_threshold=0.98) == []
