"""One page over several channels: the main ones at once, the others only when none of those takes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.core.delivery import Delivery


def delivery(primary: str, fallback: str = "", *, now_s: float = 0.0) -> Delivery:
    return Delivery(primary, fallback, now_s=now_s, fallback_after_s=10.0)


def test_a_page_that_a_main_channel_takes_goes_to_no_other() -> None:
    page = delivery("ab", "x")
    page.on_report("a", accepted=True)
    page.on_report("b", accepted=False)
    assert (page.more(60.0), page.accepted, page.failed, page.deadline_s()) == ((), True, False, None)


def test_when_all_main_channels_refuse_the_others_get_it_at_once() -> None:
    page = delivery("ab", "xy")
    page.on_report("a", accepted=False)
    assert page.more(1.0) == ()
    page.on_report("b", accepted=False)
    assert page.more(1.0) == ("x", "y")
    assert page.more(1.0) == ()
    page.on_report("x", accepted=False)
    assert not page.failed
    page.on_report("y", accepted=False)
    assert page.failed


def test_a_main_channel_that_hangs_is_not_waited_for() -> None:
    page = delivery("a", "x", now_s=100.0)
    assert (page.deadline_s(), page.more(109.0)) == (110.0, ())
    assert page.more(110.0) == ("x",)
    assert page.deadline_s() is None


def test_a_group_that_only_others_serve_has_them_at_once() -> None:
    assert delivery("", "x", now_s=5.0).more(5.0) == ("x",)


def test_a_group_that_no_channel_serves_has_failed_from_the_start() -> None:
    assert delivery("").failed


@given(st.lists(st.tuples(st.sampled_from("abxy"), st.booleans(), st.floats(0, 30))))
def test_each_channel_is_tried_once_and_acceptance_by_any_is_the_end(
    events: list[tuple[str, bool, float]],
) -> None:
    page = delivery("ab", "xy")
    tried = ["a", "b"]
    accepted = False
    for channel, takes, at_s in events:
        page.on_report(channel, accepted=takes)
        accepted = accepted or takes
        more = page.more(at_s)
        assert not (accepted and more)
        tried += more
    assert len(tried) == len(set(tried))
    assert page.accepted == accepted
