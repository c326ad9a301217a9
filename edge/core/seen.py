"""What a depth camera saw, in numbers: the only thing that leaves the process that holds its images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

# What the network sees of one person, in this order; heights above the floor.
FEATURES = (
    "head_m",  # the highest part of the body but for stray pixels
    "centroid_m",
    "speed_mps",  # of the centroid, upwards
    "extent_m",  # longest way across, along the floor
    "width_m",  # across that
    "low_part",  # of the body's area as seen from above, below LOW_M
    "area_m2",  # as seen from above
    "in_bed",  # part of the body over a bed or chair zone
    "moving_part",  # of its outline, within the last half second: 0 for somebody who lies still
    "seen_part",  # of its outline that the border of the image does not cut off; 0 when hidden
)


@dataclass(frozen=True, slots=True)
class Person:
    """One person in a frame."""

    track: int  # the same number while the same person is followed
    features: tuple[float, ...]  # as in FEATURES
    on_floor_s: float  # how long on the floor without a break, 0 when not

    @property
    def head_m(self) -> float:
        """Height of the head above the floor."""
        return self.features[0]

    @property
    def centroid_m(self) -> float:
        """Height of the body's middle above the floor."""
        return self.features[1]

    @property
    def speed_mps(self) -> float:
        """Vertical speed of the body's middle; negative is down."""
        return self.features[2]


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame, without its image."""

    time_s: float  # of the frame, on the Pi's monotonic clock; in a recording its own time
    people: tuple[Person, ...]
    valid_part: float  # of the pixels with a reading
    cause: str = ""  # why nobody can be seen, in the words of `Cause`

    def to_line(self) -> str:
        """Write it as one line of JSON."""
        people = [[p.track, *(round(f, 4) for f in p.features), round(p.on_floor_s, 2)] for p in self.people]
        return json.dumps([round(self.time_s, 4), people, round(self.valid_part, 4), self.cause])


def parse_seen(line: str) -> Seen:
    """Read what `Seen.to_line` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        time_s, people, valid_part, cause = json.loads(line)
        found = tuple(Person(int(p[0]), tuple(map(float, p[1:-1])), float(p[-1])) for p in people)
        seen = Seen(float(time_s), found, float(valid_part), str(cause))
    except (TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"no line of a camera: {error}") from None
    if any(len(p.features) != len(FEATURES) for p in found):
        raise ValueError(f"no line of a camera: a person has {len(FEATURES)} features")
    numbers = [seen.time_s, seen.valid_part, *(n for p in found for n in (*p.features, p.on_floor_s))]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("no line of a camera: a number is none")
    return seen
