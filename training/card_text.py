"""A bundle's card for people who are not model developers: ``card.md``, made from ``card.json``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edge.core.poisson import poisson_at_most
from models.card import Card
from training.evaluate import wilson

SETS_IN_WORDS = {
    "assist-iot": "ASSIST-IoT, stairs",
    "geotec": "GeoTec watch",
    "hifd": "HIFD",
    "hmp": "HMP",
    "sisfall": "SisFall",
    "smartfallmm-meta-hip": "SmartFallMM, hip sensor",
    "smartfallmm-meta-wrist": "SmartFallMM, wrist sensor",
    "smartfallmm-watch": "SmartFallMM, watch",
    "umafall": "UMAFall",
}


def readable(card: Card) -> str:
    """Return one page of Markdown in plain English, every figure with its count."""
    decision, hop_s = card.decision, card.hop_samples / card.rate_hz
    results: dict[str, Any] = card.facts.get("results", {})
    by_set: dict[str, Any] = results.get("by_set", {})
    seeds = int(results.get("seeds", 1))
    lines = [
        f"# {card.name}: a fall classifier for the {card.placement}",
        "",
        "It alerts care staff to possible falls. It is not a medical diagnosis and not the only safeguard.",
        "",
        "## What it does",
        "",
        f"A sensor worn on the {card.placement} measures movement. Every {hop_s:g} s the "
        f"model looks at the last {card.window_s:g} s and gives them a score. {_number(decision.confirm_windows)} "
        f"scores of {decision.threshold:.3f} or more within {decision.weigh_s:g} s raise an alarm. Weaker signs "
        f"do so if the person then lies still for {decision.long_lie_still_s:g} s. It works whichever way round "
        "the sensor is worn, and knows nothing else of the person.",
        "",
        "## For whom it was tried",
        "",
        *_tried(results),
        "",
        "## How often it found falls, and how often it was wrong",
        "",
    ]
    if not by_set:
        lines.append("It has no figures of its own. Do not use it to look after anybody.")
    else:
        lines += [*_found(by_set, seeds), "", *_wrong(by_set, seeds)]
        if left_out := results.get("left_out"):
            lines += ["", *_left_out(left_out)]
    lines += [
        "",
        "## What it cannot do",
        "",
        f"- It misses falls{_missed(by_set)}. Expect it to miss soft falls and slow slides to the floor most.",
        "- It takes some daily movements for falls. An alarm means: go and look.",
        "- It notices nothing when the sensor is not worn, has no charge or is out of range.",
        "- It does not say whether somebody is hurt, why they fell, or who will fall.",
        "",
        "## Who must not rely on it",
        "",
        "- Nobody may rely on it alone. Rounds, call bells and supervision stay as they are.",
        f"- It was not tried with the sensor anywhere but on the {card.placement}.",
        "- Nobody in the recordings lives in a care home. Nothing is known about people who use a wheelchair or a "
        "walking aid, who have a tremor or seizures, or who fall in other ways than these people did on purpose.",
        "",
        "Data sets, their licences and hashes, and the figures by person are in `card.json` (network "
        f"{card.onnx_sha256[:12]}).",
        "",
    ]
    return "\n".join(lines)


def _tried(results: dict[str, Any]) -> list[str]:
    people: dict[str, Any] = results.get("by_person", {})
    ages: dict[str, Any] = results.get("by_age_group", {})
    if not people:
        return ["On nobody, as far as its card says."]
    fallers = sum(p["falls"] > 0 for p in people.values())
    old = ages.get("old", {"falls": 0, "daily_hours": 0.0})
    seeds = results.get("seeds", 1)
    often = f" Each recording was judged by {seeds} models trained anew, and counts are over all of them."
    return [
        f"On recordings of {len(people)} people, of whom {fallers} fell on purpose. Falls of older people: "
        f"{old['falls'] or 'none'}; daily activity of older people: {old['daily_hours']:.1f} hours. Daily "
        "activity followed a script. Every figure below is about people whom the model that judged them had never "
        "seen." + (often if seeds > 1 else ""),
    ]


def _found(by_set: dict[str, Any], seeds: int) -> list[str]:
    """Return a table by set: each recording alone. Ranges count it once, however often it was judged."""
    lines = [
        "| recordings | falls found | likely range | alarm after impact: half; 95 % within | false alarms in |",
        "|---|---|---|---|---|",
    ]
    for name, kinds in by_set.items():
        trials = kinds["trials"]
        delay = trials["delay_s"]
        low, high = wilson(trials["detected"] // seeds, trials["falls"] // seeds)
        lines.append(
            f"| {SETS_IN_WORDS.get(name, name)} "
            f"| {_of(trials['detected'], trials['falls'])} "
            f"| {f'{100 * low:.0f} to {100 * high:.0f} %' if trials['falls'] else '-'} "
            f"| {'-' if delay['p50'] is None else '{p50:.1f} s; {p95:.1f} s'.format(**delay)} "
            f"| {_of(trials['daily_trials_alarming'], trials['daily_trials'])} |"
        )
    return lines


def _wrong(by_set: dict[str, Any], seeds: int) -> list[str]:
    streams = [kinds["streams"] for kinds in by_set.values()]
    hours, events = sum(s["daily_hours"] for s in streams), sum(s["false_alarms"] for s in streams)
    if not hours:
        return []
    at_most = poisson_at_most(round(events / seeds)) / (hours / seeds)
    during: Counter[str] = Counter()
    for stream in streams:
        during.update(stream["false_by_activity"])
    often = ", ".join(f"{name} ({n})" for name, n in during.most_common(5))
    return [
        "The last column counts recordings of daily activity. With each person's recordings played end to end, "
        f"falls among them, {events} alarms had no fall behind them in {hours:.1f} hours of daily activity: "
        f"{events / hours:.1f} an hour, and with 95 % confidence at most {at_most:.1f}. How many a day in a home "
        "brings is not known." + (f" Most came in recordings called {often}." if often else "")
    ]


def _left_out(left_out: dict[str, Any]) -> list[str]:
    """Return what happened on sensors and people of whole sets it had not learnt from."""
    said = [
        f"{SETS_IN_WORDS.get(name, name)}: falls found {_of(trials['detected'], trials['falls'])}, "
        f"false alarms in {_of(trials['daily_trials_alarming'], trials['daily_trials'])} daily recordings"
        for name, trials in ((name, kinds["trials"]) for name, kinds in left_out.items())
    ]
    return ["A new make of sensor may do worse. With a whole set kept from the model, " + "; ".join(said) + "."]


def _missed(by_set: dict[str, Any]) -> str:
    falls = sum(kinds["trials"]["falls"] for kinds in by_set.values())
    missed = falls - sum(kinds["trials"]["detected"] for kinds in by_set.values())
    return f": {missed} of {falls} above, {100 * missed / falls:.0f} %" if falls else ""


def _of(part: int, of: int) -> str:
    return f"{part} of {of} ({100 * part / of:.1f} %)" if of else "-"


def _number(n: int) -> str:
    return {1: "One", 2: "Two", 3: "Three"}.get(n, str(n))
