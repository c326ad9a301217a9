"""The commissioning sheet: what was set up in a home, what was tried, what is not covered, and who signs for it.

It is handed over on paper, so it holds ids and rooms alone: no names of people, no NHS or telephone numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

SENTENCE = "fallwatch alerts care staff to possible falls; not a medical diagnosis, not the only safeguard."
SIGNS = (
    (
        "Installer",
        "The parts above were tried as written. Every room named as good was walked. Each pager was seen to show "
        "a test page. Keys and passwords were left with nobody but the manager.",
    ),
    (
        "Manager",
        "I have read what is not covered, and it is covered in another way. Staff have the page and the pocket "
        "card. Consent is reviewed before the dates above. The system is an aid beside rounds and call bells.",
    ),
)
_BOX = "&#9744;"
_STYLE = """
@page { size: A4; margin: 12mm; }
* { box-sizing: border-box; }
body { font: 9.5pt/1.35 "DejaVu Sans", Arial, sans-serif; color: #000; background: #fff; margin: 0 auto;
  max-width: 186mm; padding: 0 2mm; }
h1 { font-size: 16pt; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 5mm 0 1.5mm; border-bottom: 0.4mm solid #000; break-after: avoid; }
h3 { font-size: 9.5pt; margin: 2.5mm 0 1mm; break-after: avoid; }
p { margin: 1mm 0; }
ul { margin: 1mm 0; padding-left: 5mm; }
table { border-collapse: collapse; width: 100%; margin-bottom: 2mm; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
td, th { border: 0.2mm solid #888; padding: 0.7mm 1.4mm; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { background: #eee; font-weight: bold; }
.known th { width: 30%; font-weight: normal; }
.bad { font-weight: bold; white-space: nowrap; }
.bad::before { content: "\\25B2\\00A0"; }
.warn { border: 0.6mm solid #000; padding: 1mm 2mm; margin: 2mm 0; }
.map svg { width: 100%; max-height: 150mm; border: 0.2mm solid #888; }
.map { break-inside: avoid; }
.sign { break-inside: avoid; margin-top: 3mm; }
.lines { display: flex; flex-wrap: wrap; gap: 2mm 4mm; margin-top: 8mm; }
.lines span { flex: 1 1 40mm; border-top: 0.2mm solid #000; font-size: 8pt; padding-top: 0.5mm; }
.small { font-size: 8pt; }
@media screen and (max-width: 600px) {
  body { padding: 0 3mm; font-size: 10pt; } table { font-size: 8.5pt; } td, th { padding: 0.6mm 0.9mm; }
}
"""


def not_covered(content: Mapping[str, Any]) -> list[str]:
    """Return what a manager has to cover in another way, a line each."""
    walk = content["walk"]
    lines = [
        f"Room {room['room']}: {room['cover']} ({'; '.join(room['reasons'])})"
        for room in walk["rooms"]
        if room["cover"] != "good"
    ]
    lines += [f"Room {name}: not walked" for name in walk["unwalked"]]
    for resident in content["residents"]:
        who = f"Resident {resident['id']}, room {resident['room']} {resident['bed']}".rstrip()
        camera = any(camera["resident"] == resident["id"] for camera in content["cameras"])
        if resident["cover"] == "none":
            lines.append(f"{who}: nobody is to be called (cover = none)")
        elif not resident["wearables"] and not camera:
            lines.append(f"{who}: no wearable and no camera")
        elif resident["cover"] == "should":
            lines.append(f"{who}: a loss of cover is shown, nobody is called for it (cover = should)")
    lines += [
        f"Camera {c['id']}, room {c['room']}: off, no consent is noted"
        for c in content["cameras"]
        if not c["consent"]
    ]
    return lines


def at_fault(content: Mapping[str, Any]) -> list[str]:
    """Return what the installer has to put right, a line each."""
    lines = [f"{part['part']}: {part['says']}" for part in content["checks"] if part["state"] == "fault"]
    lines += [f"group {group}: no channel calls it" for group in content["unreached"]]
    lines += [f"record: {c['what']}: {c['said']}" for c in content["record"]["checks"] if not c["well"]]
    if content["drill"] is None or content["drill"]["acknowledged_s"] is None:
        lines.append("no drill was answered: fallwatch drill --room ROOM")
    return lines


def sheet_html(content: Mapping[str, Any], walk_map: str | None) -> str:
    """Return the sheet as a page of HTML to print, without scripts or other files.

    Args:
        content: what `edge.cli.sheet.sheet_content` gathers; all of it is escaped.
        walk_map: the drawn map as SVG, where there is one.
    """
    home = content["home"]
    title = f"Commissioning sheet: {home['name'] or home['id']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><b>{escape(SENTENCE)}</b></p>",
        _known(
            {
                "Home": f"{home['id']} {home['name']}".strip(),
                "Written": f"{content['written_at']} by {content['by'] or 'nobody named'}"
                + ("" if content["clock_ok"] else ": THE CLOCK WAS NOT SYNCHRONISED, the time may be wrong"),
                "fallwatch": content["software"]["version"],
                "Models": ", ".join(
                    f"{m['placement']}: {m['name']} ({m['sha256'] or 'not found'})"
                    for m in content["software"]["models"]
                )
                or "none",
                "Settings file": content["software"]["settings_sha256"],
            }
        ),
        "<h2>Not covered</h2>",
        _listed(
            "The home covers this in another way:",
            content["not_covered"],
            "Nothing that is known. A wearable that is not worn, flat or out of the house protects nobody.",
        ),
        _listed("To be put right before it is handed over:", content["at_fault"], ""),
        "<h2>Rooms, residents, devices</h2>",
        _residents(content["residents"]),
        _table(
            ("receiver", "now"),
            [(r["name"], _state(r["well"], r["cause"])) for r in content["receivers"]],
            "No receiver is in the settings.",
        ),
        "<h2>Depth cameras and consent</h2>",
        _table(
            ("camera", "room", "resident", "kind", "allowed by", "since", "review before"),
            [
                (
                    c["id"],
                    c["room"],
                    c["resident"] or "-",
                    c["kind"],
                    *(c["consent"] or ("NOTHING: it is off", "-", "-")),
                )
                for c in content["cameras"]
            ],
            "None.",
        ),
        "<h2>Who is called, when</h2>",
        _table(
            ("channel", "kind", "role", "groups", "daily test"),
            [
                (c["name"], c["kind"], c["role"], ", ".join(c["groups"]), c["test_at"] or "NONE")
                for c in content["channels"]
            ],
            "No channel is in the settings: nobody is called.",
        ),
        *(
            f"<h3>{escape(plan['for'])}</h3>"
            + _table(
                ("when", "group", "channels"), [(p["when"], p["group"], p["channels"]) for p in plan["lines"]], ""
            )
            for plan in content["plans"]
        ),
        "<h2>Pages that were tried</h2>",
        _pages(content),
        "<h2>Walk test</h2>",
        _walk(content["walk"]),
        f'<div class="map">{walk_map}</div>' if walk_map else "",
        "<h2>What doctor found</h2>",
        _table(
            ("part", "state", "found", "to do"),
            [(c["part"], _mark(c["state"]), c["says"], c["next"]) for c in content["checks"]],
            "It was not run: fallwatch doctor.",
        ),
        "<h2>Care record</h2>",
        _table(
            (f"record: {content['record']['kind']}", "state", "found", "to do"),
            [(c["what"], _state(c["well"], None), c["said"], c["remedy"]) for c in content["record"]["checks"]],
            "It was not tried: fallwatch record check.",
        ),
        "<h2>Signed</h2>",
        *(_sign(who, what) for who, what in SIGNS),
        f'<p class="small">{escape(SENTENCE)} Keep this sheet with the home\'s safety papers. A new one '
        "is made after each change of rooms, receivers, channels or cameras.</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body></html>\n"
    )


def _listed(head: str, lines: Sequence[str], empty: str) -> str:
    if not lines:
        return f"<p>{escape(empty)}</p>" if empty else ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warn"><p><b>{escape(head)}</b></p><ul>{items}</ul></div>'


def _residents(residents: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        ("room", "bed", "resident", "wearables", "worn at", "cover", "in the record"),
        [
            (
                r["room"],
                r["bed"],
                r["id"],
                ", ".join(r["wearables"]) or "NONE",
                r["placement"],
                r["cover"],
                r["record"],
            )
            for r in residents
        ],
        "No resident is in the settings.",
    )


def _pages(content: Mapping[str, Any]) -> str:
    drill = content["drill"]
    if drill is None:
        told = "<p><b>No drill was done: fallwatch drill --room ROOM, and print this again.</b></p>"
    else:
        answer = (
            f"acknowledged after {drill['acknowledged_s']:g} s"
            if drill["acknowledged_s"] is not None
            else "NOBODY ACKNOWLEDGED"
        )
        told = f"<p>Last drill {escape(drill['at'])}, room {escape(drill['room'])}: {escape(answer)}.</p>"
    rows = [
        (
            page["channel"],
            page["group"],
            page["tried_at"] or "-",
            {None: "NOT TRIED", True: "taken", False: f"REFUSED: {page['reason']}"}[page["accepted"]],
            None,
        )
        for page in content["pages"]
    ]
    tests = [
        (t["channel"], t["at"], "taken" if t["accepted"] else f"REFUSED: {t['reason']}") for t in content["tests"]
    ]
    return (
        told
        + _table(
            ("channel", "group", "last page of a drill", "transmitter", "seen on the pager"),
            rows,
            "Nobody is called.",
        )
        + (_table(("channel", "last daily test", "transmitter"), tests, "") if tests else "")
    )


def _walk(walk: Mapping[str, Any]) -> str:
    rows = [
        (
            room["room"],
            _mark(room["cover"]),
            _figures(room["wearables"], "rssi_median_dbm", "{:g} dBm"),
            _figures(room["wearables"], "lost_part", "{:.1%}"),
            _figures(room["wearables"], "gap_s", "{:g} s"),
            "; ".join(room["reasons"]),
        )
        for room in walk["rooms"]
    ]
    rows += [(name, _mark("not walked"), "", "", "", "") for name in walk["unwalked"]]
    todo = "".join(f"<li>{escape(line)}</li>" for line in walk["todo"])
    return _table(("room", "cover", "signal", "lost", "longest gap", "why"), rows, "No room was walked.") + (
        f"<ul>{todo}</ul>" if todo else ""
    )


def _figures(wearables: Iterable[Mapping[str, Any]], key: str, form: str) -> str:
    return ", ".join("-" if one[key] is None else form.format(one[key]) for one in wearables)


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _mark(state: str) -> _Html:
    """Return a state, with a mark that no colour is needed for where something is wrong."""
    wrong = state not in {"well", "good", "skipped"}
    return _Html(f'<span class="bad">{escape(state.upper())}</span>' if wrong else escape(state))


def _state(well: bool, cause: str | None) -> _Html:
    return _Html("well") if well else _mark(cause or "fault")


def _table(head: Sequence[str], rows: Sequence[Sequence[str | None]], empty: str) -> str:
    """Return a table; a cell that is None is to be ticked by hand."""
    if not rows:
        return f"<p>{escape(empty)}</p>" if empty else ""

    def cell(value: str | None) -> str:
        return _BOX if value is None else value if isinstance(value, _Html) else escape(value)

    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _known(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in facts.items())
    return f'<table class="known"><tbody>{rows}</tbody></table>'


def _sign(who: str, what: str) -> str:
    lines = "".join(f"<span>{name}</span>" for name in (f"{who}, name in capitals", "signature", "date"))
    return (
        f'<div class="sign"><b>{escape(who)}</b> signs for: {escape(what)}<div class="lines">{lines}</div></div>'
    )
