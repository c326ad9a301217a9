"""Clips through the daemon's observer: what it saw of each, kept so that training need not look again."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.core.camera import CameraJudge
from edge.core.detector import FallDetected
from edge.core.seen import FEATURES, Person, Seen
from edge.depth.frame import Calibration, Frame, Intrinsics, Plane, Zone
from edge.depth.observer import Observer
from edge.depth.view import looks_down
from models.card import Card
from models.scorer import Scorer
from training.depth.sensor import KINDS, degrade
from training.evaluate import Collector, Tape, suspect_for

OBSERVED = 4  # counts changes of what is kept
WEAKER = 1.0  # log odds: how much less a suspicion asks for, five seconds on the floor from an alarm
FRAMES_LEARNT = 60  # of a clip whose empty room is not shown, as `fallwatch replay` learns it

Windows = NDArray[np.float32]  # shape (n, window_samples, features)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the observer saw of one clip, beside what was true; arrays have one entry per frame."""

    name: str
    meta: dict[str, Any]
    seen: list[Seen]
    head_m: NDArray[np.float32]
    pelvis_m: NDArray[np.float32]
    on_floor: NDArray[np.bool_]
    people: NDArray[np.int32]

    @property
    def fall_s(self) -> float | None:
        """When the person comes to lie on the floor, None in a daily clip."""
        fall_s = self.meta["fall_s"]
        return None if self.meta["label"] != "fall" else float(fall_s)

    @property
    def shows_fall(self) -> bool:
        """Whether the way down is in it, and a second of what came of it: some recordings were cut shorter."""
        return self.fall_s is not None and self.fall_s >= 0.5 and self.duration_s - self.fall_s >= 1.0

    @property
    def duration_s(self) -> float:
        """Of the clip."""
        return self.seen[-1].time_s if self.seen else 0.0


def calibration_of(meta: dict[str, Any], fps: float = 15.0) -> Calibration:
    """Return the camera of a clip as an installer would have set it up."""
    floor = Plane(*meta["floor"])
    # To a camera that looks straight down, z says nothing of place: see `zone_corners`.
    down = looks_down(floor)
    zones = tuple(
        Zone(zone["kind"], tuple((x, -y) if down else (x, z) for x, y, z in corners), zone["height_m"])
        for zone, corners in zip(meta["zones"], meta["beds_m"], strict=True)
    )
    return Calibration(Intrinsics(**meta["intrinsics"]), fps, floor, zones)


def observe(path: Path, variant: int = 0) -> Observed:
    """Run one clip with a sensor's faults through the observer; every other time its empty room is not shown."""
    with np.load(path) as clip:
        meta = json.loads(str(clip["meta"]))
        rng = np.random.default_rng([variant, zlib.crc32(path.stem.encode())])
        kind = KINDS[int(rng.integers(len(KINDS)))]
        shown = rng.random() < 0.5
        depth_mm = degrade(clip["depth_mm"], rng, kind)
        background_mm = degrade(clip["background_mm"][None], rng, kind)[0]
        time_s = clip["time_s"]
        truth = {name: clip[name] for name in ("head_m", "pelvis_m", "on_floor", "people")}
    calibration = calibration_of(meta)
    if not rng.integers(3):  # somebody did not draw the bed, or the floor is to be found
        calibration = replace(calibration, floor=None)
    observer = Observer(calibration, background=background_mm if shown else None)
    if not shown:
        observer.learn(list(depth_mm[np.linspace(0, len(depth_mm) - 1, FRAMES_LEARNT).astype(int)]))
    seen = [observer.on_frame(Frame(d, float(t))) for d, t in zip(depth_mm, time_s, strict=True)]
    return Observed(path.stem, meta | {"sensor": kind, "room_shown": bool(shown)}, seen, **truth)


def _observe_kept(path: Path, variant: int, keep: Path) -> Observed | None:
    kept = keep / f"{path.stem}-{variant}-{OBSERVED}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())  # type: ignore[no-any-return]  # noqa: S301 - written below
    cv2.setNumThreads(1)
    try:
        observed = observe(path, variant)
    except (OSError, ValueError, KeyError, zlib.error):  # one that is just being written
        return None
    kept.write_bytes(pickle.dumps(observed))
    return observed


def observe_all(clips: Iterable[Path], keep: Path, *, variants: int = 1, jobs: int = 2) -> list[Observed]:
    """Run clips through the observer, each with some sensors; what was seen is kept in a folder."""
    keep.mkdir(parents=True, exist_ok=True)
    todo = [(path, variant) for path in sorted(clips) for variant in range(variants)]
    with ProcessPoolExecutor(jobs) as pool:
        done = pool.map(_observe_kept, *zip(*todo, strict=True), [keep] * len(todo), chunksize=4)
        found = list(tqdm(done, total=len(todo), desc="observe", disable=None))
    return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True)
class Lessons:
    """Windows as the daemon's judge takes them, in its order."""

    windows: Windows
    end_s: NDArray[np.float64]
    is_fall: NDArray[np.bool_]
    weight: NDArray[np.float32]


AFTER_S = (0.3, 4.0)  # a window shows a fall from so long after the impact until so long
BEFORE_S = 0.7  # nobody can tell what a window shows whose end is so near the impact


def lessons(one: Observed, card: Card) -> Lessons:
    """Return what one clip teaches."""
    collector = Collector(card)
    judge = CameraJudge(collector)
    ends, falls, weights = [], [], []
    for i, seen in enumerate(one.seen):
        before = len(collector.windows)
        judge.observe(seen)
        for window in [w for batch in collector.windows[before:] for w in batch]:
            person = min(seen.people, key=lambda p: float(np.abs(np.asarray(p.features) - window[-1]).sum()))
            ends.append(seen.time_s)
            is_fall, weight = _label(one, i, person)
            falls.append(is_fall)
            weights.append(weight)
    windows = np.concatenate(collector.windows) if ends else np.empty((0, card.window_samples, len(FEATURES)))
    return Lessons(
        windows.astype(np.float32), np.array(ends), np.array(falls, bool), np.array(weights, np.float32)
    )


def _label(one: Observed, i: int, person: Person) -> tuple[bool, float]:
    """Tell whether a person's window ends after a fall, and how much that is worth teaching."""
    if one.fall_s is None:
        return False, 1.0
    seen = one.seen[i]
    main = min(seen.people, key=lambda p: abs(p.head_m - float(one.head_m[i])))
    if main is not person:
        return False, 1.0
    since_s = seen.time_s - one.fall_s
    low = bool(one.pelvis_m[i] < 0.45)
    if AFTER_S[0] <= since_s <= AFTER_S[1] and low:
        return True, 1.0
    return False, 1.0 if since_s < -BEFORE_S or (not low and since_s > AFTER_S[0]) else 0.0


def alarms(one: Observed, card: Card, said: Sequence[float] | None) -> list[FallDetected]:
    """Return the alarms that the daemon's judge raises with these scores; without them by its timer alone."""
    judge = CameraJudge(None if said is None else Tape(card, said))
    found = [f for seen in one.seen for f in judge.observe(seen)] + judge.on_silence()
    return [f for f in found if isinstance(f, FallDetected)]


def with_threshold(card: Card, threshold: float) -> Card:
    """Return the card with another threshold, and the weaker one that goes with it."""
    suspect = suspect_for(threshold, weaker=WEAKER)
    decision = replace(card.decision, threshold=threshold, suspect_threshold=suspect)
    return replace(card, decision=decision)


__all__ = ["Observed", "Scorer", "alarms", "lessons", "observe", "observe_all", "with_threshold"]
