"""Depth cameras: only depth is opened, frames are own copies in millimetres, and whatever goes wrong is named."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.depth.frame import Calibration, Depth, Intrinsics, Plane, Zone
from edge.sources.depth import KINDS, CameraGone, Found, NoDriver, Wanted, find_cameras, open_camera, sdk, v4l2
from edge.sources.depth.folder import FolderCamera, NoFrames, Recording, read_calibration
from edge.sources.depth.sdk import Thermometer, depth_mm, taken_s
from tests.edge.fake_cameras import HEIGHT, MAKERS, WIDTH, OBError, QueueException, World, oak

LENS = Intrinsics(WIDTH, HEIGHT, 55.0, 55.0, 32.0, 24.0)


def wanted(kind: str, device: str = "", intrinsics: Intrinsics | None = None, width: int = WIDTH) -> Wanted:
    return Wanted(kind, device, width, HEIGHT, 30.0, intrinsics)


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A maker's package with two cameras plugged in."""
    made = World()
    if kind == "arducam":
        made.serials = ["csi:0", "usb:0"]
    name, package = MAKERS[kind]
    monkeypatch.setitem(sys.modules, name, package(made))
    for variable in ("TELEMETRY", "DISABLE_CRASHDUMP_COLLECTION", "CRASHDUMP", "DISABLE_FEEDBACK", "LEVEL"):
        monkeypatch.setenv(f"DEPTHAI_{variable}", "")
    monkeypatch.setenv("DEPTHAI_ZOO_INTERNET_CHECK", "")
    return made


# -- every maker's --------------------------------------------------------------------------------


def test_a_camera_gives_depth_in_millimetres(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    before_s = time.monotonic()
    frame = camera.read(1.0)
    assert frame is not None
    assert frame.depth_mm.shape == (HEIGHT, WIDTH)
    assert frame.depth_mm[HEIGHT // 2, WIDTH // 2] == 2000
    assert before_s - 0.1 < frame.time_s <= time.monotonic()
    assert camera.intrinsics.fx == world.fx
    camera.close()


def test_only_depth_is_ever_opened(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    for _ in range(5):
        camera.read(0.1)
    camera.close()
    assert world.opened == ["depth"]


def test_a_time_of_flight_oak_gives_depth_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setitem(sys.modules, "depthai", oak(world, time_of_flight=True))
    camera = open_camera(wanted("oak"))
    assert camera.read(0.1) is not None
    assert world.opened == ["depth"]


def test_a_frame_is_an_own_copy_in_memory_order(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    frame = camera.read(1.0)
    assert frame is not None
    assert frame.depth_mm.dtype == np.uint16
    assert frame.depth_mm.flags.c_contiguous
    assert frame.depth_mm.flags.writeable
    assert not np.shares_memory(frame.depth_mm, world.picture)


def test_the_cameras_own_clock_moves_from_frame_to_frame(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    stamps = [frame.device_s for _ in range(3) if (frame := camera.read(0.1)) and frame.device_s is not None]
    assert len(stamps) == 3
    assert stamps == sorted(set(stamps))


def test_the_temperature_is_told_where_the_camera_tells_it(kind: str, world: World) -> None:
    frame = open_camera(wanted(kind)).read(0.1)
    assert frame is not None
    assert frame.temperature_c == (None if kind == "arducam" else 41.5)


def test_a_camera_is_found_by_its_number_and_not_another(kind: str, world: World) -> None:
    second = world.serials[1]
    open_camera(wanted(kind, second))
    assert world.used == second


def test_all_that_are_plugged_in_are_found(kind: str, world: World) -> None:
    found = [one for one in find_cameras() if one.kind == kind]
    assert [one.device for one in found] == world.serials
    assert all(one.name for one in found)


def test_nothing_plugged_in_is_found_as_nothing_and_told_as_gone(kind: str, world: World) -> None:
    world.serials = []
    assert find_cameras() == []
    with pytest.raises(CameraGone, match="cable"):
        open_camera(wanted(kind))


def test_a_number_that_is_not_plugged_in_is_gone(kind: str, world: World) -> None:
    device = "usb:7" if kind == "arducam" else "C3"
    with pytest.raises(CameraGone, match=device):
        open_camera(wanted(kind, device))


def test_no_frame_in_time_is_none(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    while kind == "oak" and camera.read(0.0) is not None:
        world.sending = False
    world.sending = False
    assert camera.read(0.01) is None


def test_a_pulled_cable_is_gone(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind))
    camera.read(0.1)
    world.sending, world.serials = False, []
    if kind == "arducam":  # its package does not tell: the watch over the frames does
        assert camera.read(0.01) is None
        return
    with pytest.raises(CameraGone, match="cable"):
        camera.read(0.01)
    camera.close()


@pytest.mark.parametrize(
    "fault", [RuntimeError("lost"), OBError("lost"), QueueException("lost"), ValueError("lost")]
)
def test_whatever_a_package_raises_is_gone_with_its_reason(kind: str, world: World, fault: Exception) -> None:
    camera = open_camera(wanted(kind))
    camera.read(0.1)
    world.fault = fault
    with pytest.raises(CameraGone, match="lost") as told:
        camera.read(0.1)
    assert told.value.kind == kind


@pytest.mark.parametrize(
    "picture",
    [
        np.full((HEIGHT, WIDTH + 2), 2000, np.uint16),
        np.full((HEIGHT, WIDTH, 3), 20, np.uint8),
        np.full((HEIGHT, WIDTH), True, np.bool_),
        np.full((2, 1), 2000, np.uint16),
        np.full((HEIGHT, WIDTH), "far", object),
    ],
    ids=["wider", "colour", "yes or no", "tiny", "words"],
)
def test_a_picture_of_another_kind_is_gone_and_no_exception_of_numpy(
    kind: str, world: World, picture: Any
) -> None:
    camera = open_camera(wanted(kind))
    camera.read(0.1)
    world.picture = picture
    if kind == "orbbec" and picture.dtype == object:
        pytest.skip("that package gives bytes")
    with pytest.raises(CameraGone):
        camera.read(0.1)


def test_a_finer_unit_is_turned_into_millimetres(kind: str, world: World) -> None:
    if kind in {"oak", "arducam"}:
        pytest.skip("depth of these is in millimetres always")
    world.scale = 0.1
    frame = open_camera(wanted(kind)).read(0.1)
    assert frame is not None
    assert set(np.unique(frame.depth_mm)) == {200}


def test_a_size_that_the_camera_has_not_gives_one_that_it_has(kind: str, world: World) -> None:
    camera = open_camera(wanted(kind, width=111))
    assert (camera.intrinsics.width, camera.intrinsics.height) == (WIDTH, HEIGHT)


def test_intrinsics_come_from_the_settings_where_the_camera_tells_none(kind: str, world: World) -> None:
    world.fx = 0.0
    name, package = MAKERS[kind]
    sys.modules[name] = package(world)
    assert open_camera(wanted(kind, intrinsics=LENS)).intrinsics == LENS
    with pytest.raises(CameraGone, match="settings"):
        open_camera(wanted(kind))
    assert world.closed  # and it is let go


def test_closing_twice_does_no_harm_and_a_hanging_package_does_not_hold_it(
    kind: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sdk.CLOSE_S <= 3.0
    monkeypatch.setattr(sdk, "CLOSE_S", 0.2)
    world.on_close = lambda: time.sleep(2.0)
    camera = open_camera(wanted(kind))
    begun_s = time.monotonic()
    camera.close()
    camera.close()
    assert time.monotonic() - begun_s < 1.0
    with pytest.raises(CameraGone):
        camera.read(0.01)


def test_a_package_that_fails_on_closing_is_let_go_all_the_same(kind: str, world: World) -> None:
    def fail() -> None:
        raise RuntimeError("stop() cannot be called before start()")

    world.on_close = fail
    open_camera(wanted(kind)).close()


def test_a_missing_package_is_told_with_what_to_install(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MAKERS[kind][0], None)
    with pytest.raises(NoDriver, match="pip install"):
        open_camera(wanted(kind))
    assert kind not in {one.kind for one in find_cameras()}


def test_the_package_of_luxonis_is_told_to_send_nothing_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DEPTHAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DEPTHAI_TELEMETRY", "1")
    monkeypatch.setitem(sys.modules, "depthai", oak(World()))
    open_camera(wanted("oak"))
    assert os.environ["DEPTHAI_TELEMETRY"] == "0"
    assert os.environ["DEPTHAI_DISABLE_CRASHDUMP_COLLECTION"] == "1"
    assert os.environ["DEPTHAI_CRASHDUMP"] == "0"


def test_depth_without_confidence_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(serials=["csi:0"], picture=np.full((HEIGHT, WIDTH), 2000.4, np.float32))
    world.picture[3, 4] = np.nan
    monkeypatch.setitem(sys.modules, "ArducamDepthCamera", MAKERS["arducam"][1](world))
    frame = open_camera(wanted("arducam")).read(0.1)
    assert frame is not None
    assert not frame.depth_mm[0].any()  # the fake is sure of all but this row
    assert frame.depth_mm[3, 4] == 0
    assert frame.depth_mm[1, 1] == 2000


def test_a_kind_that_is_none_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="orbbec"):
        open_camera(wanted("webcam"))


def test_no_driver_loads_its_package_before_it_is_asked_for() -> None:
    code = "import sys, edge.sources.depth; " + "".join(f"import edge.sources.depth.{k}; " for k in KINDS)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not {name for name, _ in MAKERS.values()} & set(done.stdout.split())


# -- against the real packages --------------------------------------------------------------------


def names(made: Any, path: str = "") -> Iterator[str]:
    """Yield every name that a fake has and a driver may use, such as ``Pipeline.start``."""
    for name, value in vars(made).items():
        if name.startswith("_"):
            continue
        yield path + name
        if isinstance(value, enum.EnumMeta):
            yield from (f"{path}{name}.{member}" for member in value.__members__)
        elif isinstance(value, (type, types.SimpleNamespace)):
            yield from names(value, f"{path}{name}.")


@pytest.mark.parametrize("kind", MAKERS)
def test_every_name_that_a_driver_uses_is_in_the_real_package(kind: str) -> None:
    name, fake = MAKERS[kind]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: a maker's package is an extra")
    code = (
        f"import sys, {name} as real\n"
        "for name in sys.argv[1:]:\n"
        "    at = real\n"
        "    for part in name.split('.'):\n"
        "        at = getattr(at, part, None)\n"
        "        if at is None: print('missing', name); break\n"
    )
    used = sorted(names(fake(World())))
    assert len(used) > 15
    done = subprocess.run(
        [sys.executable, "-c", code, *used],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "DEPTHAI_TELEMETRY": "0"},
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("missing")] == []


@pytest.mark.parametrize("kind", MAKERS)
def test_the_real_package_without_a_camera_finds_none_and_is_gone(kind: str) -> None:
    name = MAKERS[kind][0]
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: a maker's package is an extra")
    code = (
        "import importlib, sys, time\n"
        "from edge.sources.depth import CameraGone, Wanted, open_camera\n"
        f"driver = importlib.import_module('edge.sources.depth.{kind}')\n"
        "try: print('found', driver.find(), file=sys.stderr)\n"
        "except CameraGone as error: print('found', error, file=sys.stderr)\n"
        "begun = time.monotonic()\n"
        f"try: open_camera(Wanted('{kind}', '', 640, 480, 30.0))\n"
        "except CameraGone as error: print('gone', error, round(time.monotonic() - begun, 1), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    said = done.stderr
    if "found [Found(" in said:
        pytest.skip("a camera is plugged in")
    sys.stdout.write(said)
    assert done.returncode == 0, said
    assert "found []" in said
    assert "gone " in said


# -- numbers --------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    arrays.arrays(
        st.sampled_from([np.uint16, np.int16, np.float32, np.float64, np.uint8, np.int32]),
        (5, 7),
    ),
    st.sampled_from([1.0, 0.1, 0.25, 1.25]),
)
def test_any_numbers_become_millimetres_or_no_reading(raw: Any, scale: float) -> None:
    depth = depth_mm(raw, (5, 7), scale)
    assert depth.dtype == np.uint16
    assert depth.flags.c_contiguous
    assert not np.shares_memory(depth, raw)
    with np.errstate(over="ignore"):
        expected = raw.astype(np.float64) * scale
    told = np.isfinite(expected) & (expected >= 0.5) & (expected < 65535)
    assert np.abs(depth[told] - expected[told]).max(initial=0.0) <= 0.51
    assert not depth[~(expected >= -0.5)].any()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_unit_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="mm per unit"):
        depth_mm(np.ones((5, 7), np.uint16), (5, 7), scale)


def test_rows_in_another_order_of_memory_become_ours() -> None:
    raw = np.arange(35, dtype=np.uint16).reshape(7, 5).T
    depth = depth_mm(raw, (5, 7), 1.0)
    assert depth.flags.c_contiguous
    assert np.array_equal(depth, raw)


def test_a_stamp_of_another_clock_is_not_believed() -> None:
    assert taken_s(100.0, 99.97) == 99.97
    assert taken_s(100.0, 100.5) == 100.0
    assert taken_s(100.0, 12.0) == 100.0


def test_a_thermometer_that_fails_tells_nothing() -> None:
    def fail() -> float:
        raise RuntimeError("not supported")

    assert Thermometer(fail).celsius() is None
    assert Thermometer(lambda: 0.0).celsius() is None  # what a model without a sensor says
    assert Thermometer(lambda: 40.0).celsius() == 40.0


# -- V4L2 -----------------------------------------------------------------------------------------


class Capture:
    """OpenCV's capture, which opens whatever it is asked to."""

    fourcc = v4l2.Y16
    image: Any = np.full((HEIGHT, WIDTH), 1500, np.uint16)
    ready = True

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}
        self.released = self.grabbed = 0

    def open(self, device: str, backend: int, flat: list[int]) -> bool:
        assert backend == cv2.CAP_V4L2
        self.asked = dict(zip(flat[::2], flat[1::2], strict=True))
        return True

    def set(self, what: int, value: float) -> bool:
        self.asked[what] = int(value)
        return False  # as a camera without that size does

    def get(self, what: int) -> float:
        size = {
            cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT,
            cv2.CAP_PROP_FOURCC: self.fourcc,
        }
        return float(size.get(what, time.monotonic() * 1000 - 20))

    def read(self) -> tuple[bool, Any]:
        self.grabbed += 1
        return self.image is not None, self.image

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Capture:
    """A video device in a folder, with the name that udev gives it."""
    made = Capture()

    class VideoCapture:
        def __new__(cls) -> Capture:  # type: ignore[misc]  # what it makes is the fake
            return made

        @staticmethod
        def waitAny(streams: list[Capture], timeout_ns: int) -> tuple[bool, list[int]]:  # noqa: N802  # OpenCV's
            return made.ready, [0]

    monkeypatch.setattr(cv2, "VideoCapture", VideoCapture)
    (tmp_path / "dev" / "v4l" / "by-id").mkdir(parents=True)
    (tmp_path / "dev" / "video0").touch()
    (tmp_path / "dev" / "v4l" / "by-id" / "usb-maker-0815").symlink_to(tmp_path / "dev" / "video0")
    interface = tmp_path / "usb" / "1-1" / "1-1:1.0"
    interface.mkdir(parents=True)
    (tmp_path / "usb" / "1-1" / "idVendor").write_text("1234\n")
    (tmp_path / "sys" / "video0").mkdir(parents=True)
    (tmp_path / "sys" / "video0" / "name").write_text("Depth 1\n")
    (tmp_path / "sys" / "video0" / "device").symlink_to(interface)
    monkeypatch.setattr(v4l2, "DEV", tmp_path / "dev")
    monkeypatch.setattr(v4l2, "SYS", tmp_path / "sys")
    monkeypatch.setattr(v4l2, "_formats", lambda path: {v4l2.Y16})
    return made


def test_a_y16_camera_is_asked_for_16_bits_unconverted(capture: Capture, tmp_path: Path) -> None:
    device = str(tmp_path / "dev" / "v4l" / "by-id" / "usb-maker-0815")
    assert v4l2.find() == [Found("v4l2", device, "Depth 1")]
    camera = open_camera(wanted("v4l2", intrinsics=LENS))
    frame = camera.read(0.1)
    assert frame is not None
    assert set(np.unique(frame.depth_mm)) == {1500}
    assert frame.time_s == frame.device_s  # the kernel's stamp is of the same clock
    assert capture.asked[cv2.CAP_PROP_CONVERT_RGB] == 0
    assert capture.asked[cv2.CAP_PROP_FOURCC] == int.from_bytes(b"Y16 ", "little")
    camera.close()
    camera.close()
    assert capture.released


def test_a_webcam_is_let_go_before_a_picture_is_taken(capture: Capture) -> None:
    capture.fourcc = int.from_bytes(b"YUYV", "little")
    with pytest.raises(CameraGone, match="Y16"):
        open_camera(wanted("v4l2", intrinsics=LENS))
    assert capture.released
    assert not capture.grabbed


@pytest.mark.parametrize("vendor", v4l2.OWN_DRIVER)
def test_the_y16_of_a_maker_with_a_driver_may_be_infrared_and_is_refused(
    capture: Capture, tmp_path: Path, vendor: str
) -> None:
    (tmp_path / "usb" / "1-1" / "idVendor").write_text(f"{vendor}\n")
    assert v4l2.find() == []
    with pytest.raises(CameraGone, match="driver of its own"):
        open_camera(wanted("v4l2", str(tmp_path / "dev" / "video0"), intrinsics=LENS))
    assert not capture.asked


@pytest.mark.parametrize(
    "image", [None, np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((1, 2 * HEIGHT * WIDTH), np.uint8)]
)
def test_a_capture_that_gives_something_else_is_gone(capture: Capture, image: Any) -> None:
    camera = open_camera(wanted("v4l2", intrinsics=LENS))
    capture.image = image
    with pytest.raises(CameraGone):
        camera.read(0.1)


def test_what_is_no_video_device_is_gone_in_the_real_opencv(tmp_path: Path) -> None:
    for device in ("/dev/null", str(tmp_path / "none")):
        with pytest.raises(CameraGone):
            open_camera(wanted("v4l2", device, intrinsics=LENS))


def test_an_unplugged_video_device_is_gone(capture: Capture, tmp_path: Path) -> None:
    camera = open_camera(wanted("v4l2", intrinsics=LENS))
    capture.ready = False
    assert camera.read(0.1) is None
    (tmp_path / "dev" / "video0").unlink()
    with pytest.raises(CameraGone, match="cable"):
        camera.read(0.1)


def test_a_file_that_is_no_video_device_has_no_formats(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    assert v4l2._formats(tmp_path / "video0") == set()


# -- folders --------------------------------------------------------------------------------------


def picture(mm: int) -> Depth:
    return np.full((HEIGHT, WIDTH), mm, np.uint16)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Ten frames, the first of 1000 mm, and what is known of the camera."""
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number:06d}.png"), picture(1000 + number))
    told = {"width": WIDTH, "height": HEIGHT, "fx": 55.0, "fy": 55.0, "cx": 32.0, "cy": 24.0, "fps": 20}
    (tmp_path / "calib.json").write_text(json.dumps(told))
    return tmp_path


def played(folder_: Path) -> tuple[list[int], list[float], int]:
    """Return depth and time of each frame, and how many were bad."""
    recording = Recording(folder_, read_calibration(folder_ / "calib.json"))
    frames = list(recording)
    return [int(f.depth_mm[0, 0]) for f in frames], [f.time_s for f in frames], recording.bad_frames


def test_a_folder_gives_its_frames_at_its_rate(recorded: Path) -> None:
    depths, times, bad = played(recorded)
    assert depths == list(range(1000, 1010))
    assert times == pytest.approx([n / 20 for n in range(10)])
    assert bad == 0


def test_times_come_from_the_table_where_there_is_one(recorded: Path) -> None:
    rows = [f"{n:06d},{5.0 + n * n / 100}" for n in range(10)]
    (recorded / "timestamps.csv").write_text("frame,time_s\n" + "\n".join(rows))
    _, times, bad = played(recorded)
    assert times == pytest.approx([5.0 + n * n / 100 for n in range(10)])
    assert bad == 0


def test_missing_and_bad_frames_are_counted_and_the_others_keep_their_time(recorded: Path) -> None:
    (recorded / "000002.png").unlink()
    (recorded / "000003.png").write_bytes(b"\x89PNG\r\n\x1a\nnot so")
    (recorded / "000004.png").write_bytes(b"")
    cv2.imwrite(str(recorded / "000005.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    cv2.imwrite(str(recorded / "000006.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint16))
    cv2.imwrite(str(recorded / "000007.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint16))
    depths, times, bad = played(recorded)
    assert depths == [1000, 1001, 1008, 1009]
    assert times == pytest.approx([0.0, 0.05, 0.4, 0.45])
    assert bad == 6


def test_bad_rows_of_the_table_are_counted(recorded: Path) -> None:
    rows = ["000000,1.0", "000001,nan", "000002,0.5", "000003,1.2", "words,1.3", "000004", "000042,9.0", "-3,1"]
    (recorded / "timestamps.csv").write_text("frame,time_s\n" + "\n".join(rows))
    depths, times, bad = played(recorded)
    assert (depths, times) == ([1000, 1003], [1.0, 1.2])
    # no number, time back, without a name, without a time, without a picture, below 0; and 5 to 9 have no row
    assert bad == 11


@given(st.binary(max_size=200))
def test_any_table_is_read_or_counted(table: bytes) -> None:
    import tempfile  # noqa: PLC0415  # hypothesis wants a folder for each example

    with tempfile.TemporaryDirectory() as name:
        cv2.imwrite(f"{name}/000000.png", picture(1000))
        Path(name, "timestamps.csv").write_bytes(b"frame,time_s\n0,1.0\n" + table)
        recording = Recording(Path(name), Calibration(LENS))
        try:
            times = [frame.time_s for frame in recording]
        except NoFrames:
            times = []
        assert times == sorted(set(times))


def test_a_folder_without_a_usable_frame_is_named_with_why(recorded: Path, tmp_path: Path) -> None:
    (recorded / "calib.json").write_text((recorded / "calib.json").read_text().replace(str(WIDTH), "99"))
    with pytest.raises(NoFrames, match=f"000009.png is {WIDTH} x {HEIGHT}, not 99 x {HEIGHT}"):
        played(recorded)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NoFrames, match=r"no pictures"):
        list(Recording(empty, Calibration(LENS)))


def test_a_calibration_has_floor_and_zones(tmp_path: Path) -> None:
    told: dict[str, Any] = {"width": 320, "height": 240, "fx": 190.0, "fy": 190, "cx": 160, "cy": 120, "fps": 30}
    told |= {"floor": [0.0, 1.6, 1.2, -4.6]}  # whatever the length and the side of its normal
    told |= {"zones": [{"kind": "bed", "polygon_m": [[0, 1], [1, 1], [1, 3]], "height_m": 0.5}]}
    (tmp_path / "c.json").write_text(json.dumps(told))
    calibration = read_calibration(tmp_path / "c.json")
    assert calibration.intrinsics == Intrinsics(320, 240, 190.0, 190.0, 160.0, 120.0)
    assert calibration.floor == Plane(0.0, -0.8, -0.6, 2.3)
    assert calibration.zones == (Zone("bed", ((0.0, 1.0), (1.0, 1.0), (1.0, 3.0)), 0.5),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", None),
        ("width", -3),
        ("height", "240"),
        ("fx", 0),
        ("cy", True),
        ("fps", 0),
        ("fps", float("nan")),
        ("floor", [1, 2, 3]),
        ("floor", "flat"),
        ("zones", [{"kind": "sofa", "polygon_m": [], "height_m": 1}]),
        ("zones", [{"kind": "bed", "polygon_m": [[0, 1]], "height_m": 1}]),
        ("zones", [{"kind": "bed"}]),
        ("zones", 7),
        ("zones", ["bed"]),
    ],
)
def test_a_calibration_that_is_wrong_names_its_file(tmp_path: Path, key: str, value: Any) -> None:
    told: dict[str, Any] = {"width": 320, "height": 240, "fx": 190.0, "fy": 190, "cx": 160, "cy": 120, "fps": 30}
    (tmp_path / "c.json").write_text(json.dumps(told | {key: value}))
    with pytest.raises(ValueError, match=r"c\.json: no calibration"):
        read_calibration(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{", "[" * 100_000, "\x00"])
def test_what_is_no_calibration_at_all_is_named_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    for path in (tmp_path / "c.json", tmp_path / "none.json"):
        with pytest.raises(ValueError, match="no calibration"):
            read_calibration(path)


def test_a_folder_played_as_a_camera_takes_its_time_and_goes_on(recorded: Path) -> None:
    camera = open_camera(wanted("folder", str(recorded)))
    begun_s = time.monotonic()
    frames = [frame for _ in range(15) if (frame := camera.read(1.0))]
    assert 0.65 <= time.monotonic() - begun_s < 1.5  # 14 frames of 50 ms
    assert [int(f.depth_mm[0, 0]) for f in frames] == [*range(1000, 1010), *range(1000, 1005)]
    gaps = np.diff([f.time_s for f in frames])
    assert gaps == pytest.approx(0.05)
    assert camera.read(0.0) is None
    camera.close()
    with pytest.raises(CameraGone):
        camera.read(0.1)


def test_a_folder_played_once_is_gone_at_its_end(recorded: Path) -> None:
    camera = FolderCamera(recorded, read_calibration(recorded / "calib.json"))
    for _ in range(10):
        assert camera.read(1.0) is not None
    with pytest.raises(CameraGone, match="over"):
        camera.read(1.0)


def test_a_folder_without_a_calibration_is_gone_unless_the_settings_know(recorded: Path) -> None:
    (recorded / "calib.json").unlink()
    with pytest.raises(CameraGone, match=r"calib\.json"):
        open_camera(wanted("folder", str(recorded)))
    assert open_camera(wanted("folder", str(recorded), LENS)).intrinsics == LENS
