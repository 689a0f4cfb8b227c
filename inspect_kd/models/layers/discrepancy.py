"""Operations that turn two sets of features into a heatmap and a score: cosine distance, smoothing, mean of the hottest positions.

Shapes: B batch, C channels, h w feature grid, H W image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cosine_distance(first_BChw: Tensor, second_BChw: Tensor) -> Tensor:
    """1 - cosine at each position: (B, 1, h, w)."""
    return 1 - F.cosine_similarity(first_BChw, second_BChw, dim=1, eps=1e-6).unsqueeze(1)


def cosine_product(first_BChw: Tensor, second_BChw: Tensor) -> Tensor:
    """Product of unit vectors, channel by channel: the channels sum to the cosine."""
    return F.normalize(first_BChw, dim=1) * F.normalize(second_BChw, dim=1)


def gaussian_taps(sigma: float) -> Tensor:
    """Weights of a Gaussian kernel out to 4 sigma, where they are negligible."""
    radius = max(1, round(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (taps / taps.sum()).float()


class GaussianSmoothing(nn.Module):
    """Gaussian smoothing with mirrored borders, inside the exported graph."""

    taps_K: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("taps_K", gaussian_taps(sigma), persistent=False)

    def forward(self, map_B1hw: Tensor) -> Tensor:
        radius = self.taps_K.numel() // 2
        padded = F.pad(map_B1hw, (radius, radius, radius, radius), mode="reflect")
        smoothed_rows = F.conv2d(padded, self.taps_K.view(1, 1, 1, -1))
        return F.conv2d(smoothed_rows, self.taps_K.view(1, 1, -1, 1))


def top_mean(map_B1hw: Tensor, share: float) -> Tensor:
    """Mean over the hottest positions, `share` of all: a plain maximum would follow a single dead pixel of the sensor."""
    values_BN = map_B1hw.flatten(1)
    count = max(1, round(share * values_BN.shape[1]))
    return values_BN.topk(count, dim=1).values.mean(dim=1)


def weighted_top_mean(map_B1hw: Tensor, weights_B1hw: Tensor, share: float) -> Tensor:
    """Mean of the weighted map over its hottest positions, `share` of those whose weight is above 0; 0 where there are none.

    The number of positions differs between images, while TensorRT needs a constant k: the largest possible number is sorted, and
    those beyond an image's own number get no share in the mean.
    """
    values_BN = (map_B1hw * weights_B1hw).flatten(1)
    largest_count = max(1, round(share * values_BN.shape[1]))
    hottest_BK = values_BN.topk(largest_count, dim=1).values
    inspected_B1 = (weights_B1hw.flatten(1) > 0).to(values_BN.dtype).sum(dim=1, keepdim=True)
    count_B1 = (share * inspected_B1).round().clamp(1, largest_count)
    rank_K = torch.arange(largest_count, dtype=values_BN.dtype, device=values_BN.device)
    is_counted_BK = (rank_K < count_B1).to(values_BN.dtype)
    return (hottest_BK * is_counted_BK).sum(dim=1) / count_B1.squeeze(1)
