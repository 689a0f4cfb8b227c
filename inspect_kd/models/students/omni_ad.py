"""Omni-AD student: a decoder of Omni-blocks rebuilds features from a narrow bottleneck, and cannot copy them.

Paper: arXiv 2503.21125, implemented from the paper. Targets, loss and map are those of all reconstruction students
(`models/rebuild.py`).

Shapes: B batch, C channels, h w feature grid. Levels run from fine (stride 4) to coarse (stride 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.convolution import conv_bn_relu
from inspect_kd.models.layers.omni_block import TOKEN_GRID, Local, Norm, OmniBlock
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.rebuild_config import RebuildConfig

BOTTLENECK_STRIDE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(RebuildConfig):
    dims: tuple[int, ...] = (128, 96, 64)
    """Decoder width at strides 32, 16, 8, 4; as many stages as it takes to reach the finest rebuilt grid."""
    depths: tuple[int, ...] = (1, 1, 1)
    """Omni-blocks per stage, coarse to fine."""
    heads: int = 4
    """Attention heads of an Omni-block."""
    norm: Norm = "batch"
    local: Local = "depthwise"
    """Local branch of a block: two depthwise convolutions, or a plain one that merges into a single kernel."""
    overview: int = 16
    """Longest side of the grid for attention; finer grids are averaged down to it. The paper has no limit."""
    neck: int = 64
    """Channels in which the levels are summed."""
    gate: bool = False
    """A RAS gate before each stage but the first: a learned context selects what passes from the coarser stage."""
    bottleneck: int = 2
    """Residual bottlenecks between neck and decoder; the first halves the grid."""


def build(config: Config, encoder: Encoder) -> OmniAdStudent:
    return OmniAdStudent(config, encoder)


class OmniAdStudent(RebuildStudent):
    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if len(encoder.strides) != 3:
            raise UsageError(
                f"student.strides: omni_ad takes three levels, such as [4, 8, 16], not {list(encoder.strides)}"
            )
        self.neck = Neck(encoder.channels, config.neck, config.dims[0], config.bottleneck)
        self.decoder = Decoder(config, {max(group): self.channels_of(group) for group in config.rebuild})

    def reconstruct(self, features: list[Tensor]) -> list[Tensor]:
        rebuilt = self.decoder(self.add_noise(self.neck(features)))
        return [rebuilt[max(group)] for group in self.settings.rebuild]

    def decoder_tail(self) -> nn.Module:
        return nn.ModuleList([self.decoder.stages[-1], self.decoder.heads])


class Neck(nn.Module):
    """Bring all levels to stride 16, sum them, then reduce them to stride 32 through residual bottlenecks."""

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
    """Residual bottleneck of 1x1, 3x3, 1x1 with a quarter of the width inside."""

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
        keeps_shape = stride == 1 and channels == out
        self.shortcut = (
            nn.Identity()
            if keeps_shape
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        return F.relu(self.body(x_BChw) + self.shortcut(x_BChw))


class Decoder(nn.Module):
    """Stages from stride 32 to the finest rebuilt grid, each twice as fine; an output head per rebuilt group."""

    def __init__(self, config: Config, channels: dict[int, int]) -> None:
        super().__init__()
        strides = [BOTTLENECK_STRIDE >> stage for stage in range(len(config.dims))]
        if len(config.dims) != len(config.depths) or strides[-1] != min(channels):
            raise UsageError(
                f"student.dims has {len(config.dims)} stages and student.depths {len(config.depths)}; both need the same number, "
                f"and the last stage of student.dims, now at stride {strides[-1]}, must be at stride {min(channels)}, that of the "
                "finest group of student.rebuild"
            )
        self.strides = strides
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(OmniBlock(dim, config.heads, config.norm, config.overview, config.local) for _ in range(depth))
            )
            for dim, depth in zip(config.dims, config.depths, strict=True)
        )
        self.expand = nn.ModuleList(
            Expand(width, next_width, config.norm) for width, next_width in pairwise(config.dims)
        )
        self.gates = nn.ModuleList(Gate(dim) if config.gate else nn.Identity() for dim in config.dims[1:])
        # As in the paper, a stage as wide as its group needs no head.
        self.heads = nn.ModuleDict(
            {
                str(stride): nn.Identity() if dim == channels[stride] else nn.Conv2d(dim, channels[stride], 1)
                for stride, dim in zip(strides, config.dims, strict=True)
                if stride in channels
            }
        )

    def forward(self, x_BChw: Tensor) -> dict[int, Tensor]:
        rebuilt = {}
        for number, (stride, stage) in enumerate(zip(self.strides, self.stages, strict=True)):
            if number:
                x_BChw = self.gates[number - 1](self.expand[number - 1](x_BChw))
            x_BChw = stage(x_BChw)
            if str(stride) in self.heads:
                rebuilt[stride] = self.heads[str(stride)](x_BChw)
        return rebuilt


class Gate(nn.Module):
    """RAS gate on a grid: sigmoid(W [context; state]) * state, where the context is a learned 8x8 grid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.context_1C88 = nn.Parameter(torch.randn(1, dim, TOKEN_GRID, TOKEN_GRID) / math.sqrt(dim))
        self.from_state = nn.Conv2d(dim, dim, 1)

    def forward(self, state_BChw: Tensor) -> Tensor:
        context = F.interpolate(self.context_1C88, size=state_BChw.shape[-2:], mode="bilinear", align_corners=False)
        gated: Tensor = torch.sigmoid(context + self.from_state(state_BChw)) * state_BChw
        return gated


class Expand(nn.Module):
    """Double the grid by a 1x1 convolution and a pixel shuffle.

    BatchNorm comes before the shuffle, so that it folds into the convolution; another norm comes after the shuffle, as in the paper.
    """

    def __init__(self, channels: int, out: int, norm: Norm) -> None:
        super().__init__()
        widen = nn.Conv2d(channels, 4 * out, 1, bias=False)
        if norm == "batch":
            self.steps = nn.Sequential(widen, nn.BatchNorm2d(4 * out), nn.PixelShuffle(2))
        else:
            self.steps = nn.Sequential(widen, nn.PixelShuffle(2), ChannelNorm(out))

    def forward(self, x_BChw: Tensor) -> Tensor:
        expanded: Tensor = self.steps(x_BChw)
        return expanded


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position."""

    def forward(self, x_BChw: Tensor) -> Tensor:
        return super().forward(x_BChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
