"""Commands for the list of residents: taken over from a care record or a spreadsheet, and shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, Json, app, say, stop
from edge.settings import DEFAULT_CONFIG, Settings, load_settings

if TYPE_CHECKING:
    from edge.directory import Plan, Row

FILE_MAX_BYTES = 20 << 20

residents_app = typer.Typer(no_args_is_help=True, help="The list of residents.")
app.add_typer(residents_app, name="residents")


@residents_app.command("list", epilog="Example: fallwatch residents list --json")
def residents_list(as_json: Json = False, config: Config = DEFAULT_CONFIG) -> None:
    """Show who is looked after: ids, rooms, wearables; of numbers only whether there is one."""
    residents = load_settings(config).resident
    lines = [
        {
            "id": r.id,
            "room": r.room,
            "bed": r.bed,
            "wearable": r.wearable,
            "placement": r.placement,
            "nhs_number": bool(r.nhs_number),
            "local_id": bool(r.local_id),
        }
        for r in residents
    ]
    if as_json:
        for line in lines:
            say(json.dumps(line))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("resident", "room", "bed", "wearable", "placement", "NHS number", "local id")
    for line in lines:
        table.add_row(*(("yes" if v else "no") if isinstance(v, bool) else escape(str(v)) for v in line.values()))
    Console().print(table)
    say(f"{len(lines)} residents. Next: fallwatch pair WEARABLE --resident ID, fallwatch record check.")


@residents_app.command(
    "import", epilog='Example: fallwatch residents import list.csv --column room="Room No" --dry-run'
)
def residents_import(
    file: Annotated[Path, typer.Argument(help="CSV with a header, or FHIR JSON (Bundle or one Patient a line).")],
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="FIELD=NAME", help="CSV: which column a field is in.")
    ] = None,
    room_from: Annotated[
        str, typer.Option("--room-from", metavar="URL", help="FHIR: identifier system or extension of the room.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Take the good lines although others are bad.")
    ] = False,
    remove_missing: Annotated[
        bool, typer.Option("--remove-missing", help="Take out residents who are not in the list.")
    ] = False,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Take residents over from a list into the settings, by id; names and birth dates are not looked at.

    Status 1 if any line is bad; then nothing is written, unless --skip-bad.
    """
    from edge.directory import NoDirectory, plan_import

    if skip_bad and remove_missing:
        stop("--remove-missing needs a list without bad lines: leave --skip-bad out", status=2)
    settings = load_settings(config)
    try:
        plan = plan_import(_rows(file, _columns(column or []), room_from, settings), settings.resident)
    except NoDirectory as error:
        stop(f"{file}: {error}", status=1)
    bad = bool(plan.problems)
    removed = plan.missing if remove_missing and not bad else ()
    write = not dry_run and (skip_bad or not bad) and bool(plan.added or plan.changed or removed)
    if write:
        _write(config, plan, removed)
    if as_json:
        document = {
            "written": write,
            "added": plan.added,
            "changed": plan.changed,
            "unchanged": plan.unchanged,
            "missing": plan.missing,
            "removed": removed if write else (),
            "problems": [asdict(problem) for problem in plan.problems],
        }
        say(json.dumps(document))
    else:
        _tell(plan, removed, written=write, dry_run=dry_run)
    raise SystemExit(1 if bad else 0)


def _columns(texts: list[str]) -> dict[str, str]:
    from edge.directory import FIELDS

    columns = {}
    for text in texts:
        field, equals, name = text.partition("=")
        if field not in FIELDS or not equals or not name.strip() or field in columns:
            stop(f"--column {text!r} is wrong; write FIELD=NAME once, FIELD one of {', '.join(FIELDS)}", status=2)
        columns[field] = name
    return columns


def _rows(file: Path, columns: dict[str, str], room_from: str, settings: Settings) -> list[Row]:
    from edge.directory import NoDirectory, decoded, parse_csv, parse_fhir

    try:
        if file.stat().st_size > FILE_MAX_BYTES:
            raise NoDirectory(f"it is larger than {FILE_MAX_BYTES >> 20} MiB")
        text = decoded(file.read_bytes())
    except OSError as error:
        raise NoDirectory(f"cannot be read ({error.strerror})") from None
    if text.lstrip().startswith(("{", "[")):
        return parse_fhir(text, local_system=settings.record.patient_local_system, room_from=room_from)
    if room_from:
        stop("--room-from is for FHIR; for CSV use --column room=NAME", status=2)
    return parse_csv(text, columns)


def _write(config: Path, plan: Plan, removed: tuple[str, ...]) -> None:
    """Change the residents' tables in the settings and nothing else; first see that the result can be used."""
    import tomllib

    import tomlkit

    from edge.checked import build
    from edge.cli.edit import write_settings
    from edge.directory import FIELDS

    document: Any = tomlkit.parse(config.read_text(encoding="utf-8"))
    if not document.get("resident"):
        document["resident"] = tomlkit.aot()
    tables = document["resident"]
    for number in range(len(tables) - 1, -1, -1):
        if tables[number]["id"] in removed:
            del tables[number]
    wanted = {resident.id: asdict(resident) for resident in plan.residents}
    for table in tables:
        for key in plan.changed.get(table["id"], ()):
            table[key] = wanted[table["id"]][key]
    for id_ in plan.added:
        new: Any = tomlkit.table() if isinstance(tables, tomlkit.items.AoT) else tomlkit.inline_table()
        new.update({key: wanted[id_][key] for key in FIELDS if wanted[id_][key]})
        tables.append(new)
    text = tomlkit.dumps(document)
    build(Settings, tomllib.loads(text), config, "")
    write_settings(config, text)


def _tell(plan: Plan, removed: tuple[str, ...], *, written: bool, dry_run: bool) -> None:
    after = {resident.id: resident for resident in plan.residents}
    for problem in plan.problems:
        say(f"line {problem.line}: {problem.key}: {problem.remedy}")
    for id_ in plan.added:
        say(f"new      {id_}: room {after[id_].room} {after[id_].bed}".rstrip())
    for id_, keys in plan.changed.items():
        place = f": room {after[id_].room} {after[id_].bed}".rstrip() if {"room", "bed"} & set(keys) else ""
        say(f"changed  {id_}{place} ({', '.join(keys)})")
    for id_ in plan.missing:
        worn = (
            f", and was watched by wearable {after[id_].wearable}"
            if id_ in removed and after[id_].wearable
            else ""
        )
        say(f"{'removed' if id_ in removed else 'missing'}  {id_}: not in the list{worn}")
    counts = f"{len(plan.added)} new, {len(plan.changed)} changed, {len(plan.unchanged)} as before"
    say(f"{counts}, {len(plan.missing)} {'removed' if removed else 'missing'}, {len(plan.problems)} problems.")
    if written:
        say("Written. Next: fallwatch record check, then sudo systemctl restart fallwatch.target.")
    elif dry_run:
        say("Nothing is written: --dry-run.")
    elif plan.problems:
        say("Nothing is written. Next: correct those lines, or take the others with --skip-bad.")
