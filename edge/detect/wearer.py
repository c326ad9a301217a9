"""One wearable from its messages to windows: the state that the pipeline keeps for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.core.battery import Battery
from edge.core.detector import Finding
from edge.core.radio import Radio
from edge.core.sensor import LEAST_RATE_HZ, SensorWatch
from edge.core.supervision import Sight
from edge.core.timeline import Batch, Chunk, ClockOffset, Timeline
from edge.detect.judge import Judge
from firmware_bridge.session import GatewaySession
from firmware_bridge.wire import BUTTON_HELD, Hello, Samples, Status
from models.scorer import Scorer

FULL_SCALE = 32768.0  # counts of an int16 at the end of the range
OLDEST_FIRMWARE = (1, 0, 0)
BUTTON_STUCK_S = 60.0  # held for so long without a break, and no person does that
WEAK_WITHIN_S = 60.0  # one not heard for so long is no weak one but a silent one
MOST_PACE = 4.0  # seconds of stream that one wearable may send in a second, each sample twice where it likes
MOST_AT_ONCE_S = 120.0  # but what was held up on its way may come at once
LEAST_BATCH_S = 0.01  # a batch counts as at least so much stream
FLOOD_HOLD_S = 60.0
UNUSABLE_LEAST = 10  # so much came since the last samples that could not be used: no stray noise


@dataclass(frozen=True, slots=True)
class Heard:
    """Samples of one wearable in order, as a second model is to judge them; None when it fell silent."""

    wearable: str
    chunk: Chunk | None
    worn: bool


class Wearer:
    """Timeline and judge of one wearable, and what it last said of itself."""

    def __init__(
        self,
        wearable: str,
        scorer: Scorer | None,
        keep: list[Heard] | None = None,
        *,
        sealed: bool = True,
        feels_skin: bool = True,
    ) -> None:
        """Begin.

        Args:
            wearable: its id.
            scorer: None while no model may run.
            keep: takes what is heard as well, where a second model judges this wearable.
            sealed: it has a key, and nothing counts that is not sealed with it.
            feels_skin: it tells whether it is worn; else that is judged by how still it lies.
        """
        self.wearable = wearable
        self.sealed = sealed
        self.judge = None if scorer is None else Judge(wearable, scorer)  # None while no model may run
        self.timeline = Timeline()
        self.offset = ClockOffset()
        self.heard_s: float | None = None  # monotonic
        self.radio = Radio()
        self.battery = Battery()
        self.sensor = SensorWatch(feels_skin=feels_skin)
        self.hello: Hello | None = None
        self.status: Status | None = None
        self.worn = True
        self.charging = False
        self.range_g = 0
        self.rate_hz = 0.0
        self._silent = True  # what was being weighed has been settled
        self._keep = keep
        self._button_s: float | None = None  # since when the button is held, whatever was acknowledged
        self.flooded = 0  # batches and packets of samples thrown away, as there were too many
        self._flooded_s: float | None = None
        self._ahead_s = 0.0  # how much more of its stream came lately than may
        self._ahead_at_s = 0.0
        self._marked_s: float | None = None  # when it had last been heard, as of the last look
        self._forged = self._malformed = 0  # by then

    def on_samples(self, samples: Samples, received_s: float, rssi_dbm: int | None = None) -> list[Finding]:
        """Take a batch; findings come at once only where a hole ends what was being weighed."""
        self.heard_s = received_s  # samples alone protect: a hello is no sign of it
        if self.floods(received_s):
            return []
        self._ahead_s += max(samples.n / max(samples.rate_hz, LEAST_RATE_HZ), LEAST_BATCH_S)
        counts = np.frombuffer(samples.xyz, "<i2").reshape(-1, 3)
        self.sensor.observe(
            counts,
            range_g=samples.range_g,
            rate_hz=samples.rate_hz,
            boot=samples.boot,
            first=samples.first,
            tick=samples.tick,
            received_s=received_s,
        )
        self._on_flags(samples.flags, received_s)
        accel_g = counts.astype(np.float32) * np.float32(samples.range_g / FULL_SCALE)
        self.worn, self.charging = samples.worn, samples.charging
        self.range_g, self.rate_hz = samples.range_g, samples.rate_hz
        batch = Batch(samples.boot, samples.tick, samples.first, samples.rate_hz, accel_g)
        self._silent = False
        findings = [f for chunk in self.timeline.push(batch) for f in self._on_chunk(chunk)]
        counted = self.timeline.counts
        self.radio.observe(rssi_dbm, samples=counted.samples, lost=counted.lost, now_s=received_s)
        self.radio.follow(rssi_dbm, boot=samples.boot, first=samples.first, n=samples.n, now_s=received_s)
        if self.timeline.last_s is not None:
            self.offset.observe(self.timeline.last_s, received_s)
        return findings

    def floods(self, received_s: float) -> bool:
        """Tell whether samples that come now are too many; so one wearable gone mad keeps no other waiting.

        Only authentic samples count: a forger could silence its victim otherwise.
        """
        self._ahead_s = max(self._ahead_s - max(received_s - self._ahead_at_s, 0.0) * MOST_PACE, 0.0)
        self._ahead_at_s = received_s
        if self._ahead_s < MOST_AT_ONCE_S:
            return False
        self.flooded += 1
        self._flooded_s = self.heard_s = received_s
        return True

    def _flooded_lately(self, now_s: float) -> bool:
        return self._flooded_s is not None and now_s - self._flooded_s < FLOOD_HOLD_S

    def on_status(self, status: Status, received_s: float) -> None:
        """Take what it says of itself."""
        self.status = status
        self.worn, self.charging = status.worn, status.charging
        self._on_flags(status.flags, received_s)
        self.battery.observe(status.battery_pct, charging=status.charging, now_s=received_s)

    def _on_flags(self, flags: int, received_s: float) -> None:
        if not flags & BUTTON_HELD:
            self._button_s = None
        elif self._button_s is None:
            self._button_s = received_s

    def on_silence(self) -> list[Finding]:
        """Settle what was being weighed when the wearable fell silent; once each time."""
        if self._silent:
            return []
        self._silent = True
        findings = [f for chunk in self.timeline.flush() for f in self._on_chunk(chunk)]
        if self._keep is not None:
            self._keep.append(Heard(self.wearable, None, worn=False))
        return findings + ([] if self.judge is None else self.judge.on_silence())

    def sight(self, session: GatewaySession | None, *, bad: int, now_s: float) -> Sight:
        """Return what is known of it now; ``bad`` counts what came from it alone and was nothing in its format."""
        counted = self.timeline.counts
        forged = session.counts.forged if session else 0
        malformed = bad + (session.counts.malformed if session else 0)
        if self._marked_s != self.heard_s:
            self._marked_s, self._forged, self._malformed = self.heard_s, forged, malformed
        return Sight(
            has_key=session is not None or not self.sealed,
            has_model=self.judge is not None,
            proved=not self.sealed or (session is not None and session.proved),
            heard_s=self.heard_s,
            battery_pct=self.battery.pct,
            charging=self.charging,
            worn=self.worn,
            fading=self.radio.was_fading(samples=counted.samples, lost=counted.lost),
            other_key=forged - self._forged >= UNUSABLE_LEAST,
            flooding=self._flooded_lately(now_s),
            garbled=malformed - self._malformed >= UNUSABLE_LEAST,
            sensor=self.sensor.cause(),
            battery_low=self.battery.low,
            button_stuck=self._button_s is not None and now_s - self._button_s >= BUTTON_STUCK_S,
            weak=self.heard_s is not None
            and now_s - self.heard_s < WEAK_WITHIN_S
            and self.radio.is_weak(samples=counted.samples, lost=counted.lost),
            # Bought devices say none, which is told as 0.0.0.
            old=self.hello is not None and (0, 0, 0) < self.hello.firmware < OLDEST_FIRMWARE,
        )

    def words(self, now_s: float) -> dict[str, Any]:
        """Return what is told of its radio and battery; ``trail`` as `Radio.trail` has it, to 0.01 s."""
        counts, hours = self.timeline.counts, self.battery.hours_left()
        return {
            "heard_s_ago": None if self.heard_s is None else round(now_s - self.heard_s, 1),
            "rssi_dbm": self.radio.rssi_dbm,
            "battery_pct": self.battery.pct,
            "battery_hours": None if hours is None else round(hours, 1),
            "firmware": ".".join(map(str, self.hello.firmware)) if self.hello else None,
            "rate_hz": self.rate_hz,
            "range_g": self.range_g,
            "samples": counts.samples,
            "lost": counts.lost,
            "duplicates": counts.duplicates,
            "flooded": self.flooded,
            "trail": [(round(at_s, 2), *rest) for at_s, *rest in self.radio.trail(now_s=now_s)],
        }

    @property
    def backlog_s(self) -> float:
        """How much of its stream waits to be scored."""
        return 0.0 if self.judge is None else self.judge.backlog_s

    def _on_chunk(self, chunk: Chunk) -> list[Finding]:
        worn = self.worn and not self.charging
        if self._keep is not None:
            self._keep.append(Heard(self.wearable, chunk, worn))
        if self.judge is None:
            return []
        # At such a rate one packet is minutes of stream, and all others would wait; a flood is left in shreds.
        if self.rate_hz < LEAST_RATE_HZ or self._flooded_lately(self.heard_s or 0.0):
            return self.judge.on_hole()
        return self.judge.on_chunk(chunk, worn=worn)
