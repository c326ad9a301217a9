"""``python -m training data | train | evaluate``: each has ``--help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from models.scorer import Scorer
from training import bundle, datasets, evaluate, train


def show_data() -> None:
    """Show what is used of each set, and what is dropped and why."""
    trials, ledger = datasets.load()
    Console().print(datasets.summary(trials, ledger))
    Console().print(f"data {datasets.fingerprint(trials)}")


def show_evaluation(argv: list[str]) -> None:
    """Replay all recordings of a bundle's placement through the daemon's code."""
    parser = argparse.ArgumentParser(prog="python -m training evaluate", description=show_evaluation.__doc__)
    parser.add_argument("--model", type=Path, required=True, help="bundle folder")
    parser.add_argument("--seed", type=int, default=1, help="order of the trials in the streams (%(default)s)")
    options = parser.parse_args(argv)
    scorer = Scorer(options.model)
    placement = scorer.card.placement
    trials, _ = datasets.load(train.SETS[placement])
    scored = evaluate.score_people((t for t in trials if t.placement == placement), scorer, seed=options.seed)
    title = f"{scorer.card.name}: people it was trained on, if it is the shipped one; the card has unseen people"
    Console().print(bundle.results_table(evaluate.report(scored, scorer.card), title))


def main() -> int:
    """Run one command."""
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    try:
        if command == "data":
            show_data()
        elif command == "train":
            train.main(rest)
        elif command == "evaluate":
            show_evaluation(rest)
        else:
            Console(stderr=True).print("usage: python -m training data | train [--help] | evaluate --model DIR")
            return 0 if command in {"-h", "--help"} else 2
    except datasets.DataMissing as missing:
        Console(stderr=True).print(str(missing))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
