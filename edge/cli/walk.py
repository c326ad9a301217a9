"""Commands for the installer who walks from room to room with a wearable."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE, Settings, load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from edge.core.walk import Packet, Room
    from edge.walk.book import Book
    from edge.walk.ear import Ear, Told

LOOK_EVERY_S = 0.5
SAY_EVERY_S = 5.0  # plain lines: a bad connection has to carry them
FIND_S = 8.0  # for a receiver to open and its wearables to be heard
LATELY_S = 10.0  # heard within so long: it is there
NARROW_COLUMNS = 80
_COLOURS = {"good": "green", "weak": "yellow", "no cover": "bold red"}


@app.command(epilog="Example: fallwatch walktest --room 12 --seconds 20")
def walktest(
    room: Annotated[str | None, typer.Option("--room", help="Measure this room, where you are, and end.")] = None,
    again: Annotated[str | None, typer.Option("--again", metavar="ROOM", help="The same, once more.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=10, max=600, help="How long in each room.")] = 30,
    wearable: Annotated[
        list[str] | None, typer.Option("--wearable", help="Carried; those that are heard now when left out.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Rooms, with metres x_m, y_m where known: CSV or TOML.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing; show what was walked.")] = False,
    map_file: Annotated[Path | None, typer.Option("--map", help="Draw the map into this SVG file.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines in place of the live table.")] = False,
    as_json: Json = False,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Walk with wearables through the rooms, and see where they are heard. Status 1 if a room has no cover."""
    from edge.walk.book import BookUnusable

    settings = load_settings(config)
    if sum((room is not None, again is not None, show)) > 1:
        stop("give one of --room, --again and --show", status=2)
    try:
        walk = _Walk(settings, state, run, seconds=seconds, quiet=as_json)
        if plan is not None:
            walk.take_plan(plan)
        asks = room is None and again is None and not show and sys.stdin.isatty() and not as_json
        if room is None and again is None and not (show or asks or plan is not None):
            stop("where are you? Give --room ROOM; or --show for what was walked", status=2)
        walked: list[Room] = []
        if room is not None or again is not None:
            walked = [walk.one(room if again is None else again, wearable, anew=again is not None)]
        elif asks:
            walk.ask(wearable, live=not plain and sys.stdout.isatty())
        if map_file is not None:
            walk.draw(map_file)
    except BookUnusable as error:
        stop(str(error), status=2)
    document = walk.book.document(settings)
    if as_json:
        say(json.dumps(document))
    elif walked:
        _say_room(walked[0])
        left = document["unwalked"]
        say(f"Next: go to room {left[0]}." if left else "All rooms are walked. Next: fallwatch walktest --show.")
    else:
        _show(document)
    counted = walked or list(walk.book.rooms.values())
    raise SystemExit(1 if any(one.cover == "no cover" for one in counted) else 0)


class _Walk:
    """One call of the command: what was walked before, and what is measured now."""

    def __init__(self, settings: Settings, state: Path, run: Path, *, seconds: float, quiet: bool) -> None:
        from edge.walk.book import read_book

        self._settings, self._state, self._run = settings, state, run
        self._seconds, self._quiet = seconds, quiet
        self._said_s = float("-inf")
        self.book: Book = read_book(state)

    def take_plan(self, file: Path) -> None:
        """Note where the rooms lie."""
        from dataclasses import replace

        from edge.walk.book import read_plan, write_book

        self.book = replace(self.book, plan=read_plan(file))
        write_book(self._state, self.book)

    def draw(self, file: Path) -> None:
        """Write the map."""
        from edge.walk.drawing import walk_map

        home = self._settings.home
        svg = walk_map(self.book.plan, self.book.rooms, title=f"Walk test: {home.name or home.id}")
        if svg is None:
            stop("no room has a place to draw it: give a plan with x_m and y_m, by --plan", status=2)
        try:
            file.write_text(svg, encoding="utf-8")
        except OSError as error:
            stop(f"{file}: cannot be written ({error.strerror}); name another with --map", status=2)

    def one(self, name: str | None, wearables: list[str] | None, *, anew: bool) -> Room:
        """Measure one room and return it."""
        name = (name or "").strip()
        if not name:
            stop("the room has no name: give one, such as --room 12", status=2)
        if name in self.book.rooms and not anew:
            stop(f"room {name} is walked already: --again {name} measures it once more", status=2)
        with self._ear() as ear:
            self._choose(ear, wearables)
            self._tell(f"Room {name}, {self._seconds:g} s: walk about, into the corners and the bathroom.")
            return self.measure(ear, name, lambda told, left_s: self.say_line(told, f"{left_s:3.0f} s left"))

    def ask(self, wearables: list[str] | None, *, live: bool) -> None:
        """Ask where the installer is, and measure there, until Enter alone."""
        with self._ear() as ear:
            self._choose(ear, wearables)
            (_live if live else _lines)(self, ear)

    @contextmanager
    def _ear(self) -> Iterator[Ear]:
        from edge.walk.ear import open_ear

        ear = open_ear(self._settings, self._state, self._run)
        try:
            self._tell(f"Heard by {ear.name}.")
            yield ear
        finally:
            ear.close()

    def _choose(self, ear: Ear, given: list[str] | None) -> None:
        """Settle which wearables are carried: those given, else as before, else all that are heard."""
        from dataclasses import replace

        from edge.walk.book import write_book

        known = [w for resident in self._settings.resident for w in resident.wearables]
        stray = next((w for w in given or () if w not in known), None)
        if stray is not None:
            stop(
                f"wearable {stray} is no resident's: pair it first; known: {', '.join(known) or 'none'}", status=2
            )
        until_s = time.monotonic() + FIND_S
        while True:
            told = ear.look() or {}
            heard = [w for w, one in told.items() if one.heard_s_ago is not None and one.heard_s_ago < LATELY_S]
            carried = given or [w for w in self.book.carried if w in known] or heard
            if carried and (heard or time.monotonic() > until_s):
                break
            if time.monotonic() > until_s:
                reason = ear.problem() or "no wearable is heard: put one on, near the receiver"
                stop(f"{reason}. Then walk", status=1)
            time.sleep(LOOK_EVERY_S)
        if ear.problem():
            stop(f"no receiver is heard: {ear.problem()}. Mend that, then walk", status=1)
        self.book = replace(self.book, carried=tuple(carried))
        write_book(self._state, self.book)
        self._tell(f"Carried: {', '.join(carried)}. (Others: --wearable ID.)")

    def measure(self, ear: Ear, name: str, during: Any) -> Room:
        """Hear for the seconds asked for, keep the room, and return it."""
        from edge.clock import monotonic_s, utc_now
        from edge.core.incident import utc_text
        from edge.core.walk import Room, measured
        from edge.walk.book import write_book

        begin_s = monotonic_s()
        end_s = begin_s + self._seconds
        packets: dict[str, set[Packet]] = {wearable: set() for wearable in self.book.carried}
        newest: dict[str, Told] = {}
        while (now_s := monotonic_s()) < end_s + 2 * LOOK_EVERY_S + 1.0:  # the service speaks once a second
            told = ear.look()
            if told is None:
                stop(
                    "the detect service stopped while this room was measured: start it, then measure anew",
                    status=1,
                )
            newest = told
            for wearable, heard in packets.items():
                heard.update(told[wearable].packets if wearable in told else ())
            during(told, max(end_s - now_s, 0.0))
            time.sleep(LOOK_EVERY_S)
        if ear.problem():
            stop(f"the receiver was lost meanwhile: {ear.problem()}. Measure room {name} anew", status=1)
        carried = []
        for wearable, heard in packets.items():
            last = newest.get(wearable)
            rate_hz, battery_pct = (last.rate_hz, last.battery_pct) if last else (0.0, None)
            span: dict[str, float] = {"begin_s": begin_s, "end_s": end_s, "rate_hz": rate_hz}
            carried.append(measured(wearable, heard, **span, battery_pct=battery_pct))
        room = Room(name, utc_text(utc_now()), self._seconds, tuple(carried))
        self.book = self.book.with_room(room)
        write_book(self._state, self.book)
        return room

    def next_room(self) -> str:
        """Return where to go next, if anywhere is left."""
        return next(iter(self.book.unwalked(self._settings)), "")

    def table(self, told: dict[str, Told]) -> Table:
        """Return the live table: carried ones first."""
        from rich.markup import escape
        from rich.table import Table

        heads = ["wearable", "room", "dBm", "lost", "battery", "heard"]
        table = Table(*heads, box=None, pad_edge=False) if _is_narrow() else Table(*heads, "why blind")
        rooms = {w: r.room for r in self._settings.resident for w in r.wearables}
        for wearable in sorted(told, key=lambda w: (w not in self.book.carried, w)):
            one = told[wearable]
            mark = "> " if wearable in self.book.carried else "  "
            why = [] if _is_narrow() else [escape(one.cause or "")]
            table.add_row(mark + wearable, escape(rooms.get(wearable, "")), *_cells(one), *why)
        return table

    def say_line(self, told: dict[str, Told], left: str) -> None:
        if self._quiet or time.monotonic() - self._said_s < SAY_EVERY_S:
            return
        self._said_s = time.monotonic()
        for wearable in self.book.carried:
            if wearable in told:
                signal, lost, battery, heard = _cells(told[wearable])
                say(f"{left}  {wearable}  {signal} dBm  lost {lost}  battery {battery}  heard {heard}")

    def _tell(self, text: str) -> None:
        if not self._quiet:
            say(text)


def _cells(told: Told) -> tuple[str, str, str, str]:
    """Return signal, loss, battery and age as people read them."""
    ago = told.heard_s_ago
    stale = ago is None or ago > LATELY_S
    strength = "-" if told.rssi_dbm is None or stale else f"{told.rssi_dbm} {_bar(told.rssi_dbm)}"
    battery = "-" if told.battery_pct is None else f"{told.battery_pct} %"
    return (
        strength,
        "-" if stale else f"{told.lost_part:.0%}",
        battery,
        "never" if ago is None else f"{ago:.0f} s ago",
    )


def _bar(rssi_dbm: int) -> str:
    """Return four steps of strength; the first two end where supervision draws its lines."""
    from edge.core.radio import FADED_DBM, NOT_STRONG_DBM

    steps = sum(rssi_dbm > limit for limit in (FADED_DBM, NOT_STRONG_DBM, -60, -45))
    return "#" * steps + "." * (4 - steps)


def _live(walk: _Walk, ear: Ear) -> None:
    """Ask below a table that moves; keys are read one by one, so that it can."""
    import termios
    import tty

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    typed, said = "", Text("Go to a room, type its name, press Enter, walk about in it. Enter alone ends.")
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        with Live(auto_refresh=False, screen=False) as live:

            def draw(told: dict[str, Told], line: str) -> None:
                # What is cut off at the bottom of a small screen is the table of those who are not here.
                live.update(Group(said, Text(line), walk.table(told)), refresh=True)

            while True:
                draw(ear.look() or {}, f"Room{_hint(walk)}: {typed}_")
                if not select.select([terminal], [], [], 1.0)[0]:
                    continue
                keys = os.read(terminal, 256).decode("utf-8", "ignore")
                for key in keys:
                    if key in "\r\n":
                        break
                    typed = typed[:-1] if key in "\b\x7f" else typed + key if key.isprintable() else typed
                if not any(key in "\r\n\x04" for key in keys):
                    continue
                name, typed = typed.strip(), ""
                if not name:
                    return
                room = walk.measure(
                    ear, name, lambda told, left_s, name=name: draw(told, f"Room {name}: {left_s:.0f} s left")
                )
                said = Text(_room_line(room.name, room.cover, room.reasons), _COLOURS[room.cover.value])
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _lines(walk: _Walk, ear: Ear) -> None:
    """Ask and answer line by line."""
    while True:
        walk.say_line(ear.look() or {}, "now")
        try:
            name = input(f"Room{_hint(walk)}, Enter alone ends: ").strip()
        except EOFError:
            return
        if not name:
            return
        _say_room(walk.measure(ear, name, lambda told, left_s: walk.say_line(told, f"{left_s:3.0f} s left")))


def _hint(walk: _Walk) -> str:
    return f" (next {walk.next_room()})" if walk.next_room() else ""


def _room_line(name: str, cover: str, reasons: Sequence[str]) -> str:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"Room {name}: {cover.upper()}{why}"


def _is_narrow() -> bool:
    """Tell whether this is a telephone held upright, where a table would be cut off."""
    return shutil.get_terminal_size().columns < NARROW_COLUMNS


def _say_room(room: Room) -> None:
    from dataclasses import asdict

    say(_room_line(room.name, room.cover, room.reasons))
    for one in room.carried:
        say(f"  {one.wearable}: {_figures(asdict(one))}")


def _figures(one: dict[str, Any]) -> str:
    """Return what was measured of a wearable, in a line."""
    median, worst = one["rssi_median_dbm"], one["rssi_worst_dbm"]
    strength = "" if median is None else f"{median:g} dBm, worst {worst}, "
    lost = f"{one['lost']} of {one['packets'] + one['lost']} packets lost" if one["packets"] else "no packets"
    return f"{strength}{lost} ({one['lost_part']:.1%}), longest gap {one['gap_s']:g} s"


def _show(document: dict[str, Any]) -> None:
    """Write the table of rooms, and what to do."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if _is_narrow():
        for room in document["rooms"]:
            say(_room_line(room["room"], room["cover"], room["reasons"]))
            for one in room["wearables"]:
                say(f"  {one['wearable']}: {_figures(one)}")
        for name in document["unwalked"]:
            say(f"Room {name}: not walked")
        _say_todo(document)
        return
    table = Table("room", "cover", "signal", "worst", "lost", "gap", "why")
    for room in document["rooms"]:
        cells = [
            [_text(one[key], form) for one in room["wearables"]]
            for key, form in (
                ("rssi_median_dbm", "{:g} dBm"),
                ("rssi_worst_dbm", "{:g} dBm"),
                ("lost_part", "{:.1%}"),
                ("gap_s", "{:g} s"),
            )
        ]
        cover = f"[{_COLOURS[room['cover']]}]{room['cover'].upper()}[/]"
        table.add_row(
            escape(room["room"]), cover, *("\n".join(cell) for cell in cells), escape("\n".join(room["reasons"]))
        )
    for name in document["unwalked"]:
        table.add_row(escape(name), "not walked")
    Console().print(table)
    _say_todo(document)


def _say_todo(document: dict[str, Any]) -> None:
    for line in document["todo"]:
        say(line)
    if not document["rooms"]:
        say("No room was walked yet. Next: fallwatch walktest, in the first room.")
    elif not document["todo"]:
        say("Every room is good. Next: fallwatch sheet --out sheet.html, the paper to hand over.")


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
