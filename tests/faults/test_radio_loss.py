"""What the radio does to falls: packets lost alone and in bursts, doubled, out of order, late.

Real falls (`FALLWATCH_DATA`) as wearables in virtual time, through the pipeline with the shipped models. They may
know these people: what is measured is the drop, not the recall.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from edge.core.detector import SILENT_S, FallDetected
from edge.detect.pipeline import Found, Pipeline
from edge.recording import Recording, Run
from edge.simulate import virtual_recording
from firmware_bridge.session import Counters, Gateway, GatewaySession, WearableCounters, WearableSession
from firmware_bridge.virtual import VirtualWearable
from firmware_bridge.wire import MAX_SAMPLES, TICK_HZ, Samples, Uplink, encode_frame
from models.card import newest
from models.scorer import Scorer
from tests.faults.counts import FULL, SEED, count, tell
from training.datasets import data_root, load, locate
from training.readers import Trial, read_umafall

pytestmark = pytest.mark.skipif(
    not os.environ.get("FALLWATCH_DATA"), reason="needs the data sets: set FALLWATCH_DATA to their folder"
)
KEY = bytes(range(16))
FEW = 40  # falls
TOGETHER = 60  # wearables of one home
BURST_S = 2.0
AFTER_S = 8.0  # the wearer lies there
READ_S = 0.1

Packet = tuple[float, bytes]  # when it is sent, or comes
Weather = Callable[[list[Packet], random.Random], Iterable[Packet]]


def alone(part: float) -> Weather:
    return lambda sent, rng: [packet for packet in sent if rng.random() >= part]


def in_bursts(part: float) -> Weather:
    """Lose ``part`` of the time, 2 s at a time."""

    def weather(sent: list[Packet], rng: random.Random) -> list[Packet]:
        mean_s = BURST_S * (1 - part) / part
        begin_s = rng.expovariate(1 / mean_s) - BURST_S * (rng.random() < part)
        kept = []
        for at_s, packet in sent:
            while at_s >= begin_s + BURST_S:
                begin_s += BURST_S + rng.expovariate(1 / mean_s)
            if at_s < begin_s:
                kept.append((at_s, packet))
        return kept

    return weather


def late(sent: list[Packet], rng: random.Random) -> list[Packet]:
    return [(at_s + rng.uniform(0, 0.1), packet) for at_s, packet in sent]


def doubled(sent: list[Packet], rng: random.Random) -> list[Packet]:
    return sent + [(at_s + rng.uniform(0, 1.0), packet) for at_s, packet in sent if rng.random() < 0.2]


def out_of_order(sent: list[Packet], rng: random.Random) -> list[Packet]:
    """Hold one packet in ten back until its successor has passed."""
    nexts = [at_s for at_s, _ in sent[1:]] + [sent[-1][0]]
    return [
        (next_s + 0.05 if rng.random() < 0.1 else at_s, packet)
        for (at_s, packet), next_s in zip(sent, nexts, strict=True)
    ]


def all_of_it(sent: list[Packet], rng: random.Random) -> Iterable[Packet]:
    return late(doubled(out_of_order(list(alone(0.05)(sent, rng)) or sent[:1], rng), rng), rng)


# name: weather, how many points of recall it may cost (None: told only)
WEATHERS: dict[str, tuple[Weather, float | None]] = {
    "5 % lost": (alone(0.05), 12.0),
    "10 % lost": (alone(0.10), None),
    "20 % lost": (alone(0.20), 25.0),
    "30 % lost": (alone(0.30), None),
    "5 % lost, each sample sent twice": (alone(0.05), 2.0),
    "20 % lost, each sample sent twice": (alone(0.20), 10.0),
    "5 % lost in bursts of 2 s": (in_bursts(0.05), None),
    "20 % lost in bursts of 2 s": (in_bursts(0.20), None),
    "20 % doubled": (doubled, 1.0),
    "10 % out of order": (out_of_order, 1.0),
    "up to 100 ms late": (late, 1.0),
    "5 % lost, doubled, out of order, late": (all_of_it, 12.0),
}


def falls_of(placement: str) -> list[Trial]:
    """Return falls on the wrist (watch, SensorTag) or the waist."""
    if not FULL:
        trials = read_umafall(locate("umafall", data_root()), lambda *_: None)
        return [*islice((t for t in trials if t.is_fall and t.placement == placement), FEW // 2)]
    sets = {"wrist": {"umafall", "smartfallmm-watch"}, "waist": {"sisfall"}}[placement]
    whole = load({name.removesuffix("-watch") for name in sets})[0]
    return [t for t in whole if t.is_fall and t.placement == placement and t.dataset in sets]


def said_by(trial: Trial, wearable: str) -> list[Packet]:
    """Return what a wearable sends that feels this fall, and then lies still."""
    cuts = [0, *(np.flatnonzero(np.diff(trial.time_s) > 1.0) + 1).tolist(), len(trial.time_s)]
    time_s = trial.time_s - trial.time_s[0]
    runs = tuple(Run(time_s[a:b], trial.accel_g[a:b]) for a, b in pairwise(cuts))
    recording = Recording(runs, float(time_s[-1]), rate_hz=trial.rate_hz, range_g=trial.range_g)
    session = WearableSession(wearable, KEY, WearableCounters(), save=lambda _: None)
    plays = VirtualWearable(session, virtual_recording(recording))
    said: list[Packet] = []
    while (at_s := plays.due_s()) < trial.duration_s + AFTER_S:
        said += [(at_s, packet) for packet in plays.speak()]
    return said


def said_twice(said: list[Packet], wearable: str) -> list[Packet]:
    """Return the same with each sample sent twice: a packet repeats as much of the one before as has room."""
    hears = GatewaySession(wearable, KEY, Counters(), reserve=lambda: True)
    session = WearableSession(wearable, KEY, WearableCounters(), save=lambda _: None)
    again: list[Packet] = []
    before: Samples | None = None
    for at_s, packet in said:
        message = hears.open(packet)
        assert message is not None
        if isinstance(message, Samples):
            now, n = message, min(MAX_SAMPLES - message.n, before.n if before else 0)
            if before is not None and before.first + before.n == now.first and n > 0:
                tick = (now.tick - round(n * TICK_HZ / now.rate_hz)) & 0xFFFF_FFFF
                message = replace(now, first=now.first - n, tick=tick, xyz=before.xyz[-6 * n :] + now.xyz)
            before = now
        again.append((at_s, session.seal(message)))
    return again


def found(homes: Sequence[Sequence[list[Packet]]], scorer: Scorer, weather: Weather, seed: int) -> list[bool]:
    """Return for each wearable whether its fall was found."""
    rng = random.Random(seed)
    told: list[bool] = []
    for home in homes:
        names = [f"{i:04d}" for i in range(len(home))]
        gateway = Gateway(lambda _: None)
        for name in names:
            gateway.add(name, KEY, Counters())
        pipeline = Pipeline(gateway, dict.fromkeys(names, scorer))
        reads: dict[int, list[Packet]] = {}
        for said in home:
            for packet in weather(said, rng):
                reads.setdefault(int(packet[0] / READ_S), []).append(packet)
        fallen = set()
        last_s = 0.0
        for read in sorted(reads):
            last_s = (read + 1) * READ_S
            frames = b"".join(encode_frame(Uplink(-60, packet)) for _, packet in sorted(reads[read]))
            news = pipeline.feed("dongle", frames, last_s) + pipeline.on_timer(last_s)
            fallen |= {n.wearable for n in news if isinstance(n, Found) and isinstance(n.finding, FallDetected)}
        news = pipeline.on_timer(last_s + SILENT_S + 0.1)
        fallen |= {n.wearable for n in news if isinstance(n, Found) and isinstance(n.finding, FallDetected)}
        told += [name in fallen for name in names]
    return told


@pytest.mark.timeout(7200 if FULL else 120)
@pytest.mark.parametrize("placement", ["wrist", "waist"])
def test_what_the_radio_loses_costs_few_falls(placement: str) -> None:
    falls, scorer = falls_of(placement), Scorer(newest(placement))
    said = [said_by(trial, f"{i % TOGETHER:04d}") for i, trial in enumerate(falls)]
    homes = [said[i : i + TOGETHER] for i in range(0, len(said), TOGETHER)]
    twice = [[said_twice(one, f"{i:04d}") for i, one in enumerate(home)] for home in homes]
    clear = found(homes, scorer, lambda sent, _: sent, 0)
    recall = 100 * sum(clear) / len(clear)
    assert recall > 70
    chosen = WEATHERS if FULL else {name: WEATHERS[name] for name in ("5 % lost", "20 % lost", [*WEATHERS][-1])}
    seeds = range(SEED, SEED + count(3, 2))
    too_many = []
    for name, (weather, most) in chosen.items():
        recalls = [
            100 * sum(found(twice if "twice" in name else homes, scorer, weather, seed)) / len(falls)
            for seed in seeds
        ]
        drop = recall - sum(recalls) / len(recalls)
        tell(
            f"{placement}, {name}",
            falls=len(falls),
            recall_without=recall,
            drop_in_points=drop,
            worst_seed=recall - min(recalls),
        )
        # Twenty falls are too few to see two points: one fall is five.
        if most is not None and drop > (most if FULL else most + 8.0):
            too_many.append(f"{name}: {drop:.1f} points")
    assert not too_many
