"""Who is not protected, since when, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.core.supervision import STEADY_S, Cause, Limits, LineWatch, Sight, Watch, cause_of

WELL = Sight(has_key=True, has_model=True, proved=True, heard_s=95.0, battery_pct=80, charging=False, worn=True)


def cause(sight: Sight, now_s: float = 100.0) -> Cause | None:
    return cause_of(sight, now_s=now_s, silence_s=60.0)


def test_a_wearable_that_is_worn_and_heard_protects() -> None:
    assert cause(WELL) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"has_key": False}, Cause.NO_KEY),
        ({"has_model": False}, Cause.NO_MODEL),
        ({"heard_s": None}, Cause.NEVER_HEARD),
        ({"heard_s": 30.0}, Cause.SILENT),
        ({"heard_s": 30.0, "battery_pct": 2}, Cause.FLAT),
        ({"heard_s": 30.0, "battery_pct": None}, Cause.SILENT),
        ({"battery_pct": 2}, None),  # as long as it speaks it protects
        ({"proved": False}, Cause.UNPROVED),
        ({"charging": True}, Cause.CHARGING),
        ({"worn": False}, Cause.NOT_WORN),
    ],
)
def test_each_blindness_has_its_name(changes: dict[str, object], expected: Cause | None) -> None:
    assert cause(replace(WELL, **changes)) is expected  # type: ignore[arg-type]


def test_of_many_causes_the_first_to_mend_is_named() -> None:
    nothing = Sight(
        has_key=False, has_model=False, proved=False, heard_s=None, battery_pct=None, charging=True, worn=False
    )
    named = []
    for mended in (
        {"has_key": True},
        {"has_model": True},
        {"heard_s": 99.0},
        {"proved": True},
        {"charging": False},
    ):
        named.append(cause(nothing))
        nothing = replace(nothing, **mended)
    assert [*named, cause(nothing)] == [
        Cause.NO_KEY,
        Cause.NO_MODEL,
        Cause.NEVER_HEARD,
        Cause.UNPROVED,
        Cause.CHARGING,
        Cause.NOT_WORN,
    ]


def test_a_wearable_that_is_exactly_on_time_is_not_silent() -> None:
    assert cause(WELL, now_s=155.0) is None
    assert cause(WELL, now_s=155.1) is Cause.SILENT


def test_a_watch_tells_since_when_and_when_a_person_must_know() -> None:
    watch = Watch()
    watch.observe(None, now_s=0.0)
    assert not watch.overdue(Limits(blind_s=120.0), now_s=1e9)
    watch.observe(Cause.SILENT, now_s=10.0)
    watch.observe(Cause.FLAT, now_s=100.0)  # another cause does not start the time anew
    assert (watch.since_s, watch.cause) == (10.0, Cause.FLAT)
    assert not watch.overdue(Limits(blind_s=120.0), now_s=129.0)
    assert watch.overdue(Limits(blind_s=120.0), now_s=130.0)
    watch.observe(None, now_s=140.0)
    assert (watch.since_s, watch.cause) == (None, None)
    assert not watch.overdue(Limits(blind_s=120.0), now_s=1e9)


def watch() -> LineWatch:
    return LineWatch(40.0, good_s=0.0)


def test_a_line_is_down_once_nothing_good_came_for_so_long() -> None:
    line = watch()
    for now_s in (10.0, 25.0):
        line.observe("", now_s=now_s)
    for now_s in (40.0, 55.0):
        line.observe("no answer", now_s=now_s)
    assert not line.is_down(now_s=64.9)
    assert line.is_down(now_s=65.1)
    assert (line.well, line.reason) == (False, "no answer")


def test_a_line_that_hangs_without_a_word_is_down_as_well() -> None:
    line = watch()
    line.observe("", now_s=10.0)
    assert line.is_down(now_s=50.1)


def test_one_failure_between_good_ones_is_not_news() -> None:
    line = watch()
    for i in range(100):
        line.observe("no answer" if i % 2 else "", now_s=15.0 * i)
        assert not line.is_down(now_s=15.0 * i)


def test_a_line_that_was_down_is_back_only_once_it_has_held() -> None:
    line = watch()
    assert line.is_down(now_s=41.0)
    for i in range(60):  # comes and goes, once a second
        line.observe("hung up" if i % 2 else "", now_s=42.0 + i)
        assert line.is_down(now_s=42.0 + i)
    line.observe("", now_s=102.0)
    assert line.is_down(now_s=102.0 + STEADY_S - 1)
    assert not line.is_down(now_s=102.0 + STEADY_S)
