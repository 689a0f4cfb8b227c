"""A memory small enough for the line: how far each place is from the nearest of a fixed set of sound features.

What varies at random cannot be rebuilt, but it can be compared. Where a nearest-neighbour memory keeps every feature of
every sound part, this keeps a thousand directions that stand for them (spherical k-means), one 1x1 convolution.

Shapes: B batch, C channels, h w feature grid, K prototypes, R remembered rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.layers.features import box_sum

ROUNDS = 8
PLACES = 256
"""Places remembered of each sound image while the prototypes are sought."""
ROWS = 2**17
"""Of all of them, what the prototypes are sought among: enough for thirty rows to each."""


class Nearest(NamedTuple):
    """What is known of each place and the prototype that is nearest to it."""

    distance_B1hw: Tensor
    product_BChw: Tensor
    """Channel by channel, of unit vectors: their sum is the cosine."""
    length_B1hw: Tensor
    """How much is seen there, where 1 is usual."""


class Prototypes(nn.Module):
    prototypes_KC: Tensor

    usual_length: Tensor

    def __init__(self, channels: int, count: int, window: int, length_power: float = 0.0) -> None:
        super().__init__()
        self.window = window
        self.length_power = length_power
        self.register_buffer("prototypes_KC", torch.zeros(count, channels))
        self.register_buffer("usual_length", torch.ones(()))
        self.remembered: list[Tensor] = []

    def remember(self, joined_BChw: Tensor, generator: torch.Generator) -> None:
        """A random part of what sound images show; not yet normalised, because the spread is not known yet."""
        for image_ChW in self.loosen(joined_BChw):
            rows_RC = image_ChW.flatten(1).T.cpu()
            self.remembered.append(rows_RC[torch.randperm(len(rows_RC), generator=generator)[:PLACES]].clone())

    def settle(self, spread_1C11: Tensor, generator: torch.Generator) -> None:
        """Find the prototypes among what was remembered, and forget the rest."""
        rows_RC = torch.cat(self.remembered)
        self.remembered = []
        kept_R = torch.randperm(len(rows_RC), generator=generator)[:ROWS]
        rows_RC = rows_RC[kept_R] / spread_1C11.flatten().cpu()
        self.usual_length.copy_(rows_RC.norm(dim=1).mean())
        rows_RC = F.normalize(rows_RC, dim=1)
        self.prototypes_KC.copy_(spherical_kmeans(rows_RC, len(self.prototypes_KC), generator))

    def forward(self, joined_BChw: Tensor) -> Tensor:
        """1 - cosine to the nearest prototype: (B, 1, h, w)."""
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        nearest_BN = (direction_BNC @ self.prototypes_KC.T).amax(dim=2)
        return self._distance(nearest_BN, length_BN1, joined_BChw.shape[-2:])

    def in_detail(self, joined_BChw: Tensor) -> Nearest:
        """The same distance, and how it comes about."""
        grid = joined_BChw.shape[-2:]
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        nearest_BNC = self.prototypes_KC[(direction_BNC @ self.prototypes_KC.T).argmax(dim=2)]
        product_BNC = direction_BNC * nearest_BNC
        return Nearest(
            self._distance(product_BNC.sum(dim=2), length_BN1, grid),
            product_BNC.transpose(1, 2).unflatten(2, grid),
            (length_BN1 / self.usual_length).transpose(1, 2).unflatten(2, grid),
        )

    def _directions(self, joined_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Of each place, and how much is seen there."""
        place_BNC = self.loosen(joined_BChw).flatten(2).transpose(1, 2)
        # Divided before the product, not after the maximum: a transposed side, fused into it, would cost a third more.
        length_BN1 = place_BNC.norm(dim=2, keepdim=True).clamp_min(1e-6)
        return place_BNC / length_BN1, length_BN1

    def _distance(self, cosine_BN: Tensor, length_BN1: Tensor, grid: torch.Size) -> Tensor:
        distance_BN = 1 - cosine_BN
        if self.length_power:
            # Where much is seen a turn of the same angle says more.
            distance_BN = distance_BN * (length_BN1.squeeze(2) / self.usual_length) ** self.length_power
        distance_B1hw: Tensor = distance_BN.unflatten(1, (1, *grid))
        return distance_B1hw

    def loosen(self, joined_BChw: Tensor) -> Tensor:
        """Local sums: a texture is known by its surroundings, not by one cell. Their length means nothing here."""
        return box_sum(joined_BChw, self.window)


def spherical_kmeans(rows_RC: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Unit vectors that the rows, unit vectors too, lie near to: (K, C)."""
    start = torch.randperm(len(rows_RC), generator=generator)[:count]
    if len(start) < count:
        start = torch.randint(len(rows_RC), (count,), generator=generator)
    centres_KC = rows_RC[start]
    for _ in range(ROUNDS):
        nearest_R = torch.cat([(part @ centres_KC.T).argmax(dim=1) for part in rows_RC.split(8192)])
        sums_KC = torch.zeros_like(centres_KC).index_add_(0, nearest_R, rows_RC)
        # A centre that nobody is nearest to stays where it is.
        found_K1 = sums_KC.norm(dim=1, keepdim=True) > 1e-6
        centres_KC = torch.where(found_K1, F.normalize(sums_KC, dim=1), centres_KC)
    return centres_KC
