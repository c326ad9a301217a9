"""What made-up people do in a room: daily things, and slow ways to the floor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from training.depth.body import FPS, Floats, J, Track, relax, smooth
from training.depth.figure import BENT, CURLED, FLAT, FOURS, KNEEL, SIT, SQUAT, STAND, Motion, both
from training.depth.render import Prop
from training.depth.room import Box, Furniture, Room, against_wall, clash, empty_room, make
from training.depth.skeletons import stirring

PRONE, SUPINE = (np.pi / 2, 0.0), (-np.pi / 2, 0.0)


@dataclass(slots=True)
class Play:
    """A room, those who act in it (the main person first) and what they move."""

    rng: np.random.Generator
    room: Room
    bed: Furniture | None = None
    chair: Furniture | None = None
    tracks: list[Track] = field(default_factory=list)
    props: list[Prop] = field(default_factory=list)
    is_uncontrolled: bool = False
    accel_g: Floats | None = None  # 50 Hz, (samples, 6): waist and wrist, where physics made it

    def spot(self, *, free_m: float = 0.55, near: Floats | None = None, within_m: float = np.inf) -> Floats:
        """Return a free place on the floor."""
        size = np.array([self.room.width_m, self.room.length_m])
        best = size / 2
        for _ in range(200):
            xy = self.rng.uniform(free_m, np.maximum(size - free_m, free_m + 0.01))
            if any(piece.covers(xy, free_m - 0.1) for piece in self.room.furniture):
                continue
            best = xy
            if near is None or (np.linalg.norm(xy - near) < within_m and self.is_clear(near, xy)):
                return np.asarray(xy)
        return np.asarray(best)

    def is_clear(self, a: Floats, b: Floats) -> bool:
        """Whether one can walk straight from a place to another."""
        way = a + np.linspace(0, 1, 20)[:, None] * (b - a)
        return not any(piece.covers(way, 0.22).any() for piece in self.room.furniture)

    def person(self, at: Floats, *, slow: float | None = None) -> Motion:
        """Return somebody who stands at a place."""
        slow = float(self.rng.uniform(1.0, 1.7)) if slow is None else slow
        return Motion((at[0], at[1]), float(self.rng.uniform(-np.pi, np.pi)), self.rng, slow=slow)

    def flat(self, points: Floats) -> Floats:
        """Bear points at the surface of the bed or chair they are over."""
        height = np.zeros(points.shape[:-1])
        for piece in (self.bed, self.chair):
            if piece is not None:
                height = np.where(piece.covers(points), piece.surface_m, height)
        return height

    def done(self, motion: Motion) -> Track:
        """Return the track of what somebody did."""
        return motion.track(self.room.support, self.flat)


def stage(rng: np.random.Generator, *, bed: bool = False, chair: bool = False) -> Play:
    """Return an empty room, or one with a bed or chair that can be reached."""
    while True:
        play = Play(rng, empty_room(rng))
        if bed:
            play.bed = against_wall(make("bed", rng), play.room, rng)
            play.room = replace(play.room, furniture=(play.bed,))
            if not any(_is_free(play, beside(play.bed, s)) for s in (-1, 1)):
                continue
        if chair:
            at, piece = play.spot(free_m=0.75), make("chair", rng)
            play.chair = replace(piece, x=float(at[0]), y=float(at[1]), yaw=float(rng.uniform(0, 2 * np.pi)))
            if play.bed is not None and (clash(play.chair, play.bed) or clash(play.bed, play.chair)):
                continue
            play.room = replace(play.room, furniture=(*play.room.furniture, play.chair))
            if not _is_free(play, before(play.chair)):
                continue
        return play


def _is_free(play: Play, xy: Floats) -> bool:
    size = np.array([play.room.width_m, play.room.length_m])
    inside = bool((xy > 0.45).all() and (xy < size - 0.45).all())
    return inside and not any(p.covers(xy, 0.2) for p in play.room.furniture)


def beside(bed: Furniture, side: int, along: float = -0.1, off: float = 0.38) -> Floats:
    """Return where one stands before one sits down on a side (-1 or 1) of the bed."""
    return np.array(bed.in_room(np.array([side * (bed.half_m[0] + off), along])))


def before(chair: Furniture, off: float = 0.55) -> Floats:
    """Return where one stands before one sits down on a chair."""
    return np.array(chair.in_room(np.array([0, -off])))


def heading(piece: Furniture, x: float, y: float) -> float:
    """Return the yaw of a direction in a piece's own axes."""
    return float(np.arctan2(y, x) + piece.yaw)


def side_of(play: Play) -> int:
    """Return a side of the bed that can be reached, -1 or 1."""
    assert play.bed is not None
    sides = [s for s in (-1, 1) if _is_free(play, beside(play.bed, s))]
    return int(play.rng.choice(sides))


def sit_on_bed(play: Play, who: Motion, side: int) -> Motion:
    """Walk up to the bed and sit down on its edge."""
    bed, u = play.bed, play.rng.uniform
    assert bed is not None
    along = u(-0.3, 0.15)
    who.walk(beside(bed, side, along)).face(heading(bed, side, 0))
    low = {**SQUAT, "spine": 0.5, **both(hip=1.3, kn=1.2, sh=0.6)}
    edge = bed.in_room(np.array([side * (bed.half_m[0] - 0.16), along]))
    who.to(low, u(0.7, 1.0), xy=who.xy + 0.35 * (np.array(edge) - who.xy), on=0.0)
    return who.to(SIT, u(0.6, 0.9), xy=edge, on=1.0)


def _rise(play: Play, who: Motion, to: Floats) -> Motion:
    u = play.rng.uniform
    who.to({"spine": 0.7, **both(hip=1.5, kn=1.6, sh=0.7)}, u(0.5, 0.9))
    return who.to(STAND, u(0.9, 1.5), xy=to, on=0.0)


def _lie_on_bed(play: Play, who: Motion, side: int) -> Motion:
    bed, u = play.bed, play.rng.uniform
    assert bed is not None
    middle = bed.in_room(np.array([side * 0.1, u(-0.05, 0.1)]))
    lean = {"spine": 0.2, **both(hip=1.1, kn=1.1, sh=0.4, el=0.8)}
    halfway = bed.in_room(np.array([side * (bed.half_m[0] - 0.3), -0.05]))
    yaw = heading(bed, 0, -1)
    who.to(lean, u(1.2, 2.0), tip=(-0.8, 0.0), yaw=_near(heading(bed, side * 0.5, -1), who.yaw), xy=halfway)
    return who.to(
        {**FLAT, **both(hip=0.3, kn=0.5, sh=0.2, el=0.6)},
        u(1.0, 2.0),
        tip=SUPINE,
        yaw=_near(yaw, who.yaw),
        xy=middle,
    )


def _near(yaw: float, before: float) -> float:
    return before + (yaw - before + np.pi) % (2 * np.pi) - np.pi


def _up_from_bed(play: Play, who: Motion, side: int) -> Motion:
    bed, u = play.bed, play.rng.uniform
    assert bed is not None
    edge = bed.in_room(np.array([side * (bed.half_m[0] - 0.16), -0.1]))
    lean = {"spine": 0.3, **both(hip=1.2, kn=1.2, sh=0.3, el=0.5)}
    who.to(lean, u(1.0, 1.8), tip=(-0.7, 0.0), yaw=_near(heading(bed, side * 0.6, -1), who.yaw), xy=edge)
    who.to(SIT, u(0.8, 1.4), tip=(0, 0), yaw=_near(heading(bed, side, 0), who.yaw)).hold(u(0.5, 4))
    return _rise(play, who, beside(bed, side))


def _to_floor(play: Play, who: Motion) -> Motion:
    """Get down to the floor deliberately: kneel, hands down, onto one side."""
    u = play.rng.uniform
    who.to({**KNEEL, "spine": 0.3}, u(1.4, 2.4))
    who.to(FOURS, u(1.0, 1.8), tip=(1.45, 0.0))
    ahead = np.array([np.cos(who.yaw), np.sin(who.yaw)])
    who.to({**CURLED, **both(hip=1.2, kn=1.4, sh=0.7, el=0.4)}, u(1.2, 2), tip=(0.6, 1.1), xy=who.xy + 0.1 * ahead)
    return who


def _from_floor(play: Play, who: Motion) -> Motion:
    u = play.rng.uniform
    who.to({**CURLED, **both(hip=1.2, kn=1.4, sh=0.7, el=0.4)}, u(1.2, 2), tip=(0.6, 1.1))
    who.to(FOURS, u(1.2, 2), tip=(1.45, 0.0)).hold(u(0.2, 1.5))
    who.to({**KNEEL, "spine": 0.3}, u(1.0, 1.6), tip=(0, 0))
    half = {"spine": 0.4, "hip_l": 1.5, "kn_l": 1.5, "kn_r": 1.5, "an_r": 0.6, **both(sh=0.6, el=0.4)}
    return who.to(half, u(0.7, 1.2)).to(STAND, u(1.0, 1.8))


def _leave(play: Play, who: Motion) -> Motion:
    return who.walk(play.spot(near=who.xy, within_m=2.5), speed_mps=play.rng.uniform(0.6, 1.0)).hold(
        play.rng.uniform(0.3, 2)
    )


def start(play: Play) -> Motion:
    """Return somebody who stands somewhere."""
    who = play.person(play.spot(free_m=0.5))
    return who.hold(play.rng.uniform(0.3, 1.5))


# -- on bed and chair ------------------------------------------------------------------------------


def bed_lie(rng: np.random.Generator) -> Play:
    """Lie down on the bed, rest, maybe get up."""
    play = stage(rng, bed=True)
    side = side_of(play)
    who = play.person(play.spot(near=beside(play.bed, side), within_m=2))  # type: ignore[arg-type]  # it has a bed here
    _lie_on_bed(play, sit_on_bed(play, who, side).hold(rng.uniform(0.3, 4)), side)
    for _ in range(rng.integers(1, 4)):
        ways = [
            (FLAT, SUPINE),
            (CURLED, (-np.pi / 2, 0.9)),
            (CURLED, (-np.pi / 2, -0.9)),
            ({**FLAT, **both(hip=0.5, kn=1.0)}, SUPINE),
        ]
        pose, tip = ways[rng.integers(len(ways))]
        who.to(pose, rng.uniform(0.8, 1.6), tip=tip).hold(rng.uniform(2, 6))
    if rng.random() < 0.75:
        _up_from_bed(play, who, side)
        _leave(play, who)
    play.tracks.append(play.done(who))
    return play


def bed_sit(rng: np.random.Generator) -> Play:
    """Sit on the edge of the bed."""
    play = stage(rng, bed=True)
    side = side_of(play)
    who = play.person(play.spot(near=beside(play.bed, side), within_m=2))  # type: ignore[arg-type]  # it has a bed here
    sit_on_bed(play, who, side).hold(rng.uniform(1, 5))
    if rng.random() < 0.5:  # shoes
        who.to({**SIT, "spine": 0.9, **both(hip=1.7, kn=1.6, sh=0.9, el=0.2)}, 1.2, tip=(0.35, 0)).hold(
            rng.uniform(1, 6)
        )
        who.to(SIT, 1.1, tip=(0, 0)).hold(rng.uniform(0.5, 3))
    _rise(play, who, beside(play.bed, side))  # type: ignore[arg-type]  # it has a bed here
    play.tracks.append(play.done(_leave(play, who)))
    return play


def chair_sit(rng: np.random.Generator) -> Play:
    """Sit down on a chair and get up, quickly or slowly."""
    play = stage(rng, chair=True)
    chair = play.chair
    assert chair is not None
    who = play.person(play.spot(near=before(chair), within_m=2), slow=float(rng.uniform(0.6, 1.6)))
    who.walk(before(chair)).face(heading(chair, 0, -1))
    seat = chair.in_room(np.array([0, -0.03]))
    for _ in range(rng.integers(1, 3)):
        who.to(
            {"spine": 0.6, **both(hip=1.2, kn=1.2, sh=0.6)},
            rng.uniform(0.5, 0.9),
            xy=0.6 * who.xy + 0.4 * np.array(seat),
        )
        who.to(SIT, rng.uniform(0.4, 0.8), xy=seat, on=1.0).hold(rng.uniform(1, 7))
        if rng.random() < 0.5:
            who.to({**SIT, "spine": 0.7, "nod": 0.4}, 1.0).hold(rng.uniform(1, 5))
        _rise(play, who, before(chair)).hold(rng.uniform(0.3, 1))
    play.tracks.append(play.done(_leave(play, who)))
    return play


# -- on the floor, as one wants to be --------------------------------------------------------------


def exercise(rng: np.random.Generator) -> Play:
    """Lie down on the floor slowly, exercise or move about there, get up."""
    play = stage(rng)
    who = _to_floor(play, start(play))
    knees = {**FLAT, **both(hip=0.8, kn=1.6, ab=0.3)}
    who.to(knees, rng.uniform(1, 2), tip=SUPINE)
    until = len(who.frames) + rng.uniform(8, 18) * FPS
    kind = rng.choice(["sit-ups", "legs", "arms", "rolling", "rest"])
    while len(who.frames) < until:
        if kind == "sit-ups":
            who.to({"spine": 0.5, **both(hip=1.9, kn=1.6, sh=1.2)}, rng.uniform(0.8, 1.4), tip=(-0.5, 0.0))
            who.to({**knees, **both(hip=0.8, kn=1.6, sh=1.2)}, rng.uniform(0.9, 1.5), tip=SUPINE)
        elif kind == "legs":
            leg = str(rng.choice(["l", "r"]))
            who.to(
                {**FLAT, f"hip_{leg}": rng.uniform(0.7, 1.4), f"kn_{leg}": rng.uniform(0, 0.5)},
                rng.uniform(0.8, 1.5),
            )
            who.to(FLAT, rng.uniform(0.8, 1.5)).hold(rng.uniform(0.1, 0.6))
        elif kind == "arms":
            who.to({**knees, **both(sh=rng.uniform(1.2, 2.9), hip=0.8, kn=1.6)}, rng.uniform(0.8, 1.6))
            who.to(knees, rng.uniform(0.8, 1.6))
        elif kind == "rolling":
            who.to(CURLED, rng.uniform(1, 2), tip=(-np.pi / 2, rng.choice([-1.2, 1.2]))).hold(rng.uniform(0.5, 2))
            who.to(knees, rng.uniform(1, 2), tip=SUPINE).hold(rng.uniform(0.5, 2))
        else:
            who.hold(rng.uniform(2, 4)).to(
                {**FLAT, **both(hip=rng.uniform(0, 0.8), kn=rng.uniform(0.1, 1.5))}, 1.5
            )
    _from_floor(play, who).hold(rng.uniform(0.5, 2))
    play.tracks.append(play.done(who))
    return play


def kneel(rng: np.random.Generator) -> Play:
    """Kneel, work low on the floor, get up."""
    play = stage(rng)
    who = _leave(play, start(play))
    who.to(KNEEL, rng.uniform(1.2, 2))
    until = len(who.frames) + rng.uniform(4, 14) * FPS
    while len(who.frames) < until:
        pose, tip = [
            ({**KNEEL, "spine": 0.9, **both(kn=2.2, hip=1.2, an=1.1, sh=1.4, el=0.3)}, (0.5, 0.0)),
            ({**KNEEL, **both(kn=2.4, hip=0.9, an=1.1, sh=0.5, el=0.8)}, (0.0, 0.0)),
            (FOURS, (1.4, 0.0)),
            (KNEEL, (0.0, 0.0)),
        ][rng.integers(4)]
        who.to(pose, rng.uniform(0.7, 1.6), tip=tip).hold(rng.uniform(0.3, 3))
    who.to(KNEEL, 1.0, tip=(0, 0)).to({"hip_l": 1.5, "kn_l": 1.5, "kn_r": 1.5, "spine": 0.4}, 0.9).to(STAND, 1.3)
    play.tracks.append(play.done(_leave(play, who)))
    return play


def crawl(rng: np.random.Generator) -> Play:
    """Crawl, search under the bed, get up."""
    play = stage(rng, bed=True)
    bed, side = play.bed, side_of(play)
    assert bed is not None
    target = beside(bed, side, rng.uniform(-0.4, 0.3), 0.55)
    who = play.person(play.spot(near=target, within_m=2.2))
    who.walk(target).face(heading(bed, -side, rng.normal(0, 0.3)))
    who.to({**KNEEL, "spine": 0.3}, 1.5).to(FOURS, 1.3, tip=(1.4, 0.0))
    for _ in range(rng.integers(2, 5)):
        deep = {**FOURS, "spine": 0.35, "nod": -0.3, **both(hip=1.6, kn=2.1, an=1.1, sh=2.6, el=0.7)}
        if rng.random() < 0.35:  # flat on the floor
            who.to({**FLAT, **both(sh=2.4, el=0.5, ab=0.3)}, rng.uniform(1.5, 2.5), tip=PRONE, xy=target)
        else:
            who.to(deep, rng.uniform(1, 1.8), tip=(1.65, 0.0), xy=target)
        who.hold(rng.uniform(0.5, 4))
        step = {**FOURS, "sh_l": rng.uniform(1.1, 2.2), "hip_r": rng.uniform(1.0, 1.7)}
        who.to(step, rng.uniform(0.6, 1.2), tip=(1.4, 0.0), xy=target + rng.normal(0, 0.08, 2)).hold(
            rng.uniform(0.2, 1)
        )
    who.to(KNEEL, 1.2, tip=(0, 0)).to({"hip_r": 1.5, "kn_r": 1.5, "kn_l": 1.5, "spine": 0.4}, 0.9).to(STAND, 1.3)
    play.tracks.append(play.done(_leave(play, who)))
    return play


# -- standing --------------------------------------------------------------------------------------


def walk(rng: np.random.Generator) -> Play:
    """Walk about, stand, turn."""
    play = stage(rng, bed=bool(rng.random() < 0.5))
    who = start(play)
    for _ in range(rng.integers(3, 7)):
        who.walk(play.spot(near=who.xy, within_m=3.5), speed_mps=rng.uniform(0.5, 1.3)).hold(rng.uniform(0, 2))
    play.tracks.append(play.done(who))
    return play


def pick_up(rng: np.random.Generator) -> Play:
    """Bend or squat to the floor and come up again."""
    play = stage(rng)
    who = _leave(play, start(play))
    for _ in range(rng.integers(1, 4)):
        pose, tip = [
            (BENT, (0.65, 0.0)),
            (SQUAT, (0.35, 0.0)),
            ({**BENT, **both(hip=1.6, kn=1.2, sh=1.3)}, (0.7, 0.0)),
        ][rng.integers(3)]
        who.to(pose, rng.uniform(0.6, 1.5), tip=tip).hold(rng.uniform(0.2, 3)).to(
            STAND, rng.uniform(0.7, 1.5), tip=(0, 0)
        )
        _leave(play, who)
    play.tracks.append(play.done(who))
    return play


def bag(rng: np.random.Generator) -> Play:
    """Carry a bag or laundry, put it down, or take it up; it lies on the floor meanwhile."""
    play = stage(rng, bed=bool(rng.random() < 0.5))
    who = play.person(play.spot(free_m=0.6))
    half = rng.uniform([0.1, 0.12, 0.06], [0.3, 0.45, 0.2])
    boxes = [Box((0, 0, half[2]), (half[0], half[1], half[2]))]
    for _ in range(rng.integers(0, 4)):  # a heap
        at, h = rng.uniform(-1, 1, 3) * half, half * rng.uniform(0.4, 0.9, 3)
        boxes.append(Box((at[0], at[1], h[2] + 0.05), (h[0], h[1], h[2]), float(rng.uniform(0, 3))))
    carried = {**STAND, **both(sh=0.6, el=1.0)}
    takes = bool(rng.random() < 0.4)
    if not takes:
        who.to(carried, 0.3)
    who.walk(play.spot(near=who.xy, within_m=3), arms=None if takes else carried)
    who.to({**BENT, **both(hip=1.5, kn=1.2, sh=1.2)}, rng.uniform(0.8, 1.5), tip=(0.6, 0.0)).hold(0.4)
    who.mark("hand over")
    spot = who.xy + 0.45 * np.array([np.cos(who.yaw), np.sin(who.yaw)])
    who.to(carried if takes else STAND, rng.uniform(0.8, 1.5), tip=(0, 0))
    for _ in range(rng.integers(1, 3)):
        who.walk(play.spot(near=who.xy, within_m=3), arms=carried if takes else None).hold(rng.uniform(0.5, 4))
    track = play.done(who)
    hands = smooth(track[:, [J["wrist_l"], J["wrist_r"]]].mean(axis=1), 1.5)
    k = np.arange(len(track))
    lies = (k < who.marks["hand over"]) if takes else (k >= who.marks["hand over"])
    place = np.column_stack([hands - [0, 0, half[2] * 1.5], np.full(len(track), who.yaw)])
    place[lies, :2], place[lies, 2] = spot, 0
    place[:, 2] = np.maximum(place[:, 2], 0)
    place[:, :3] = smooth(place[:, :3], 1.5)
    play.tracks.append(track)
    play.props.append(Prop(tuple(boxes), place))
    return play


def move_chair(rng: np.random.Generator) -> Play:
    """Push a chair or a walking frame to another place."""
    play = stage(rng, bed=bool(rng.random() < 0.3))
    piece = make("chair", rng)
    start = play.spot(free_m=0.9)
    chair_at = play.spot(near=start, within_m=2.2, free_m=0.8)
    gone = chair_at - start
    ahead = gone / max(float(np.linalg.norm(gone)), 0.1)
    hold = {**STAND, "spine": 0.25, **both(sh=0.7, el=0.5)}
    who = play.person(start).walk(chair_at - 0.55 * ahead)
    who.face(float(np.arctan2(ahead[1], ahead[0]))).to(hold, 0.7)
    first = len(who.frames)
    who.walk(play.spot(near=who.xy, within_m=2.0, free_m=0.9), speed_mps=0.5, arms=hold)
    last = len(who.frames)
    who.to(STAND, 0.7)
    _leave(play, who)
    track = play.done(who)
    yaws = np.array([f[1].as_euler("ZYX")[0] for f in who.frames])
    xy = track[:, 0, :2] + 0.55 * np.column_stack([np.cos(yaws), np.sin(yaws)])
    place = np.column_stack([xy, np.zeros(len(track)), np.unwrap(yaws) - np.pi / 2])
    place[:first], place[last:] = place[first], place[last - 1]
    play.tracks.append(track)
    play.props.append(Prop(piece.boxes, smooth(place, 1.0)))
    return play


# -- two people ------------------------------------------------------------------------------------


def two_walk(rng: np.random.Generator) -> Play:
    """Two people walk, each in their part of the room; they may come close."""
    play = stage(rng)
    along = 0 if play.room.width_m > play.room.length_m else 1
    size = np.array([play.room.width_m, play.room.length_m])
    seconds = rng.uniform(10, 25)
    for part in (0, 1):
        low, high = np.full(2, 0.5), size - 0.5
        (high if part == 0 else low)[along] = size[along] / 2 + (-0.25 if part == 0 else 0.25)
        who = play.person(rng.uniform(low, high))
        while len(who.frames) < seconds * FPS:
            roll = rng.random()
            who.walk(rng.uniform(low, high), speed_mps=rng.uniform(0.5, 1.2)).hold(rng.uniform(0.2, 2))
            if roll < 0.2:
                who.to(BENT, 1.0, tip=(0.65, 0.0)).hold(0.5).to(STAND, 1.0, tip=(0, 0))
        play.tracks.append(play.done(who)[: round(seconds * FPS)])
    return play


def carer(rng: np.random.Generator) -> Play:
    """Somebody sits or lies on the floor by their own will, or after a slide; a carer kneels down beside them."""
    play = slide(rng) if rng.random() < 0.5 else _floor_rest(rng)
    lying = play.tracks[0]
    n = len(lying)
    middle = lying[n // 2 :, [0, J["chest"]], :2].mean(axis=(0, 1))
    size = np.array([play.room.width_m, play.room.length_m])
    toward = [np.array([np.cos(a), np.sin(a)]) for a in rng.uniform(0, 2 * np.pi, 40)]
    at = next(
        (
            p
            for p in (middle + 0.75 * d for d in toward)
            if (p > 0.4).all() and (p < size - 0.4).all() and _free_of(play, p, lying)
        ),
        middle + 0.75 * toward[0],
    )
    who = play.person(play.spot(near=at, within_m=2.5), slow=1.0).hold(rng.uniform(1, 4))
    low = np.flatnonzero(lying[:, 0, 2] < 0.4)
    wait = (low[0] if len(low) else n // 3) / FPS + rng.uniform(0, 3)
    who.hold(max(0.1, wait - len(who.frames) / FPS)).walk(at, speed_mps=1.2)
    who.face(float(np.arctan2(*(middle - at)[::-1]))).to(KNEEL, 1.2)
    while len(who.frames) < n:
        who.to(
            {**KNEEL, "spine": rng.uniform(0.3, 0.9), **both(kn=2.0, hip=0.9, an=1.1, sh=1.0, el=0.4)},
            1.2,
            tip=(0.3, 0.0),
        )
        who.hold(rng.uniform(0.5, 3)).to(KNEEL, 1.0, tip=(0, 0))
    play.tracks.append(play.done(who)[:n])
    return play


def _free_of(play: Play, xy: Floats, track: Track) -> bool:
    far = np.linalg.norm(track[len(track) // 2 :: 10][..., :2] - xy, axis=-1).min() > 0.4
    return bool(far) and not any(p.covers(xy, 0.25) for p in play.room.furniture)


def _floor_rest(rng: np.random.Generator) -> Play:
    play = stage(rng)
    who = _to_floor(play, start(play))
    if rng.random() < 0.5:
        who.to({**FLAT, **both(hip=0.4, kn=0.8)}, 1.5, tip=SUPINE)
    else:
        who.to({"spine": 0.3, **both(hip=1.6, kn=0.3, sh=-0.2, ab=0.3)}, 1.5, tip=(-0.1, 0.0))
    who.hold(rng.uniform(9, 18))
    if rng.random() < 0.5:
        _from_floor(play, who)
    play.tracks.append(play.done(who))
    return play


# -- slow ways to the floor that nobody wanted -----------------------------------------------------


def slide(rng: np.random.Generator) -> Play:
    """Slide slowly to the floor from the bed's edge, a chair, or one's feet, and stay there."""
    way = rng.choice(["bed", "chair", "standing"])
    play = stage(rng, bed=way == "bed", chair=way == "chair")
    u = rng.uniform
    slow = u(1.0, 3.0)
    if way == "bed":
        side = side_of(play)
        bed = play.bed
        assert bed is not None
        who = play.person(beside(bed, side), slow=1.2)
        sit_on_bed(play, who, side).hold(u(1, 5))
        out = np.array(bed.in_room(np.array([side * (bed.half_m[0] + 0.22), -0.1])))
    elif way == "chair":
        chair = play.chair
        assert chair is not None
        who = play.person(before(chair), slow=1.2)
        who.face(heading(chair, 0, -1)).to({"spine": 0.6, **both(hip=1.2, kn=1.2)}, 0.8)
        who.to(SIT, 0.7, xy=chair.in_room(np.array([0, -0.03])), on=1.0).hold(u(1, 5))
        out = before(chair, 0.5)
    else:
        who = start(play)
        out = who.xy + 0.05
    if way == "standing":
        who.to({"spine": 0.5, **both(hip=0.7, kn=1.0, sh=0.2)}, u(0.8, 1.5) * slow, tip=(0.1, 0.0))
        who.to({"spine": 0.6, **both(hip=1.5, kn=2.2, an=0.4, sh=0.3)}, u(0.6, 1.2) * slow, tip=(0.2, 0.1))
    else:
        who.to(
            {"spine": 0.4, **both(hip=1.0, kn=1.0, ab=0.3)},
            u(0.8, 1.5) * slow,
            tip=(-0.3, 0.0),
            xy=0.5 * (who.xy + out),
        )
    sat = {"spine": 0.4, "nod": 0.4, **both(hip=1.75, kn=0.85, ab=0.2, el=0.3)}
    who.to(sat, u(0.8, 1.5) * slow, tip=(-0.15, 0.0), xy=out, on=0.0).hold(u(0.2, 4))
    if rng.random() < 0.85:  # they sink to one side; the others stay as they sit
        over = float(rng.choice([-1, 1]))
        who.to(
            {**CURLED, "side": 0.2 * over, "nod": 0.2},
            u(0.8, 2) * slow,
            tip=(-0.1, 1.4 * over),
            xy=out + rng.normal(0, 0.05, 2),
        )
        if rng.random() < 0.5:
            who.to(FLAT, u(1, 2.5) * slow, tip=(SUPINE[0], 0.2 * over))
    still = len(who.frames)
    who.hold(u(6, 20))
    track = play.done(who)
    track = np.concatenate([track[:still], stirring(track[still:], rng)])
    play.tracks.append(relax(track, play.room.support, rounds=4, length_of=track))
    play.is_uncontrolled = True
    return play
