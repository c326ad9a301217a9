"""Packets nobody should have sent: forged, replayed, garbage, floods, and both sides losing power in between."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.core.supervision import Cause
from edge.detect.pipeline import Pipeline, Pressed
from edge.detect.supervisor import Raise, Supervisor
from edge.settings import load_settings
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.wire import WORN, Button, Samples, Uplink, encode_frame
from models.card import newest
from models.scorer import Scorer
from tests.conftest import PeakScorer
from tests.faults.counts import SEED, count, only_in_full, tell
from tests.firmware_bridge.test_session import attack, history

KEY = bytes(range(16))
LINE_RATE = 46_080  # octets a second: 460 800 baud
OTHERS = 20  # wearables beside the one gone mad
MAD = "0000"
SLACK_MS = 0.3  # what the clock and the other programs of a shared machine make of a millisecond
FLOOD = 100  # times what a wearable sends


class Wearable:
    """Sends 25 samples of somebody walking in a packet, as often as it is asked to."""

    def __init__(self, name: str, key: bytes = KEY) -> None:
        self._session = WearableSession(name, key, WearableCounters(), save=lambda _: None)
        self._n = 0
        t_s = np.arange(500) / 50
        rng = np.random.default_rng(int(name))
        motion_g = (
            np.outer(np.sin(2 * np.pi * 1.8 * t_s), [0.3, 0.2, 0.1]) + rng.normal(0, 0.03, (500, 3)) + [0, 0, 1]
        )
        self._counts = np.round(motion_g * 4096).astype("<i2")

    def frame(self) -> bytes:
        first = 25 * self._n
        self._n += 1
        xyz = self._counts[first % 500 : first % 500 + 25].tobytes()
        return self.say(Samples(1, first * 32768 // 50 & 0xFFFF_FFFF, first, 5000, 8, WORN, xyz))

    def say(self, message: Samples | Button) -> bytes:
        return encode_frame(Uplink(-60, self._session.seal(message)))


class Home:
    """A pipeline and its supervisor, without the rest of the service."""

    def __init__(self, folder: Path, scorer: Scorer, *names: str) -> None:
        path = folder / "fallwatch.toml"
        residents = "".join(f'[[resident]]\nid = "r{n}"\nroom = "{n}"\nwearable = "{n}"\n' for n in names)
        path.write_text(f'[home]\nid = "home"\n[[dongle]]\nport = "dongle"\n{residents}')
        gateway = Gateway(lambda _: None)
        for name in names:
            gateway.add(name, KEY, Counters())
        self.pipeline = Pipeline(gateway, dict.fromkeys(names, scorer))
        self.supervisor = Supervisor(load_settings(path), self.pipeline)
        self.raised: list[Raise] = []

    def look(self, now_s: float) -> None:
        self.raised += [told for told in self.supervisor.look(now_s, {}) if isinstance(told, Raise)]

    def causes(self) -> set[Cause]:
        return {told.cause for told in self.raised}


@pytest.mark.timeout(1800)
def test_no_hostile_packet_is_taken() -> None:
    n = count(20_000, 1_000_000)
    begun_s = time.process_time()
    taken = attack(n, seed=SEED)
    tell(
        "replayed, rolled back, wrong key, bit-flipped",
        packets=n,
        taken=taken,
        cpu_s=time.process_time() - begun_s,
    )
    assert taken == 0


def test_every_bit_of_a_packet_is_sealed() -> None:
    gateway = Gateway(lambda _: None)
    gateway.add(MAD, KEY, Counters())
    device = WearableSession(MAD, KEY, WearableCounters(), save=lambda _: None)
    messages: list[Samples | Button] = [Samples(1, 0, 0, 5000, 8, WORN, bytes(150)), Button(1, 1, 0, 1500)]
    packets = [device.seal(message) for message in messages]
    for packet in packets:
        for bit in range(8 * len(packet)):
            changed = bytearray(packet)
            changed[bit // 8] ^= 1 << bit % 8
            assert gateway.open(bytes(changed)) is None
    assert all(gateway.open(packet) is not None for packet in packets)


@pytest.mark.timeout(3600)
def test_no_power_cut_on_either_side_uses_a_nonce_twice_or_refuses_an_alarm() -> None:
    n = count(100, 100_000)
    alarms = sum(history(seed) for seed in range(SEED, SEED + n))
    tell("histories of power cuts on both sides", histories=n, alarms=alarms, refused_or_reused=0)
    assert alarms > n


@pytest.mark.parametrize("kind", ["forged", "replayed"])
def test_more_than_twenty_hostile_packets_a_minute_are_told(
    kind: str, tmp_path: Path, peak_scorer: PeakScorer
) -> None:
    home, wearable = Home(tmp_path, peak_scorer, MAD), Wearable(MAD)
    forger = Wearable(MAD, bytes(16))
    told_s = None
    for second in range(1, 61):
        good = wearable.frame()
        home.pipeline.feed("dongle", good, float(second))
        if second % 2:  # one every other second: thirty in all
            home.pipeline.feed("dongle", good if kind == "replayed" else forger.frame(), second + 0.5)
        home.look(second + 0.9)
        if told_s is None and Cause.INTERFERENCE in home.causes():
            told_s = second
    tell(f"one {kind} packet every 2 s", told_after_s=str(told_s))
    assert told_s is not None
    assert [told.fault for told in home.raised if told.cause is Cause.INTERFERENCE] == [True]


# --- garbage -----------------------------------------------------------------------------------------------


def noise(rng: random.Random, good: list[bytes]) -> bytes:
    """Return octets with no good frame in them: random, or frames with some octets changed, cut or joined."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 600))
    frame = bytearray(rng.choice(good))
    if kind == 1:
        for _ in range(rng.randint(1, 4)):
            frame[rng.randrange(len(frame) - 1)] ^= rng.randint(1, 255)
        return bytes(frame)
    if kind == 2:
        return bytes(frame[: rng.randrange(1, len(frame) - 1)])
    cut = rng.randrange(1, len(frame) - 1)
    return bytes(frame[:cut] + frame[cut + 1 :])


def test_garbage_is_never_taken_and_costs_no_more_than_the_frames_it_touches(peak_scorer: PeakScorer) -> None:
    """Blocks of garbage are made once and then fed again and again, each time cut elsewhere."""
    octets, rng = count(4_000_000, 1_000_000_000), random.Random(SEED)
    wearable = Wearable(MAD)
    good = [wearable.frame() for _ in range(20)]
    blocks = []
    for _ in range(60):
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < 30_000:
            pieces.append(noise(rng, good))
        blocks.append(b"".join(pieces))
    gateway = Gateway(lambda _: None)
    gateway.add(MAD, KEY, Counters())
    pipeline = Pipeline(gateway, {MAD: peak_scorer})
    opened = gateway.session(MAD)
    assert opened is not None
    fed = frames = 0
    worst, busy_s, now_s = 0, 0.0, 0.0
    resyncs = 0
    while fed < octets:
        cut = rng.randrange(1000)
        block = rng.choice(blocks)[cut:]
        begun_s = time.process_time()
        for at in range(0, len(block), 900):  # as a port hands them over at line rate
            now_s += 900 / LINE_RATE
            assert pipeline.feed("dongle", block[at : at + 900], now_s) == []
        busy_s += time.process_time() - begun_s
        fed += len(block)
        assert opened.counts.opened == frames, "garbage was taken"
        if resyncs < 20_000:  # good frames follow: how many are lost?
            resyncs += 1
            lost = 0
            while True:
                pipeline.feed("dongle", wearable.frame(), now_s)
                if opened.counts.opened > frames:
                    frames = opened.counts.opened
                    break
                lost += 1
                assert lost <= 2
            worst = max(worst, lost)
    speed = fed / busy_s
    tell("garbage", octets=fed, taken=0, frames_until_in_step=worst, times_line_rate=speed / LINE_RATE)
    assert len(pipeline.dongles["dongle"].decoder._rest) <= 251
    assert speed >= 10 * LINE_RATE


# --- floods ------------------------------------------------------------------------------------------------


def flood_of(kind: str) -> Callable[[], bytes]:
    mad = Wearable(MAD, bytes(16) if kind == "forged" else KEY)
    if kind == "replayed":
        once = mad.frame()
        return lambda: once
    return mad.frame


def decisions_ms(
    home: Home, others: list[Wearable], flood: Callable[[], bytes] | None, seconds: int
) -> list[float]:
    """Play a home in reads of 20 ms; return the CPU time of each read with a decision on others."""
    took: list[float] = []
    scored = {name: 0 for name in home.pipeline.wearers if name != MAD}
    for read in range(50 * seconds):
        now_s = (read + 1) / 50
        frames = [flood() for _ in range(FLOOD * 2 // 50)] if flood else []
        frames += [w.frame() for i, w in enumerate(others) if read % 25 == i % 25]
        data = b"".join(frames)
        judged = sum(_judged(home, name) for name in scored)
        begun_s = time.process_time()
        home.pipeline.feed("dongle", data, now_s)
        ended_s = time.process_time()
        if sum(_judged(home, name) for name in scored) > judged:
            took.append((ended_s - begun_s) * 1e3)
        if read % 50 == 49:
            home.look(now_s)
    return took


def _judged(home: Home, name: str) -> float:
    judge = home.pipeline.wearers[name].judge
    return 0.0 if judge is None else judge.worn_s


@only_in_full
@pytest.mark.alone
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["valid", "forged", "replayed"])
def test_one_wearable_that_floods_keeps_no_other_waiting(kind: str, tmp_path: Path) -> None:
    names = [f"{i:04d}" for i in range(OTHERS + 1)]
    scorer = Scorer(newest("wrist"))
    # A flood passes for its first 1.3 s: less than a hundredth of the time.
    seconds = count(150 if kind == "valid" else 15, 300)

    def played(flood: Callable[[], bytes] | None) -> tuple[list[float], Home]:
        home = Home(tmp_path, scorer, *names)
        return decisions_ms(home, [Wearable(name) for name in names[1:]], flood, seconds), home

    calm = np.percentile(played(None)[0], [50, 99])
    took, home = played(flood_of(kind))
    flooded = np.percentile(took, [50, 99])
    tell(
        f"a wearable floods {FLOOD} times, {kind}",
        p50_ms_without=calm[0],
        p99_ms_without=calm[1],
        p50_ms=flooded[0],
        p99_ms=flooded[1],
        thrown_away=home.pipeline.wearers[MAD].flooded,
        told=" and ".join(sorted(home.causes())),
    )
    for name in names[1:]:
        assert home.pipeline.wearers[name].timeline.counts.lost == 0
        assert home.supervisor.watch(name).cause is None
    if kind == "valid":
        assert home.supervisor.watch(MAD).cause is Cause.FLOODING
    else:
        assert Cause.INTERFERENCE in home.causes()
    assert flooded[1] <= 1.2 * calm[1] + SLACK_MS


def test_a_wearable_that_floods_is_still_heard_when_its_button_is_pressed(
    tmp_path: Path, peak_scorer: PeakScorer
) -> None:
    home, mad = Home(tmp_path, peak_scorer, MAD), Wearable(MAD)
    told_s = None
    for i in range(200 * 60):
        now_s = i / 200
        home.pipeline.feed("dongle", mad.frame(), now_s)
        if i % 200 == 0:
            home.look(now_s)
            if told_s is None and Cause.FLOODING in home.causes():
                told_s = now_s
            press = Button(1, i, 0, 1500)
            assert home.pipeline.feed("dongle", mad.say(press), now_s) == [Pressed(MAD, press, now_s)]
    assert home.pipeline.wearers[MAD].flooded > 0.9 * 200 * 60 * 0.9
    assert told_s is not None
    assert told_s <= 60.0
    for second in range(200):  # it has come to itself
        home.pipeline.feed("dongle", mad.frame(), 60.0 + second / 2)
    home.look(160.0)
    assert home.supervisor.watch(MAD).cause is not Cause.FLOODING
    tell("a wearable floods 100 times", told_after_s=told_s)


@pytest.mark.parametrize("rate_hz", [0.01, 1.0, 9.9])
def test_a_wearable_that_claims_a_rate_of_no_use_keeps_nobody_waiting_and_is_named(
    rate_hz: float, tmp_path: Path, peak_scorer: PeakScorer
) -> None:
    home, mad = Home(tmp_path, peak_scorer, MAD), Wearable(MAD)
    begun_s = time.process_time()
    for i in range(60):
        first, tick = 30 * i, round(30 * i / rate_hz * 32768) & 0xFFFF_FFFF
        xyz = np.random.default_rng(i).integers(-5000, 5000, 90).astype("<i2").tobytes()
        said = Samples(1, tick, first, round(rate_hz * 100), 8, WORN, xyz)
        home.pipeline.feed("dongle", mad.say(said), i / 2)
        home.look(i / 2)
    assert home.pipeline.windows == 0
    assert time.process_time() - begun_s < 1.0
    assert home.supervisor.watch(MAD).cause is Cause.WRONG_RATE
