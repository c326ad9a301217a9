"""Put a bundle in place of the one that runs, if it is sound and no worse.

Sound, or it is refused whatever else is true: card, hash and golden vectors pass the daemon's own checks; the card
has the difference from torch, the hash of every training set, results on unseen people from at least 5 seeds, and
the control that sees only rate, length and clipping.

No worse than the newest bundle of its placement that loads, on every set that one was tested on, each weighed by
its trials there. Counting noise is allowed for: falls found at most 1 percentage point
lower in all and 5 by set; daily trials alarming at most 0.2 points more in all and 2 by set; false alarms per hour
at most one standard error (Poisson, of the one in place) more; the same pooled rules for sets left out whole where
both cards have them. The network takes at most 1.5 times as long. On its own: the control's AUC within 0.1 of
chance; the delay's 95th percentile at most 30 s (a later alarm counts as a miss, so this one guards the counting).
A missing figure in the card of the one in place is not judged. A reason given by ``--force-reason`` overrules
these comparisons, never the soundness, and is kept in the card.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models import bundle as shelf
from models import card as cards
from models.card import BundleRefused
from models.scorer import Scorer
from training import bundle

SEEDS = 5
FOUND_LOWER, FOUND_LOWER_BY_SET = 0.01, 0.05
ALARMING_HIGHER, ALARMING_HIGHER_BY_SET = 0.002, 0.02
CONTROL_FROM_CHANCE = 0.1
DELAY_P95_S = 30.0
SLOWER = 1.5  # a committee may follow a single network
TIMED_BATCH = 32

Kinds = dict[str, dict[str, Any]]  # ``trials`` and ``streams``, each the facts of a tally
BySet = dict[str, Kinds]


@dataclass(frozen=True, slots=True)
class Gate:
    """One comparison; ``passed`` is None where there is nothing to compare with."""

    name: str
    candidate: str
    in_place: str
    passed: bool | None
    by: str = ""  # how far it is beyond what is allowed


def unsound(scorer: Scorer) -> list[str]:
    """Return what a bundle's card lacks before it may be compared at all."""
    facts = scorer.card.facts
    results, sets = facts.get("results", {}), facts.get("training", {}).get("sets", [])
    wrong = []
    if not 0 <= facts.get("parity_to_torch", -1.0) <= bundle.PARITY:
        wrong.append(f"parity_to_torch is {facts.get('parity_to_torch')}, not up to {bundle.PARITY}")
    if not sets or not all(len(s.get("sha256", "")) == 64 for s in sets):
        wrong.append("training.sets has no data hash for every set")
    if not any(kinds.get("trials", {}).get("falls") for kinds in results.get("by_set", {}).values()):
        wrong.append("results.by_set has no falls of unseen people")
    if results.get("seeds", 0) < SEEDS:
        wrong.append(f"results.seeds is {results.get('seeds')}, not {SEEDS} or more")
    if "control_auc" not in results:
        wrong.append("results.control_auc is missing")
    return wrong


def gates(candidate: dict[str, Any], in_place: dict[str, Any]) -> list[Gate]:
    """Compare two cards' ``results``; an empty ``in_place`` leaves what a bundle must reach on its own."""
    ours, theirs = candidate.get("by_set", {}), in_place.get("by_set", {})
    found = [
        _share("falls found", ours, theirs, "detected", "falls", sign=-1, allowed=FOUND_LOWER),
        _share(
            "daily trials alarming", ours, theirs, "daily_trials_alarming", "daily_trials", allowed=ALARMING_HIGHER
        ),
        _per_hour(ours, theirs),
    ]
    if theirs:
        untested = [name for name in sorted(theirs) if _untested(ours.get(name, {}), theirs[name])]
        found.append(
            Gate("sets", str(len(ours)), str(len(theirs)), not untested, f"not tested on {', '.join(untested)}")
        )
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = {name: ours[name]}, {name: theirs[name]}
        pair = (
            _share(f"{name}: falls found", one, other, "detected", "falls", sign=-1, allowed=FOUND_LOWER_BY_SET),
            _share(
                f"{name}: daily trials alarming",
                one,
                other,
                "daily_trials_alarming",
                "daily_trials",
                allowed=ALARMING_HIGHER_BY_SET,
            ),
        )
        found += [gate for gate in pair if gate.passed is not None]  # a set of daily life alone has no falls
    ours, theirs = candidate.get("left_out", {}), in_place.get("left_out", {})
    found += [
        _share("set left out: falls found", ours, theirs, "detected", "falls", sign=-1, allowed=FOUND_LOWER),
        _share(
            "set left out: daily trials alarming",
            ours,
            theirs,
            "daily_trials_alarming",
            "daily_trials",
            allowed=ALARMING_HIGHER,
        ),
    ]
    return found + _alone(candidate)


def _alone(results: dict[str, Any]) -> list[Gate]:
    """Return the gates that need no other bundle."""
    off = abs(results.get("control_auc", 1.0) - 0.5) - CONTROL_FROM_CHANCE
    delays = [
        kind["delay_s"]["p95"]
        for kinds in results.get("by_set", {}).values()
        for kind in kinds.values()
        if kind["delay_s"]["p95"] is not None
    ]
    slowest_s = max(delays, default=0.0)
    return [
        Gate(
            "control AUC at chance",
            str(results.get("control_auc")),
            f"0.5 ± {CONTROL_FROM_CHANCE}",
            off <= 1e-9,
            f"{off:.2f} too far from 0.5",
        ),
        Gate(
            "delay p95, slowest set",
            f"{slowest_s:.1f} s",
            f"≤ {DELAY_P95_S:.0f} s",
            slowest_s <= DELAY_P95_S,
            f"{slowest_s - DELAY_P95_S:.1f} s too late",
        ),
    ]


def _untested(ours: Kinds, theirs: Kinds) -> bool:
    """Whether a set's falls or daily trials were counted there and not here."""
    return any(theirs["trials"][of] and not ours.get("trials", {}).get(of) for of in ("falls", "daily_trials"))


def _common(ours: BySet, theirs: BySet, kind: str, count: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the facts of the sets in which both counted something."""
    pairs = [(ours[n].get(kind, {}), theirs[n].get(kind, {})) for n in sorted(ours.keys() & theirs.keys())]
    return [(one, other) for one, other in pairs if one.get(count) and other.get(count)]


def _share(name: str, ours: BySet, theirs: BySet, part: str, of: str, *, allowed: float, sign: int = 1) -> Gate:
    """Compare a share of trials; ``sign`` -1 where less is worse."""
    pairs = _common(ours, theirs, "trials", of)
    if not pairs:
        return Gate(name, "", "", None)
    weight = sum(other[of] for _, other in pairs)
    mine = sum(other[of] * one[part] / one[of] for one, other in pairs) / weight
    before = sum(other[part] for _, other in pairs) / weight
    beyond = sign * (mine - before) - allowed
    said = (
        f"{100 * abs(mine - before):.2f} points {'lower' if sign < 0 else 'higher'}, {100 * allowed:.1f} allowed"
    )
    return Gate(name, f"{100 * mine:.2f} %", f"{100 * before:.2f} %", beyond <= 1e-9, said)


def _per_hour(ours: BySet, theirs: BySet) -> Gate:
    """Compare false alarms per hour of the stitched streams."""
    name = "false alarms per hour"
    pairs = _common(ours, theirs, "streams", "daily_hours")
    if not pairs:
        return Gate(name, "", "", None)
    hours = sum(other["daily_hours"] for _, other in pairs)
    events = sum(other["false_alarms"] for _, other in pairs)
    mine = sum(other["daily_hours"] * one["false_alarms"] / one["daily_hours"] for one, other in pairs) / hours
    before, error = events / hours, max(events, 1) ** 0.5 / hours
    said = f"{mine - before:.2f} more, {error:.2f} allowed"
    return Gate(name, f"{mine:.2f}", f"{before:.2f}", mine - before <= error + 1e-9, said)


def _speed(candidate: Scorer, in_place: Scorer | None) -> Gate:
    name = f"µs a window, batch {TIMED_BATCH}"
    if in_place is None:
        (mine,) = bundle.us_per_window([candidate], TIMED_BATCH)
        return Gate(name, f"{mine:.1f}", "", None)
    mine, before = bundle.us_per_window([candidate, in_place], TIMED_BATCH)
    said = f"{mine / before:.2f} times as long, {SLOWER} allowed"
    return Gate(name, f"{mine:.1f}", f"{before:.1f}", mine <= before * SLOWER, said)


def in_place_of(placement: str) -> Scorer | None:
    """Return the newest bundle of a placement that loads, as the daemon would run it, if there is one."""
    for folder in shelf.shipped(placement):
        try:
            return Scorer(folder)
        except BundleRefused:
            continue
    return None


def land(candidate: Path, name: str, promoted: dict[str, Any]) -> Path:
    """Copy a bundle to its place under a new name: wholly or not at all.

    It is made in a hidden folder that `shipped` does not see, checked there, and renamed; a kill on the way
    leaves that folder behind and nothing else.

    Raises:
        FileExistsError: there is a bundle of that name.
        BundleRefused: the copy does not pass the daemon's checks.
    """
    target = shelf.BUNDLES / name
    if target.exists():
        raise FileExistsError(target)
    making = Path(tempfile.mkdtemp(prefix=".promoting-", dir=shelf.BUNDLES))
    try:
        for file in ("model.onnx", "golden.npz"):
            shutil.copyfile(candidate / file, making / file)
        facts = cards.read_card(candidate).facts | {"name": name, "promoted": promoted}
        bundle.write_card(making, facts)
        Scorer(making)
        making.chmod(0o755)
        os.rename(making, target)  # refuses a folder that has come into being since
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return target


def _next_number(placement: str) -> int:
    return 1 + max((int(folder.name.rpartition("-")[2]) for folder in shelf.shipped(placement)), default=0)


def table(rows: Sequence[Gate], title: str) -> Table:
    """Return the gates for people."""
    shown = Table("gate", "candidate", "in place", "", title=title)
    for gate in rows:
        verdict = "not judged" if gate.passed is None else "passes" if gate.passed else f"WORSE: {gate.by}"
        shown.add_row(gate.name, gate.candidate, gate.in_place, verdict)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Check, compare, copy; 0 if it landed, 1 if it was refused, 2 for a wrong name."""
    parser = argparse.ArgumentParser(
        prog="python -m training promote",
        description=__doc__,
        epilog="example: python -m training promote trial/wrist-2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("candidate", type=Path, help="bundle folder")
    parser.add_argument("--name", default="", help="name in place, such as wrist-2 (the next number)")
    parser.add_argument("--force-reason", default="", help="land it although it compares worse; kept in the card")
    options = parser.parse_args(argv)
    say: Callable[[str], None] = Console(stderr=True, soft_wrap=True).print
    try:
        scorer = Scorer(options.candidate)
    except BundleRefused as refused:
        say(f"refused: {refused}")
        return 1
    placement = scorer.card.placement
    name = options.name or f"{placement}-{_next_number(placement)}"
    kind, _, number = name.rpartition("-")
    if kind != placement or not number.isdecimal():
        say(f"--name {name}: a {placement} bundle is called {placement}-NUMBER")
        return 2
    if int(number) < _next_number(placement):
        say(f"--name {name}: must be newer than what is in place; {placement}-{_next_number(placement)} is free")
        return 2
    if wrong := unsound(scorer):
        say(f"refused: {options.candidate}: " + "; ".join(wrong))
        return 1
    in_place = in_place_of(placement)
    before: dict[str, Any] = {} if in_place is None else in_place.card.facts.get("results", {})
    rows = [*gates(scorer.card.facts["results"], before), _speed(scorer, in_place)]
    against = "nothing in place" if in_place is None else in_place.card.name
    Console().print(table(rows, f"{options.candidate} against {against}"))
    worse = [f"{g.name}: {g.by}" for g in rows if g.passed is False]
    if worse and not options.force_reason:
        say("refused: " + "; ".join(worse))
        return 1
    promoted = {"against": None if in_place is None else against, "worse": worse, "reason": options.force_reason}
    folder = land(options.candidate, name, promoted)
    Console(soft_wrap=True).print(f"{folder} is the bundle that runs now; next: make test, then commit it")
    Console(soft_wrap=True).print(
        "for homes before the next version: fallwatch model sign, docs/model-developers.md"
    )
    return 0
