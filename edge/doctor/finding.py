"""What a check found of one part of a home, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["well", "warning", "fault", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found of one part, and what to do next."""

    part: str  # "receiver /dev/...", "pager espa-1", "record", "clock"
    state: State
    says: str  # what was really seen, one line
    next: str = ""  # what to do, one line; empty where well


def well(part: str, says: str) -> Finding:
    """Return that a part does what it is for."""
    return Finding(part, "well", says)


def warning(part: str, says: str, todo: str) -> Finding:
    """Return that a part works, and that somebody should see to it."""
    return Finding(part, "warning", says, todo)


def fault(part: str, says: str, todo: str) -> Finding:
    """Return that a part does not do what it is for."""
    return Finding(part, "fault", says, todo)


def skipped(part: str, says: str, todo: str = "") -> Finding:
    """Return that a part was not tried, and why."""
    return Finding(part, "skipped", says, todo)
