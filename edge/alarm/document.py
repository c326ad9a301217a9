"""An incident as other programs see it: the JSON of the contract, on MQTT, board and command line."""

from __future__ import annotations

from typing import Any

from edge.core.incident import utc_text
from edge.journal import Case

DOCUMENT_SCHEMA = 1


def incident_document(case: Case, *, now_s: float) -> dict[str, Any]:
    """Return the document of one incident: ids and facts, no names, no numbers of people."""
    facts = case.facts
    acknowledged, resolved, motion = case.first("acknowledged"), case.first("resolved"), case.last("motion")
    document = {
        "schema": DOCUMENT_SCHEMA,
        "incident": facts.incident,
        "home": facts.home,
        "kind": facts.kind,
        "state": case.state,
        "resident": facts.resident,
        "room": facts.room,
        "bed": facts.bed,
        "placement": facts.placement,
        "impact_at": None if facts.impact_at is None else utc_text(facts.impact_at),
        "raised_at": utc_text(facts.raised_at),
        "clock_ok": facts.clock_ok,
        "probability": facts.probability,
        "on_floor_s": on_floor_s(case, now_s=now_s),
        "moving": None if motion is None else motion.body["motion"] != "still",
        "witnesses": case.witnesses,
        "doubted": bool(case.doubted),
        "paged": [
            {key: e.body[key] for key in ("channel", "to", "accepted")} | {"at": utc_text(e.at)}
            for e in case.events
            if e.kind == "paged"
        ],
        "acknowledged": None
        if acknowledged is None
        else {"by": acknowledged.body["by"], "at": utc_text(acknowledged.at)},
        "resolved": None
        if resolved is None
        else {"by": resolved.body["by"], "at": utc_text(resolved.at), "outcome": resolved.body["outcome"]},
        "model": facts.model,
        "drill": facts.drill,
    }
    if facts.cause is not None:
        document["cause"] = facts.cause
    if facts.camera is not None:
        document["camera"] = facts.camera
    return document


def since_impact_s(case: Case, *, now_s: float) -> float:
    """Return seconds from the impact to now, by the monotonic clock."""
    raised = case.first("raised")
    if raised is None:
        return 0.0
    return case.elapsed_s(raised, now_s=now_s) + float(raised.body.get("since_impact_s", 0.0))


def on_floor_s(case: Case, *, now_s: float) -> int | None:
    """Return how long the person has lain there: until up again, resolved, or now; None where unknown."""
    if case.facts.impact_at is None or case.facts.kind == "help-button":
        return None
    lain_s = since_impact_s(case, now_s=now_s)
    up = next((e for e in case.events if e.kind == "motion" and e.body["motion"] == "upright"), None)
    for end in (up, case.first("resolved")):
        if end is not None:
            lain_s = min(lain_s, since_impact_s(case, now_s=now_s) - case.elapsed_s(end, now_s=now_s))
    return round(max(lain_s, 0.0))
