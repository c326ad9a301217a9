"""What a room looks like without people, learnt while they come and go.

A pixel's background is the farthest it usually reads: whoever comes is nearer, whoever leaves reveals
what is behind. It is never learnt from somebody who lies still; what is absorbed the tracker decides.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.depth.view import Image

Mask = NDArray[np.bool_]

NEAR_M, NEAR_PER_M2 = 0.035, 0.008  # nearer by more than noise, which grows with the distance squared
REVEALED_S = 0.4  # farther for so long: what stood there is gone
KNOWN_S = 2.0  # a guess gives way to what is read for so long
FOLLOW = 0.02  # of the difference, at each frame: the sensor warms up
GUESS_TOLERANCE = 3.0  # times as far must something stand in front of a guess
LEAST_SEEN = 0.1  # of the frames: a pixel that reads less often is not known
USUAL_PART = 0.9  # `learn`: free for a tenth of the frames is enough to be seen behind somebody


def tolerance_m(depth_m: Image) -> Image:
    """Return by how much a reading may differ from its background by noise alone."""
    return np.float32(NEAR_M) + np.float32(NEAR_PER_M2) * depth_m * depth_m


class Background:
    """Depth of the room itself, pixel by pixel; all 0 while nothing is known."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.depth_m: Image = np.zeros(shape, np.float32)
        self._tolerance_m: Image = np.zeros(shape, np.float32)
        self._farther: NDArray[np.uint8] = np.zeros(shape, np.uint8)  # frames in a row
        self._guessed: Mask = np.zeros(shape, bool)  # from its neighbours
        self._unknown: NDArray[np.uint8] = np.zeros(shape, np.uint8)  # frames in which a guessed one was read

    def learn(self, frames: list[Image]) -> None:
        """Take the room from frames spread over some time, with people in different places."""
        stack = np.sort(np.stack(frames), axis=0)  # no reading is 0, so it comes first
        seen = np.count_nonzero(stack, axis=0)
        from_top = np.round((1 - USUAL_PART) * np.maximum(seen - 1, 0)).astype(np.intp)
        far = np.take_along_axis(stack, len(stack) - 1 - from_top[None], axis=0)[0]
        read = np.where(seen >= LEAST_SEEN * len(stack), far, 0.0).astype(np.float32)
        self._guessed = read == 0
        self.depth_m = _filled(read)
        self._tolerance_m = tolerance_m(self.depth_m)
        self._tolerance_m[self._guessed] *= GUESS_TOLERANCE

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been learnt yet."""
        return not self.depth_m.any()

    @property
    def read_m(self) -> Image:
        """Depth of the room where it was read, 0 where it is a guess."""
        return np.where(self._guessed, np.float32(0), self.depth_m)

    def nearer(self, depth_m: Image) -> Mask:
        """Return where something stands in front of the room."""
        # At the edge of a wardrobe a pixel reads now the one, now the other: nearer than both is somebody.
        nearest_m = cv2.erode(self.depth_m, _KERNEL)
        near: Mask = (depth_m > 0) & (depth_m < nearest_m - self._tolerance_m)
        return near

    def farther(self, depth_m: Image) -> Mask:
        """Return where more of the room is seen than ever before."""
        far: Mask = (depth_m > self.depth_m + self._tolerance_m) & (self.depth_m > 0)
        return far

    def update(self, depth_m: Image, nearer: Mask, farther: Mask, people: Mask, fps: float) -> None:
        """Follow slow change, and take what is revealed; nothing is learnt where somebody is."""
        self._farther[farther] = np.minimum(self._farther[farther], 250) + 1
        self._farther[~farther & (depth_m > 0)] = 0
        revealed = self._farther >= max(REVEALED_S * fps, 2)
        guessed = self._guessed & (depth_m > 0) & ~people
        self._unknown[guessed] = np.minimum(self._unknown[guessed], 250) + 1
        known = guessed & (self._unknown >= min(KNOWN_S * fps, 250))
        same = (depth_m > 0) & ~nearer & ~farther
        self.depth_m[same] += (depth_m[same] - self.depth_m[same]) * np.float32(FOLLOW)
        take = revealed | known
        if take.any():
            self.absorb(depth_m, take)

    def absorb(self, depth_m: Image, there: Mask) -> None:
        """Take what is seen there for a part of the room."""
        there = there & (depth_m > 0)
        self.depth_m[there] = depth_m[there]
        self._tolerance_m[there] = tolerance_m(depth_m[there])
        self._farther[there] = 0
        self._unknown[there] = 0
        self._guessed[there] = False


_KERNEL = np.ones((3, 3), np.uint8)


def _filled(depth_m: Image) -> Image:
    """Return the image with what was not read guessed from ever farther neighbours."""
    filled = depth_m.copy()
    for size in (3, 7, 15, 31, 63, 127):
        empty = filled == 0
        if not empty.any():
            break
        known = cv2.blur((~empty).astype(np.float32), (size, size))
        mean = cv2.blur(filled, (size, size)) / np.maximum(known, 1e-6)
        take = empty & (known > 1e-3)
        filled[take] = mean[take]
    return filled
