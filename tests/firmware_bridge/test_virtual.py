from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware_bridge.dongle import DonglePort
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import DonglePty, Recording, Run, VirtualDongle, VirtualWearable
from firmware_bridge.wire import (
    AcknowledgeButton,
    Button,
    DongleAsk,
    DongleHello,
    DongleStatus,
    Downlink,
    Frame,
    FrameDecoder,
    Hello,
    Proof,
    Samples,
    Status,
    Uplink,
    UplinkMessage,
    encode_frame,
)

KEY = bytes(range(16))


def counts(start: int, n: int) -> bytes:
    return struct.pack(f"<{3 * n}h", *(v for i in range(start, start + n) for v in (i, -i, 2048)))


def recording(n: int = 500, rate_hz: float = 50.0) -> Recording:
    return Recording([Run(0.0, counts(0, n))], rate_hz=rate_hz, range_g=16)


class Home:
    """A dongle, its wearables and the Pi's gateway, without a line between."""

    def __init__(self, *wearables: VirtualWearable, **faults: float) -> None:
        self.dongle = VirtualDongle(wearables, loss=faults.get("loss", 0.0), garbage=faults.get("garbage", 0.0))
        self.gateway = Gateway(lambda rows: None)
        for wearable in wearables:
            self.gateway.add(wearable.id, KEY, Counters())
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []

    def until(self, t_s: float) -> list[tuple[str, UplinkMessage]]:
        got = self.decoder.feed(self.dongle.frames_until(t_s))
        self.frames += got
        opened = [self.gateway.open(frame.packet) for frame in got if isinstance(frame, Uplink)]
        return [message for message in opened if message is not None]

    def samples_until(self, t_s: float) -> list[Samples]:
        return [message for _, message in self.until(t_s) if isinstance(message, Samples)]


def session(wearable: str = "0042", counters: WearableCounters | None = None) -> WearableSession:
    return WearableSession(wearable, KEY, counters or WearableCounters(), save=lambda _: None)


def virtual(wearable: str = "0042", played: Recording | None = None, **options: object) -> VirtualWearable:
    return VirtualWearable(session(wearable), played or recording(), **options)  # type: ignore[arg-type]


def test_a_recording_arrives_sample_for_sample() -> None:
    got = Home(virtual()).samples_until(10.0)
    assert b"".join(s.xyz for s in got) == counts(0, 500)
    assert [s.first for s in got] == list(range(0, 500, 25))
    assert [s.tick for s in got] == [round(s.first * 32768 / 50) for s in got]
    assert {(s.n, s.rate_hz, s.range_g, s.boot, s.worn) for s in got} == {(25, 50.0, 16, 1, True)}


def test_a_wearable_introduces_itself_and_tells_its_state_in_time() -> None:
    home = Home(virtual(loop=True, battery_pct=11))
    messages = [m for _, m in home.until(120.0)]
    assert [type(m) for m in messages[:2]] == [Hello, Status]
    assert sum(isinstance(m, Hello) for m in messages) == 3
    states = [m for m in messages if isinstance(m, Status)]
    assert [(s.battery_pct, s.uptime_s) for s in states] == [(11, t) for t in (0, 30, 60, 90, 120)]


def test_the_dongle_says_hello_at_start_and_when_asked_and_lives_every_second() -> None:
    home = Home(virtual())
    home.until(3.0)
    home.dongle.take(encode_frame(DongleAsk()))
    assert home.dongle.due_s() == 3.0
    home.until(3.0)
    assert sum(isinstance(frame, DongleHello) for frame in home.frames) == 2
    assert [f.uptime_ms for f in home.frames if isinstance(f, DongleStatus)] == [1000, 2000, 3000]


@pytest.mark.parametrize("step_s", [0.01, 0.3, 7.0])
def test_how_often_it_is_asked_leaves_the_frames_unchanged(step_s: float) -> None:
    def all_of(step_s: float) -> bytes:
        home = Home(virtual("a"), virtual("b", loop=True), loss=0.1, garbage=0.1)
        return b"".join(home.dongle.frames_until(i * step_s) for i in range(int(21 / step_s) + 1))

    assert all_of(step_s)[:40_000] == all_of(21.0)[:40_000]


@pytest.mark.parametrize(("rate_hz", "n"), [(20.0, 10), (31.25, 16), (50.0, 25), (100.0, 30), (200.0, 30)])
def test_a_batch_is_at_most_half_a_second_and_thirty_samples(rate_hz: float, n: int) -> None:
    got = Home(virtual(played=recording(1000, rate_hz))).samples_until(3.0)
    assert {s.n for s in got} == {n}
    assert {s.rate_hz for s in got} == {rate_hz}


def test_a_gap_in_the_recording_is_a_gap_in_the_indices() -> None:
    gappy = Recording([Run(0.0, counts(0, 60)), Run(5.0, counts(250, 50))], rate_hz=50, range_g=16)
    got = Home(virtual(played=gappy)).samples_until(6.0)
    assert [(s.first, s.n) for s in got] == [(0, 25), (25, 25), (50, 10), (250, 25), (275, 25)]
    assert got[3].xyz == counts(250, 25)


def test_a_looped_recording_starts_again_with_rising_indices() -> None:
    gappy = Recording([Run(1.0, counts(50, 60))], rate_hz=50, range_g=16)
    got = Home(virtual(played=gappy, loop=True)).samples_until(4.4)
    assert [(s.first, s.n) for s in got] == [(50, 25), (75, 25), (100, 10), (160, 25), (185, 25), (210, 10)]
    assert got[3].xyz == counts(50, 25)


def test_after_its_end_the_wearer_lies_still_in_the_last_posture_and_is_not_silent() -> None:
    got = Home(virtual(played=recording(100))).samples_until(60.0)
    assert sum(s.n for s in got) == 3000
    values = struct.unpack("<75h", got[-1].xyz)
    assert all(
        abs(x - 74) <= 6 and abs(y + 75) <= 6 and abs(z - 2048) <= 6
        for x, y, z in zip(*[iter(values)] * 3, strict=True)
    )
    assert len(set(values)) > 10


def test_a_silenced_wearable_says_and_hears_nothing_and_the_others_go_on() -> None:
    home = Home(virtual("a", silent_from_s=5.0), virtual("b"))
    heard = home.until(60.0)
    assert sum(isinstance(m, Samples) for w, m in heard if w == "a") == 9
    assert sum(isinstance(m, Samples) for w, m in heard if w == "b") == 120
    home.dongle.press_button("a")
    assert {w for w, _ in home.until(70.0)} == {"b"}


def test_loss_and_garbage_come_in_the_asked_measure() -> None:
    home = Home(virtual(loop=True), loss=0.2)
    assert 0.7 < len(home.samples_until(1000.0)) / 2000 < 0.9
    home = Home(virtual(loop=True), garbage=0.1)
    assert 0.85 < len(home.samples_until(1000.0)) / 2000 < 0.97
    assert home.decoder.bad_frames > 100


def test_a_clipped_batch_says_so() -> None:
    clipped = counts(0, 30)[:-2] + struct.pack("<h", 32767)
    got = Home(virtual(played=Recording([Run(0.0, clipped)], rate_hz=50, range_g=2))).samples_until(0.6)
    assert [s.clipped for s in got] == [False, True]


def test_the_help_button_is_repeated_until_acknowledged() -> None:
    home = Home(virtual())
    home.until(2.0)
    home.dongle.press_button("0042")
    presses = [m for _, m in home.until(5.5) if isinstance(m, Button)]
    assert len(presses) == 4
    assert {(p.boot, p.press, p.tick) for p in presses} == {(1, 1, 65536)}
    home.dongle.take(encode_frame(Downlink(home.gateway.seal("0042", AcknowledgeButton(1, 1)))))
    assert not [m for _, m in home.until(20.0) if isinstance(m, Button)]


def test_a_challenge_is_answered_with_proof_and_hello() -> None:
    home = Home(virtual())
    home.gateway.add("0042", KEY, Counters(uplink=1000, clean=False))
    assert home.until(5.0) == []
    for _, packet in home.gateway.proofs_due(0.0):
        home.dongle.take(encode_frame(Downlink(packet)))
    assert [type(m) for _, m in home.until(5.0)] == [Proof, Hello]
    assert home.samples_until(6.0)


@pytest.mark.parametrize(
    "runs", [[], [Run(0.0, b"")], [Run(0.0, b"12345")], [Run(0.0, counts(0, 60)), Run(1.0, counts(0, 9))]]
)
def test_a_recording_without_samples_or_with_overlap_is_refused(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="samples"):
        Recording(runs, rate_hz=50, range_g=16)


def test_two_wearables_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        VirtualDongle([virtual("a"), virtual("a")])


@contextmanager
def playing(dongle: VirtualDongle, link: Path, speed: float) -> Iterator[None]:
    stop = threading.Event()
    with DonglePty(dongle, link, speed=speed) as pty:
        thread = threading.Thread(target=pty.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5.0)
    assert not thread.is_alive()


def read_for(link: Path, seconds: float) -> tuple[FrameDecoder, list[Frame]]:
    port, decoder, frames = DonglePort(str(link)), FrameDecoder(), []
    port.open()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        frames += decoder.feed(port.read(0.05))
    port.close()
    return decoder, frames


def test_a_pty_plays_in_real_time_times_the_speed_and_nothing_is_lost(tmp_path: Path) -> None:
    link = tmp_path / "dongle"
    dongle = VirtualDongle([virtual(f"{i:04}", loop=True) for i in range(6)])
    with playing(dongle, link, speed=50.0):
        decoder, frames = read_for(link, 1.0)
    statuses = [f for f in frames if isinstance(f, DongleStatus)]
    assert 40 <= len(statuses) <= 60
    assert decoder.bad_frames <= 1  # the one under way when the port was opened
    assert statuses[-1].frames_dropped == 0
    assert not link.is_symlink()


def test_readers_may_come_and_go_and_what_nobody_read_is_dropped_in_whole_frames(tmp_path: Path) -> None:
    link = tmp_path / "dongle"
    dongle = VirtualDongle([virtual(f"{i:04}", loop=True) for i in range(6)])
    with playing(dongle, link, speed=20.0):
        time.sleep(2.5)
        for _ in range(2):
            decoder, frames = read_for(link, 0.5)
            assert decoder.bad_frames <= 1
            assert sum(isinstance(frame, Uplink) for frame in frames) > 50
            time.sleep(1.5)
    assert dongle.frames_dropped > 0


def test_a_command_through_the_pty_reaches_the_wearable(tmp_path: Path) -> None:
    link = tmp_path / "dongle"
    with playing(VirtualDongle([virtual()]), link, speed=1.0):
        port, decoder = DonglePort(str(link)), FrameDecoder()
        port.open()
        port.send(encode_frame(DongleAsk()))
        end_s = time.monotonic() + 3.0
        found = False
        while not found and time.monotonic() < end_s:
            found = any(isinstance(frame, DongleHello) for frame in decoder.feed(port.read()))
        port.close()
    assert found


def test_a_link_is_replaced_at_once_but_a_file_never(tmp_path: Path) -> None:
    link = tmp_path / "dongle"
    link.write_text("precious")
    with pytest.raises(FileExistsError):
        DonglePty(VirtualDongle([virtual()]), link)
    assert link.read_text() == "precious"
    link.unlink()
    first = DonglePty(VirtualDongle([virtual()]), link)
    second = DonglePty(VirtualDongle([virtual()]), link)
    target = os.readlink(link)
    first.close()  # must not take the link of the second
    assert os.readlink(link) == target
    second.close()
    assert not link.is_symlink()
