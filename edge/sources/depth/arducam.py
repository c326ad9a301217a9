"""The time-of-flight camera of Arducam, on the camera port of a Pi or by USB, through arducamdepthcamera."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.clock import monotonic_s
from edge.depth.frame import Frame, Intrinsics
from edge.sources.depth import CameraGone, Found, Wanted
from edge.sources.depth.sdk import depth_mm, in_plain_words, known_intrinsics, let_go, maker_package

KIND = "arducam"
INSTALL = "pip install --no-deps arducamdepthcamera"  # 0.1.24 asks for numpy < 2, which fallwatch is past
CONFIDENCE_LEAST = 30.0  # what the maker's own examples take for a reading
PORTS = ("csi:0", "usb:0")


def _sdk() -> Any:
    return maker_package(KIND, "ArducamDepthCamera", INSTALL)


def _opened(ac: Any, port: str) -> Any:
    """Return a camera on a port such as ``csi:0``, None when there is none.

    One that did not open must not be touched again: the package (0.1.24) then ends the process.
    """
    connection, _, index = port.partition(":")
    camera = ac.ArducamCamera()
    mode = ac.Connection.USB if connection == "usb" else ac.Connection.CSI
    return camera if int(camera.open(mode, int(index or 0))) == 0 else None


def find() -> list[Found]:
    """Return those that open: nothing else tells them. One that is in use is not found."""
    ac = _sdk()
    found = []
    for port in PORTS:
        with in_plain_words(KIND, port, "cannot be searched for"):
            camera = _opened(ac, port)
            if camera is not None:
                info = camera.getCameraInfo()
                found.append(Found(KIND, port, f"Arducam ToF {info.width} x {info.height}"))
                let_go(camera.close)
    return found


def open_one(wanted: Wanted) -> ArducamCamera:
    """Open the one that the settings name, such as ``csi:0``."""
    return ArducamCamera(wanted)


class ArducamCamera:
    """One that streams depth."""

    def __init__(self, wanted: Wanted) -> None:
        self._ac = ac = _sdk()
        self._wanted = wanted
        self._camera: Any = None
        try:
            with in_plain_words(KIND, wanted.device, "cannot be opened"):
                ports = (wanted.device,) if wanted.device else PORTS
                self._camera = next((c for c in (_opened(ac, port) for port in ports) if c is not None), None)
                if self._camera is None:
                    raise CameraGone(
                        KIND,
                        wanted.device,
                        "does not open: see its cable, its own power, and the overlay of the Pi",
                    )
                said = self._camera.start(ac.FrameType.DEPTH)
                if int(said) != 0:
                    raise CameraGone(KIND, wanted.device, f"does not start: {said}")
                info = self._camera.getCameraInfo()
                self._shape = (int(info.height), int(info.width))
                fx, fy, cx, cy = (
                    self._camera.getControl(getattr(ac.Control, f"INTRINSIC_{name}")) / 100.0
                    for name in ("FX", "FY", "CX", "CY")
                )
                told = Intrinsics(self._shape[1], self._shape[0], fx, fy, cx, cy)
                self._intrinsics = known_intrinsics(wanted, told, self._shape)
        except CameraGone:
            self.close()
            raise

    @property
    def intrinsics(self) -> Intrinsics:
        """Of the depth stream."""
        return self._intrinsics

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time: that it is unplugged cannot be told from that."""
        with in_plain_words(KIND, self._wanted.device, "stopped"):
            picture = self._camera.requestFrame(max(1, round(timeout_s * 1000)))
            arrived_s = monotonic_s()
            if picture is None:
                return None
            try:
                if not isinstance(picture, self._ac.DepthData):
                    raise CameraGone(KIND, self._wanted.device, f"sends {type(picture).__name__}, not depth")
                depth = depth_mm(picture.depth_data, self._shape, 1.0)
                confidence = np.asarray(picture.confidence_data)
                if confidence.shape == self._shape:
                    depth[~(confidence >= CONFIDENCE_LEAST)] = 0
                stamp = int(picture.format.timestamp)
            finally:
                self._camera.releaseFrame(picture)
            # Its unit is not documented; that it moves is what matters.
            return Frame(depth, arrived_s, device_s=float(stamp) if stamp else None)

    def close(self) -> None:
        """Let the camera go."""
        camera, self._camera = self._camera, None
        if camera is not None:
            let_go(camera.stop, camera.close)
