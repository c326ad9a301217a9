"""Who was not protected, when and why, from the technical incidents of the journal: the morning report's part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edge.core.incident import Kind, utc_text
from edge.journal import Case


@dataclass(frozen=True, slots=True)
class Spell:
    """One time without cover, or with something to mend."""

    resident: str | None  # None: the whole home
    room: str | None
    wearable: str | None
    camera: str | None
    cause: str
    begun_at: datetime  # when it was told
    ended_at: datetime | None  # None: it still holds
    warning: bool  # nobody was less protected
    called: bool  # a person was called for it

    def lasted_s(self, now: datetime) -> float:
        """Return how long it lasted, by the wall clock."""
        return max(((self.ended_at or now) - self.begun_at).total_seconds(), 0.0)

    def document(self, now: datetime) -> dict[str, object]:
        """Return it for programs."""
        return {
            "resident": self.resident,
            "room": self.room,
            "wearable": self.wearable,
            "camera": self.camera,
            "cause": self.cause,
            "begun_at": utc_text(self.begun_at),
            "ended_at": None if self.ended_at is None else utc_text(self.ended_at),
            "lasted_s": round(self.lasted_s(now)),
            "warning": self.warning,
            "called": self.called,
        }


def spells(cases: Iterable[Case]) -> list[Spell]:
    """Return the spells among incidents, those that last still first, then the latest first."""
    found = [_spell(case) for case in cases if case.facts.kind is Kind.BLIND]
    return sorted(found, key=lambda spell: (spell.ended_at is None, spell.begun_at), reverse=True)


def _spell(case: Case) -> Spell:
    facts, resolved = case.facts, case.first("resolved")
    return Spell(
        facts.resident,
        facts.room,
        facts.wearable,
        facts.camera,
        facts.cause or "unknown",
        facts.raised_at,
        None if resolved is None else resolved.at,
        facts.fault,
        case.first("paged") is not None,
    )
