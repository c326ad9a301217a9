"""The command ``fallwatch``: thin commands over the services. Each imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edge.checked import SettingsError
from edge.settings import load_settings

if TYPE_CHECKING:
    from edge.settings import Settings

app = typer.Typer(
    name="fallwatch",
    help="Alerts care staff to possible falls; not a medical diagnosis, not the only safeguard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[
    Path, typer.Option("--config", envvar="FALLWATCH_CONFIG", help="Settings file.", show_default=True)
]
State = Annotated[
    Path, typer.Option("--state", envvar="FALLWATCH_STATE", help="Folder of journal, record and counters.")
]
Run = Annotated[
    Path, typer.Option("--run", envvar="FALLWATCH_RUN", help="Folder of what services say of themselves.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]


@app.callback()
def everywhere(
    config: Annotated[Path | None, typer.Option("--config", help="Settings file, for any command.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="State folder, for any command.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder, for any command.")] = None,
) -> None:
    """Alerts care staff to possible falls; not a medical diagnosis, not the only safeguard."""
    for name, value in (("CONFIG", config), ("STATE", state), ("RUN", run)):
        if value is not None:
            os.environ[f"FALLWATCH_{name}"] = str(value)


def main() -> None:
    """Run the command line; settings that cannot be used end it with one line and status 2."""
    try:
        app()
    except SettingsError as error:
        stop(str(error), status=2)
    except KeyboardInterrupt:
        sys.exit(130)


def stop(message: str, *, status: int) -> NoReturn:
    """Say in one line what is wrong, and end."""
    print(f"fallwatch: {message}", file=sys.stderr)  # noqa: T201
    raise SystemExit(status)


def say(message: str = "") -> None:
    """Write one line for people or programs, at once."""
    print(message, flush=True)  # noqa: T201


def begin_service(config: Path, state: Path, run: Path, *, verbose: bool) -> Settings:
    """Read the settings, make the folders and start logging to stderr, which journald keeps."""
    settings = load_settings(config)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    os.umask(0o077)  # journal and record hold NHS numbers
    for folder, option in ((state, "--state"), (run, "--run")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            stop(f"{folder}: cannot be made ({error.strerror}); name another with {option}", status=2)
    return settings


def _register() -> None:
    from edge.cli import (  # noqa: F401  # they add themselves to app
        backups,
        camera_place,
        cameras,
        develop,
        doctor,
        homesim,
        model,
        pager,
        pairing,
        people,
        records,
        report,
        residents,
        services,
        setup,
        sheet,
        walk,
    )


_register()
