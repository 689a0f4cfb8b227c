"""Base of all reconstruction students: they rebuild features of sound parts; features that they cannot rebuild are anomalous.

A subclass adds the network between features and rebuilt features. Unusual here: features are joined in groups and rebuilt at
the grid of the group's coarsest level; coarse features whose content varies randomly between sound parts cannot be rebuilt and
are compared with prototypes; loss and score use the same normalised features.

Shapes: B batch, C channels, H W image, h w feature grid; blend_weights_23: map and score, each from three maps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspect_kd.models.base import ModelOutput, Student
from inspect_kd.models.encoders import Encoder
from inspect_kd.models.head_inputs import Comparison, concatenate_head_inputs, list_head_inputs
from inspect_kd.models.layers.discrepancy import cosine_distance, cosine_product
from inspect_kd.models.layers.features import FeatureNorm, Group, box_sum, join
from inspect_kd.models.layers.heads import DefectHeads
from inspect_kd.models.layers.prototypes import Prototypes
from inspect_kd.models.rebuild_config import CompareConfig, RebuildConfig, check_config
from inspect_kd.models.scoring import BlendShares, Scorer, StudentMaps


class RebuildStudent(Student):
    def __init__(self, config: RebuildConfig, encoder: Encoder) -> None:
        super().__init__()
        check_config(config, encoder)
        self.settings = config
        self.encoder = encoder
        self.feature_norm = FeatureNorm(encoder.channels, config.normalise)
        # The prototypes of each group in `compare`; the name is a key of saved runs.
        self.memories = nn.ModuleList(
            Prototypes(self.channels_of(c.strides), c.prototypes, c.window, c.length_power) for c in config.compare
        )
        self.scorer = Scorer(config, min(encoder.strides))
        self.head_inputs = list_head_inputs(config, self.channels_of) if config.head_width else []
        self.comparisons_with_product = {
            head_input.comparison_number for head_input in self.head_inputs if head_input.quantity == "product"
        }
        self.heads = self._build_heads()

    @abstractmethod
    def reconstruct(self, features: list[Tensor]) -> list[Tensor]:
        """Predict, from normalised features, the features that each group of `rebuild` has on a sound part."""

    @abstractmethod
    def decoder_tail(self) -> nn.Module:
        """The decoder's last layers, the only ones that stage S3 may tune."""

    def half_precision_parts(self) -> list[nn.Module]:
        """All modules except those that measure distances."""
        distance_modules = {"feature_norm", "memories", "scorer"}
        return [module for name, module in self.named_children() if name not in distance_modules]

    def channels_of(self, group: Group) -> int:
        return sum(self.encoder.channels[self.encoder.strides.index(stride)] for stride in group)

    def weights_side(self, size: int) -> int:
        return size // min(self.encoder.strides)

    def fit_statistics(self, batches_B3HW: Iterable[Tensor], weights: Iterable[Tensor | None] | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        weighted_features = zip(
            map(self.encoder, batches_B3HW), repeat(None) if weights is None else weights, strict=False
        )
        with torch.no_grad():
            self.feature_norm.fit(self._collect_rows(weighted_features, generator))
            for prototypes, compare in self._prototypes():
                stds = [self.feature_norm.std(self.encoder.strides.index(stride)) for stride in compare.strides]
                prototypes.fit(torch.cat(stds, dim=1), generator)

    def losses(self, images_B3HW: Tensor, clean_B3HW: Tensor, weights_B1HW: Tensor | None = None) -> dict[str, Tensor]:
        features = self.features(images_B3HW)
        rebuilt = self.reconstruct(features)
        clean = features if images_B3HW is clean_B3HW else self.features(clean_B3HW)
        distances = [cosine_distance(*pair) for pair in zip(self._targets(clean), rebuilt, strict=True)]
        power = self.settings.hard_power
        terms = [
            hard_mean(distance, power)
            if weights_B1HW is None
            else weighted_hard_mean(distance, resize_weights(weights_B1HW, distance.shape[-2:]), power)
            for distance in distances
        ]
        return {"rebuild": torch.stack(terms).sum()}

    def forward(self, images_B3HW: Tensor, weights_B1hw: Tensor | None = None) -> ModelOutput:
        blend_weights_23 = None if self.heads is None else self.heads.blend_weights
        size = images_B3HW.shape[-2:]
        output: ModelOutput = self.scorer(self.compute_maps(images_B3HW), blend_weights_23, size, weights_B1hw)
        return output

    def compute_maps(self, images_B3HW: Tensor) -> StudentMaps:
        """Distances of all groups, and the heads' inputs and outputs."""
        features = self.features(images_B3HW)
        rebuilt, targets = self.reconstruct(features), self._targets(features)
        comparisons = [*self._compare_rebuilt(targets, rebuilt), *self._compare_prototypes(features)]
        finest_grid = features[0].shape[-2:]
        maps = [
            F.interpolate(comparison["distance"], size=finest_grid, mode="bilinear", align_corners=False)
            for comparison in comparisons
        ]
        if self.heads is None:
            return StudentMaps(maps, rebuilt, None, None)
        head_grid = max((target.shape[-2:] for target in targets), key=lambda size: size[0])
        head_inputs_BChw = concatenate_head_inputs(self.head_inputs, comparisons, head_grid)
        return StudentMaps(maps, rebuilt, head_inputs_BChw, self.heads(head_inputs_BChw))

    def fit_blend(self, sound_batches: Iterable[Tensor], map_shares: BlendShares, score_shares: BlendShares) -> None:
        """Set the heads' blend weights from batches of held-out sound parts."""
        assert self.heads is not None
        with torch.no_grad():
            sound_maps = (self.compute_maps(images_B3HW).maps for images_B3HW in sound_batches)
            self.heads.blend_weights.copy_(self.scorer.fit_blend(sound_maps, map_shares, score_shares))

    def features(self, images_B3HW: Tensor) -> list[Tensor]:
        with torch.no_grad():
            normalised: list[Tensor] = self.feature_norm(self.encoder(images_B3HW))
        return normalised

    def add_noise(self, x_BChw: Tensor) -> Tensor:
        """Add noise in training, which the network learns to remove; without it, it would learn to copy, defects included."""
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
        # A sum over the window serves as its mean: the cosine ignores the length.
        return [
            box_sum(join(features, self.encoder.strides, group), self.settings.target_window)
            for group in self.settings.rebuild
        ]

    def _compare_rebuilt(self, targets: list[Tensor], rebuilt: list[Tensor]) -> Iterator[Comparison]:
        for number, pair in enumerate(zip(targets, rebuilt, strict=True)):
            if number in self.comparisons_with_product:
                yield {"distance": cosine_distance(*pair), "product": cosine_product(*pair)}
            else:
                yield {"distance": cosine_distance(*pair)}

    def _compare_prototypes(self, features: list[Tensor]) -> Iterator[Comparison]:
        for number, (prototypes, compare) in enumerate(self._prototypes(), start=len(self.settings.rebuild)):
            joined_BChw = join(features, self.encoder.strides, compare.strides)
            if number in self.comparisons_with_product:
                comparison = prototypes.compare_channels(joined_BChw)
                yield {
                    "distance": comparison.distance_B1hw,
                    "product": comparison.product_BChw,
                    "length": comparison.length_B1hw,
                }
            else:
                yield {"distance": prototypes(joined_BChw)}

    def _build_heads(self) -> DefectHeads | None:
        if not self.head_inputs:
            return None
        with torch.random.fork_rng(devices=[]):
            # The heads take no numbers from the global generator, so the rest of the student is the same with and without them.
            torch.manual_seed(0)
            channels = sum(head_input.channels for head_input in self.head_inputs)
            # The heads are frozen during the fit: only later stages learn from defects.
            return DefectHeads(channels, self.settings.head_width).requires_grad_(False)

    def _prototypes(self) -> Iterator[tuple[Prototypes, CompareConfig]]:
        for prototypes, compare in zip(self.memories, self.settings.compare, strict=True):
            assert isinstance(prototypes, Prototypes)
            yield prototypes, compare

    def _collect_rows(
        self, batches: Iterable[tuple[list[Tensor], Tensor | None]], generator: torch.Generator
    ) -> Iterator[list[Tensor]]:
        """Yield the batches' features, only those of inspected places, and collect rows of them for the prototypes."""
        for features, weights_B1HW in batches:
            for prototypes, compare in self._prototypes():
                joined_BChw = join(features, self.encoder.strides, compare.strides)
                if weights_B1HW is None:
                    prototypes.add(joined_BChw, generator)
                else:
                    prototypes.add(joined_BChw, generator, resize_weights(weights_B1HW, joined_BChw.shape[-2:]) > 0)
            yield features if weights_B1HW is None else [_inspected_only(level, weights_B1HW) for level in features]


def resize_weights(weights_B1HW: Tensor, grid: torch.Size) -> Tensor:
    """Average zones' weights over the cells of a grid."""
    return F.adaptive_avg_pool2d(weights_B1HW, (grid[0], grid[1]))


def _inspected_only(features_BChw: Tensor, weights_B1HW: Tensor) -> Tensor:
    """Features of the places whose weight is above 0: (1, C, 1, N)."""
    is_inspected_Bhw = resize_weights(weights_B1HW, features_BChw.shape[-2:])[:, 0] > 0
    return features_BChw.permute(1, 0, 2, 3)[:, is_inspected_Bhw][None, :, None]


def weighted_hard_mean(distance_B1hw: Tensor, zone_weights_B1hw: Tensor, power: float) -> Tensor:
    """`hard_mean` over inspected positions, each counted by its zone's weight; 0 where nothing is inspected."""
    total = zone_weights_B1hw.sum().clamp_min(1e-6)
    with torch.no_grad():
        mean = (zone_weights_B1hw * distance_B1hw).sum() / total
        weight = (distance_B1hw / mean.clamp_min(1e-6)).pow(power).clamp_max(3)
    return (zone_weights_B1hw * weight * distance_B1hw).sum() / total


def hard_mean(distance_B1hw: Tensor, power: float) -> Tensor:
    """Mean in which positions with a large distance count more; their weights carry no gradient."""
    with torch.no_grad():
        weight = (distance_B1hw / distance_B1hw.mean().clamp_min(1e-6)).pow(power).clamp_max(3)
    return (weight * distance_B1hw).mean()
