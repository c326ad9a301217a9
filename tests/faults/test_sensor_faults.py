"""Sensors that are broken or tell wrong things of themselves: from the dongle's bytes to the named cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.core.supervision import Cause
from edge.detect.pipeline import BROKER, Pipeline
from edge.detect.supervisor import Raise, Supervisor
from edge.settings import load_settings
from firmware_bridge.devices.broker import BrokerDecoder, wearable_topics
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.wire import WORN, Samples, Uplink, encode_frame
from tests.conftest import PeakScorer
from tests.edge.test_sensor import worn
from tests.faults.counts import SEED, count, tell

KEY, NAME = bytes(range(16)), "0042"
WELL_S, BROKEN_S = 90, 120
Motion = NDArray[np.float64]


class Bed:
    """One resident whose wearable sends half a second at a time."""

    def __init__(self, folder: Path, scorer: PeakScorer) -> None:
        path = folder / "fallwatch.toml"
        path.write_text(
            f'[home]\nid = "home"\n[[dongle]]\nport = "dongle"\n'
            f'[[resident]]\nid = "r"\nroom = "1"\nwearable = "{NAME}"\n'
        )
        gateway = Gateway(lambda _: None)
        gateway.add(NAME, KEY, Counters())
        decoder = BrokerDecoder("home", [NAME])
        self.pipeline = Pipeline(gateway, {NAME: scorer}, broker=decoder)
        self.supervisor = Supervisor(load_settings(path), self.pipeline)
        self._session = WearableSession(NAME, KEY, WearableCounters(), save=lambda _: None)
        self._first, self._began_s = 0, 1000.0
        self.now_s = self._began_s
        self.named_s: float | None = None
        self.called_s: float | None = None

    def play(self, motion_g: Motion, *, pace: float = 1.0, clock: float = 1.0) -> None:
        """Send a stream that says it has 50 Hz, at ``pace`` times that; note when it is named and called for."""
        begun_s = self.now_s
        for start in range(0, len(motion_g) - 24, 25):
            self.now_s += 0.5 / pace
            counts = np.clip(np.round(motion_g[start : start + 25] * 2048), -32768, 32767).astype("<i2")
            tick = round((self.now_s - self._began_s) * clock * 32768) & 0xFFFF_FFFF
            said = Samples(1, tick, self._first, 5000, 16, WORN, counts.tobytes())
            self._first += 25
            self.pipeline.feed("dongle", encode_frame(Uplink(-60, self._session.seal(said))), self.now_s)
            self.look(begun_s)

    def look(self, begun_s: float) -> None:
        told = self.supervisor.look(self.now_s, {})
        if self.named_s is None and self.supervisor.watch(NAME).cause is not None:
            self.named_s = self.now_s - begun_s
        if self.called_s is None and any(isinstance(t, Raise) for t in told):
            self.called_s = self.now_s - begun_s


Spoil = Callable[[Motion], Motion]
SPOILT: dict[str, tuple[Spoil, float, float, Cause]] = {
    "frozen": (lambda m: np.tile(m[:1], (len(m), 1)), 1.0, 1.0, Cause.FROZEN),
    "one axis dead": (lambda m: m * [1.0, 0.0, 1.0], 1.0, 1.0, Cause.FROZEN),
    "saturated": (lambda m: m * 0 + 20.0, 1.0, 1.0, Cause.SATURATED),
    "two axes alike": (lambda m: m[:, [0, 0, 2]], 1.0, 1.0, Cause.WRONG_AXES),
    "twice the scale": (lambda m: m * 2, 1.0, 1.0, Cause.WRONG_SCALE),
    "half the scale": (lambda m: m / 2, 1.0, 1.0, Cause.WRONG_SCALE),
    "m/s^2 for g": (lambda m: m * 9.81, 1.0, 1.0, Cause.WRONG_SCALE),
    "25 Hz sent as 50": (lambda m: m, 0.5, 1.0, Cause.WRONG_RATE),
    "100 Hz sent as 50": (lambda m: m, 2.0, 1.0, Cause.WRONG_RATE),
    "clock half as fast again": (lambda m: m, 1.0, 1.5, Cause.CLOCK_WRONG),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_broken_sensor_is_named_within_a_minute(fault: str, tmp_path: Path, peak_scorer: PeakScorer) -> None:
    spoil, pace, clock, cause = SPOILT[fault]
    named, called = [], []
    for seed in range(SEED, SEED + count(2, 50)):
        bed = Bed(tmp_path, peak_scorer)
        if clock == pace == 1.0:
            bed.play(worn(WELL_S, seed))
            assert bed.named_s is None, "named although sound"
        bed.play(spoil(worn(BROKEN_S * pace, seed + 1)), pace=pace, clock=clock)
        assert bed.supervisor.watch(NAME).cause is cause
        assert bed.named_s is not None
        assert bed.called_s is not None
        named.append(bed.named_s)
        called.append(bed.called_s)
    tell(fault, times=len(named), named_after_s=max(named), called_after_s=max(called))
    assert max(named) <= 60.0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", '"1"', "true", "1e400"])
def test_what_is_no_number_in_json_is_dropped_and_the_wearable_told_of(
    value: str, tmp_path: Path, peak_scorer: PeakScorer
) -> None:
    bed = Bed(tmp_path, peak_scorer)
    topic, good = wearable_topics("home", NAME)[1], [[0.0, 0.1, 1.0]] * 25
    document = (
        json.dumps({"rate_hz": 50, "range_g": 8, "xyz_g": [["?", 0, 1], *good]}).replace('"?"', value).encode()
    )
    begun_s = bed.now_s
    for _ in range(120):
        bed.now_s += 1.0
        assert bed.pipeline.feed(BROKER, document, bed.now_s, channel=topic) == []
        bed.look(begun_s)
    assert bed.pipeline.wearers[NAME].timeline.counts.samples == 0
    assert bed.named_s is not None
    assert bed.named_s <= 60.0
    tell(f"{value} by JSON", named_after_s=bed.named_s, cause=str(bed.supervisor.watch(NAME).cause))
