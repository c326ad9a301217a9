"""From depth frames to numbers about people."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.seen import Person, Seen, parse_seen
from edge.core.supervision import Cause
from edge.depth.floor import apart
from edge.depth.frame import Calibration, Frame, Intrinsics
from edge.depth.observer import Observer
from tests.edge.depth_scene import Box, Ellipsoid, Scene, lying, upright

FPS = 10.0
CAMERA = Intrinsics(160, 120, 140.0, 140.0, 79.5, 59.5)
BED = Box((-1.6, 2.6, 0.0), (-0.7, 4.5, 0.5))
Body = list[Ellipsoid]
ROOM, PERSON = Scene(camera=CAMERA).depth_mm(), Scene(camera=CAMERA).depth_mm(upright(0.0, 3.0))


def play(
    observer: Observer, scene: Scene, body: Callable[[float], Body], seconds: float, at_s: float = 0.0
) -> Iterator[Seen]:
    for i in range(round(seconds * FPS)):
        yield observer.on_frame(scene.frame(at_s + i / FPS, body(i / FPS)))


def observer_of(scene: Scene, *, zones: bool = False) -> Observer:
    """Return an observer that knows the empty room."""
    marked = tuple(scene.zone(box) for box in scene.boxes) if zones else ()
    calibration = Calibration(scene.camera, FPS, scene.floor, marked)
    return Observer(calibration, background=scene.depth_mm())


def fall(at_s: float, *, right: float = 0.3, away: float = 3.0) -> Callable[[float], Body]:
    def body(t_s: float) -> Body:
        if t_s < at_s:
            return upright(right - 0.3 * (at_s - t_s), away)
        part = min((t_s - at_s) / 0.6, 1.0)
        return lying(right, away) if part == 1.0 else upright(right, away, height=1.7 - 1.2 * part)

    return body


def only(seen: Seen) -> Person:
    [person] = seen.people
    return person


def test_somebody_who_falls_is_followed_down_and_timed_on_the_floor() -> None:
    scene = Scene(camera=CAMERA)
    seen = list(play(observer_of(scene), scene, fall(4.0), 20.0))
    assert only(seen[20]).head_m == pytest.approx(1.65, abs=0.08)
    assert min(only(s).speed_mps for s in seen[38:60]) < -0.8
    assert only(seen[-1]).head_m < 0.35
    assert only(seen[-1]).on_floor_s == pytest.approx(20.0 - 4.5, abs=0.7)
    assert len({only(s).track for s in seen}) == 1
    assert all(s.cause == "" for s in seen)


@pytest.mark.parametrize(
    ("height_m", "tilt_deg"), [(1.0, 0.0), (1.5, 10.0), (2.2, 25.0), (2.5, 45.0), (2.6, 90.0)]
)
def test_the_floor_is_found_whatever_the_height_and_tilt(height_m: float, tilt_deg: float) -> None:
    bed = BED if tilt_deg < 80 else Box((0.5, -1.0, 0.0), (1.4, 1.0, 0.5))
    scene = Scene(height_m, tilt_deg, boxes=[bed], camera=CAMERA)
    observer = Observer(Calibration(CAMERA))
    observer.learn([scene.depth_mm()])
    assert observer.floor is not None
    degrees, metres = apart(observer.floor, scene.floor)
    assert degrees < 1.0
    assert metres < 0.04


def test_who_lies_in_bed_is_not_on_the_floor() -> None:
    scene = Scene(boxes=[BED], camera=CAMERA)
    seen = list(play(observer_of(scene, zones=True), scene, lambda _: lying(-1.1, 3.4, floor=0.5, along=1.0), 5.0))
    assert only(seen[-1]).on_floor_s == 0.0
    assert dict(zip(("in_bed",), (only(seen[-1]).features[7],), strict=True))["in_bed"] > 0.7


def test_a_bed_as_low_as_a_body_is_told_by_its_zone() -> None:
    low = Box((-1.6, 2.6, 0.0), (-0.2, 4.0, 0.15))
    scene = Scene(boxes=[low], camera=CAMERA)
    on_it: Callable[[float], Body] = lambda _: lying(-0.9, 3.2, floor=0.15, along=1.0)  # noqa: E731 - a body
    assert only(list(play(observer_of(scene, zones=True), scene, on_it, 4.0))[-1]).on_floor_s == 0.0
    assert only(list(play(observer_of(scene), scene, on_it, 4.0))[-1]).on_floor_s > 2.0


def sitting(right: float, away: float) -> Body:
    """Return somebody who sits on the floor with their legs along it."""
    return [
        Ellipsoid((right, away, 0.42), (0.2, 0.18, 0.42)),
        Ellipsoid((right, away, 0.8), (0.1, 0.1, 0.12)),
        Ellipsoid((right + 0.5, away, 0.1), (0.45, 0.17, 0.1)),
    ]


def test_who_slid_to_the_floor_and_sits_there_alone_is_on_the_floor() -> None:
    scene = Scene(camera=CAMERA)
    seen = list(play(observer_of(scene), scene, lambda t: upright(0.0, 3.0) if t < 2 else sitting(0.0, 3.0), 8.0))
    assert only(seen[-1]).on_floor_s == pytest.approx(6.0, abs=0.7)


def test_who_sits_there_beside_somebody_who_stands_may_be_a_carer_at_work() -> None:
    scene = Scene(camera=CAMERA)
    both = play(observer_of(scene), scene, lambda _: sitting(-0.7, 3.0) + upright(1.2, 3.2), 6.0)
    assert [p.on_floor_s for p in list(both)[-1].people] == [0.0, 0.0]


def test_the_feet_of_somebody_at_the_edge_of_the_image_are_nobody_on_the_floor() -> None:
    scene = Scene(2.4, 60.0, camera=CAMERA)  # in the end its view ends at their knees
    seen = list(play(observer_of(scene), scene, lambda t: upright(-0.2 + 0.02 * t, min(1.1 + 0.35 * t, 2.8)), 9.0))
    assert all(p.on_floor_s == 0.0 for s in seen for p in s.people)
    assert any(p.head_m < 0.7 for s in seen for p in s.people), "the scene does not show what it is for"


def test_a_carer_who_kneels_beside_somebody_on_the_floor_changes_nothing_for_them() -> None:
    scene = Scene(camera=CAMERA)
    observer = observer_of(scene)

    def both(t_s: float) -> Body:
        body = fall(2.0)(t_s)
        if t_s < 8.0:
            return body
        near = min((t_s - 8.0) / 4.0, 1.0)
        height = 1.7 if t_s < 12.0 else 1.1
        return body + upright(1.9 - 1.3 * near, 2.72, height=height)

    seen = list(play(observer, scene, both, 25.0))
    assert len(seen[-1].people) == 2
    assert seen[-1].people[0].on_floor_s == pytest.approx(25.0 - 2.6, abs=1.0)
    assert seen[-1].people[1].on_floor_s == 0.0


def test_two_people_are_two() -> None:
    scene = Scene(camera=CAMERA)
    seen = list(play(observer_of(scene), scene, lambda t: upright(-0.7, 3.0) + upright(0.2 + 0.1 * t, 3.5), 5.0))
    assert {len(s.people) for s in seen[5:]} == {2}


def test_a_chair_put_down_becomes_a_part_of_the_room_and_somebody_on_the_floor_never_does() -> None:
    bare, furnished = (
        Scene(camera=CAMERA, holes=0.0),
        Scene(camera=CAMERA, boxes=[Box((0.8, 3.0, 0.0), (1.3, 3.5, 0.9))]),
    )
    observer = observer_of(bare)
    for i in range(100):  # a second each: only time counts
        seen = observer.on_frame(furnished.frame(float(i)))
    assert seen.people == ()
    for i in range(100, 300):
        seen = observer.on_frame(furnished.frame(float(i), lying(-0.6, 3.0)))
    assert only(seen).on_floor_s > 150.0


def test_furniture_taken_away_leaves_no_ghost() -> None:
    furnished = Scene(camera=CAMERA, boxes=[Box((0.8, 3.0, 0.0), (1.3, 3.5, 0.9))])
    observer = observer_of(furnished)
    seen = list(play(observer, Scene(camera=CAMERA), lambda _: [], 4.0))
    assert seen[-1].people == ()
    seen = list(play(observer, Scene(camera=CAMERA), lambda _: upright(1.0, 3.2), 4.0, at_s=4.0))
    assert only(seen[-1]).head_m > 1.5


def test_a_knocked_camera_is_named_within_ten_seconds_and_walking_people_are_none() -> None:
    scene = Scene(camera=CAMERA, boxes=[BED])
    observer = observer_of(scene)
    walking = list(play(observer, scene, lambda t: upright(-1.0 + 0.2 * (t % 10), 2.2), 20.0))
    assert {s.cause for s in walking} == {""}
    knocked = Scene(camera=CAMERA, boxes=[BED], tilt_deg=33.0)
    after = list(play(observer, knocked, lambda _: [], 10.0, at_s=20.0))
    assert after[-1].cause == Cause.CAMERA_MOVED


def test_half_of_the_readings_missing_still_shows_who_lies_there() -> None:
    scene = Scene(camera=CAMERA, holes=0.5)
    seen = list(play(observer_of(scene), scene, fall(3.0), 10.0))
    assert only(seen[-1]).on_floor_s > 5.0


def test_somebody_in_the_very_first_frame_is_seen_once_they_move() -> None:
    scene = Scene(camera=CAMERA)
    observer = Observer(Calibration(CAMERA, FPS, scene.floor))
    seen = list(play(observer, scene, lambda t: upright(-0.6 + 0.3 * t, 3.0), 5.0))
    assert only(seen[-1]).head_m == pytest.approx(1.65, abs=0.1)


def test_who_falls_behind_the_bed_and_is_no_longer_seen_stays_on_the_floor_for_a_while() -> None:
    bed = Box((-1.2, 2.2, 0.0), (0.8, 3.1, 0.55))
    scene = Scene(1.6, 12.0, boxes=[bed], camera=CAMERA)

    def body(t_s: float) -> Body:
        part = min(max(t_s - 3.0, 0.0) / 0.5, 1.0)
        return lying(-0.2, 3.45, along=0.9) if part == 1.0 else upright(-0.2, 3.45, height=1.7 - part)

    seen = list(play(observer_of(scene), scene, body, 8.0))
    assert seen[-1].people, "they are forgotten"
    assert seen[-1].people[0].head_m < 0.9


def test_a_camera_that_finds_no_floor_says_so() -> None:
    seen = Observer(Calibration(CAMERA)).on_frame(Frame(np.zeros((120, 160), np.uint16), 0.0))
    assert seen.cause == Cause.CAMERA_FLOOR
    assert seen.people == ()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["noise", "stripes", "near", "jumps"]))
def test_whatever_a_camera_sends_the_numbers_are_finite_and_make_the_way_through_a_pipe(
    seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    room, person = ROOM.copy(), PERSON.copy()
    observer = Observer(Calibration(CAMERA, FPS, Scene(camera=CAMERA).floor), background=room)
    for i in range(12):
        match kind:
            case "noise":
                depth = rng.integers(0, 65536, (120, 160)).astype(np.uint16)
            case "stripes":
                depth = np.where(np.arange(160) % 7 < rng.integers(1, 7), room, 0).astype(np.uint16)
            case "near":
                depth = np.full((120, 160), rng.integers(0, 500), np.uint16)
            case _:
                depth = np.roll(person, rng.integers(0, 160), axis=1)
        seen = observer.on_frame(Frame(depth, i / FPS + float(rng.random()) / 20))
        again = parse_seen(seen.to_line())
        assert len(again.people) == len(seen.people)
        assert all(np.isfinite(p.features).all() for p in again.people)
