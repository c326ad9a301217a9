"""What happened, for people outside: incidents as the care record market names them, and the message log.

Pure functions from journal to rows and text. No name of a resident and no NHS number is known here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from edge.core.incident import Incident, Kind, Outcome
from edge.journal import Case, Event, Note
from edge.settings import Settings
from edge.sinks.fhir import ALERT_TEXT, FOUND_TEXT, receiver

# The names of class Incident of the MODS blueprint, as they are; Date must occur once.
INCIDENT_FIELDS = (
    "Description",
    "Additional information",
    "Instruction",
    "Date",
    "Location",
    "Involved (care actors)",
    "Service provider",
    "Informed (care actors)",
    "Location of document",
    "Care actor",
    "Coding",
)
AUDIT_FIELDS = (
    "seq",
    "at",
    "clock_ok",
    "boot",
    "mono_s",
    "incident",
    "drill",
    "room",
    "what",
    "channel",
    "to",
    "text",
    "accepted",
    "key",
    "state",
    "by",
    "outcome",
    "reason",
    "more",
)
LONG_LIE_S = 3600.0  # one hour and more on the floor harms by itself
CODE_OF_FALL = "SNOMED CT 1912002 | Fall (event)"
BY_DEVICE = "fallwatch (automatic detection)"
_NOT_ON_THE_FLOOR = (Outcome.NOT_A_FALL, Outcome.NEAR_FALL, Outcome.DRILL)


@dataclass(frozen=True, slots=True)
class Story:
    """One incident as it went, times in the home's own zone."""

    facts: Incident
    began: datetime  # impact; when raised where there was none
    raised: datetime
    acknowledged: tuple[datetime, str] | None  # when, by whom
    arrived: tuple[datetime, str] | None
    up: datetime | None  # seen to be off the floor
    closed: tuple[datetime, str, Outcome] | None
    on_floor_s: float | None  # until up, else until closed; None before, and where nobody lay there
    informed: tuple[str, ...]  # whose pagers took the call

    @classmethod
    def of(cls, case: Case, zone: ZoneInfo) -> Story:
        """Read a case of the journal."""

        def when(event: Event | None) -> tuple[datetime, str] | None:
            return None if event is None else (event.at.astimezone(zone), str(event.body.get("by", "")))

        resolved, up = case.first("resolved"), None
        for event in case.events:  # who fell again is no longer up
            if event.kind == "again":
                up = None
            elif event.kind == "motion" and event.body.get("motion") == "upright":
                up = up or event
        closed = when(resolved)
        outcome = None if resolved is None else Outcome(resolved.body["outcome"])
        pages = [e.body for e in case.events if e.kind == "paged" and e.body.get("accepted")]
        return cls(
            facts=case.facts,
            began=(case.facts.impact_at or case.facts.raised_at).astimezone(zone),
            raised=case.facts.raised_at.astimezone(zone),
            acknowledged=when(case.first("acknowledged")),
            arrived=when(case.first("attended")),
            up=None if up is None else up.at.astimezone(zone),
            closed=None if closed is None or outcome is None else (*closed, outcome),
            on_floor_s=None if outcome in _NOT_ON_THE_FLOOR else _floor_s(case, up or resolved),
            informed=tuple(dict.fromkeys(f"{receiver(p['to'])} on {p['channel']}" for p in pages)),
        )

    @property
    def where(self) -> str:
        """Room and bed, as people say them."""
        if self.facts.room is None:
            return ""
        return f"Room {self.facts.room}" + (f", bed {self.facts.bed}" if self.facts.bed else "")


def _floor_s(case: Case, end: Event | None) -> float | None:
    """Return seconds from the impact to an event; across a reboot only by clocks that were right."""
    raised = case.first("raised")
    if end is None or raised is None or case.facts.impact_at is None or case.facts.kind is Kind.HELP_BUTTON:
        return None
    before_s = float(raised.body.get("since_impact_s", 0.0))
    if raised.boot == end.boot:
        return max(end.mono_s - raised.mono_s, 0.0) + before_s
    if case.facts.clock_ok and end.clock_ok:
        return max((end.at - raised.at).total_seconds(), 0.0) + before_s
    return None


def is_about_people(case: Case, *, drills: bool) -> bool:
    """Tell whether an incident is one of people: technical ones are not, drills only where asked for."""
    return case.facts.kind is not Kind.BLIND and (drills or not case.facts.drill)


def incident_row(case: Case, settings: Settings) -> dict[str, str]:
    """Return one incident under the names of `INCIDENT_FIELDS`."""
    story = Story.of(case, ZoneInfo(settings.home.timezone))
    facts, outcome = story.facts, story.closed[2] if story.closed else None
    description = ALERT_TEXT[facts.kind]
    if outcome is not None:
        description += f"; found by staff: {FOUND_TEXT.get(outcome, outcome)}"
    fallen = facts.kind is not Kind.HELP_BUTTON
    return {
        "Description": f"DRILL, nothing happened: {description}" if facts.drill else description,
        "Additional information": "; ".join(_additional(story)),
        "Instruction": "Post-fall check" if fallen and not facts.drill else "",
        "Date": _iso(story.began),
        "Location": story.where,
        "Involved (care actors)": _people(story.acknowledged, story.arrived),
        "Service provider": settings.home.name or settings.home.id,
        "Informed (care actors)": ", ".join(story.informed),
        "Location of document": _document(settings, facts),
        "Care actor": story.closed[1] if story.closed else BY_DEVICE,
        "Coding": CODE_OF_FALL if outcome is Outcome.FALL and not facts.drill else "",  # a person's word, only
    }


def _additional(story: Story) -> Iterator[str]:
    facts = story.facts
    yield f"Incident {facts.incident}"
    if facts.resident:
        yield f"resident {facts.resident}"
    yield f"detected {_iso(story.raised)}"
    if story.acknowledged:
        yield f"acknowledged {_iso(story.acknowledged[0])}"
    if story.arrived:
        yield f"staff arrived {_iso(story.arrived[0])}"
    if story.up:
        yield f"up from the floor {_iso(story.up)}"
    if story.closed:
        yield f"closed {_iso(story.closed[0])}"
    if story.on_floor_s is not None:
        yield f"{'' if story.up else 'at most '}{duration(story.on_floor_s)} on the floor"
        if story.on_floor_s >= LONG_LIE_S:
            yield "long lie: one hour or more"
    if facts.probability is not None:
        yield f"classifier score {facts.probability:.3f} (model {facts.model or 'not known'})"
    if not facts.clock_ok:
        yield "the clock was not synchronised: the times may be wrong"


def _people(*moments: tuple[datetime, str] | None) -> str:
    return ", ".join(dict.fromkeys(moment[1] for moment in moments if moment and moment[1]))


def _document(settings: Settings, facts: Incident) -> str:
    entry = f"Observation {settings.record.identifier_system}/incident|{facts.home}/{facts.incident}"
    return f"{settings.record.base_url or 'record of the fallwatch unit'}, {entry}"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def duration(seconds: float) -> str:
    """Write a time as people say it, such as ``9 min 3 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


# -- the message log ----------------------------------------------------------------------------

_SAID_APART = ("channel", "to", "text", "accepted", "key", "state", "by", "outcome", "reason")


def audit_row(event: Event | Note, facts: Incident | None, zone: ZoneInfo) -> dict[str, Any]:
    """Return an event, or a note of the home (its number begins with n), under the names of `AUDIT_FIELDS`.

    What has no name of its own there is JSON in ``more``.
    """
    body = event.body
    rest = {name: value for name, value in body.items() if name not in _SAID_APART}
    return {
        "seq": event.seq if isinstance(event, Event) else f"n{event.seq}",
        "at": event.at.astimezone(zone).isoformat(timespec="milliseconds"),
        "clock_ok": event.clock_ok and (event.kind != "raised" or facts is None or facts.clock_ok),
        "boot": event.boot,
        "mono_s": event.mono_s,
        "incident": event.incident if isinstance(event, Event) else None,
        "drill": facts.drill if facts else None,
        "room": facts.room if facts else None,
        "what": event.kind,
        **{name: body.get(name) for name in _SAID_APART},
        "to": receiver(str(body["to"])) if body.get("to") else None,
        "more": json.dumps(rest, sort_keys=True) if rest else None,
    }


def audit_rows(
    read: Callable[[int], Sequence[Event]],
    notes: Sequence[Note],
    facts: Callable[[str], Incident | None],
    zone: ZoneInfo,
    *,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[dict[str, Any]]:
    """Yield all that was told and answered in a span of time, events and notes each in their own order.

    Args:
        read: returns some events that follow a number.
        notes: the home's own, oldest first.
        facts: returns what an incident is about.
        zone: of the times.
        since: the first moment, if any.
        until: the moment after the last, if any.
    """
    known: dict[str, Incident | None] = {}
    both: tuple[Iterable[Event | Note], Iterable[Event | Note]] = (_all_events(read), notes)
    for event in merge(*both, key=lambda event: event.at):
        if (since is not None and event.at < since) or (until is not None and event.at >= until):
            continue
        about = None
        if isinstance(event, Event):
            if event.incident not in known:
                known[event.incident] = facts(event.incident)
            about = known[event.incident]
        yield audit_row(event, about, zone)


def _all_events(read: Callable[[int], Sequence[Event]]) -> Iterator[Event]:
    seq = 0
    while events := read(seq):
        yield from events
        seq = events[-1].seq


# -- writing ------------------------------------------------------------------------------------


def write_csv(file: TextIO, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV that a spreadsheet shows and does not run."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in fields])


def _cell(value: Any) -> str:
    """Return a cell; one that a spreadsheet would take for a formula gets an apostrophe before it."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else str(value).lower()
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@", "|", "%")) else text


def write_json(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as one JSON list, a row a line."""
    file.write("[")
    for number, row in enumerate(rows):
        file.write((",\n" if number else "\n") + json.dumps(dict(row), ensure_ascii=False))
    file.write("\n]\n")
