"""Commands for who hangs a camera: where its floor is, what stands in the room, and where the beds are."""

from __future__ import annotations

import contextlib
import getpass
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli import Config, State, say, stop
from edge.cli.cameras import Room, audit, camera_app
from edge.cli.people import By
from edge.settings import DEFAULT_CONFIG, DEFAULT_STATE, CameraSettings, load_settings

if TYPE_CHECKING:
    from edge.depth.frame import Plane
    from edge.depth.view import Image, Rays

LOOK_S = 3.0
FRAMES = 30

Write = Annotated[bool, typer.Option("--write", help="Put it into the settings; the old ones are kept beside.")]


@camera_app.command("floor", epilog="Example: fallwatch camera floor 12 --write")
def camera_floor(room: Room, write: Write = False, config: Config = DEFAULT_CONFIG) -> None:
    """Find the floor in a room's camera, to be compared with a tape measure. Status 1 if none is found."""
    from edge.cli.edit import place_camera
    from edge.depth.floor import find_floors
    from edge.depth.view import View

    camera = _camera_in(config, room)
    rays, room_m = _look(camera)
    floors = find_floors(rays.points(room_m))
    if not floors:
        stop("no floor is found: turn the camera down until at least a third of its view is floor", status=1)
    floor = floors[0]
    numbers = [round(value, 4) for value in astuple(floor)]
    tilt_deg = View(rays, floor).tilt_deg
    say(f"Camera {camera.id} hangs {floor.d:.2f} m above the floor and looks {tilt_deg:.0f} degrees down.")
    say("Measure its height with a tape: more than 5 cm apart, clear the floor and try again.")
    if write:
        place_camera(config, camera.id, floor=numbers)
        say(f"Written to {config}: floor = {numbers}. Next: fallwatch camera plan {room}, then restart detect.")
    else:
        say(f"floor = {numbers}    (--write puts it into the settings)")


@camera_app.command("plan", epilog="Example: fallwatch camera plan 12 --by erin")
def camera_plan(room: Room, by: By = None, config: Config = DEFAULT_CONFIG, state: State = DEFAULT_STATE) -> None:
    """Print the empty room from above in letters of 20 cm, to read a bed's corners off. Who looked is kept."""
    from edge.depth.place import plan_text
    from edge.depth.view import View

    camera = _camera_in(config, room)
    audit(state, "camera-plan", room=room, by=by or getpass.getuser())
    rays, room_m = _look(camera)
    say("metres away, and height in decimetres: . floor, 5 half a metre, 9 and more")
    say("\n".join(plan_text(View(rays, _floor_of(camera, rays, room_m)), room_m)))
    say(f"Next: fallwatch camera zone {room} bed RIGHT,AWAY RIGHT,AWAY RIGHT,AWAY RIGHT,AWAY --height 0.5 --write")


@camera_app.command(
    "zone",
    context_settings={"ignore_unknown_options": True},  # -1.6,2.6 is a corner
    epilog="Example: fallwatch camera zone 12 bed -1.6,2.6 -0.6,2.6 -0.6,4.4 -1.6,4.4 --height 0.5",
)
def camera_zone(
    room: Room,
    kind: Annotated[str, typer.Argument(help="bed or chair.")],
    corners: Annotated[list[str], typer.Argument(metavar="RIGHT,AWAY...", help="Its corners as in the plan.")],
    height: Annotated[float, typer.Option("--height", min=0.05, max=1.2, help="Of its surface, metres.")] = 0.5,
    write: Write = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Mark a bed or chair, in which lying is no fall. The camera needs its floor in the settings first."""
    from edge.cli.edit import place_camera
    from edge.depth.frame import Plane
    from edge.depth.place import polygon_of

    camera = _camera_in(config, room)
    if not camera.floor:
        stop(f"camera {camera.id} has no floor yet; find it with fallwatch camera floor {room} --write", status=2)
    points = []
    for corner in corners:
        try:
            right, away = map(float, corner.split(","))
        except ValueError:
            stop(f"{corner!r} is no corner; give metres right and away, such as -1.6,2.6", status=2)
        points.append((right, away))
    polygon = [list(point) for point in polygon_of(points, Plane(*camera.floor), height)]
    zone = {"kind": kind, "polygon_m": polygon, "height_m": height}
    if write:
        place_camera(config, camera.id, zone=zone)
        say(f"Written to {config}. Next: restart detect, and lie down there: nobody is to be called.")
    else:
        say(f"{zone}    (--write puts it into the settings)")


def _camera_in(config: Path, room: str) -> CameraSettings:
    found = [camera for camera in load_settings(config).camera if camera.room == room]
    if len(found) != 1:
        stop(f"room {room!r} has {len(found) or 'no'} cameras in the settings; one is needed", status=2)
    return found[0]


def _look(camera: CameraSettings) -> tuple[Rays, Image]:
    """Look through the camera for a moment; return its rays and the room's depth, metres, without who moves."""
    from edge.clock import monotonic_s
    from edge.depth.background import Background
    from edge.depth.view import Rays, shrink
    from edge.detect.eyes import orders_of
    from edge.eye import keep_memory_here, read_orders
    from edge.sources.depth import CameraGone, open_camera

    keep_memory_here(with_parent=False)
    frames: list[Image] = []
    try:
        source = open_camera(read_orders(orders_of(camera)).wanted)
        with contextlib.closing(source):
            rays = Rays.of(source.intrinsics)
            until_s = monotonic_s() + LOOK_S
            while len(frames) < FRAMES and monotonic_s() < until_s:
                if (frame := source.read(0.5)) is not None:
                    frames.append(shrink(frame.depth_mm))
    except CameraGone as error:
        stop(
            f"{error}; while fallwatch looks through it, pause it first: fallwatch camera pause {camera.room}",
            status=1,
        )
    if len(frames) < FRAMES // 5:
        stop(f"camera {camera.id} gave {len(frames)} frames in {LOOK_S:.0f} s; see cable and lens", status=1)
    known = Background(rays.shape)
    known.learn(frames)
    return rays, known.read_m


def _floor_of(camera: CameraSettings, rays: Rays, room_m: Image) -> Plane:
    from edge.depth.floor import find_floors
    from edge.depth.frame import Plane

    if camera.floor:
        return Plane(*camera.floor)
    floors = find_floors(rays.points(room_m))
    if not floors:
        stop("no floor is found: turn the camera down until at least a third of its view is floor", status=1)
    return floors[0]
