"""Commands for depth cameras: which there are, how they are, and a pause for personal care."""

from __future__ import annotations

import getpass
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli import Config, Json, Run, State, app, say, stop
from edge.cli.people import By, camera_parts, open_journal, show_parts
from edge.settings import DEFAULT_CONFIG, DEFAULT_RUN, DEFAULT_STATE, load_settings

SEEN_WITHIN_S = 5.0  # detect looks once a second

camera_app = typer.Typer(no_args_is_help=True, help="Depth cameras.")
app.add_typer(camera_app, name="camera")

Room = Annotated[str, typer.Argument(help="The room, as in the settings.")]


@camera_app.command("pause", epilog="Example: fallwatch camera pause 12 --minutes 20 --by anna")
def camera_pause(
    room: Room,
    minutes: Annotated[float, typer.Option("--minutes", min=1, max=60, help="For so long, at most 60.")] = 20,
    by: By = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Switch a room's cameras off for personal care. It always ends by itself. Status 1 if they still look."""
    from edge.pause import begin_pause

    cameras, who = _cameras_in(config, room), by or getpass.getuser()
    if not begin_pause(state, room, minutes * 60, who):
        stop(f"{state}: the pause cannot be written down; cover the lens instead", status=1)
    audit(state, "camera-paused", room=room, length_s=minutes * 60, by=who)
    if not _comes_about(run, cameras, paused=True):
        stop("fall detection has not taken it yet: see fallwatch camera status, and cover the lens", status=1)
    ends = _local_time(config, minutes * 60)
    say(f"Room {room}: {', '.join(cameras)} off until {ends}, then on again by itself.")
    say("Nobody is watched over by it until then. Next: fallwatch camera resume ROOM ends it sooner.")


@camera_app.command("resume", epilog="Example: fallwatch camera resume 12 --by anna")
def camera_resume(
    room: Room,
    by: By = None,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
    run: Run = DEFAULT_RUN,
) -> None:
    """Let a paused room's cameras look again before the pause is over. Status 1 if they do not."""
    from edge.pause import end_pause

    cameras, who = _cameras_in(config, room), by or getpass.getuser()
    try:
        held = end_pause(state, room)
    except OSError as error:
        stop(f"{state}: the pause cannot be taken away ({error.strerror}); it ends by itself", status=1)
    if not held:
        say(f"Room {room} was not paused.")
        return
    audit(state, "camera-resumed", room=room, by=who)
    if not _comes_about(run, cameras, paused=False):
        stop("fall detection has not taken it yet: see fallwatch camera status", status=1)
    say(f"Room {room}: {', '.join(cameras)} on again. Next: fallwatch camera status.")


@camera_app.command("find", epilog="Example: fallwatch camera find --json")
def camera_find(as_json: Json = False) -> None:
    """List the depth cameras that are plugged in and whose driver is installed. Status 1 if there is none."""
    from edge.sources.depth import find_cameras

    found = find_cameras()
    for camera in found:
        told = {"kind": camera.kind, "device": camera.device, "name": camera.name}
        say(json.dumps(told) if as_json else f'kind = "{camera.kind}"  device = "{camera.device}"  {camera.name}')
    if not found:
        stop("no depth camera is found: see its cable, and that its driver is installed", status=1)
    if not as_json:
        say("Next: put kind and device into a [[camera]] of the settings.")


@camera_app.command("status", epilog="Example: fallwatch camera status --json")
def camera_status(as_json: Json = False, config: Config = DEFAULT_CONFIG, run: Run = DEFAULT_RUN) -> None:
    """Every camera: well or blind, since when, why; how long a pause goes on. Status 1 if any is blind."""
    from edge.runfile import read_runfile

    parts = camera_parts(load_settings(config), read_runfile(run / "detect.json"))
    if as_json:
        for part in parts:
            say(json.dumps(part))
    elif parts:
        show_parts(parts)
    else:
        say("No cameras in the settings. Next: fallwatch camera find.")
    raise SystemExit(0 if all(part["well"] for part in parts) else 1)


def _cameras_in(config: Path, room: str) -> list[str]:
    settings = load_settings(config)
    cameras = [camera.id for camera in settings.camera if camera.room == room]
    if not cameras:
        rooms = ", ".join(dict.fromkeys(camera.room for camera in settings.camera)) or "no room"
        stop(f"room {room!r} has no camera; there are some in {rooms}", status=2)
    return cameras


def _comes_about(run: Path, cameras: list[str], *, paused: bool) -> bool:
    """Wait until detect says so of all of them."""
    from edge.runfile import read_runfile

    for _ in range(round(SEEN_WITHIN_S / 0.1)):
        told: dict[str, Any] = (read_runfile(run / "detect.json") or {}).get("cameras", {})
        if all(name in told and (told[name]["paused_left_s"] is not None) is paused for name in cameras):
            return True
        time.sleep(0.1)
    return False


def audit(state: Path, kind: str, **body: Any) -> None:
    """Keep in the journal who did it; where that refuses, it has happened all the same."""
    from edge.journal import JournalUnavailable

    try:
        open_journal(state).add_note(kind, **body)
    except JournalUnavailable as error:
        say(f"{error}: who paused it is not kept.")


def _local_time(config: Path, in_s: float) -> str:
    from zoneinfo import ZoneInfo

    from edge.clock import utc_now

    local = (utc_now() + timedelta(seconds=in_s)).astimezone(ZoneInfo(load_settings(config).home.timezone))
    return f"{local:%H:%M}"
