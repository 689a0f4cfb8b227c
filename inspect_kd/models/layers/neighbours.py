"""How far each place of a part is from the nearest remembered place of a sound one.

Like the students it compares directions of features that are divided by their spread, and every patch is the sum of its
neighbourhood.

Shapes: B batch, C channels, N places, R remembered patches, h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.features import FeatureNorm, box_sum, join

GROUPS = ((8,), (16,))
"""Strides whose patches are remembered, each for itself."""
WINDOW = 3
FINEST = 4
"""Stride of the map."""


class Patches(nn.Module):
    """Patches of each group: (B, N, C), of unit length."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature_norm = FeatureNorm(encoder.channels, "spread")

    def channels(self) -> list[int]:
        return [sum(self.encoder.channels[self.encoder.strides.index(s)] for s in group) for group in GROUPS]

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        with torch.no_grad():
            features = self.feature_norm(self.encoder(images_B3HW))
            joined = [box_sum(join(features, self.encoder.strides, group), WINDOW) for group in GROUPS]
            return [F.normalize(x.flatten(2).transpose(1, 2), dim=2) for x in joined]


def distance_map(patches: Sequence[Tensor], banks: Sequence[Tensor], side: int) -> Tensor:
    """1 - cosine to the nearest of a bank, summed over groups: (B, 1, h, w) at the finest stride."""
    maps = []
    for group, patches_BNC, bank_RC in zip(GROUPS, patches, banks, strict=True):
        cells = side // max(group)
        nearest_BN = (patches_BNC @ bank_RC.T).amax(dim=2)
        map_B1hw = (1 - nearest_BN).unflatten(1, (1, cells, cells))
        scale = max(group) // FINEST
        maps.append(F.interpolate(map_B1hw, scale_factor=scale, mode="bilinear", align_corners=False))
    return torch.stack(maps).sum(dim=0)


def coreset(rows_NC: Tensor, keep: int) -> Tensor:
    """Numbers of the rows to keep so that none of the others is far from all kept ones: each next is the farthest from those before."""
    chosen = torch.zeros(keep, dtype=torch.long, device=rows_NC.device)
    nearest_N = rows_NC @ rows_NC[0]
    for number in range(1, keep):
        chosen[number] = nearest_N.argmin()
        torch.maximum(nearest_N, rows_NC @ rows_NC[chosen[number]], out=nearest_N)
    return chosen
