"""Commands for the care record and for what goes to others on paper: looked at, sent again, exported."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TextIO
from zoneinfo import ZoneInfo

import typer

from edge.cli import Config, Json, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_STATE, load_settings

By = Annotated[str | None, typer.Option("--by", help="Who; your login name when left out.")]
Since = Annotated[str | None, typer.Option("--since", metavar="DATE", help="From that day on, YYYY-MM-DD.")]
Until = Annotated[str | None, typer.Option("--until", metavar="DATE", help="Up to and with that day.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write it to this file, not to standard output.")]
Format = Annotated[str, typer.Option("--format", help="csv or json.")]

record_app = typer.Typer(no_args_is_help=True, help="The care record: does it work, and what did it refuse.")
export_app = typer.Typer(no_args_is_help=True, help="Incidents, forms and the message log, for others.")
app.add_typer(record_app, name="record")
app.add_typer(export_app, name="export")


# -- record -------------------------------------------------------------------------------------


@record_app.command("check", epilog="Example: fallwatch record check --json")
def record_check(as_json: Json = False, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """Look whether falls can reach the record, resident by resident, writing nothing. Status 1 if not."""
    from edge.sinks.commission import commission

    settings = load_settings(config)
    findings = commission(settings, settings.secrets, state)
    well = all(finding.well for finding in findings)
    if as_json:
        say(json.dumps({"record": settings.record.kind, "well": well, "checks": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.well else 'FAIL'} {finding.what}{': ' if finding.said else ''}{finding.said}")
            if not finding.well:
                say(f"     {finding.remedy}")
        say(
            "The record can be used."
            if well
            else "Not all is well: put right the lines marked FAIL, then check again."
        )
    raise SystemExit(0 if well else 1)


@record_app.command("show", epilog="Example: fallwatch record show --json")
def record_show(as_json: Json = False, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """Show what the record on this machine holds."""
    from edge.sinks import SinkUnavailable
    from edge.sinks.record import RECORD_FILE, EmbeddedRecord

    settings = load_settings(config)
    if settings.record.kind != "embedded":
        stop(f"the record is the server at {settings.record.base_url}: look there", status=1)
    path = state / RECORD_FILE
    record = EmbeddedRecord(path, read_only=True)
    try:
        entries = [asdict(entry) for entry in record.entries()] if path.exists() else []
    except SinkUnavailable as error:
        stop(error.reason, status=1)
    finally:
        record.close()
    if as_json:
        for entry in entries:
            say(json.dumps(entry))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("resource", "when", "room", "status", "text", "incident")
    for entry in entries:
        table.add_row(*(escape(str(entry[k])) for k in ("type", "at", "room", "status", "text", "incident")))
    Console().print(table)
    say(f"{len(entries)} entries.")


@record_app.command("parked", epilog="Example: fallwatch record parked --retry")
def record_parked(
    retry: Annotated[bool, typer.Option("--retry", help="Send all of them once more.")] = False,
    as_json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Show what the record refused and a person must look at."""
    with _journal(state) as journal:
        parked = journal.parked("record")
        for item in parked:
            if retry:
                journal.settle(item.key, "waiting", "sent once more")
            line = {"key": item.key, "incident": item.incident, "reason": item.reason}
            say(json.dumps(line) if as_json else f"{item.key}: {item.reason}")
    if not as_json:
        say(f"{len(parked)} entries{' are sent once more' if retry else ''}.")
        if parked and not retry:
            say("Next: put right what the reason says, then fallwatch record retry KEY, or --all.")


@record_app.command("retry", epilog="Example: fallwatch record retry --all")
def record_retry(
    key: Annotated[str | None, typer.Argument(help="An entry's key as parked shows it, or a part of it.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the record refused.")] = False,
    by: By = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Send what the record refused once more, after whatever kept it out was put right."""
    if (key is None) != everything:
        stop("give the key of one entry, or --all", status=2)
    with _journal(state) as journal:
        parked = journal.parked("record")
        for item in parked if everything else [_only(parked, key or "")]:
            journal.settle(item.key, "waiting", f"sent once more by {by or getpass.getuser()}")
            say(f"{item.key} is sent once more.")
    say("Next: fallwatch record parked, in a minute.")


@record_app.command(
    "give-up", epilog='Example: fallwatch record give-up KEY --by anna --reason "written into the record by hand"'
)
def record_give_up(
    key: Annotated[str, typer.Argument(help="An entry's key as parked shows it, or a part of it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is not to be sent; no names, no numbers.")],
    by: Annotated[str, typer.Option("--by", help="Who decides so.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Stop trying to bring an entry into the record. It is kept here, with who decided so and why."""
    from edge.sinks.record import masked

    if not by.strip() or not reason.strip():
        stop("--by and --reason must say something: they are what remains", status=2)
    with _journal(state) as journal:
        item = _only(journal.parked("record"), key)
        journal.settle(item.key, "given-up", masked(f"by {by}: {reason} (was: {item.reason})"))
    say(f"{item.key} is given up by {by}, and kept. Next: write it into the record by hand, if it is not there.")


# -- export -------------------------------------------------------------------------------------


@export_app.command("incidents", epilog="Example: fallwatch export incidents --format csv --out incidents.csv")
def export_incidents(
    form: Format = "csv",
    since: Since = None,
    until: Until = None,
    drills: Annotated[bool, typer.Option("--drills", help="Rehearsals too, marked as such.")] = False,
    out: Out = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Write incidents under the names of the MODS class Incident, for care records without a link."""
    from edge.export import INCIDENT_FIELDS, incident_row, is_about_people

    settings = load_settings(config)
    begin, end = _span(since, until, settings.home.timezone)
    with _journal(state) as journal:
        cases = journal.cases_since(begin or datetime.min.replace(tzinfo=UTC))
    rows = [
        incident_row(case, settings)
        for case in cases
        if is_about_people(case, drills=drills) and (end is None or case.facts.raised_at < end)
    ]
    _write(form, out, INCIDENT_FIELDS, rows)


@export_app.command("audit", epilog="Example: fallwatch export audit --since 2026-11-01 --format json")
def export_audit(
    form: Format = "csv",
    since: Since = None,
    until: Until = None,
    out: Out = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Write the log of all messages and what came back: pages, record entries, answers, verdicts."""
    from edge.export import AUDIT_FIELDS, audit_rows

    settings = load_settings(config)
    begin, end = _span(since, until, settings.home.timezone)
    with _journal(state) as journal:

        def facts(incident: str) -> Any:
            case = journal.case(incident)
            return None if case is None else case.facts

        notes = journal.notes_since(begin or datetime.min.replace(tzinfo=UTC))
        zone = ZoneInfo(settings.home.timezone)
        _write(
            form, out, AUDIT_FIELDS, audit_rows(journal.events_after, notes, facts, zone, since=begin, until=end)
        )


@export_app.command("form", epilog="Example: fallwatch export form 0193510c --out form.html")
def export_form(
    incident: Annotated[str, typer.Argument(help="Its id, or the first characters of it.")],
    out: Out = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Write a post-fall incident form to print, with what is known filled in and room for what is not."""
    from edge.cli.people import full_id
    from edge.form import incident_form

    settings = load_settings(config)
    with _journal(state) as journal:
        case = journal.case(full_id(journal, incident))
    try:
        text = incident_form(case, settings.home, printed_at=datetime.now(UTC))
    except ValueError as error:
        stop(str(error), status=1)
    with _opened(out) as file:
        file.write(text)
    if out is not None:
        say(f"Written to {out}. Next: open it in a browser and print it, on one side of A4.")


def _span(since: str | None, until: str | None, timezone: str) -> tuple[datetime | None, datetime | None]:
    """Return the first moment and the one after the last; days are those of the home."""
    begin = None if since is None else _day(since, "--since", timezone)
    end = None if until is None else _day(until, "--until", timezone, plus_days=1)
    if begin is not None and end is not None and begin >= end:
        stop(f"--until {until} is before --since {since}", status=2)
    return begin, end


def _day(text: str, option: str, timezone: str, *, plus_days: int = 0) -> datetime:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=ZoneInfo(timezone))
        return (day + timedelta(days=plus_days)).astimezone(UTC)
    except (ValueError, OverflowError):
        stop(f"{option} {text!r} is no date; use YYYY-MM-DD, such as 2026-11-22", status=2)


def _write(form: str, out: Path | None, fields: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    from edge.export import write_csv, write_json

    if form not in {"csv", "json"}:
        stop(f"--format {form!r} is not known; use csv or json", status=2)
    with _opened(out) as file:
        write_csv(file, fields, rows) if form == "csv" else write_json(file, rows)
    if out is not None:
        say(f"Written to {out}.")


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Open a file that its owner alone may read and that appears whole or not at all; or standard output."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    new = out.with_name(f"{out.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
        new.replace(out)
    except OSError as error:
        stop(f"{out}: cannot be written ({error.strerror})", status=1)


def _only(items: list[Any], part: str) -> Any:
    found = [item for item in items if item.key == part] or [item for item in items if part and part in item.key]
    if len(found) != 1:
        what = "no entry" if not found else "more than one entry"
        stop(f"{what} that the record refused has {part!r} in its key: see fallwatch record parked", status=1)
    return found[0]


@contextlib.contextmanager
def _journal(state: Path) -> Iterator[Any]:
    from edge.cli.people import open_journal
    from edge.journal import JournalUnavailable

    journal = open_journal(state)
    try:
        yield journal
    except JournalUnavailable as error:
        stop(str(error), status=1)
    finally:
        journal.close()
