"""CLIP-ADA-style teacher: a frozen CLIP and learnable prompts for sound and damaged. The map is each patch's probability of `damaged`.

After "Anomaly Detection by Adapting a pre-trained Vision Language Model" (arXiv 2403.09493), whose code is not public: prompts,
losses and synthetic defects are our reconstruction. After training, the text tower is dropped; only the sentences' vectors are kept.

Shapes: B batch, C channels, P sentences (sound, damaged; or damaged alone), h w patch grid, H W image, M M mask grid.
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
from inspect_kd.models.base import ModelOutput, Teacher, TeacherOutput, TeacherSample, WeightsSource
from inspect_kd.models.clip.crops import Crop, blend_crops, suspicious_crops
from inspect_kd.models.clip.heat import average_by_affinity, damage_probability
from inspect_kd.models.clip.load import TIMM, load_clip
from inspect_kd.models.clip.prompts import LearnablePrompts, PromptMode
from inspect_kd.models.clip.towers import TimmTower, TowerOutput, VitTower
from inspect_kd.models.layers.discrepancy import GaussianSmoothing, top_mean
from inspect_kd.models.layers.losses import dice_loss, focal_loss
from inspect_kd.resize import resize
from inspect_kd.types import ImageU8

MAP_STRIDE = 4
"""Stride of the map when it is smoothed."""
MASK_CELLS = 4
"""Rows and columns of the mask grid per patch: masks are finer than patches."""
SOUND_SHARE = 0.9
"""Share of sound training parts without a suspicious region; this sets the threshold of regions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    model: str = "ViT-B-16"
    """An open_clip model, `local-dir:FOLDER`, or `timm:NAME` for a timm network in place of a CLIP, with a random text tower."""
    pretrained: str | None = "laion2b_s34b_b88k"
    """An open_clip tag, or a weights file."""
    random: bool = False
    """Use random weights, for tests; never happens without this."""
    licence: str | None = None
    """Licence of weights from a file or a folder."""
    strides: tuple[int, ...] = (8, 16)
    """timm networks: strides of the levels that are joined."""
    deviations: bool = True
    """timm networks: add each channel's absolute deviation from its mean."""
    prompt_mode: PromptMode = "pair"
    words: Annotated[int, Field(ge=1)] = 12
    """Learnable words per sentence."""
    vv_blocks: Annotated[int, Field(ge=0)] = 6
    """Number of last blocks with a V-V path; 0: no such path."""
    affinity_steps: Annotated[int, Field(ge=0)] = 1
    """How often heat is averaged over similar patches: R2 of the CLIP-ADA paper."""
    closer: bool = True
    """Have `predict` run a second pass over enlarged crops of suspicious regions: R1 of the CLIP-ADA paper."""
    sigma: Annotated[float, Field(gt=0)] = 4.0
    """Gaussian smoothing of the heatmap, in pixels of the input."""
    score_share: Annotated[float, Field(gt=0, le=1)] = 0.01


def build(config: Config, size: int) -> ClipAdaTeacher:
    clip = load_clip(config.model, config.pretrained, size=size, random=config.random, licence=config.licence)
    is_timm = config.model.startswith(TIMM)
    tower = (
        TimmTower(clip, config.strides, deviations=config.deviations) if is_timm else VitTower(clip, config.vv_blocks)
    )
    prompts = LearnablePrompts(clip.model, config.prompt_mode, config.words)
    return ClipAdaTeacher(config, tower, prompts, clip.source, size)


class ClipAdaTeacher(Teacher):
    frozen = ("tower.visual.", "prompts.")  # `prompts.` holds the text tower; what it learned is saved as `vectors_PC`

    vectors_PC: Tensor
    slope: Tensor
    prompts: LearnablePrompts | None

    def __init__(
        self, config: Config, tower: TimmTower | VitTower, prompts: LearnablePrompts, source: WeightsSource, size: int
    ) -> None:
        super().__init__()
        self.settings = config
        self.tower = tower
        self.sources = (source,)
        self.side = size
        self.smooth = GaussianSmoothing(config.sigma / MAP_STRIDE)
        self.prompts = prompts
        self.register_buffer("vectors_PC", prompts().detach())
        self.register_buffer("slope", prompts.slope.detach().clone())
        # The keys of saved runs are older than the names: `level` is the centre, `suspicious` the region threshold.
        self.register_buffer("level", prompts.centre.detach().clone())
        self.register_buffer("suspicious", torch.ones(()))

    @property
    def centre(self) -> Tensor:
        """Cosine at which the sigmoid of `single` mode is 0.5."""
        return self.get_buffer("level")

    @property
    def region_threshold(self) -> Tensor:
        """Heat above which a region is suspicious."""
        return self.get_buffer("suspicious")

    @property
    def size(self) -> int:
        return self.side

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        return math.ceil(samples / batch) + epochs * math.ceil(samples / batch)

    def fit(
        self, samples: Sequence[TeacherSample], *, epochs: int, batch: int, learning_rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Train the prompts. Image features are computed once, since the tower is frozen; a step runs only the text tower."""
        device = self.vectors_PC.device
        prompts = self.prompts
        if prompts is None:
            raise RuntimeError("this teacher has dropped its text tower; build a new one to train again")
        prompts.reset(seed)
        self.tower.fit(self._sound_batches(samples, batch))
        features = whole_BC = masks_B1MM = torch.empty(0)
        for indices in chunks(range(len(samples)), batch):
            batch_samples = [samples[i] for i in indices]
            output = self._encode([self._resized(sample.image) for sample in batch_samples])
            chunk_masks_B1MM = self._masks(batch_samples, output.dense_BChw.shape[-1])
            if not len(features):
                # Allocated for all samples at once: concatenating batches at the end would take twice the memory.
                features = torch.empty(len(samples), *output.dense_BChw.shape[1:], dtype=torch.float16)
                whole_BC = torch.empty(len(samples), output.whole_BC.shape[1])
                masks_B1MM = torch.empty(len(samples), *chunk_masks_B1MM.shape[1:])
            features[indices], whole_BC[indices] = output.dense_BChw.half().cpu(), output.whole_BC.cpu()
            masks_B1MM[indices] = chunk_masks_B1MM
            yield {}
        self._start_centre(prompts, features, masks_B1MM)
        optimizer = torch.optim.Adam(prompts.parameters(), lr=learning_rate, betas=(0.5, 0.999))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for indices in chunks(torch.randperm(len(features), generator=generator).tolist(), batch):
                output = TowerOutput(features[indices].float().to(device), whole_BC[indices].to(device))
                terms = self.losses(output, masks_B1MM[indices].to(device), prompts)
                loss = torch.stack(list(terms.values())).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield {"loss": loss.item()}
        self.store_vectors()
        with torch.no_grad():
            sound = _sound_indices(masks_B1MM)
            hottest = [
                self.heat(features[indices].float().to(device)).flatten(1).amax(dim=1) for indices in chunks(sound, 32)
            ]
            self.region_threshold.copy_(torch.cat(hottest).quantile(SOUND_SHARE))

    def store_vectors(self) -> None:
        """Store the sentences' current embeddings, which replace the text tower."""
        assert self.prompts is not None
        with torch.no_grad():
            self.vectors_PC.copy_(self.prompts())
            self.slope.copy_(self.prompts.slope)
            self.centre.copy_(self.prompts.centre)

    def release_training_state(self) -> None:
        self.prompts = None

    def losses(self, output: TowerOutput, mask_B1MM: Tensor, prompts: LearnablePrompts) -> dict[str, Tensor]:
        """AnomalyCLIP's terms and weights, and a small term that keeps the two sentences apart."""
        vectors_PC = prompts()
        heat_B1hw = damage_probability(output.dense_BChw, vectors_PC, prompts.slope, prompts.centre)
        damaged_B1MM = F.interpolate(heat_B1hw, size=mask_B1MM.shape[-2:], mode="bilinear", align_corners=False)
        defective_B = mask_B1MM.flatten(1).amax(dim=1)
        image_B = damage_probability(
            output.whole_BC[:, :, None, None], vectors_PC, prompts.slope, prompts.centre
        ).flatten()
        terms = {
            "focal": 4 * focal_loss(damaged_B1MM, mask_B1MM),
            "dice_damaged": 4 * dice_loss(damaged_B1MM, mask_B1MM),
            "dice_sound": 4 * dice_loss(1 - damaged_B1MM, 1 - mask_B1MM),
            "image": F.binary_cross_entropy(image_B.clamp(1e-6, 1 - 1e-6), defective_B),
        }
        if len(vectors_PC) == 2:
            terms["apart"] = 0.1 * (vectors_PC[0] @ vectors_PC[1]).square()
        return terms

    def _start_centre(self, prompts: LearnablePrompts, features: Tensor, masks_B1MM: Tensor) -> None:
        """In `single` mode, start the sigmoid at the mean cosine of sound patches."""
        if self.settings.prompt_mode == "pair":
            return
        with torch.no_grad():
            sound = _sound_indices(masks_B1MM)
            sound_BChw = features[sound[:: max(1, len(sound) // 64)]].float().to(prompts.centre.device)
            prompts.centre.copy_(torch.einsum("bchw,pc->bphw", sound_BChw, prompts()).mean())

    def _sound_batches(self, samples: Sequence[TeacherSample], batch: int, max_images: int = 256) -> Iterator[Tensor]:
        """Batches of sound parts, taken evenly from all samples."""
        indices = range(0, len(samples), max(1, len(samples) // (2 * max_images)))
        images = (sample.image for sample in map(samples.__getitem__, indices) if sample.mask is None)
        group: list[ImageU8] = []
        for image in images:
            group.append(self._resized(image))
            if len(group) == batch:
                yield self._tensor(group)
                group = []
        if group:
            yield self._tensor(group)

    def _masks(self, samples: Sequence[TeacherSample], side: int) -> Tensor:
        """Reduce the samples' masks to the mask grid."""
        masks = [
            np.zeros(sample.image.shape[:2], np.float32) if sample.mask is None else sample.mask.astype(np.float32)
            for sample in samples
        ]
        # Maximum over each cell: in a mean, a scratch of one pixel would vanish.
        return torch.stack([F.adaptive_max_pool2d(torch.from_numpy(mask)[None], MASK_CELLS * side) for mask in masks])

    # ── prediction ───────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        map_B1hw = self._map(self.tower(images_B3HW).dense_BChw, images_B3HW.shape[-1])
        heatmap = F.interpolate(map_B1hw, size=images_B3HW.shape[-2:], mode="bilinear", align_corners=False)
        return ModelOutput(score_B=top_mean(map_B1hw, self.settings.score_share), heatmap_B1HW=heatmap)

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        with torch.no_grad():
            output = self._encode([self._resized(image) for image in images])
            map_B1hw = self._map(output.dense_BChw, self.side)
            heatmap = F.interpolate(map_B1hw, size=(self.side, self.side), mode="bilinear", align_corners=False)
            if self.settings.closer:
                coarse = self.heat(output.dense_BChw)[:, 0].cpu().numpy()
                for number, image in enumerate(images):
                    crops = suspicious_crops(coarse[number], float(self.region_threshold))
                    heatmap[number, 0] = self._refine(image, heatmap[number, 0], crops)
        return TeacherOutput(heatmap, (2 * heatmap - 1).abs(), output.dense_BChw)

    def class_vectors(self) -> Tensor | None:
        return self.vectors_PC if len(self.vectors_PC) == 2 else None

    def heat(self, dense_BChw: Tensor) -> Tensor:
        """Probability of `damaged` for each patch, averaged over similar patches: (B, 1, h, w)."""
        heat_B1hw = damage_probability(dense_BChw, self.vectors_PC, self.slope, self.centre)
        for _ in range(self.settings.affinity_steps):
            heat_B1hw = average_by_affinity(heat_B1hw, dense_BChw)
        return heat_B1hw

    def _map(self, dense_BChw: Tensor, side: int) -> Tensor:
        map_side = side // MAP_STRIDE
        enlarged_B1hw = F.interpolate(
            self.heat(dense_BChw), size=(map_side, map_side), mode="bilinear", align_corners=False
        )
        smoothed_B1hw: Tensor = self.smooth(enlarged_B1hw)
        return smoothed_B1hw

    def _refine(self, image: ImageU8, heatmap_HW: Tensor, crops: list[Crop]) -> Tensor:
        if not crops:
            return heatmap_HW
        enlarged = [self._resized(crop.cut(image)) for crop in crops]
        maps_B1hw = self._map(self._encode(enlarged).dense_BChw, self.side)
        return blend_crops(heatmap_HW, crops, maps_B1hw[:, 0])

    def _encode(self, images: Sequence[ImageU8]) -> TowerOutput:
        with torch.no_grad():
            output: TowerOutput = self.tower(self._tensor(images))
        return output

    def _resized(self, image: ImageU8) -> ImageU8:
        return resize(image, self.side, self.side)

    def _tensor(self, images: Sequence[ImageU8]) -> Tensor:
        stacked = torch.from_numpy(np.stack([np.ascontiguousarray(image) for image in images]))
        return stacked.permute(0, 3, 1, 2).float().to(self.vectors_PC.device)


def _sound_indices(masks_B1MM: Tensor) -> list[int]:
    return [int(i) for i in (masks_B1MM.flatten(1).amax(dim=1) == 0).nonzero()[:, 0]]
