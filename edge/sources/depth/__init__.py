"""Depth cameras behind one interface; each driver is imported when a home has such a camera, and not before.

Only the depth stream is ever opened: no driver asks for colour or infrared.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Protocol

from edge.depth.frame import Frame, Intrinsics

log = logging.getLogger(__name__)

KINDS = ("orbbec", "oak", "arducam", "realsense", "v4l2", "folder")  # each is a module of this package


class CameraGone(Exception):
    """A camera is not there, or stopped; ``reason`` says what to do next."""

    def __init__(self, kind: str, device: str, reason: str) -> None:
        super().__init__(f"{kind} {device or '(the first found)'}: {reason}")
        self.kind = kind
        self.device = device
        self.reason = reason


class NoDriver(CameraGone):
    """The maker's package is not installed."""


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


def open_camera(wanted: Wanted) -> DepthCamera:
    """Open a camera and start its depth stream, which may be larger than asked for.

    Raises:
        ValueError: there is no such kind.
        CameraGone: it is not there, or not usable; of that `NoDriver` when the maker's package is missing.
    """
    if wanted.kind not in KINDS:
        raise ValueError(f"no such kind of camera: {wanted.kind}; one of {', '.join(KINDS)}")
    camera: DepthCamera = importlib.import_module(f"edge.sources.depth.{wanted.kind}").open_one(wanted)
    return camera


def find_cameras() -> list[Found]:
    """Return the cameras that are plugged in, of all kinds whose driver is installed."""
    found: list[Found] = []
    for kind in KINDS:
        try:
            found += importlib.import_module(f"edge.sources.depth.{kind}").find()
        except NoDriver:
            continue
        except CameraGone as error:
            log.warning("could not look for cameras: %s", error)
    return found
