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


NEIGHBOURS = 8
"""Prototypes that are blended into the one that a place is compared with, channel by channel."""
ALIKE = 1e-5
"""1 - cosine of two prototypes that count as one."""
REACH = 0.02
"""A prototype whose cosine is this much below the largest has no share in the blend."""


class PrototypeComparison(NamedTuple):
    """How each place differs from the prototypes nearest to it."""

    distance_B1hw: Tensor
    """1 - cosine to the nearest one."""
    product_BChw: Tensor
    """Direction times blended prototype, channel by channel: what adds up to the cosine."""
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

    def add(self, joined_BChw: Tensor, generator: torch.Generator) -> None:
        """A random part of what sound images show; not yet normalised, because the spread is not known yet."""
        for image_ChW in self.loosen(joined_BChw):
            rows_RC = image_ChW.flatten(1).T.cpu()
            self.remembered.append(rows_RC[torch.randperm(len(rows_RC), generator=generator)[:PLACES]].clone())

    def fit(self, spread_1C11: Tensor, generator: torch.Generator) -> None:
        """Find the prototypes among what was remembered, and forget the rest."""
        rows_RC = torch.cat(self.remembered)
        self.remembered = []
        kept_R = torch.randperm(len(rows_RC), generator=generator)[:ROWS]
        rows_RC = rows_RC[kept_R] / spread_1C11.flatten().cpu()
        self.usual_length.copy_(rows_RC.norm(dim=1).mean())
        rows_RC = F.normalize(rows_RC, dim=1)
        self.prototypes_KC.copy_(without_repeats(spherical_kmeans(rows_RC, len(self.prototypes_KC), generator)))

    def forward(self, joined_BChw: Tensor) -> Tensor:
        """1 - cosine to the nearest prototype: (B, 1, h, w)."""
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        nearest_BN = (direction_BNC @ self.prototypes_KC.T).amax(dim=2)
        return self._distance(nearest_BN, length_BN1, joined_BChw.shape[-2:])

    def compare_channels(self, joined_BChw: Tensor) -> PrototypeComparison:
        """The same distance, and the product of direction and prototype that it comes from."""
        grid = joined_BChw.shape[-2:]
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        count = min(NEIGHBOURS + 1, len(self.prototypes_KC))
        cosine_BNk, index_BNk = (direction_BNC @ self.prototypes_KC.T).topk(count, dim=2)
        share_BN1k = blend_shares(cosine_BNk, complete=count <= NEIGHBOURS).unsqueeze(2)
        blended_BNC = (share_BN1k @ self.prototypes_KC[index_BNk]).squeeze(2)
        return PrototypeComparison(
            self._distance(cosine_BNk[:, :, 0], length_BN1, grid),
            (direction_BNC * blended_BNC).transpose(1, 2).unflatten(2, grid),
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


def blend_shares(cosine_BNk: Tensor, *, complete: bool) -> Tensor:
    """What each of the nearest prototypes counts, largest cosine first; the shares of a place add up to 1.

    Continuous in the cosines: equal ones share alike, and a prototype that enters or leaves the nearest has no share there.
    The single nearest one is not: at a tie the last bit of a sum decides, and that differs between runtimes.
    """
    edge_BN1 = cosine_BNk[:, :, :1] - REACH
    if not complete:
        edge_BN1 = edge_BN1.maximum(cosine_BNk[:, :, -1:])
    # The small addend is for places where all of them tie.
    weight_BNk = (cosine_BNk - edge_BN1).clamp_min(0) + 1e-6
    shares_BNk: Tensor = weight_BNk / weight_BNk.sum(dim=2, keepdim=True)
    return shares_BNk


def without_repeats(centres_KC: Tensor) -> Tensor:
    """Zero each centre that repeats an earlier one, as on flat pictures: copies would crowd others out of a blend.

    A zero has a cosine of 0 with every place, so it is nearest to none.
    """
    alike_KK = centres_KC @ centres_KC.T > 1 - ALIKE
    return centres_KC.masked_fill(alike_KK.tril(-1).any(dim=1, keepdim=True), 0.0)


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
