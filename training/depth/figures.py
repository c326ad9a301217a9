"""A plot for each claim about the camera's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.depth.verdicts import Verdict, camera_height, camera_tilt, shares

FOUND, WRONG = "#1f5a99", "#c4572b"


def draw(verdicts: Sequence[Verdict], folder: Path) -> list[Path]:
    """Write the plots; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    replayed = [v for v in verdicts if v.source == "replayed"]
    drawn = [
        _bars(replayed, lambda v: v.person, "replayed skeletons, by person none of whose clips taught", "people"),
        _bars(verdicts, lambda v: f"{v.source}: {v.activity}", "unseen people, by what they do", "activities"),
        _bars(verdicts, camera_height, "unseen people and rooms, by height of the camera", "heights"),
        _bars(verdicts, camera_tilt, "unseen people and rooms, by tilt of the camera", "tilts"),
        _floor(verdicts),
    ]
    files = []
    with mpl.rc_context({"font.size": 9}):
        for name, figure in drawn:
            path = folder / f"camera-{name}.png"
            figure.savefig(path, dpi=110, metadata={"Software": None})
            files.append(path)
    return files


def _bars(verdicts: Sequence[Verdict], by: Callable[[Verdict], str], title: str, name: str) -> tuple[str, Figure]:
    groups = shares(verdicts, by)
    figure = Figure(figsize=(8.0, 1.4 + 0.24 * len(groups)), layout="constrained")
    falls, daily = figure.subplots(1, 2, sharey=True)
    for axes, part, of, interval, colour, label in (
        (falls, "found", "falls", "found_95", FOUND, "falls found, %"),
        (daily, "alarming", "daily", "alarming_95", WRONG, "daily clips that alarm, %"),
    ):
        for row, facts in enumerate(groups.values()):
            if facts[of]:
                _one(axes, row, (facts[part], facts[of]), facts[interval], colour)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    falls.set_xlim(50, 101)
    falls.axvline(97, color="grey", linestyle=":")
    daily.set_xlim(0, 30)
    daily.axvline(2, color="grey", linestyle=":")
    falls.set_yticks(range(len(groups)), groups)
    falls.invert_yaxis()
    figure.suptitle(f"{title} (dotted: 97 and 2 %; bars: 95 % Wilson)")
    return name, figure


def _one(axes: Axes, row: int, count: tuple[int, int], interval: list[float], colour: str) -> None:
    middle, label = 100 * count[0] / count[1], f"{count[0]}/{count[1]}"
    axes.plot([100 * interval[0], 100 * interval[1]], [row, row], color=colour, alpha=0.5)
    axes.plot(middle, row, "o", color=colour, markersize=4)
    axes.annotate(label, (middle, row), xytext=(0, 4), textcoords="offset points", fontsize=6, ha="center")


def _floor(verdicts: Sequence[Verdict]) -> tuple[str, Figure]:
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    along, spread = figure.subplots(1, 2)
    some: list[Any] = [v for v in verdicts if v.floor_error_s is not None]
    for source, colour in (("replayed", FOUND), ("synthetic", WRONG)):
        mine = [v for v in some if v.source == source]
        along.plot(
            [v.floor_s for v in mine],
            [v.floor_s + v.floor_error_s for v in mine],
            ".",
            color=colour,
            alpha=0.4,
            label=source,
        )
    along.plot([0, 40], [0, 40], color="grey", linestyle=":")
    along.set_xlabel("true time on the floor, s")
    along.set_ylabel("as told, s")
    along.legend()
    errors = np.clip([v.floor_error_s for v in some], -10, 10)
    spread.hist(errors, bins=np.arange(-10, 10.5, 0.5), color=FOUND)
    spread.set_xlabel("told minus true, s (beyond 10 s: at the ends)")
    spread.set_ylabel("clips, over the seeds")
    figure.suptitle("time on the floor, clips with 2 s or more of it")
    return "time-on-floor", figure
