"""The answers so far, kept where a set-up that was killed finds them; and answers that somebody wrote down."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from edge.cli.edit import sync_folder, write_private
from edge.failpoint import failpoint
from edge.setup.questions import BY_KEY, QUESTIONS, BadAnswer, usable

FILE = "setup-answers.toml"
_SO_FAR = "so_far"


@dataclass(slots=True)
class Progress:
    """What has been answered, and how it went."""

    answers: dict[str, Any] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)  # parts
    to_show: list[str] = field(default_factory=list)  # wearables whose new key nobody has taken yet
    asked: int = 0
    spent_s: float = 0.0


def load_progress(state: Path) -> Progress:
    """Return what an earlier set-up has kept; nothing where there is none, or it cannot be used any more."""
    try:
        table = tomllib.loads((state / FILE).read_text(encoding="utf-8"))
        so_far = table.pop(_SO_FAR, {})
        return Progress(
            checked_answers(table),
            list(so_far["tried"]),
            list(so_far["to_show"]),
            int(so_far["asked"]),
            float(so_far["spent_s"]),
        )
    except (OSError, ValueError, KeyError, TypeError, BadAnswer):
        return Progress()


def keep_progress(state: Path, progress: Progress) -> None:
    """Put the answers on disk in one step, for their owner alone. Secrets are none of them.

    Raises:
        OSError: they cannot be written.
    """
    path, new = state / FILE, state / f"{FILE}.new"
    so_far: dict[str, Any] = {"tried": progress.tried, "to_show": progress.to_show, "asked": progress.asked}
    so_far["spent_s"] = round(progress.spent_s, 1)
    write_private(new, tomlkit.dumps({**progress.answers, _SO_FAR: so_far}))
    failpoint("setup.before-keeping")
    new.replace(path)
    sync_folder(state)
    failpoint("setup.kept")


def drop_progress(state: Path) -> None:
    """Forget the answers: they are in the settings now."""
    (state / FILE).unlink(missing_ok=True)
    (state / f"{FILE}.new").unlink(missing_ok=True)


def read_answers(path: Path) -> dict[str, Any]:
    """Return the answers of a file.

    Raises:
        BadAnswer: it cannot be read, a question is unknown, or an answer cannot be used.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadAnswer(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadAnswer(f"{path}: is no TOML: {error}") from None
    try:
        return checked_answers(table)
    except BadAnswer as error:
        raise BadAnswer(f"{path}: {error}") from None


def checked_answers(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return answers as the plan has them.

    Raises:
        BadAnswer: a question is unknown, or an answer cannot be used.
    """
    for key in table:
        if key not in BY_KEY:
            raise BadAnswer(f"{key}: unknown key; known here: {', '.join(BY_KEY)}")
    return {key: usable(BY_KEY[key], value) for key, value in table.items()}


def example_answers() -> str:
    """Return a commented answers file with every question."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("Answers for fallwatch setup --answers FILE. Leave out what it shall ask or suggest.")
    )
    document.add(
        tomlkit.comment("A line of a list is a table of its own, at the end of the file. No secret belongs here:")
    )
    document.add(tomlkit.comment("tokens and passwords are files, which are copied into the secrets folder."))
    for question in sorted(QUESTIONS, key=lambda question: question.kind == "rows"):
        document.add(tomlkit.nl())
        for line in filter(None, (question.ask, question.why)):
            document.add(tomlkit.comment(line))
        value = question.example
        if question.kind == "rows":
            rows = tomlkit.aot()
            for row in value:
                rows.append(tomlkit.item(row))
            document.append(question.key, rows)
        elif question.key in EITHER_OR:
            document.add(tomlkit.comment(tomlkit.dumps({question.key: value}).strip()))
        else:
            document.append(question.key, tomlkit.item(value))
    return tomlkit.dumps(document)


# Shown, but not answered in the example: each stands for a list, or a way, that it does not take.
EITHER_OR = (
    "bluetooth",
    "residents_file",
    "residents_ward",
    "record_client_id",
    "record_key_file",
    "broker_ca_file",
)
