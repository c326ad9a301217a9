"""A small 1-D CNN over quantities that do not depend on how the sensor is turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP_G = 16.0


class FallNet(nn.Module):
    """Logit of a fall in a window of acceleration, shape (batch, window_samples, 3), float32, g.

    The network sees |a| and its changes, and of the slow part of a (gravity, mostly) how fast it turns, how
    far it is from where it pointed at both ends of the window, and how much of a lies along it: nothing else
    survives a sensor worn another way round.
    """

    def __init__(self, window_samples: int, rate_hz: float, *, dropout: float = 0.25) -> None:
        super().__init__()
        self._second = round(rate_hz) | 1  # odd, so that it centres
        layers: list[nn.Module] = []
        into, length = 8, window_samples
        for width, kernel in ((24, 5), (32, 5), (40, 3), (56, 3)):
            layers += [
                nn.Conv1d(into, width, kernel, stride=2, padding=kernel // 2),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
            into, length = width, (length + 1) // 2
        layers += [nn.Conv1d(into, 16, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)]
        layers += [nn.Linear(16 * length, 32), nn.ReLU(), nn.Dropout(dropout * 0.8), nn.Linear(32, 1)]
        self.layers = nn.Sequential(*layers)

    def features(self, accel_g: Tensor) -> Tensor:
        """Return shape (batch, 8, window_samples)."""
        a = accel_g.transpose(1, 2)
        magnitude = _norm(a)
        half = self._second // 2
        slow = nn.functional.avg_pool1d(a, self._second, 1, padding=half, count_include_pad=False)
        heading = slow / (_norm(slow) + 0.1)
        jerk = nn.functional.pad(_norm(a[:, :, 1:] - a[:, :, :-1]), (1, 0))
        return torch.cat(
            [
                torch.log1p(magnitude) - 0.7,
                magnitude.clamp(max=2.0) - 1.0,
                torch.log1p(jerk),
                torch.log1p(_norm(a - slow)),
                (heading * heading[:, :, :1]).sum(1, keepdim=True),
                (a * heading).sum(1, keepdim=True).clamp(-2.0, 3.0) - 1.0,
                5 * nn.functional.pad(_norm(heading[:, :, 4:] - heading[:, :, :-4]), (2, 2)),
                (heading * heading[:, :, -1:]).sum(1, keepdim=True),
            ],
            dim=1,
        )

    def forward(self, accel_g: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        logits: Tensor = self.layers(self.features(accel_g))
        return logits.squeeze(1)


class Probability(nn.Module):
    """The network as shipped: clipped input in, probability out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, accel_g: Tensor) -> Tensor:
        """Return probabilities, shape (batch,)."""
        return torch.sigmoid(self.net(accel_g.clamp(-CLIP_G, CLIP_G)))


def _norm(a: Tensor) -> Tensor:
    return torch.sqrt((a * a).sum(1, keepdim=True) + 1e-6)
