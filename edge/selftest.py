"""Whether this version can take over here, asked before it does: ``python -m edge.selftest --settings FILE``.

A package's scripts call it. Nothing is opened that a running version holds.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from edge.checked import SettingsError, build
from edge.settings import DEFAULT_CONFIG, Settings

SERVICES = ("edge.cli", "edge.alarm.service", "edge.detect.service", "edge.eye")
PLACEMENTS = ("wrist", "waist", "camera")


def main(argv: list[str] | None = None) -> None:
    """Try everything; one line for each failure, and status 1 where there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--fit", action="store_true", help="take keys of a newer version out of the settings")
    options = parser.parse_args(argv)
    failures = [*_failing_parts(), *_failing_settings(options.settings, fit=options.fit)]
    for failure in failures:
        print(f"fallwatch: {failure}", file=sys.stderr)  # noqa: T201  # for who installs
    sys.exit(1 if failures else 0)


def fitted(text: str, path: Path) -> tuple[str, list[str]]:
    """Return settings without the keys that only a newer version knows, and those keys.

    Raises:
        SettingsError: something else is wrong with them; a person must look.
    """
    import tomlkit

    document: Any = tomlkit.parse(text)
    dropped = []
    while True:
        try:
            build(Settings, tomllib.loads(tomlkit.dumps(document)), path, "")
        except SettingsError as error:
            if not error.remedy.startswith("unknown key"):
                raise
            *parents, last = re.split(r"\.(?![^\[]*\])", error.key)
            table = document
            for name in parents:
                found = re.fullmatch(r"(.+)\[(\d+)\]", name)
                table = table[found[1]][int(found[2]) - 1] if found else table[name]
            del table[last]
            dropped.append(error.key)
        else:
            return tomlkit.dumps(document), dropped


def _failing_parts() -> list[str]:
    failures = []
    for name in SERVICES:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a library of another machine or another system raises
            failures.append(f"{name} cannot be loaded here: {error!r}")
    if failures:
        return failures
    from edge.journal import Journal
    from models.card import shipped
    from models.scorer import Scorer

    for folder in (folder for placement in PLACEMENTS for folder in shipped(placement)):
        try:
            Scorer(folder)
        except Exception as error:  # each is told
            failures.append(f"model {folder.name} does not answer as it should: {error}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            Journal(Path(scratch) / "journal.db").close()
        except Exception as error:  # sqlite3 of another system
            failures.append(f"a journal cannot be made: {error!r}")
    return failures


def _failing_settings(path: Path, *, fit: bool) -> list[str]:
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        new, dropped = fitted(text, path)
        if dropped and not fit:
            return [f"{path}: this version does not know {', '.join(dropped)}"]
        if dropped:
            # The version that runs can read the file without them as well: safe whenever the power goes.
            from edge.cli.edit import write_settings

            write_settings(path, new)
            kept = path.with_suffix(".toml.old")
            print(f"fallwatch: this version does not know {', '.join(dropped)}: taken out, kept in {kept}")  # noqa: T201  # for people
    except (OSError, ValueError, SettingsError) as error:
        return [str(error)]
    return []


if __name__ == "__main__":
    main()
