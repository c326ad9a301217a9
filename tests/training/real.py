"""The real data sets, each read once by a process of tests: reading the largest takes ten seconds."""

from __future__ import annotations

import functools

from training.datasets import load
from training.readers import Trial


@functools.cache
def real_trials(name: str) -> list[Trial]:
    """Return the trials of a set in the folder that ``FALLWATCH_DATA`` names; they are for reading."""
    return load([name])[0]
