"""What the models did in this home, against what staff found: pure functions on rows of the journal.

An alarm counts as false when staff closed it as ``not-a-fall``. A model on trial calls nobody, so an alarm
of its own that staff were not called to by other means has no outcome: it is counted apart, and as false
wherever the figure says "at most".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from edge.core.incident import Kind, Outcome, utc_text
from edge.core.poisson import poisson_at_most
from edge.journal import Case, ShadowAlarm, Wear

REPORT_SCHEMA = 1
WEEK_S = 7 * 86400.0
SAME_FALL = timedelta(seconds=30)  # two models' impacts this near are the same fall
ONE_EVENT = timedelta(seconds=120)  # further falls so soon would have joined the incident
PRESSED_WITHIN = timedelta(minutes=10)  # a press so soon after an impact is about that fall
NOT_CLOSED = "not-closed"
NOT_CALLED = "not-called"
OUTCOMES = (Outcome.FALL, Outcome.LOWERED, Outcome.NEAR_FALL, Outcome.NOT_A_FALL)


@dataclass(frozen=True, slots=True)
class Alarm:
    """One call to staff, or what would have been one."""

    wearable: str
    impacts: tuple[datetime, ...]  # of the falls that belong to it
    outcome: str | None  # what staff found; None while not closed


@dataclass(slots=True)
class ModelReport:
    """One model in one role."""

    model: str
    placement: str
    shadow: bool
    worn_s: float = 0.0
    wearables: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)  # `Outcome`, NOT_CLOSED, NOT_CALLED
    missed_falls: int = 0  # that staff confirmed and it did not raise while it was there to see

    @property
    def wearer_weeks(self) -> float:
        """How long it judged worn wearables, summed over them."""
        return self.worn_s / WEEK_S

    @property
    def alarms(self) -> int:
        """How many it raised, or would have raised."""
        return self.outcomes.total()

    @property
    def false(self) -> int:
        """How many of them staff found to be false."""
        return self.outcomes[Outcome.NOT_A_FALL]

    @property
    def not_judged(self) -> int:
        """How many of them nobody has judged."""
        return self.outcomes[NOT_CLOSED] + self.outcomes[NOT_CALLED]

    def per_week(self, events: float) -> float | None:
        """Return a rate per week of wear, None without wear."""
        return events / self.wearer_weeks if self.worn_s > 0 else None

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        false, most = self.false, self.false + self.not_judged
        return {
            "model": self.model,
            "placement": self.placement,
            "role": "shadow" if self.shadow else "first",
            "wearables": len(self.wearables),
            "wearer_weeks": round(self.wearer_weeks, 6),
            "alarms": self.alarms,
            "outcomes": {name: self.outcomes[name] for name in (*OUTCOMES, NOT_CLOSED, NOT_CALLED)},
            "missed_falls": self.missed_falls,
            "false_alarms": false,
            "false_alarms_per_wearer_week": _rounded(self.per_week(false)),
            "false_alarms_per_wearer_week_at_most_95": _rounded(self.per_week(poisson_at_most(false))),
            "not_judged": self.not_judged,
            "if_not_judged_are_false": {
                "false_alarms": most,
                "false_alarms_per_wearer_week": _rounded(self.per_week(most)),
                "false_alarms_per_wearer_week_at_most_95": _rounded(self.per_week(poisson_at_most(most))),
            },
        }


@dataclass(slots=True)
class Comparison:
    """A model on trial beside those that called staff, while it was there to see."""

    shadow: str
    placement: str
    beside: list[str]
    days: float  # from its first stretch to its last
    falls: Counter[str] = field(default_factory=Counter)  # found by: both, first, shadow, neither
    alarms: Counter[str] = field(default_factory=Counter)  # raised by: both, first, shadow

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "shadow": self.shadow,
            "placement": self.placement,
            "beside": self.beside,
            "days": round(self.days, 2),
            "falls_staff_confirmed": self.falls.total(),
            "falls_found_by": {
                "both": self.falls["both"],
                "first_only": self.falls["first"],
                "shadow_only": self.falls["shadow"],
                "neither": self.falls["neither"],
            },
            "alarms_raised_by": {
                "both": self.alarms["both"],
                "first_only": self.alarms["first"],
                "shadow_only": self.alarms["shadow"],
            },
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All models of a home over a span of time."""

    home: str
    since: datetime | None  # None when nothing has been judged
    until: datetime
    models: list[ModelReport]
    comparisons: list[Comparison]

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "schema": REPORT_SCHEMA,
            "home": self.home,
            "since": None if self.since is None else utc_text(self.since),
            "until": utc_text(self.until),
            "models": [model.document() for model in self.models],
            "comparisons": [comparison.document() for comparison in self.comparisons],
        }


def make_report(
    home: str,
    cases: Sequence[Case],
    shadow_alarms: Sequence[ShadowAlarm],
    wear: Sequence[Wear],
    *,
    since: datetime | None,
    until: datetime,
) -> Report:
    """Count what models did from ``since``, or from when wear was first counted if that is later."""
    counted_since = min((w.begun_at for w in wear), default=until)
    since = counted_since if since is None else max(since, counted_since)
    wear = [w for w in wear if w.until_at > since and w.begun_at < until]
    cases = [c for c in cases if since <= c.facts.raised_at < until]
    called = [(c, _alarm(c)) for c in cases if c.facts.kind in {Kind.FALL, Kind.LONG_LIE}]
    drills = [alarm for case, alarm in called if _is_drill(case)]
    called = [(case, alarm) for case, alarm in called if not _is_drill(case)]
    first = [alarm for _, alarm in called]
    confirmed = [alarm for alarm in first if alarm.outcome == Outcome.FALL]
    presses = [_alarm(c) for c in cases if c.facts.kind is Kind.HELP_BUTTON and _outcome(c) == Outcome.FALL]
    pressed = [press for press in presses if not any(_is_of(press, alarm) for alarm in confirmed)]

    models: dict[tuple[bool, str, str], ModelReport] = {}
    for w in wear:
        report = models.setdefault((w.shadow, w.placement, w.model), ModelReport(w.model, w.placement, w.shadow))
        report.worn_s += w.worn_s * _part_within(w, since, until)
        report.wearables.add(w.wearable)
    for case, alarm in called:
        key = (False, case.facts.placement or "", case.facts.model or "")
        report = models.setdefault(key, ModelReport(key[2], key[1], shadow=False))
        report.outcomes[alarm.outcome or NOT_CLOSED] += 1
    comparisons = []
    for (shadow, placement, name), report in models.items():
        stretches = [w for w in wear if (w.shadow, w.placement, w.model) == (shadow, placement, name)]
        if shadow:
            ours = _events(a for a in shadow_alarms if a.model == name and since <= a.raised_at < until)
            ours = [event for event in ours if not any(_same(event, drill) for drill in drills)]
            beside = sorted({r.model for r in models.values() if not r.shadow and r.placement == placement})
            compared = _compare(report, beside, stretches, ours, first, pressed=pressed)
            report.missed_falls = compared.falls["first"] + compared.falls["neither"]
            comparisons.append(compared)
        else:
            missed = [p for p in pressed if not any(_is_of(p, alarm) and alarm.outcome is None for alarm in first)]
            report.missed_falls = sum(_watched(press, stretches) for press in missed)
    ordered = [models[key] for key in sorted(models, key=lambda key: (key[1], key[0], key[2]))]
    return Report(home, since if wear else None, until, ordered, comparisons)


def _compare(
    report: ModelReport,
    beside: list[str],
    stretches: Sequence[Wear],
    events: Sequence[Alarm],
    first: Sequence[Alarm],
    *,
    pressed: Sequence[Alarm],
) -> Comparison:
    """Set a shadow's alarms against what called staff, and give ``report`` their outcomes.

    ``pressed`` holds the falls that staff found by the help button and by no alarm they confirmed.
    """
    days = (max(w.until_at for w in stretches) - min(w.begun_at for w in stretches)) / timedelta(days=1)
    compared = Comparison(report.model, report.placement, beside, days)

    matches = [[alarm for alarm in first if _same(event, alarm)] for event in events]
    for alarm in first:
        found = any(alarm in matched for matched in matches)
        if found or _watched(alarm, stretches):
            compared.alarms["both" if found else "first"] += 1
            compared.falls["both" if found else "first"] += alarm.outcome == Outcome.FALL
    for event, matched in zip(events, matches, strict=True):
        for alarm in matched:
            report.outcomes[alarm.outcome or NOT_CLOSED] += 1
        if not matched:
            compared.alarms["shadow"] += 1
            report.outcomes[Outcome.FALL if any(_is_of(press, event) for press in pressed) else NOT_CALLED] += 1
    for press in pressed:
        by_first = any(_is_of(press, alarm) and alarm.outcome is None for alarm in first)
        by_shadow = any(_is_of(press, event) for event in events)
        if by_shadow or _watched(press, stretches):
            found_by = {(True, True): "both", (True, False): "first", (False, True): "shadow"}
            compared.falls[found_by.get((by_first, by_shadow), "neither")] += 1
    return compared


def _watched(alarm: Alarm, stretches: Iterable[Wear]) -> bool:
    """Tell whether a model was there to see it."""
    return any(
        w.wearable == alarm.wearable and any(w.begun_at <= at <= w.until_at for at in alarm.impacts)
        for w in stretches
    )


def _events(alarms: Iterable[ShadowAlarm]) -> list[Alarm]:
    """Join a shadow's alarms as the service joins falls of one wearable that follow each other soon."""
    events: list[Alarm] = []
    last: dict[str, int] = {}
    for alarm in sorted(alarms, key=lambda alarm: alarm.impact_at):
        at = last.get(alarm.wearable)
        if at is not None and alarm.impact_at - events[at].impacts[-1] < ONE_EVENT:
            events[at] = Alarm(alarm.wearable, (*events[at].impacts, alarm.impact_at), None)
        else:
            last[alarm.wearable] = len(events)
            events.append(Alarm(alarm.wearable, (alarm.impact_at,), None))
    return events


def _alarm(case: Case) -> Alarm:
    again = [e.at - timedelta(seconds=e.body.get("since_impact_s", 0.0)) for e in case.events if e.kind == "again"]
    return Alarm(case.facts.wearable or "", (case.facts.impact_at or case.facts.raised_at, *again), _outcome(case))


def _outcome(case: Case) -> str | None:
    resolved = case.first("resolved")
    return None if resolved is None else str(resolved.body.get("outcome"))


def _is_drill(case: Case) -> bool:
    return case.facts.drill or _outcome(case) == Outcome.DRILL


def _same(event: Alarm, alarm: Alarm) -> bool:
    return event.wearable == alarm.wearable and any(
        abs(a - b) <= SAME_FALL for a in event.impacts for b in alarm.impacts
    )


def _is_of(press: Alarm, alarm: Alarm) -> bool:
    """Tell whether the wearer pressed for help because of what the alarm is about."""
    pressed_at = press.impacts[0]
    return press.wearable == alarm.wearable and any(
        -SAME_FALL <= pressed_at - at <= PRESSED_WITHIN for at in alarm.impacts
    )


def _part_within(wear: Wear, since: datetime, until: datetime) -> float:
    whole_s = (wear.until_at - wear.begun_at).total_seconds()
    inside_s = (min(wear.until_at, until) - max(wear.begun_at, since)).total_seconds()
    return min(inside_s / whole_s, 1.0) if whole_s > 0 else 1.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
