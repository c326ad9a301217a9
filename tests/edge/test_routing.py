"""Who is called first: by room, by shift, and when nobody knows the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.core.routing import Route, ladder_for

NIGHT = (20 * 60, 8 * 60)
REST = Route(("12", "20", "0", "99"))
ROUTES = (
    Route(("31", "0"), rooms=frozenset({"12", "14"}), hours=NIGHT),
    Route(("30", "0"), rooms=frozenset({"12", "14"})),
    Route(("40", "0"), hours=NIGHT),
    REST,
)


def test_the_first_route_that_fits_room_and_time_counts() -> None:
    assert ladder_for(ROUTES, room="12", minute=3 * 60) == (("31",), ("0",))
    assert ladder_for(ROUTES, room="12", minute=12 * 60) == (("30",), ("0",))
    assert ladder_for(ROUTES, room="7", minute=23 * 60) == (("40",), ("0",))
    assert ladder_for(ROUTES, room="7", minute=12 * 60) == (("12",), ("20",), ("0",), ("99",))


def test_what_hits_the_whole_home_goes_to_no_single_zone() -> None:
    assert ladder_for(ROUTES, room=None, minute=12 * 60) == (("12",), ("20",), ("0",), ("99",))


def test_a_shift_over_midnight_begins_and_ends_on_the_minute() -> None:
    shift = Route(("1",), hours=NIGHT)
    assert [shift.at(minute) for minute in (1199, 1200, 1439, 0, 479, 480)] == [
        False,
        True,
        True,
        True,
        True,
        False,
    ]
    day = Route(("1",), hours=(8 * 60, 20 * 60))
    assert [day.at(minute) for minute in (479, 480, 1199, 1200)] == [False, True, True, False]


def test_while_nobody_knows_the_time_every_shift_is_called() -> None:
    assert ladder_for(ROUTES, room="12", minute=None) == (("31", "30"), ("0",))
    assert ladder_for(ROUTES, room="7", minute=None) == (("40", "12"), ("0", "20"), ("0",), ("99",))


rooms = st.sampled_from(["12", "14", "7", None])
minutes = st.integers(0, 1439)
groups = st.lists(st.sampled_from("123456"), min_size=1, max_size=4).map(tuple)
routes = st.lists(
    st.builds(
        Route,
        groups,
        st.frozensets(st.sampled_from(["12", "14"])),
        st.none() | st.tuples(minutes, minutes).filter(lambda hours: hours[0] != hours[1]),
    )
)


@given(routes, rooms, minutes)
def test_somebody_is_always_called_and_an_unknown_time_calls_no_fewer(
    routes: list[Route], room: str | None, minute: int
) -> None:
    known = ladder_for((*routes, REST), room=room, minute=minute)
    unknown = ladder_for((*routes, REST), room=room, minute=None)
    assert known
    assert all(known)
    for rung, wide in zip(known, unknown, strict=False):
        assert set(rung) <= set(wide)
    assert len(unknown) >= len(known)
