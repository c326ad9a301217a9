"""The command that writes the paper which is handed over with a home."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import (
    DEFAULT_CONFIG,
    DEFAULT_RUN,
    DEFAULT_STATE,
    Settings,
    load_settings,
    nhs_number_is_valid,
)

if TYPE_CHECKING:
    from edge.doctor.finding import Finding
    from edge.walk.book import Book

SHORT = 12  # characters of a hash: enough to compare by eye
CASES = 100_000
_NHS = re.compile(r"(?<![\w-])\d{3} ?\d{3} ?\d{4}(?![\w-])")
_TELEPHONE = re.compile(r"(?<!\w)(?:\+\d{7,15}|0\d{9,10})(?!\w)")
STATES = ("well", "warning", "fault", "skipped")


@app.command(epilog="Example: fallwatch sheet --by installer --out sheet.html")
def sheet(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it to this file, not to standard output.")
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="ROLE", help="Who made it, as a role; no name.")] = "",
    doctor: Annotated[
        Path | None, typer.Option("--doctor", help="What fallwatch doctor --json said; it is asked when left out.")
    ] = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Write the commissioning sheet: a page to print, sign and keep. Status 1 if anything is not well."""
    from edge.walk.book import BookUnusable, read_book
    from edge.walk.drawing import walk_map
    from edge.walk.sheet import sheet_html

    settings = load_settings(config)
    try:
        book = read_book(state)
    except BookUnusable as error:
        stop(str(error), status=2)
    found = _told_findings(doctor) if doctor is not None else _findings(settings, state, run)
    content = sheet_content(settings, state, run, book, found, by=by)
    if as_json:
        text = json.dumps(content) + "\n"
    else:
        title = f"Walk test: {settings.home.name or settings.home.id}"
        text = sheet_html(content, walk_map(book.plan, book.rooms, title=title))
    try:
        if out is None:
            say(text.rstrip("\n"))
        else:
            out.write_text(text, encoding="utf-8")
    except OSError as error:
        stop(f"{out}: cannot be written ({error.strerror}); name another with --out", status=2)
    if out is not None:
        say(f"Written: {out}. Next: open it in a browser, print it, tick what was seen, and sign it.")
        for words, key in (("not covered", "not_covered"), ("at fault", "at_fault")):
            for line in content[key]:
                say(f"{words}: {line}")
    raise SystemExit(1 if content["not_covered"] or content["at_fault"] else 0)


def sheet_content(
    settings: Settings, state: Path, run: Path, book: Book, found: Iterable[Finding], *, by: str
) -> dict[str, Any]:
    """Gather all that stands on the sheet, without a number longer than a pager's."""
    from edge.clock import clock_ok, utc_now
    from edge.runfile import read_runfile
    from edge.sinks.commission import commission
    from edge.walk.sheet import at_fault, not_covered

    told = read_runfile(run / "detect.json") or {}
    plans, unreached = _plans(settings)
    content: dict[str, Any] = {
        "home": {"id": settings.home.id, "name": settings.home.name},
        "written_at": _local(utc_now(), settings),
        "clock_ok": clock_ok(),
        "by": by,
        "software": _software(settings, told.get("models", {})),
        "residents": [
            {
                "id": r.id,
                "room": r.room,
                "bed": r.bed,
                "wearables": [f"{w} ({settings.wearable_kind(w)})" for w in r.wearables],
                "placement": r.placement if r.wearables else "-",
                "cover": r.cover,
                "record": "by NHS number" if r.nhs_number else "by local id" if r.local_id else "NO NUMBER",
            }
            for r in settings.resident
        ],
        "receivers": _receivers(settings, told.get("links", {})),
        "cameras": [
            {
                "id": c.id,
                "room": c.room,
                "resident": c.resident,
                "kind": c.kind,
                "consent": c.consent
                and (c.consent.kind, c.consent.given.isoformat(), c.consent.review.isoformat()),
            }
            for c in settings.camera
        ],
        "channels": [
            {"name": name, "kind": c.kind, "role": c.role, "test_at": c.test_at, "groups": _called(settings, c)}
            for name, c in zip(settings.channel_names(), settings.pager, strict=True)
        ],
        "plans": plans,
        "unreached": unreached,
        "checks": [asdict(finding) for finding in found],
        "record": {
            "kind": settings.record.kind,
            "checks": [asdict(finding) for finding in commission(settings, settings.secrets, state)],
        },
        "walk": book.document(settings),
        **_from_journal(settings, state),
    }
    content |= {"not_covered": not_covered(content), "at_fault": at_fault(content)}
    without: dict[str, Any] = _without_numbers(content)
    return without


def _findings(settings: Settings, state: Path, run: Path) -> Iterable[Finding]:
    from edge.doctor.checks import Home, examine

    return examine(Home(settings, state, run, wait_s=8.0, pages=False))


def _told_findings(file: Path) -> list[Finding]:
    """Return what `fallwatch doctor --json` wrote."""
    from edge.doctor.finding import Finding

    try:
        found = [
            Finding(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except OSError as error:
        stop(f"{file}: cannot be read ({error.strerror})", status=2)
    except (ValueError, TypeError):
        found = [Finding("", "fault", "")]
    if any(finding.state not in STATES or not finding.part for finding in found):
        stop(f"{file}: is not what fallwatch doctor --json writes; write it anew", status=2)
    return found


def _software(settings: Settings, running: dict[str, str]) -> dict[str, Any]:
    """Return version, models and hashes: of the models those that run, else those that would."""
    from models.card import BUNDLES, BundleRefused, newest, read_card

    placements = {r.placement for r in settings.resident if r.wearables} | (
        {"camera"} if settings.camera else set()
    )
    models = []
    for placement in sorted(placements):
        wanted = getattr(settings.detect, f"{placement}_model") or running.get(placement, "")
        try:
            folder = Path(wanted) if "/" in wanted else BUNDLES / wanted if wanted else newest(placement)
            card = read_card(folder)
            models.append({"placement": placement, "name": card.name, "sha256": card.onnx_sha256[:SHORT]})
        except BundleRefused as error:
            models.append({"placement": placement, "name": wanted or "none", "sha256": "", "refused": str(error)})
    return {
        "version": metadata.version("fallwatch"),
        "models": models,
        "settings_sha256": hashlib.sha256(settings.path.read_bytes()).hexdigest()[:SHORT],
    }


def _receivers(settings: Settings, links: dict[str, Any]) -> list[dict[str, Any]]:
    names = dict.fromkeys([*(d.port for d in settings.dongle), *(w.link for w in settings.wearable), *links])
    silent = {"well": False, "cause": "fall detection does not run"}
    return [{"name": name, **{key: links.get(name, silent)[key] for key in ("well", "cause")}} for name in names]


def _called(settings: Settings, channel: Any) -> list[str]:
    groups = dict.fromkeys([*settings.escalation.groups, *(g for route in settings.route for g in route.groups)])
    return [group for group in groups if channel.address(group) is not None]


def _plans(settings: Settings) -> tuple[list[dict[str, Any]], list[str]]:
    """Return whom each zone calls in each shift, the same said once; and the groups that nothing reaches."""
    from edge.cli.drills import calling_plan

    places = [(zone.name, zone.rooms[0]) for zone in settings.zone] + [("the rest of the home", None)]
    times = [(shift.name, shift.begins) for shift in settings.shift] or [("always", "12:00")]
    plans: dict[str, dict[str, Any]] = {}
    unreached: dict[str, None] = {}
    for place, room in places:
        for time, at in times:
            lines, stray = calling_plan(settings, room, at, numbers=False)
            plan = plans.setdefault(json.dumps(lines), {"for": [], "lines": lines})
            plan["for"].append(f"{place}, {time}")
            unreached |= dict.fromkeys(stray)
    said = [{"for": "; ".join(plan["for"]), "lines": plan["lines"]} for plan in plans.values()]
    return (said if settings.zone or settings.shift else [{**said[0], "for": "The whole home, always"}]), [
        *unreached
    ]


def _from_journal(settings: Settings, state: Path) -> dict[str, Any]:
    """Return the last drill, the last page of a drill by channel and group, and the last test by channel."""
    from edge.journal import JOURNAL_FILE, Journal, JournalUnavailable

    drills, tests = [], []
    if (state / JOURNAL_FILE).exists():
        try:
            journal = Journal(state / JOURNAL_FILE)
            try:
                drills = [case for case in journal.cases(limit=CASES) if case.facts.drill]
                tests = [
                    n for name in settings.channel_names() if (n := journal.last_note("tested", channel=name))
                ]
            finally:
                journal.close()
        except JournalUnavailable as error:
            stop(str(error), status=1)
    paged = {(e.body["channel"], e.body["to"]): e for case in drills for e in case.events if e.kind == "paged"}
    pages = []
    for name, channel in zip(settings.channel_names(), settings.pager, strict=True):
        for group in _called(settings, channel):
            event = paged.get((name, group))
            page = {"channel": name, "group": group, "tried_at": event and _local(event.at, settings)}
            body = {"accepted": None, "reason": ""} if event is None else event.body
            pages.append({**page, "accepted": body["accepted"], "reason": body["reason"]})
    last = drills[-1] if drills else None
    answer = last and (last.first("acknowledged"))
    raised = last and last.first("raised")
    return {
        "drill": last
        and {
            "at": _local(last.facts.raised_at, settings),
            "room": last.facts.room or "",
            "acknowledged_s": round(answer.mono_s - raised.mono_s, 1) if answer and raised else None,
        },
        "pages": pages,
        "tests": [
            {"at": _local(n.at, settings), **{key: n.body[key] for key in ("channel", "accepted", "reason")}}
            for n in tests
        ],
    }


def _local(moment: datetime, settings: Settings) -> str:
    return f"{moment.astimezone(ZoneInfo(settings.home.timezone)):%d/%m/%Y %H:%M}"


def _without_numbers(value: Any) -> Any:
    """Return the content with NHS and telephone numbers hidden, should a text that others wrote hold one."""
    if isinstance(value, dict):
        return {key: _without_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_numbers(inner) for inner in value]
    if isinstance(value, str):
        value = _NHS.sub(lambda found: "***" if nhs_number_is_valid(found[0]) else found[0], value)
        return _TELEPHONE.sub("***", value)
    return value
