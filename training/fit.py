"""Fit one network on a pool of windows: a plain loop that looks from time to time for what fools it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.network import FallNet
from training.windows import Pool, Shape, gather

MINED_AT = (1 / 8, 2 / 8, 4 / 8, 6 / 8)  # of the way, the windows that fool the network are looked for
MINED = {True: 50_000, False: 120_000}  # so many falls, so many others are looked at
LABEL_DOUBT = 0.01  # labels are believed this much less than wholly
NOISE_G = 0.03  # at most


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How one network is fitted."""

    steps: int = field(default=2000, metadata={"help": "batches per network"})
    batch: int = field(default=256, metadata={"help": "windows per batch"})
    variants: int = field(default=4, metadata={"help": "renderings of each trial as another device"})
    learning_rate: float = field(default=3.5e-3, metadata={"help": "learning rate after the first tenth"})
    weight_decay: float = field(default=0.02, metadata={"help": "pull of the weights towards zero"})
    averaging: float = field(default=0.998, metadata={"help": "share of the old in the mean of the weights"})
    dropout: float = field(default=0.25, metadata={"help": "share of features forgotten while learning"})
    fall_share: float = field(default=0.4, metadata={"help": "share of falls in a batch"})
    mining: float = field(default=0.15, metadata={"help": "weight of a window that fools nobody; else 1 more"})


def fit(pool: Pool, shape: Shape, config: FitConfig, *, seed: int) -> FallNet:
    """Return the running mean of a network's weights on its way: steadier than where the way ends."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = FallNet(shape.window_samples, shape.rate_hz, dropout=config.dropout)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config.averaging), use_buffers=True)  # type: ignore[no-untyped-call]
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimiser, 0.05, total_iters=max(config.steps // 10, 1))
    falls, others = np.flatnonzero(pool.falls), np.flatnonzero(~pool.falls)
    fall_sum, other_sum = np.cumsum(pool.weights[falls]), np.cumsum(pool.weights[others])
    n_falls = round(config.batch * config.fall_share)
    for step in range(config.steps):
        if step in {round(config.steps * part) for part in MINED_AT}:
            others, fooled = _look(net, pool, False, shape, rng)
            other_sum = np.cumsum(pool.weights[others] * (config.mining + fooled))
            # A fall that looks like none at all is more often a wrong label than a lesson.
            falls, found = _look(net, pool, True, shape, rng)
            fall_sum = np.cumsum(pool.weights[falls] * (0.3 + found))
        picked = np.concatenate(
            [_draw(falls, fall_sum, n_falls, rng), _draw(others, other_sum, config.batch - n_falls, rng)]
        )
        windows = torch.from_numpy(gather(pool, picked, shape.window_samples))
        windows = windows + torch.randn_like(windows) * (torch.rand(len(windows), 1, 1) * NOISE_G)
        wanted = torch.from_numpy(pool.falls[picked].astype(np.float32)) * (1 - 2 * LABEL_DOUBT) + LABEL_DOUBT
        loss = nn.functional.binary_cross_entropy_with_logits(net(windows), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        warm_up.step()
        average.update_parameters(net)
    net.load_state_dict(average.module.state_dict())
    return net.eval()


def _draw(
    of: NDArray[np.int64], cumulative: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw windows by weight, with replacement."""
    at = np.searchsorted(cumulative, rng.random(count) * cumulative[-1])
    picked: NDArray[np.int64] = of[np.minimum(at, len(of) - 1)]
    return picked


@torch.no_grad()
def _look(
    net: FallNet, pool: Pool, falls: bool, shape: Shape, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return windows of one class picked at random, and what the network says to them."""
    of = np.flatnonzero(pool.falls == falls)
    picked = np.sort(rng.choice(of, min(len(of), MINED[falls]), replace=False))
    net.eval()
    said = [
        torch.sigmoid(net(torch.from_numpy(gather(pool, part, shape.window_samples)))).numpy()
        for part in np.array_split(picked, max(1, len(picked) // 1024))
    ]
    net.train()
    return picked, np.concatenate(said)
