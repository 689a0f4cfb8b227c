"""Prepare features of several strides: normalise each channel, join levels at one grid.

Shapes: B batch, C channels, h w feature grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scaling = Literal["none", "spread", "full"]
Group = tuple[int, ...]
"""Strides of levels that are joined, at the grid of the coarsest."""


class FeatureNorm(nn.Module):
    """Divide each channel by its standard deviation over sound parts, in loss and score alike.

    By default the mean is not subtracted: the cosine distance of centred features is large wherever a feature is near its
    mean, which on a stochastic texture is everywhere (measured: docs/results/ablation.md).
    """

    def __init__(self, channels: Sequence[int], scaling: Scaling) -> None:
        super().__init__()
        self.levels = len(channels)
        self.scaling = scaling
        for level, count in enumerate(channels):
            self.register_buffer(f"mean_{level}", torch.zeros(1, count, 1, 1))
            self.register_buffer(f"spread_{level}", torch.ones(1, count, 1, 1))

    def fit(self, batches: Iterable[list[Tensor]]) -> None:
        sums = [torch.zeros(2, self.std(level).numel(), dtype=torch.float64) for level in range(self.levels)]
        count = [0] * self.levels
        for features in batches:
            for level, feature_BChw in enumerate(features):
                values = feature_BChw.double().cpu()
                sums[level] += torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))])
                count[level] += values.numel() // values.shape[1]
        for level, (total, square) in enumerate(sums):
            mean = total / count[level]
            variance = square / count[level] - mean.square()
            if self.scaling == "full":
                self.mean(level).copy_(mean.view(1, -1, 1, 1))
            if self.scaling != "none":
                self.std(level).copy_(variance.clamp_min(1e-6).sqrt().view(1, -1, 1, 1))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        if self.scaling == "none":
            return features
        if self.scaling == "spread":
            return [feature / self.std(level) for level, feature in enumerate(features)]
        return [(feature - self.mean(level)) / self.std(level) for level, feature in enumerate(features)]

    def mean(self, level: int) -> Tensor:
        return self.get_buffer(f"mean_{level}")

    def std(self, level: int) -> Tensor:
        return self.get_buffer(f"spread_{level}")


def join(features: list[Tensor], strides: Sequence[int], group: Group) -> Tensor:
    """Concatenate the levels of a group at the grid of its coarsest; finer levels are averaged over each cell."""
    members = [features[strides.index(stride)] for stride in group]
    coarsest = max(group)
    pooled = [
        box_sum(x, coarsest // s, stride=coarsest // s) / (coarsest // s) ** 2 if s < coarsest else x
        for x, s in zip(members, group, strict=True)
    ]
    return torch.cat(pooled, dim=1) if len(pooled) > 1 else pooled[0]


def box_sum(x_BChw: Tensor, window: int, stride: int = 1) -> Tensor:
    """Sum over windows; at stride 1 the border is padded with zeros.

    A depthwise convolution, because ONNX Runtime's AveragePool takes ten times as long.
    """
    if window == 1:
        return x_BChw
    channels = x_BChw.shape[1]
    ones = x_BChw.new_ones(channels, 1, window, window)
    return F.conv2d(x_BChw, ones, stride=stride, padding=window // 2 if stride == 1 else 0, groups=channels)
