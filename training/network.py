"""A small 1-D CNN over quantities that do not depend on how the sensor is turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP_G = 16.0
# Widths are multiples of 16, the block in which onnxruntime computes: fewer would cost as much.
LAYERS = ((32, 5), (32, 5), (48, 3), (64, 3))  # channels, kernel; each halves the length


class FallNet(nn.Module):
    """Logit of a fall in a window of acceleration, shape (batch, window_samples, 3), float32, g.

    The network sees |a| and its changes, and of the slow part of a (gravity, mostly) how fast it turns, how
    far it is from where it pointed at both ends of the window, and how much of a lies along it: nothing else
    survives a sensor worn another way round.
    """

    mean: Tensor
    sums: Tensor
    centre: Tensor

    def __init__(self, window_samples: int, rate_hz: float, *, dropout: float = 0.25) -> None:
        super().__init__()
        at = torch.arange(window_samples)
        near = (at[:, None] - at).abs() <= round(rate_hz) // 2
        # Constants, not learnt. One multiplication by a band matrix is the fastest centred mean there is, one
        # by a matrix of ones the fastest sum of squares; the turning weighs 5, squared.
        self.register_buffer("mean", near / near.sum(0), persistent=False)
        sums = torch.eye(4).repeat_interleave(3, dim=1) * torch.tensor([[1.0], [1.0], [1.0], [25.0]])
        self.register_buffer("sums", sums, persistent=False)
        centre = torch.tensor([-0.7, 0.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0])
        self.register_buffer("centre", centre[:, None], persistent=False)
        layers: list[nn.Module] = []
        into, length = len(centre), window_samples
        for width, kernel in LAYERS:
            # Two-dimensional of height 1: onnxruntime has fast kernels for these and none for one dimension.
            layers += [
                nn.Conv2d(into, width, (1, kernel), stride=(1, 2), padding=(0, kernel // 2)),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            into, length = width, (length + 1) // 2
        layers += [nn.Conv2d(into, 16, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout)]
        layers += [nn.Linear(16 * length, 32), nn.ReLU(), nn.Dropout(dropout * 0.8), nn.Linear(32, 1)]
        self.layers = nn.Sequential(*layers)

    @torch.no_grad()
    def features(self, accel_g: Tensor) -> Tensor:
        """Return shape (batch, 8, window_samples): nothing of it is learnt.

        In order: log |a|, log |jerk|, log |a - slow|, |a| near 1 g, turning, a along the heading, and the
        heading's cosine to where it pointed first and last.
        """
        a = accel_g.transpose(1, 2)
        slow = a @ self.mean
        heading = slow / (torch.sqrt((slow * slow).sum(1, keepdim=True) + 1e-6) + 0.1)
        jerk = nn.functional.pad(a[:, :, 1:] - a[:, :, :-1], (1, 0))
        turn = nn.functional.pad(heading[:, :, 4:] - heading[:, :, :-4], (2, 2))
        vectors = torch.cat([a, jerk, a - slow, turn], dim=1)
        norms = torch.sqrt(self.sums @ (vectors * vectors) + 1e-6)
        along = (a * heading).sum(1, keepdim=True).clamp(-2.0, 3.0)
        ends = torch.cat([heading[:, :, :1], heading[:, :, -1:]], dim=2)
        near_1_g = norms[:, :1].clamp(max=2.0)
        parts = [torch.log1p(norms[:, :3]), near_1_g, norms[:, 3:], along, ends.transpose(1, 2) @ heading]
        return torch.cat(parts, dim=1) + self.centre

    def forward(self, accel_g: Tensor) -> Tensor:
        """Return logits, shape (batch,)."""
        logits: Tensor = self.layers(self.features(accel_g).unsqueeze(2))
        return logits.squeeze(1)


class Probability(nn.Module):
    """The network as shipped: clipped input in, probability out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, accel_g: Tensor) -> Tensor:
        """Return probabilities, shape (batch,)."""
        return torch.sigmoid(self.net(accel_g.clamp(-CLIP_G, CLIP_G)))
