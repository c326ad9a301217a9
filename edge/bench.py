"""How fast and how large the real path is: bytes from a dongle to decisions, on one core."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.detect.pipeline import Pipeline
from edge.detect.shadow import Shadow
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import Recording, Run, VirtualDongle, VirtualWearable
from models.card import newest
from models.scorer import Scorer

RATE_HZ = 50.0
RANGE_G = 8
READ_S = 0.02  # a serial port's reader gathers for so long
PORT = "bench"


def run_bench(wearables: int, seconds: float, *, quiet: bool, shadow: Path | None = None) -> dict[str, Any]:
    """Play ``wearables`` for ``seconds`` of stream time as fast as one core goes, and measure.

    The wearables' own side (motion, sealing, framing) is made beforehand and not measured. A bundle in ``shadow``
    judges after each decision: its work is in the CPU time, not in the decision's, as it has a thread of its own.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scorer = Scorer(newest("wrist"))
    ids = [f"{i:04d}" for i in range(1, wearables + 1)]
    keys = {name: os.urandom(16) for name in ids}
    gateway = Gateway(lambda _: None)
    for name in ids:
        gateway.add(name, keys[name], Counters())
    trial = None if shadow is None else Shadow(Scorer(shadow), ids)
    pipeline = Pipeline(gateway, dict.fromkeys(ids, scorer), shadowed=() if trial is None else ids)
    ready_s = _since_start_s()
    reads = _reads(ids, keys, seconds, quiet=quiet)
    gc.collect()
    gc.freeze()
    decisions_ms: list[float] = []
    cpu_0, wall_0 = time.process_time(), time.perf_counter()
    for at_s, data in reads:
        scored, begun = pipeline.windows, time.perf_counter()
        pipeline.feed(PORT, data, at_s)
        if pipeline.windows > scored:
            decisions_ms += [(time.perf_counter() - begun) * 1e3] * (pipeline.windows - scored)
        if trial is not None:
            trial.take(pipeline.take_heard())
    cpu_s, wall_s = time.process_time() - cpu_0, time.perf_counter() - wall_0
    lost = sum(w.timeline.counts.lost for w in pipeline.wearers.values())
    if pipeline.windows == 0 or lost:
        raise RuntimeError(f"the bench itself is wrong: {pipeline.windows} windows, {lost} samples lost")
    p50, p99 = np.percentile(decisions_ms, [50, 99])
    return {
        "wearables": wearables,
        "cpu_us_per_wearable_second": round(cpu_s * 1e6 / (wearables * seconds), 1),
        "realtime_factor": round(seconds / wall_s, 1),
        "decision_ms": {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(max(decisions_ms), 3)},
        "rss_mib": _rss_mib(),
        "ready_s": round(ready_s, 3),
        "model": scorer.card.name,
        "windows": pipeline.windows,
    }


def _reads(ids: list[str], keys: dict[str, bytes], seconds: float, *, quiet: bool) -> list[tuple[float, bytes]]:
    """Return what the port's reader would hand over, read by read."""
    from rich.progress import track  # noqa: PLC0415  # not part of what is measured

    rng = np.random.default_rng(1)
    dongle = VirtualDongle(
        [
            VirtualWearable(
                WearableSession(name, keys[name], WearableCounters(), save=lambda _: None),
                _motion(rng, seconds + 1),
                offset_s=float(rng.uniform(0, 0.5)),
            )
            for name in ids
        ]
    )
    slots = np.arange(READ_S, seconds + READ_S / 2, READ_S)
    shown = track(slots, "Preparing the wearables", disable=quiet)
    return [(float(at_s), data) for at_s in shown if (data := dongle.frames_until(float(at_s)))]


def _motion(rng: np.random.Generator, seconds: float) -> Recording:
    """Return made-up walking with a knock now and then: costs what real motion costs."""
    t_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    accel_g = rng.normal(0, 0.03, (len(t_s), 3))
    accel_g += np.outer(np.sin(2 * np.pi * 1.8 * t_s), rng.uniform(0.05, 0.4, 3))
    accel_g[:, 2] += 1.0
    accel_g[:: round(20 * RATE_HZ)] *= 3
    counts = np.clip(np.round(accel_g / RANGE_G * 32768), -32768, 32767).astype("<i2")
    return Recording([Run(0.0, counts.tobytes())], rate_hz=RATE_HZ, range_g=RANGE_G)


def _since_start_s() -> float:
    """Return how long ago this process was started."""
    started_ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
