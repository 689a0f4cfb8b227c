"""The Omni-block: the sum of a global branch, which cannot copy its input, and a local branch of convolutions.

Written from the paper (arXiv 2503.21125). Unusual here, measured or explained in docs/concepts: the feed-forward layers of
the global branch are trained; the inputs of both attentions are normalised; BatchNorm, which folds into its neighbours, is
the default where the paper has InstanceNorm.

Shapes: B batch, C channels, h w feature grid.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.layers.attention import LearnedMemory, LearnedQueries
from inspect_kd.models.layers.features import box_sum

Norm = Literal["batch", "instance"]
Local = Literal["depthwise", "plain"]
TOKEN_GRID = 8
"""Side of the grid of learned tokens."""


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


def feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


def to_tokens(x_BChw: Tensor) -> Tensor:
    return x_BChw.flatten(2).transpose(1, 2)


def to_grid(x_BNC: Tensor, height: int, width: int) -> Tensor:
    grid: Tensor = x_BNC.transpose(1, 2).unflatten(2, (height, width))
    return grid


class GlobalBranch(nn.Module):
    """Summarise the map with 8x8 learned queries, spread the summary back, then attend to learned prototypes.

    It works on a map averaged down to at most `overview` cells per side: fine detail is the local branch's task.
    """

    def __init__(self, dim: int, heads: int, norm: Norm, overview: int) -> None:
        super().__init__()
        self.overview = overview
        # The names of the modules are keys of saved runs.
        self.norm_in = norm_layer(norm, dim)
        self.gather = LearnedQueries(dim, heads, TOKEN_GRID**2)
        self.gather_ffn = feed_forward(dim)
        self.norm_mixed = norm_layer(norm, dim)
        self.explain = LearnedMemory(dim, heads, TOKEN_GRID**2)
        self.explain_ffn = feed_forward(dim)

    def forward(self, x_BChw: Tensor) -> Tensor:
        coarse_BChw = average_down(x_BChw, self.overview)
        height, width = coarse_BChw.shape[-2:]
        gathered_BTC = self.gather_ffn(self.gather(to_tokens(self.norm_in(coarse_BChw))))
        summary_BChw = resize(to_grid(gathered_BTC, TOKEN_GRID, TOKEN_GRID), height, width)
        explained_BNC = self.explain_ffn(self.explain(to_tokens(self.norm_mixed(coarse_BChw + summary_BChw))))
        global_BChw = summary_BChw + to_grid(explained_BNC, height, width)
        # The input counts twice: once for the residual of the first attention, once for that of the branch.
        return 2 * x_BChw + resize(global_BChw, *x_BChw.shape[-2:])


def average_down(x_BChw: Tensor, side: int) -> Tensor:
    """Average blocks of cells so that no side is longer than `side`; a block's side divides height and width."""
    height, width = x_BChw.shape[-2:]
    factor = math.ceil(max(height, width) / side)
    while height % factor or width % factor:
        factor += 1
    return x_BChw if factor == 1 else box_sum(x_BChw, factor, stride=factor) / factor**2


def resize(x_BChw: Tensor, height: int, width: int) -> Tensor:
    if x_BChw.shape[-2:] == (height, width):
        return x_BChw
    return F.interpolate(x_BChw, size=(height, width), mode="bilinear", align_corners=False)


class LocalBranch(nn.Module):
    """Depthwise separable convolutions at two scales: 3x3 and 5x5 in parallel, mixed by one 1x1."""

    def __init__(self, dim: int, norm: Norm) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False),
                norm_layer(norm, dim),
                nn.ReLU(inplace=True),
            )
            for kernel in (3, 5)
        )
        self.mix = nn.Sequential(nn.Conv2d(2 * dim, dim, 1, bias=False), norm_layer(norm, dim))

    def forward(self, x_BChw: Tensor) -> Tensor:
        mixed: Tensor = self.mix(torch.cat([scale(x_BChw) for scale in self.scales], dim=1))
        return mixed


class PlainBranch(nn.Module):
    """A dense 3x3 convolution that trains as the sum of a 3x3, a 1x1 and the identity, each with its own BatchNorm.

    As in RepVGG (arXiv 2101.03697): in eval mode all three merge into one kernel.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(dim, dim, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(3))

    def forward(self, x_BChw: Tensor) -> Tensor:
        if not self.training:
            return F.relu(F.conv2d(x_BChw, *self.merge_branches(), padding=1))
        branches = (self.wide(x_BChw), self.narrow(x_BChw), x_BChw)
        return F.relu(torch.stack([norm(branch) for norm, branch in zip(self.norms, branches, strict=True)]).sum(dim=0))

    def merge_branches(self) -> tuple[Tensor, Tensor]:
        """Merge all three branches into one kernel and bias, constants of the exported graph."""
        identity = torch.eye(self.wide.out_channels, device=self.wide.weight.device)[:, :, None, None]
        kernels = (self.wide.weight, F.pad(self.narrow.weight, [1] * 4), F.pad(identity, [1] * 4))
        merged, bias = torch.zeros_like(self.wide.weight), torch.zeros_like(identity[:, 0, 0, 0])
        for norm, kernel in zip(self.norms, kernels, strict=True):
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
            gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
            merged = merged + gain[:, None, None, None] * kernel
            bias = bias + norm.bias - gain * norm.running_mean
        return merged, bias


class OmniBlock(nn.Module):
    def __init__(
        self, dim: int, heads: int = 8, norm: Norm = "batch", overview: int = 16, local: Local = "depthwise"
    ) -> None:
        super().__init__()
        # The names are keys of saved runs.
        self.look_around = GlobalBranch(dim, heads, norm, overview)
        self.look_close = LocalBranch(dim, norm) if local == "depthwise" else PlainBranch(dim)
        self.merge = nn.Sequential(
            nn.Conv2d(dim, dim, 1, bias=False), norm_layer(norm, dim), nn.ReLU(inplace=True), nn.Conv2d(dim, dim, 1)
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        merged: Tensor = self.merge(self.look_around(x_BChw) + self.look_close(x_BChw))
        return x_BChw + merged
