"""A small network over what a camera saw of one person."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge.core.seen import FEATURES

# What each feature usually is, and how far it strays: constants, so that a bundle needs nothing else.
_USUAL = {
    "head_m": (1.0, 0.5),
    "centroid_m": (0.6, 0.35),
    "speed_mps": (0.0, 0.5),
    "extent_m": (0.9, 0.5),
    "width_m": (0.5, 0.25),
    "low_part": (0.3, 0.4),
    "area_m2": (0.3, 0.2),
    "in_bed": (0.2, 0.4),
    "moving_part": (0.2, 0.25),
    "seen_part": (1.0, 0.5),
}
CLIP = 4.0


class CameraNet(nn.Module):
    """Logit of a fall in a window, shape (batch, window_samples, features), float32, as in `FEATURES`."""

    middle: Tensor
    spread: Tensor

    def __init__(self, window_samples: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("middle", torch.tensor([_USUAL[name][0] for name in FEATURES]))
        self.register_buffer("spread", torch.tensor([_USUAL[name][1] for name in FEATURES]))
        layers: list[nn.Module] = []
        into, length = len(FEATURES), window_samples
        for width, kernel in ((32, 5), (32, 5), (32, 3)):  # of height 1, for which onnxruntime has fast kernels
            layers += [nn.Conv2d(into, width, (1, kernel), stride=(1, 2), padding=(0, kernel // 2)), nn.ReLU()]
            into, length = width, (length + 1) // 2
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(32 * length, 32), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(32, 1))

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        x = ((windows - self.middle) / self.spread).clamp(-CLIP, CLIP)
        logits: Tensor = self.layers(x.transpose(1, 2).unsqueeze(2))
        return logits.squeeze(1)


class Probability(nn.Module):
    """The network as shipped: probability out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, windows: Tensor) -> Tensor:
        """Return probabilities, shape (batch,)."""
        return torch.sigmoid(self.net(windows))
