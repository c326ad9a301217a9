"""Cameras of RealSense (D4xx), through pyrealsense2, where there is a wheel of it."""

from __future__ import annotations

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
)

KIND = "realsense"
INSTALL = "pip install 'fallwatch[realsense]', which needs Python 3.12: see docs/cameras.md"


def _sdk() -> Any:
    return maker_package(KIND, "pyrealsense2", INSTALL)


def find() -> list[Found]:
    """Return those that are plugged in."""
    rs = _sdk()
    with in_plain_words(KIND, "", "cannot be searched for"):
        return [Found(KIND, _serial(rs, d), d.get_info(rs.camera_info.name)) for d in rs.context().query_devices()]


def open_one(wanted: Wanted) -> RealSenseCamera:
    """Open the one that the settings name."""
    return RealSenseCamera(wanted)


class RealSenseCamera:
    """One that streams depth."""

    def __init__(self, wanted: Wanted) -> None:
        rs = _sdk()
        self._wanted = wanted
        self._pipeline: Any = None
        try:
            with in_plain_words(KIND, wanted.device, "cannot be opened"):
                # Without this look the pipeline waits 15 s for one to be plugged in.
                serials = [_serial(rs, device) for device in rs.context().query_devices()]
                serial = next((s for s in serials if wanted.device in {"", s}), None)
                if serial is None:
                    raise CameraGone(
                        KIND, wanted.device, "not plugged in: see its cable, then `fallwatch camera find`"
                    )
                profile = self._started(rs, serial)
                self._device = profile.get_device()
                stream = profile.get_stream(rs.stream.depth).as_video_stream_profile()
                lens = stream.get_intrinsics()
                self._shape = (lens.height, lens.width)
                told = Intrinsics(lens.width, lens.height, lens.fx, lens.fy, lens.ppx, lens.ppy)
                self._intrinsics = known_intrinsics(wanted, told, self._shape)
                sensor = self._device.first_depth_sensor()
                self._thermometer = Thermometer(lambda: sensor.get_option(rs.option.asic_temperature))
        except CameraGone:
            self.close()
            raise

    @property
    def intrinsics(self) -> Intrinsics:
        """Of the depth stream."""
        return self._intrinsics

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time."""
        with in_plain_words(KIND, self._wanted.device, "stopped"):
            came, frames = self._pipeline.try_wait_for_frames(max(1, round(timeout_s * 1000)))
            arrived_s = monotonic_s()
            picture = frames.get_depth_frame() if came else None
            if not picture:
                if not self._device.is_connected():
                    raise CameraGone(KIND, self._wanted.device, "unplugged: see its cable")
                return None
            return Frame(
                # As 0.001 m is not exact in its float, a micrometre is the last digit that counts.
                depth_mm(picture.get_data(), self._shape, round(picture.get_units() * 1000.0, 3)),
                arrived_s,
                device_s=picture.get_timestamp() / 1000.0,
                temperature_c=self._thermometer.celsius(),
            )

    def close(self) -> None:
        """Let the camera go."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            let_go(pipeline.stop)

    def _started(self, rs: Any, serial: str) -> Any:
        """Start the wanted size, and where that is none of the camera's, any."""
        fps = round(self._wanted.fps)
        for width, height in ((self._wanted.width, self._wanted.height), (0, 0)):
            config = rs.config()
            config.enable_device(serial)
            config.enable_stream(rs.stream.depth, width, height, rs.format.z16, fps)
            pipeline = rs.pipeline()
            if config.can_resolve(pipeline):
                self._pipeline = pipeline
                return pipeline.start(config)
        raise CameraGone(
            KIND, self._wanted.device, f"has no depth at {fps} frames a second: see `fps` in the settings"
        )


def _serial(rs: Any, device: Any) -> str:
    return str(device.get_info(rs.camera_info.serial_number))
