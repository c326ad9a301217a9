"""Guided set-up of a home: finds what is there, asks the rest, tries it on the spot, writes the settings."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE, Settings, load_settings
from edge.setup.questions import BY_KEY, BadAnswer, usable

if TYPE_CHECKING:
    from edge.doctor.finding import Finding
    from edge.setup.guide import Guide
    from edge.setup.terminal import Asker

T = TypeVar("T")
STARTED_WITHIN_S = 15.0
SETTLE_S = 8.0  # until the services have tried each of their parts once


def _flag(key: str) -> Any:
    """Return the option of a question."""
    question = BY_KEY[key]
    note = " May be given again." if question.many else ""
    names = f"{question.flag}/--no-{question.flag[2:]}" if question.kind == "yes" else question.flag
    return typer.Option(names, help=f"{question.ask}{note}", show_default=False)


One = str | None
Many = list[str] | None
YesNo = bool | None


@app.command(epilog="Example: fallwatch setup --home-id rosewood --receiver /dev/ttyACM0 --dry-run")
def setup(
    ctx: typer.Context,
    answers: Annotated[Path | None, typer.Option("--answers", metavar="FILE", help="Answers, in TOML.")] = None,
    example: Annotated[
        bool, typer.Option("--example-answers", help="Print an answers file with every question, and end.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Take what is found or suggested; ask only where nothing is.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the settings that would be written; write and try nothing.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines alone, without lists to move through.")] = False,
    resume: Annotated[
        bool | None, typer.Option("--resume/--no-resume", help="Go on where a set-up was stopped, or begin anew.")
    ] = None,
    qr: Annotated[
        bool | None, typer.Option("--qr/--no-qr", help="Show new keys as QR codes; on a terminal they are shown.")
    ] = None,
    home_name: Annotated[One, _flag("home_name")] = None,
    home_id: Annotated[One, _flag("home_id")] = None,
    timezone: Annotated[One, _flag("timezone")] = None,
    receivers: Annotated[Many, _flag("receivers")] = None,
    bluetooth: Annotated[One, _flag("bluetooth")] = None,
    groups: Annotated[Many, _flag("groups")] = None,
    steps_s: Annotated[Many, _flag("steps_s")] = None,
    pagers: Annotated[Many, _flag("pagers")] = None,
    test_page: Annotated[YesNo, _flag("test_page")] = None,
    record: Annotated[One, _flag("record")] = None,
    record_url: Annotated[One, _flag("record_url")] = None,
    record_auth: Annotated[One, _flag("record_auth")] = None,
    record_token_file: Annotated[One, _flag("record_token_file")] = None,
    record_client_id: Annotated[One, _flag("record_client_id")] = None,
    record_key_file: Annotated[One, _flag("record_key_file")] = None,
    record_identifier_system: Annotated[One, _flag("record_identifier_system")] = None,
    record_local_system: Annotated[One, _flag("record_local_system")] = None,
    residents_from: Annotated[One, _flag("residents_from")] = None,
    residents_file: Annotated[One, _flag("residents_file")] = None,
    residents_ward: Annotated[One, _flag("residents_ward")] = None,
    residents: Annotated[Many, _flag("residents")] = None,
    cover: Annotated[One, _flag("cover")] = None,
    wearables: Annotated[Many, _flag("wearables")] = None,
    cameras: Annotated[Many, _flag("cameras")] = None,
    broker: Annotated[One, _flag("broker")] = None,
    broker_tls: Annotated[YesNo, _flag("broker_tls")] = None,
    broker_ca_file: Annotated[One, _flag("broker_ca_file")] = None,
    broker_username: Annotated[One, _flag("broker_username")] = None,
    broker_password_file: Annotated[One, _flag("broker_password_file")] = None,
    start: Annotated[YesNo, _flag("start")] = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Set up a home, or change what is set up: what is not answered stays. Ends with the doctor.

    Killed at any moment, it goes on where it was. Status 1 if a part is at fault. Best run as root.
    """
    from edge.setup.progress import example_answers

    if example:
        say(example_answers().rstrip())
        return
    logging.basicConfig(handlers=[logging.NullHandler()])  # findings say it
    asker = _asker(plain=plain or as_json)
    try:
        given = _given(answers, ctx.params)
        guide = _guide(asker, given, config, state, yes=yes, dry_run=dry_run, resume=resume)
        text = _interruptible(guide, guide.run)
    except BadAnswer as error:
        stop(f"setup: {error}", status=2)
    unused = sorted(key for key in given if key not in guide.answers)
    if unused:
        _tell(asker, f"Not used, as another answer rules it out: {', '.join(unused)}.")
    if dry_run:
        say(text.rstrip())
        return
    written = _write(config, text, guide.before)
    settings = load_settings(config)
    paired = _interruptible(guide, lambda: pair_all(settings, state, guide, qr=qr))
    _allow(settings, guide)
    found = _examined(guide, settings, state, run, as_json=as_json)
    from edge.setup.progress import drop_progress

    drop_progress(state)
    well = not guide.doubts and not any(finding.state == "fault" for finding in found)
    took_s = round(guide.spent_s(), 1)
    if as_json:
        document = {
            "settings": str(config),
            "written": written,
            "well": well,
            "answers": len(guide.answers),
            "asked": guide.progress.asked,
            "took_s": took_s,
            "paired": paired,
            "doubts": [asdict(finding) for finding in guide.doubts],
            "doctor": [asdict(finding) for finding in found],
        }
        say(json.dumps(document))
    else:
        _tell_end(guide, config, settings, written=written, took_s=took_s)
    raise SystemExit(0 if well else 1)


def _asker(*, plain: bool) -> Asker | None:
    """Return who can be asked: nobody, unless somebody sits before it."""
    if not sys.stdin.isatty():
        return None
    from edge.setup.terminal import Plain, Pretty

    dumb = os.environ.get("TERM", "dumb") == "dumb" or not sys.stdout.isatty()
    return Plain() if plain or dumb else Pretty()


def _tell(asker: Asker | None, text: str) -> None:
    """Say something on the way: to whoever is asked, else beside what programs read."""
    if asker is not None:
        asker.say(text)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # for people


def _given(file: Path | None, params: dict[str, Any]) -> dict[str, Any]:
    """Return the answers of flags and file; flags count."""
    from edge.setup.progress import read_answers
    from edge.setup.questions import implied

    flags = {key: value for key, value in params.items() if key in BY_KEY and value not in (None, [], ())}
    given = read_answers(file) if file is not None else {}
    return implied(given | {key: usable(BY_KEY[key], value) for key, value in flags.items()})


def _guide(
    asker: Asker | None,
    given: dict[str, Any],
    config: Path,
    state: Path,
    *,
    yes: bool,
    dry_run: bool,
    resume: bool | None,
) -> Guide:
    from edge.cli.doctor import as_text
    from edge.setup import machine
    from edge.setup.guide import Deeds, Guide
    from edge.setup.progress import Progress, keep_progress, load_progress

    settings = load_settings(config) if config.exists() else None
    progress = load_progress(state)
    if progress.answers and resume is None and asker is not None and not yes:
        asker.say(f"{len(progress.answers)} answers are kept from a set-up that was stopped.")
        resume = asker.yes("Go on with them?", suggested=True)
    if resume is False:
        progress = Progress()
    _tell(asker, "Looking what is plugged in ...")
    found = machine.find(settings, may_ask=asker is not None or yes)

    def keep(progress: Progress) -> None:
        try:
            state.mkdir(mode=0o750, parents=True, exist_ok=True)
            keep_progress(state, progress)
        except OSError as error:
            stop(
                f"{state}: cannot be written ({error.strerror}); run with sudo, or name another --state", status=2
            )

    secrets = config.parent / "secrets"
    deeds = Deeds(
        try_part=lambda part, settings, answers: machine.try_part(part, settings, answers, state),
        keep_secret=lambda question, value, typed: machine.keep_secret(question, value, secrets, typed=typed),
        read_list=machine.read_list,
        keep=keep,
        tell=lambda finding: _tell(asker, as_text(finding)),
    )
    return Guide(
        asker=asker,
        found=found,
        given=given,
        before=config.read_text(encoding="utf-8") if settings else "",
        config=config,
        deeds=deeds,
        progress=progress,
        yes=yes,
        dry_run=dry_run,
    )


def _interruptible(guide: Guide, do: Callable[[], T]) -> T:
    """Return what comes of it; whoever stops is told that nothing is lost."""
    try:
        return do()
    except KeyboardInterrupt:
        if guide.dry_run or not guide.answers:
            raise
        stop("stopped; the answers are kept. Run fallwatch setup again to go on", status=130)


def _write(config: Path, text: str, before: str) -> bool:
    from edge.cli.edit import write_settings

    if text == before:
        return False
    write_settings(config, text)
    return True


def pair_all(settings: Settings, state: Path, guide: Guide, *, qr: bool | None) -> list[str]:
    """Make the keys that are missing, and show each until its wearable has taken it, even if killed."""
    from edge.cli.pairing import show_key, without_key
    from edge.failpoint import failpoint
    from edge.keys import KeyStore, KeyUnusable

    store, asker, progress = KeyStore(settings.secrets, state), guide.asker, guide.progress
    missing = without_key(settings, store)
    kept = [name for name in progress.to_show if name not in missing and settings.resident_of(name)]
    progress.to_show = [*missing, *kept]
    guide.keep()
    for name in list(progress.to_show):
        try:
            key = store.make(name) if name in missing else store.load(name)
        except KeyUnusable as error:
            stop(f"wearable {name}: its key cannot be stored: {error}", status=1)
        failpoint("setup.paired")
        shows = qr or (qr is None and asker is not None and sys.stdout.isatty())
        if shows and key is not None:
            show_key(name, key)
            if asker is not None:
                asker.text(f"Enter, once wearable {name} has taken it")
                say("\033[3J\033[2J\033[H" if os.environ.get("TERM", "dumb") != "dumb" else "\n" * 50)
            progress.to_show.remove(name)
            guide.keep()
        _tell(asker, f"Wearable {name} has a key.")
    return missing


def _allow(settings: Settings, guide: Guide) -> None:
    """Give the detect service the rights that these settings want, and start the services where wished."""
    from edge.doctor.finding import fault
    from edge.setup import machine

    root = os.geteuid() == 0 and Path("/run/systemd/system").is_dir()
    if not root:
        return
    try:
        installed = machine.install_drop_ins(settings)
    except OSError as error:
        todo = "copy them as docs/install.md says"
        guide.doubts.append(fault("services", f"drop-ins cannot be put in place: {error}", todo))
        return
    if installed:
        _tell(guide.asker, f"The detect service may use: {', '.join(installed)}.")
        machine.systemctl("daemon-reload")
    if guide.answers.get("start"):
        words = machine.systemctl("enable", machine.TARGET) or machine.systemctl("restart", machine.TARGET)
        if words:
            todo = (
                f"sudo systemctl enable --now {machine.TARGET}; systemctl status fallwatch-detect fallwatch-alarm"
            )
            guide.doubts.append(fault("services", f"do not start: {words.splitlines()[0]}", todo))


def _examined(guide: Guide, settings: Settings, state: Path, run: Path, *, as_json: bool) -> list[Finding]:
    """Have the doctor look at all of it; it pages nobody, as that was asked before."""
    from edge.cli.doctor import as_text
    from edge.doctor.checks import Home, examine

    if guide.answers.get("start"):
        until_s = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < until_s and not all((run / f"{s}.json").exists() for s in ("detect", "alarm")):
            time.sleep(0.5)
        time.sleep(SETTLE_S)
    _tell(guide.asker, "\nThe doctor looks at all of it ...")
    found = []
    for finding in examine(Home(settings, state, run, 8.0, False)):
        found.append(finding)
        if not as_json:
            say(as_text(finding))
    return found


def _tell_end(guide: Guide, config: Path, settings: Settings, *, written: bool, took_s: float) -> None:
    from edge.cli.doctor import as_text

    if guide.doubts:
        say("\nLeft open on the way:")
        for finding in guide.doubts:
            say(as_text(finding))
    kept = ", the old ones beside them as .old" if guide.before else ""
    say(f"\n{config}: {f'written{kept}' if written else 'as before'}.")
    say(f"{guide.progress.asked} questions asked, {took_s / 60:.0f} min {took_s % 60:.0f} s.")
    if not guide.answers.get("start"):
        say("Next: sudo systemctl enable --now fallwatch.target (restart, where it runs already).")
    say("Then: fallwatch walktest in each room, fallwatch drill, and fallwatch sheet to hand the home over.")
    for name in guide.progress.to_show:
        say(f"The key of wearable {name} is not in it yet: sudo fallwatch pair {name} --qr shows a new one.")
    if any(not resident.wearables for resident in settings.resident):
        say("A wearable for a resident: sudo fallwatch pair WEARABLE --resident ID")
