"""A camera bundle's card for people who are not model developers: ``card.md``, made from ``card.json``."""

from __future__ import annotations

from typing import Any

from edge.core.camera import FLOOR_S, FLOOR_STILL_S, SUSPECT_FLOOR_S
from models.card import Card

IN_WORDS = {
    "replayed": "recorded movement of people who fell on purpose, in made-up rooms",
    "synthetic": "made-up people in made-up rooms",
}


def readable(card: Card) -> str:
    """Return one page of Markdown in plain English, every figure with its count."""
    decision, hop_s = card.decision, card.hop_samples / card.rate_hz
    results: dict[str, Any] = card.facts.get("results", {})
    shares: dict[str, Any] = results.get("shares", {})
    lines = [
        f"# {card.name}: a fall classifier for a depth camera",
        "",
        "It alerts care staff to possible falls. It is not a medical diagnosis and not the only safeguard.",
        "",
        "## What it does",
        "",
        "A depth camera measures how far things are. A program turns that into ten figures about each "
        "person in the "
        "room, such as the height of the head above the floor, and forgets the picture. Every "
        f"{hop_s:g} s the model looks at the last {card.window_s:g} s of these figures and gives them a "
        "score. Two "
        f"scores of {decision.threshold:.2f} or more within {decision.weigh_s:g} s raise an alarm; one of "
        f"{decision.suspect_threshold:.2f} does so if the person then stays on the floor for "
        f"{SUSPECT_FLOOR_S:g} s. "
        "Whoever lies on the floor outside a marked bed raises one without any score: after "
        f"{FLOOR_STILL_S:g} s if they hardly move, else after {FLOOR_S:g} s.",
        "",
        "## For whom it was tried",
        "",
        f"On made-up depth images alone: {IN_WORDS['replayed']}, and {IN_WORDS['synthetic']}. They have "
        "no clothes, "
        "blankets or walking aids. No real depth image of a person, and no resident, is among them. "
        "Every figure below "
        "is about people, rooms and cameras that the model that judged them had never seen; each clip "
        "was judged by "
        f"{results.get('seeds', 0)} models trained anew, and counts are over all of them.",
        "",
        "## How often it found falls, and how often it was wrong",
        "",
    ]
    if not shares:
        lines += ["It has no figures of its own. Do not use it to look after anybody.", ""]
    for name in ("by source", "by activity", "by height", "by tilt"):
        if name in shares:
            lines += [*_table(name, shares[name]), ""]
    if delay := results.get("delay_s"):
        lines += ["From the fall to the alarm: half within {p50} s, 95 % within {p95} s.".format(**delay), ""]
    if error := results.get("floor_error_s"):
        told = (
            "Time on the floor, as told minus as true: half of the clips {p50} s or less, 90 "
            "% from {p5} to {p95} s."
        )
        lines += [told.format(**error), ""]
    lines += [
        "## What it cannot do",
        "",
        "- It sees nobody behind furniture, outside its view, under a blanket that was there before, or "
        "beyond its range.",
        "- Who sits on the floor beside a carer counts as cared for until the carer has gone.",
        "- It takes some movements for falls: going down to the floor on purpose most. An alarm means: "
        "go and look.",
        "- It does not say who it is, whether somebody is hurt, why they fell, or who will fall.",
        "",
        "## Who must not rely on it",
        "",
        "- Nobody may rely on it alone. Rounds, call bells and supervision stay as they are.",
        "",
        "Data sets, their licences, and the figures by person are in `card.json` (network "
        f"{card.onnx_sha256[:12]}).",
        "",
    ]
    return "\n".join(lines)


def _table(name: str, groups: dict[str, dict[str, Any]]) -> list[str]:
    lines = [f"| {name} | falls found | likely range | false alarms in |", "|---|---|---|---|"]
    for group, g in groups.items():
        low, high = g["found_95"]
        likely = f"{100 * low:.0f} to {100 * high:.0f} %" if g["falls"] else "-"
        lines.append(f"| {group} | {_of(g['found'], g['falls'])} | {likely} | {_of(g['alarming'], g['daily'])} |")
    return lines


def _of(part: int, of: int) -> str:
    return f"{part} of {of} ({100 * part / of:.1f} %)" if of else "-"
