"""Several networks that were fitted from different seeds, and agree by the mean of their log odds.

Each errs in its own way, so together they raise fewer false alarms for the same falls found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.network import FallNet

LEAST = 1e-7  # a probability nearer to 0 or 1 says no more


def agree(probabilities: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the committee's probabilities from its members', each of shape (n,)."""
    sure = np.clip(np.stack(probabilities).astype(np.float64), LEAST, 1 - LEAST)
    odds = np.log(sure / (1 - sure)).mean(axis=0)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


class Committee(nn.Module):
    """Mean of the members' logits; what is not learnt is computed once for all."""

    def __init__(self, members: Sequence[FallNet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, accel_g: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        first = self.members[0]
        assert isinstance(first, FallNet)
        features = first.features(accel_g).unsqueeze(2)
        logits = [member.layers(features) for member in self.members]  # type: ignore[operator]
        return torch.cat(logits, dim=1).mean(dim=1)
