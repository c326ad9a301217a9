"""A made-up home in virtual time: the pipeline and the supervision of the service, in one process per group."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np

from edge.core.detector import FallDetected, Finding
from edge.core.timeline import Chunk
from edge.detect.judge import Judge
from edge.detect.pipeline import Found, News, Pipeline
from edge.detect.supervisor import Raise, Supervisor
from edge.home.motion import Pool
from edge.home.player import Heard, play
from edge.home.scenario import Event, Habits, Home, Truth, imagine_home
from edge.home.score import BLIND, HOME, WARNING, Alarm, Name, Page, Told
from edge.settings import DongleSettings, HomeSettings, ResidentSettings, Settings
from firmware_bridge.session import Counters, Gateway, WearableCounters, WearableSession
from firmware_bridge.wire import Status
from models.card import newest
from models.preprocess import Accel
from models.scorer import Scorer

PORT = "receiver"
READ_S = 0.1  # what arrives within is taken together, as by a port's reader
LOOK_S = 1.0
FORGED_PER_LOOK = 2  # packets, by who has no key

Progress = Callable[[float], None]  # seconds of virtual time done


def home_of(seed: int, residents: int, days: float, habits: Habits | None = None) -> Home:
    """Return the home of a seed."""
    return imagine_home(np.random.default_rng([seed, 0]), residents=residents, days=days, habits=habits)


def watch_home(
    home: Home, pool: Pool, seed: int, *, with_model: bool, jobs: int = 1, on_progress: Progress | None = None
) -> Told:
    """Return what the system tells of a home; the same for any number of jobs but for what batches round."""
    groups = [list(range(i, len(home.lives), jobs)) for i in range(min(jobs, len(home.lives)))]
    if len(groups) == 1:
        return watch_lives(home, pool, seed, groups[0], with_model=with_model, on_progress=on_progress)
    told = Told()
    with ProcessPoolExecutor(len(groups), get_context("spawn"), _begin, (home, pool)) as workers:
        tasks = {workers.submit(_watch_group, seed, g, with_model): g for g in groups}
        results = {}
        for task in as_completed(tasks):
            results[tasks[task][0]] = task.result()
            if on_progress is not None:
                on_progress(home.end_s * len(results) / len(groups))
    told.names = [n for n in results[0].names if not n.wearable]
    told.pages = [p for p in results[0].pages if not p.wearable]
    for first in sorted(results):
        told.add(results[first])
    return told


_SHARED: list[tuple[Home, Pool]] = []  # in a worker process


def _begin(home: Home, pool: Pool) -> None:
    _SHARED.append((home, pool))


def _watch_group(seed: int, lives: Sequence[int], with_model: bool) -> Told:
    home, pool = _SHARED[0]
    return watch_lives(home, pool, seed, lives, with_model=with_model)


def watch_lives(
    home: Home,
    pool: Pool,
    seed: int,
    lives: Sequence[int],
    *,
    with_model: bool,
    on_progress: Progress | None = None,
) -> Told:
    """Play the named lives into one pipeline, look once a second, and return what was told."""
    begun_s = time.process_time()
    watcher = _Watcher(home, lives, with_model=with_model)
    waiting: list[Heard] = []
    read_s, look_s = READ_S, LOOK_S
    for heard in play(home, pool, np.random.default_rng([seed, 1]), lives):
        if heard[0] >= read_s:
            watcher.take(waiting, read_s)
            waiting = []
            read_s = heard[0] // READ_S * READ_S + READ_S
            while look_s <= heard[0]:
                watcher.look(look_s)
                if on_progress is not None and look_s % 600 == 0:
                    on_progress(look_s)
                look_s += LOOK_S
        waiting.append(heard)
    while look_s <= home.end_s:
        watcher.look(look_s)
        look_s += LOOK_S
    told = watcher.finish(home.end_s)
    told.cpu_s = time.process_time() - begun_s
    return told


class _Unjudged(Judge):
    """In the place of a model, where only supervision is looked at."""

    def on_chunk(self, chunk: Chunk, *, worn: bool) -> list[Finding]:  # noqa: ARG002
        return []

    def on_silence(self) -> list[Finding]:
        return []

    def due(self) -> tuple[int, Accel] | None:
        return None

    @property
    def backlog_s(self) -> float:
        return 0.0


class _Watcher:
    """The service's own parts, without its ports and its journal."""

    def __init__(self, home: Home, lives: Sequence[int], *, with_model: bool) -> None:
        chosen = [home.lives[i] for i in lives]
        residents = tuple(
            ResidentSettings(id=f"r{x.wearable}", room=x.wearable, wearable=x.wearable, spare=x.spare)
            for x in chosen
        )
        settings = Settings(home=HomeSettings(id="home"), dongle=(DongleSettings(port=PORT),), resident=residents)
        worn = [w for r in residents for w in r.wearables]
        scorer = Scorer(newest("wrist"))
        gateway = Gateway(lambda _: None)
        for wearable in worn:  # keys, so that what is forged is counted; the home's own packets are not sealed
            gateway.add(wearable, bytes(16), Counters())
        self._attacker = WearableSession(worn[0], bytes(15) + b"x", WearableCounters(), save=lambda _: None)
        numb = {w for x in chosen if not x.feels_skin for w in (x.wearable, x.spare)}
        self._pipeline = Pipeline(gateway, dict.fromkeys(worn, scorer), unsealed=worn, feels_nothing=numb)
        if not with_model:
            for wearer in self._pipeline.wearers.values():
                wearer.judge = _Unjudged(wearer.wearable, scorer)
        self._supervisor = Supervisor(settings, self._pipeline)
        self._residents = {r.id: r.wearable for r in residents}
        self._events: dict[Truth, list[Event]] = {}
        for event in home.events:
            self._events.setdefault(event.truth, []).append(event)
        self._with_model = with_model
        self._now: dict[tuple[str, str], tuple[str, float]] = {}  # wearable, layer: cause, since
        self._told = Told()

    def take(self, heard: list[Heard], received_s: float) -> None:
        """Take what came in one read."""
        self._on_news(self._pipeline.on_messages([(w, m, dbm) for _, w, m, dbm in heard], received_s), received_s)

    def look(self, now_s: float) -> None:
        """Do what the service does once a second."""
        self._on_news(self._pipeline.on_timer(now_s), now_s)
        if self._is_now(Truth.FORGED, now_s):
            for _ in range(FORGED_PER_LOOK):
                self._pipeline.gateway.open(self._attacker.seal(Status(50, 3700, 30, 0, 0)))
        lost = {PORT: "unplugged"} if self._is_now(Truth.UNPLUGGED, now_s) else {}
        for told in self._supervisor.look(now_s, lost):
            layer, _, about = told.topic.partition(" ")
            if isinstance(told, Raise):
                wearable = self._residents.get(about, "")
                self._told.pages.append(Page(wearable, layer, told.cause.value, now_s, told.board_only))
            if layer == HOME:
                self._name("", about, about if isinstance(told, Raise) else None, now_s)
        for resident, wearable in self._residents.items():
            self._name(wearable, BLIND, self._supervisor.blind(resident).cause, now_s)
            self._name(wearable, WARNING, self._supervisor.warning(resident).cause, now_s)

    def finish(self, end_s: float) -> Told:
        """End what still holds, and return all that was told."""
        for wearable, layer in list(self._now):
            self._name(wearable, layer, None, end_s)
        if self._with_model:
            judges = [wearer.judge for wearer in self._pipeline.wearers.values()]
            self._told.judged_s = sum(judge.worn_s for judge in judges if judge is not None)
        return self._told

    def _name(self, wearable: str, layer: str, cause: str | None, now_s: float) -> None:
        known = self._now.get((wearable, layer))
        if known is not None and known[0] == cause:
            return
        if known is not None:
            del self._now[wearable, layer]
            kind = layer if wearable else HOME
            self._told.names.append(Name(wearable, kind, str(known[0]), known[1], now_s))
        if cause is not None:
            self._now[wearable, layer] = (cause, now_s)

    def _on_news(self, all_news: list[News], now_s: float) -> None:
        for news in all_news:
            if isinstance(news, Found) and isinstance(news.finding, FallDetected):
                wearable = news.wearable.partition("-")[0]
                self._told.alarms.append(Alarm(wearable, news.impact_at_s, now_s))

    def _is_now(self, truth: Truth, now_s: float) -> bool:
        return any(e.begin_s <= now_s < e.end_s for e in self._events.get(truth, ()))
