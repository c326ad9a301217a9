"""From what stands in front of the room to people who are followed, measured and timed on the floor."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.seen import Person
from edge.depth.background import Background, Mask, tolerance_m
from edge.depth.view import CELL_M, CELLS, Image, View

LOW_M = 0.40  # nothing of somebody who lies on the floor, but a raised knee or arm, is higher
LEAST_PIXELS = 25
LEAST_AREA_M2 = 0.05
LEAST_HEIGHT_M = 0.10  # a rug that was turned is no person
BODY_AREA_M2 = 0.16  # as seen from above, of somebody who lies there half hidden
BODY_EXTENT_M = 0.6
TALL_M = 0.9  # what was so high, and went or rose ...
WENT_M = 0.3  # ... by so much, is a person
HEAD_PART = 0.985  # of the pixels lie below the head's height: hair reads nothing, and stray pixels do
DOWN_HEAD_M, DOWN_CENTROID_M = 0.70, 0.42  # lying on the floor below both ...
SAT_HEAD_M, SAT_CENTROID_M = 1.00, 0.60  # ... or sitting there below both, alone in the room, with ...
SAT_LOW_PART = 0.15  # ... so much of the body, the legs, along the floor
UP_HEAD_M, UP_CENTROID_M = 1.05, 0.65  # no longer there above one of these
BORDER_PART = 0.15  # of the outline cut off by the border of the image: what is left of it tells no posture
SETTLE_S = 0.6  # a change counts once it has lasted
IN_BED_PART = 0.5
SPEED_S = 0.4  # stretch over which vertical speed is measured
MOVE_S = 0.5  # ... and how much of somebody moved
STEP_M = 0.8  # from frame to frame nobody goes farther, lost frames included
LOST_S = 1.0  # somebody not seen for so long is gone ...
HIDDEN_S = 30.0  # ... unless they were last seen on the floor, or on their way down, behind furniture
FALLING_MPS = -0.5
CLAIM_PART = 0.4  # of somebody's place on the floor still taken up: they lie there whoever kneels beside them
MEET_M = 1.2
MOST_PEOPLE = 6
MOST_BLOBS = 12  # the largest: a camera gone mad shows hundreds
LIES_M = 0.5  # the middle of a body, or a low thing, of this size may lie there
STATIC_PART = 0.04  # less of a blob moves than this: a chair, or somebody asleep
ABSORB_THING_S = 90.0  # a thing left in the room is furniture after this
ABSORB_SITTER_S = 900.0  # ... and so is somebody who sits still; rising, they stand in front of the room again


@dataclass(slots=True)
class Blob:
    """What stands together in plan."""

    pixels: NDArray[np.intp]  # flat indices into the image
    cells: NDArray[np.intp]  # flat indices of the plan, once each
    cell_high_m: Image  # highest reading in each cell
    at_m: tuple[float, float]
    features: tuple[float, ...]

    @property
    def head_m(self) -> float:
        """Height of all but stray pixels."""
        return self.features[0]

    @property
    def centroid_m(self) -> float:
        """Mean height."""
        return self.features[1]


@dataclass(slots=True)
class Track:
    """One person, or thing, as followed over frames."""

    number: int
    blob: Blob
    seen_s: float
    from_m: tuple[float, float]  # where it was first seen
    from_head_m: float
    was_tall: bool = False
    heights: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))
    speed_mps: float = 0.0
    moving: float = 1.0
    moved_s: float = 0.0  # when it last moved
    down_s: float | None = None  # since when on the floor
    turn_s: float | None = None  # since when it seems to be otherwise
    hidden: bool = False


class People:
    """Follow everybody in one camera's view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._tracks: list[Track] = []
        self._numbers = 0
        self._past: deque[tuple[float, Image]] = deque()
        self._moved: Mask = np.zeros(view.rays.shape, bool)
        self._border: Mask = np.ones(view.rays.shape, bool)
        self._border[1:-1, 1:-1] = False
        self.mask: Mask = np.zeros(view.rays.shape, bool)  # of everybody, in the last frame

    def observe(self, depth_m: Image, nearer: Mask, background: Background, now_s: float) -> tuple[Person, ...]:
        """Take a frame and return the people in it, who needs help most first.

        Args:
            depth_m: at working size, metres, 0 without reading.
            nearer: where something stands in front of the room.
            background: the room; what proves to be a part of it is absorbed.
            now_s: the frame's time.
        """
        opened = cv2.morphologyEx(nearer.astype(np.uint8), cv2.MORPH_OPEN, _KERNEL)
        self._note_movement(depth_m, now_s)
        self._follow(self._blobs(depth_m, opened.astype(bool)), now_s)
        self._absorb(depth_m, background, now_s)
        self.mask[:] = False
        for track in self._tracks:
            self.mask.flat[track.blob.pixels] = True
        people = [self._person(track, now_s) for track in self._tracks if self._is_person(track)]
        return tuple(sorted(people, key=lambda p: (-p.on_floor_s, p.head_m))[:MOST_PEOPLE])

    # -- what moves ---------------------------------------------------------------------------

    def _note_movement(self, depth_m: Image, now_s: float) -> None:
        self._past.append((now_s, depth_m))
        while len(self._past) > 2 and now_s - self._past[1][0] >= MOVE_S:
            self._past.popleft()
        before_m = self._past[0][1]
        there = (depth_m > 0) & (before_m > 0)
        self._moved = there & (np.abs(depth_m - before_m) > 1.5 * tolerance_m(depth_m))

    # -- blobs --------------------------------------------------------------------------------

    def _blobs(self, depth_m: Image, near: Mask) -> list[Blob]:
        right, forward, height = self._view.plan(depth_m, near)
        pixels = np.flatnonzero(near)
        body = (height > 0.04) & (height < 2.3)
        right, forward, height, pixels = right[body], forward[body], height[body], pixels[body]
        column = np.clip((right / CELL_M + CELLS / 2).astype(np.intp), 0, CELLS - 1)
        row = np.clip((forward / CELL_M + CELLS / 2).astype(np.intp), 0, CELLS - 1)
        cell = row * CELLS + column
        taken = (np.bincount(cell, minlength=CELLS * CELLS) >= 2).astype(np.uint8).reshape(CELLS, CELLS)
        claimed = np.zeros(CELLS * CELLS, np.int32)
        for track in self._claims():
            claimed[track.blob.cells] = track.number
        _, labels = cv2.connectedComponents(cv2.dilate(taken, _KERNEL))
        label = np.where(taken.ravel()[cell] > 0, labels.ravel()[cell], 0)
        lying = (claimed[cell] > 0) & (height < LOW_M + 0.1)
        label[lying] = -claimed[cell][lying]  # somebody on the floor stays a blob of their own beside who kneels
        blobs = []
        order = np.argsort(label, kind="stable")
        spans = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
        large = [span for span in spans if len(span) >= LEAST_PIXELS and label[span[0]] != 0]
        for span in sorted(large, key=len, reverse=True)[:MOST_BLOBS]:
            blob = self._measure(pixels[span], cell[span], height[span], right[span], forward[span])
            if blob is not None:
                blobs.append(blob)
        return blobs

    def _claims(self) -> list[Track]:
        """Return who lies on the floor with somebody else near: two who may become one blob."""
        lying = [t for t in self._tracks if t.down_s is not None and not t.hidden]
        return [
            one
            for one in lying
            if any(
                other is not one and other.blob.head_m > DOWN_HEAD_M and _apart_m(one.blob, other.blob) < MEET_M
                for other in self._tracks
            )
        ]

    def _measure(
        self, pixels: NDArray[np.intp], cell: NDArray[np.intp], height: Image, right: Image, forward: Image
    ) -> Blob | None:
        cells, where = np.unique(cell, return_inverse=True)
        area_m2 = len(cells) * CELL_M**2
        at = int(HEAD_PART * (len(height) - 1))
        head_m = float(np.partition(height, at)[at])
        if area_m2 < LEAST_AREA_M2 or head_m < LEAST_HEIGHT_M:
            return None
        high = np.zeros(len(cells), np.float32)
        np.maximum.at(high, where, height)
        along = np.stack([cells % CELLS, cells // CELLS], axis=1) * CELL_M
        centred = along - along.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        spread = centred @ axes
        width_m, extent_m = (float(np.ptp(spread[:, i])) + CELL_M for i in (0, 1))
        zone = self._view.zone_height_m.ravel()[cells]
        in_bed = float(((zone > 0) & (high > zone - 0.2)).mean())
        features = (
            head_m,
            float(height.mean()),
            0.0,
            extent_m,
            width_m,
            float((high < LOW_M).mean()),
            area_m2,
            in_bed,
            float(self._moved.ravel()[pixels].mean()),
            1.0 - min(float(self._border.ravel()[pixels].sum()) / (2.0 * float(np.sqrt(len(pixels)))), 1.0),
        )
        return Blob(pixels, cells, high, (float(right.mean()), float(forward.mean())), features)

    # -- tracks -------------------------------------------------------------------------------

    def _follow(self, blobs: list[Blob], now_s: float) -> None:
        pairs = sorted(
            (_apart_m(track.blob, blob) - 0.5 * _overlap(track.blob, blob), i, j)
            for i, track in enumerate(self._tracks)
            for j, blob in enumerate(blobs)
            if _apart_m(track.blob, blob) < STEP_M or _overlap(track.blob, blob) > 0.2
        )
        old, new = set(range(len(self._tracks))), set(range(len(blobs)))
        for _, i, j in pairs:
            if i in old and j in new:
                old.discard(i)
                new.discard(j)
                self._update(self._tracks[i], blobs[j], now_s)
        for i in old:
            track = self._tracks[i]
            track.hidden = now_s - track.seen_s > LOST_S / 2
            if track.hidden and track.down_s is None and self._was_falling(track):
                track.down_s = track.seen_s
        self._tracks = [t for i, t in enumerate(self._tracks) if i not in old or not self._is_gone(t, now_s)]
        for j in new:
            self._numbers += 1
            blob = blobs[j]
            track = Track(self._numbers, blob, now_s, blob.at_m, blob.head_m, moved_s=now_s)
            self._tracks.append(track)
            self._update(track, blobs[j], now_s)

    def _update(self, track: Track, blob: Blob, now_s: float) -> None:
        track.blob, track.seen_s, track.hidden = blob, now_s, False
        track.heights.append((now_s, blob.centroid_m))
        while len(track.heights) > 2 and now_s - track.heights[1][0] >= SPEED_S:
            track.heights.popleft()
        then_s, then_m = track.heights[0]
        track.speed_mps = (blob.centroid_m - then_m) / max(now_s - then_s, SPEED_S / 2)
        track.moving += (blob.features[8] - track.moving) * 0.3
        if track.moving > STATIC_PART:
            track.moved_s = now_s
        went_m = float(np.hypot(blob.at_m[0] - track.from_m[0], blob.at_m[1] - track.from_m[1]))
        rose_m = abs(blob.head_m - track.from_head_m)
        track.from_head_m = min(track.from_head_m, blob.head_m) if blob.head_m < TALL_M else track.from_head_m
        if max(blob.head_m, track.from_head_m) > TALL_M and max(went_m, rose_m) > WENT_M:
            track.was_tall = True
        low = self._is_low(track)
        high = blob.head_m > UP_HEAD_M or blob.centroid_m > UP_CENTROID_M
        in_bed = blob.features[7] >= IN_BED_PART
        turns = (low and not in_bed) if track.down_s is None else (high or in_bed)
        if not turns:
            track.turn_s = None
        elif track.turn_s is None:
            track.turn_s = now_s
        elif now_s - track.turn_s >= SETTLE_S:
            track.down_s = track.turn_s if track.down_s is None else None
            track.turn_s = None

    def _is_low(self, track: Track) -> bool:
        """Tell whether somebody lies on the floor, or sits there with nobody by: a carer kneels like that."""
        blob = track.blob
        if blob.features[9] < 1 - BORDER_PART and blob.features[6] < BODY_AREA_M2:
            return False  # the feet of somebody who stands at the edge
        if blob.head_m < DOWN_HEAD_M and blob.centroid_m < DOWN_CENTROID_M:
            return True
        sits = blob.head_m < SAT_HEAD_M and blob.centroid_m < SAT_CENTROID_M and blob.features[5] >= SAT_LOW_PART
        return sits and not any(other is not track and self._is_person(other) for other in self._tracks)

    def _is_gone(self, track: Track, now_s: float) -> bool:
        fell = track.down_s is not None or self._was_falling(track)
        return now_s - track.seen_s > (HIDDEN_S if fell and self._is_person(track) else LOST_S)

    def _was_falling(self, track: Track) -> bool:
        """Tell whether somebody was on their way down when last seen: they lie behind furniture."""
        inside = track.blob.features[9] >= 1 - BORDER_PART  # who walks out of the image sinks, too
        return inside and track.was_tall and track.speed_mps < FALLING_MPS and track.blob.head_m < TALL_M

    def _is_person(self, track: Track) -> bool:
        blob = track.blob
        body = blob.features[6] >= BODY_AREA_M2 and blob.features[3] >= BODY_EXTENT_M
        return track.was_tall or body or (blob.head_m > TALL_M and blob.features[6] >= LEAST_AREA_M2)

    def _person(self, track: Track, now_s: float) -> Person:
        features = list(track.blob.features)
        features[2] = 0.0 if track.hidden else track.speed_mps
        features[8] = 0.0 if track.hidden else features[8]
        features[9] = 0.0 if track.hidden else features[9]
        on_floor_s = 0.0 if track.down_s is None else now_s - track.down_s
        return Person(track.number, tuple(features), on_floor_s)

    # -- furniture ----------------------------------------------------------------------------

    def _absorb(self, depth_m: Image, background: Background, now_s: float) -> None:
        """Take still things for furniture; never what may be a body on the floor or in bed."""
        kept = []
        for track in self._tracks:
            blob = track.blob
            may_lie = track.down_s is not None or (blob.features[6] >= BODY_AREA_M2 and blob.centroid_m < LIES_M)
            in_bed = blob.features[7] >= IN_BED_PART
            limit_s = ABSORB_SITTER_S if track.was_tall else ABSORB_THING_S
            if not track.hidden and now_s - track.moved_s > limit_s and not may_lie and not in_bed:
                there = np.zeros(depth_m.size, bool)
                there[blob.pixels] = True
                background.absorb(depth_m, there.reshape(depth_m.shape))
            else:
                kept.append(track)
        self._tracks = kept


_KERNEL = np.ones((3, 3), np.uint8)


def _apart_m(one: Blob, other: Blob) -> float:
    return float(np.hypot(one.at_m[0] - other.at_m[0], one.at_m[1] - other.at_m[1]))


def _overlap(one: Blob, other: Blob) -> float:
    """Return which part of the smaller one's cells both take up."""
    both = len(np.intersect1d(one.cells, other.cells, assume_unique=True))
    return both / max(min(len(one.cells), len(other.cells)), 1)
