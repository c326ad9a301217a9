"""A recording through the daemon's own resampler, windows, network and decision, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable

from edge.core.detector import SILENT_S, Detector, Finding, Suspected
from models.preprocess import BRIDGE_S, Accel, CausalResampler, Times
from models.scorer import Scorer


def replay(runs: Iterable[tuple[Times, Accel]], scorer: Scorer) -> list[Finding]:
    """Return what the detector finds in the runs of one recording.

    Args:
        runs: times, shape (n,), float64, seconds, rising over all runs, and samples, shape (n, 3),
            float32, g. A hole of up to `BRIDGE_S` between runs is bridged; one above `SILENT_S` is silence.
    """
    card = scorer.card
    resampler, detector = CausalResampler(card.rate_hz), Detector(card)
    findings: list[Finding] = []
    last_s: float | None = None
    for t_s, accel_g in runs:
        if last_s is not None and t_s[0] - last_s > BRIDGE_S:
            findings += settle(detector, scorer, lasting=bool(t_s[0] - last_s > SILENT_S))
            resampler.restart()
        last_s = float(t_s[-1])
        start, samples = resampler.push(t_s, accel_g)
        detector.push(start, samples)
        findings += _score_due(detector, scorer)
    return findings + settle(detector, scorer, lasting=True)


def settle(detector: Detector, scorer: Scorer, *, lasting: bool) -> list[Finding]:
    """Score all that is left, also the part of a hop at the end, and raise what is still being weighed."""
    findings = _score_due(detector, scorer)
    end = detector.last()
    if end is not None:
        findings += _score_one(detector, scorer, end)
    raised = detector.on_silence(lasting=lasting)
    if raised:  # what is raised anyway need not be told as a suspicion first
        findings = [f for f in findings if not isinstance(f, Suspected)]
    return findings + raised


def _score_due(detector: Detector, scorer: Scorer) -> list[Finding]:
    findings: list[Finding] = []
    while (end := detector.due()) is not None:
        findings += _score_one(detector, scorer, end)
    return findings


def _score_one(detector: Detector, scorer: Scorer, end: int) -> list[Finding]:
    (probability,) = scorer.score(detector.window(end)[None])
    return detector.decide(end, float(probability))
