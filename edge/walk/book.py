"""The walk so far, in the state folder: one file, replaced whole after each room."""

from __future__ import annotations

import csv
import io
import json
import os
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.core.walk import Carried, Room, advice
from edge.settings import Settings

FILE = "walk.json"
PLAN_KEYS = ("room", "x_m", "y_m", "kind")
KINDS = ("room", "receiver")
PLAN_MAX_BYTES = 1 << 20


class BookUnusable(Exception):
    """The walk so far, or a plan, cannot be read or kept; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A room or receiver on the plan; metres to the right of and below its upper left corner, where given."""

    name: str
    at_m: tuple[float, float] | None = None
    kind: str = "room"


@dataclass(frozen=True, slots=True)
class Book:
    """What was walked, with which wearables, and the plan of the home."""

    carried: tuple[str, ...] = ()
    plan: tuple[Spot, ...] = ()
    rooms: dict[str, Room] = field(default_factory=dict)

    def with_room(self, room: Room) -> Book:
        """Return it with a room that was walked, in place of what was known of that room."""
        return replace(self, rooms=self.rooms | {room.name: room})

    @property
    def places(self) -> dict[str, tuple[float, float] | None]:
        """Where the rooms of the plan lie."""
        return {spot.name: spot.at_m for spot in self.plan if spot.kind == "room"}

    def wanted(self, settings: Settings) -> tuple[str, ...]:
        """Return the rooms to walk, the plan's in its order, then those of residents who are to be covered."""
        lived_in = [r.room for r in settings.resident if r.wearables or r.cover != "none"]
        return tuple(dict.fromkeys([*self.places, *lived_in]))

    def unwalked(self, settings: Settings) -> tuple[str, ...]:
        """Return the rooms that are still to be walked."""
        return tuple(name for name in self.wanted(settings) if name not in self.rooms)

    def document(self, settings: Settings) -> dict[str, Any]:
        """Return the walk for programs, the rooms in natural order."""
        rooms = [self.rooms[name] for name in sorted(self.rooms, key=natural)]
        unwalked = self.unwalked(settings)
        return {
            "home": settings.home.id,
            "well": all(room.cover != "no cover" for room in rooms),
            "rooms": [_room_words(room) | {"at_m": self.places.get(room.name)} for room in rooms],
            "unwalked": list(unwalked),
            "receivers": [asdict(spot) for spot in self.plan if spot.kind == "receiver"],
            "todo": list(advice(rooms, self.places, unwalked)),
        }


def natural(name: str) -> tuple[Any, ...]:
    """Return a key by which room 9 comes before room 10."""
    parts, number = [], ""
    for letter in name + " ":
        if letter.isdecimal() and letter.isascii():
            number += letter
            continue
        if number:
            parts.append((0, int(number), ""))
            number = ""
        parts.append((1, 0, letter))
    return tuple(parts)


def _room_words(room: Room) -> dict[str, Any]:
    return {
        "room": room.name,
        "cover": room.cover.value,
        "reasons": list(room.reasons),
        "at": room.at,
        "seconds": room.seconds,
        "wearables": [asdict(one) for one in room.carried],
    }


def read_book(state: Path) -> Book:
    """Return the walk so far; an empty one where there is none.

    Raises:
        BookUnusable: the file is there and cannot be read.
    """
    path = state / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        rooms = [
            Room(r["room"], r["at"], r["seconds"], tuple(Carried(**one) for one in r["wearables"]))
            for r in body["rooms"]
        ]
        plan = tuple(Spot(p["name"], p["at_m"] and tuple(p["at_m"]), p["kind"]) for p in body["plan"])
        return Book(tuple(body["carried"]), plan, {room.name: room for room in rooms})
    except FileNotFoundError:
        return Book()
    except OSError as error:
        raise BookUnusable(f"{path}: cannot be read ({error.strerror}); run as the user fallwatch") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BookUnusable(f"{path}: is no walk ({error!r}); move it away and walk anew") from None


def write_book(state: Path, book: Book) -> None:
    """Keep it; after this no kill and no power cut loses it.

    Raises:
        BookUnusable: the folder cannot be written.
    """
    path, new = state / FILE, state / f"{FILE}.new"
    body = {
        "carried": book.carried,
        "plan": [asdict(spot) for spot in book.plan],
        "rooms": [_room_words(room) for room in book.rooms.values()],
    }
    try:
        state.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            json.dump(body, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(state, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise BookUnusable(f"{path}: cannot be written ({error.strerror}); run as the user fallwatch") from None


def read_plan(path: Path) -> tuple[Spot, ...]:
    """Read a plan: CSV with the header ``room,x_m,y_m,kind``, or TOML with ``[[room]]`` and ``[[receiver]]``.

    All but the name may be left out.

    Raises:
        BookUnusable: it is none; says which line or entry, and what would be right.
    """
    try:
        if path.stat().st_size > PLAN_MAX_BYTES:
            raise BookUnusable(
                f"{path}: is larger than {PLAN_MAX_BYTES >> 10} KiB; a plan has a line for each room"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BookUnusable(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BookUnusable(f"{path}: is no text in UTF-8; save it as 'CSV UTF-8'") from None
    entries = _from_toml(path, text) if path.suffix == ".toml" else _from_csv(path, text)
    spots = [_spot(path, where, entry) for where, entry in entries]
    names = [spot.name for spot in spots]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not spots:
        raise BookUnusable(f"{path}: {f'{twice!r} is there twice' if spots else 'names no room'}")
    return tuple(spots)


def _from_toml(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BookUnusable(f"{path}: is no TOML: {error}") from None
    stray = next((key for key in tables if key not in KINDS or not isinstance(tables[key], list)), None)
    if stray is not None:
        raise BookUnusable(f"{path}: {stray}: use [[room]] and [[receiver]] alone")
    return [
        (f"{kind}[{i}]", {"kind": kind, **({"room": entry.pop("name")} if "name" in entry else {}), **entry})
        for kind, table in tables.items()
        for i, entry in enumerate(table, start=1)
    ]


def _from_csv(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    stray = next((name for name in reader.fieldnames or () if name not in PLAN_KEYS), None)
    if "room" not in (reader.fieldnames or ()) or stray is not None:
        raise BookUnusable(f"{path}: its first line must be room,x_m,y_m or room,x_m,y_m,kind")
    return [(f"line {reader.line_num}", {k: v for k, v in row.items() if v}) for row in reader]


def _spot(path: Path, where: str, entry: dict[str, Any]) -> Spot:
    name, kind = str(entry.get("room", "")).strip(), entry.get("kind", "room")
    stray = next((key for key in entry if key not in PLAN_KEYS), None)
    if not name or kind not in KINDS or stray is not None or ("x_m" in entry) != ("y_m" in entry):
        raise BookUnusable(
            f"{path}: {where}: give room, and x_m with y_m in metres or neither; kind is room or receiver"
        )
    if "x_m" not in entry:
        return Spot(name, None, kind)
    try:
        at_m = float(entry["x_m"]), float(entry["y_m"])
    except (TypeError, ValueError):
        at_m = (float("nan"), 0.0)
    if not all(-10_000 < metres < 10_000 for metres in at_m):
        raise BookUnusable(f"{path}: {where}: x_m and y_m are metres, such as 12.5")
    return Spot(name, at_m, kind)
