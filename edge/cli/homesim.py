"""The command that tries the system on a made-up home with the truth about it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from edge.cli import Json, app, say, stop


@app.command("simulate-home", epilog="Example: fallwatch simulate-home --residents 10 --days 1 --without-model")
def simulate_home(
    residents: Annotated[int, typer.Option("--residents", min=1, max=500, help="How many.")] = 60,
    days: Annotated[float, typer.Option("--days", min=0.02, help="Of virtual time.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same home.")] = 1,
    without_model: Annotated[bool, typer.Option("--without-model", help="Supervision alone: faster.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes.")] = 1,
    faults: Annotated[float, typer.Option("--faults", min=0, help="Times the usual rate of faults.")] = 1.0,
    falls: Annotated[float, typer.Option("--falls", min=0, help="A day and resident.")] = 0.5,
    live: Annotated[float, typer.Option("--live", min=0, help="Minutes with the real services instead.")] = 0.0,
    timetable: Annotated[bool, typer.Option("--timetable", help="Print the truth alone, and end.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Folder to draw into; needs matplotlib.")] = None,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="List what was named wrongly or late, and nuisance.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Play a home of residents whose troubles are known, and score what is told of them."""
    import numpy as np
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from edge.home.live import TO_ACT_S, live_home, run_live
    from edge.home.motion import load_pool
    from edge.home.run import home_of, watch_home
    from edge.home.scenario import Habits
    from edge.home.score import draw, score
    from edge.home.score import wrong as what_is_wrong
    from models.card import BundleRefused

    screen = Console(stderr=as_json)
    try:
        home = (
            live_home(live * 60, np.random.default_rng(seed))
            if live
            else home_of(seed, residents, days, Habits(faults=faults, falls_per_day=falls))
        )
    except ValueError as error:
        stop(f"--live {live:g}: {error}", status=2)
    if timetable:
        events = sorted([*home.events, *(e for life in home.lives for e in life.events)])
        for e in events:
            say(f"{e.begin_s:11.1f} {e.end_s:11.1f}  {e.wearable or 'home':<8} {e.truth} {e.how or ''}".rstrip())
        return
    screen.print("Reading recordings; the public sets take about a minute ...")
    pool = load_pool(os.environ.get("FALLWATCH_DATA"))
    screen.print(f"Motion: {pool.said}.")
    extra: dict[str, object] = {"seed": seed, "motion": pool.said}
    if live:
        seen = run_live(home, pool, seed, screen.print)
        told = seen.told
        extra |= {"live_min": live, "raise_to_pager_s": [round(s, 2) for s in sorted(seen.raise_to_pager_s)]}
    else:
        columns = (TextColumn("virtual time"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
        try:
            with Progress(*columns, TimeRemainingColumn(), console=screen) as progress:
                bar = progress.add_task("", total=home.end_s)
                told = watch_home(
                    home,
                    pool,
                    seed,
                    with_model=not without_model,
                    jobs=jobs,
                    on_progress=lambda at_s: progress.update(bar, completed=at_s),
                )
        except BundleRefused as error:
            stop(f"model is refused: {error}", status=2)
        extra |= {"wearable_s_per_cpu_s": round(len(home.lives) * home.end_s / max(told.cpu_s, 1e-3))}
    result = score(home, told, to_act_s=TO_ACT_S) if live else score(home, told)
    if as_json:
        say(json.dumps({**extra, **result.as_json(), **({"wrong": what_is_wrong(result)} if wrong else {})}))
    else:
        screen.print(result.tables())
        screen.print(*(f"{key.replace('_', ' ')}: {value}" for key, value in extra.items()), sep="\n")
        if wrong:
            for row in what_is_wrong(result):
                say(", ".join(f"{key} {value}" for key, value in row.items() if value not in {"", None}))
        say("Next: --wrong lists what went wrong, --plot FOLDER draws it; another --seed is another home.")
    if plot is not None:
        try:
            for path in draw(home, told, result, plot):
                screen.print(f"drawn: {path}")
        except ImportError:
            screen.print("Nothing is drawn: matplotlib is not installed; it is in the training extra.")
