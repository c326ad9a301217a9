"""A recording through the daemon's own resampler, windows, network and decision, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge.core.detector import Detector, Finding
from models.preprocess import BRIDGE_S, Accel, CausalResampler, Times
from models.scorer import Scorer


def replay(runs: Iterable[tuple[Times, Accel]], scorer: Scorer) -> list[Finding]:
    """Return what the detector finds in the runs of one recording.

    Args:
        runs: times, shape (n,), float64, seconds, rising over all runs, and samples, shape (n, 3),
            float32, g. A hole of up to `BRIDGE_S` between runs is bridged, a longer one is silence.
    """
    card = scorer.card
    resampler, detector = CausalResampler(card.rate_hz), Detector(card)
    findings: list[Finding] = []
    last_s: float | None = None
    for t_s, accel_g in runs:
        if last_s is not None and t_s[0] - last_s > BRIDGE_S:
            findings += _end(detector, scorer)
            resampler.restart()
        last_s = float(t_s[-1])
        start, samples = resampler.push(t_s, accel_g)
        findings += _score_all(detector, scorer, start, samples)
    return findings + _end(detector, scorer)


def _score_all(detector: Detector, scorer: Scorer, start: int, samples: Accel) -> Iterator[Finding]:
    detector.push(start, samples)
    while (end := detector.due()) is not None:
        yield from _score_one(detector, scorer, end)


def _end(detector: Detector, scorer: Scorer) -> list[Finding]:
    end = detector.last()
    scored = [] if end is None else _score_one(detector, scorer, end)
    return scored + detector.on_silence()


def _score_one(detector: Detector, scorer: Scorer, end: int) -> list[Finding]:
    (probability,) = scorer.score(detector.window(end)[None])
    return detector.decide(end, float(probability))
