"""One page on its way: over its main channels at once, over the others when none of those takes it.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable


class Delivery:
    """Which channels still try, for one page to one group."""

    def __init__(
        self, primary: Iterable[str], fallback: Iterable[str], *, now_s: float, fallback_after_s: float
    ) -> None:
        self.accepted = False
        self._trying = set(primary)
        self._fallback = tuple(fallback)
        self._fallback_s = now_s + fallback_after_s if self._trying else now_s

    def on_report(self, channel: str, *, accepted: bool) -> None:
        """Note that a channel took the page, or did not."""
        self.accepted = self.accepted or accepted
        self._trying.discard(channel)

    def more(self, now_s: float) -> tuple[str, ...]:
        """Return the channels to try now beside the first, once."""
        if self.accepted or not self._fallback or (self._trying and now_s < self._fallback_s):
            return ()
        more, self._fallback = self._fallback, ()
        self._trying.update(more)
        return more

    @property
    def failed(self) -> bool:
        """Whether every channel has refused."""
        return not (self.accepted or self._trying or self._fallback)

    def deadline_s(self) -> float | None:
        """Return when to ask `more` again."""
        return self._fallback_s if self._fallback and not self.accepted else None
