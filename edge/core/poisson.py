"""How many could there be, given how few were seen? Standard library only."""

from __future__ import annotations

import math


def poisson_at_most(events: int, *, confidence: float = 0.95) -> float:
    """Return the exact upper bound of a Poisson mean of which ``events`` were seen."""
    low, high = 0.0, 2.0 * events + 10.0
    for _ in range(60):
        mean = (low + high) / 2
        so_few = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(events + 1))
        low, high = (mean, high) if so_few > 1 - confidence else (low, mean)
    return high
