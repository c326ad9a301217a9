"""The managers' command: what the models did in this home, and whether a new one would do better."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from edge.cli import Config, Json, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_STATE, load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from edge.journal import Journal
    from edge.report import Comparison, ModelReport, Report

WEEKS_TO_TELL = 30  # without one false alarm in so many, fewer than one in ten wearer-weeks is shown (95 %)
ALARMS_TO_TELL = 10  # so many give their rate to within a factor of two, however short the time
FALLS_TO_TELL = 20  # all of so many found shows that at least six in seven are (95 %)
DAYS_TO_TRY = 7


@app.command(epilog="Example: fallwatch report --days 28")
def report(
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="From that day, YYYY-MM-DD.")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="The last so many days.")] = None,
    cover: Annotated[
        bool, typer.Option("--cover", help="Instead: who was not protected, when and why; the last day.")
    ] = False,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Show what the models did against what staff found: false alarms per week of wear, falls found and missed."""
    from edge.cli.people import open_journal
    from edge.journal import JournalUnavailable
    from edge.report import make_report

    settings = load_settings(config)
    zone, now = ZoneInfo(settings.home.timezone), datetime.now(UTC)
    begin = _begin(since, days, zone, now)
    if cover:
        _show_cover(open_journal(state), begin or now - timedelta(days=1), zone, as_json=as_json)
        return
    journal, looked = open_journal(state), begin or datetime.min.replace(tzinfo=UTC)
    try:
        made = make_report(
            settings.home.id,
            journal.cases_since(looked),
            journal.shadow_alarms(looked),
            journal.wear(looked),
            since=begin,
            until=now,
        )
    except JournalUnavailable as error:
        stop(str(error), status=1)
    if as_json:
        say(json.dumps(made.document()))
    elif made.since is None:
        say("Nothing has been judged in that time: wear is written every 15 minutes while detection runs.")
    else:
        _show(made, settings.home.name or settings.home.id, zone)


def _show_cover(journal: Journal, since: datetime, zone: ZoneInfo, *, as_json: bool) -> None:
    """Write who was without cover since then; what began before and still holds is among it."""
    from edge.cover import spells
    from edge.journal import JournalUnavailable

    now = datetime.now(UTC)
    try:
        cases = {case.facts.incident: case for case in [*journal.open_cases(), *journal.cases_since(since)]}
    except JournalUnavailable as error:
        stop(str(error), status=1)
    found = spells(cases.values())
    if as_json:
        for spell in found:
            say(json.dumps(spell.document(now)))
        return
    if not found:
        say("Everybody was covered, and nothing is to be mended.")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("room", "what", "from", "lasted", "")
    for spell in found:
        begun = spell.begun_at.astimezone(zone)
        table.add_row(
            escape(spell.room or "the home"),
            ("to mend: " if spell.warning else "NO COVER: ") + escape(spell.cause),
            f"{begun:%a %H:%M}",
            f"{spell.lasted_s(now) / 60:.0f} min",
            "still so" if spell.ended_at is None else "",
        )
    Console().print(table)


def _begin(since: str | None, days: int | None, zone: ZoneInfo, now: datetime) -> datetime | None:
    if since is not None and days is not None:
        stop("--since and --days say the same; give one", status=2)
    if days is not None:
        return now - timedelta(days=min(days, 36500))
    if since is None:
        return None
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        stop(f"--since {since!r} is no date; use YYYY-MM-DD, such as 2026-11-22", status=2)


def _show(made: Report, home: str, zone: ZoneInfo) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    assert made.since is not None
    since, until = (f"{at.astimezone(zone):%d/%m/%Y %H:%M}" for at in (made.since, made.until))
    lines = [f"{home}: models from {since} to {until}"]
    for placement in dict.fromkeys(model.placement for model in made.models):
        models = [model for model in made.models if model.placement == placement]
        console.print("\n".join(lines), markup=False)
        console.print(_table(placement, models))
        lines = [line for c in made.comparisons if c.placement == placement for line in _words(c)]
        lines += _caution(models)
    lines.append("False: closed as not-a-fall. A fall to which nobody was called is not known here.")
    console.print("\n".join(lines), markup=False)


def _table(placement: str, models: list[ModelReport]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from edge.core.poisson import poisson_at_most
    from edge.report import NOT_CALLED, NOT_CLOSED

    table = Table(placement)
    for model in models:
        role = "on trial, calls nobody" if model.shadow else "calls staff"
        table.add_column(f"{escape(model.model)}\n{role}", justify="right")
    table.add_row("wear judged", *(_wear(model.worn_s) for model in models))
    table.add_row("alarms", *(str(model.alarms) for model in models))
    for name, words in (
        ("fall", "fall"),
        ("lowered", "lowered to the floor"),
        ("near-fall", "near fall"),
        ("not-a-fall", "not a fall: false alarm"),
        (NOT_CLOSED, "not closed yet"),
        (NOT_CALLED, "staff were not called"),
    ):
        table.add_row(
            f"  {words}", *("-" if _cannot(name, model) else str(model.outcomes[name]) for model in models)
        )
    table.add_row("falls it missed", *(str(model.missed_falls) for model in models))
    table.add_row("false alarms per week of wear", *map(_rate, models))
    most = [poisson_at_most(model.false + model.not_judged) for model in models]
    table.add_row(
        "  at most (95 %)", *(_per_week(model, events) for model, events in zip(models, most, strict=True))
    )
    return table


def _cannot(outcome: str, model: ModelReport) -> bool:
    """Tell whether this model's alarms cannot end so: whoever calls staff, calls them each time."""
    return outcome == "not-called" and not model.shadow


def _rate(model: ModelReport) -> str:
    least, most = _per_week(model, model.false), _per_week(model, model.false + model.not_judged)
    return least if most == least else f"{least} to {most}"


def _per_week(model: ModelReport, events: float) -> str:
    rate = model.per_week(events)
    return "too soon" if rate is None or model.wearer_weeks < 1 else f"{rate:.2f}"


def _wear(worn_s: float) -> str:
    hours = worn_s / 3600
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 168 else f"{hours / 168:.1f} weeks"


def _words(comparison: Comparison) -> list[str]:
    falls, alarms, name = comparison.falls, comparison.alarms, comparison.shadow
    beside = " or ".join(comparison.beside) or "the first model"
    by_shadow, by_first = alarms["both"] + alarms["shadow"], alarms["both"] + alarms["first"]
    lines = [
        f"Had {name} called staff in place of {beside}: {_count(by_shadow, 'alarm')} in place of {by_first};"
        f" {alarms['both']} the same, {alarms['shadow']} of {name} alone, {alarms['first']} of {beside} alone."
    ]
    if falls.total():
        lines.append(
            f"Of {_count(falls.total(), 'fall')} that staff confirmed, {name} found"
            f" {falls['both'] + falls['shadow']} and {beside} {falls['both'] + falls['first']};"
            f" {falls['neither']} neither of them."
        )
    if falls["first"]:
        lines.append(f"Look first at what {name} missed and {beside} found: {_count(falls['first'], 'fall')}.")
    if comparison.days < DAYS_TO_TRY:
        lines.append(f"{name} has been on trial for {comparison.days:.1f} days: let it run for {DAYS_TO_TRY}.")
    if falls.total() < FALLS_TO_TELL:
        confirmed = _count(falls.total(), "confirmed fall")
        lines.append(f"{confirmed} cannot tell which of them finds more: {FALLS_TO_TELL} begin to.")
    return lines


def _caution(models: list[ModelReport]) -> list[str]:
    lines = []
    few = [m for m in models if m.wearer_weeks < WEEKS_TO_TELL and m.false + m.not_judged < ALARMS_TO_TELL]
    if few:
        worn = _wear(max(model.worn_s for model in few))
        lines.append(
            f"{worn} of wear are too few to tell how rare false alarms are: go by 'at most'. To show fewer than"
            f" one in ten weeks takes {WEEKS_TO_TELL} weeks of wear without any."
        )
    open_alarms = sum(model.outcomes["not-closed"] for model in models if not model.shadow)
    if open_alarms:
        lines.append(f"{_count(open_alarms, 'alarm')} not closed yet: say what was found with fallwatch resolve.")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
