"""What staff read on a pager: room first to find, no names, no promises. Standard library only."""

from __future__ import annotations

from datetime import datetime

from edge.core.escalation import Words
from edge.core.incident import Incident, Kind

MOST_CHARACTERS = 128
_HEADS = {Kind.FALL: "FALL?", Kind.LONG_LIE: "LONG LIE?", Kind.HELP_BUTTON: "HELP", Kind.BLIND: "NO COVER"}


def page_text(
    incident: Incident, words: Words, *, local_time: datetime | None, minutes: int = 0, doubted: bool = False
) -> str:
    """Return the text of a page, such as ``FALL? RM 12 BED A 03:14``.

    Args:
        incident: what it is about.
        words: which of its pages.
        local_time: when it happened in the home's own time; None when the clock cannot be believed.
        minutes: time on the floor, for `Words.ON_FLOOR`.
        doubted: a camera saw somebody upright all the while; said last, as small displays cut it off.
    """
    where = place(incident)
    head = "FAULT" if incident.fault else _HEADS[incident.kind]
    if incident.kind is Kind.BLIND:
        cause = incident.cause or "unknown"
        body = f"{where} {cause}" if where else cause
    else:
        body = where
    match words:
        case Words.ALARM:
            text = f"{head} {body}"
        case Words.ON_FLOOR:
            text = f"{head} {where} ON FLOOR {minutes} MIN"
        case Words.MOVING:
            text = f"{head} {where} MOVING"
        case Words.UPRIGHT:
            text = f"GOT UP? {where} PLEASE CHECK"
        case Words.AGAIN:
            text = f"{head} {where} AGAIN"
        case Words.DOWN:
            text = f"{head} {where} SEEN ON FLOOR"
        case Words.CANCELLED:
            # Of several faults this says which; the reason has gone with the fault.
            over = f"{where} {(incident.cause or '').partition(':')[0]}".strip() if incident.fault else where
            text = f"CANCELLED {head} {over}".rstrip()
    if words is Words.ALARM and local_time is not None:
        text += f" {local_time:%H:%M}"
    if doubted:
        text += " CAMERA SEES SOMEBODY UPRIGHT"
    if incident.drill:
        text = f"DRILL {text}"
    return text.upper()[:MOST_CHARACTERS]  # some letters grow: ß becomes SS


def place(incident: Incident) -> str:
    """Return where to go, such as ``RM 12 BED A``; empty for the home as a whole."""
    if incident.room is None:
        return ""
    return f"RM {incident.room}" + (f" BED {incident.bed}" if incident.bed else "")
