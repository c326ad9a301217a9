"""The installer's last step and first resort: does every part work, and one file for support."""

from __future__ import annotations

import json
import logging
import os
import shutil
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE, load_settings

if TYPE_CHECKING:
    from edge.doctor.finding import Finding

WORDS = {"well": "well", "warning": "WARNING", "fault": "FAULT", "skipped": "skipped"}
PART_COLUMNS = 24
LEAST_COLUMNS, MOST_COLUMNS = 60, 120


@app.command(epilog="Example: fallwatch doctor --only pager --only record")
def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PART", help="This part alone; may be given again.")
    ] = None,
    pages: Annotated[
        bool,
        typer.Option(
            "--pages/--no-pages",
            help="Send a test page by each channel. A real pager sounds and people run: tell staff before.",
        ),
    ] = True,
    wait_s: Annotated[
        float,
        typer.Option("--wait-s", min=1, max=300, help="Seconds to wait for frames of wearables and cameras."),
    ] = 8.0,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Try every part for real and say what to do. Status 1 if anything is at fault; best run as root.

    While the services run it hears what they say and pages by way of them; else it opens the ports itself.
    """
    from edge.doctor.checks import PARTS, Home, examine

    for part in only or ():
        if part not in PARTS:
            stop(f"--only {part!r} is no part; use one of {', '.join(PARTS)}", status=2)
    settings = load_settings(config)
    logging.basicConfig(handlers=[logging.NullHandler()])  # findings say it, once and with what to do
    found = []
    for finding in examine(Home(settings, state, run, wait_s, pages), only or ()):
        found.append(finding)
        say(json.dumps(asdict(finding)) if as_json else as_text(finding))
    if not as_json:
        say(last_line(found))
    raise SystemExit(1 if any(finding.state == "fault" for finding in found) else 0)


def as_text(finding: Finding, columns: int | None = None) -> str:
    """Return a finding as people read it in a terminal of any width, each line no longer than that."""
    width = min(max(columns or shutil.get_terminal_size().columns, LEAST_COLUMNS), MOST_COLUMNS) - 1
    start = f"{WORDS[finding.state]:<8} {_short(finding.part):<{PART_COLUMNS}} "
    indent = " " * 9
    lines = textwrap.wrap(start + finding.says, width, subsequent_indent=indent, drop_whitespace=True)
    if finding.next:
        lines += textwrap.wrap(
            f"do: {finding.next}", width, initial_indent=indent, subsequent_indent=indent + "    "
        )
    return "\n".join(lines)


def _short(part: str) -> str:
    """Return a part's name, of a path the end."""
    word, _, name = part.partition(" ")
    return f"{word} {Path(name).name}".strip()


def last_line(found: list[Finding]) -> str:
    """Return the sum of all findings, and where to begin."""
    counted = Counter(finding.state for finding in found)
    worst = next((f for state in ("fault", "warning") for f in found if f.state == state), None)
    begin = "nothing is left to do here" if worst is None else f"see {_short(worst.part)} above"
    return (
        f"{counted['well']} well, {counted['warning']} warnings, {counted['fault']} faults"
        f"{', ' + str(counted['skipped']) + ' skipped' if counted['skipped'] else ''}. Next: {begin}."
    )


@app.command("support-bundle", epilog="Example: fallwatch support-bundle --out support.tar.gz")
def support_bundle(
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; fallwatch-support-DATE.tar.gz here when left out.")
    ] = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Pack one file for support, free of personal data, and say what is in it. Best run as root; pages nobody."""
    from edge.clock import utc_now
    from edge.doctor.bundle import make_bundle
    from edge.doctor.checks import Home, examine

    settings = load_settings(config)
    path = out or Path(f"fallwatch-support-{utc_now():%Y%m%d-%H%M%S}.tar.gz")
    logging.basicConfig(handlers=[logging.NullHandler()])  # findings say it
    home = Home(settings, state, run, wait_s=5.0, pages=False, entries=False)
    bundle = make_bundle(settings, examine(home), {"detect": home.detect, "alarm": home.alarm}, state)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(bundle.archive)
        if (user := os.environ.get("SUDO_UID", "")).isdecimal() and os.geteuid() == 0:
            os.chown(path, int(user), -1)  # whoever is to send it
    except OSError as error:
        stop(f"{path}: cannot be written ({error.strerror}); name another with --out", status=2)
    if as_json:
        say(json.dumps({"file": str(path), "octets": len(bundle.archive), "contents": list(bundle.files)}))
        return
    say(bundle.manifest)
    say(f"{path}: {len(bundle.archive)} octets. Nothing was sent.")
    say(f"Next: look into it (tar -xzOf {path} | less), then send it to whoever supports you.")
