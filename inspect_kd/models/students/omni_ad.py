"""Omni-AD student: rebuild a frozen encoder's features of sound parts; what cannot be rebuilt is anomalous.

Paper: arXiv 2503.21125, written anew from it. Unusual here: features are normalised by what sound parts show before
loss and score alike; the loss looks at what is hard; one model serves all categories of a data set.

Shapes: B batch, C channels, H W image, h w feature grid. Levels run from fine (stride 4) to coarse (stride 16).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.base import Student as StudentBase
from inspect_kd.models.base import StudentOutput
from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.discrepancy import Smooth, cosine_distance, top_mean
from inspect_kd.models.layers.omni_block import Norm, OmniBlock


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model that gives features at strides 4, 8 and 16."""
    dims: tuple[int, int, int, int] = (192, 96, 64, 32)
    """Decoder width at strides 32, 16, 8, 4."""
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    """Omni-blocks a stage, coarse to fine."""
    heads: int = 8
    norm: Norm = "batch"
    neck: int = 96
    """Channels in which the levels are added up."""
    bottleneck: int = 3
    """Residual bottlenecks between neck and decoder; the first halves the grid."""
    noise: Literal["spread", "norm"] = "spread"
    """Jitter in proportion to the bottleneck's spread over the batch, or to each token's norm as published."""
    noise_strength: float = 0.3
    hard_power: float = 1.0
    """Weight of a place in the loss: (distance / mean distance) ** hard_power, at most 3."""
    sigma: float = 4.0
    """Smoothing of the heatmap, in pixels of the input."""
    score_share: float = 0.003
    """Share of the hottest places whose mean is the score."""


def build(config: Config, encoder: Encoder) -> Student:
    return Student(config, encoder)


class Student(StudentBase):
    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.feature_norm = FeatureNorm(encoder.channels)
        self.neck = Neck(encoder.channels, config.neck, config.dims[0], config.bottleneck)
        self.decoder = Decoder(config, encoder.channels)
        self.smooth = Smooth(config.sigma / encoder.strides[0])

    def adapt(self, batches_B3HW: Iterable[Tensor]) -> None:
        with torch.no_grad():
            self.feature_norm.fit(self.encoder(batch) for batch in batches_B3HW)

    def rebuild(self, images_B3HW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised features as they are, and as the decoder thinks they should be."""
        with torch.no_grad():
            features = self.feature_norm(self.encoder(images_B3HW))
        bottleneck_BChw = self.neck(features)
        return features, self.decoder(jitter(bottleneck_BChw, self.config) if self.training else bottleneck_BChw)

    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        features, rebuilt = self.rebuild(seen_B3HW)
        if seen_B3HW is not clean_B3HW:
            with torch.no_grad():
                features = self.feature_norm(self.encoder(clean_B3HW))
        distances = [cosine_distance(f, r) for f, r in zip(features, rebuilt, strict=True)]
        return {"rebuild": torch.stack([hard_mean(d, self.config.hard_power) for d in distances]).sum()}

    def forward(self, images_B3HW: Tensor) -> StudentOutput:
        features, rebuilt = self.rebuild(images_B3HW)
        size = features[0].shape[-2:]
        distances = [cosine_distance(f, r) for f, r in zip(features, rebuilt, strict=True)]
        at_finest = [F.interpolate(d, size=size, mode="bilinear", align_corners=False) for d in distances]
        map_B1hw = self.smooth(torch.stack(at_finest).sum(dim=0))
        heatmap_B1HW = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return StudentOutput(score_B=top_mean(map_B1hw, self.config.score_share), heatmap_B1HW=heatmap_B1HW)


class FeatureNorm(nn.Module):
    """Channel-wise mean and spread of sound features; stored with the student, used by loss and score alike."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = len(channels)
        for level, count in enumerate(channels):
            self.register_buffer(f"mean_{level}", torch.zeros(1, count, 1, 1))
            self.register_buffer(f"spread_{level}", torch.ones(1, count, 1, 1))

    def fit(self, batches: Iterable[list[Tensor]]) -> None:
        totals = [
            torch.zeros(2, spread.numel(), dtype=torch.float64) for spread in map(self._spread, range(self.levels))
        ]
        count = [0] * self.levels
        for features in batches:
            for level, feature_BChw in enumerate(features):
                values = feature_BChw.double().cpu()
                totals[level] += torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))])
                count[level] += values.numel() // values.shape[1]
        for level, (total, square) in enumerate(totals):
            mean = total / count[level]
            spread = (square / count[level] - mean.square()).clamp_min(1e-6).sqrt()
            self.get_buffer(f"mean_{level}").copy_(mean.view(1, -1, 1, 1))
            self._spread(level).copy_(spread.view(1, -1, 1, 1))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [(f - self.get_buffer(f"mean_{i}")) / self._spread(i) for i, f in enumerate(features)]

    def _spread(self, level: int) -> Tensor:
        return self.get_buffer(f"spread_{level}")


class Neck(nn.Module):
    """Bring all levels to stride 16, add them up, then squeeze them to stride 32 through residual bottlenecks."""

    def __init__(self, channels: tuple[int, ...], width: int, out: int, bottlenecks: int) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.fine_down = conv_bn_relu(fine, middle, stride=2)
        self.middle_same = nn.Conv2d(middle, middle, 1)
        self.middle_down = conv_bn_relu(middle, width, stride=2)
        self.coarse_same = nn.Conv2d(coarse, width, 1)
        self.mix = nn.Conv2d(width, width, 1)
        self.squeeze = nn.Sequential(
            Bottleneck(width, out, stride=2), *(Bottleneck(out, out, stride=1) for _ in range(bottlenecks - 1))
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        fine, middle, coarse = features
        middle = self.fine_down(fine) + self.middle_same(middle)
        squeezed: Tensor = self.squeeze(self.mix(self.middle_down(middle) + self.coarse_same(coarse)))
        return squeezed


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual: a quarter of the width inside."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        inner = out // 4
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            conv_bn_relu(inner, inner, stride=stride),
            nn.Conv2d(inner, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        same = stride == 1 and channels == out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        return F.relu(self.body(x_BChw) + self.shortcut(x_BChw))


class Decoder(nn.Module):
    """Four stages from stride 32 to stride 4; the last three rebuild one level each."""

    def __init__(self, config: Config, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*(OmniBlock(dim, config.heads, config.norm) for _ in range(depth)))
            for dim, depth in zip(config.dims, config.depths, strict=True)
        )
        self.expand = nn.ModuleList(Expand(a, b) for a, b in zip(config.dims, config.dims[1:], strict=False))
        # A stage that is as wide as its level needs no head, as in the paper.
        self.heads = nn.ModuleList(
            nn.Identity() if dim == level else nn.Conv2d(dim, level, 1)
            for dim, level in zip(config.dims[1:], reversed(channels), strict=True)
        )

    def forward(self, x_BChw: Tensor) -> list[Tensor]:
        rebuilt = []
        x_BChw = self.stages[0](x_BChw)
        for expand, stage, head in zip(self.expand, self.stages[1:], self.heads, strict=True):
            x_BChw = stage(expand(x_BChw))
            rebuilt.append(head(x_BChw))
        return rebuilt[::-1]


class Expand(nn.Module):
    """Double the grid: 1x1 to four times the channels, pixel shuffle, LayerNorm over channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 4 * out, 1, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x_BChw: Tensor) -> Tensor:
        wide = F.pixel_shuffle(self.widen(x_BChw), 2)
        normed: Tensor = self.norm(wide.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2).contiguous()


def conv_bn_relu(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


def jitter(x_BChw: Tensor, config: Config) -> Tensor:
    """Noise that the decoder has to undo: without it the network learns to copy, and copies defects too."""
    if config.noise == "norm":
        # The published form: N(0, I) * strength * |token| / C.
        scale = x_BChw.norm(dim=1, keepdim=True) / x_BChw.shape[1]
    else:
        scale = x_BChw.detach().std(dim=(0, 2, 3), keepdim=True)
    noisy: Tensor = x_BChw + torch.randn_like(x_BChw) * scale * config.noise_strength
    return noisy


def hard_mean(distance_B1hw: Tensor, power: float) -> Tensor:
    """Mean in which hard places count more; the weights carry no gradient."""
    with torch.no_grad():
        weight = (distance_B1hw / distance_B1hw.mean().clamp_min(1e-6)).pow(power).clamp_max(3)
    return (weight * distance_B1hw).mean()
