"""Depth cameras behind one interface; each driver is imported when a home has such a camera, and not before.

Only the depth stream is ever opened: no driver asks for colour or infrared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge.depth.frame import Frame, Intrinsics


class CameraGone(Exception):
    """A camera is not there, or stopped; ``reason`` says what to do next."""

    def __init__(self, kind: str, device: str, reason: str) -> None:
        super().__init__(f"{kind} {device or '(the first found)'}: {reason}")
        self.kind = kind
        self.device = device
        self.reason = reason


class DepthCamera(Protocol):
    """An open camera that streams depth."""

    @property
    def intrinsics(self) -> Intrinsics:
        """Of the depth stream, as the camera tells them or the settings do."""

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time.

        Raises:
            CameraGone: the camera stopped.
        """

    def close(self) -> None:
        """Let the camera go; twice does no harm. Raises nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """A camera that is plugged in."""

    kind: str
    device: str  # as in the settings: a serial number or a path
    name: str  # the maker's word for it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask of a camera."""

    kind: str
    device: str  # a serial number or a path; empty: the first found
    width: int
    height: int
    fps: float
    intrinsics: Intrinsics | None = None  # where the camera cannot tell them
