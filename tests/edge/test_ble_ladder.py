"""The ladder of a deaf radio: when which step is due, with the time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.ble_ladder import Ladder, LadderTimes, Step

HOUR_S = 3600


def climb(
    ladder: Ladder, start_s: float, end_s: float, *, scanning: bool = True, usb: bool = False
) -> dict[int, Step]:
    """Ask once a second; return what was due, and when."""
    asked = {
        s: ladder.step(now_s=s, scanning=scanning, has_usb_reset=usb) for s in range(int(start_s), int(end_s))
    }
    return {s: step for s, step in asked.items() if step is not None}


def test_a_deaf_radio_is_shaken_ever_harder_and_then_a_person_is_told() -> None:
    steps = climb(Ladder(LadderTimes(), now_s=0), 0, 62, usb=True)
    assert [step for step in steps.values() if step is not Step.RESTART_SCAN] == [
        Step.POWER_CYCLE,
        Step.RESET_USB,
        Step.TELL,
    ]
    assert min(steps) <= 30
    assert steps[min(steps)] is Step.RESTART_SCAN
    assert steps[60] is Step.TELL


def test_the_first_sign_of_life_ends_it() -> None:
    ladder = Ladder(LadderTimes(), now_s=0)
    climb(ladder, 0, 70)
    assert ladder.told
    ladder.advertised(now_s=70)
    assert not ladder.told
    assert climb(ladder, 70, 89) == {}
    assert climb(ladder, 89, 140)[130] is Step.TELL  # a new silence is told anew


def test_a_person_is_told_once_in_one_silence() -> None:
    steps = climb(Ladder(LadderTimes(), now_s=0), 0, 6 * HOUR_S, usb=True)
    assert list(steps.values()).count(Step.TELL) == 1


def test_data_alone_is_life_when_all_are_connected() -> None:
    ladder = Ladder(LadderTimes(), now_s=0)
    for now_s in range(2 * HOUR_S):
        ladder.lives(now_s=now_s)
        assert ladder.step(now_s=now_s, scanning=False) is None


def test_when_some_stream_and_some_are_missing_only_the_scan_is_restarted() -> None:
    ladder, steps = Ladder(LadderTimes(), now_s=0), []
    for now_s in range(HOUR_S):
        ladder.lives(now_s=now_s)
        steps.append(ladder.step(now_s=now_s, scanning=True))
    assert set(steps) == {None, Step.RESTART_SCAN}


def test_a_quiet_room_does_not_switch_the_adapter_off_and_on_for_ever() -> None:
    steps = list(climb(Ladder(LadderTimes(), now_s=0), 0, 24 * HOUR_S, usb=True).values())
    assert steps.count(Step.POWER_CYCLE) == 3
    assert steps.count(Step.RESET_USB) == 3
    assert steps[-1] is Step.RESTART_SCAN


def test_a_quiet_room_that_came_alive_has_all_steps_again() -> None:
    ladder = Ladder(LadderTimes(), now_s=0)
    climb(ladder, 0, 2 * HOUR_S)
    ladder.advertised(now_s=2 * HOUR_S)
    assert Step.POWER_CYCLE in climb(ladder, 2 * HOUR_S, 2 * HOUR_S + 60).values()


@given(st.lists(st.tuples(st.sampled_from(["seen", "data", "begin", "ask"]), st.floats(0.1, 60)), max_size=300))
def test_whatever_comes_the_adapter_is_switched_off_at_most_once_in_five_minutes(
    acts: list[tuple[str, float]],
) -> None:
    ladder, now_s, last_s = Ladder(LadderTimes(), now_s=0), 0.0, -1e9
    for act, wait_s in acts:
        now_s += wait_s
        match act:
            case "seen":
                ladder.advertised(now_s=now_s)
            case "data":
                ladder.lives(now_s=now_s)
            case "begin":
                ladder.begin(now_s=now_s)
            case _:
                if ladder.step(now_s=now_s, scanning=True) is Step.POWER_CYCLE:
                    assert now_s - last_s >= 300
                    last_s = now_s


def test_who_asks_late_is_told_to_tell_a_person_first() -> None:
    assert Ladder(LadderTimes(), now_s=0).step(now_s=500, scanning=True) is Step.TELL


def test_a_scan_that_began_just_now_has_its_time_to_hear() -> None:
    ladder = Ladder(LadderTimes(), now_s=0)
    ladder.lives(now_s=1000)
    ladder.scan_began(now_s=1000)
    assert ladder.step(now_s=1019, scanning=True) is None
    assert ladder.step(now_s=1020, scanning=True) is Step.RESTART_SCAN


@pytest.mark.parametrize(
    "times",
    [
        {"restart_scan_s": 40.0, "power_cycle_s": 42.0},
        {"tell_s": 100.0},
        {"power_cycle_s": 10.0},
        {"repeat_s": 30.0},
    ],
)
def test_a_ladder_that_is_too_slow_or_out_of_order_is_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ladder"):
        LadderTimes(**times)  # type: ignore[arg-type]
