"""Heatmap and score of a reconstruction student: weight its maps, add the heads' probabilities, smooth, pool.

Shapes: B batch, C channels, H W image, h w finest feature grid, m m grid of the heads' logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.base import ModelOutput
from inspect_kd.models.layers.discrepancy import GaussianSmoothing, top_mean, weighted_top_mean
from inspect_kd.models.layers.heads import HeadOutputs
from inspect_kd.models.rebuild_config import RebuildConfig

MAP, SCORE = 0, 1
"""Rows of the blend weights."""
BlendShares = tuple[float, float, float]
"""Shares of the discrepancy, the label head and the imitation head."""
SOUND_QUANTILE = 0.995
"""Quantile of the discrepancy over positions of held-out sound parts; the blend divides the discrepancy by it."""


class StudentMaps(NamedTuple):
    """A student's maps and head outputs for a batch, before they are weighted."""

    maps: list[Tensor]
    """Distance of each group from sound features: (B, 1, h, w) at the finest grid."""
    rebuilt: list[Tensor]
    head_inputs_BChw: Tensor | None
    head_outputs: HeadOutputs | None
    """Both None without heads."""


class Scorer(nn.Module):
    """Turns a student's maps and head outputs into a heatmap and a score."""

    def __init__(self, config: RebuildConfig, finest_stride: int) -> None:
        super().__init__()
        self.smooth = GaussianSmoothing(config.sigma / finest_stride)
        self.weights = group_weights(config)
        self.score_share = config.score_share

    def forward(
        self,
        student_maps: StudentMaps,
        blend_weights_23: Tensor | None,
        size: torch.Size,
        zone_weights_B1hw: Tensor | None = None,
    ) -> ModelOutput:
        """Score and heatmap at the image's size; `blend_weights_23` is None without heads, the zones' weights without zones.

        Zones' weights have the grid of the maps: the score is pooled there, and the smoothed heat has no finer detail.
        """
        map_B1hw = self.smooth(self._blend(student_maps, blend_weights_23, MAP))
        scored_B1hw = map_B1hw
        if student_maps.head_outputs is not None or self.weights[SCORE] != self.weights[MAP]:
            scored_B1hw = self.smooth(self._blend(student_maps, blend_weights_23, SCORE))
        heat_B1hw = map_B1hw if zone_weights_B1hw is None else map_B1hw * zone_weights_B1hw
        heatmap_B1HW = F.interpolate(heat_B1hw, size=size, mode="bilinear", align_corners=False)
        if zone_weights_B1hw is None:
            score_B = top_mean(scored_B1hw, self.score_share)
        else:
            score_B = weighted_top_mean(scored_B1hw, zone_weights_B1hw, self.score_share)
        return ModelOutput(score_B=score_B, heatmap_B1HW=heatmap_B1HW)

    def fit_blend(
        self, sound_maps: Iterable[Sequence[Tensor]], map_shares: BlendShares, score_shares: BlendShares
    ) -> Tensor:
        """Compute blend weights (2, 3) from shares; the discrepancy is divided by its SOUND_QUANTILE on sound parts.

        The heads' outputs are probabilities already. On sound parts they are near 0, so map and score keep one scale there.
        """
        discrepancies = [self.smooth(weighted_sum(maps, self.weights[MAP])).flatten().cpu() for maps in sound_maps]
        sound_discrepancy = float(np.quantile(torch.cat(discrepancies).numpy(), SOUND_QUANTILE))
        return torch.tensor(
            [
                [discrepancy_share / max(sound_discrepancy, 1e-6), *head_shares]
                for discrepancy_share, *head_shares in (map_shares, score_shares)
            ]
        )

    def _blend(self, student_maps: StudentMaps, blend_weights_23: Tensor | None, row: int) -> Tensor:
        discrepancy_B1hw = weighted_sum(student_maps.maps, self.weights[row])
        if student_maps.head_outputs is None or blend_weights_23 is None:
            return discrepancy_B1hw
        return blend(discrepancy_B1hw, student_maps.head_outputs, blend_weights_23[row])


def blend(discrepancy_B1hw: Tensor, outputs: HeadOutputs, weights_3: Tensor) -> Tensor:
    """Weighted sum of the discrepancy and of both heads' probabilities."""
    size = discrepancy_B1hw.shape[-2:]
    probabilities = [
        F.interpolate(logits.sigmoid(), size=size, mode="bilinear", align_corners=False)
        for logits in (outputs.label_B1mm, outputs.imitation_B1mm)
    ]
    return weighted_sum([discrepancy_B1hw, *probabilities], [weights_3[i] for i in range(3)])


def group_weights(config: RebuildConfig) -> tuple[list[float], list[float]]:
    """Weight of each group in map and score; both have the same sum, so that one threshold fits both."""
    rebuilt = [1.0] * len(config.rebuild)
    map_weights = rebuilt + [compare.weight for compare in config.compare]
    score_weights = rebuilt + [c.weight if c.score_weight is None else c.score_weight for c in config.compare]
    scale = sum(map_weights) / sum(score_weights)
    return map_weights, [weight * scale for weight in score_weights]


def weighted_sum(maps: Sequence[Tensor], weights: Sequence[float | Tensor]) -> Tensor:
    total = maps[0] * weights[0]
    for map_B1hw, weight in zip(maps[1:], weights[1:], strict=True):
        total = total + map_B1hw * weight
    return total
