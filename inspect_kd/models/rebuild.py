"""What all reconstruction students share: features of sound parts are rebuilt; what cannot be rebuilt is anomalous.

A student is this and a network of its own between features and rebuilt features. Unusual here: features are joined in
groups and rebuilt at the grid of the group's coarsest level; what is coarse and random is not rebuilt but compared with
prototypes; loss and score use the same normalised features.

Shapes: B batch, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.models.base import ModelOutput, Student
from inspect_kd.models.encoders import STRIDES, Encoder
from inspect_kd.models.layers.discrepancy import Smooth, cosine_distance, top_mean
from inspect_kd.models.layers.features import FeatureNorm, Group, Scaling, box_sum, join
from inspect_kd.models.layers.heads import DefectHeads, HeadOutputs, evidence
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
    head_width: int = 0
    """Channels of the heads that learn from labels and teachers (stages S1 to S3); 0 leaves them out."""


MAP, SCORE = 0, 1
"""Rows of the heads' voices: in the map, in the score."""
BlendShares = tuple[float, float, float]
MOST_CHANNELS = 4096
SOUND_QUANTILE = 0.995
"""Quantile of discrepancy over places of held-out sound parts."""


class StudentMaps(NamedTuple):
    """What a student has found out about a batch, before anything is weighed."""

    maps: list[Tensor]
    """How far each group is from sound: (B, 1, h, w) at the finest grid."""
    rebuilt: list[Tensor]
    head_inputs_BChw: Tensor | None
    """What the heads read, and what they said."""
    answers: HeadOutputs | None


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
        self.heads = self._heads()

    @abstractmethod
    def reconstruct(self, features: list[Tensor]) -> list[Tensor]:
        """From normalised features, what each group of `rebuild` should look like on a sound part."""

    @abstractmethod
    def decoder_tail(self) -> nn.Module:
        """What is nearest to the rebuilt features: the only part of the decoder that teachers may move."""

    def half_precision_parts(self) -> list[nn.Module]:
        """Encoder, network and heads. Not what measures: feature norms, prototypes, smoothing."""
        measuring = {"feature_norm", "memories", "smooth"}
        return [part for name, part in self.named_children() if name not in measuring]

    def channels_of(self, group: Group) -> int:
        return sum(self.encoder.channels[self.encoder.strides.index(stride)] for stride in group)

    def fit_statistics(self, batches_B3HW: Iterable[Tensor]) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.feature_norm.fit(self._remembering(map(self.encoder, batches_B3HW), generator))
            for memory, compare in self._compared():
                memory.fit(self._joined_spread(compare.strides), generator)

    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        features = self.features(seen_B3HW)
        rebuilt = self.reconstruct(features)
        target = features if seen_B3HW is clean_B3HW else self.features(clean_B3HW)
        distances = [cosine_distance(one, answer) for one, answer in zip(self._targets(target), rebuilt, strict=True)]
        return {"rebuild": torch.stack([hard_mean(d, self.settings.hard_power) for d in distances]).sum()}

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        found = self.compute_maps(images_B3HW)
        where, whether = self._weights()
        map_B1hw = self.smooth(self._blended(_weighted(found.maps, where), found.answers, MAP))
        judged_B1hw = map_B1hw
        if whether != where or found.answers is not None:
            judged_B1hw = self.smooth(self._blended(_weighted(found.maps, whether), found.answers, SCORE))
        heatmap_B1HW = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(judged_B1hw, self.settings.score_share), heatmap_B1HW=heatmap_B1HW)

    def compute_maps(self, images_B3HW: Tensor) -> StudentMaps:
        features = self.features(images_B3HW)
        rebuilt, targets = self.reconstruct(features), self._targets(features)
        maps = [cosine_distance(target, answer) for target, answer in zip(targets, rebuilt, strict=True)]
        told = list(maps)
        for memory, compare in self._compared():
            joined_BChw = join(features, self.encoder.strides, compare.strides)
            if self.heads is not None and self._told_by_prototypes(compare):
                near = memory.compare_channels(joined_BChw)
                maps.append(near.distance_B1hw)
                told += [near.distance_B1hw, near.product_BChw, near.length_B1hw]
            else:
                maps.append(memory(joined_BChw))
                told.append(maps[-1])
        known_BChw = None if self.heads is None else evidence(targets, rebuilt, told)
        answers = None if self.heads is None else self.heads(known_BChw)
        size = features[0].shape[-2:]
        at_finest = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        return StudentMaps(at_finest, rebuilt, known_BChw, answers)

    def _told_by_prototypes(self, compare: Compare) -> bool:
        """Channel by channel: what is rebuilt tells as much by itself."""
        return not set(compare.strides) <= {stride for group in self.settings.rebuild for stride in group}

    def fit_blend(self, sound: Iterable[Tensor], where_shares: BlendShares, whether_shares: BlendShares) -> None:
        """The discrepancy is measured by what is rare on sound parts; what the heads say is a chance already.

        Of sound places the heads say next to nothing, so map and score stay on one scale there.
        """
        assert self.heads is not None
        where, _ = self._weights()
        with torch.no_grad():
            places = [self.smooth(_weighted(self.compute_maps(images).maps, where)).flatten().cpu() for images in sound]
        rare = float(np.quantile(torch.cat(places).numpy(), SOUND_QUANTILE))
        shares = [[first / max(rare, 1e-6), *others] for first, *others in (where_shares, whether_shares)]
        self.heads.blend_weights.copy_(torch.tensor(shares))

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

    def _targets(self, features: list[Tensor]) -> list[Tensor]:
        # A sum does for the mean: the cosine ignores its length.
        return [
            box_sum(join(features, self.encoder.strides, group), self.settings.target_window)
            for group in self.settings.rebuild
        ]

    def _weights(self) -> tuple[list[float], list[float]]:
        """Of each group in heatmap and score; equal in sum, so that one threshold means the same to both."""
        rebuilt, compare = [1.0] * len(self.settings.rebuild), self.settings.compare
        where = rebuilt + [c.weight for c in compare]
        whether = rebuilt + [c.weight if c.score_weight is None else c.score_weight for c in compare]
        same = sum(where) / sum(whether)
        return where, [weight * same for weight in whether]

    def _heads(self) -> DefectHeads | None:
        settings = self.settings
        if not settings.head_width:
            return None
        channels = sum(map(self.channels_of, settings.rebuild)) + len(settings.rebuild) + len(settings.compare)
        channels += sum(self.channels_of(c.strides) + 1 for c in settings.compare if self._told_by_prototypes(c))
        with torch.random.fork_rng(devices=[]):
            # The rest of the student begins with the same numbers, heads or not.
            torch.manual_seed(0)
            # The fit does not reach them: they answer on defects, of which it must know nothing.
            return DefectHeads(channels, settings.head_width).requires_grad_(False)

    def _blended(self, discrepancy_B1hw: Tensor, answers: HeadOutputs | None, use: int) -> Tensor:
        if answers is None or self.heads is None:
            return discrepancy_B1hw
        size = discrepancy_B1hw.shape[-2:]
        told = [
            F.interpolate(logits.sigmoid(), size=size, mode="bilinear", align_corners=False)
            for logits in (answers.label_B1mm, answers.imitation_B1mm)
        ]
        return _weighted([discrepancy_B1hw, *told], [self.heads.blend_weights[use, i] for i in range(len(told) + 1)])

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
                memory.add(join(features, self.encoder.strides, compare.strides), generator)
            yield features


def _weighted(maps: list[Tensor], weights: Sequence[float | Tensor]) -> Tensor:
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
    if not 0 <= config.head_width <= MOST_CHANNELS:
        raise UsageError(f"student.head_width: {config.head_width}; from 0 to {MOST_CHANNELS}")
    if not config.rebuild:
        raise UsageError("student.rebuild: at least one group of strides")
    if config.compare and config.normalise == "full":
        raise UsageError(
            "student.normalise: prototypes compare directions, which centred features have not; use spread"
        )
    for compare in config.compare:
        if compare.window % 2 == 0 or compare.prototypes < 1:
            raise UsageError("student.compare: an odd window (a window has a middle) and at least one prototype")
