"""Commands that keep a home safe: one sealed file of all of it, and the way back."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE

if TYPE_CHECKING:
    from edge.backup import Manifest

SHORTEST = 12  # characters of a passphrase

Passphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File of the passphrase, for its owner alone; else it is asked for."),
]


@app.command(epilog="Example: fallwatch backup --out rosewood.fwbackup --passphrase-file backup-passphrase")
def backup(
    out: Annotated[Path | None, typer.Option("--out", help="The file to write.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="A folder; the file's name has the home and date.")
    ] = None,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="With --to: so many of this home, then the oldest go.")
    ] = 14,
    check: Annotated[Path | None, typer.Option("--check", help="Read a backup, change nothing.")] = None,
    passphrase_file: Passphrase = None,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Write settings, keys, journal, record and models into one sealed file, while the services run."""
    from edge import backup as backups

    if sum(where is not None for where in (out, to, check)) != 1:
        stop("say one of --out FILE, --to FOLDER and --check FILE", status=2)
    passphrase = _passphrase(passphrase_file, twice=check is None)
    os.umask(0o077)
    begun_s = time.monotonic()
    try:
        if check is not None:
            _tell(check, backups.check(check, passphrase), begun_s, as_json=as_json)
            return
        if to is not None:
            path, manifest = backups.back_up_to(to, config, state, passphrase, keep=keep)
        else:
            assert out is not None
            path, manifest = out, backups.back_up(config, state, out, passphrase)
    except backups.BackupFailed as error:
        stop(f"no good backup: {error}", status=1)
    _tell(path, manifest, begun_s, as_json=as_json)
    if not as_json:
        say("Without its passphrase nobody opens it: keep that away from this computer, and the file as well.")
        say(f"Next: fallwatch backup --check {path}")


@app.command(epilog="Example: fallwatch restore rosewood.fwbackup --passphrase-file backup-passphrase")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As fallwatch backup wrote it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Set aside the home that is here.")] = False,
    clock_is_right: Annotated[
        bool, typer.Option("--clock-is-right", help="You have compared the date and time yourself.")
    ] = False,
    passphrase_file: Passphrase = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Put a home in place from a backup; cut off in the middle, the same command again completes it."""
    from edge import backup as backups

    passphrase = _passphrase(passphrase_file, twice=False)
    os.umask(0o077)  # what is made here is for the services alone
    try:
        manifest, aside = backups.restore(
            file,
            passphrase,
            config=config,
            state=state,
            run=run,
            replace=replace,
            clock_is_right=clock_is_right,
        )
    except backups.BackupFailed as error:
        stop(f"not restored: {error}", status=1)
    say(f"{manifest.home} is restored as of {manifest.made_at:%Y-%m-%d %H:%M} UTC.")
    for folder in aside:
        say(f"What was there is in {folder}: remove it once all is well, it holds keys and residents' data.")
    say(
        "Every wearable must answer once before it is heard; out of range it cannot. What came later is not known."
    )
    say(
        "The old computer must not run again with these keys. Next: sudo systemctl start fallwatch.target, status."
    )


def _tell(path: Path, manifest: Manifest, begun_s: float, *, as_json: bool) -> None:
    facts = {
        "backup": str(path),
        "home": manifest.home,
        "made_at": manifest.made_at.isoformat(),
        "fallwatch": manifest.fallwatch,
        "files": len(manifest.files),
        "octets": manifest.octets,
        "seconds": round(time.monotonic() - begun_s, 2),
    }
    if as_json:
        say(json.dumps(facts))
        return
    say(
        f"{path}: {manifest.home} as of {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"{len(manifest.files)} files, {manifest.octets / 1e6:.1f} MB, all well; took {facts['seconds']} s."
    )


def _passphrase(path: Path | None, *, twice: bool) -> bytes:
    if path is None:
        if not sys.stdin.isatty():
            stop("name a file with --passphrase-file; without a terminal none can be asked for", status=2)
        text = getpass.getpass("Passphrase of the backup: ")
        if twice and getpass.getpass("The same again: ") != text:
            stop("these were two different passphrases", status=2)
    else:
        try:
            if path.stat().st_mode & 0o007:
                stop(f"{path}: everybody may read it; chmod 600 {path}", status=2)
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            stop(f"{path}: cannot be read ({error})", status=2)
    if twice and len(text) < SHORTEST:
        stop(f"the passphrase has fewer than {SHORTEST} characters; four words are easy to keep", status=2)
    return text.encode()
