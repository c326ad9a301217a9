"""What of the home does not work: an incident for each cause, raised as it begins and closed once it has gone."""

from __future__ import annotations

from collections.abc import Callable

from edge.clock import clock_ok, utc_now
from edge.core.incident import Incident, Kind, new_incident_id
from edge.core.supervision import LineWatch

REASON_MOST = 60  # characters of a reason on a pager


class Technical:
    """Keeps one incident open for each cause that holds.

    Args:
        home: its id.
        raised: takes a new incident.
        restored: takes the id of one whose cause has gone.
    """

    def __init__(self, home: str, raised: Callable[[Incident], object], restored: Callable[[str], object]) -> None:
        self._home = home
        self._raised = raised
        self._restored = restored
        self._open: dict[str, str] = {}  # cause, without its reason: the incident

    def __contains__(self, cause: str) -> bool:
        return _without_reason(cause) in self._open

    def resume(self, facts: Incident) -> None:
        """Know an open incident of an earlier run."""
        if facts.kind is Kind.BLIND and facts.cause and facts.wearable is None:
            self._open.setdefault(_without_reason(facts.cause), facts.incident)

    def observe(self, cause: str, holds: bool, *, fault: bool = False) -> None:
        """Note whether a cause holds now; ``fault`` if it leaves nobody less protected by itself."""
        key = _without_reason(cause)
        if holds and key not in self._open:
            self._open[key] = self.tell(cause, fault=fault)
        elif not holds and key in self._open:
            self._restored(self._open.pop(key))

    def observe_line(self, cause: str, line: LineWatch, *, now_s: float) -> None:
        """Note how a far end is; its absence is told with the reason."""
        down = line.is_down(now_s=now_s)
        reason = " ".join((line.reason or "no answer").split())[:REASON_MOST]
        self.observe(f"{cause}: {reason}" if down else cause, down, fault=True)

    def tell(self, cause: str, *, fault: bool) -> str:
        """Raise an incident that only a person closes; return its id."""
        facts = Incident(
            incident=new_incident_id(),
            home=self._home,
            kind=Kind.BLIND,
            raised_at=utc_now(),
            clock_ok=clock_ok(),
            cause=str(cause),
            fault=fault,
        )
        self._raised(facts)
        return facts.incident


def _without_reason(cause: str) -> str:
    return cause.partition(":")[0]
