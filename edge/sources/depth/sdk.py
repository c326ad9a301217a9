"""What all drivers need: the maker's package, depth in millimetres, a close that ends, plain words for faults."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from edge.clock import monotonic_s
from edge.depth.frame import Depth, Intrinsics
from edge.sources.depth import CameraGone, NoDriver, Wanted

CLOSE_S = 3.0
FURTHEST_MM = 65535
LATEST_S = 1.0  # a stamp older than this is of another clock
TEMPERATURE_EVERY_S = 5.0  # asking takes a transfer of its own


def maker_package(kind: str, module: str, install: str) -> Any:
    """Import a maker's package.

    Raises:
        NoDriver: it is not installed, or does not fit this machine.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        said = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise NoDriver(kind, "", f"its driver is not installed{said}: {install}") from error


@contextmanager
def in_plain_words(kind: str, device: str, doing: str) -> Iterator[None]:
    """Turn whatever a maker's package raises into `CameraGone`."""
    try:
        yield
    except CameraGone:
        raise
    except Exception as error:
        raise CameraGone(kind, device, f"{doing}: {error}") from error


def depth_mm(raw: Any, shape: tuple[int, int], mm_per_unit: float) -> Depth:
    """Return an own copy of a picture in millimetres, what cannot be a distance as 0.

    Args:
        raw: anything numpy can read; numbers of any kind, one plane.
        shape: height and width that it must have.
        mm_per_unit: what one stands for.

    Raises:
        ValueError: it is something else; says what.
    """
    image = np.asarray(raw)
    if image.shape != shape or image.dtype.kind not in "uif":
        raise ValueError(f"depth of {image.dtype} {image.shape}, expected numbers {shape}")
    if 0 in image.strides or not (np.isfinite(mm_per_unit) and mm_per_unit > 0):
        raise ValueError(f"depth cannot be read: strides {image.strides}, {mm_per_unit} mm per unit")
    if image.dtype == np.uint16 and mm_per_unit == 1.0:
        return np.array(image, dtype=np.uint16, order="C", copy=True)
    scaled = np.nan_to_num(image.astype(np.float32) * np.float32(mm_per_unit), nan=0, posinf=0, neginf=0)
    scaled[(scaled < 0) | (scaled > FURTHEST_MM)] = 0
    return np.ascontiguousarray(np.rint(scaled), dtype=np.uint16)


def known_intrinsics(wanted: Wanted, told: Intrinsics | None, shape: tuple[int, int]) -> Intrinsics:
    """Return what the camera told, else what the settings say.

    Raises:
        ValueError: neither fits a picture of this height and width.
    """
    height, width = shape
    for known in (told, wanted.intrinsics):
        if known and (known.width, known.height) == (width, height) and min(known.fx, known.fy) > 1.0:
            return known
    raise ValueError(f"it does not tell its intrinsics: put those for {width} x {height} into the settings")


def taken_s(arrived_s: float, stamp_s: float) -> float:
    """Return when a picture was taken: its stamp of the same monotonic clock, its arrival where that is none."""
    return stamp_s if 0.0 <= arrived_s - stamp_s < LATEST_S else arrived_s


class Thermometer:
    """Ask a camera for its temperature now and then; one that does not tell has none."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._asked_s = -TEMPERATURE_EVERY_S
        self._last: float | None = None

    def celsius(self) -> float | None:
        """Return the last that is known."""
        now_s = monotonic_s()
        if now_s - self._asked_s >= TEMPERATURE_EVERY_S:
            self._asked_s, self._last = now_s, None
            with suppress(Exception):  # many models of one maker, and some have no sensor
                celsius = float(self._ask())
                self._last = celsius if 0.0 < celsius < 200.0 else None
        return self._last


def let_go(*steps: Callable[[], object]) -> None:
    """Take the steps of a close, whatever they raise; return after `CLOSE_S` even when one of them hangs."""

    def take() -> None:
        for step in steps:
            with suppress(Exception):
                step()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(CLOSE_S)
