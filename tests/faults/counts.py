"""How often each fault is made: a few times among all tests, in full by ``make faults``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

FULL = os.environ.get("FALLWATCH_FAULTS") == "full"
SEED = int(os.environ.get("FALLWATCH_SEED", "20261122"))


only_in_full = pytest.mark.skipif(not FULL, reason="takes half a minute; make faults runs it")
# Where commits are many and no power is cut: in memory, if that can be had.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def count(few: int, full: int) -> int:
    """Return how often: ``few`` times, or with ``FALLWATCH_FAULTS=full`` that often."""
    return full if FULL else few


def tell(fault: str, **figures: float | str) -> None:
    """Say what came out, as `docs/robustness.md` has it; ``pytest -s`` shows it."""
    words = ", ".join(f"{name.replace('_', ' ')} {_text(figure)}" for name, figure in figures.items())
    sys.stdout.write(f"\n{fault} (seed {SEED}): {words}\n")


def _text(figure: float | str) -> str:
    return f"{figure:.2f}" if isinstance(figure, float) else str(figure)
