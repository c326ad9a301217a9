"""Bytes from dongles in, findings out: wire, keys, order, resampling, network and decision together."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.detector import SILENT_S, FallDetected, Finding
from edge.core.replay import replay
from edge.detect.pipeline import Found, News, Pipeline, Pressed
from edge.recording import read_recording
from edge.simulate import virtual_recording
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import VirtualDongle, VirtualWearable
from firmware_bridge.wire import Button, Samples, Uplink, UplinkMessage, encode_frame
from models.scorer import Scorer
from tests.conftest import PeakScorer

DATA = Path(__file__).parent.parent / "data"
FALLS = ["fall-backward-wrist.csv", "fall-forward-wrist.csv"]
DAILY = ["bend-wrist.csv", "walk-wrist.csv", "sit-wrist.csv", "stairs-waist.csv"]
KEY = bytes(range(16))
PORT = "dongle-1"


def gateway(*wearables: str) -> Gateway:
    opened = Gateway(lambda _: None)
    for wearable in wearables:
        opened.add(wearable, KEY, Counters())
    return opened


def pipeline(scorer: Scorer | None, *wearables: str) -> Pipeline:
    return Pipeline(gateway(*wearables), dict.fromkeys(wearables, scorer))


def wearable(name: str, file: str, **how: float) -> VirtualWearable:
    session = WearableSession(name, KEY, WearableCounters(), save=lambda _: None)
    return VirtualWearable(session, virtual_recording(read_recording(DATA / file)), **how)  # type: ignore[arg-type]


def played(
    files: Iterable[str], *, loss: float = 0.0, garbage: float = 0.0, seed: int = 0
) -> list[tuple[float, bytes]]:
    """Return what a port hands over while wearables 0001, 0002 ... play recordings, until they end."""
    names = list(files)
    dongle = VirtualDongle(
        [wearable(f"{i:04d}", name, offset_s=0.1 * i) for i, name in enumerate(names, start=1)],
        loss=loss,
        garbage=garbage,
        seed=seed,
    )
    end_s = max(read_recording(DATA / name).duration_s for name in names) + 0.1 * len(names) + 0.3
    return [(t_s, data) for t_s in np.arange(0.1, end_s, 0.1).tolist() if (data := dongle.frames_until(t_s))]


def feed(taking: Pipeline, reads: Iterable[tuple[float, bytes]]) -> list[News]:
    """Feed all, and let the silence after it be noticed."""
    news, now_s = [], 0.0
    for now_s, data in reads:
        news += taking.feed(PORT, data, now_s)
    return news + taking.on_timer(now_s + SILENT_S + 0.1)


def findings(news: list[News], name: str = "0001") -> list[Finding]:
    return [n.finding for n in news if isinstance(n, Found) and n.wearable == name]


def falls(news: list[News], name: str = "0001") -> list[FallDetected]:
    return [f for f in findings(news, name) if isinstance(f, FallDetected)]


def test_a_fall_is_found_in_the_bytes_of_a_dongle(peak_scorer: PeakScorer) -> None:
    reads = played(["walk-wrist.csv", "fall-forward-wrist.csv", "stairs-waist.csv"])
    news = feed(pipeline(peak_scorer, "0001", "0002", "0003"), reads)
    (found,) = [n for n in news if isinstance(n, Found) and isinstance(n.finding, FallDetected)]
    assert found.wearable == "0002"
    assert found.finding.impact_s == pytest.approx(5.3, abs=0.2)
    assert found.impact_at_s == pytest.approx(5.3 + 0.2 + 0.5, abs=0.5)  # as the port's reader saw it


@pytest.mark.parametrize("name", [*FALLS, *DAILY])
def test_the_daemon_finds_what_replay_finds(peak_scorer: PeakScorer, name: str) -> None:
    recording = read_recording(DATA / name)
    replayed = replay([(run.t_s, run.accel_g) for run in recording.runs], peak_scorer)
    lived = findings(feed(pipeline(peak_scorer, "0001"), played([name])))
    assert [type(f) for f in lived] == [type(f) for f in replayed]
    for a, b in zip(lived, replayed, strict=True):
        assert a.impact_s == pytest.approx(b.impact_s, abs=0.1)


@pytest.fixture(scope="module")
def noisy_bytes() -> bytes:
    return b"".join(data for _, data in played(["fall-forward-wrist.csv", "bend-wrist.csv"], garbage=0.1))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_split_of_the_bytes_gives_the_same_findings(
    bundle: Path, noisy_bytes: bytes, data: st.DataObject
) -> None:
    scorer, whole = Scorer(bundle), noisy_bytes
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=60))})
    expected = feed(pipeline(scorer, "0001", "0002"), [(20.0, whole)])
    split = feed(pipeline(scorer, "0001", "0002"), [(20.0, whole[a:b]) for a, b in pairwise(cuts)])
    assert [len(falls(split, name)) for name in ("0001", "0002")] == [1, 0]
    for name in ("0001", "0002"):
        assert findings(split, name) == findings(expected, name)


def test_one_packet_in_twenty_lost_changes_hardly_a_decision(peak_scorer: PeakScorer) -> None:
    names = [*FALLS * 4, *DAILY]
    wearables = [f"{i:04d}" for i in range(1, len(names) + 1)]
    clean = feed(pipeline(peak_scorer, *wearables), played(names))
    decided = [bool(falls(clean, w)) for w in wearables]
    assert decided == [True] * 8 + [False] * 4
    changed = lost = sent = 0
    for seed in range(8):
        taking = pipeline(peak_scorer, *wearables)
        news = feed(taking, played(names, loss=0.05, seed=seed))
        changed += sum(bool(falls(news, w)) != was for w, was in zip(wearables, decided, strict=True))
        lost += sum(w.timeline.counts.lost for w in taking.wearers.values())
        sent += sum(w.timeline.counts.samples for w in taking.wearers.values())
    assert 0.03 < lost / (lost + sent) < 0.08
    # What this network goes by lies in one packet of each fall: no more is lost than are those.
    assert changed <= 0.08 * 8 * 8


@pytest.mark.parametrize("rate_hz", [25.0, 32.0, 50.0, 100.0, 200.0])
def test_the_sensors_rate_changes_no_decision(peak_scorer: PeakScorer, rate_hz: float) -> None:
    for name in [*FALLS, "bend-wrist.csv"]:
        recording = read_recording(DATA / name)
        runs = []
        for run in recording.runs:
            t_s = np.arange(run.t_s[0], run.t_s[-1], 1 / rate_hz)
            axes = [np.interp(t_s, run.t_s, run.accel_g[:, axis]) for axis in range(3)]
            runs.append((t_s, np.stack(axes, axis=1).astype(np.float32)))
        found = [f for f in replay(runs, peak_scorer) if isinstance(f, FallDetected)]
        assert len(found) == (name in FALLS)


def message(
    first: int, accel_g: np.ndarray, *, tick: int | None = None, rate_hz: float = 50.0, boot: int = 1
) -> Samples:
    counts = np.round(accel_g * 4096).astype("<i2").tobytes()
    at = round(first / rate_hz * 32768) if tick is None else tick
    return Samples(boot, at & 0xFFFFFFFF, first, round(rate_hz * 100), 8, 1, counts)


class Radio:
    """One wearable's own side: seals, and frames as a dongle does."""

    def __init__(self, name: str = "0001", key: bytes = KEY) -> None:
        self._session = WearableSession(name, key, WearableCounters(), save=lambda _: None)

    def frame(self, said: UplinkMessage) -> bytes:
        return encode_frame(Uplink(-60, self._session.seal(said)))


def still(n: int) -> np.ndarray:
    return np.tile([0.0, 0.0, 1.0], (n, 1))


def test_silence_settles_a_stream_whose_samples_do_not_fill_a_hop(peak_scorer: PeakScorer) -> None:
    radio, taking = Radio(), pipeline(peak_scorer, "0001")
    hit = still(24)
    hit[-3:] *= 6
    for i in range(10):
        taking.feed(PORT, radio.frame(message(24 * i, hit if i == 9 else still(24))), 0.48 * (i + 1))
    assert taking.on_timer(4.8 + SILENT_S - 0.1) == []
    (found,) = taking.on_timer(4.8 + SILENT_S + 0.1)
    assert isinstance(found, Found)
    assert found.finding.impact_s == pytest.approx(4.75, abs=0.1)
    assert taking.on_timer(4.8 + SILENT_S + 1.1) == []


def test_a_batch_held_back_for_a_lost_one_is_judged_when_silence_follows(peak_scorer: PeakScorer) -> None:
    radio, taking = Radio(), pipeline(peak_scorer, "0001")
    hit = still(25)
    hit[10:13] *= 6
    frames = [radio.frame(message(25 * i, hit if i == 7 else still(25))) for i in range(8)]
    for i, frame in enumerate(frames):
        if i != 6:
            taking.feed(PORT, frame, 0.5 * (i + 1))
    (found,) = taking.on_timer(4.0 + SILENT_S + 0.1)
    assert isinstance(found, Found)


def test_a_button_is_told_at_every_repeat_and_needs_no_model() -> None:
    radio, taking = Radio(), pipeline(None, "0001")
    press = Button(boot=1, press=1, tick=0, held_ms=1500)
    for at_s in (1.0, 2.0):
        assert taking.feed(PORT, radio.frame(press), at_s) == [Pressed("0001", press, at_s)]
    assert taking.feed(PORT, radio.frame(message(0, still(25))), 3.0) == []
    assert taking.on_timer(100.0) == []


@pytest.mark.parametrize("rate_hz", [0.01, 1.0, 6.25, 12.5])
def test_a_sensor_slower_than_any_we_know_does_not_stop_the_rest(peak_scorer: PeakScorer, rate_hz: float) -> None:
    radio, taking = Radio(), pipeline(peak_scorer, "0001")
    for i in range(4):
        taking.feed(PORT, radio.frame(message(30 * i, still(30), rate_hz=rate_hz)), 3.0 * i)
    assert taking.wearers["0001"].timeline.counts.samples == 120


def test_what_is_forged_repeated_or_not_ours_changes_nothing(peak_scorer: PeakScorer) -> None:
    radio, taking = Radio(), pipeline(peak_scorer, "0001")
    hit = still(25) * 6
    frame = radio.frame(message(0, still(25)))
    taking.feed(PORT, frame, 1.0)
    taking.feed(PORT, frame, 1.5)  # replayed
    taking.feed(PORT, Radio(key=bytes(16)).frame(message(25, hit)), 1.5)  # another key
    taking.feed(PORT, Radio("9999").frame(message(0, hit)), 1.5)  # not ours
    taking.feed(PORT, b"\0" + struct.pack("<40h", *range(40)) + b"\0", 1.5)  # noise
    session = taking.gateway.session("0001")
    assert session is not None
    assert (session.counts.opened, session.counts.stale, session.counts.forged) == (1, 1, 1)
    assert taking.gateway.unknown == 1
    assert taking.wearers["0001"].timeline.counts.samples == 25
    assert taking.on_timer(10.0) == []


def test_two_dongles_that_hear_one_wearable_are_one_stream(peak_scorer: PeakScorer) -> None:
    taking = pipeline(peak_scorer, "0001")
    news: list[News] = []
    for now_s, data in played(["fall-forward-wrist.csv"]):
        news += taking.feed("dongle-1", data, now_s)
        news += taking.feed("dongle-2", data, now_s + 0.01)
    news += taking.on_timer(now_s + 10)
    assert len(falls(news)) == 1
    assert taking.wearers["0001"].timeline.counts.duplicates == 0  # stopped by their counters already


def test_a_stream_read_all_at_once_is_judged_as_one_read_bit_by_bit(peak_scorer: PeakScorer) -> None:
    reads = played(FALLS)
    slow = feed(pipeline(peak_scorer, "0001", "0002"), reads)
    fast = feed(pipeline(peak_scorer, "0001", "0002"), [(16.0, b"".join(data for _, data in reads))])
    for name in ("0001", "0002"):
        assert len(falls(fast, name)) == 1
        assert findings(fast, name) == findings(slow, name)
