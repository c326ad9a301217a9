"""How fast and how large the real path is: bytes from a dongle to decisions, on one core."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.detect.pipeline import BROKER, Pipeline
from edge.detect.shadow import Shadow
from firmware_bridge.devices import polar, witmotion
from firmware_bridge.devices.broker import BrokerDecoder, wearable_topics
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.virtual import Recording, Run, VirtualDongle, VirtualWearable
from models.card import newest
from models.scorer import Scorer

RATE_HZ = 50.0
RANGE_G = 8
READ_S = 0.02  # a serial port's reader gathers for so long
PORT = "bench"
HOME = "bench"
DEVICES = {"polar": polar.Polar, "witmotion": witmotion.WitMotionSerial, "witmotion-ble": witmotion.WitMotionBle}
BATCHES = {"polar": 36, "witmotion": 1, "witmotion-ble": 1, "mqtt": 25}  # samples in what is handed over at once
KINDS = ("fallwatch", *BATCHES)


def run_bench(
    wearables: int, seconds: float, *, quiet: bool, shadow: Path | None = None, kind: str = "fallwatch"
) -> dict[str, Any]:
    """Play ``wearables`` for ``seconds`` of stream time as fast as one core goes, and measure.

    ``kind`` is one of `KINDS`: our own sealed wearables by a dongle, or one of those with a format of its own.

    The wearables' own side (motion, sealing, framing) is made beforehand and not measured. A bundle in ``shadow``
    judges after each decision: its work is in the CPU time, not in the decision's, as it has a thread of its own.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scorer = Scorer(newest("wrist"))
    ids = [f"{i:04d}" for i in range(1, wearables + 1)]
    keys = {name: os.urandom(16) for name in ids}
    gateway = Gateway(lambda _: None)
    for name in ids if kind == "fallwatch" else ():
        gateway.add(name, keys[name], Counters())
    trial = None if shadow is None else Shadow(Scorer(shadow), ids)
    bought = kind != "fallwatch"
    pipeline = Pipeline(
        gateway,
        dict.fromkeys(ids, scorer),
        devices={name: (name, DEVICES[kind]()) for name in ids} if kind in DEVICES else None,
        broker=BrokerDecoder(HOME, ids) if kind == "mqtt" else None,
        unsealed=ids if bought else (),
        feels_nothing=ids if bought else (),
        shadowed=() if trial is None else ids,
    )
    ready_s = _since_start_s()
    reads = _bought_reads(kind, ids, seconds) if bought else _reads(ids, keys, seconds, quiet=quiet)
    gc.collect()
    gc.freeze()
    decisions_ms: list[float] = []
    cpu_0, wall_0 = time.process_time(), time.perf_counter()
    for at_s, port, channel, data in reads:
        scored, begun = pipeline.windows, time.perf_counter()
        pipeline.feed(port, data, at_s, channel=channel)
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
        "kind": kind,
        "cpu_us_per_wearable_second": round(cpu_s * 1e6 / (wearables * seconds), 1),
        "realtime_factor": round(seconds / wall_s, 1),
        "decision_ms": {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(max(decisions_ms), 3)},
        "rss_mib": _rss_mib(),
        "ready_s": round(ready_s, 3),
        "model": scorer.card.name,
        "windows": pipeline.windows,
    }


Read = tuple[float, str, str, bytes]  # when, by which link and channel of it, octets


def _bought_reads(kind: str, ids: list[str], seconds: float) -> list[Read]:
    """Return what links to wearables with a format of their own would hand over, in order of time."""
    rng = np.random.default_rng(1)
    reads: list[Read] = []
    for name in ids:
        begun_s = float(rng.uniform(0, 0.5))
        counts = np.frombuffer(_motion(rng, seconds).counts(0, round(seconds * RATE_HZ)), "<i2").reshape(-1, 3)
        for start in range(0, len(counts), batch := BATCHES[kind]):
            xyz = [(x, y, z) for x, y, z in counts[start : start + batch].tolist()]
            at_s = (start + len(xyz)) / RATE_HZ
            match kind:
                case "polar":
                    mg = [(x * 8 // 33, y * 8 // 33, z * 8 // 33) for x, y, z in xyz]
                    read = (name, polar.DATA, polar.encode_acc(round(at_s * 1e9), mg))
                case "witmotion":
                    read = (name, "", witmotion.encode_serial(xyz[0]))
                case "witmotion-ble":
                    read = (name, witmotion.DATA, witmotion.encode_ble(xyz[0]))
                case _:
                    said: dict[str, Any] = {"rate_hz": RATE_HZ, "range_g": RANGE_G, "time_s": start / RATE_HZ}
                    said["xyz_g"] = [[round(value * RANGE_G / 32768, 4) for value in one] for one in xyz]
                    read = (BROKER, wearable_topics(HOME, name)[1], json.dumps(said).encode())
            reads.append((begun_s + at_s, *read))
    return sorted(reads)


def _reads(ids: list[str], keys: dict[str, bytes], seconds: float, *, quiet: bool) -> list[Read]:
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
    return [(float(at_s), PORT, "", data) for at_s in shown if (data := dongle.frames_until(float(at_s)))]


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
