"""Nearest-neighbour memory as a teacher: strong on stochastic texture, where reconstruction is weak; too slow for the line.

Unusual here: there are two banks, filled from different parts, and the larger of the two distances is used. A single bank would find
every patch of its own training parts in itself, so training parts would get lower heat than unseen sound parts.

Shapes: B batch, C channels, N patches of an image, R patches in a bank, H W image, h w grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from inspect_kd.chunks import chunks
from inspect_kd.errors import UsageError
from inspect_kd.models.base import ModelOutput, Teacher, TeacherOutput, TeacherSample, WeightsSource
from inspect_kd.models.encoders import Encoder, build_encoder
from inspect_kd.models.layers.discrepancy import GaussianSmoothing, top_mean
from inspect_kd.models.layers.neighbours import GROUPS, MAP_STRIDE, PatchExtractor, choose_coreset, distance_map
from inspect_kd.resize import resize
from inspect_kd.types import ImageU8

BANKS = 2
ZERO_QUANTILE = 0.90
"""Quantile of the distance on sound parts that becomes heat 0, as in EfficientAD."""
LOW_QUANTILE, LOW_HEAT = 0.995, 0.1
"""Quantile of the distance on sound parts that becomes LOW_HEAT."""
CANDIDATES_PER_ROW = 8
"""Candidate patches per bank row if all samples were sound; about half of the samples are."""
STATISTICS_IMAGES = 256
"""Sound images from which the features' standard deviation is estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model with features at strides 4, 8 and 16; a larger one than the student's may be better."""
    rows: Annotated[int, Field(ge=1)] = 4_096
    """Patches per bank and group of strides."""
    coreset: bool = True
    """Choose the patches as a coreset, so that each candidate is close to a chosen patch; otherwise at random."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Gaussian smoothing of the heatmap, in pixels of the input."""
    score_share: Annotated[float, Field(gt=0, le=1)] = 0.01


def build(config: Config, size: int) -> MemoryTeacher:
    coarsest = max(GROUPS[-1])
    if size % coarsest:
        raise UsageError(f"data.size: {size} is not a multiple of {coarsest}, which the memory teacher needs")
    return MemoryTeacher(config, build_encoder(config.encoder), size)


class MemoryTeacher(Teacher):
    frozen = ("patches.encoder.",)

    def __init__(self, config: Config, encoder: Encoder, size: int) -> None:
        super().__init__()
        self.settings = config
        spec = encoder.spec
        self.sources = (WeightsSource(name=spec.name, licence=spec.licence, origin=spec.source, sha256=spec.sha256),)
        self.patches = PatchExtractor(encoder)
        self.side = size
        self.smooth = GaussianSmoothing(config.sigma / MAP_STRIDE)
        for bank in range(BANKS):
            for group, channels in enumerate(self.patches.channels()):
                self.register_buffer(f"bank_{bank}_{group}", torch.zeros(config.rows, channels))
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("rare", torch.ones(()))

    # The buffers' names in `get_buffer` are keys of saved runs.

    @property
    def zero_distance(self) -> Tensor:
        """Distance that becomes heat 0."""
        return self.get_buffer("usual")

    @property
    def low_distance(self) -> Tensor:
        """Distance that becomes LOW_HEAT."""
        return self.get_buffer("rare")

    @property
    def size(self) -> int:
        return self.side

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        return 2 * math.ceil(samples / batch)

    def fit(
        self, samples: Sequence[TeacherSample], *, epochs: int, batch: int, learning_rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Fill the banks from sound parts, then scale the heat by these parts' distances from the banks."""
        generator = torch.Generator().manual_seed(seed)
        indices = range(0, len(samples), max(1, len(samples) // (2 * STATISTICS_IMAGES)))
        sound_images = (sample.image for sample in map(samples.__getitem__, indices) if sample.mask is None)
        self.patches.feature_norm.fit(self.patches.encoder(self._tensor([image])) for image in sound_images)
        patches_per_image = max(1, math.ceil(CANDIDATES_PER_ROW * self.settings.rows * BANKS / max(1, len(samples))))
        part_numbers: dict[int, int] = {}
        # By bank and group.
        candidates: list[list[list[Tensor]]] = [[[] for _ in GROUPS] for _ in range(BANKS)]
        for batch_samples in chunks(samples, batch):
            for sample in batch_samples:
                if sample.mask is None:
                    bank = part_numbers.setdefault(sample.part, len(part_numbers)) % BANKS
                    self._add_candidates(candidates[bank], sample.image, patches_per_image, generator)
            yield {}
        for bank, groups in enumerate(candidates):
            # With a single part, both banks get its patches.
            bank_groups = groups if groups[0] else candidates[1 - bank]
            for group, rows in enumerate(bank_groups):
                self._fill(self._bank(bank)[group], torch.cat(rows), generator)
        distances: list[Tensor] = []
        for batch_samples in chunks(samples, batch):
            images = [sample.image for sample in batch_samples if sample.mask is None]
            if images:
                # Every seventh position is enough for the quantiles.
                distances.append(self._distance_map(self._tensor(images)).flatten().cpu()[::7])
            yield {}
        sound_distances = torch.cat(distances).numpy()
        self.zero_distance.fill_(float(np.quantile(sound_distances, ZERO_QUANTILE)))
        self.low_distance.fill_(float(np.quantile(sound_distances, LOW_QUANTILE)))

    def _add_candidates(
        self, groups: list[list[Tensor]], image: ImageU8, count: int, generator: torch.Generator
    ) -> None:
        for rows, patches_1NC in zip(groups, self.patches(self._tensor([image])), strict=True):
            chosen = torch.randperm(patches_1NC.shape[1], generator=generator)[:count]
            rows.append(patches_1NC[0, chosen.to(patches_1NC.device)].clone())

    def _fill(self, bank_RC: Tensor, rows_NC: Tensor, generator: torch.Generator) -> None:
        order = torch.randperm(len(rows_NC), generator=generator)
        if self.settings.coreset:
            order = order[choose_coreset(rows_NC[order], min(len(order), len(bank_RC))).cpu()]
        chosen = order.repeat(math.ceil(len(bank_RC) / len(order)))[: len(bank_RC)]
        bank_RC.copy_(rows_NC[chosen.to(rows_NC.device)])

    def release_training_state(self) -> None:
        """Nothing to drop: the banks are the model."""

    # ── prediction ───────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        map_B1hw = self._distance_map(images_B3HW)
        heatmap = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(map_B1hw, self.settings.score_share), heatmap_B1HW=heatmap)

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        with torch.no_grad():
            images_B3HW = self._tensor(images)
            patches = self.patches(images_B3HW)
            distance_B1hw = self._distance(patches)
            heat_B1hw = (
                LOW_HEAT
                * (distance_B1hw - self.zero_distance)
                / (self.low_distance - self.zero_distance).clamp_min(1e-6)
            ).clamp(0, 1)
            heatmap = F.interpolate(heat_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
            cells = self.side // max(GROUPS[-1])
            tokens_BChw = patches[-1].transpose(1, 2).unflatten(2, (cells, cells))
        # Heat is a distance here, not a probability: 0.5 is a large distance, not uncertainty, so the confidence is 1 everywhere.
        return TeacherOutput(heatmap, torch.ones_like(heatmap), tokens_BChw)

    def _distance_map(self, images_B3HW: Tensor) -> Tensor:
        with torch.no_grad():
            return self._distance(self.patches(images_B3HW))

    def _distance(self, patches: list[Tensor]) -> Tensor:
        by_bank = [distance_map(patches, self._bank(bank), self.side) for bank in range(BANKS)]
        distance_B1hw: Tensor = self.smooth(torch.stack(by_bank).amax(dim=0))
        return distance_B1hw

    def _bank(self, bank: int) -> list[Tensor]:
        return [self.get_buffer(f"bank_{bank}_{group}") for group in range(len(GROUPS))]

    def _tensor(self, images: Sequence[ImageU8]) -> Tensor:
        stacked = torch.from_numpy(np.stack([resize(image, self.side, self.side) for image in images]))
        return stacked.permute(0, 3, 1, 2).float().to(self.zero_distance.device)
