"""The serial adapter on real ptys. The long run: python -m tests.firmware_bridge.test_dongle_port 100"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge import dongle, serial_link
from firmware_bridge.dongle import DonglePort, find_dongles
from firmware_bridge.link import LinkEvent, Lost, Opened, Received
from firmware_bridge.serial_link import PortLost
from firmware_bridge.wire import DongleAsk, Frame, FrameDecoder, encode_frame


class Plug:
    """The far end of a port: a pty behind a link, as udev would make it."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.near, far = os.openpty()
        tty.setraw(far)
        name = os.ttyname(far)
        self._far: int | None = far
        new = link.with_name("new")
        new.symlink_to(name)
        new.replace(link)

    def say(self, data: bytes) -> None:
        os.write(self.near, data)

    def pull(self, *, leave_link: bool = False) -> None:
        if not leave_link:
            self.link.unlink()
        os.close(self.near)
        if self._far is not None:
            os.close(self._far)


class Reader:
    """A port read by its thread."""

    def __init__(self, link: Path, *, silent_s: float = 10.0) -> None:
        self.port = DonglePort(str(link))
        self.events: queue.Queue[LinkEvent] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self.port.run, args=(self.events.put, self._stop), kwargs={"silent_s": silent_s}, daemon=True
        )
        self._thread.start()

    def next(self, kind: type[LinkEvent], within_s: float = 5.0) -> LinkEvent:
        end_s = time.monotonic() + within_s
        while True:
            event = self.events.get(timeout=max(0.0, end_s - time.monotonic()))
            if isinstance(event, kind):
                return event

    def opened_while(self, plug: Plug) -> None:
        """Wait for the port to be open and heard, the dongle speaking all the while as real ones do."""
        end_s = time.monotonic() + 6.0
        while time.monotonic() < end_s:
            plug.say(b"x")
            with contextlib.suppress(queue.Empty):
                self.next(Opened, 0.05)
                return
        raise AssertionError("not opened within 6 s")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5.0)
        assert not self._thread.is_alive()


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-fallwatch-dongle"


@pytest.fixture
def reader(link: Path) -> Iterator[Reader]:
    reader = Reader(link, silent_s=1.0)
    yield reader
    reader.stop()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_the_dongle_says_is_read_and_what_is_sent_arrives(link: Path) -> None:
    plug, port = Plug(link), DonglePort(str(link))
    port.open()
    plug.say(b"hello")
    assert port.read() == b"hello"
    assert port.read(0.01) == b""
    assert port.send(encode_frame(DongleAsk()))
    decoder, until_s = FrameDecoder(), time.monotonic() + 5.0
    frames: list[Frame] = []
    while not frames and time.monotonic() < until_s:
        frames = decoder.feed(os.read(plug.near, 100))  # the kernel may hand it over in pieces
    assert frames == [DongleAsk()]
    port.close()
    plug.pull()


def test_pieces_that_come_close_together_are_read_as_one(link: Path) -> None:
    plug, port = Plug(link), DonglePort(str(link))
    port.open()

    def pieces() -> None:
        for _ in range(4):
            plug.say(b"x")
            time.sleep(0.002)

    thread = threading.Thread(target=pieces)
    thread.start()
    assert port.read() == b"xxxx"
    thread.join()
    port.close()
    plug.pull()


def test_a_port_that_is_not_there_or_no_port_or_in_use_is_named_with_its_reason(link: Path) -> None:
    with pytest.raises(PortLost, match="No such file") as lost:
        DonglePort(str(link)).open()
    assert lost.value.port == str(link)
    link.write_text("no port")
    with pytest.raises(PortLost):
        DonglePort(str(link)).open()
    plug = Plug(link)
    first, second = DonglePort(str(link)), DonglePort(str(link))
    first.open()
    with pytest.raises(PortLost, match="in use by another program"):
        second.open()
    first.close()
    second.open()
    second.close()
    plug.pull()


def test_a_pulled_plug_is_noticed_on_reading(link: Path) -> None:
    plug, port = Plug(link), DonglePort(str(link))
    port.open()
    plug.pull()
    with pytest.raises(PortLost):
        port.read()
    port.close()
    assert not port.send(b"x")


def test_another_device_under_the_name_is_noticed_while_idle(link: Path) -> None:
    old, port = Plug(link), DonglePort(str(link))
    port.open()
    new = Plug(link)
    with pytest.raises(PortLost, match="another device"):
        port.read()
    port.close()
    new.pull()
    old.pull(leave_link=True)


@pytest.mark.alone
def test_a_port_that_takes_nothing_blocks_nobody(link: Path) -> None:
    plug, port = Plug(link), DonglePort(str(link))
    port.open()
    refused, until_s = 0, time.monotonic() + 10.0
    while refused < 3:  # the kernel may yet move a little between its own buffers
        begun_s = time.monotonic()
        refused = 0 if port.send(bytes(1024)) else refused + 1
        assert time.monotonic() - begun_s < 1.0
        assert time.monotonic() < until_s
    plug.pull()
    port.close()


def test_a_frame_after_half_a_frame_still_arrives(link: Path) -> None:
    plug, port = Plug(link), DonglePort(str(link))
    port.open()
    port.send(encode_frame(DongleAsk())[:-2])
    port.send(encode_frame(DongleAsk()))
    decoder, until_s = FrameDecoder(), time.monotonic() + 5.0
    frames: list[Frame] = []
    while not frames and time.monotonic() < until_s:
        frames = decoder.feed(os.read(plug.near, 100))  # the kernel may hand it over in pieces
    assert frames == [DongleAsk()]
    plug.pull()
    port.close()


@pytest.mark.alone
def test_a_dongle_that_opens_but_says_nothing_is_lost(link: Path, reader: Reader) -> None:
    plug = Plug(link)
    reader.opened_while(plug)
    lost = reader.next(Lost)
    assert isinstance(lost, Lost)
    assert "says nothing" in lost.reason
    time.sleep(1.5)
    assert reader.events.empty()  # told once, and not as opened again
    reader.opened_while(plug)
    got = reader.next(Received)
    assert isinstance(got, Received)
    assert set(got.data) == set(b"x")
    assert 0.0 <= time.monotonic() - got.received_s < 1.0
    plug.pull()


def cycles(link: Path, n: int) -> list[float]:
    """Pull and replug n times, each time another device under the same name; return how long each return took."""
    took_s = []
    plug = Plug(link)
    reader = Reader(link)
    try:
        reader.opened_while(plug)
        fds, threads = open_fds(), threading.active_count()
        for i in range(n):
            plug.pull(leave_link=i % 3 == 0)
            reader.next(Lost)
            if i % 5 == 0:
                time.sleep(1.0)
            plug = Plug(link)
            back_s = time.monotonic()
            reader.opened_while(plug)
            took_s.append(time.monotonic() - back_s)
        assert (open_fds(), threading.active_count()) == (fds, threads)
    finally:
        reader.stop()
    plug.pull()
    return took_s


def test_a_dozen_unplugs_are_each_over_within_five_seconds_and_leak_nothing(link: Path) -> None:
    before = open_fds()
    assert max(cycles(link, 12)) < 5.0
    assert open_fds() == before


def test_a_missing_dongle_leaks_nothing_and_logs_little(
    link: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_link, "_BACKOFF_S", (0.001, 0.002))
    before = open_fds()
    with caplog.at_level(logging.INFO):
        reader = Reader(link)
        reader.next(Lost)
        link.write_text("no port")
        time.sleep(0.5)
        reader.stop()
    assert open_fds() == before
    assert len(caplog.records) == 1
    assert reader.events.empty()


def test_dongles_are_found_by_their_lasting_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("usb-fallwatch-dongle-B", "usb-fallwatch-dongle-A", "usb-printer"):
        (tmp_path / name).touch()
    monkeypatch.setattr(dongle, "BY_ID", str(tmp_path / "*fallwatch*"))
    assert find_dongles() == [str(tmp_path / "usb-fallwatch-dongle-A"), str(tmp_path / "usb-fallwatch-dongle-B")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        took = sorted(cycles(Path(folder) / "dongle", int(sys.argv[1])))
    sys.stdout.write(
        f"{len(took)} cycles: back in {took[len(took) // 2]:.2f} s median, {took[-1]:.2f} s at most\n"
    )
