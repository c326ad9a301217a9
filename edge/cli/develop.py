"""Commands for model developers and trials: replay, simulate, bench, demo."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli import Config, Json, State, app, say, stop
from edge.settings import DEFAULT_CONFIG, DEFAULT_STATE, load_settings

if TYPE_CHECKING:
    from models.scorer import Scorer


@app.command(epilog="Example: fallwatch replay --placement wrist --json tests/data/fall-forward-wrist.csv")
def replay(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Recordings as CSV or CWA; depth folders with --camera.")
    ],
    placement: Annotated[str | None, typer.Option("--placement", help="wrist or waist; beats the file.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Folder of a model bundle.")] = None,
    camera: Annotated[
        Path | None, typer.Option("--camera", metavar="CALIB.json", help="The files are folders of depth PNGs.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="With --camera: what was seen, frame by frame.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay recordings through the pipeline of the daemon, in virtual time."""
    if camera is not None:
        _replay_camera(camera, files, model, trace, as_json=as_json)
        return
    if trace is not None:
        stop("--trace is for depth folders: name their calibration with --camera CALIB.json", status=2)
    from edge.recording import RecordingUnreadable
    from models.card import BundleRefused, newest
    from models.scorer import Scorer

    if placement not in {None, "wrist", "waist"}:
        stop(f"--placement {placement!r} is not known; use wrist or waist", status=2)
    scorers: dict[Path, Scorer] = {}

    def scorer_for(worn_at: str) -> Scorer:
        try:
            folder = model or newest(worn_at)
            if folder not in scorers:
                scorers[folder] = Scorer(folder)
        except BundleRefused as error:
            stop(f"model is refused: {error}", status=2)
        return scorers[folder]

    failed = False
    for name in files:
        try:
            result: dict[str, Any] = _replay_one(name, placement, scorer_for)
        except RecordingUnreadable as error:
            failed = True
            result = {"recording": name, "error": error.reason}
        say(json.dumps(result) if as_json else _replay_line(result))
    raise SystemExit(1 if failed else 0)


def _replay_camera(
    calib: Path, folders: list[str], model: Path | None, trace: Path | None, *, as_json: bool
) -> None:
    from edge.replay_camera import replay_folder
    from edge.sources.depth import CameraGone
    from edge.sources.depth.folder import read_calibration
    from models.card import BundleRefused, newest
    from models.scorer import Scorer

    if trace is not None and len(folders) > 1:
        stop("--trace takes one folder at a time", status=2)
    try:
        calibration, scorer = read_calibration(calib), Scorer(model or newest("camera"))
    except ValueError as error:
        stop(str(error), status=2)
    except BundleRefused as error:
        stop(f"model is refused: {error}", status=2)
    if scorer.card.placement != "camera":
        stop(f"--model {model}: it is for {scorer.card.placement}, not for a camera", status=2)
    failed = False
    for name in folders:
        try:
            result: dict[str, Any] = replay_folder(Path(name), calibration, scorer, trace=trace)
            result["recording"] = name
        except CameraGone as error:
            failed = True
            result = {"recording": name, "error": error.reason}
        except OSError as error:
            stop(f"--trace {trace}: {error.strerror or error}", status=2)
        say(json.dumps(result) if as_json else _replay_line(result))
    raise SystemExit(1 if failed else 0)


def _replay_one(name: str, placement: str | None, scorer_for: Callable[[str], Scorer]) -> dict[str, Any]:
    """Replay one recording and return the contract's line about it.

    Raises:
        RecordingUnreadable: it has no usable rows.
    """
    from edge.core.detector import FallDetected
    from edge.core.incident import Kind
    from edge.core.replay import replay as replay_runs
    from edge.recording import read_recording

    recording = read_recording(name)
    worn_at = placement or recording.placement or "wrist"
    scorer = scorer_for(worn_at)
    alarms = [
        {
            "kind": Kind.LONG_LIE if fall.long_lie else Kind.FALL,
            "impact_s": min(max(fall.impact_s, 0.0), recording.duration_s),
            # A stream is judged up to the next point of the model's grid, which may lie past its last sample.
            "raised_s": min(max(fall.raised_s, fall.impact_s, 0.0), recording.duration_s),
            "probability": fall.probability,
        }
        for fall in replay_runs([(run.t_s, run.accel_g) for run in recording.runs], scorer)
        if isinstance(fall, FallDetected)
    ]
    return {
        "recording": name,
        "duration_s": recording.duration_s,
        "placement": worn_at,
        "model": scorer.card.name,
        "alarms": alarms,
        "bad_rows": recording.bad_rows,
    }


def _replay_line(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['recording']}: cannot be read: {result['error']}"
    alarms = "; ".join(
        f"{a['kind'].upper()} impact {a['impact_s']:.2f} s, raised {a['raised_s']:.2f} s, p {a['probability']:.2f}"
        for a in result["alarms"]
    )
    bad = f", {result['bad_rows']} bad rows" if result["bad_rows"] else ""
    return f"{result['recording']} ({result['duration_s']:.1f} s, {result['model']}{bad}): {alarms or 'no alarm'}"


@app.command(
    epilog="Example: fallwatch simulate --port /tmp/dongle --play tests/data/walk-wrist.csv,wearable=0042,loop"
)
def simulate(
    port: Annotated[Path, typer.Option("--port", metavar="LINK", help="Where to put the link to the pty.")],
    play: Annotated[
        list[str], typer.Option("--play", metavar="FILE[,wearable=ID][,loop]", help="What one plays.")
    ],
    speed: Annotated[float, typer.Option("--speed", min=0.01, help="Times real time.")] = 1.0,
    battery: Annotated[list[str] | None, typer.Option("--battery", metavar="ID=PCT", help="Charge left.")] = None,
    silence: Annotated[
        list[str] | None, typer.Option("--silence", metavar="ID@T", help="Silent from T s.")
    ] = None,
    loss: Annotated[float, typer.Option("--loss", min=0, max=1, help="Part of packets lost.")] = 0.0,
    garbage: Annotated[float, typer.Option("--garbage", min=0, max=1, help="Part of frames after noise.")] = 0.0,
    config: Config = DEFAULT_CONFIG,
    state: State = DEFAULT_STATE,
) -> None:
    """Play recordings as wearables of a virtual dongle on a pty, in real time times the speed."""
    from edge.simulate import NotPlayable, virtual_dongle
    from firmware_bridge.virtual import DonglePty

    settings = load_settings(config)
    try:
        dongle, names = virtual_dongle(
            settings, state, play, battery=battery or [], silence=silence or [], loss=loss, garbage=garbage
        )
        pty = DonglePty(dongle, port, speed=speed)
    except NotPlayable as error:
        stop(str(error), status=error.status)
    except OSError as error:
        stop(f"--port {port}: {error.strerror or error}", status=2)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    say(f"ready: {len(names)} wearables ({', '.join(names)}) on {port}, speed {speed:g}; stop with Ctrl-C")
    with pty:
        pty.run(ended)


@app.command(epilog="Example: fallwatch bench --wearables 100 --seconds 60 --json")
def bench(
    wearables: Annotated[int, typer.Option("--wearables", min=1, max=4096, help="How many at 50 Hz.")] = 100,
    seconds: Annotated[float, typer.Option("--seconds", min=5, help="Of stream time.")] = 60.0,
    shadow: Annotated[Path | None, typer.Option("--shadow", help="Folder of a bundle to run beside it.")] = None,
    alarm: Annotated[int, typer.Option("--alarm", help="Measure the alarm service with so many incidents.")] = 0,
    cameras: Annotated[int, typer.Option("--cameras", min=0, help="Measure so many depth cameras instead.")] = 0,
    kind: Annotated[
        str, typer.Option("--kind", help="What they are: fallwatch, polar, witmotion, witmotion-ble or mqtt.")
    ] = "fallwatch",
    as_json: Json = False,
) -> None:
    """Speed and memory of the real path on one core: bytes, decryption, timeline, network, decision."""
    if alarm > 0:
        from edge.bench_alarm import run_alarm_bench

        result = run_alarm_bench(alarm, idle_s=seconds)
        say(json.dumps(result) if as_json else "\n".join(f"{k:>24}: {v}" for k, v in result.items()))
        return
    from edge.bench import KINDS, run_bench
    from models.card import BundleRefused

    if cameras > 0:
        from edge.bench_camera import run_camera_bench

        result = run_camera_bench(cameras, seconds)
        say(json.dumps(result) if as_json else "\n".join(f"{k:>24}: {v}" for k, v in result.items()))
        return

    if kind not in KINDS:
        stop(f"--kind {kind!r} is not known; use one of {', '.join(KINDS)}", status=2)
    try:
        result = run_bench(wearables, seconds, quiet=as_json, shadow=shadow, kind=kind)
    except BundleRefused as error:
        stop(f"model is refused: {error}", status=2)
    say(json.dumps(result) if as_json else "\n".join(f"{k:>24}: {v}" for k, v in result.items()))


@app.command(epilog="Example: fallwatch demo")
def demo(
    record: Annotated[Path | None, typer.Option("--keep", help="Folder to keep journal and record in.")] = None,
) -> None:
    """Show the main job with virtual wearables and a virtual pager: one of six people falls."""
    from edge.demo import run_demo

    raise SystemExit(run_demo(record))
