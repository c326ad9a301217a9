"""Rehearsed alarms, and who would be called: what staff and installers try before it matters."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from edge.alarm.service import routes_of
from edge.cli import say, stop
from edge.clock import clock_ok, monotonic_s, utc_now
from edge.core.incident import Incident, Kind, Outcome, new_incident_id
from edge.core.routing import ladder_for
from edge.journal import Journal
from edge.runfile import read_runfile
from edge.settings import CLOCK_PATTERN, ResidentSettings, Settings

LOOK_EVERY_S = 0.2
STALE_S = 6.0


def rehearse(
    journal: Journal,
    settings: Settings,
    resident: ResidentSettings,
    run: Path,
    *,
    by: str,
    wait_s: float,
    tell: bool,
) -> dict[str, Any]:
    """Raise a drill, wait until somebody acknowledges it, close it, and return what came when, in seconds."""
    alarm = read_runfile(run / "alarm.json")
    if alarm is None or alarm["age_s"] > STALE_S:
        stop("the alarm service does not run: start it, then rehearse", status=1)
    now, begun_s = utc_now(), monotonic_s()
    facts = Incident(
        incident=new_incident_id(),
        home=settings.home.id,
        kind=Kind.FALL,
        raised_at=now,
        impact_at=now,
        clock_ok=clock_ok(),
        resident=resident.id,
        room=resident.room,
        bed=resident.bed or None,
        placement=resident.placement,
        drill=True,
    )
    journal.raise_incident(facts, since_impact_s=0.0, by=by)
    result: dict[str, Any] = {"incident": facts.incident, "paged": [], "acknowledged_s": None, "by": None}
    if tell:
        say(f"Drill {facts.incident}: room {resident.room} {resident.bed}".rstrip())
        say("Pagers show DRILL. Whoever answers acknowledges it as a real call.")
    try:
        while result["acknowledged_s"] is None and monotonic_s() - begun_s < wait_s:
            time.sleep(LOOK_EVERY_S)
            case = journal.case(facts.incident)
            assert case is not None
            for event in [e for e in case.events if e.kind == "paged"][len(result["paged"]) :]:
                page = {k: event.body[k] for k in ("channel", "to", "accepted", "reason")}
                result["paged"].append({"after_s": round(event.mono_s - begun_s, 2), **page})
                if tell:
                    done = "accepted" if page["accepted"] else f"NOT accepted ({page['reason']})"
                    say(f"{event.mono_s - begun_s:7.1f} s  {page['channel']} to {page['to']}: {done}")
            answer = case.first("acknowledged") or case.first("resolved")
            if answer is not None:
                result |= {"acknowledged_s": round(answer.mono_s - begun_s, 2), "by": answer.body["by"]}
    finally:
        journal.resolve(facts.incident, Outcome.DRILL, by)
    if tell:
        if result["acknowledged_s"] is None:
            say(f"Nobody answered within {wait_s:g} s. The drill is closed.")
        else:
            say(f"{result['acknowledged_s']:7.1f} s  acknowledged by {result['by']}. The drill is closed.")
    return result


def calling_plan(
    settings: Settings, room: str | None, at: str | None, *, numbers: bool = True
) -> tuple[list[dict[str, str]], list[str]]:
    """Return who is called when and how, with numbers or without, and the groups that nothing reaches."""
    if at is not None and not CLOCK_PATTERN.fullmatch(at):
        stop(f"--at {at!r} is no time of day; use one such as 03:00", status=2)
    moment = datetime.now(ZoneInfo(settings.home.timezone)).strftime("%H:%M") if at is None else at
    minute = int(moment[:2]) * 60 + int(moment[3:])
    ladder = ladder_for(routes_of(settings), room=room, minute=minute)
    lines, unreached = [], []
    for begins_s, rung in zip([0.0, *settings.escalation.steps_s], ladder, strict=False):
        for group in rung:
            ways = [
                (f"{name} {channel.address(group)}" if numbers else name)
                + (" (fallback)" if channel.role == "fallback" else "")
                for name, channel in zip(settings.channel_names(), settings.pager, strict=True)
                if channel.address(group) is not None
            ]
            if not ways:
                unreached.append(group)
            when = "at once" if begins_s == 0 else f"after {begins_s:g} s"
            lines.append({"when": when, "group": group, "channels": ", ".join(ways) or "NO CHANNEL"})
    every = f"every {settings.escalation.repeat_every_s:g} s"
    lines.append({"when": every, "group": "all", "channels": "again, until somebody acknowledges"})
    return lines, unreached
