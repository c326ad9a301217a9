"""Cameras of Orbbec that speak UVC (Gemini 330 and 2, Femto, Astra 2), through pyorbbecsdk2."""

from __future__ import annotations

from typing import Any

import numpy as np

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

KIND = "orbbec"
INSTALL = "pip install --no-deps pyorbbecsdk2"  # what it asks for beside is for its viewers


def _sdk() -> Any:
    ob = maker_package(KIND, "pyorbbecsdk", INSTALL)
    with in_plain_words(KIND, "", "cannot be started"):
        ob.Context.set_logger_to_console(ob.OBLogLevel.NONE)
        ob.Context.set_logger_to_file(ob.OBLogLevel.NONE, "")
    return ob


def find() -> list[Found]:
    """Return those that are plugged in."""
    ob = _sdk()
    with in_plain_words(KIND, "", "cannot be searched for"):
        devices = ob.Context().query_devices()
        return [
            Found(KIND, devices.get_device_serial_number_by_index(i), devices.get_device_name_by_index(i))
            for i in range(devices.get_count())
        ]


def open_one(wanted: Wanted) -> OrbbecCamera:
    """Open the one that the settings name."""
    return OrbbecCamera(wanted)


class OrbbecCamera:
    """One that streams depth."""

    def __init__(self, wanted: Wanted) -> None:
        ob = _sdk()
        self._wanted = wanted
        self._pipeline: Any = None
        try:
            with in_plain_words(KIND, wanted.device, "cannot be opened"):
                self._context = ob.Context()
                self._serial, device = self._device()
                self._thermometer = Thermometer(lambda: _hottest(device.get_temperature()))
                self._pipeline = ob.Pipeline(device)
                profile = _profile(
                    ob, self._pipeline.get_stream_profile_list(ob.OBSensorType.DEPTH_SENSOR), wanted
                )
                config = ob.Config()
                config.enable_stream(profile)
                self._shape = (profile.get_height(), profile.get_width())
                lens = profile.get_intrinsic()
                told = Intrinsics(lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy)
                self._intrinsics = known_intrinsics(wanted, told, self._shape)
                self._pipeline.start(config)
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
            frames = self._pipeline.wait_for_frames(max(1, round(timeout_s * 1000)))
            arrived_s = monotonic_s()
            picture = frames.get_depth_frame() if frames is not None else None
            if picture is None:
                self._device()  # says so when it is unplugged
                return None
            words = np.frombuffer(picture.get_data(), np.uint16)
            return Frame(
                depth_mm(words.reshape(self._shape), self._shape, picture.get_depth_scale()),
                arrived_s,
                device_s=picture.get_timestamp_us() / 1e6,
                temperature_c=self._thermometer.celsius(),
            )

    def close(self) -> None:
        """Let the camera go."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            let_go(pipeline.stop)

    def _device(self) -> tuple[str, Any]:
        """Return serial number and handle of the wanted one that is plugged in."""
        devices = self._context.query_devices()
        wanted = getattr(self, "_serial", self._wanted.device)
        for i in range(devices.get_count()):
            serial = devices.get_device_serial_number_by_index(i)
            if wanted in {"", serial}:
                return serial, devices.get_device_by_index(i)
        raise CameraGone(KIND, self._wanted.device, "not plugged in: see its cable, then `fallwatch camera find`")


def _profile(ob: Any, profiles: Any, wanted: Wanted) -> Any:
    """Return the stream that is nearest to what is wanted: its size, any size, what the camera likes."""
    for width, height in ((wanted.width, wanted.height), (0, 0)):
        try:
            return profiles.get_video_stream_profile(width, height, ob.OBFormat.Y16, round(wanted.fps))
        except ob.OBError:
            continue
    return profiles.get_default_video_stream_profile()


def _hottest(told: Any) -> float:
    """Return the highest of the sensors that a model has; the others tell 0."""
    return max(told.cpu_temperature, told.main_board_temperature, told.ir_temperature, told.laser_temperature)
