"""One wearable from its messages to windows: the state that the pipeline keeps for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.core.detector import Finding
from edge.core.timeline import Batch, Chunk, ClockOffset, Timeline
from edge.detect.judge import Judge
from firmware_bridge.wire import Hello, Samples, Status
from models.scorer import Scorer

FULL_SCALE = 32768.0  # counts of an int16 at the end of the range


@dataclass(frozen=True, slots=True)
class Heard:
    """Samples of one wearable in order, as a second model is to judge them; None when it fell silent."""

    wearable: str
    chunk: Chunk | None
    worn: bool


class Wearer:
    """Timeline and judge of one wearable, and what it last said of itself."""

    def __init__(self, wearable: str, scorer: Scorer | None, keep: list[Heard] | None = None) -> None:
        """Begin; what is heard is also put into ``keep``, where a second model judges this wearable."""
        self.wearable = wearable
        self.judge = None if scorer is None else Judge(wearable, scorer)  # None while no model may run
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
        self._keep = keep

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
        if self._keep is not None:
            self._keep.append(Heard(self.wearable, None, worn=False))
        return findings + ([] if self.judge is None else self.judge.on_silence())

    @property
    def backlog_s(self) -> float:
        """How much of its stream waits to be scored."""
        return 0.0 if self.judge is None else self.judge.backlog_s

    def _on_chunk(self, chunk: Chunk) -> list[Finding]:
        worn = self.worn and not self.charging
        if self._keep is not None:
            self._keep.append(Heard(self.wearable, chunk, worn))
        return [] if self.judge is None else self.judge.on_chunk(chunk, worn=worn)
