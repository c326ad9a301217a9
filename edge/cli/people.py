"""Commands for care staff and installers: what is going on, and what people decided."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import (
    DEFAULT_CONFIG,
    DEFAULT_RUN,
    DEFAULT_STATE,
    ResidentSettings,
    Settings,
    load_settings,
)

if TYPE_CHECKING:
    from edge.journal import Journal

By = Annotated[str | None, typer.Option("--by", help="Who; your login name when left out.")]
OUTCOMES = ("fall", "lowered", "near-fall", "not-a-fall", "drill")
STALE_S = 6.0


@app.command(epilog="Example: fallwatch incidents --json")
def incidents(
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the latest.")] = 50,
    as_json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """List incidents: open ones, or all."""
    from edge.alarm.document import incident_document
    from edge.clock import monotonic_s

    journal = open_journal(state)
    cases = journal.cases(limit=limit) if everything else journal.open_cases()[-limit:]
    documents = [incident_document(case, now_s=monotonic_s()) for case in cases]
    if as_json:
        for document in documents:
            say(json.dumps(document))
        return
    if not documents:
        say("No open incidents." if not everything else "No incidents.")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(Column("incident", no_wrap=True), "what", "who goes", show_lines=True)
    for case, d in zip(cases, documents, strict=True):
        what = f"{d['kind']} room {d['room']} {d['bed'] or ''}" if d["room"] else f"{d['kind']}: {d.get('cause')}"
        lain = "" if d["on_floor_s"] is None else f", {duration(d['on_floor_s'])} on the floor"
        goes = f"{d['state']}: {d['acknowledged']['by']}" if d["acknowledged"] else "NOBODY YET"
        if case.facts.board_only:
            goes = "nobody is called: for the board"
        if d["resolved"]:
            goes = f"closed: {d['resolved']['outcome']}"
        what = f"{'DRILL ' * d['drill']}{what.strip()}, {_short_time(d['raised_at'])}{lain}"
        table.add_row(d["incident"], escape(what), escape(goes))
    Console().print(table)
    say("Next: fallwatch ack INCIDENT, then fallwatch resolve INCIDENT --outcome OUTCOME.")


@app.command(epilog="Example: fallwatch ack 0193510c-1c2d-7a00-8000-0123456789ab --by anna")
def ack(
    incident: Annotated[str, typer.Argument(help="Its id, or the first characters of it.")],
    by: By = None,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Acknowledge an incident: you are going. Pages stop."""
    from edge.journal import JournalUnavailable

    who = by or getpass.getuser()
    try:
        journal = _journal(state)
        full = full_id(journal, incident)
        owner = journal.acknowledge(full, who)
    except JournalUnavailable as error:
        _leave_word(run, error, {"do": "acknowledge", "incident": incident, "by": who})
        return
    if owner is None:
        stop(f"incident {full} is closed already", status=1)
    if owner != who:
        say(f"{owner} had acknowledged {full} already and is going.")
    else:
        say(f"Acknowledged by {who}: {full}. Next: fallwatch resolve {full} --outcome OUTCOME.")


@app.command(epilog="Example: fallwatch resolve 0193510c-1c2d-7a00-8000-0123456789ab --outcome fall --by anna")
def resolve(
    incident: Annotated[str, typer.Argument(help="Its id, or the first characters of it.")],
    outcome: Annotated[str, typer.Option("--outcome", help=f"What you found: {', '.join(OUTCOMES)}.")],
    by: By = None,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Close an incident with what you found."""
    from edge.core.incident import Outcome
    from edge.journal import JournalUnavailable

    if outcome not in OUTCOMES:
        stop(f"--outcome {outcome!r} is not known; use one of {', '.join(OUTCOMES)}", status=2)
    who = by or getpass.getuser()
    try:
        journal = _journal(state)
        full = full_id(journal, incident)
        closed = journal.resolve(full, Outcome(outcome), who)
    except JournalUnavailable as error:
        _leave_word(run, error, {"do": "resolve", "incident": incident, "by": who, "outcome": outcome})
        return
    if not closed:
        stop(f"incident {full} is closed already", status=1)
    say(f"Closed as {outcome}: {full}.")


def _leave_word(run: Path, error: Exception, word: dict[str, Any]) -> None:
    """Tell the alarm service straight what the journal does not take, or end with what is wrong."""
    from edge.runfile import leave_word

    if not leave_word(run, word):
        stop(f"{error}; the alarm service could not be told either: use another way", status=1)
    say(f"{error}. The alarm service has been told; give the whole id if it goes on calling.")


@app.command(epilog="Example: fallwatch snooze --room 12 --minutes 10 --by anna")
def snooze(
    resident: Annotated[str | None, typer.Option("--resident", help="Whose falls are to be quiet.")] = None,
    room: Annotated[str | None, typer.Option("--room", help="The same by room; --bed in shared rooms.")] = None,
    bed: Annotated[str, typer.Option("--bed", help="The bed.")] = "",
    minutes: Annotated[float, typer.Option("--minutes", min=1, max=15, help="For so long, at most 15.")] = 10,
    end: Annotated[bool, typer.Option("--end", help="Call again from now on.")] = False,
    by: By = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Keep falls of one resident quiet while you care for them. It always ends; help and long lies call."""
    who = by or getpass.getuser()
    one = _resident(load_settings(config), resident, room, bed)
    journal = open_journal(state)
    if end:
        journal.end_snooze(one.id, who)
        say(f"Falls of resident {one.id}, room {one.room}, call again from now on.")
        return
    length_s = journal.snooze(one.id, minutes * 60, who)
    say(f"Falls of resident {one.id}, room {one.room}, are quiet for {duration(length_s)}.")
    say("A pressed button, a long lie and somebody who lies still are not. What is open then calls by itself.")


@app.command(epilog="Example: fallwatch drill --room 12 --by anna")
def drill(
    resident: Annotated[str | None, typer.Option("--resident", help="Whose fall is rehearsed.")] = None,
    room: Annotated[str | None, typer.Option("--room", help="The same by room; --bed in shared rooms.")] = None,
    bed: Annotated[str, typer.Option("--bed", help="The bed.")] = "",
    wait_s: Annotated[float, typer.Option("--wait", min=5, help="Seconds to wait for somebody to answer.")] = 600,
    by: By = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Rehearse an alarm: pagers show DRILL, the record counts no fall. Status 1 if nobody answered."""
    from edge.cli.drills import rehearse

    settings = load_settings(config)
    one = _resident(settings, resident, room, bed)
    journal = open_journal(state)
    result = rehearse(journal, settings, one, run, by=by or getpass.getuser(), wait_s=wait_s, tell=not as_json)
    if as_json:
        say(json.dumps(result))
    raise SystemExit(0 if result["acknowledged_s"] is not None else 1)


@app.command(epilog="Example: fallwatch plan --room 12 --at 03:00")
def plan(
    room: Annotated[str | None, typer.Option("--room", help="Where; the home as a whole when left out.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="At this time of day; now when left out.")] = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Show who is called for a fall, when, and on which channels. Status 1 if somebody cannot be reached."""
    from edge.cli.drills import calling_plan

    settings = load_settings(config)
    lines, unreached = calling_plan(settings, room, at)
    for line in lines:
        say(json.dumps(line) if as_json else f"{line['when']:>14}  {line['group']:>8}  {line['channels']}")
    if unreached:
        stop(f"no channel calls group {', '.join(unreached)}: see [[pager]] groups and addresses", status=1)


@app.command(epilog="Example: fallwatch status --json")
def status(
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    run: Run = DEFAULT_RUN,
) -> None:
    """Every source, wearable, pager line and record: well or blind, since when, why. Status 1 if any is blind."""
    from edge.runfile import read_runfile

    settings = load_settings(config)
    detect, alarm = read_runfile(run / "detect.json"), read_runfile(run / "alarm.json")
    parts: list[dict[str, Any]] = [_service("detect", detect), _service("alarm", alarm)]
    fresh = detect if parts[0]["well"] else None
    stopped = None if fresh else "fall detection stopped"
    links = (fresh or {}).get("links", {})
    named = dict.fromkeys([*(d.port for d in settings.dongle), *(w.link for w in settings.wearable), *links])
    parts += [_part("receiver", name, links.get(name), stopped) for name in named]
    for resident in settings.resident:
        parts += _wearable_parts(settings, resident, fresh, stopped)
    parts += camera_parts(settings, detect)
    for name, reason in (fresh or {}).get("models_refused", {}).items():
        parts.append({"part": "model", "name": name, "well": False, "cause": f"refused: {reason}"})
    for told in (fresh or {}).get("shadows", []):
        # A model on trial protects nobody, so nobody is blind when it does not run.
        remark = f"{told['cause']}; nobody is less protected" if told["cause"] else "on trial, calls nobody"
        facts = {"on_trial": told["cause"] is None, "skipped_reads": told["skipped_reads"]}
        parts.append({"part": "shadow", "name": told["model"], "well": True, "cause": remark, **facts})
    fresh = alarm if parts[1]["well"] else None
    stopped = None if fresh else "alarm service stopped"
    for name in [*settings.channel_names(), "record"]:
        part = _part(
            "record" if name == "record" else "pager", name, (fresh or {}).get("channels", {}).get(name), stopped
        )
        if name == "record" and fresh and fresh["record_parked"]:
            part |= {
                "well": False,
                "cause": f"{fresh['record_parked']} entries refused: see fallwatch record parked",
            }
        parts.append(part)
    if not settings.pager:
        parts.append({"part": "pager", "name": "none", "well": False, "cause": "no pager in the settings"})
    if settings.mqtt.host:
        parts.append(
            _part("mqtt", settings.mqtt.host, (fresh or {}).get("mqtt"), stopped or "broker not connected")
        )
    for name, quiet in (fresh or {}).get("snoozes", {}).items():
        remark = f"falls are quiet for {duration(quiet['left_s'])} more, by {quiet['by']}"
        parts.append({"part": "quiet", "name": name, "well": True, "cause": remark})
    if fresh is not None:
        parts.append(_part("journal", "journal", fresh["journal"], None))
    well = all(part["well"] for part in parts)
    if as_json:
        say(json.dumps({"home": settings.home.id, "well": well, "parts": parts}))
    else:
        _show_status(parts, well)
    raise SystemExit(0 if well else 1)


def camera_parts(settings: Settings, detect: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return a part for each camera."""
    stopped = None if _service("detect", detect)["well"] else "fall detection stopped"
    told = (detect or {}).get("cameras", {}) if stopped is None else {}
    parts = []
    for camera in settings.camera:
        part = _part("camera", camera.id, told.get(camera.id), stopped)
        if part.get("paused_left_s") is not None:
            part["cause"] = f"{part['cause']} for {duration(part['paused_left_s'])} more, by {part['paused_by']}"
        parts.append({**part, "resident": camera.resident or None, "room": camera.room})
    return parts


def _wearable_parts(
    settings: Settings, resident: ResidentSettings, detect: dict[str, Any] | None, stopped: str | None
) -> list[dict[str, Any]]:
    """Return a part for each wearable of a resident; a second one that rests blinds nobody."""
    told = (detect or {}).get("residents", {}).get(resident.id, {})
    if not resident.wearables:
        if resident.cover == "none" or settings.cameras_of(resident.id):
            return []
        return [_part("wearable", f"resident {resident.id}", None, "no wearable") | {"room": resident.room}]
    parts = []
    for wearable in resident.wearables:
        part = _part("wearable", wearable, (detect or {}).get("wearables", {}).get(wearable), stopped)
        if not part["well"] and told.get("well"):
            part |= {"well": True, "cause": f"{part['cause']}; the other one protects"}
        elif part["well"] and told.get("warning"):
            part["cause"] = told["warning"]
        parts.append({**part, "resident": resident.id, "room": resident.room})
    return parts


def _service(name: str, told: dict[str, Any] | None) -> dict[str, Any]:
    if told is None:
        return {"part": "service", "name": name, "well": False, "cause": "not running"}
    if told["age_s"] > STALE_S:
        stale = {"well": False, "cause": "stopped or stuck", "since_s": told["age_s"]}
        return {"part": "service", "name": name, **stale}
    return {"part": "service", "name": name, "well": True, "cause": None, **told.get("radio", {})}


def _part(part: str, name: str, told: dict[str, Any] | None, missing: str | None) -> dict[str, Any]:
    if told is None:
        return {
            "part": part,
            "name": name,
            "well": False,
            "cause": missing or "not known to the service: restart it",
        }
    facts = dict(told)
    facts.pop("trail", None)  # for the walk test
    well = bool(facts.pop("well"))
    cause = facts.pop("cause", None)
    return {"part": part, "name": name, "well": well, "cause": cause or (None if well else missing), **facts}


def _show_status(parts: list[dict[str, Any]], well: bool) -> None:
    show_parts(parts)
    say(
        "All is well."
        if well
        else "Not all is well: see the lines marked BLIND. Residents there are not protected."
    )


def show_parts(parts: list[dict[str, Any]]) -> None:
    """Write a table of parts for people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("part", "name", "room", "state", "since", "why", "battery", "counted")
    for part in parts:
        since = part.get("since_s")
        counted = " ".join(f"{k} {part[k]}" for k in COUNTED if part.get(k))
        battery = "" if part.get("battery_pct") is None else f"{part['battery_pct']} %"
        state, colour = ("well", "green") if part["well"] else ("BLIND", "bold red")
        if part.get("on_trial") is False:
            state, colour = "off", "yellow"
        table.add_row(
            part["part"],
            escape(part["name"]),
            escape(part.get("room", "")),
            f"[{colour}]{state}[/]",
            "" if since is None else duration(since),
            escape(str(part["cause"] or "")),
            battery,
            counted,
        )
    Console().print(table)


COUNTED = (
    "lost",
    "duplicates",
    "flooded",
    "forged",
    "stale",
    "malformed",
    "bad_frames",
    "bad_bytes",
    "dropped_by_dongle",
    "unknown_wearable",
    "unreadable",
    "skipped_reads",
    "frame_s_ago",
    "restarts",
    "bad_lines",
)


def _resident(settings: Settings, resident: str | None, room: str | None, bed: str) -> ResidentSettings:
    """Return the one resident that was meant, or end with who could be."""
    if (resident is None) == (room is None):
        stop("name one resident: give --resident, or --room", status=2)
    found = [r for r in settings.resident if r.id == resident or (r.room == room and bed in ("", r.bed))]
    if len(found) != 1:
        meant = ", ".join(f"{r.id} (room {r.room} {r.bed}".rstrip() + ")" for r in found) or "nobody"
        stop(f"that fits {meant}: name one of them with --resident", status=2)
    return found[0]


def open_journal(state: Path) -> Any:
    """Open the journal of a state folder, or end with what is wrong."""
    from edge.journal import JournalUnavailable

    try:
        return _journal(state)
    except JournalUnavailable as error:
        stop(str(error), status=1)


def _journal(state: Path) -> Journal:
    """Open the journal of a state folder; end where there is none.

    Raises:
        JournalUnavailable: there is one, and the disk refuses.
    """
    from edge.journal import JOURNAL_FILE, Journal, JournalUnavailable

    path = state / JOURNAL_FILE
    try:
        path.stat()
    except FileNotFoundError:
        stop(f"{path}: there is no journal yet; has fallwatch run with this --state?", status=1)
    except OSError as error:  # a disk that died
        raise JournalUnavailable(path, str(error)) from None
    return Journal(path)


def full_id(journal: Any, start: str) -> str:
    """Return the one incident whose id begins so, or end with what is wrong."""
    known = [case.facts.incident for case in journal.cases(limit=100_000)]
    found = [full for full in known if full == start] or [full for full in known if full.startswith(start)]
    if len(found) != 1:
        stop(
            f"{'no' if not found else 'more than one'} incident {start!r} is known: see fallwatch incidents",
            status=1,
        )
    return str(found[0])


def duration(seconds: float) -> str:
    """Return a time in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short_time(text: str) -> str:
    return f"{text[8:10]}/{text[5:7]} {text[11:16]}"
