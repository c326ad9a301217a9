"""Frames of one camera in, numbers about people out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.core.seen import Seen
from edge.core.supervision import Cause
from edge.depth.background import Background, Mask
from edge.depth.floor import apart, find_floors, refit
from edge.depth.frame import Calibration, Depth, Frame, Plane
from edge.depth.people import People
from edge.depth.view import Image, Rays, View, shrink

LEARN_HZ = 10.0  # the room changes slower than people move
LOOK_EVERY_S = 2.0  # at the floor
KNOCKED_DEG, KNOCKED_M = 3.0, 0.10  # the floor has moved by more: somebody knocked the camera
KNOCKED_LOOKS = 3  # in a row
CHANGED_PART = 0.6  # of the room looks otherwise at once: that is not furniture
KNOCKED_S = 8.0  # ... for so long: nor somebody right before the lens
FLOOR_PIXELS = 60  # fewer cannot be judged
AGREES_M = 0.15  # feet stand so near the floor


class Observer:
    """All that is known of one camera's room; see `on_frame`."""

    def __init__(self, calibration: Calibration, *, background: Depth | None = None) -> None:
        """Begin.

        Args:
            calibration: intrinsics, and floor and zones where the installer gave them.
            background: the room without people, where it is known.
        """
        self._calibration = calibration
        self._rays = Rays.of(calibration.intrinsics)
        self._room = Background(self._rays.shape)
        self._floor_there = np.zeros(self._rays.shape, bool)
        self._look_s = self._learnt_s = -np.inf
        self._knocks = 0
        self._odd_s: float | None = None
        self.knocked = False
        self._view: View | None = None
        self._people: People | None = None
        if calibration.floor is not None:
            self._stand_on(calibration.floor)
        if background is not None:
            self.learn([background])

    @property
    def floor(self) -> Plane | None:
        """The floor in use."""
        return None if self._view is None else self._view.floor

    def learn(self, frames: Sequence[Depth]) -> None:
        """Learn the room, and its floor unless that was given, from frames spread over some time."""
        small = [shrink(frame) for frame in frames]
        self._room.learn(small)
        if self._calibration.floor is None:
            self._find_floor(small)

    def on_frame(self, frame: Frame) -> Seen:
        """Return who is in the frame; `Seen.cause` names why nobody could be seen."""
        depth_m = shrink(frame.depth_mm)
        valid_part = float(np.count_nonzero(depth_m)) / depth_m.size
        if self._room.is_empty:
            self.learn([frame.depth_mm])
        if self._people is None:
            self._find_floor([depth_m])
        if self._people is None or self._view is None:
            return Seen(frame.time_s, (), valid_part, Cause.CAMERA_FLOOR)
        nearer = self._room.nearer(depth_m)
        people = self._people.observe(depth_m, nearer, self._room, frame.time_s)
        if frame.time_s - self._learnt_s >= 0.9 / LEARN_HZ:
            self._learnt_s = frame.time_s
            self._learn_more(depth_m, nearer, frame.time_s)
        return Seen(frame.time_s, people, valid_part, Cause.CAMERA_MOVED if self.knocked else "")

    def _learn_more(self, depth_m: Image, nearer: Mask, now_s: float) -> None:
        """Follow the room as it changes, and see that the camera still hangs as it did."""
        if self._people is None:
            return
        farther = self._room.farther(depth_m)
        if self._is_odd(nearer, farther, depth_m, now_s):
            return
        self._room.update(depth_m, nearer, farther, self._people.mask, min(LEARN_HZ, self._calibration.fps))
        if now_s - self._look_s >= LOOK_EVERY_S:
            self._look_s = now_s
            self._watch_floor(depth_m)

    def _is_odd(self, nearer: Mask, farther: Mask, depth_m: Image, now_s: float) -> bool:
        """Tell whether most of the room looks otherwise, which teaches nothing; for long: it was knocked."""
        known = int(np.count_nonzero((depth_m > 0) & (self._room.depth_m > 0)))
        changed = np.count_nonzero((nearer | farther) & (self._room.depth_m > 0))
        if changed <= CHANGED_PART * max(known, 1):
            self._odd_s = None
            return False
        self._odd_s = now_s if self._odd_s is None else self._odd_s
        if now_s - self._odd_s >= KNOCKED_S:
            self._is_knocked(depth_m)
        return True

    def _is_knocked(self, depth_m: Image) -> None:
        """Report it from now on, and go on as well as can be: with the room and the floor as they look now."""
        self.knocked, self._odd_s = True, None
        self._room.learn([depth_m])
        self._floor_there[:] = False
        self._find_floor([depth_m])

    def _stand_on(self, floor: Plane) -> None:
        self._view = View(self._rays, floor, self._calibration.zones)
        self._people = People(self._view)

    def _find_floor(self, small: Sequence[Image]) -> None:
        """Take the likeliest floor; where somebody walks about, the one that their feet stand on."""
        floors = find_floors(self._rays.points(self._room.read_m))
        if not floors:
            return
        if len(floors) > 1:
            agreeing = [self._agreement(View(self._rays, floor), small) for floor in floors]
            best = max(range(len(floors)), key=lambda i: (agreeing[i], -i))
            if agreeing[best] > agreeing[0] + 0.2:
                floors = [floors[best]]
        self._stand_on(floors[0])

    def _agreement(self, view: View, small: Sequence[Image]) -> float:
        """Return in which part of the frames with somebody in them they stand or lie on this floor."""
        fits = []
        for depth_m in small:
            near = self._room.nearer(depth_m)
            if np.count_nonzero(near) < 0.01 * near.size:
                continue
            height = view.height_m(depth_m)[near]
            low, high = np.quantile(height, [0.03, 0.97])
            fits.append(abs(low) < AGREES_M and 0.2 < high < 2.1)
        return float(np.mean(fits)) if len(fits) >= 3 else 0.0

    def _watch_floor(self, depth_m: Image) -> None:
        """Notice that the camera was knocked: the floor lies a little otherwise."""
        view, people = self._view, self._people
        if view is None or people is None:
            return
        if not self._floor_there.any():
            self._floor_there = (np.abs(view.height_m(self._room.depth_m)) < 0.05) & (self._room.depth_m > 0)
        same = np.abs(depth_m - self._room.depth_m) < 0.1 + 0.02 * depth_m**2
        floor = self._floor_there & ~people.mask & (depth_m > 0) & same
        moved = False
        if np.count_nonzero(floor) >= FLOOR_PIXELS:
            now = refit(self._rays.points(np.where(floor, depth_m, 0)))
            if now is not None:
                degrees, metres = apart(now, view.floor)
                moved = degrees > KNOCKED_DEG or metres > KNOCKED_M
        self._knocks = self._knocks + 1 if moved else 0
        if self._knocks >= KNOCKED_LOOKS:
            self._knocks = 0
            self._is_knocked(depth_m)
