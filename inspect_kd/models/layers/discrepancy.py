"""From two sets of features to a heatmap and a score: cosine distance, smoothing, mean of the hottest places.

Shapes: B batch, C channels, h w feature grid, H W image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cosine_distance(first_BChw: Tensor, second_BChw: Tensor) -> Tensor:
    """1 - cosine at each place: (B, 1, h, w)."""
    return 1 - F.cosine_similarity(first_BChw, second_BChw, dim=1, eps=1e-6).unsqueeze(1)


def gaussian_taps(sigma: float) -> Tensor:
    """A kernel that ends where the weights have died out (4 sigma): no silent truncation to a few cells."""
    radius = max(1, round(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (taps / taps.sum()).float()


class Smooth(nn.Module):
    """A fixed separable Gaussian, with mirrored borders, part of the graph."""

    taps_K: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("taps_K", gaussian_taps(sigma), persistent=False)

    def forward(self, map_B1hw: Tensor) -> Tensor:
        radius = self.taps_K.numel() // 2
        padded = F.pad(map_B1hw, (radius, radius, radius, radius), mode="reflect")
        across = F.conv2d(padded, self.taps_K.view(1, 1, 1, -1))
        return F.conv2d(across, self.taps_K.view(1, 1, -1, 1))


def top_mean(map_B1hw: Tensor, share: float) -> Tensor:
    """Mean of the hottest share of places: a plain maximum would follow a single dead pixel on the sensor."""
    places = map_B1hw.flatten(1)
    count = max(1, round(share * places.shape[1]))
    return places.topk(count, dim=1).values.mean(dim=1)
