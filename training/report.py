"""How methods compare, for people: one page with tables and figures, the same figures as JSON and PNG.

Every count comes from the daemon's own decision at thresholds that other people chose.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from rich.table import Table
from tqdm import tqdm

from edge.core.poisson import poisson_at_most
from models.card import Card
from models.preprocess import as_samples
from training.decide import Waiting
from training.evaluate import (
    HIT_S,
    Judged,
    Run,
    Scored,
    Stream,
    Tally,
    alarms,
    judge,
    tally,
    wilson,
    with_threshold,
)

SCHEMA = 1
NOTHING = "-"
SOFT_G = 3.0  # a fall that peaks below has no sharp impact
LOG_ODDS = np.linspace(7.0, -2.0, 16)  # thresholds along a curve
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")  # told apart by colour-blind people
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
Facts: TypeAlias = dict[str, Any]

SISFALL = {
    "D01": "walking slowly",
    "D02": "walking quickly",
    "D03": "jogging slowly",
    "D04": "jogging quickly",
    "D05": "stairs slowly",
    "D06": "stairs quickly",
    "D07": "sitting down and up slowly, half-high chair",
    "D08": "sitting down and up quickly, half-high chair",
    "D09": "sitting down and up slowly, low chair",
    "D10": "sitting down and up quickly, low chair",
    "D11": "trying to rise, collapsing into the chair",
    "D12": "lying down and sitting up slowly",
    "D13": "lying down and sitting up quickly",
    "D14": "turning over in bed",
    "D15": "squatting and rising",
    "D16": "bending and rising",
    "D17": "into a car and out",
    "D18": "stumbling while walking",
    "D19": "jumping gently, reaching up",
    "F01": "forward, slip while walking",
    "F02": "backward, slip while walking",
    "F03": "sideways, slip while walking",
    "F04": "forward, trip while walking",
    "F05": "forward, trip while jogging",
    "F06": "straight down, fainting while walking",
    "F07": "fainting while walking, damped with the hands on a table",
    "F08": "forward, on rising",
    "F09": "sideways, on rising",
    "F10": "forward, on sitting down",
    "F11": "backward, on sitting down",
    "F12": "sideways, on sitting down",
    "F13": "forward, fainting or asleep while sitting",
    "F14": "backward, fainting or asleep while sitting",
    "F15": "sideways, fainting or asleep while sitting",
}
SISFALL_KINDS = {
    "fainting while walking (F06, F07)": ("F06", "F07"),
    "on rising or sitting down (F08 to F12)": ("F08", "F09", "F10", "F11", "F12"),
    "fainting or asleep while sitting (F13 to F15)": ("F13", "F14", "F15"),
}


def write(
    runs: Sequence[Run],
    folder: Path,
    card: Card,
    *,
    judged: Sequence[Judged] = (),
    waiting: Sequence[Waiting] = (),
) -> Facts:
    """Write ``report.html``, ``report.json`` and the figures as PNG; return what the JSON says.

    Args:
        runs: methods over splits and seeds; the first method is the one that the page is about.
        folder: made if it is not there.
        card: its decision judges all runs, each person at the run's threshold for them.
        judged: the events of these runs, if they are counted already.
        waiting: what waiting for more windows would buy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judged = judged or judge(runs, card)
    facts: Facts = {
        "schema": SCHEMA,
        "placement": card.placement,
        "decision": asdict(card.decision),
        "methods": list(dict.fromkeys(run.method for run in runs)),
        "splits": list(dict.fromkeys(run.split for run in runs)),
        "headline": rows(judged, ("set",), lambda one: [(one.stream.dataset,)]),
        "curves": curves(runs, card),
        "by_activity": rows(judged, ("set", "activity"), _activity),
        "hard_falls": rows(judged, ("set", "kind"), kinds_of_fall),
        "by_person": rows(judged, ("set", "person"), lambda one: [(one.stream.dataset, one.stream.person)]),
        "by_age_group": rows(judged, ("age_group",), lambda one: [(one.stream.age_group,)]),
    }
    facts["waiting"] = [asdict(row) for row in waiting]
    facts["limits"] = limits(facts)
    shown = {name: (_png(figure), alt) for name, (figure, alt) in _figures(facts, judged).items()}
    for name, (png, _) in shown.items():
        (folder / f"{name}.png").write_bytes(png)
    (folder / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(_page(facts, shown), encoding="utf-8")
    return facts


# -- Counting --------------------------------------------------------------------------------------


def rows(
    judged: Iterable[Judged], names: tuple[str, ...], keys: Callable[[Scored], Iterable[tuple[str, ...]]]
) -> list[Facts]:
    """Return figures for each method, split and key; a stream may have several keys or none."""
    counts: dict[tuple[str, ...], dict[int, tuple[Tally, Tally]]] = {}
    for each in judged:
        for key in keys(each.one):
            by_seed = counts.setdefault((each.run.method, each.run.split, *key), {})
            single, streams = by_seed.setdefault(each.run.seed, (Tally(), Tally()))
            (single if each.one.single else streams).add(each.count)
    return [
        dict(zip(("method", "split", *names), key, strict=True)) | figures(by_seed)
        for key, by_seed in counts.items()
    ]


def figures(by_seed: dict[int, tuple[Tally, Tally]]) -> Facts:
    """Return means over the seeds with each seed's own count, from single trials and stitched streams.

    The seeds test the same people, so they do not add to the evidence: intervals are those of one seed's count.
    """
    single, streams = ([pair[i] for _, pair in sorted(by_seed.items())] for i in (0, 1))
    found: Facts = {"seeds": sorted(by_seed)}
    found["falls"] = _share([t.detected for t in single], single[0].falls)
    found["daily"] = _share([t.alarming for t in single], single[0].trials)
    found["falls_in_streams"] = _share([t.detected for t in streams], streams[0].falls)
    hours = float(np.mean([t.daily_s for t in streams])) / 3600
    if hours:
        false = [t.false_alarms for t in streams]
        mean = float(np.mean(false))
        found["streams"] = {
            "hours": round(hours, 3),
            "false_alarms": round(mean, 2),
            "by_seed": false,
            "per_hour": round(mean / hours, 3),
            "per_hour_at_most_95": round(poisson_at_most(math.ceil(mean)) / hours, 3),
        }
    delays_s = [d for t in streams for d in t.delays_s]
    if delays_s:
        p50, p95 = np.quantile(delays_s, (0.5, 0.95))
        found["delay_s"] = {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}
    return {name: value for name, value in found.items() if value is not None}


def _share(hits: list[int], of: int) -> Facts | None:
    if of == 0:
        return None
    mean = float(np.mean(hits))
    low, high = wilson(mean, of)
    return {
        "n": round(mean, 2),
        "of": of,
        "by_seed": hits,
        "share": round(mean / of, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def _activity(one: Scored) -> list[tuple[str, str]]:
    if not one.single:
        return []
    activity = one.stream.activities[0][1]
    return [(one.stream.dataset, f"{activity} {SISFALL[activity]}" if activity in SISFALL else activity)]


def kinds_of_fall(one: Scored) -> list[tuple[str, str]]:
    """Return the set and the kinds of a fall that matter: by its script where the set tells, and by its impact."""
    if not one.single or not one.stream.falls:
        return []
    dataset, activity = one.stream.dataset, one.stream.activities[0][1]
    kinds = [kind for kind, codes in SISFALL_KINDS.items() if activity in codes]
    kinds.append(f"peak below {SOFT_G:g} g" if peak_g(one.stream) < SOFT_G else f"peak of {SOFT_G:g} g and more")
    return [(dataset, kind) for kind in kinds]


def peak_g(stream: Stream) -> float:
    """Return the largest |a|."""
    return max(float(np.linalg.norm(accel_g, axis=1).max()) for _, accel_g in stream.runs)


def curves(runs: Sequence[Run], card: Card) -> list[Facts]:
    """Return for each run and set, from single trials, how falls found and daily trials alarming go together."""
    cards = [with_threshold(card, 1 / (1 + math.exp(-odds))) for odds in LOG_ODDS]
    found = []
    for run in tqdm(runs, desc="curves", leave=False, disable=None):
        counts: dict[str, Facts] = {}
        for one in run.scored:
            if not one.single:
                continue
            own = counts.setdefault(
                one.stream.dataset,
                {"falls": 0, "daily": 0, "found": [0] * len(cards), "alarming": [0] * len(cards)},
            )
            of, hits = ("falls", "found") if one.stream.falls else ("daily", "alarming")
            own[of] += 1
            ends = window_ends(one, card)
            for i, tried in enumerate(cards):
                own[hits][i] += hit(one, tried, ends)
        for dataset, count in counts.items():
            if count["falls"] and count["daily"]:
                about = {"method": run.method, "split": run.split, "seed": run.seed, "set": dataset}
                found.append(about | {"thresholds": [round(c.decision.threshold, 5) for c in cards]} | count)
    return found


def window_ends(one: Scored, card: Card) -> NDArray[np.int64] | None:
    """Return the grid index at which each score's window ends; None where a hole makes that less simple."""
    if len(one.stream.runs) != 1:
        return None
    t_s = one.stream.runs[0][0]
    start, end = int(np.floor(t_s[0] * card.rate_hz)) + 1, int(np.floor(t_s[-1] * card.rate_hz)) + 1
    hop = card.hop_samples
    ends = np.union1d(np.arange((start // hop + 1) * hop, end + 1, hop), [end])
    return ends if len(ends) == len(one.scores) else None


def hit(one: Scored, card: Card, ends: NDArray[np.int64] | None) -> bool:
    """Return whether a single trial's fall is found, or whether a daily trial alarms.

    The scores alone say between when and when the first alarm comes, for only a suspicion that outlives a pause
    depends on the samples too. Where that leaves a doubt, the daemon's own code is asked. A test holds this to it.
    """
    stream = one.stream
    suspected = [i for i, p in enumerate(one.scores) if p >= card.decision.suspect_threshold]
    if not suspected:
        return False
    lie = as_samples(card.decision.long_lie_still_s, rate_hz=card.rate_hz)
    if ends is not None and ends[-1] - ends[suspected[0]] < lie:
        early, late = (_first_alarm(one, card, suspected, ends, outlives=o) for o in (True, False))
        if not stream.falls and late is not None:
            return True
        if stream.falls and early is not None:
            (fall,) = stream.falls
            if early > fall.impact_s + HIT_S:
                return False
            if late is not None and fall.onset_s <= early and late <= fall.impact_s + HIT_S:
                return True
    return bool(tally(one, card).detected if stream.falls else alarms(one, card))


def _first_alarm(
    one: Scored, card: Card, suspected: list[int], ends: NDArray[np.int64], *, outlives: bool
) -> float | None:
    """Return when the first alarm comes if a suspicion outlives every pause, or none; in seconds."""
    decision = card.decision
    weigh = as_samples(decision.weigh_s, rate_hz=card.rate_hz)
    last, for_fall = int(ends[suspected[0]]), 0
    for i in suspected:
        end = int(ends[i])
        if end - last > weigh and not outlives:
            for_fall = 0
        last, for_fall = end, for_fall + (one.scores[i] >= decision.threshold)
        if for_fall >= decision.confirm_windows:
            return round(end / card.rate_hz, 3)
    end = int(ends[-1])
    # A stream that ends while something is weighed raises it.
    return round(end / card.rate_hz, 3) if outlives or end - last <= weigh else None


def limits(facts: Facts) -> list[str]:
    """Return what the data cannot show, in plain sentences."""
    first = facts["methods"][0]
    mine = [r for r in facts["headline"] if r["method"] == first and r["split"] == facts["splits"][0]]
    hours = sum(r["streams"]["hours"] for r in mine if "streams" in r)
    old_falls = sum(
        r["falls"]["of"] for r in facts["by_age_group"]
        if r["age_group"] == "old" and "falls" in r and (r["method"], r["split"]) == (first, facts["splits"][0])
    )  # fmt: skip
    return [
        "Every fall here is acted, nearly all by young adults who fell onto mattresses. Real falls of old people "
        "differ: published detectors that find nearly all acted falls found far fewer real ones. No share on this "
        "page says how many real falls would be found.",
        f"Daily life is scripted: {hours:.1f} hours of it in the streams of '{facts['splits'][0]}'. Had not one "
        f"alarm been raised, so few hours could only show a rate below {3 / max(hours, 1e-9):.2f} an hour "
        f"({72 / max(hours, 1e-9):.0f} a day). False alarms a day in a care home have to be measured there.",
        (
            "No fall of a person of 60 or more is among them."
            if old_falls == 0
            else f"Only {old_falls} falls are of people of 60 or more."
        ),
        "No set holds a slide from a bed or chair, a fall along a wall, or a fall of somebody held by another.",
        "Trials are short and follow each other without a pause in the streams, which is harder than a day of "
        "sitting; the joints between trials are no movements of a person and may cause or hide an alarm.",
        "Seeds repeat the training on the same recordings: their spread is that of the method, not of people. The "
        "intervals treat trials as if each came from another person, so the truth is less certain than they say.",
    ]


# -- Words -----------------------------------------------------------------------------------------


def count_of(share: Facts | None) -> str:
    """Return ``178/208 = 85.6 %``; with several seeds the mean count."""
    if share is None:
        return NOTHING
    n = f"{share['n']:.0f}" if float(share["n"]).is_integer() else f"{share['n']:.1f}"
    return f"{n}/{share['of']} = {percent(share['share'])}"


def interval_of(share: Facts | None) -> str:
    """Return ``80.2 to 89.8 %``."""
    return "" if share is None else f"{100 * share['low']:.1f} to {percent(share['high'])}"


def spread_of(share: Facts | None) -> str:
    """Return the lowest and highest count of a seed, nothing for one seed."""
    if share is None or len(share["by_seed"]) < 2:
        return ""
    return f"{min(share['by_seed'])} to {max(share['by_seed'])}"


def percent(share: float) -> str:
    """Return a share as a person reads it."""
    return f"{100 * share:.1f} %"


def number_of(person: str) -> str:
    """Return ``person 03 of umafall``."""
    dataset, _, number = person.rpartition("/")
    return f"person {number} of {dataset}"


def table(facts: Facts) -> Table:
    """Return the headline figures for a terminal."""
    found = Table(
        "split",
        "set",
        "method",
        "falls found",
        "95 %",
        "daily trials alarming",
        "95 %",
        "false/h (<= 95 %)",
        "hours",
        "delay p50/p95 s",
        title=f"{facts['placement']}: falls found and false alarms",
    )
    before = None
    for row in _in_order(facts, facts["headline"], "set"):
        streams, delay_s = row.get("streams"), row.get("delay_s")
        if before not in {None, (row["split"], row["set"])}:
            found.add_section()
        before = (row["split"], row["set"])
        found.add_row(
            row["split"],
            row["set"],
            row["method"],
            count_of(row.get("falls")),
            interval_of(row.get("falls")),
            count_of(row.get("daily")),
            interval_of(row.get("daily")),
            f"{streams['per_hour']:.2f} ({streams['per_hour_at_most_95']:.2f})" if streams else "",
            f"{streams['hours']:.1f}" if streams else "",
            f"{delay_s['p50']:.1f} / {delay_s['p95']:.1f}" if delay_s else "",
        )
    return found


def _in_order(facts: Facts, found: list[Facts], *names: str) -> list[Facts]:
    """Return rows by split, then by the names, then by method, splits and methods in the order given."""
    return sorted(
        found,
        key=lambda r: (
            facts["splits"].index(r["split"]),
            *(("falls" not in r, r[name]) if name == "set" else (False, r[name]) for name in names),
            facts["methods"].index(r["method"]),
        ),
    )


# -- Figures ---------------------------------------------------------------------------------------

Figures: TypeAlias = dict[str, tuple[Figure, str]]  # with the words for who does not see them
Shown: TypeAlias = dict[str, tuple[bytes, str]]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def _figures(facts: Facts, judged: Sequence[Judged]) -> Figures:
    with mpl.rc_context(STYLE):
        found: Figures = {"overview": _overview(facts)}
        for i, split in enumerate(facts["splits"]):
            if any(c["split"] == split for c in facts["curves"]):
                found[f"trade-off-{i + 1}"] = _trade_off(facts, split)
        found["people"] = _people(facts)
        found["delays"] = _delays(facts, judged)
        return found


def _blank(rows_: int, columns: int, width_in: float, height_in: float, **more: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows_, columns, squeeze=False, **more)
    return figure, list(axes.ravel())


def _overview(facts: Facts) -> tuple[Figure, str]:
    """Falls found and daily trials alarming at the operating point, with intervals, by set and method."""
    split, methods = facts["splits"][0], facts["methods"]
    mine = {(r["set"], r["method"]): r for r in facts["headline"] if r["split"] == split}
    sets = list(dict.fromkeys(r["set"] for r in _in_order(facts, facts["headline"], "set") if r["split"] == split))
    figure, (left, right) = _blank(1, 2, 8.2, 0.9 + len(sets) * (0.22 + 0.13 * len(methods)), sharey=True)
    for axes, name, title in ((left, "falls", "Falls found"), (right, "daily", "Daily trials that alarm")):
        for i, method in enumerate(methods):
            offset = (i - (len(methods) - 1) / 2) * 0.8 / len(methods)
            points = [(k, mine[s, method][name]) for k, s in enumerate(sets) if name in mine.get((s, method), {})]
            if not points:
                continue
            x = np.array([100 * share["share"] for _, share in points])
            spread = np.abs(np.array([[100 * share[side] for _, share in points] for side in ("low", "high")]) - x)
            axes.errorbar(
                x,
                [k + offset for k, _ in points],
                xerr=spread,
                fmt=MARKERS[i % 6],
                color=COLOURS[i % 6],
                markersize=4 if i else 5.5,
                linewidth=1.1,
                label=method,
            )
        axes.set_title(title)
        axes.xaxis.set_major_formatter(_percent_ticks())
        axes.grid(visible=False, axis="y")
        for k in range(1, len(sets)):
            axes.axhline(k - 0.5, color="#dddddd", linewidth=0.6)
    left.set_xlim(-2, 102)
    right.set_xlim(left=-0.3)
    left.set_yticks(range(len(sets)), sets)
    left.set_ylim(len(sets) - 0.5, -0.5)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(methods), 3))
    said = "; ".join(
        f"{s}, {method}: {count_of(row.get('falls'))} falls, {count_of(row.get('daily'))} daily trials"
        for s in sets
        for method in methods
        if (row := mine.get((s, method)))
    )
    return figure, f"Falls found and daily trials alarming, {split}, with 95 % intervals. {said}."


def _trade_off(facts: Facts, split: str) -> tuple[Figure, str]:
    """Falls found against daily trials alarming: a line for each method, a band over seeds, the points chosen."""
    mine = [c for c in facts["curves"] if c["split"] == split]
    sets = sorted({c["set"] for c in mine})
    columns = min(len(sets), 2)
    figure, axes = _blank(-(-len(sets) // columns), columns, 4.1 * columns, 0.5 + 2.8 * -(-len(sets) // columns))
    points = {(r["set"], r["method"]): r for r in facts["headline"] if r["split"] == split}
    said = []
    for axis, dataset in zip(axes, sets, strict=False):
        of = next(c for c in mine if c["set"] == dataset)
        least = 0.5 / of["daily"]  # where a logarithm shows none
        grid = np.geomspace(least, 0.5, 60)
        for i, method in enumerate(facts["methods"]):
            own = [c for c in mine if (c["set"], c["method"]) == (dataset, method)]
            if not own:
                continue
            lines = np.array([_line(c, grid, least) for c in own])
            colour = COLOURS[i % 6]
            axis.plot(100 * grid, 100 * lines.mean(axis=0), color=colour, linestyle=LINES[i % 6], label=method,
                      linewidth=1.8 if i == 0 else 1.2)  # fmt: skip
            if len(own) > 1:
                axis.fill_between(
                    100 * grid,
                    100 * lines.min(axis=0),
                    100 * lines.max(axis=0),
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
            at = points[dataset, method]
            axis.plot(100 * max(at["daily"]["share"], least), 100 * at["falls"]["share"], MARKERS[i % 6],
                      color=colour, markeredgecolor="black", markersize=6, zorder=5)  # fmt: skip
            said.append(f"{dataset}, {method}: {percent(at['falls']['share'])} at {percent(at['daily']['share'])}")
        axis.axvline(1, color="#999999", linewidth=0.8, zorder=1)
        axis.set_xscale("log")
        axis.set_xlim(100 * least, 50)
        axis.set_ylim(0, 101)
        axis.set_title(f"{dataset}\n{of['falls']} falls, {of['daily']} daily trials")
        axis.xaxis.set_major_formatter(_percent_ticks())
        axis.yaxis.set_major_formatter(_percent_ticks())
        axis.set_xlabel("daily trials that alarm")
        axis.set_ylabel("falls found")
    for axis in axes[len(sets) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3))
    return figure, (
        f"Falls found against daily trials alarming, {split}; operating points: {'; '.join(said)}. "
        "The left edge of each panel stands for no daily trial at all."
    )


def _line(curve: Facts, grid: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return the share of falls found at each share of daily trials alarming of the grid."""
    x = np.maximum(np.array(curve["alarming"]) / curve["daily"], least)
    y = np.array(curve["found"]) / curve["falls"]
    known = np.unique(x)
    best = np.array([y[x <= share].max() for share in known])  # of thresholds that alarm as often, the better
    line: NDArray[np.float64] = np.interp(np.log(grid), np.log(known), best)
    return line


def _people(facts: Facts) -> tuple[Figure, str]:
    """Each person's falls found by the first method."""
    method, split = facts["methods"][0], facts["splits"][0]
    mine = [r for r in facts["by_person"] if (r["method"], r["split"]) == (method, split) and "falls" in r]
    sets = sorted({r["set"] for r in mine})
    figure, axes = _blank(1, max(len(sets), 1), 8.2, 2.7, sharey=True)
    said = []
    for axis, dataset in zip(axes, sets, strict=False):
        own = sorted((r for r in mine if r["set"] == dataset), key=lambda r: r["falls"]["share"])
        x = np.arange(len(own))
        y = np.array([100 * r["falls"]["share"] for r in own])
        seeds = [(min(r["falls"]["by_seed"]), max(r["falls"]["by_seed"])) for r in own]
        ends = 100 * np.array(seeds) / np.array([[r["falls"]["of"]] for r in own])
        axis.vlines(x, ends[:, 0], ends[:, 1], color=COLOURS[0], alpha=0.4, linewidth=3)
        axis.plot(x, y, "o", color=COLOURS[0], markersize=4)
        axis.set_title(dataset, fontsize=8)
        axis.set_xticks(x, [r["person"].rpartition("/")[2] for r in own], rotation=90, fontsize=6.5)
        axis.grid(visible=False, axis="x")
        said.append(f"{dataset}: worst {number_of(own[0]['person'])} with {count_of(own[0]['falls'])}")
    axes[0].set_ylim(0, 103)
    axes[0].yaxis.set_major_formatter(_percent_ticks())
    axes[0].set_ylabel("falls found")
    return figure, f"Falls found by person, {method}, {split}; bars span the seeds. {'; '.join(said)}."


def _delays(facts: Facts, judged: Sequence[Judged]) -> tuple[Figure, str]:
    """How long after the impact the first method's alarms came, in streams."""
    method, split = facts["methods"][0], facts["splits"][0]
    figure, (axis,) = _blank(1, 1, 8.2, 2.5)
    delays_s: dict[str, list[float]] = {}
    for each in judged:
        if (each.run.method, each.run.split) == (method, split) and not each.one.single:
            delays_s.setdefault(each.one.stream.dataset, []).extend(each.count.delays_s)
    said = []
    bins = np.arange(-2.0, 12.01, 0.5)
    for i, (dataset, own) in enumerate(sorted((d, o) for d, o in delays_s.items() if o)):
        weights = np.full(len(own), 100 / len(own))
        axis.hist(np.clip(own, bins[0], bins[-1]), bins.tolist(), weights=weights.tolist(), histtype="step",
                  color=COLOURS[i % 6], linestyle=LINES[i % 6], linewidth=1.4, label=dataset)  # fmt: skip
        p50, p95 = np.quantile(own, (0.5, 0.95))
        said.append(f"{dataset}: half within {p50:.1f} s, 95 % within {p95:.1f} s")
    axis.set_xlabel("from impact to alarm, s (the bins at the ends hold all beyond)")
    axis.set_ylabel("of the falls found")
    axis.yaxis.set_major_formatter(_percent_ticks())
    if said:
        axis.legend(loc="upper right")
    return figure, f"Delay from impact to alarm, {method}, {split}. {'; '.join(said)}."


def _percent_ticks() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:g} %")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


# -- The page --------------------------------------------------------------------------------------

CSS = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#1c1c1c;background:#fff;
max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.2rem;margin:2.4rem 0 .4rem}
h3{font-size:1rem;margin:1.4rem 0 .3rem}p{max-width:46rem}.quiet{color:#555}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums;margin:.4rem 0 1rem}
th,td{text-align:left;padding:.22rem .7rem .22rem 0;vertical-align:top}
thead th{border-bottom:1.5px solid #333;font-weight:600}tbody tr.first>*{border-top:1px solid #bbb}
tbody th{font-weight:600}tbody td,tbody th{white-space:nowrap}td small{color:#555}
tr.own td{font-weight:600}tr.own td small{font-weight:400}
figure{margin:.8rem 0}figure img{width:100%;height:auto}figcaption{font-size:.86rem;color:#555;max-width:46rem}
li{max-width:46rem;margin:.3rem 0}
@page{size:A4;margin:14mm}
@media print{body{margin:0;padding:0;max-width:none;font-size:9pt}h1{font-size:15pt}h2,h3{break-after:avoid}
figure,tr{break-inside:avoid}thead{display:table-header-group}.wide{overflow:visible}
table{font-size:6.8pt}th,td{padding:.15rem .4rem .15rem 0}tbody td,tbody th{white-space:normal}}
"""


def _page(facts: Facts, shown: Shown) -> str:
    e = html.escape
    first, unseen = facts["methods"][0], facts["splits"][0]
    decision = facts["decision"]
    parts = [
        f"<h1>Falls detection at the {e(facts['placement'])}: methods compared</h1>",
        f'<p class="quiet">Methods: {e(", ".join(facts["methods"]))}. Tested on: {e(", ".join(facts["splits"]))}. '
        f"All scores go through the daemon's own decision: {decision['confirm_windows']} windows at the threshold "
        f"within {decision['weigh_s']:g} s, at a threshold that people outside the test chose.</p>",
        "<h2>In short</h2><ul>" + "".join(f"<li>{e(s)}</li>" for s in summary(facts)) + "</ul>",
        "<h2>What this cannot show</h2><ul>" + "".join(f"<li>{e(s)}</li>" for s in facts["limits"]) + "</ul>",
        "<h2>Falls found and false alarms</h2>",
        '<p class="quiet">Falls and daily trials: each trial by itself, from a cold start. Streams: all trials '
        "of a person end to end. Small print: 95 % interval, then the lowest and highest count of a seed.</p>",
        _image(shown, "overview", f"At the operating point, {unseen}: means over the seeds and 95 % intervals."),
        *(f"<h3>{e(_sentence(split))}</h3>{_headline(facts, split)}" for split in facts["splits"]),
        "<h2>What a stricter or weaker threshold would do</h2>",
        '<p class="quiet">Lines: everybody at one threshold, for all thresholds; bands: lowest and highest seed. '
        "Marks: the thresholds that were chosen, each for people who had no say in it, so they may lie off the "
        "line. The upright grey line stands at 1 %.</p>",
        *(
            _image(shown, f"trade-off-{i + 1}", _sentence(split))
            for i, split in enumerate(facts["splits"])
            if f"trade-off-{i + 1}" in shown
        ),
        "<h2>Hard falls</h2>",
        '<p class="quiet">Falls without a sharp impact and falls from a chair, by script where the set tells.</p>',
        *(
            f"<h3>{e(_sentence(split))}</h3>{_by_method(facts, 'hard_falls', split, ('set', 'kind'), 'falls')}"
            for split in facts["splits"]
        ),
        "<h2>Which falls are missed, which activities alarm</h2>",
        *(
            f"<h3>{e(_sentence(split))}: falls found</h3>"
            + _by_method(facts, "by_activity", split, ("set", "activity"), "falls")
            + f"<h3>{e(_sentence(split))}: daily trials that alarm</h3>"
            + '<p class="quiet">Activities with which at least one method and seed alarmed.</p>'
            + _by_method(facts, "by_activity", split, ("set", "activity"), "daily")
            for split in facts["splits"]
        ),
        "<h2>By person</h2>",
        _image(shown, "people", f"{_sentence(first)}, {unseen}: each person's falls; bars span the seeds."),
        _worst(facts),
        "<h2>By age</h2>",
        _ages(facts),
        "<h2>How long it takes</h2>",
        _image(shown, "delays", f"{_sentence(first)}, {unseen}, streams: from the impact to the alarm."),
        *_waiting(facts),
    ]
    title = f"fallwatch: falls detection at the {facts['placement']}"
    return (
        f'<!doctype html>\n<html lang="en-GB"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{e(title)}</title>'
        f"<style>{CSS}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def _waiting(facts: Facts) -> list[str]:
    """Return the table of what waiting longer buys, if it was worked out."""
    if not facts["waiting"]:
        return []
    heads = (
        "Windows that must agree",
        "Falls found, streams",
        "Daily trials alarming",
        "False alarms an hour, streams",
    )
    own = facts["decision"]["confirm_windows"]
    body = [
        (
            "own" if row["confirm_windows"] == own else "",
            (
                str(row["confirm_windows"]),
                f"{row['found']}/{row['falls']} = {percent(row['found'] / max(row['falls'], 1))}",
                f"{row['alarming']}/{row['trials']} = {percent(row['alarming'] / max(row['trials'], 1))}",
                f"{row['false_per_hour']:.2f}",
                f"{row['delay_p50_s']:.1f} / {row['delay_p95_s']:.1f} s",
            ),
        )
        for row in facts["waiting"]
    ]
    return [
        "<h2>What waiting longer buys</h2>",
        '<p class="quiet">Unseen people, one committee. Each row has the threshold that lets as many daily trials '
        "alarm as the rule allows, on these very people: rows can be compared with each other, and with nothing "
        "else.</p>",
        _cells((*heads, "Delay p50 / p95"), body),
    ]


def summary(facts: Facts) -> list[str]:
    """Return what the first method does, a sentence for each split and set with falls."""
    said = []
    for row in _in_order(facts, facts["headline"], "set"):
        if row["method"] != facts["methods"][0] or "falls" not in row:
            continue
        falls, daily = row["falls"], row.get("daily")
        sentence = f"{row['set']}, {row['split']}: {count_of(falls)} of the falls found ({interval_of(falls)})"
        if daily:
            sentence += f", {count_of(daily)} of the daily trials alarming ({interval_of(daily)})"
        said.append(f"{sentence}.")
    return said


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _image(shown: Shown, name: str, caption: str) -> str:
    png, alt = shown[name]
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _cells(heads: Sequence[str], body: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a table; each row has a class and cells that are HTML already, the first a heading."""
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    lines = [
        f'<tr class="{kind}"><th scope="row">{cells[0]}</th>'
        + "".join(f"<td>{c}</td>" for c in cells[1:])
        + "</tr>"
        for kind, cells in body
    ]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _full(share: Facts | None) -> str:
    """Return a count with its small print."""
    if share is None:
        return NOTHING
    spread = spread_of(share)
    return f"{count_of(share)}<br><small>{interval_of(share)}{f'; seeds {spread}' if spread else ''}</small>"


def _per_hour(streams: Facts | None) -> str:
    """Return false alarms per hour with their small print."""
    if streams is None:
        return NOTHING
    return (
        f"{streams['per_hour']:.2f}<br><small>at most {streams['per_hour_at_most_95']:.2f}; "
        f"{streams['false_alarms']:g} in {streams['hours']:.1f} h</small>"
    )


def _headline(facts: Facts, split: str) -> str:
    body = []
    before = None
    for row in _in_order(facts, [r for r in facts["headline"] if r["split"] == split], "set"):
        delay_s = row.get("delay_s")
        kind = ("first " if row["set"] != before else "") + ("own" if row["method"] == facts["methods"][0] else "")
        body.append(
            (
                kind.strip(),
                (
                    html.escape(row["set"]) if row["set"] != before else "",
                    html.escape(row["method"]),
                    _full(row.get("falls")),
                    _full(row.get("daily")),
                    _per_hour(row.get("streams")),
                    count_of(row.get("falls_in_streams")),
                    f"{delay_s['p50']:.1f} / {delay_s['p95']:.1f} s" if delay_s else NOTHING,
                    str(len(row["seeds"])),
                ),
            )
        )
        before = row["set"]
    heads = ("Set", "Method", "Falls found", "Daily trials alarming", "False alarms an hour, streams")
    return _cells((*heads, "Falls found in streams", "Delay p50 / p95", "Seeds"), body)


def _by_method(facts: Facts, of: str, split: str, names: tuple[str, ...], what: str) -> str:
    """Return a table with a column for each method; daily activities that never alarm are left out."""
    cells: dict[tuple[str, ...], dict[str, Facts]] = {}
    for row in facts[of]:
        if row["split"] == split and what in row:
            cells.setdefault(tuple(row[name] for name in names), {})[row["method"]] = row[what]
    body = []
    before = ""
    for key, own in sorted(cells.items(), key=lambda item: (item[0][:-1], _hardness(item[1], facts, what))):
        if what == "daily" and not any(sum(share["by_seed"]) for share in own.values()):
            continue
        shown = [html.escape(part) for part in key]
        new = len(key) > 1 and key[0] != before
        if len(key) > 1 and not new:
            shown[0] = ""
        before = key[0]
        body.append(("first" if new else "", (*shown, *(count_of(own.get(m)) for m in facts["methods"]))))
    if not body:
        return '<p class="quiet">None.</p>'
    return _cells([*(_sentence(n) for n in names), *(html.escape(m) for m in facts["methods"])], body)


def _hardness(own: dict[str, Facts], facts: Facts, what: str) -> float:
    """Order rows by what the first method does worst."""
    share = own.get(facts["methods"][0])
    return 0.0 if share is None else share["share"] * (1 if what == "falls" else -1)


def _worst(facts: Facts) -> str:
    """Return for each split, set and method the person served worst."""
    body = []
    before = None
    for row in _in_order(facts, facts["headline"], "set"):
        own = [
            r for r in facts["by_person"]
            if (r["method"], r["split"], r["set"]) == (row["method"], row["split"], row["set"])
        ]  # fmt: skip
        fallers, active = [r for r in own if "falls" in r], [r for r in own if "daily" in r]
        if not fallers:
            continue
        missed = min(fallers, key=lambda r: (r["falls"]["share"], -r["falls"]["of"]))
        alarming = max(active, key=lambda r: (r["daily"]["n"], r["daily"]["share"]), default=None)
        new = (row["split"], row["set"]) != before
        before = (row["split"], row["set"])
        most = "nobody"
        if alarming is not None and alarming["daily"]["n"]:
            most = f"{number_of(alarming['person'])}: {count_of(alarming['daily'])}"
        body.append(
            (
                "first" if new else "",
                (
                    html.escape(f"{row['set']}, {row['split']}") if new else "",
                    html.escape(row["method"]),
                    html.escape(f"{number_of(missed['person'])}: {count_of(missed['falls'])}"),
                    percent(float(np.median([r["falls"]["share"] for r in fallers]))),
                    html.escape(most),
                ),
            )
        )
    return _cells(("Set", "Method", "Fewest falls found", "Median person", "Most daily trials alarming"), body)


def _ages(facts: Facts) -> str:
    body = []
    before = None
    for row in _in_order(facts, facts["by_age_group"], "age_group"):
        new = (row["split"], row["age_group"]) != before
        before = (row["split"], row["age_group"])
        body.append(
            (
                "first" if new else "",
                (
                    html.escape(f"{row['age_group']}, {row['split']}") if new else "",
                    html.escape(row["method"]),
                    _full(row.get("falls")),
                    _full(row.get("daily")),
                    _per_hour(row.get("streams")),
                ),
            )
        )
    return _cells(("Age", "Method", "Falls found", "Daily trials alarming", "False alarms an hour, streams"), body)
