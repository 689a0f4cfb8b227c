"""Nearest-neighbour memory as a teacher: strong on stochastic texture, where rebuilding is weak, and absent on the line.

Unusual here: there are two banks, of different parts, and a place is as far from sound as the bank says that knows it less.
One bank alone would find each patch of a part that it holds in itself, so it would call that part flawless and its neighbour
on the line suspicious.

Shapes: B batch, C channels, N places, R remembered patches, H W image, h w grid.
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
from inspect_kd.models import base
from inspect_kd.models.base import ModelOutput, TeacherOutput, TeacherSample, WeightsSource
from inspect_kd.models.encoders import Encoder, build_encoder
from inspect_kd.models.layers.discrepancy import Smooth, top_mean
from inspect_kd.models.layers.neighbours import FINEST, GROUPS, Patches, coreset, distance_map
from inspect_kd.resize import resize
from inspect_kd.types import ImageU8

BANKS = 2
USUAL, SOUND_QUANTILE, HEAT_OF_RARE = 0.90, 0.995, 0.1
"""Quantiles of sound places that become heat 0 and 0.1, as EfficientAD puts its maps on one scale."""
CANDIDATES = 8
"""For each place in a bank, of lessons of which about half are untouched."""
SPREAD_FROM = 256
"""Sound images from which the features' spread is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model that gives features at strides 4, 8 and 16; a larger one than the student's may be better."""
    rows: Annotated[int, Field(ge=1)] = 4_096
    """Patches in each bank, of each group of strides."""
    coreset: bool = True
    """Choose them out of more so that none is far from all of them; otherwise they are a random part."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Smoothing of the heatmap, in pixels of the input."""
    score_share: Annotated[float, Field(gt=0, le=1)] = 0.01


def build(config: Config, size: int) -> Teacher:
    coarsest = max(GROUPS[-1])
    if size % coarsest:
        raise UsageError(f"data.size: the memory takes multiples of {coarsest}, not {size}")
    return Teacher(config, build_encoder(config.encoder), size)


class Teacher(base.Teacher):
    frozen = ("patches.encoder.",)

    usual: Tensor
    rare: Tensor

    def __init__(self, config: Config, encoder: Encoder, size: int) -> None:
        super().__init__()
        self.settings = config
        spec = encoder.spec
        self.sources = (WeightsSource(name=spec.name, licence=spec.licence, origin=spec.source, sha256=spec.sha256),)
        self.patches = Patches(encoder)
        self.side = size
        self.smooth = Smooth(config.sigma / FINEST)
        for bank in range(BANKS):
            for group, channels in enumerate(self.patches.channels()):
                self.register_buffer(f"bank_{bank}_{group}", torch.zeros(config.rows, channels))
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("rare", torch.ones(()))

    @property
    def size(self) -> int:
        return self.side

    # ── studying ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        return 2 * math.ceil(samples / batch)

    def fit(
        self, lessons: Sequence[TeacherSample], *, epochs: int, batch: int, rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Two sweeps over untouched parts: remember them, then see how far they are from what the other bank remembers."""
        generator = torch.Generator().manual_seed(seed)
        spread = range(0, len(lessons), max(1, len(lessons) // (2 * SPREAD_FROM)))
        untouched = (lesson.image for lesson in map(lessons.__getitem__, spread) if lesson.mask is None)
        self.patches.feature_norm.fit(self.patches.encoder(self._tensor([image])) for image in untouched)
        share = max(1, math.ceil(CANDIDATES * self.settings.rows * BANKS / max(1, len(lessons))))
        seat: dict[int, int] = {}
        kept: list[list[list[Tensor]]] = [[[] for _ in GROUPS] for _ in range(BANKS)]
        for part in chunks(lessons, batch):
            for lesson in part:
                if lesson.mask is None:
                    for rows, patches_1NC in zip(
                        kept[seat.setdefault(lesson.part, len(seat)) % BANKS],
                        self.patches(self._tensor([lesson.image])),
                        strict=True,
                    ):
                        chosen = torch.randperm(patches_1NC.shape[1], generator=generator)[:share]
                        rows.append(patches_1NC[0, chosen.to(patches_1NC.device)].clone())
            yield {}
        for bank, groups in enumerate(kept):
            # Of a single part both banks remember the same.
            rows_of = groups if groups[0] else kept[1 - bank]
            for group, rows in enumerate(rows_of):
                self._fill(self._bank(bank)[group], torch.cat(rows), generator)
        sound: list[Tensor] = []
        for part in chunks(lessons, batch):
            images = [lesson.image for lesson in part if lesson.mask is None]
            if images:
                sound.append(self._map(self._tensor(images)).flatten().cpu()[::7])
            yield {}
        places = torch.cat(sound).numpy()
        self.usual.fill_(float(np.quantile(places, USUAL)))
        self.rare.fill_(float(np.quantile(places, SOUND_QUANTILE)))

    def _fill(self, bank_RC: Tensor, rows_NC: Tensor, generator: torch.Generator) -> None:
        order = torch.randperm(len(rows_NC), generator=generator)
        if self.settings.coreset:
            order = order[coreset(rows_NC[order], min(len(order), len(bank_RC))).cpu()]
        chosen = order.repeat(math.ceil(len(bank_RC) / len(order)))[: len(bank_RC)]
        bank_RC.copy_(rows_NC[chosen.to(rows_NC.device)])

    def release_training_state(self) -> None:
        """Nothing to let go of."""

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        map_B1hw = self._map(images_B3HW)
        heatmap = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(map_B1hw, self.settings.score_share), heatmap_B1HW=heatmap)

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        with torch.no_grad():
            images_B3HW = self._tensor(images)
            patches = self.patches(images_B3HW)
            far_B1hw = self._far(patches)
            heat_B1hw = (HEAT_OF_RARE * (far_B1hw - self.usual) / (self.rare - self.usual).clamp_min(1e-6)).clamp(0, 1)
            heatmap = F.interpolate(heat_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
            cells = self.side // max(GROUPS[-1])
            tokens_BChw = patches[-1].transpose(1, 2).unflatten(2, (cells, cells))
        # Heat is a distance here and no chance; its middle is far from sound and no doubt. What it means, drawn defects tell.
        return TeacherOutput(heatmap, torch.ones_like(heatmap), tokens_BChw)

    def _map(self, images_B3HW: Tensor) -> Tensor:
        with torch.no_grad():
            return self._far(self.patches(images_B3HW))

    def _far(self, patches: list[Tensor]) -> Tensor:
        each = [distance_map(patches, self._bank(bank), self.side) for bank in range(BANKS)]
        far_B1hw: Tensor = self.smooth(torch.stack(each).amax(dim=0))
        return far_B1hw

    def _bank(self, bank: int) -> list[Tensor]:
        return [self.get_buffer(f"bank_{bank}_{group}") for group in range(len(GROUPS))]

    def _tensor(self, images: Sequence[ImageU8]) -> Tensor:
        stacked = torch.from_numpy(np.stack([resize(image, self.side, self.side) for image in images]))
        return stacked.permute(0, 3, 1, 2).float().to(self.usual.device)
