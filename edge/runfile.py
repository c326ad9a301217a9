"""What a service says of itself each second: a small JSON file on tmpfs, replaced whole.

It is at once heartbeat (its age), status (its content) and the way around a journal that cannot be
written (incidents not yet on disk). Readers never see half of one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from edge.clock import boot_id, monotonic_s

WORDS_FOLDER = "words"


def write_runfile(path: Path, body: dict[str, Any]) -> bool:
    """Replace the file; return whether that worked."""
    stamped = {"boot": boot_id(), "mono_s": monotonic_s(), **body}
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(stamped), encoding="utf-8")
        _hand_over(new, path.parent)
        new.replace(path)
    except OSError:
        return False
    return True


def _hand_over(path: Path, folder: Path) -> None:
    """Give what an installer wrote as root to whom the folder belongs: the service reads it and takes it away."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def read_runfile(path: Path) -> dict[str, Any] | None:
    """Return what the service last said in this boot, or None; ``age_s`` tells how long ago."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        age_s = monotonic_s() - float(body["mono_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(body, dict) or body.get("boot") != boot_id() or age_s < 0:
        return None
    return {**body, "age_s": round(age_s, 3)}


def leave_word(folder: Path, body: dict[str, Any]) -> bool:
    """Leave a message for a service, for when the journal takes none; return whether that worked."""
    path = folder / WORDS_FOLDER / f"{uuid4()}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        _hand_over(path.parent, folder)
    except OSError:
        return False
    return write_runfile(path, body)


def take_words(folder: Path) -> list[dict[str, Any]]:
    """Return the messages that were left, oldest first, and take them away."""
    words = []
    for path in (folder / WORDS_FOLDER).glob("*.json"):
        body = read_runfile(path)
        path.unlink(missing_ok=True)
        if body is not None:
            words.append(body)
    return sorted(words, key=lambda body: float(body["mono_s"]))
