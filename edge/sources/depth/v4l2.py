"""Any camera whose kernel driver gives 16-bit pictures (Y16) of depth in millimetres, through OpenCV.

Y16 alone does not say depth: some cameras send infrared so. Nothing is taken before the format is agreed, and
makers with a driver of their own here are refused, as their Y16 may be infrared.
"""

from __future__ import annotations

import fcntl
import struct
from contextlib import suppress
from pathlib import Path

import cv2

from edge.clock import monotonic_s
from edge.depth.frame import Frame, Intrinsics
from edge.sources.depth import CameraGone, Found, Wanted
from edge.sources.depth.sdk import depth_mm, in_plain_words, known_intrinsics, let_go, taken_s

KIND = "v4l2"
Y16 = int.from_bytes(b"Y16 ", "little")
OWN_DRIVER = {"8086": "realsense", "2bc5": "orbbec", "03e7": "oak"}  # by USB vendor
_ENUM_FMT = 0xC0405602  # VIDIOC_ENUM_FMT of linux/videodev2.h, struct v4l2_fmtdesc of 64 bytes
_FMTDESC = "III32sII12x"
_CAPTURE = 1
_FORMATS_MOST = 64

DEV = Path("/dev")
SYS = Path("/sys/class/video4linux")


def find() -> list[Found]:
    """Return the video devices that offer Y16, by a name that does not change when others are plugged in."""
    found = []
    for path in sorted(DEV.glob("video*")):
        if Y16 in _formats(path) and _vendor(path) not in OWN_DRIVER:
            named = SYS / path.name / "name"
            name = named.read_text(errors="replace").strip() if named.exists() else path.name
            found.append(Found(KIND, str(_lasting(path)), name))
    return found


def open_one(wanted: Wanted) -> V4l2Camera:
    """Open the one that the settings name."""
    return V4l2Camera(wanted)


class V4l2Camera:
    """One that streams depth."""

    def __init__(self, wanted: Wanted) -> None:
        device = wanted.device or next((one.device for one in find()), "")
        if not device or not Path(device).exists():
            raise CameraGone(KIND, wanted.device, "not plugged in: see its cable, then `fallwatch camera find`")
        if own := OWN_DRIVER.get(_vendor(Path(device).resolve())):
            raise CameraGone(KIND, device, f"has a driver of its own: put kind = {own!r} into the settings")
        self._wanted = wanted
        self._device = device
        self._capture = cv2.VideoCapture()
        try:
            with in_plain_words(KIND, device, "cannot be opened"):
                asked = {
                    cv2.CAP_PROP_FOURCC: Y16,
                    cv2.CAP_PROP_CONVERT_RGB: 0,
                    cv2.CAP_PROP_FRAME_WIDTH: wanted.width,
                    cv2.CAP_PROP_FRAME_HEIGHT: wanted.height,
                    cv2.CAP_PROP_FPS: round(wanted.fps),
                }
                flat = [number for pair in asked.items() for number in pair]
                if not self._capture.open(device, cv2.CAP_V4L2, flat):
                    raise CameraGone(KIND, device, "does not open, or is in use, or has no Y16")
                if int(self._capture.get(cv2.CAP_PROP_FOURCC)) != Y16:
                    raise CameraGone(
                        KIND, device, "has no 16-bit pictures (Y16): it is no depth camera of this kind"
                    )
                self._shape = (
                    int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
                    int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                )
                self._intrinsics = known_intrinsics(wanted, None, self._shape)
        except CameraGone:
            self.close()
            raise

    @property
    def intrinsics(self) -> Intrinsics:
        """As the settings tell them."""
        return self._intrinsics

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time; for the first OpenCV waits up to 10 s."""
        with in_plain_words(KIND, self._device, "stopped"):
            ready, _ = cv2.VideoCapture.waitAny([self._capture], max(1, round(timeout_s * 1e9)))
            if not ready:
                if not Path(self._device).exists():
                    raise CameraGone(KIND, self._device, "unplugged: see its cable")
                return None
            came, image = self._capture.read()
            arrived_s = monotonic_s()
            if not came:
                raise CameraGone(KIND, self._device, "stopped: see its cable")
            stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0  # the kernel's, of the monotonic clock
            depth = depth_mm(image, self._shape, 1.0)
            return Frame(depth, taken_s(arrived_s, stamp_s), device_s=stamp_s if stamp_s > 0 else None)

    def close(self) -> None:
        """Let the camera go."""
        let_go(self._capture.release)


def _formats(path: Path) -> set[int]:
    """Return the pixel formats that a device offers; none when it cannot be asked."""
    formats = set()
    with suppress(OSError), path.open("rb", buffering=0) as device:
        for index in range(_FORMATS_MOST):
            asked = bytearray(struct.pack(_FMTDESC, index, _CAPTURE, 0, b"", 0, 0))
            fcntl.ioctl(device, _ENUM_FMT, asked)  # raises past the last one
            formats.add(struct.unpack(_FMTDESC, asked)[4])
    return formats


def _vendor(path: Path) -> str:
    """Return the USB vendor of a video device, empty when it is none of USB."""
    with suppress(OSError):
        # The device is the interface, which is below the USB device proper.
        return ((SYS / path.name / "device").resolve().parent / "idVendor").read_text(encoding="ascii").strip()
    return ""


def _lasting(path: Path) -> Path:
    """Return the name by maker and serial number that udev gives, the plain one where there is none."""
    for link in sorted(DEV.glob("v4l/by-id/*")):
        if link.resolve() == path.resolve():
            return link
    return path
