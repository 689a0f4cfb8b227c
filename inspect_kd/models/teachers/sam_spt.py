"""SAM with self-perception tuning (SPT), prompted by a CLIP-ADA-style guide: the guide locates a defect, SAM outlines it.

As published, SPT needs true masks in training and true boxes in prediction. Here (SPT-U) it needs neither: it trains on synthetic
defects, with prompts that have the errors of a heatmap, and on sound regions, which a presence head learns to reject. A part's
score never comes from SAM, and SAM runs only where the guide finds something.

Shapes: B batch, K prompts, C channels, H W image, h w embedding grid, m m mask logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from inspect_kd.config import fill
from inspect_kd.errors import UsageError
from inspect_kd.models.base import ModelOutput, Teacher, TeacherOutput, TeacherSample
from inspect_kd.models.sam.boundary import iou_and_boundary_iou
from inspect_kd.models.sam.crops import crop_image, crop_prompts, crop_squares, uncrop_masks
from inspect_kd.models.sam.load import Backend, LoadedSam, embed, load_sam
from inspect_kd.models.sam.losses import LOSS_WEIGHTS, tuning_losses
from inspect_kd.models.sam.prompting import (
    RegionPrompt,
    degraded_prompt,
    false_alarm_prompt,
    heatmap_prompts,
    stack_prompts,
)
from inspect_kd.models.sam.tuning import SelfPerception, SptOutput, refining_prompts
from inspect_kd.models.teachers import clip_ada
from inspect_kd.resize import RESIZE, resize
from inspect_kd.tensor_cache import TensorCache
from inspect_kd.types import ImageU8, Mask
from inspect_kd.zoo import cache_home

NEGATIVE_SHARE = 0.3
"""Share of training prompts without a defect."""
DECAY_AFTER = 10 / 16
"""Share of the epochs after which the learning rate falls to a tenth."""
MAX_FALSE_ALARM_SHARE = 0.02
"""Largest share of false-alarm prompts on sound training parts that the presence head may accept."""
MAX_MASK_SHARE = 0.4
"""Share of the image above which a mask is rejected: it covers the part, not a defect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    guide: dict[str, Any] = field(default_factory=dict)
    """Settings of the `clip_ada` teacher that prompts SAM."""
    backend: Backend = "sam_vit_b"
    checkpoint: str | None = None
    """A weights file; None: search INSPECT_KD_WEIGHTS."""
    random: bool = False
    """Use random weights, for tests."""
    licence: str | None = None
    """Licence of weights other than SAM's published files and the shipped tiny ones."""
    tune_encoder: bool = False
    """LoRA in the image encoder too: each step then encodes its images, and no embedding can be cached."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the relation between image cells; 1, as released, is nearly a global mean."""
    learning_rate_scale: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the tuning, in multiples of `teach.learning_rate`, which the guide uses."""
    closer: bool = False
    """Give the second decoder a crop around the draft, embedded anew: better masks of small defects, one encoding per prompt."""
    accept: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least IoU, by SAM's own estimate, of an accepted mask; the threshold of presence is fitted on sound parts."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of an accepted mask in the heatmap."""
    cache: bool = True
    """Cache embeddings on disk, in INSPECT_KD_CACHE."""

    def __post_init__(self) -> None:
        # All defaults are written out, so that changing a default does not change a saved run.
        guide = fill(clip_ada.Config, dict(self.guide), where="teacher.guide")
        object.__setattr__(self, "guide", asdict(guide))


def build(config: Config, size: int) -> SamSptTeacher:
    guide = clip_ada.build(fill(clip_ada.Config, config.guide, where="teacher.guide"), size)
    loaded = load_sam(config.backend, config.checkpoint, random=config.random, licence=config.licence)
    if config.tune_encoder and config.backend == "mobile_sam":
        raise UsageError(
            "teacher.tune_encoder: MobileSAM's encoder has no attention that can be tuned; set it to false"
        )
    return SamSptTeacher(config, guide, loaded)


class Segmentation(NamedTuple):
    output: SptOutput
    squares_K4: Tensor
    """The second decoder's crops, in pixels of SAM's input; the final masks cover only these crops."""


class AcceptedMask(NamedTuple):
    window: tuple[slice, slice]
    """The prompt's box."""
    cells_HW: Tensor
    """The guide's hot cells."""
    probability_HW: Tensor


class SamSptTeacher(Teacher):
    frozen = ("guide.tower.visual.", "guide.prompts.", "spt.sam.")

    def __init__(self, config: Config, guide: clip_ada.ClipAdaTeacher, loaded: LoadedSam) -> None:
        super().__init__()
        self.settings = config
        self.guide = guide
        self.sources = (*guide.sources, loaded.source)
        self.spt = SelfPerception(loaded.model, temperature=config.temperature, tune_encoder=config.tune_encoder)
        self.side = int(loaded.model.image_encoder.img_size)
        self.mask_side = int(loaded.model.prompt_encoder.mask_input_size[0])
        self.caches_embeddings = config.cache and not config.tune_encoder and not config.random
        self.embedding_cache: TensorCache | None = None
        self.register_buffer("there", torch.zeros(()))

    @property
    def presence_threshold(self) -> Tensor:
        """Lower limit of an accepted mask's presence logit; the buffer's name is a key of saved runs."""
        return self.get_buffer("there")

    @property
    def size(self) -> int:
        return self.guide.size

    @property
    def training_size(self) -> int:
        return max(self.guide.size, self.side)

    def adapted_state(self) -> dict[str, Tensor]:
        """The guide's adapted state and SAM's tuned parameters."""
        tuned = {f"spt.{name}" for name, p in self.spt.named_parameters() if p.requires_grad} | {"there"}
        return {
            k: v
            for k, v in self.state_dict().items()
            if k in tuned or (k.startswith("guide.") and not k.startswith(self.frozen))
        }

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        prompts = round(samples / 2 / (1 - NEGATIVE_SHARE))
        tuning_steps = math.ceil(samples / batch) + epochs * math.ceil(prompts / batch)
        return self.guide.count_steps(samples, epochs=epochs, batch=batch) + tuning_steps

    def fit(
        self, samples: Sequence[TeacherSample], *, epochs: int, batch: int, learning_rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        for metrics in self.guide.fit(samples, epochs=epochs, batch=batch, learning_rate=learning_rate, seed=seed):
            yield {f"guide_{name}": value for name, value in metrics.items()}
        tuned = [p for p in self.spt.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(tuned, lr=learning_rate * self.settings.learning_rate_scale)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(DECAY_AFTER * epochs))], gamma=0.1)
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        synthetic: list[int] = []
        sound: list[int] = []
        for number, sample in enumerate(samples):
            (sound if sample.mask is None else synthetic).append(number)
            if self.caches_embeddings:
                self._embedding(self._scaled(sample.image))
            if number % batch == 0:
                yield {}
        for _ in range(epochs):
            negatives = round(len(synthetic) * NEGATIVE_SHARE / (1 - NEGATIVE_SHARE)) if sound else 0
            order = rng.permutation([*synthetic, *rng.choice(sound or [0], negatives)])
            for start in range(0, len(order), batch):
                batch_samples = [samples[int(i)] for i in order[start : start + batch]]
                terms = tuning_losses(*self._predict_with_truth(batch_samples, rng), generator)
                loss = torch.stack([LOSS_WEIGHTS[name] * value for name, value in terms.items()]).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
            schedule.step()
        self._fit_presence([samples[i] for i in sound[:: max(1, len(sound) // 200)]], rng)

    def _fit_presence(self, sound: Sequence[TeacherSample], rng: np.random.Generator) -> None:
        """Set the presence threshold so that it rejects all but a few false alarms on sound parts."""
        alarms = [
            self._predict_masks(sample.image, false_alarm_prompt(self.side, self.mask_side, rng)).output.presence_K
            for sample in sound
        ]
        if alarms:
            with torch.no_grad():
                self.presence_threshold.copy_(torch.cat(alarms).quantile(1 - MAX_FALSE_ALARM_SHARE).clamp_min(0))

    def validate(self, samples: Sequence[TeacherSample]) -> dict[str, float]:
        """Compute IoUs of draft and final mask on synthetic defects, with full prompts and (`boxed_`) with box and points, as published.

        `false_masks` is the share of prompts on sound parts whose mask is accepted, `found_masks` that on synthetic defects.
        """
        rng = np.random.default_rng(0)
        metrics: dict[str, list[float]] = {}
        for sample in samples:
            if sample.mask is None:
                alarm = self._predict_masks(sample.image, false_alarm_prompt(self.side, self.mask_side, rng))
                metrics.setdefault("false_masks", []).append(float(self._accepted(alarm.output)[0]))
                continue
            mask = self._scaled_mask(sample.mask)
            prompt = degraded_prompt(mask, rng, self.mask_side)
            truth = _touched_defects(mask, prompt)
            full = self._predict_masks(sample.image, prompt)
            metrics.setdefault("found_masks", []).append(float(self._accepted(full.output)[0]))
            boxed = self._predict_masks(sample.image, prompt.select(points=True, logits=False))
            for prefix, segmentation in (("", full), ("boxed_", boxed)):
                for name, logits_11SS in (("draft", self._draft(segmentation)), ("final", self._final(segmentation))):
                    iou, boundary_iou = iou_and_boundary_iou((logits_11SS[0, 0] > 0).cpu().numpy(), truth)
                    metrics.setdefault(f"{prefix}{name}_iou", []).append(iou)
                    metrics.setdefault(f"{prefix}{name}_boundary_iou", []).append(boundary_iou)
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    def _predict_masks(self, image: ImageU8, prompt: RegionPrompt) -> Segmentation:
        with torch.no_grad():
            return self._segment([image], [prompt])

    def _draft(self, segmentation: Segmentation) -> Tensor:
        """Draft logits at the size of SAM's input."""
        draft_K1hw, size = segmentation.output.draft_K1hw, (self.side, self.side)
        return F.interpolate(draft_K1hw, size, mode="bilinear", align_corners=False)

    def _final(self, segmentation: Segmentation) -> Tensor:
        """Final logits at the size of SAM's input."""
        return uncrop_masks(segmentation.output.final_K1hw, segmentation.squares_K4, self.side)

    def release_training_state(self) -> None:
        self.guide.release_training_state()

    def _predict_with_truth(
        self, samples: Sequence[TeacherSample], rng: np.random.Generator
    ) -> tuple[SptOutput, Tensor, Tensor]:
        """Predict masks for one prompt per sample; returns them with the true masks of whole inputs and of the second decoder's crops."""
        # The guide always gives a coarse map; some training prompts lack it, so that the model also works without the guide.
        use_points, use_logits = rng.random() < 0.7, rng.random() < 0.8
        prompts, truths = [], []
        for sample in samples:
            if sample.mask is None:
                prompts.append(false_alarm_prompt(self.side, self.mask_side, rng))
                truths.append(np.zeros((self.side, self.side), bool))
            else:
                mask = self._scaled_mask(sample.mask)
                prompts.append(degraded_prompt(mask, rng, self.mask_side))
                truths.append(_touched_defects(mask, prompts[-1]))
        selected = [prompt.select(points=use_points, logits=use_logits) for prompt in prompts]
        output, squares_K4 = self._segment([sample.image for sample in samples], selected)
        cropped = [
            truth[top:bottom, left:right]
            for truth, (left, top, right, bottom) in zip(truths, squares_K4.tolist(), strict=True)
        ]
        return output, self._targets(truths), self._targets(cropped)

    def _targets(self, truths: Sequence[Mask]) -> Tensor:
        shrunk_Kmm = np.stack([_max_pooled(truth, self.mask_side) for truth in truths])
        return torch.from_numpy(shrunk_Kmm)[:, None].to(self.spt.presence.weight.device)

    def _segment(self, images: Sequence[ImageU8], prompts: list[RegionPrompt]) -> Segmentation:
        """Predict a mask per prompt, on one image per prompt or on one image for all."""
        batch = stack_prompts(prompts, self.spt.presence.weight.device)
        embeddings_KChw = torch.stack([self._embedding(self._scaled(image)) for image in images])
        if len(images) < len(prompts):
            embeddings_KChw = embeddings_KChw.expand(len(prompts), -1, -1, -1)
        if not self.settings.closer:
            whole_4 = torch.tensor([0, 0, self.side, self.side])
            return Segmentation(self.spt(embeddings_KChw, batch), whole_4.expand(len(prompts), -1))
        draft_K1hw = self.spt.predict_draft(embeddings_KChw, batch)
        refining = refining_prompts(draft_K1hw, batch, (self.side, self.side))
        assert refining.boxes_K4 is not None  # every region prompt has a box
        squares_K4 = crop_squares(refining.boxes_K4, self.side)
        image_of_prompt = images if len(images) == len(prompts) else [images[0]] * len(prompts)
        crops = [
            crop_image(image, square_4, self.side) for image, square_4 in zip(image_of_prompt, squares_K4, strict=True)
        ]
        crops_KChw = self._embed_crops([self._scaled(crop) for crop in crops])
        refined = self.spt.refine_draft(crops_KChw, crop_prompts(refining, squares_K4, self.side))
        return Segmentation(SptOutput(draft_K1hw, *refined), squares_K4)

    def _embed_crops(self, images: Sequence[ImageU8]) -> Tensor:
        """Embeddings of crops. They are not cached, as no crop occurs twice."""
        images_KHW3 = torch.from_numpy(np.stack(images)).to(self.spt.presence.weight.device)
        with torch.set_grad_enabled(self.settings.tune_encoder and torch.is_grad_enabled()):
            return embed(self.spt.sam, images_KHW3.permute(0, 3, 1, 2).float())

    def _embedding(self, image: ImageU8) -> Tensor:
        device = self.spt.presence.weight.device

        def compute() -> Tensor:
            return embed(self.spt.sam, torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device))[0]

        if not self.caches_embeddings:
            return compute()
        if self.embedding_cache is None:
            self.embedding_cache = TensorCache(
                cache_home() / "embeddings", self.sources[-1].sha256, f"{RESIZE}/{self.side}"
            )
        with torch.no_grad():
            return self.embedding_cache.get(image, lambda: {"embedding": compute()})["embedding"].float().to(device)

    # ── prediction ───────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """The guide's output: whether SAM runs depends on the input, which a graph cannot express."""
        output: ModelOutput = self.guide(images_B3HW)
        return output

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        guided = self.guide.predict(images)
        heatmap_B1HW = guided.heatmap_B1HW.clone()
        for heatmap_HW, image, tokens_Chw in zip(heatmap_B1HW[:, 0], images, guided.tokens_BChw, strict=True):
            refined_HW, in_window_HW = torch.zeros_like(heatmap_HW), torch.zeros_like(heatmap_HW, dtype=torch.bool)
            for mask in self.accepted_masks(image, tokens_Chw):
                window, peak = mask.window, heatmap_HW[mask.cells_HW].max()
                # Maximum: where windows overlap, an empty mask must not erase another one's region.
                refined_HW[window] = torch.maximum(refined_HW[window], peak * mask.probability_HW[window])
                in_window_HW[window] = True
            heatmap_HW += self.settings.weight * torch.where(in_window_HW, refined_HW - heatmap_HW, 0)
        return TeacherOutput(heatmap_B1HW, (2 * heatmap_B1HW - 1).abs(), guided.tokens_BChw)

    def class_vectors(self) -> Tensor | None:
        return self.guide.class_vectors()

    def accepted_masks(self, image: ImageU8, tokens_Chw: Tensor) -> list[AcceptedMask]:
        """SAM's accepted masks of the guide's hot regions; usually there are none on a sound part."""
        with torch.no_grad():
            coarse = self.guide.heat(tokens_Chw[None])[0, 0].cpu().numpy()
            regions = heatmap_prompts(coarse, float(self.guide.region_threshold), self.side, self.mask_side)
            if not regions:
                return []
            segmentation = self._segment([image], [prompt for prompt, _ in regions])
            size = (self.size, self.size)
            logits_K1HW = F.interpolate(self._final(segmentation), size, mode="bilinear", align_corners=False)
        probability_KHW, accepted = logits_K1HW.sigmoid()[:, 0], self._accepted(segmentation.output)
        masks = []
        for (prompt, cells), probability_HW, is_accepted in zip(regions, probability_KHW, accepted, strict=True):
            enlarged = cv2.resize(cells.astype(np.uint8), (self.size, self.size), interpolation=cv2.INTER_NEAREST) > 0
            cells_HW, mask_HW = torch.from_numpy(enlarged).to(probability_HW.device), probability_HW > 0.5
            if is_accepted and (mask_HW & cells_HW).any() and mask_HW.float().mean() < MAX_MASK_SHARE:
                left, top, right, bottom = (round(edge * self.size / self.side) for edge in prompt.box)
                window = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
                masks.append(AcceptedMask(window, cells_HW, probability_HW))
        return masks

    def _accepted(self, output: SptOutput) -> list[bool]:
        """Whether each mask has enough presence and estimated IoU, and is not empty."""
        accepted = (
            (output.presence_K > self.presence_threshold)
            & (output.iou_K >= self.settings.accept)
            & (output.final_K1hw.flatten(1).amax(dim=1) > 0)
        )
        return [bool(value) for value in accepted]

    def _scaled(self, image: ImageU8) -> ImageU8:
        return resize(image, self.side, self.side)

    def _scaled_mask(self, mask: Mask) -> Mask:
        """Resize a mask to SAM's input; thin defects survive."""
        if min(mask.shape) >= self.side:
            shrunk: Mask = _max_pooled(mask, self.side) > 0
            return shrunk
        enlarged: Mask = cv2.resize(mask.astype(np.uint8), (self.side, self.side), interpolation=cv2.INTER_NEAREST) > 0
        return enlarged


def _max_pooled(mask: Mask, side: int) -> Any:
    """Maximum over each cell of a coarser grid."""
    return F.adaptive_max_pool2d(torch.from_numpy(mask.astype(np.float32))[None, None], side)[0, 0].numpy()


def _touched_defects(mask: Mask, prompt: RegionPrompt) -> Mask:
    """The defects of the mask that the prompt's box touches; all of them if it touches none."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    left, top, right, bottom = (round(edge) for edge in prompt.box)
    touched = set(np.unique(labels[top : bottom + 1, left : right + 1])) - {0}
    return np.isin(labels, list(touched)) if touched and count > 2 else mask
