"""The truth about a made-up home against what was told of it: named right, in time, and how often for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from edge.core.poisson import poisson_at_most
from edge.home.scenario import CAUSES, FOR_EVER, WARNINGS, Event, Home, Truth

BLIND, WARNING, HOME = "blind", "warning", "home"
TO_ACT_S = 180.0  # a page about what is over sooner has called somebody for nothing
BEFORE_S, AFTER_S = 31.0, 90.0  # around an event what is said may be about it
START_S = 5.0  # nobody has been heard yet
FALL_BEFORE_S, FALL_AFTER_S = 5.0, 60.0
WEEK_S = 7 * 86_400.0
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Name:
    """One resident, by wearable, was said to be so in ``[begin_s, end_s)``; "" is the home."""

    wearable: str
    layer: str
    cause: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Page:
    """A person was told."""

    wearable: str
    layer: str
    cause: str
    raised_s: float
    board_only: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """A fall was raised."""

    wearable: str
    impact_s: float
    raised_s: float


@dataclass(slots=True)
class Told:
    """All that was told of a home, or of part of it."""

    names: list[Name] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    judged_s: float = 0.0  # worn and judged by a model, all wearables together
    cpu_s: float = 0.0

    def add(self, other: Told) -> None:
        """Take what was told of other residents of the home."""
        self.names += [n for n in other.names if n.wearable]
        self.pages += [p for p in other.pages if p.wearable]
        self.alarms += other.alarms
        self.judged_s += other.judged_s
        self.cpu_s += other.cpu_s


@dataclass(frozen=True, slots=True)
class Episode:
    """One event that must be named, and what it was called; delays from its beginning, None: never."""

    event: Event
    first: str
    finally_: str
    delay_s: float | None  # to the right name
    page_s: float | None  # to a page by the right name
    pages: int  # by that name; more than one: it was told to be over meanwhile

    @property
    def right_first(self) -> bool:
        """The first name was right."""
        return self.first in CAUSES[self.event.truth]

    @property
    def right(self) -> bool:
        """The last name was right."""
        return self.finally_ in CAUSES[self.event.truth]

    @property
    def in_time(self) -> bool:
        """The right name came in time."""
        return self.delay_s is not None and self.event.begin_s + self.delay_s <= self.event.told_by_s


@dataclass(frozen=True, slots=True)
class Score:
    """How a home was watched."""

    episodes: list[Episode]
    spurious: dict[str, int]  # names with nothing behind them
    pages: int
    notices: int  # on the board alone
    wrongly_named: list[Page]  # pages about something else that was the matter
    nuisance: list[Page]
    wearer_weeks: float
    falls: int
    found: int
    false_alarms: int
    judged_h: float
    raise_s: list[float]  # from impact to alarm

    def confusion(self) -> dict[str, dict[str, int]]:
        """Return how often each truth had which name in the end; row "well": names for nothing."""
        rows: dict[str, Counter[str]] = {}
        for episode in self.episodes:
            rows.setdefault(episode.event.truth, Counter())[episode.finally_] += 1
        return {**{t: dict(rows[t]) for t in CAUSES if t in rows}, Truth.WELL: self.spurious}

    def as_json(self) -> dict[str, Any]:
        """Return the figures as one document."""
        return {
            "wearer_weeks": round(self.wearer_weeks, 2),
            "episodes": len(self.episodes),
            "named_right": _part(e.right for e in self.episodes),
            "named_right_first": _part(e.right_first for e in self.episodes),
            "in_time": _part(e.in_time for e in self.episodes),
            "missed": sum(e.finally_ == NOTHING for e in self.episodes),
            "by_truth": {t: self._row([e for e in self.episodes if e.event.truth is t]) for t in self._truths()},
            "confusion": self.confusion(),
            "pages": self.pages,
            "board_only": self.notices,
            "pages_wrongly_named": len(self.wrongly_named),
            "pages_again": sum(max(e.pages - 1, 0) for e in self.episodes),
            "nuisance_pages": len(self.nuisance),
            "nuisance_per_wearer_week": round(len(self.nuisance) / self.wearer_weeks, 3),
            "nuisance_per_wearer_week_at_most": round(poisson_at_most(len(self.nuisance)) / self.wearer_weeks, 3),
            "nuisance_by_cause": dict(Counter(p.cause for p in self.nuisance)),
            "falls": self.falls,
            "falls_found": self.found,
            "false_alarms": self.false_alarms,
            "judged_h": round(self.judged_h, 1),
            "false_alarms_per_wearer_h": self._per_hour(self.false_alarms),
            "false_alarms_per_wearer_h_at_most": self._per_hour(poisson_at_most(self.false_alarms)),
            "impact_to_alarm_s": _quantiles(self.raise_s),
        }

    def tables(self) -> Group:
        """Return the figures for people."""
        facts = self.as_json()
        names = Table(
            *("truth", "n", "first right", "finally right", "in time", "missed", "named s", "paged s"),
            title=f"What was the matter, and was it named: {facts['wearer_weeks']} wearer-weeks; p50 / p95 / max",
        )
        for truth, row in facts["by_truth"].items():
            cells = [f"{row[k]:.0%}" for k in ("named_right_first", "named_right", "in_time")]
            delays = [" / ".join(f"{v:.0f}" for v in (row[k] or {}).values()) for k in ("named_s", "paged_s")]
            names.add_row(truth, str(row["n"]), *cells, str(row["missed"]), *delays)
        mixed = Table(
            "truth", "named in the end", title="Mixed up (finally named otherwise, and names for nothing)"
        )
        for truth, row in self.confusion().items():
            wrong = {cause: n for cause, n in row.items() if cause not in CAUSES.get(Truth(truth), ())}
            if wrong:
                mixed.add_row(truth, ", ".join(f"{n} x {cause}" for cause, n in sorted(wrong.items())))
        sums = Table("", "", show_header=False)
        for key in ("named_right_first", "named_right", "in_time"):
            value = facts[key]
            sums.add_row(key.replace("_", " "), "-" if value is None else f"{value:.1%} of {facts['episodes']}")
        for key, value in facts.items():
            if key not in {"named_right_first", "named_right", "in_time", "by_truth", "confusion", "episodes"}:
                sums.add_row(key.replace("_", " "), str(value))
        return Group(names, mixed, sums)

    def _truths(self) -> list[Truth]:
        seen = {e.event.truth for e in self.episodes}
        return [t for t in CAUSES if t in seen]

    def _row(self, episodes: list[Episode]) -> dict[str, Any]:
        return {
            "n": len(episodes),
            "named_right_first": _part(e.right_first for e in episodes),
            "named_right": _part(e.right for e in episodes),
            "in_time": _part(e.in_time for e in episodes),
            "missed": sum(e.finally_ == NOTHING for e in episodes),
            "named_s": _quantiles([e.delay_s for e in episodes if e.delay_s is not None]),
            "paged_s": _quantiles([e.page_s for e in episodes if e.page_s is not None]),
        }

    def _per_hour(self, number: float) -> float | None:
        return round(number / self.judged_h, 5) if self.judged_h else None


def score(home: Home, told: Told, lives: Iterable[int] | None = None, *, to_act_s: float = TO_ACT_S) -> Score:
    """Compare the truth about the named lives, all by default, with what was told."""
    chosen = [home.lives[i] for i in (range(len(home.lives)) if lives is None else lives)]
    events: dict[str, list[Event]] = {life.wearable: list(life.events) for life in chosen}
    events[""] = list(home.events)
    episodes = [
        _episode(e, told)
        for own in events.values()
        for e in own
        if e.truth in CAUSES and e.told_by_s != FOR_EVER and e.begin_s < home.end_s
    ]
    spurious = Counter(
        n.cause
        for n in told.names
        if n.begin_s >= START_S and not any(_near(e, n) for e in (*events.get(n.wearable, ()), *home.events))
    )
    pages = [p for p in told.pages if not p.board_only]
    wrongly, nuisance = [], []
    for page in pages:
        about = [e for e in (*events.get(page.wearable, ()), *home.events) if _explains(e, page)]
        right = [e for e in about if page.cause in CAUSES.get(e.truth, ())]
        # A page about what nobody need be told, or about what ends by itself before anybody has come.
        lasting = [e for e in right or about if e.truth in CAUSES and e.end_s - page.raised_s >= to_act_s]
        if not lasting:
            nuisance.append(page)
        elif not right:
            wrongly.append(page)
    falls = [e for own in events.values() for e in own if e.truth is Truth.FALL]
    found: dict[Event, float] = {}
    false_alarms = 0
    for alarm in sorted(told.alarms, key=lambda a: a.raised_s):
        fall = next((f for f in falls if f.wearable == alarm.wearable and _hits(f, alarm)), None)
        if fall is None:
            false_alarms += 1
        else:
            found.setdefault(fall, alarm.raised_s - alarm.impact_s)
    return Score(
        episodes=episodes,
        spurious=dict(spurious),
        pages=len(pages),
        notices=len(told.pages) - len(pages),
        wrongly_named=wrongly,
        nuisance=nuisance,
        wearer_weeks=len(chosen) * home.end_s / WEEK_S,
        falls=len(falls) if told.judged_s else 0,
        found=len(found),
        false_alarms=false_alarms,
        judged_h=told.judged_s / 3600,
        raise_s=list(found.values()),
    )


def layer_of(event: Event) -> str:
    """Return where an event is to be named."""
    return HOME if not event.wearable else WARNING if event.truth in WARNINGS else BLIND


def _episode(event: Event, told: Told) -> Episode:
    right, layer = CAUSES[event.truth], layer_of(event)
    names = sorted(
        (
            n
            for n in told.names
            if n.wearable == event.wearable and n.layer == layer
            if n.begin_s < event.end_s and n.end_s > event.begin_s
            # What was said before, and still is for a moment, is about something else.
            if n.begin_s >= event.begin_s - 1.0 or n.cause in right
        ),
        key=lambda n: n.begin_s,
    )
    named_s = [n.begin_s - event.begin_s for n in names if n.cause in right]
    paged_s = [
        p.raised_s - event.begin_s
        for p in told.pages
        if (p.wearable, p.layer) == (event.wearable, layer)
        if p.cause in right and event.begin_s - BEFORE_S <= p.raised_s < event.end_s
    ]
    first, last = (names[0].cause, names[-1].cause) if names else (NOTHING, NOTHING)
    return Episode(event, first, last, min(named_s, default=None), min(paged_s, default=None), len(paged_s))


def _near(event: Event, name: Name) -> bool:
    return event.begin_s - BEFORE_S < name.end_s and name.begin_s < event.end_s + AFTER_S


def _explains(event: Event, page: Page) -> bool:
    return event.begin_s - BEFORE_S <= page.raised_s < event.end_s + AFTER_S


def _hits(fall: Event, alarm: Alarm) -> bool:
    return fall.begin_s - FALL_BEFORE_S <= alarm.impact_s < fall.begin_s + FALL_AFTER_S


def _part(of: Iterable[bool]) -> float | None:
    values = list(of)
    return round(sum(values) / len(values), 4) if values else None


def _quantiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "max": round(max(values), 1)}


def draw(home: Home, told: Told, result: Score, folder: Path) -> list[Path]:
    """Draw the confusion table, and the day on which most was the matter; needs matplotlib.

    Raises:
        ImportError: matplotlib is not installed; it is in the training extra.
    """
    import matplotlib as mpl  # noqa: PLC0415  # in the training extra alone

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = {t: row for t, row in result.confusion().items() if row}
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    figure, axes = plt.subplots(figsize=(3 + 0.5 * len(columns), 3 + 0.35 * len(rows)), layout="constrained")
    parts = np.array([[row.get(c, 0) / sum(row.values()) for c in columns] for row in rows.values()])
    axes.imshow(parts.reshape(len(rows), len(columns)), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(rows.values()):
        for x, column in enumerate(columns):
            if column in row:
                dark = row[column] / sum(row.values()) > 0.5
                axes.text(x, y, str(row[column]), ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel="named in the end", ylabel="truth")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "home-confusion.png", folder / "home-day.png"]
    figure.savefig(paths[0], dpi=120)
    plt.close(figure)

    days = Counter((e.wearable, e.begin_s // 86_400) for x in result.episodes if (e := x.event).wearable)
    (wearable, day), _ = max(days.items(), key=lambda item: item[1], default=((home.lives[0].wearable, 0.0), 0))
    truths = [e for life in home.lives if life.wearable == wearable for e in life.events] + list(home.events)
    names = [n for n in told.names if n.wearable in {wearable, ""}]
    spans = [(0, e.truth.value, e.begin_s, e.end_s) for e in truths]
    spans += [(1, n.cause, n.begin_s, n.end_s) for n in names]
    spans = [s for s in spans if s[2] < (day + 1) * 86_400 and s[3] > day * 86_400]
    figure, both = plt.subplots(2, 1, sharex=True, figsize=(12, 6), layout="constrained")
    for strip, title in enumerate(("truth", "told")):
        labels = list(dict.fromkeys(label for s, label, *_ in spans if s == strip))
        for s, label, begin_s, end_s in spans:
            if s == strip:
                begin_h, end_h = (np.clip(x / 3600 - day * 24, 0, 24) for x in (begin_s, end_s))
                both[strip].broken_barh([(begin_h, max(end_h - begin_h, 0.03))], (labels.index(label) - 0.4, 0.8))
        both[strip].set_yticks(range(len(labels)), labels)
        both[strip].set(title=title, xlim=(0, 24))
    for page in told.pages:
        if page.wearable == wearable and page.raised_s // 86_400 == day:
            both[1].axvline(page.raised_s / 3600 - day * 24, color="0.5" if page.board_only else "red", lw=1)
    both[1].set_xlabel(f"hour of day {int(day) + 1}, wearable {wearable}; red: a page, grey: on the board alone")
    figure.savefig(paths[1], dpi=120)
    plt.close(figure)
    return paths


def wrong(result: Score) -> list[dict[str, Any]]:
    """Return each episode that was named wrongly or late, and each page for nothing or with wrong words."""
    named = [
        {**asdict(e.event), "first": e.first, "finally": e.finally_, "delay_s": e.delay_s}
        for e in result.episodes
        if not (e.right and e.right_first and e.in_time)
    ]
    pages = [("nuisance", page) for page in result.nuisance]
    pages += [("wrong words", page) for page in result.wrongly_named]
    return named + [{"page": kind, **asdict(page)} for kind, page in pages]
