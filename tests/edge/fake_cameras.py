"""Makers' packages without a camera: only what the drivers use, by the names that the real wheels have.

`tests/edge/test_depth_cameras.py` compares every name here with the real package where that is installed.
Each ``World`` says what is plugged in and notes what was opened.
"""

# ruff: noqa: A001, N801, N802, N803, N815  # the makers' names

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

WIDTH, HEIGHT = 64, 48


@dataclass
class World:
    """What is plugged in, what the camera sends, and what a driver did."""

    serials: list[str] = field(default_factory=lambda: ["A1", "B2"])
    picture: Any = field(default_factory=lambda: np.full((HEIGHT, WIDTH), 2000, np.uint16))
    scale: float = 1.0  # mm of one unit
    fx: float = 60.0
    celsius: float = 41.5
    sending: bool = True
    stamp: int = 1_000_000
    late_s: float = 0.02
    opened: list[str] = field(default_factory=list)  # every stream that was asked for
    used: str = ""  # the serial of the camera that was opened
    closed: list[str] = field(default_factory=list)
    fault: Exception | None = None  # raised instead of a frame
    on_close: Callable[[], None] = lambda: None

    def tick(self) -> int:
        self.stamp += 33_333
        return self.stamp

    def close(self, what: str) -> None:
        self.on_close()
        self.closed.append(what)


class OBError(Exception):
    """What the package of Orbbec raises."""


def orbbec(world: World) -> ModuleType:
    """Return pyorbbecsdk."""

    class OBSensorType(enum.Enum):
        DEPTH_SENSOR = "depth"

    class OBFormat(enum.Enum):
        Y16 = "y16"

    class OBLogLevel(enum.Enum):
        NONE = 0

    class Context:
        @staticmethod
        def set_logger_to_console(level: OBLogLevel) -> None: ...

        @staticmethod
        def set_logger_to_file(level: OBLogLevel, folder: str) -> None: ...

        def query_devices(self) -> DeviceList:
            return DeviceList()

    class DeviceList:
        def get_count(self) -> int:
            return len(world.serials)

        def get_device_serial_number_by_index(self, index: int) -> str:
            return world.serials[index]

        def get_device_name_by_index(self, index: int) -> str:
            return f"Orbbec Gemini {index}"

        def get_device_by_index(self, index: int) -> Device:
            world.used = world.serials[index]
            return Device()

    class Device:
        def get_temperature(self) -> OBDeviceTemperature:
            return OBDeviceTemperature()

    class OBDeviceTemperature:
        cpu_temperature = world.celsius
        main_board_temperature = chip_top_temperature = chip_bottom_temperature = 0.0
        ir_temperature = laser_temperature = 0.0

    class OBCameraIntrinsic:
        width, height, fx, fy, cx, cy = WIDTH, HEIGHT, world.fx, world.fx, 32.0, 24.0

    class VideoStreamProfile:
        def get_width(self) -> int:
            return WIDTH

        def get_height(self) -> int:
            return HEIGHT

        def get_intrinsic(self) -> OBCameraIntrinsic:
            return OBCameraIntrinsic()

    class StreamProfileList:
        def get_video_stream_profile(
            self, width: int, height: int, kind: OBFormat, fps: int
        ) -> VideoStreamProfile:
            if (width, height) not in {(WIDTH, HEIGHT), (0, 0)}:
                raise OBError("no such profile")
            return VideoStreamProfile()

        def get_default_video_stream_profile(self) -> VideoStreamProfile:
            return VideoStreamProfile()

    class Config:
        def enable_stream(self, profile: VideoStreamProfile) -> None:
            world.opened.append("depth")

    class DepthFrame:
        def get_data(self) -> Any:
            return np.frombuffer(np.ascontiguousarray(world.picture).tobytes(), np.uint8)

        def get_depth_scale(self) -> float:
            return world.scale

        def get_timestamp_us(self) -> int:
            return world.tick()

    class FrameSet:
        def get_depth_frame(self) -> DepthFrame:
            return DepthFrame()

    class Pipeline:
        def __init__(self, device: Device) -> None: ...

        def get_stream_profile_list(self, sensor: OBSensorType) -> StreamProfileList:
            assert sensor is OBSensorType.DEPTH_SENSOR
            return StreamProfileList()

        def start(self, config: Config) -> None: ...

        def wait_for_frames(self, timeout_ms: int) -> FrameSet | None:
            if world.fault:
                raise world.fault
            return FrameSet() if world.sending else None

        def stop(self) -> None:
            world.close("pipeline")

    return module("pyorbbecsdk", locals(), OBError)


class QueueException(Exception):
    """What a queue of depthai raises when the camera is lost."""


def oak(world: World, *, time_of_flight: bool = False) -> ModuleType:
    """Return depthai."""

    class CameraSensorType(enum.Enum):
        TOF = "tof"

    class CameraFeatures:
        socket = "CAM_A"
        supportedTypes = (CameraSensorType.TOF,) if time_of_flight else ()

    class DeviceInfo:
        def __init__(self, deviceId: str) -> None:
            self.deviceId, self.name = deviceId, "1.2"

    class ChipTemperature:
        average = world.celsius

    class Device:
        def __init__(self, info: DeviceInfo) -> None:
            world.used = info.deviceId

        @staticmethod
        def getAllAvailableDevices() -> list[DeviceInfo]:
            return [DeviceInfo(serial) for serial in world.serials]

        def setMaxReconnectionAttempts(self, attempts: int) -> None:
            assert attempts == 0

        def getConnectedCameraFeatures(self) -> list[CameraFeatures]:
            return [CameraFeatures()]

        def getChipTemperature(self) -> ChipTemperature:
            return ChipTemperature()

        def isClosed(self) -> bool:
            return not world.serials

        def close(self) -> None:
            world.close("device")

    class Clock:
        @staticmethod
        def now() -> timedelta:
            return timedelta(seconds=time.monotonic())

    class ImgTransformation:
        def getIntrinsicMatrix(self) -> list[list[float]]:
            return [[world.fx, 0, 32.0], [0, world.fx, 24.0], [0, 0, 1]]

    class ImgFrame:
        def getFrame(self) -> Any:
            return world.picture

        def getWidth(self) -> int:
            return WIDTH

        def getHeight(self) -> int:
            return HEIGHT

        def getTimestamp(self) -> timedelta:
            return Clock.now() - timedelta(seconds=world.late_s)

        def getTimestampDevice(self) -> timedelta:
            return timedelta(microseconds=world.tick())

        def getTransformation(self) -> ImgTransformation:
            return ImgTransformation()

    class MessageQueue:
        def get(self, timeout: timedelta) -> ImgFrame | None:
            if world.fault:
                raise world.fault
            return ImgFrame() if world.sending else None

    class Output:
        def __init__(self, stream: str) -> None:
            self._stream = stream

        def createOutputQueue(self, maxSize: int, blocking: bool) -> MessageQueue:
            assert not blocking
            world.opened.append(self._stream)
            return MessageQueue()

    class StereoDepth:
        depth = Output("depth")

        def build(self, *, autoCreateCameras: bool, size: tuple[int, int], fps: float) -> StereoDepth:
            return self

    class ToF:
        depth = Output("depth")

        def build(self, *, boardSocket: str, fps: float) -> ToF:
            return self

    class Pipeline:
        def __init__(self, device: Device) -> None: ...

        def create(self, kind: type[Any]) -> Any:
            return kind()

        def start(self) -> None: ...

        def isRunning(self) -> bool:
            return True

        def stop(self) -> None:
            world.close("pipeline")

    made = module("depthai", locals())
    setattr(made, "node", SimpleNamespace(StereoDepth=StereoDepth, ToF=ToF))  # noqa: B010  # to mypy it has none
    for inner in (StereoDepth, ToF, Output):
        delattr(made, inner.__name__)
    return made


def arducam(world: World) -> ModuleType:
    """Return ArducamDepthCamera. The real one ends the process when a camera that did not open is touched."""

    class Connection(enum.Enum):
        CSI = 0
        USB = 1

    class FrameType(enum.Enum):
        DEPTH = 2

    class Control(enum.Enum):
        INTRINSIC_FX = 10
        INTRINSIC_FY = 11
        INTRINSIC_CX = 12
        INTRINSIC_CY = 13

    class CameraInfo:
        width, height = WIDTH, HEIGHT

    class FrameFormat:
        timestamp = 0

    class DepthData:
        def __init__(self) -> None:
            self.depth_data = world.picture
            self.confidence_data = np.full((HEIGHT, WIDTH), 200, np.float32)
            self.confidence_data[0] = 3.0
            self.format = FrameFormat()
            self.format.timestamp = world.tick()

    class ArducamCamera:
        def __init__(self) -> None:
            self._open = False

        def open(self, mode: Connection, index: int) -> int:
            self._open = f"{mode.name.lower()}:{index}" in world.serials
            world.used = f"{mode.name.lower()}:{index}"
            return 0 if self._open else -1

        def start(self, kind: FrameType) -> int:
            assert self._open, "a real one ends the process here"
            world.opened.append(kind.name.lower())
            return 0

        def getCameraInfo(self) -> CameraInfo:
            assert self._open
            return CameraInfo()

        def getControl(self, control: Control) -> int:
            assert self._open
            return round(100 * (world.fx if "F" in control.name[-2:] else 24.0))

        def requestFrame(self, timeout: int) -> DepthData | None:
            assert self._open
            if world.fault:
                raise world.fault
            return DepthData() if world.sending else None

        def releaseFrame(self, frame: DepthData) -> int:
            return 0

        def stop(self) -> int:
            assert self._open
            world.close("stream")
            return 0

        def close(self) -> int:
            assert self._open, "a real one ends the process here"
            world.close("camera")
            return 0

    return module("ArducamDepthCamera", locals())


def realsense(world: World) -> ModuleType:
    """Return pyrealsense2."""

    class stream(enum.Enum):
        depth = "depth"

    class format(enum.Enum):
        z16 = "z16"

    class camera_info(enum.Enum):
        serial_number = "serial"
        name = "name"

    class option(enum.Enum):
        asic_temperature = 1

    class depth_sensor:
        def get_option(self, which: option) -> float:
            return world.celsius

    class device:
        def __init__(self, serial: str) -> None:
            self._serial = serial

        def get_info(self, what: camera_info) -> str:
            return self._serial if what is camera_info.serial_number else "RealSense D435"

        def first_depth_sensor(self) -> depth_sensor:
            return depth_sensor()

        def is_connected(self) -> bool:
            return self._serial in world.serials

    class context:
        def query_devices(self) -> list[device]:
            return [device(serial) for serial in world.serials]

    class intrinsics:
        width, height, fx, fy, ppx, ppy = WIDTH, HEIGHT, world.fx, world.fx, 32.0, 24.0

    class video_stream_profile:
        def as_video_stream_profile(self) -> video_stream_profile:
            return self

        def get_intrinsics(self) -> intrinsics:
            return intrinsics()

    class config:
        def enable_device(self, serial: str) -> None:
            world.used = serial

        def enable_stream(self, kind: stream, width: int, height: int, how: format, fps: int) -> None:
            world.opened.append(kind.name)
            self._size = width, height

        def can_resolve(self, made: pipeline) -> bool:
            return self._size in {(WIDTH, HEIGHT), (0, 0)}

    class depth_frame:
        def get_data(self) -> Any:
            return world.picture

        def get_units(self) -> float:
            return float(np.float32(world.scale / 1000.0))

        def get_timestamp(self) -> float:
            return world.tick() / 1000.0

    class composite_frame:
        def get_depth_frame(self) -> depth_frame:
            return depth_frame()

    class pipeline_profile:
        def get_device(self) -> device:
            return device(world.used)

        def get_stream(self, kind: stream) -> video_stream_profile:
            return video_stream_profile()

    class pipeline:
        def start(self, how: config) -> pipeline_profile:
            return pipeline_profile()

        def try_wait_for_frames(self, timeout_ms: int) -> tuple[bool, composite_frame]:
            if world.fault:
                raise world.fault
            return world.sending, composite_frame()

        def stop(self) -> None:
            world.close("pipeline")

    return module("pyrealsense2", locals())


def module(name: str, made: dict[str, Any], *more: type[Any]) -> ModuleType:
    """Return a module of the classes that a function made."""
    found = ModuleType(name)
    for cls in [*(c for c in made.values() if isinstance(c, type)), *more]:
        setattr(found, cls.__name__, cls)
    return found


MAKERS: dict[str, tuple[str, Callable[[World], ModuleType]]] = {
    "orbbec": ("pyorbbecsdk", orbbec),
    "oak": ("depthai", oak),
    "arducam": ("ArducamDepthCamera", arducam),
    "realsense": ("pyrealsense2", realsense),
}
