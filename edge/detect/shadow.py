"""A model on trial: it judges what the first model judges, and alarms nobody.

It has a thread of its own, to which the service hands what was heard once the first model's findings
are on disk. So one that is slow, broken or refused costs the first nothing but its share of the processor.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.core.detector import FallDetected, Finding
from edge.detect.judge import Judge, score_round
from edge.detect.wearer import Heard
from models.card import BundleRefused
from models.scorer import Scorer

log = logging.getLogger(__name__)

QUEUE_READS = 1000  # waiting reads; a model that lets so many wait cannot keep up
STOP_S = 2.0


class Shadow:
    """The judges of one model on trial; how it is handed the samples leaves the findings unchanged."""

    def __init__(self, scorer: Scorer, wearables: Iterable[str]) -> None:
        self.judges = {wearable: Judge(wearable, scorer) for wearable in wearables}

    def take(self, heard: Iterable[Heard]) -> list[tuple[str, FallDetected]]:
        """Judge what was heard of these wearables; return wearable and fall of each alarm it would raise."""
        found: list[tuple[str, FallDetected]] = []
        judges: list[Judge] = []
        for item in heard:
            if (judge := self.judges.get(item.wearable)) is not None:
                findings = judge.on_silence() if item.chunk is None else judge.on_chunk(item.chunk, worn=item.worn)
                found += _falls(judge, findings)
                judges.append(judge)
        judges = list(dict.fromkeys(judges))
        while judges:
            scored = score_round(judges)
            for judge, findings in scored:
                found += _falls(judge, findings)
            judges = [judge for judge, _ in scored]
        return found

    def on_hole(self) -> list[tuple[str, FallDetected]]:
        """Take note that something was left out before what comes next."""
        return [fall for judge in self.judges.values() for fall in _falls(judge, judge.on_hole())]


def _falls(judge: Judge, findings: list[Finding]) -> list[tuple[str, FallDetected]]:
    return [(judge.wearable, finding) for finding in findings if isinstance(finding, FallDetected)]


@dataclass(slots=True)
class Trial:
    """One shadow bundle and its thread; every method but `run` is for the service's own thread."""

    folder: Path
    placement: str
    first: str | None  # the model that pages
    wearables: Collection[str]
    check: Callable[[Path], object] = lambda _: None  # raises where the bundle must not be loaded
    name: str = ""
    cause: str | None = "still loading"  # why it judges nothing, None while it does
    skipped_reads: int = 0
    found: deque[tuple[str, FallDetected]] = field(default_factory=lambda: deque(maxlen=QUEUE_READS))
    _shadow: Shadow | None = None
    _waiting: queue.Queue[Sequence[Heard] | None] = field(default_factory=lambda: queue.Queue(QUEUE_READS))
    _hole: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.name = self.folder.name

    def start(self) -> None:
        """Load the bundle and judge, in a thread of its own."""
        self._thread = threading.Thread(target=self.run, name=f"shadow-{self.placement}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, having judged what waits, if that is soon done."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(STOP_S)

    def offer(self, heard: Sequence[Heard]) -> None:
        """Hand over what was heard; one that cannot keep up loses all that waits, and goes on from here."""
        if self._shadow is None or self.cause is not None:
            return
        try:
            self._waiting.put_nowait(heard)
        except queue.Full:
            if not self.skipped_reads:
                log.warning("shadow model %s cannot keep up: what waits is left out", self.name)
            self.skipped_reads += 1
            with contextlib.suppress(queue.Empty):
                while True:
                    self._waiting.get_nowait()
                    self.skipped_reads += 1
            self._hole.set()  # now: what is taken next comes after it

    def worn_s(self) -> dict[str, float]:
        """Return how long it has judged each worn wearable."""
        return {w: judge.worn_s for w, judge in self._shadow.judges.items()} if self._shadow else {}

    def run(self) -> None:
        """Judge until `stop`; whatever goes wrong ends this model's trial, and nothing else."""
        try:
            self.check(self.folder)
            scorer = Scorer(self.folder)
            self._check(scorer)
            self._shadow = shadow = Shadow(scorer, self.wearables)
            self.cause = None
            log.info("shadow model %s judges %d wearables beside the first", self.name, len(self.wearables))
            while (heard := self._waiting.get()) is not None:
                if self._hole.is_set():
                    self._hole.clear()
                    self.found += shadow.on_hole()
                self.found += shadow.take(heard)
        except BundleRefused as error:
            self.cause = f"refused: {error.reason}"
            log.warning("shadow model is refused: %s", error)
        except Exception as error:
            self.cause = f"stopped: {error!r}"
            log.exception("shadow model %s has stopped; the first goes on", self.name)

    def _check(self, scorer: Scorer) -> None:
        card = scorer.card
        self.name = card.name
        if card.placement != self.placement:
            raise BundleRefused(self.folder, f"is for the {card.placement}, not the {self.placement}")
        if card.name == self.first:
            raise BundleRefused(self.folder, f"the model that pages has the same name, {card.name}")
