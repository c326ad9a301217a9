"""``python -m training COMMAND``, each of which has ``--help``; see `main` for their names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from models.scorer import Scorer
from training import bundle, datasets, evaluate, promote, quantise, train


def show_data(argv: list[str]) -> None:
    """Show what is used of each set, and what is dropped and why."""
    argparse.ArgumentParser(prog="python -m training data", description=show_data.__doc__).parse_args(argv)
    trials, ledger = datasets.load()
    Console().print(datasets.summary(trials, ledger))
    Console().print(f"data {datasets.fingerprint(trials)}")


def show_evaluation(argv: list[str]) -> None:
    """Replay all recordings of a bundle's placement through the daemon's code."""
    parser = argparse.ArgumentParser(prog="python -m training evaluate", description=show_evaluation.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="bundle folder")
    options = parser.parse_args(argv)
    scorer = Scorer(options.model)
    placement = scorer.card.placement
    trials, _ = datasets.load(train.SETS[placement])
    scored = evaluate.score_people((t for t in trials if t.placement == placement), scorer)
    title = f"{scorer.card.name}: people it was trained on, if it is the shipped one; the card has unseen people"
    Console().print(bundle.results_table(evaluate.report(scored, scorer.card), title))


def run_search(argv: list[str]) -> None:
    """Search how a network is best fitted."""
    from training import search  # what it needs is heavy, and nobody else needs it

    search.main(argv)


def make_depth_clips(argv: list[str]) -> None:
    """Make depth clips with truth."""
    from training.depth import clips

    clips.make_clips(argv)


def make_depth_folder(argv: list[str]) -> None:
    """Write a clip as a recorded depth folder."""
    from training.depth import clips

    clips.make_folder(argv)


def train_camera(argv: list[str]) -> int:
    """Teach the camera's network from depth clips."""
    from training.depth import learn

    return learn.main(argv)


def main() -> int:
    """Run one command."""
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    commands: dict[str, Callable[[list[str]], int | None]] = {
        "data": show_data,
        "train": train.main,
        "search": run_search,
        "evaluate": show_evaluation,
        "quantise": quantise.main,
        "promote": promote.main,
        "depth-clips": make_depth_clips,
        "depth-folder": make_depth_folder,
        "camera": train_camera,
    }
    if command not in commands:
        Console(stderr=True).print(f"usage: python -m training {' | '.join(commands)}; each has --help")
        return 0 if command in {"-h", "--help"} else 2
    try:
        return commands[command](rest) or 0
    except datasets.DataMissing as missing:
        Console(stderr=True).print(str(missing))
        return 1


if __name__ == "__main__":
    sys.exit(main())
