"""Cameras of Luxonis (OAK-D, OAK ToF), through depthai 3.

A stereo model reckons depth inside the camera from two grey pictures; those have no way out: one queue is
made, and it is that of depth.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from edge.clock import monotonic_s
from edge.depth.frame import Frame, Intrinsics
from edge.sources.depth import CameraGone, Found, Wanted
from edge.sources.depth.sdk import (
    Thermometer,
    depth_mm,
    in_plain_words,
    known_intrinsics,
    let_go,
    maker_package,
    taken_s,
)

KIND = "oak"
INSTALL = "pip install 'fallwatch[oak]'"
STEREO_SIZE = (640, 400)  # what all stereo models can do
FIRST_S = 10.0  # the camera is given its program first
# What the package would send to its maker, or keep after a crash: nothing goes out of a bedroom.
SILENT = {
    "DEPTHAI_TELEMETRY": "0",
    "DEPTHAI_DISABLE_CRASHDUMP_COLLECTION": "1",
    "DEPTHAI_CRASHDUMP": "0",
    "DEPTHAI_DISABLE_FEEDBACK": "1",
    "DEPTHAI_ZOO_INTERNET_CHECK": "0",
    "DEPTHAI_LEVEL": "off",
}


def _sdk() -> Any:
    os.environ.update(SILENT)
    return maker_package(KIND, "depthai", INSTALL)


def find() -> list[Found]:
    """Return those that are plugged in and not in use."""
    dai = _sdk()
    with in_plain_words(KIND, "", "cannot be searched for"):
        return [Found(KIND, info.deviceId, f"OAK {info.name}") for info in dai.Device.getAllAvailableDevices()]


def open_one(wanted: Wanted) -> OakCamera:
    """Open the one that the settings name."""
    return OakCamera(wanted)


class OakCamera:
    """One that streams depth."""

    def __init__(self, wanted: Wanted) -> None:
        dai = _sdk()
        self._wanted = wanted
        self._clock = dai.Clock
        self._device: Any = None
        self._pipeline: Any = None
        try:
            with in_plain_words(KIND, wanted.device, "cannot be opened"):
                infos = [
                    info
                    for info in dai.Device.getAllAvailableDevices()
                    if wanted.device in {"", info.deviceId, info.name}
                ]
                if not infos:
                    raise CameraGone(
                        KIND,
                        wanted.device,
                        "not plugged in, or in use: see its cable, then `fallwatch camera find`",
                    )
                self._device = dai.Device(infos[0])
                self._device.setMaxReconnectionAttempts(0)  # who is unplugged says so
                self._thermometer = Thermometer(lambda: self._device.getChipTemperature().average)
                self._pipeline = dai.Pipeline(self._device)
                depth = _depth_output(dai, self._pipeline, self._device, wanted)
                self._queue = depth.createOutputQueue(maxSize=2, blocking=False)
                self._pipeline.start()
                self._first = self._next(FIRST_S)
                if self._first is None:
                    raise CameraGone(KIND, wanted.device, "sends no depth: unplug it and plug it in again")
                frame, told = self._first
                self._shape = (frame.depth_mm.shape[0], frame.depth_mm.shape[1])
                self._intrinsics = known_intrinsics(wanted, told, self._shape)
        except CameraGone:
            self.close()
            raise

    @property
    def intrinsics(self) -> Intrinsics:
        """Of the depth stream."""
        return self._intrinsics

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time."""
        if self._first is not None:
            (frame, _), self._first = self._first, None
            return frame
        with in_plain_words(KIND, self._wanted.device, "stopped"):
            came = self._next(timeout_s)
            if came is None:
                if self._device.isClosed() or not self._pipeline.isRunning():
                    raise CameraGone(KIND, self._wanted.device, "stopped: see its cable")
                return None
            frame, _ = came
            if frame.depth_mm.shape != self._shape:
                raise CameraGone(KIND, self._wanted.device, f"changed its size to {frame.depth_mm.shape}")
            return frame

    def close(self) -> None:
        """Let the camera go."""
        steps = [self._pipeline and self._pipeline.stop, self._device and self._device.close]
        self._pipeline = self._device = None
        if any(steps):
            let_go(*(step for step in steps if step))

    def _next(self, timeout_s: float) -> tuple[Frame, Intrinsics] | None:
        picture = self._queue.get(timedelta(seconds=timeout_s))
        if picture is None:
            return None
        arrived_s = monotonic_s()
        late_s = (self._clock.now() - picture.getTimestamp()).total_seconds()  # both of this computer's clock
        shape = (picture.getHeight(), picture.getWidth())
        frame = Frame(
            depth_mm(picture.getFrame(), shape, 1.0),
            taken_s(arrived_s, arrived_s - late_s),
            device_s=picture.getTimestampDevice().total_seconds(),
            temperature_c=self._thermometer.celsius(),
        )
        (fx, _, cx), (_, fy, cy), _ = picture.getTransformation().getIntrinsicMatrix()
        return frame, Intrinsics(shape[1], shape[0], float(fx), float(fy), float(cx), float(cy))


def _depth_output(dai: Any, pipeline: Any, device: Any, wanted: Wanted) -> Any:
    """Return the output of the time-of-flight sensor where there is one, else that of the stereo pair."""
    for camera in device.getConnectedCameraFeatures():
        if dai.CameraSensorType.TOF in camera.supportedTypes:
            return pipeline.create(dai.node.ToF).build(boardSocket=camera.socket, fps=wanted.fps).depth
    stereo = pipeline.create(dai.node.StereoDepth)
    return stereo.build(autoCreateCameras=True, size=STEREO_SIZE, fps=wanted.fps).depth
