"""RAS student, "reconstruction as sequence": a recurrence over decoder layers rebuilds all levels at the coarsest grid.

Paper: arXiv 2409.06285, implemented from the paper; unlike in the paper, nothing is chosen by test labels. Targets, loss and map are
those of all reconstruction students (`models/rebuild.py`).

Shapes: B batch, C channels, h w feature grid, N = h * w tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.features import Group, join
from inspect_kd.models.layers.omni_block import to_grid, to_tokens
from inspect_kd.models.layers.ras_former import EncoderLayer, RASFormer, neighbourhood
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.rebuild_config import RebuildConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(RebuildConfig):
    rebuild: tuple[Group, ...] = ((4, 8, 16),)
    """One group of strides, rebuilt at the grid of its coarsest."""
    grid: int = 16
    """Side of the coarsest grid: data.size divided by the coarsest stride."""
    width: int = 128
    heads: int = 8
    inner: int = 256
    """Hidden width of the feed-forward layers."""
    encoder_layers: int = 2
    layers: int = 4
    """Steps of the recurrence."""
    barred: int = 7
    """Side of the neighbourhood that is masked around each token in the encoder layers."""


def build(config: Config, encoder: Encoder) -> RasStudent:
    return RasStudent(config, encoder)


class RasStudent(RebuildStudent):
    barred_NN: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if len(config.rebuild) != 1:
            raise UsageError("student.rebuild: ras rebuilds exactly one group of strides, all levels at one grid")
        self.grid = config.grid
        channels, tokens = self.channels_of(config.rebuild[0]), config.grid**2
        self.embed = nn.Linear(channels, config.width)
        self.rows_h1C = nn.Parameter(0.02 * torch.randn(config.grid, 1, config.width))
        self.columns_1wC = nn.Parameter(0.02 * torch.randn(1, config.grid, config.width))
        self.encode = nn.ModuleList(
            EncoderLayer(config.width, config.heads, config.inner) for _ in range(config.encoder_layers)
        )
        self.steps = nn.ModuleList(
            RASFormer(config.width, config.heads, config.inner, tokens) for _ in range(config.layers)
        )
        self.out = nn.Linear(config.width, channels)
        self.register_buffer("barred_NN", neighbourhood(config.grid, config.barred), persistent=False)

    def reconstruct(self, features: list[Tensor]) -> list[Tensor]:
        joined_BChw = join(features, self.encoder.strides, self.settings.rebuild[0])
        height, width = joined_BChw.shape[-2:]
        if (height, width) != (self.grid, self.grid):
            raise UsageError(
                f"student.grid is {self.grid}, the coarsest features are {height}x{width}: set it to data.size divided by "
                f"{max(self.settings.rebuild[0])}"
            )
        position_1NC = (self.rows_h1C + self.columns_1wC).flatten(0, 1).unsqueeze(0)
        state_BNC = self.embed(to_tokens(self.add_noise(joined_BChw)))
        for layer in self.encode:
            state_BNC = layer(state_BNC, position_1NC, self.barred_NN)
        for step in self.steps:
            state_BNC = step(state_BNC, position_1NC)
        return [to_grid(self.out(state_BNC), height, width)]

    def decoder_tail(self) -> nn.Module:
        return nn.ModuleList([self.steps[-1], self.out])
