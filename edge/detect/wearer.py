"""One wearable from its messages to windows: the state that the pipeline keeps for it."""

from __future__ import annotations

import numpy as np

from edge.core.detector import Detector, Finding
from edge.core.replay import settle
from edge.core.timeline import Batch, Chunk, ClockOffset, Timeline
from firmware_bridge.wire import Hello, Samples, Status
from models.preprocess import Accel, CausalResampler
from models.scorer import Scorer

FULL_SCALE = 32768.0  # counts of an int16 at the end of the range


class Wearer:
    """Timeline, resampler and detector of one wearable, and what it last said of itself."""

    def __init__(self, wearable: str, scorer: Scorer | None) -> None:
        self.wearable = wearable
        self.scorer = scorer  # None while no model for its placement may run
        self.timeline = Timeline()
        self.offset = ClockOffset()
        self.heard_s: float | None = None  # monotonic
        self.rssi_dbm: int | None = None
        self.hello: Hello | None = None
        self.status: Status | None = None
        self.worn = True
        self.charging = False
        self.range_g = 0
        self.rate_hz = 0.0
        self._silent = True  # what was being weighed has been settled
        if scorer is not None:
            self._resampler = CausalResampler(scorer.card.rate_hz)
            self.detector = Detector(scorer.card)

    def on_samples(self, samples: Samples, received_s: float) -> list[Finding]:
        """Take a batch; findings come at once only where a hole ends what was being weighed."""
        counts = np.frombuffer(samples.xyz, "<i2").reshape(-1, 3)
        accel_g = counts.astype(np.float32) * np.float32(samples.range_g / FULL_SCALE)
        self.worn, self.charging = samples.worn, samples.charging
        self.range_g, self.rate_hz = samples.range_g, samples.rate_hz
        batch = Batch(samples.boot, samples.tick, samples.first, samples.rate_hz, accel_g)
        self._silent = False
        findings = [f for chunk in self.timeline.push(batch) for f in self._on_chunk(chunk)]
        if self.timeline.last_s is not None:
            self.offset.observe(self.timeline.last_s, received_s)
        return findings

    def on_silence(self) -> list[Finding]:
        """Settle what was being weighed when the wearable fell silent; once each time."""
        if self._silent:
            return []
        self._silent = True
        findings = [f for chunk in self.timeline.flush() for f in self._on_chunk(chunk)]
        return findings + ([] if self.scorer is None else settle(self.detector, self.scorer, lasting=True))

    def due(self) -> tuple[int, Accel] | None:
        """Return the end and the samples of the next window to score."""
        if self.scorer is None:
            return None
        end = self.detector.due()
        return None if end is None else (end, self.detector.window(end))

    @property
    def backlog_s(self) -> float:
        """How much of its stream waits to be scored."""
        return 0.0 if self.scorer is None else self.detector.backlog_s

    def _on_chunk(self, chunk: Chunk) -> list[Finding]:
        if self.scorer is None:
            return []
        findings: list[Finding] = []
        if chunk.restart:
            findings = settle(self.detector, self.scorer, lasting=False)
            self._resampler.restart()
        start, samples = self._resampler.push(chunk.t_s, chunk.accel_g)
        self.detector.push(start, samples)
        return findings
