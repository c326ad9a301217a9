"""One model on one wearable's stream, and the windows of many scored together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge.core.detector import Detector, Finding
from edge.core.replay import settle
from edge.core.timeline import Chunk
from models.preprocess import Accel, CausalResampler
from models.scorer import Scorer


class Judge:
    """Resampler and detector of one model for one wearable, and how long it has judged it."""

    def __init__(self, wearable: str, scorer: Scorer) -> None:
        self.wearable = wearable
        self.scorer = scorer
        self.worn_s = 0.0  # stream time judged while the wearable was worn
        self._resampler = CausalResampler(scorer.card.rate_hz)
        self._detector = Detector(scorer.card)

    def on_chunk(self, chunk: Chunk, *, worn: bool) -> list[Finding]:
        """Take samples; findings come at once only where a hole ends what was being weighed."""
        findings = self.on_hole() if chunk.restart else []
        start, samples = self._resampler.push(chunk.t_s, chunk.accel_g)
        self._detector.push(start, samples)
        if worn:
            self.worn_s += len(samples) / self.scorer.card.rate_hz
        return findings

    def on_hole(self) -> list[Finding]:
        """Take note that what comes next does not follow what came."""
        findings = settle(self._detector, self.scorer, lasting=False)
        self._resampler.restart()
        return findings

    def on_silence(self) -> list[Finding]:
        """Settle what is being weighed: the wearable fell silent."""
        return settle(self._detector, self.scorer, lasting=True)

    def due(self) -> tuple[int, Accel] | None:
        """Return the end and the samples of the next window to score."""
        end = self._detector.due()
        return None if end is None else (end, self._detector.window(end))

    def decide(self, end: int, probability: float) -> list[Finding]:
        """Weigh the score of the window that `due` returned."""
        return self._detector.decide(end, probability)

    @property
    def backlog_s(self) -> float:
        """How much of the stream waits to be scored."""
        return self._detector.backlog_s


def score_round(judges: Iterable[Judge]) -> list[tuple[Judge, list[Finding]]]:
    """Score one window of each judge that has one due, one batch per model; return those and what they found."""
    batches: dict[int, list[tuple[Judge, int, Accel]]] = {}
    for judge in judges:
        if (due := judge.due()) is not None:
            batches.setdefault(id(judge.scorer), []).append((judge, *due))
    scored: list[tuple[Judge, list[Finding]]] = []
    for batch in batches.values():
        probabilities = batch[0][0].scorer.score(np.stack([window for _, _, window in batch])).tolist()
        for (judge, end, _), probability in zip(batch, probabilities, strict=True):
            scored.append((judge, judge.decide(end, probability)))
    return scored
