"""What all reconstruction students share: features of sound parts are rebuilt; what cannot be rebuilt is anomalous.

A student is this and a network of its own between features and rebuilt features. Unusual here: features are joined in
groups and rebuilt at the grid of the group's coarsest level; what is coarse and random is not rebuilt but compared with
prototypes; loss and score use the same normalised features.

Shapes: B batch, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.models.base import Student, StudentOutput
from inspect_kd.models.encoders import Encoder
from inspect_kd.models.layers.discrepancy import Smooth, cosine_distance, top_mean
from inspect_kd.models.layers.features import FeatureNorm, Group, join
from inspect_kd.models.layers.prototypes import Prototypes


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildConfig:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model that gives features at strides 4, 8 and 16."""
    rebuild: tuple[Group, ...] = ((4, 8),)
    """Groups of strides, each rebuilt together at the grid of its coarsest."""
    compare: tuple[Group, ...] = ((4, 8), (16,))
    """Groups of strides, each compared with prototypes."""
    compare_weights: tuple[float, ...] = (1.0, 2.0)
    """What a group's comparison counts in the map, where a rebuilt group counts 1."""
    prototypes: int = 1024
    """Prototypes a compared group, over all categories; 0 compares nothing."""
    window: int = 3
    """Cells over which features are averaged before they are compared: odd."""
    noise: Literal["spread", "norm"] = "spread"
    """Jitter in proportion to the bottleneck's spread over the batch, or to each token's norm as published."""
    noise_strength: float = 0.3
    hard_power: float = 1.0
    """Weight of a place in the loss: (distance / mean distance) ** hard_power, at most 3."""
    sigma: float = 4.0
    """Smoothing of the heatmap, in pixels of the input."""
    score_share: float = 0.003
    """Share of the hottest places whose mean is the score."""


class RebuildStudent(Student):
    def __init__(self, config: RebuildConfig, encoder: Encoder) -> None:
        super().__init__()
        _check(config, encoder)
        self.settings = config
        self.encoder = encoder
        self.feature_norm = FeatureNorm(encoder.channels)
        compared = config.compare if config.prototypes else ()
        self.memories = nn.ModuleList(
            Prototypes(self.channels_of(group), config.prototypes, config.window) for group in compared
        )
        self.smooth = Smooth(config.sigma / min(encoder.strides))

    @abstractmethod
    def predict(self, features: list[Tensor]) -> list[Tensor]:
        """From normalised features, what each group of `rebuild` should look like on a sound part."""

    def channels_of(self, group: Group) -> int:
        return sum(self.encoder.channels[self.encoder.strides.index(stride)] for stride in group)

    def adapt(self, batches_B3HW: Iterable[Tensor]) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.feature_norm.fit(self._remembering(map(self.encoder, batches_B3HW), generator))
            spread = [self.feature_norm.spread(level) for level in range(len(self.encoder.strides))]
            for memory, group in self._compared():
                levels = [spread[self.encoder.strides.index(stride)] for stride in group]
                memory.settle(torch.cat(levels, dim=1), generator)

    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        features = self.features(seen_B3HW)
        rebuilt = self.predict(features)
        target = features if seen_B3HW is clean_B3HW else self.features(clean_B3HW)
        distances = self._distances(target, rebuilt)
        return {"rebuild": torch.stack([hard_mean(d, self.settings.hard_power) for d in distances]).sum()}

    def forward(self, images_B3HW: Tensor) -> StudentOutput:
        features = self.features(images_B3HW)
        size = features[0].shape[-2:]
        maps = self._distances(features, self.predict(features))
        maps += [
            weight * memory(join(features, self.encoder.strides, group))
            for (memory, group), weight in zip(self._compared(), self.settings.compare_weights, strict=False)
        ]
        at_finest = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        map_B1hw = self.smooth(torch.stack(at_finest).sum(dim=0))
        heatmap_B1HW = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return StudentOutput(score_B=top_mean(map_B1hw, self.settings.score_share), heatmap_B1HW=heatmap_B1HW)

    def features(self, images_B3HW: Tensor) -> list[Tensor]:
        with torch.no_grad():
            normalised: list[Tensor] = self.feature_norm(self.encoder(images_B3HW))
        return normalised

    def jitter(self, x_BChw: Tensor) -> Tensor:
        """Noise that the network has to undo: without it, it learns to copy, and copies defects too."""
        if not self.training:
            return x_BChw
        if self.settings.noise == "norm":
            # The published form: N(0, I) * strength * |token| / C.
            scale = x_BChw.norm(dim=1, keepdim=True) / x_BChw.shape[1]
        else:
            scale = x_BChw.detach().std(dim=(0, 2, 3), keepdim=True)
        noisy: Tensor = x_BChw + torch.randn_like(x_BChw) * scale * self.settings.noise_strength
        return noisy

    def _distances(self, features: list[Tensor], rebuilt: list[Tensor]) -> list[Tensor]:
        return [
            cosine_distance(join(features, self.encoder.strides, group), answer)
            for group, answer in zip(self.settings.rebuild, rebuilt, strict=True)
        ]

    def _compared(self) -> Iterator[tuple[Prototypes, Group]]:
        for memory, group in zip(self.memories, self.settings.compare, strict=False):
            assert isinstance(memory, Prototypes)
            yield memory, group

    def _remembering(self, batches: Iterable[list[Tensor]], generator: torch.Generator) -> Iterator[list[Tensor]]:
        for features in batches:
            for memory, group in self._compared():
                memory.remember(join(features, self.encoder.strides, group), generator)
            yield features


def hard_mean(distance_B1hw: Tensor, power: float) -> Tensor:
    """Mean in which hard places count more; the weights carry no gradient."""
    with torch.no_grad():
        weight = (distance_B1hw / distance_B1hw.mean().clamp_min(1e-6)).pow(power).clamp_max(3)
    return (weight * distance_B1hw).mean()


def _check(config: RebuildConfig, encoder: Encoder) -> None:
    known = set(encoder.strides)
    for name in ("rebuild", "compare"):
        for group in getattr(config, name):
            if not group or not set(group) <= known:
                raise UsageError(f"student.{name}: {list(group)} must be some of the encoder's strides {sorted(known)}")
    if len(config.compare_weights) != len(config.compare):
        raise UsageError("student.compare_weights: one weight for each group of student.compare")
    if config.window % 2 == 0:
        raise UsageError(f"student.window: {config.window} is even; a window has a middle")
