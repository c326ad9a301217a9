"""What depth cameras cost: real eyes, each with a made-up room and somebody who walks and falls in it."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

import cv2
import numpy as np

from edge.clock import monotonic_s
from edge.core.camera import CameraJudge
from edge.depth.frame import Depth
from edge.detect.eyes import Eye, EyeEvent, Saw
from edge.settings import CameraSettings
from models.card import newest
from models.scorer import Scorer

WIDTH, HEIGHT, FPS = 320, 240, 30.0
FOCAL = 280.0  # pixels
LOOP_S = 12.0
HUNG_M, TILT_DEG = 2.2, 25.0
WARM_S = 3.0  # starting is measured apart
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def made_up_frames() -> Iterator[Depth]:
    """Yield a loop of depth: somebody made of an ellipsoid walks, falls and lies; with noise and holes."""
    rng = np.random.default_rng(1)
    tilt = math.radians(TILT_DEG)
    x, y = (np.arange(WIDTH) - WIDTH / 2) / FOCAL, (np.arange(HEIGHT) - HEIGHT / 2) / FOCAL
    across, down = np.meshgrid(x, y)
    rays = np.stack(
        [
            across,
            -down * math.sin(tilt) + math.cos(tilt),  # away
            -down * math.cos(tilt) - math.sin(tilt),  # up
        ],
        axis=-1,
    )
    with np.errstate(divide="ignore"):  # level rays
        room = np.minimum(np.where(rays[..., 2] < 0, -HUNG_M / rays[..., 2], 9.0), 5.0 / rays[..., 1])
    for i in range(round(LOOP_S * FPS)):
        t_s = i / FPS
        fallen = min(max(t_s - 6.0, 0.0) / 0.7, 1.0)
        right, half, flat = -0.9 + 0.2 * min(t_s, 6.0), 0.8 * (1 - fallen) + 0.13, 0.2 + 0.55 * fallen
        depth = np.minimum(room, _ellipsoid(rays, (right, 3.0, half), (flat, 0.2, half)))
        depth += rng.normal(0, 0.002, depth.shape) * depth * depth
        millimetres = (depth * 1000).astype(np.uint16)
        millimetres[rng.random(depth.shape) < 0.05] = 0
        yield millimetres


def _ellipsoid(rays: Any, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Any:
    scaled = rays / radii
    origin = (np.array([0.0, 0.0, HUNG_M]) - centre) / radii
    a, b, c = (scaled**2).sum(-1), (scaled * origin).sum(-1), (origin**2).sum() - 1
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 9.0)


def run_camera_bench(cameras: int, seconds: float) -> dict[str, Any]:
    """Run so many eyes in real time and their judges in this process, and measure both.

    `cpu_ms_per_frame` is processor time of an eye by its frames, decoding the pictures included, which no real
    camera asks for; `judge_us_per_frame` is that of this process.
    """
    scorer = Scorer(newest("camera"))
    judges = {f"bench-{i}": CameraJudge(scorer) for i in range(1, cameras + 1)}
    heard: Queue[EyeEvent] = Queue()
    stop = Event()
    with tempfile.TemporaryDirectory(prefix="fallwatch-bench-") as name:
        folder = Path(name)
        for i, depth in enumerate(made_up_frames()):
            cv2.imwrite(str(folder / f"{i:06d}.png"), depth, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        lens = (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
        eyes = [
            Eye(CameraSettings(camera, "bench", "folder", name, WIDTH, HEIGHT, FPS, *lens)) for camera in judges
        ]
        threads = [Thread(target=eye.run, args=(heard.put, stop), daemon=True) for eye in eyes]
        begun_s = monotonic_s()
        for eye, thread in zip(eyes, threads, strict=True):
            eye.allow(True)
            thread.start()
        first_s = _hear(heard, judges, until_s=monotonic_s() + 30.0, first=True)[1]
        _hear(heard, judges, until_s=monotonic_s() + WARM_S)
        before = [_cpu_s(eye.pid) for eye in eyes]
        own_s = time.process_time()
        frames, _ = _hear(heard, judges, until_s=monotonic_s() + seconds)
        own_s = time.process_time() - own_s
        used_s = [_cpu_s(eye.pid) - was for eye, was in zip(eyes, before, strict=True)]
        rss_mib = [_rss_mib(eye.pid) for eye in eyes]
        stop.set()
        for thread in threads:
            thread.join(5.0)
    return {
        "cameras": cameras,
        "fps": round(frames / cameras / seconds, 1),
        "cpu_ms_per_frame": round(1000 * sum(used_s) / max(frames, 1), 2),
        "judge_us_per_frame": round(1e6 * own_s / max(frames, 1), 1),
        "rss_mib_per_camera": round(max(rss_mib), 1),
        "ready_s": round(first_s - begun_s, 2),
        "model": scorer.card.name,
        "frame": f"{WIDTH}x{HEIGHT}",
    }


def _hear(
    heard: Queue[EyeEvent], judges: dict[str, CameraJudge], *, until_s: float, first: bool = False
) -> tuple[int, float]:
    """Judge what the eyes say; return how many frames, and when the last came."""
    frames, at_s = 0, monotonic_s()
    while (left_s := until_s - monotonic_s()) > 0:
        try:
            event = heard.get(timeout=left_s)
        except Empty:
            break
        if isinstance(event, Saw):
            judges[event.camera].observe(event.seen)
            frames, at_s = frames + 1, event.received_s
            if first and event.seen.valid_part > 0:
                break
    return frames, at_s


def _cpu_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _rss_mib(pid: int | None) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
