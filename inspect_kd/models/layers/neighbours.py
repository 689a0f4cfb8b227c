"""Nearest-neighbour distance of each patch of a part from a bank of patches of sound parts.

As in the students, features are divided by their standard deviation and compared by cosine, and every patch is summed over
its neighbourhood.

Shapes: B batch, C channels, N patches of an image, R patches in a bank, h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.features import FeatureNorm, box_sum, join

GROUPS = ((8,), (16,))
"""Groups of strides; each has its own bank."""
WINDOW = 3
MAP_STRIDE = 4


class Patches(nn.Module):
    """Extract patches of each group: (B, N, C), of unit length."""

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
    """1 - cosine to the nearest patch of the bank, summed over groups: (B, 1, h, w) at MAP_STRIDE."""
    maps = []
    for group, patches_BNC, bank_RC in zip(GROUPS, patches, banks, strict=True):
        cells = side // max(group)
        nearest_BN = (patches_BNC @ bank_RC.T).amax(dim=2)
        map_B1hw = (1 - nearest_BN).unflatten(1, (1, cells, cells))
        scale = max(group) // MAP_STRIDE
        maps.append(F.interpolate(map_B1hw, scale_factor=scale, mode="bilinear", align_corners=False))
    return torch.stack(maps).sum(dim=0)


def choose_coreset(rows_NC: Tensor, count: int) -> Tensor:
    """Indices of a greedy coreset: the next row is always the one farthest from all chosen rows."""
    chosen = torch.zeros(count, dtype=torch.long, device=rows_NC.device)
    nearest_N = rows_NC @ rows_NC[0]
    for number in range(1, count):
        chosen[number] = nearest_N.argmin()
        torch.maximum(nearest_N, rows_NC @ rows_NC[chosen[number]], out=nearest_N)
    return chosen
