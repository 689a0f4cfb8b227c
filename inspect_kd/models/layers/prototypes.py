"""Distance of each position from its nearest prototype: a small memory of sound features.

Random textures cannot be reconstructed, but their features can be compared with those of sound parts. A nearest-neighbour
memory keeps every feature; this one keeps some thousand directions from spherical k-means, so that comparing is one 1x1 convolution.

Shapes: B batch, C channels, h w feature grid, K prototypes, k nearest prototypes, N = h * w, R collected rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.layers.features import box_sum

ROUNDS = 8
"""Iterations of k-means."""
ROWS_PER_IMAGE = 256
"""Rows collected from each sound image for the clustering."""
MAX_ROWS = 2**17
"""Largest number of rows that are clustered: about thirty per prototype."""
NEIGHBOURS = 8
"""Number of nearest prototypes that are blended; each position is compared with its blend, channel by channel."""
MAX_DUPLICATE_DISTANCE = 1e-5
"""Largest 1 - cosine of two prototypes that count as duplicates."""
REACH = 0.02
"""A prototype whose cosine is this much below the largest has no share in the blend."""


class PrototypeComparison(NamedTuple):
    """Comparison of each position with its nearest prototypes."""

    distance_B1hw: Tensor
    """1 - cosine to the nearest one, multiplied by a power of the length."""
    product_BChw: Tensor
    """Direction times blended prototype, channel by channel; the sum is the mean cosine, weighted by the blend's shares."""
    length_B1hw: Tensor
    """Length of the feature vector, relative to the mean over sound parts."""


class Prototypes(nn.Module):
    prototypes_KC: Tensor
    usual_length: Tensor
    """Mean length of the features on sound parts; the name is a key of saved runs."""

    def __init__(self, channels: int, count: int, window: int, length_power: float = 0.0) -> None:
        super().__init__()
        self.window = window
        self.length_power = length_power
        self.register_buffer("prototypes_KC", torch.zeros(count, channels))
        self.register_buffer("usual_length", torch.ones(()))
        self.collected: list[Tensor] = []

    def add(self, joined_BChw: Tensor, generator: torch.Generator, inspected_B1hw: Tensor | None = None) -> None:
        """Collect random rows of sound images, only of places that are inspected.

        `fit` divides the rows by their standard deviation, which is not known yet.
        """
        for number, image_Chw in enumerate(self.local_sums(joined_BChw)):
            rows_RC = image_Chw.flatten(1).T.cpu()
            if inspected_B1hw is not None:
                rows_RC = rows_RC[inspected_B1hw[number].flatten().cpu()]
            self.collected.append(rows_RC[torch.randperm(len(rows_RC), generator=generator)[:ROWS_PER_IMAGE]].clone())

    def fit(self, std_1C11: Tensor, generator: torch.Generator) -> None:
        """Cluster the collected rows into prototypes, and discard the rows."""
        rows_RC = torch.cat(self.collected)
        self.collected = []
        sampled_R = torch.randperm(len(rows_RC), generator=generator)[:MAX_ROWS]
        rows_RC = rows_RC[sampled_R] / std_1C11.flatten().cpu()
        self.usual_length.copy_(rows_RC.norm(dim=1).mean())
        rows_RC = F.normalize(rows_RC, dim=1)
        self.prototypes_KC.copy_(zero_duplicates(spherical_kmeans(rows_RC, len(self.prototypes_KC), generator)))

    def forward(self, joined_BChw: Tensor) -> Tensor:
        """1 - cosine to the nearest prototype: (B, 1, h, w)."""
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        nearest_BN = (direction_BNC @ self.prototypes_KC.T).amax(dim=2)
        return self._distance(nearest_BN, length_BN1, joined_BChw.shape[-2:])

    def compare_channels(self, joined_BChw: Tensor) -> PrototypeComparison:
        """Compare each position channel by channel with a blend of its nearest prototypes."""
        grid = joined_BChw.shape[-2:]
        direction_BNC, length_BN1 = self._directions(joined_BChw)
        count = min(NEIGHBOURS + 1, len(self.prototypes_KC))
        cosine_BNk, index_BNk = (direction_BNC @ self.prototypes_KC.T).topk(count, dim=2)
        share_BN1k = blend_shares(cosine_BNk, includes_all=count <= NEIGHBOURS).unsqueeze(2)
        blended_BNC = (share_BN1k @ self.prototypes_KC[index_BNk]).squeeze(2)
        return PrototypeComparison(
            self._distance(cosine_BNk[:, :, 0], length_BN1, grid),
            (direction_BNC * blended_BNC).transpose(1, 2).unflatten(2, grid),
            (length_BN1 / self.usual_length).transpose(1, 2).unflatten(2, grid),
        )

    def _directions(self, joined_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Direction and length of each position's features."""
        position_BNC = self.local_sums(joined_BChw).flatten(2).transpose(1, 2)
        # Dividing after the maximum instead would make the exported graph a third slower.
        length_BN1 = position_BNC.norm(dim=2, keepdim=True).clamp_min(1e-6)
        return position_BNC / length_BN1, length_BN1

    def _distance(self, cosine_BN: Tensor, length_BN1: Tensor, grid: torch.Size) -> Tensor:
        distance_BN = 1 - cosine_BN
        if self.length_power:
            # Increase the distance where the features' norm is large.
            distance_BN = distance_BN * (length_BN1.squeeze(2) / self.usual_length) ** self.length_power
        distance_B1hw: Tensor = distance_BN.unflatten(1, (1, *grid))
        return distance_B1hw

    def local_sums(self, joined_BChw: Tensor) -> Tensor:
        """Sum features over a window: a texture shows in a neighbourhood, not in one cell."""
        return box_sum(joined_BChw, self.window)


def blend_shares(cosine_BNk: Tensor, *, includes_all: bool) -> Tensor:
    """Shares of the nearest prototypes in the blend, largest cosine first; the shares of a position sum to 1.

    `includes_all`: the cosines are those of all prototypes; otherwise the last one belongs to the nearest prototype outside the blend.
    The shares are continuous in the cosines: equal cosines get equal shares, and a prototype that enters or leaves the set of nearest
    ones has share 0 at that point. Choosing the single nearest one is not continuous: at a tie the last bit of a sum decides, and that
    bit differs between runtimes.
    """
    edge_BN1 = cosine_BNk[:, :, :1] - REACH
    if not includes_all:
        edge_BN1 = edge_BN1.maximum(cosine_BNk[:, :, -1:])
    # The small addend is for positions where all cosines tie.
    weight_BNk = (cosine_BNk - edge_BN1).clamp_min(0) + 1e-6
    shares_BNk: Tensor = weight_BNk / weight_BNk.sum(dim=2, keepdim=True)
    return shares_BNk


def zero_duplicates(centres_KC: Tensor) -> Tensor:
    """Zero each centre that duplicates an earlier one, as on flat images: duplicates would crowd others out of a blend.

    A zero vector has a cosine of 0 with every position, so it is never the nearest.
    """
    duplicate_KK = centres_KC @ centres_KC.T > 1 - MAX_DUPLICATE_DISTANCE
    return centres_KC.masked_fill(duplicate_KK.tril(-1).any(dim=1, keepdim=True), 0.0)


def spherical_kmeans(rows_RC: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cluster rows of unit length by cosine; returns unit vectors (K, C)."""
    start = torch.randperm(len(rows_RC), generator=generator)[:count]
    if len(start) < count:
        start = torch.randint(len(rows_RC), (count,), generator=generator)
    centres_KC = rows_RC[start]
    for _ in range(ROUNDS):
        nearest_R = torch.cat([(chunk_RC @ centres_KC.T).argmax(dim=1) for chunk_RC in rows_RC.split(8192)])
        sums_KC = torch.zeros_like(centres_KC).index_add_(0, nearest_R, rows_RC)
        # A centre without rows keeps its position.
        has_rows_K1 = sums_KC.norm(dim=1, keepdim=True) > 1e-6
        centres_KC = torch.where(has_rows_K1, F.normalize(sums_KC, dim=1), centres_KC)
    return centres_KC
