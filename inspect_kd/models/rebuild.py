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
from inspect_kd.models.base import Output, Student
from inspect_kd.models.encoders import STRIDES, Encoder
from inspect_kd.models.layers.discrepancy import Smooth, cosine_distance, top_mean
from inspect_kd.models.layers.features import FeatureNorm, Group, Scaling, box_sum, join
from inspect_kd.models.layers.prototypes import Prototypes


@dataclass(frozen=True, kw_only=True, slots=True)
class Compare:
    strides: Group
    """Levels taken together."""
    prototypes: int = 4096
    """How many, over all categories."""
    window: int = 3
    """Cells over which features are summed before they are compared: odd."""
    length_power: float = 0.0
    """0: the angle alone counts, as in a cosine; 1: times the features' length, nearly a Euclidean distance."""
    weight: float = 1.0
    """What it counts in the map, where a rebuilt group counts 1."""
    score_weight: float | None = None
    """What it counts in the score; None: the same. Coarse levels say best whether, fine ones where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildConfig:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model that gives features at these strides."""
    strides: tuple[int, ...] = STRIDES
    normalise: Scaling = "spread"
    """Divide features by their spread, subtract their mean too (`full`), or leave them (`none`)."""
    rebuild: tuple[Group, ...] = ((4, 8),)
    """Groups of strides, each rebuilt together at the grid of its coarsest."""
    target_window: int = 1
    """Cells over which what is to be rebuilt is averaged: odd; above 1 a looser target."""
    compare: tuple[Compare, ...] = (
        Compare(strides=(4, 8), prototypes=512),
        Compare(strides=(16,), weight=2.0, score_weight=6.0, length_power=0.5),
    )
    """What is held against prototypes; empty compares nothing."""
    noise: Literal["spread", "norm"] = "spread"
    """Jitter in proportion to the bottleneck's spread over the batch, or to each token's norm as published."""
    noise_strength: float = 0.3
    hard_power: float = 1.0
    """Weight of a place in the loss: (distance / mean distance) ** hard_power, at most 3."""
    sigma: float = 4.0
    """Smoothing of the heatmap, in pixels of the input."""
    score_share: float = 0.01
    """Share of the hottest places whose mean is the score."""


class RebuildStudent(Student):
    def __init__(self, config: RebuildConfig, encoder: Encoder) -> None:
        super().__init__()
        _check(config, encoder)
        self.settings = config
        self.encoder = encoder
        self.feature_norm = FeatureNorm(encoder.channels, config.normalise)
        self.memories = nn.ModuleList(
            Prototypes(self.channels_of(c.strides), c.prototypes, c.window, c.length_power) for c in config.compare
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
            for memory, compare in self._compared():
                memory.settle(self._joined_spread(compare.strides), generator)

    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        features = self.features(seen_B3HW)
        rebuilt = self.predict(features)
        target = features if seen_B3HW is clean_B3HW else self.features(clean_B3HW)
        distances = self._distances(target, rebuilt)
        return {"rebuild": torch.stack([hard_mean(d, self.settings.hard_power) for d in distances]).sum()}

    def forward(self, images_B3HW: Tensor) -> Output:
        features = self.features(images_B3HW)
        size = features[0].shape[-2:]
        maps = self._distances(features, self.predict(features))
        maps += [memory(join(features, self.encoder.strides, c.strides)) for memory, c in self._compared()]
        at_finest = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        where, whether = self._weights()
        map_B1hw = self.smooth(_weighted(at_finest, where))
        judged_B1hw = map_B1hw if whether == where else self.smooth(_weighted(at_finest, whether))
        heatmap_B1HW = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return Output(score_B=top_mean(judged_B1hw, self.settings.score_share), heatmap_B1HW=heatmap_B1HW)

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
        # A sum does for the mean: the cosine ignores its length.
        targets = [
            box_sum(join(features, self.encoder.strides, group), self.settings.target_window)
            for group in self.settings.rebuild
        ]
        return [cosine_distance(target, answer) for target, answer in zip(targets, rebuilt, strict=True)]

    def _weights(self) -> tuple[list[float], list[float]]:
        """Of each group in heatmap and score; equal in sum, so that one threshold means the same to both."""
        rebuilt, compare = [1.0] * len(self.settings.rebuild), self.settings.compare
        where = rebuilt + [c.weight for c in compare]
        whether = rebuilt + [c.weight if c.score_weight is None else c.score_weight for c in compare]
        same = sum(where) / sum(whether)
        return where, [weight * same for weight in whether]

    def _compared(self) -> Iterator[tuple[Prototypes, Compare]]:
        for memory, compare in zip(self.memories, self.settings.compare, strict=True):
            assert isinstance(memory, Prototypes)
            yield memory, compare

    def _joined_spread(self, group: Group) -> Tensor:
        levels = [self.feature_norm.spread(self.encoder.strides.index(stride)) for stride in group]
        return torch.cat(levels, dim=1)

    def _remembering(self, batches: Iterable[list[Tensor]], generator: torch.Generator) -> Iterator[list[Tensor]]:
        for features in batches:
            for memory, compare in self._compared():
                memory.remember(join(features, self.encoder.strides, compare.strides), generator)
            yield features


def _weighted(maps: list[Tensor], weights: list[float]) -> Tensor:
    total = maps[0] * weights[0]
    for heat, weight in zip(maps[1:], weights[1:], strict=True):
        total = total + heat * weight
    return total


def hard_mean(distance_B1hw: Tensor, power: float) -> Tensor:
    """Mean in which hard places count more; the weights carry no gradient."""
    with torch.no_grad():
        weight = (distance_B1hw / distance_B1hw.mean().clamp_min(1e-6)).pow(power).clamp_max(3)
    return (weight * distance_B1hw).mean()


def _check(config: RebuildConfig, encoder: Encoder) -> None:
    known = set(encoder.strides)
    groups = {"rebuild": config.rebuild, "compare": tuple(c.strides for c in config.compare)}
    for name, group in ((name, group) for name, members in groups.items() for group in members):
        if not group or not set(group) <= known:
            raise UsageError(f"student.{name}: {list(group)} must be some of the encoder's strides {sorted(known)}")
    if config.target_window % 2 == 0:
        raise UsageError(f"student.target_window: {config.target_window} is even; a window has a middle")
    if not config.rebuild:
        raise UsageError("student.rebuild: at least one group of strides")
    if config.compare and config.normalise == "full":
        raise UsageError(
            "student.normalise: prototypes compare directions, which centred features have not; use spread"
        )
    for compare in config.compare:
        if compare.window % 2 == 0 or compare.prototypes < 1:
            raise UsageError("student.compare: an odd window (a window has a middle) and at least one prototype")
