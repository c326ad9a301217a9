"""Places where tests make a process die, stall or meet a broken disk: nothing at all unless asked for.

``FALLWATCH_FAILPOINTS="journal.after-commit=kill@3 journal.before-commit=enospc@1-5"`` makes the third
passing of one place the last thing the process does, and has the disk refuse the first five of another.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter

_ARMED: dict[str, list[tuple[str, int, int]]] = {}  # place: what, from which passing, to which
_PASSED: Counter[str] = Counter()


def arm(text: str) -> None:
    """Take what is to happen where; an empty text disarms all.

    Raises:
        ValueError: the text is not written as above.
    """
    _ARMED.clear()
    _PASSED.clear()
    for item in text.split():
        place, _, rest = item.partition("=")
        what, _, turns = rest.partition("@")
        first, _, last = turns.partition("-")
        if what not in {"kill", "enospc", "stall"} or not first.isdecimal():
            raise ValueError(f"{item!r} is no failpoint; write such as journal.after-commit=kill@3")
        _ARMED.setdefault(place, []).append((what, int(first), int(last or first)))


def failpoint(place: str) -> None:
    """Do what was asked for here; called at each place that matters."""
    if not _ARMED:
        return
    _PASSED[place] += 1
    for what, first, last in _ARMED.get(place, ()):
        if first <= _PASSED[place] <= last:
            _do(what)


def _do(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stall":
        time.sleep(60.0)
    else:
        raise sqlite3.OperationalError("database or disk is full")


arm(os.environ.get("FALLWATCH_FAILPOINTS", ""))
