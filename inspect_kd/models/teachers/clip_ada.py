"""CLIP-ADA-style teacher: frozen CLIP, learnable sentences for sound and damaged, their similarity to patches is the map.

After "Anomaly Detection by Adapting a pre-trained Vision Language Model" (arXiv 2403.09493), of which no code is public: the
sentences, losses and synthetic defects are our reconstruction. After training the text tower is gone; two vectors are kept.

Shapes: B batch, C channels, P sentences (sound, damaged; or damaged alone), h w patch grid, H W image, M learning grid.
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
from inspect_kd.models import base
from inspect_kd.models.base import ModelOutput, TeacherOutput, TeacherSample, WeightsSource
from inspect_kd.models.clip.closer import Window, paste_closer, suspicious_windows
from inspect_kd.models.clip.heat import share_by_affinity, similarity
from inspect_kd.models.clip.load import TIMM, load_clip
from inspect_kd.models.clip.prompts import PromptMode, Prompts
from inspect_kd.models.clip.towers import TimmTower, TowerOutput, VitTower
from inspect_kd.models.layers.discrepancy import Smooth, top_mean
from inspect_kd.models.layers.losses import dice, focal
from inspect_kd.resize import resize
from inspect_kd.types import ImageU8

MAP_STRIDE = 4
"""The map is smoothed at a fourth of the image's side."""
FOUR = 4
"""Rows and columns of the learning grid to one patch: masks are finer than patches."""
SOUND_SHARE = 0.9
"""Of sound parts, of which not one place is looked at closer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    model: str = "ViT-B-16"
    """An open_clip model, `local-dir:FOLDER`, or `timm:NAME` for the stand-in around a timm network."""
    pretrained: str | None = "laion2b_s34b_b88k"
    """An open_clip tag, or a file of weights."""
    random: bool = False
    """Random weights, for tests of the machinery: the only way to get them."""
    licence: str | None = None
    """Of weights that come as a file or a folder."""
    strides: tuple[int, ...] = (8, 16)
    """Of a timm network, the levels that are joined."""
    deviations: bool = True
    """Of a timm network, how far each channel is from usual beside its value."""
    prompt_mode: PromptMode = "pair"
    words: Annotated[int, Field(ge=1)] = 12
    """Learnable words a sentence."""
    vv_blocks: Annotated[int, Field(ge=0)] = 6
    """Last blocks with a V-V path; 0 leaves it out."""
    affinity_steps: Annotated[int, Field(ge=0)] = 1
    """Times that patches which look alike share their heat (R2)."""
    closer: bool = True
    """Look at suspicious places again, enlarged, when asked by `look` (R1)."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Smoothing of the heatmap, in pixels of the input."""
    score_share: Annotated[float, Field(gt=0, le=1)] = 0.01


def build(config: Config, size: int) -> Teacher:
    clip = load_clip(config.model, config.pretrained, size=size, random=config.random, licence=config.licence)
    timm = config.model.startswith(TIMM)
    tower = TimmTower(clip, config.strides, deviations=config.deviations) if timm else VitTower(clip, config.vv_blocks)
    prompts = Prompts(clip.model, config.prompt_mode, config.words)
    return Teacher(config, tower, prompts, clip.source, size)


class Teacher(base.Teacher):
    frozen = ("tower.visual.", "prompts.")

    vectors_PC: Tensor
    slope: Tensor
    level: Tensor
    suspicious: Tensor
    prompts: Prompts | None

    def __init__(
        self, config: Config, tower: TimmTower | VitTower, prompts: Prompts, source: WeightsSource, size: int
    ) -> None:
        super().__init__()
        self.settings = config
        self.tower = tower
        self.sources = (source,)
        self.side = size
        self.smooth = Smooth(config.sigma / MAP_STRIDE)
        self.prompts = prompts
        self.register_buffer("vectors_PC", prompts().detach())
        self.register_buffer("slope", prompts.slope.detach().clone())
        self.register_buffer("level", prompts.level.detach().clone())
        self.register_buffer("suspicious", torch.ones(()))

    @property
    def size(self) -> int:
        return self.side

    # ── studying ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        return math.ceil(samples / batch) + epochs * math.ceil(samples / batch)

    def fit(
        self, lessons: Sequence[TeacherSample], *, epochs: int, batch: int, rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Image features are frozen: they are made once, and a step costs the text tower alone."""
        device = self.vectors_PC.device
        prompts = self.prompts
        if prompts is None:
            raise RuntimeError("this teacher has settled; build another one to study again")
        prompts.begin(seed)
        self.tower.fit(self._sound(lessons, batch))
        features = wholes_BC = masks_B1MM = torch.empty(0)
        for part in chunks(range(len(lessons)), batch):
            studied = [lessons[i] for i in part]
            seen = self._see([self._resized(lesson.image) for lesson in studied])
            found_B1MM = self._masks(studied, seen.dense_BChw.shape[-1])
            if not len(features):
                # Room for all at once: to join parts at the end would take it twice.
                features = torch.empty(len(lessons), *seen.dense_BChw.shape[1:], dtype=torch.float16)
                wholes_BC = torch.empty(len(lessons), seen.whole_BC.shape[1])
                masks_B1MM = torch.empty(len(lessons), *found_B1MM.shape[1:])
            features[part], wholes_BC[part] = seen.dense_BChw.half().cpu(), seen.whole_BC.cpu()
            masks_B1MM[part] = found_B1MM
            yield {}
        self._start(prompts, features, masks_B1MM)
        optimizer = torch.optim.Adam(prompts.parameters(), lr=rate, betas=(0.5, 0.999))
        shuffled = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for part in chunks(torch.randperm(len(features), generator=shuffled).tolist(), batch):
                seen = TowerOutput(features[part].float().to(device), wholes_BC[part].to(device))
                terms = self.losses(seen, masks_B1MM[part].to(device), prompts)
                loss = torch.stack(list(terms.values())).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield {"loss": loss.item()}
        self.fold()
        with torch.no_grad():
            untouched = _untouched(masks_B1MM)
            hottest = [
                self.heat(features[part].float().to(device)).flatten(1).amax(dim=1) for part in chunks(untouched, 32)
            ]
            self.suspicious.copy_(torch.cat(hottest).quantile(SOUND_SHARE))

    def fold(self) -> None:
        """The sentences as they are read now become the stored vectors."""
        assert self.prompts is not None
        with torch.no_grad():
            self.vectors_PC.copy_(self.prompts())
            self.slope.copy_(self.prompts.slope)
            self.level.copy_(self.prompts.level)

    def release_training_state(self) -> None:
        self.prompts = None

    def losses(self, seen: TowerOutput, mask_B1MM: Tensor, prompts: Prompts) -> dict[str, Tensor]:
        """AnomalyCLIP's terms and weights, and a mild push that keeps the two sentences apart."""
        vectors_PC = prompts()
        heat_B1hw = similarity(seen.dense_BChw, vectors_PC, prompts.slope, prompts.level)
        damaged_B1MM = F.interpolate(heat_B1hw, size=mask_B1MM.shape[-2:], mode="bilinear", align_corners=False)
        defective_B = mask_B1MM.flatten(1).amax(dim=1)
        told_B = similarity(seen.whole_BC[:, :, None, None], vectors_PC, prompts.slope, prompts.level).flatten()
        terms = {
            "focal": 4 * focal(damaged_B1MM, mask_B1MM),
            "dice_damaged": 4 * dice(damaged_B1MM, mask_B1MM),
            "dice_sound": 4 * dice(1 - damaged_B1MM, 1 - mask_B1MM),
            "image": F.binary_cross_entropy(told_B.clamp(1e-6, 1 - 1e-6), defective_B),
        }
        if len(vectors_PC) == 2:
            terms["apart"] = 0.1 * (vectors_PC[0] @ vectors_PC[1]).square()
        return terms

    def _start(self, prompts: Prompts, features: Tensor, masks_B1MM: Tensor) -> None:
        """In `single` mode the sigmoid begins at the usual cosine of sound patches."""
        if self.settings.prompt_mode == "pair":
            return
        with torch.no_grad():
            untouched = _untouched(masks_B1MM)
            sound = features[untouched[:: max(1, len(untouched) // 64)]].float().to(prompts.level.device)
            prompts.level.copy_(torch.einsum("bchw,pc->bphw", sound, prompts()).mean())

    def _sound(self, lessons: Sequence[TeacherSample], batch: int, most: int = 256) -> Iterator[Tensor]:
        """Untouched parts, evenly taken."""
        chosen = range(0, len(lessons), max(1, len(lessons) // (2 * most)))
        images = (lesson.image for lesson in map(lessons.__getitem__, chosen) if lesson.mask is None)
        group: list[ImageU8] = []
        for image in images:
            group.append(self._resized(image))
            if len(group) == batch:
                yield self._tensor(group)
                group = []
        if group:
            yield self._tensor(group)

    def _masks(self, lessons: Sequence[TeacherSample], side: int) -> Tensor:
        """At the learning grid."""
        found = [
            np.zeros(one.image.shape[:2], np.float32) if one.mask is None else one.mask.astype(np.float32)
            for one in lessons
        ]
        # The largest of a cell: a scratch of one pixel would vanish in a mean.
        return torch.stack([F.adaptive_max_pool2d(torch.from_numpy(mask)[None], FOUR * side) for mask in found])

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        map_B1hw = self._map(self.tower(images_B3HW).dense_BChw, images_B3HW.shape[-1])
        heatmap = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(map_B1hw, self.settings.score_share), heatmap_B1HW=heatmap)

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        with torch.no_grad():
            seen = self._see([self._resized(image) for image in images])
            map_B1hw = self._map(seen.dense_BChw, self.side)
            heatmap = F.interpolate(map_B1hw, size=(self.side, self.side), mode="bilinear", align_corners=False)
            if self.settings.closer:
                coarse = self.heat(seen.dense_BChw)[:, 0].cpu().numpy()
                for number, image in enumerate(images):
                    windows = suspicious_windows(coarse[number], float(self.suspicious))
                    heatmap[number, 0] = self._closer(image, heatmap[number, 0], windows)
        return TeacherOutput(heatmap, (2 * heatmap - 1).abs(), seen.dense_BChw)

    def class_vectors(self) -> Tensor | None:
        return self.vectors_PC if len(self.vectors_PC) == 2 else None

    def heat(self, dense_BChw: Tensor) -> Tensor:
        """How damaged each patch looks, 0 to 1, after patches that look alike have shared it: (B, 1, h, w)."""
        heat_B1hw = similarity(dense_BChw, self.vectors_PC, self.slope, self.level)
        for _ in range(self.settings.affinity_steps):
            heat_B1hw = share_by_affinity(heat_B1hw, dense_BChw)
        return heat_B1hw

    def _map(self, dense_BChw: Tensor, side: int) -> Tensor:
        fine = side // MAP_STRIDE
        enlarged_B1hw = F.interpolate(self.heat(dense_BChw), size=(fine, fine), mode="bilinear", align_corners=False)
        smoothed_B1hw: Tensor = self.smooth(enlarged_B1hw)
        return smoothed_B1hw

    def _closer(self, image: ImageU8, heatmap_HW: Tensor, windows: list[Window]) -> Tensor:
        if not windows:
            return heatmap_HW
        crops = [self._resized(window.cut(image)) for window in windows]
        maps_B1hw = self._map(self._see(crops).dense_BChw, self.side)
        return paste_closer(heatmap_HW, windows, maps_B1hw[:, 0])

    def _see(self, images: Sequence[ImageU8]) -> TowerOutput:
        with torch.no_grad():
            seen: TowerOutput = self.tower(self._tensor(images))
        return seen

    def _resized(self, image: ImageU8) -> ImageU8:
        return resize(image, self.side, self.side)

    def _tensor(self, images: Sequence[ImageU8]) -> Tensor:
        stacked = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in images]))
        return stacked.permute(0, 3, 1, 2).float().to(self.vectors_PC.device)


def _untouched(masks_B1MM: Tensor) -> list[int]:
    return [int(i) for i in (masks_B1MM.flatten(1).amax(dim=1) == 0).nonzero()[:, 0]]
