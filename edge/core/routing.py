"""Who is called first, by where it happened and who is on duty. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

Ladder = tuple[tuple[str, ...], ...]  # the groups of each rung, in the order they are called


@dataclass(frozen=True, slots=True)
class Route:
    """A ladder for some rooms, at some times of day.

    ``hours`` are minutes after local midnight, ``[begins, ends)``; a shift over midnight ends before it
    begins. No rooms: all of them. No hours: always.
    """

    ladder: tuple[str, ...]
    rooms: frozenset[str] = frozenset()
    hours: tuple[int, int] | None = None

    def serves(self, room: str | None) -> bool:
        """Tell whether it is for a room; what happens in no room is everybody's."""
        return not self.rooms or room in self.rooms

    def at(self, minute: int) -> bool:
        """Tell whether it holds at so many minutes after midnight."""
        if self.hours is None:
            return True
        begins, ends = self.hours
        return begins <= minute < ends if begins < ends else minute >= begins or minute < ends


def ladder_for(routes: Sequence[Route], *, room: str | None, minute: int | None) -> Ladder:
    """Return whom to call, rung by rung, for a room.

    Args:
        routes: the first that fits counts; the last must fit everywhere and always.
        room: where it happened; None for the home as a whole.
        minute: minutes after local midnight; None when the clock cannot be believed. Then nobody knows which
            shift is on duty, and all of them are called.
    """
    fitting = [route for route in routes if route.serves(room)]
    if minute is not None:
        return tuple((group,) for group in next(route for route in fitting if route.at(minute)).ladder)
    possible: list[tuple[str, ...]] = []
    for route in fitting:
        possible.append(route.ladder)
        if route.hours is None:
            break
    rungs = zip_longest(*possible)
    return tuple(tuple(dict.fromkeys(group for group in rung if group is not None)) for rung in rungs)
