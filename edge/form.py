"""The post-fall incident form: one page that staff complete by hand, without a name and without an NHS number."""

from __future__ import annotations

from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from edge.core.incident import Kind
from edge.export import LONG_LIE_S, Story, duration
from edge.journal import Case
from edge.settings import HomeSettings
from edge.sinks.fhir import FOUND_TEXT

# Ambulance services print this list; what the last letter stands for is not the same everywhere.
_ISTUMBLE = (
    ("I", "Intense pain"),
    ("S", "Suspected collapse"),
    ("T", "Trauma to neck, back or head"),
    ("U", "Unusual behaviour"),
    ("M", "Marked difficulty breathing, or chest pain"),
    ("B", "Bleeding freely"),
    ("L", "Loss of consciousness"),
    ("E", "Evidence of fracture*"),
)
_RAISED = {
    Kind.FALL: "suspected fall",
    Kind.LONG_LIE: "suspected fall with a long time on the floor",
    Kind.HELP_BUTTON: "help button pressed",
}
_INFORMED = ("999 / 111 / GP", "Family or representative", "Manager on duty")
_STYLE = """
@page { size: A4; margin: 9mm 12mm; }
* { box-sizing: border-box; }
body { font: 8.8pt/1.25 "DejaVu Sans", Arial, sans-serif; color: #000; margin: 0 auto; max-width: 186mm; }
h1 { font-size: 14pt; margin: 0; white-space: nowrap; }
h2 { font-size: 9.5pt; margin: 2.4mm 0 1mm; border-bottom: 0.4mm solid #000; }
p { margin: 0.8mm 0; }
header { display: flex; justify-content: space-between; align-items: flex-end; gap: 8mm; }
table { border-collapse: collapse; width: 100%; }
td, th { border: 0.2mm solid #888; padding: 0.6mm 1.4mm; vertical-align: top; text-align: left; }
td { overflow-wrap: anywhere; }
th { font-weight: normal; background: #eee; width: 14%; }
.known td { width: 36%; }
.two { display: flex; gap: 5mm; }
.two > * { flex: 6; }
.two > *:last-child { flex: 5; }
.yn { width: 15mm; text-align: center; white-space: nowrap; }
.write { table-layout: fixed; }
.write td { height: 6.2mm; }
.line { display: flex; align-items: flex-end; gap: 1.5mm; min-height: 6.2mm; }
.line i { flex: 1; border-bottom: 0.2mm solid #000; }
.small { font-size: 7.5pt; }
.drill { border: 0.6mm solid #000; text-align: center; font-weight: bold; padding: 1mm; margin-bottom: 2mm; }
"""
_BOX = "&#9744;"
_YES_NO = f"{_BOX} yes {_BOX} no"


def incident_form(case: Case, home: HomeSettings, *, printed_at: datetime) -> str:
    """Return the form of one incident as a page of HTML, without scripts or other files.

    Raises:
        ValueError: the incident is technical.
    """
    if case.facts.kind not in _RAISED:
        raise ValueError(f"{case.facts.kind} is about the system, not about a resident")
    zone = ZoneInfo(home.timezone)
    story = Story.of(case, zone)
    parts = (
        '<p class="drill">DRILL: a rehearsal, nothing happened</p>' if story.facts.drill else "",
        f"<header><h1>Post-fall incident form</h1><div>{escape(home.name or home.id)}</div></header>",
        _line("Resident's name", "", "Date of birth", ""),
        "<h2>What the system knows (do not change; correct below)</h2>",
        _known(story),
        "<h2>Before the person is moved</h2>",
        f'<div class="two">{_checklist()}{_head_and_injury(story)}</div>',
        "<h2>What happened</h2>",
        _line("Witnessed by", "", "or unwitnessed", _BOX),
        _line("Doing before, footwear, walking aid, floor, light, call bell in reach"),
        _line(),
        _line("What the person says"),
        _line("Treatment and care given, and by whom"),
        "<h2>Who was informed, and when</h2>",
        _informed(),
        "<h2>Questions for the manager</h2>",
        _questions(),
        _line("Completed by (name, role)", "", "Signature", "", "Date, time", ""),
        f'<p class="small">* What the last letter stands for differs between services: use the list of yours. '
        f"Incident {escape(story.facts.incident)}, printed {printed_at.astimezone(zone):%d/%m/%Y %H:%M}. "
        "fallwatch alerts care staff to possible falls; not a medical diagnosis, not the only safeguard.</p>",
    )
    return (
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8"><title>Post-fall incident form</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n"
    )


def _known(story: Story) -> str:
    facts, closed = story.facts, story.closed
    found = FOUND_TEXT.get(closed[2], str(closed[2])) if closed else ""
    floor = ""
    if story.on_floor_s is not None:
        floor = ("" if story.up else "at most ") + duration(story.on_floor_s)
        floor += ", LONG LIE" if story.on_floor_s >= LONG_LIE_S else ""
    score = (
        ""
        if facts.probability is None
        else f", score {facts.probability:.2f} ({facts.model or 'model not known'})"
    )
    cells = (
        ("Where", story.where or "not known"),
        ("Resident id", facts.resident or "not known"),
        ("Happened", _moment(story.began)),
        ("Alarm raised", _moment(story.raised)),
        ("Answered", _who(story.acknowledged)),
        ("Arrived", _who(story.arrived)),
        ("Up from floor", _moment(story.up) if story.up else ""),
        ("Time on floor", floor),
        ("System said", _RAISED[facts.kind] + score),
        ("Staff found", f"{found} ({_who(closed[:2])})" if closed else ""),
    )
    rows = "".join(
        f"<tr>{''.join(f'<th>{escape(name)}</th><td>{escape(said)}</td>' for name, said in cells[i : i + 2])}</tr>"
        for i in range(0, len(cells), 2)
    )
    doubt = "" if facts.clock_ok else "<p><b>The clock was not synchronised: the times may be wrong.</b></p>"
    return f'<table class="known">{rows}</table>{doubt}'


def _checklist() -> str:
    rows = "".join(
        f'<tr><td><b>{letter}</b> {escape(text)}</td><td class="yn">{_YES_NO}</td></tr>'
        for letter, text in _ISTUMBLE
    )
    return f"<div><table>{rows}</table><p><b>Any yes: do not move the person, call 999.</b></p></div>"


def _head_and_injury(story: Story) -> str:
    long_lie = story.on_floor_s is not None and story.on_floor_s >= LONG_LIE_S
    check = "think of pressure damage, hypothermia and rhabdomyolysis; get medical advice"
    lie = (
        f"<b>One hour or more on the floor: {check}.</b>"
        if long_lie
        else f"One hour or more on the floor? Then {check}."
    )
    return (
        "<div>"
        f"<p>Head injury, seen or possible? {_YES_NO}<br>An unwitnessed fall cannot exclude one.</p>"
        + _line("Neuro observations from", "", "by", "")
        + f"<p>{lie}</p>"
        + _line("Injuries: where, what")
        + _line()
        + _line()
        + "</div>"
    )


def _informed() -> str:
    head = "<tr><td><b>Who</b></td><td><b>Name</b></td><td><b>Date, time</b></td><td><b>By</b></td></tr>"
    rows = "".join(f"<tr><td>{escape(who)}</td><td></td><td></td><td></td></tr>" for who in _INFORMED)
    return f'<table class="write">{head}{rows}</table>'


def _questions() -> str:
    questions = (
        "CQC, Regulation 18: did a health care professional reasonably consider that the injury led to lasting "
        "impairment, a change to the structure of the body, prolonged pain or psychological harm, or a shortened "
        "life expectancy, or needs treatment to prevent these or death? If so, was CQC notified without delay?",
        "RIDDOR: was the person taken straight to hospital for treatment, and did the fall arise from the work "
        "activity, such as faulty equipment, or supervision that was assessed as needed and not given? If so, was "
        "it reported?",
        "Care plan: do staff want to review it in the light of this? (What is written here is no prediction.)",
    )
    rows = "".join(f'<tr><td>{escape(text)}</td><td class="yn">{_YES_NO}</td></tr>' for text in questions)
    return f"<table>{rows}</table>"


def _line(*pairs: str) -> str:
    """Return a line to write on: labels, each followed by a rule, or by what is given in its place."""
    pairs = pairs or ("", "")
    if len(pairs) == 1:
        pairs = (*pairs, "")
    rule = "<i></i>"
    cells = "".join(f"<span>{a}</span>{b or rule}" for a, b in zip(pairs[::2], pairs[1::2], strict=True))
    return f'<div class="line">{cells}</div>'


def _moment(moment: datetime) -> str:
    return f"{moment:%d/%m/%Y %H:%M:%S %Z}"


def _who(moment: tuple[datetime, str] | None) -> str:
    return "" if moment is None else f"{moment[1] + ', ' if moment[1] else ''}{moment[0]:%d/%m/%Y %H:%M}"
