"""Who else saw it: what wearables and cameras say of one event becomes one incident. Standard library only.

A witness is what one source says of one impact. A *strong* one alarms by itself; a *weak* one is the source's own
suspicion, which does not. Two are of one event when their impacts lie less than `SAME_S` apart, in the same room
and of the same resident; a camera that sees a room of several residents speaks for any of them. A *doubt* is a
camera that saw one person alone, the same without a break and upright throughout, from `BEFORE_S` before the
impact to `AFTER_S` past it. An empty room doubts nothing; nor does a blind, paused or returning camera; nor does
a room with two people, or somebody who came in or stood up later: the carer, perhaps, or the one who fell.

============== ======================================= ====================================================
what comes     what is known                           then
============== ======================================= ====================================================
strong         nothing, or weak of the other kind      an incident, at once; doubted if a camera doubts by now
strong         a fall < `AGAIN_S` ago, unanswered      "again" in its incident; doubted only if both are
weak           nothing                                 kept; nobody is told
weak           weak, of the other kind of source       as strong; both are named
strong or weak the event                               "witness" in its incident, once for each kind of source
from a camera  the event, doubted                      the doubt is taken back, too
doubt          the event, no camera witness            "doubt" in its incident: the call has a lower priority
on the floor   the event, doubted < `TAKE_BACK_S` ago  the doubt is taken back, for good
blind, silent  anything                                nothing
============== ======================================= ====================================================

Nothing waits for anything, and nothing here ends or holds back a call. Of two witnesses that make one incident the
probability is 1 - (1 - p)(1 - q): that not both are wrong, were they independent. It is a fixed rule, not a
calibrated chance: the scores are not calibrated either. No threshold is laid on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, prod
from typing import Any, TypeAlias

from edge.core.seen import Person, Seen

SAME_S = 10.0  # impacts nearer than this are one
AGAIN_S = 120.0  # a further fall so soon joins the incident nobody has answered yet
BEFORE_S = 2.0  # upright for so long when the impact came: clocks of wearables are known to a second
AFTER_S = 3.0  # ... and for so long after it: by then whoever fell is down
UPRIGHT_M = 1.1  # head above the floor; of somebody who sits it is lower, but for tall people on high chairs
GAP_S = 1.0  # a longer hole between two frames, and nobody knows what happened in it
DOWN_S = 2.0  # on the floor for so long is no stooping
TAKE_BACK_S = 900.0
EVENTS_MOST = 32  # remembered of one room
IMPACTS_MOST = 32  # ... of one incident
WEAK_MOST = 16  # remembered of one source


class Sense(StrEnum):
    """The kinds of sources, which err for different reasons."""

    WEARABLE = "wearable"
    CAMERA = "camera"


@dataclass(frozen=True, slots=True)
class Source:
    """A wearable or camera, and whom it speaks of."""

    sense: Sense
    id: str
    room: str
    resident: str | None  # None: a camera's, where several live in the room
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """What one source says of one impact; times are on the Pi's monotonic clock."""

    source: Source
    impact_s: float
    probability: float
    strong: bool
    long_lie: bool = False

    @property
    def by_camera(self) -> bool:
        """Whether it was seen, not felt."""
        return self.source.sense is Sense.CAMERA


@dataclass(slots=True)
class Event:
    """An incident, as far as later witnesses are concerned."""

    incident: str
    room: str
    resident: str | None
    impacts_s: list[float]  # the newest last, at most `IMPACTS_MOST`
    senses: set[Sense]
    doubted: bool | None = None  # False: it was, and was taken back


@dataclass(frozen=True, slots=True)
class Alarm:
    """Raise an incident now, then tell `Fusion.raised` of it; the first witness says where and when."""

    witnesses: tuple[Witness, ...]  # a strong one first, or else a wearable
    doubted: bool

    @property
    def resident(self) -> str | None:
        """Whose it is, if any witness can tell."""
        return next((w.source.resident for w in self.witnesses if w.source.resident is not None), None)

    @property
    def model(self) -> str | None:
        """What decided: that of the strong witness, or else of both."""
        deciding = [w.source.model for w in self.witnesses if w.strong or not self.witnesses[0].strong]
        return "+".join(filter(None, deciding)) or None

    @property
    def body(self) -> dict[str, Any]:
        """What the journal says of it beside the incident's own facts."""
        return _sources(self.witnesses) | ({"doubted": True} if self.doubted else {})

    @property
    def probability(self) -> float:
        """Of all witnesses together, 0 to 1."""
        if len(self.witnesses) == 1:
            return self.witnesses[0].probability
        return round(1.0 - prod(1.0 - w.probability for w in self.witnesses), 4)


@dataclass(frozen=True, slots=True)
class Note:
    """Note in an incident that something more is known: ``again``, ``witness`` or ``doubt``."""

    incident: str
    kind: str
    body: dict[str, Any]


Verdict: TypeAlias = Alarm | Note


@dataclass(slots=True)
class UprightWatch:
    """Since when one camera has seen one person, the same and alone, upright without a break."""

    room: str
    since_s: float | None = None  # None: not now
    seen_s: float = -inf
    _track: int = -1

    def observe(self, seen: Seen) -> None:
        """Take one frame's observation."""
        person = _alone_and_upright(seen)
        unbroken = 0.0 <= seen.time_s - self.seen_s <= GAP_S
        if person is None:
            self.since_s = None
        elif self.since_s is None or not unbroken or person.track != self._track:
            self.since_s, self._track = seen.time_s, person.track
        self.seen_s = seen.time_s

    def doubts(self, impact_s: float) -> bool:
        """Tell whether that person did not fall then, as far as the camera can tell by now."""
        if self.since_s is None:
            return False
        return self.since_s <= impact_s - BEFORE_S and self.seen_s >= impact_s + AFTER_S


def _alone_and_upright(seen: Seen) -> Person | None:
    if seen.cause or len(seen.people) != 1:
        return None
    (person,) = seen.people
    return person if person.head_m >= UPRIGHT_M and not person.on_floor_s else None


@dataclass(slots=True)
class Fusion:
    """All witnesses of a home; see the table above. ``is_unanswered``: whether nobody took an incident yet."""

    is_unanswered: Callable[[str], bool]
    _events: dict[str, deque[Event]] = field(default_factory=dict)  # by room, the newest last
    _weak: dict[Source, deque[Witness]] = field(default_factory=dict)  # by source
    _cameras: dict[str, UprightWatch] = field(default_factory=dict)

    def on_witness(self, witness: Witness, *, now_s: float) -> list[Verdict]:
        """Take what a source found, in any order of impacts; return what is to be done about it at once."""
        source = witness.source
        nearby = self._in(source.room, source.resident)
        near = [event for event in nearby if _apart_s(event, witness.impact_s) < SAME_S]
        if near:
            # Of two in the room: rather the resident's own than one that may be anybody's.
            nearest = min(near, key=lambda event: (event.resident is None, _apart_s(event, witness.impact_s)))
            return self._join(nearest, witness)
        other = self._other(witness)
        if witness.strong or other is not None:
            witnesses = [witness]
            if other is not None:
                self._weak[other.source].remove(other)  # it speaks for one
                witnesses.append(other)
            witnesses.sort(key=lambda w: (not w.strong, w.by_camera))
            return [self._begin(Alarm(tuple(witnesses), self._is_doubted(witnesses)), now_s)]
        self._weak.setdefault(source, deque(maxlen=WEAK_MOST)).append(witness)
        return []

    def raised(self, told: Alarm, incident: str) -> None:
        """Note under which id the incident of an `Alarm` was committed."""
        first = told.witnesses[0]
        impacts_s = [w.impact_s for w in told.witnesses]
        senses = {w.source.sense for w in told.witnesses}
        self.recall(Event(incident, first.source.room, told.resident, impacts_s, senses, told.doubted or None))

    def recall(self, event: Event) -> None:
        """Remember an incident, also one of an earlier run; the newest last."""
        self._events.setdefault(event.room, deque(maxlen=EVENTS_MOST)).append(event)

    def latest(self, room: str, resident: str | None) -> str | None:
        """Return the latest incident of a resident."""
        return next((e.incident for e in self._in(room, resident)), None)

    def on_seen(self, camera: str, room: str, seen: Seen) -> list[Verdict]:
        """Take one frame's observation of a camera: it may doubt what was raised, or take a doubt back."""
        watch = self._cameras.setdefault(camera, UprightWatch(room))
        watch.observe(seen)
        down = not seen.cause and any(person.on_floor_s >= DOWN_S for person in seen.people)
        notes: list[Verdict] = []
        for event in self._events.get(room, ()):
            if event.doubted and down and seen.time_s - event.impacts_s[-1] < TAKE_BACK_S:
                notes.append(_doubt(event, doubted=False, by=camera))
            elif event.doubted is None and Sense.CAMERA not in event.senses and watch.doubts(event.impacts_s[-1]):
                notes.append(_doubt(event, doubted=True, by=camera))
        return notes

    # -- within -------------------------------------------------------------------------------

    def _is_doubted(self, witnesses: list[Witness]) -> bool:
        """Tell whether a camera of the room doubts it, and none suspects it."""
        if any(w.by_camera for w in witnesses):
            return False
        (felt,) = witnesses
        return any(c.room == felt.source.room and c.doubts(felt.impact_s) for c in self._cameras.values())

    def _begin(self, told: Alarm, now_s: float) -> Verdict:
        """Turn it into a note where a further fall joins an incident."""
        first = told.witnesses[0]
        for event in self._in(first.source.room, told.resident):
            if _apart_s(event, first.impact_s) < AGAIN_S and self.is_unanswered(event.incident):
                impacts_s = [*event.impacts_s, *(w.impact_s for w in told.witnesses)]
                event.impacts_s = impacts_s[-IMPACTS_MOST:]
                event.senses = {w.source.sense for w in told.witnesses}
                event.doubted = told.doubted and bool(event.doubted)  # as long as all of its falls are
                event.resident = event.resident or told.resident
                body: dict[str, Any] = {"probability": told.probability}
                body["since_impact_s"] = round(now_s - first.impact_s, 3)
                body |= {"doubted": event.doubted, **_sources(told.witnesses)}
                return Note(event.incident, "again", body)
        return told

    def _join(self, event: Event, witness: Witness) -> list[Verdict]:
        notes: list[Verdict] = []
        source = witness.source
        event.resident = event.resident or source.resident
        if source.sense not in event.senses:
            event.senses.add(source.sense)
            body = {"strong": witness.strong, "probability": witness.probability, **_sources((witness,))}
            notes.append(Note(event.incident, "witness", body))
        if event.doubted and witness.by_camera:
            notes.append(_doubt(event, doubted=False, by=source.id))
        return notes

    def _other(self, witness: Witness) -> Witness | None:
        """Return the nearest suspicion of the other kind of source about the same."""
        source = witness.source
        others = [
            other
            for theirs, kept in self._weak.items()
            if theirs.sense is not source.sense and theirs.room == source.room
            for other in kept
            if _may_be(theirs.resident, source.resident) and abs(other.impact_s - witness.impact_s) < SAME_S
        ]
        return min(others, key=lambda other: abs(other.impact_s - witness.impact_s), default=None)

    def _in(self, room: str, resident: str | None) -> Iterator[Event]:
        """Yield the events that may be of a resident, the newest first."""
        return (event for event in reversed(self._events.get(room, ())) if _may_be(event.resident, resident))


def _may_be(a: str | None, b: str | None) -> bool:
    return a is None or b is None or a == b


def _apart_s(event: Event, impact_s: float) -> float:
    return min(abs(impact_s - known_s) for known_s in event.impacts_s)


def _doubt(event: Event, *, doubted: bool, by: str) -> Note:
    event.doubted = doubted
    return Note(event.incident, "doubt", {"doubted": doubted, "by": by})


def _sources(witnesses: tuple[Witness, ...]) -> dict[str, Any]:
    """Return who saw it, for the journal: kinds, and ids."""
    return {"witnesses": [w.source.sense.value for w in witnesses], "sources": [w.source.id for w in witnesses]}
