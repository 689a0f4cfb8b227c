"""SAM with self-perception tuning, prompted by a CLIP-ADA-style guide: the guide says where, SAM says how far it reaches.

As published SPT needs true masks to train and true boxes to run. Here (SPT-U) it studies drawn defects with prompts that err
as heatmaps err, and sound regions with nothing in them, which a presence head learns to refuse. A part's score never comes
from SAM, and where the guide sees nothing SAM is not asked.

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
from inspect_kd.models import base
from inspect_kd.models.base import ModelOutput, TeacherOutput, TeacherSample
from inspect_kd.models.sam import closer
from inspect_kd.models.sam.boundary import agreement
from inspect_kd.models.sam.load import Backend, LoadedSam, embed, load_sam
from inspect_kd.models.sam.losses import WEIGHTS, tuning_losses
from inspect_kd.models.sam.prompting import Place, as_prompt, nowhere, places_in, spoilt
from inspect_kd.models.sam.tuning import Masks, SelfPerception, about
from inspect_kd.models.teachers import clip_ada
from inspect_kd.resize import RESIZE, resize
from inspect_kd.tensor_cache import TensorCache
from inspect_kd.types import ImageU8, Mask
from inspect_kd.zoo import cache_home

NEGATIVES = 0.3
"""Share of prompts with nothing to find."""
SLOWER_AFTER = 10 / 16
"""Share of the epochs after which the learning rate is a tenth."""
FALSE_ALARMS = 0.02
"""Share of false alarms on sound parts that the presence head may take for a defect, on the parts that it studied."""
LARGEST = 0.4
"""Of the image: what covers more is no defect but the part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    guide: dict[str, Any] = field(default_factory=dict)
    """Settings of the `clip_ada` that prompts it."""
    backend: Backend = "sam_vit_b"
    checkpoint: str | None = None
    """A file of weights; None looks into INSPECT_KD_WEIGHTS."""
    random: bool = False
    """Random weights, for tests of the machinery."""
    licence: str | None = None
    """Of weights other than SAM's published files and the shipped tiny ones."""
    tune_encoder: bool = False
    """LoRA in the image encoder too: each step then costs an encoding, and none can be kept."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the relation between image cells; 1, as released, is nearly a global mean."""
    learning_rate_scale: Annotated[float, Field(gt=0)] = 1.0
    """The tuning's learning rate, in multiples of `teach.learning_rate`, which is the guide's."""
    closer: bool = False
    """The second decoder looks at a square around the draft, embedded anew: better masks of small defects, an encoding a prompt."""
    accept: Annotated[float, Field(ge=0, le=1)] = 0.5
    """What SAM's own estimate of the IoU must reach; what presence must reach follows from sound parts."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    """What an accepted mask counts in the heatmap."""
    cache: bool = True
    """Keep embeddings on disk, in INSPECT_KD_CACHE."""

    def __post_init__(self) -> None:
        # Written out in full: a later default of the guide's must not change what a run is.
        guide = fill(clip_ada.Config, dict(self.guide), where="teacher.guide")
        object.__setattr__(self, "guide", asdict(guide))


def build(config: Config, size: int) -> Teacher:
    guide = clip_ada.build(fill(clip_ada.Config, config.guide, where="teacher.guide"), size)
    loaded = load_sam(config.backend, config.checkpoint, random=config.random, licence=config.licence)
    if config.tune_encoder and config.backend == "mobile_sam":
        raise UsageError("teacher.tune_encoder: MobileSAM's encoder has no attention of SAM's kind; leave it out")
    return Teacher(config, guide, loaded)


class Answer(NamedTuple):
    masks: Masks
    squares_K4: Tensor
    """What the second decoder looked at, in pixels of SAM's input: the final mask is of this."""


class Segment(NamedTuple):
    """An accepted mask."""

    window: tuple[slice, slice]
    """The box that was asked about."""
    cells_HW: Tensor
    """What the guide had seen."""
    sure_HW: Tensor


class Teacher(base.Teacher):
    frozen = ("guide.tower.visual.", "guide.prompts.", "spt.sam.")

    there: Tensor
    """Logit that presence must be above."""

    def __init__(self, config: Config, guide: clip_ada.Teacher, loaded: LoadedSam) -> None:
        super().__init__()
        self.settings = config
        self.guide = guide
        self.sources = (*guide.sources, loaded.source)
        self.spt = SelfPerception(loaded.model, temperature=config.temperature, tune_encoder=config.tune_encoder)
        self.side = int(loaded.model.image_encoder.img_size)
        self.mask_side = int(loaded.model.prompt_encoder.mask_input_size[0])
        self.keeps = config.cache and not config.tune_encoder and not config.random
        self.kept: TensorCache | None = None
        self.register_buffer("there", torch.zeros(()))

    @property
    def size(self) -> int:
        return self.guide.size

    @property
    def training_size(self) -> int:
        return max(self.guide.size, self.side)

    def adapted_state(self) -> dict[str, Tensor]:
        """The guide's own, and of SAM what was tuned: the rest of both decoders is as it was published."""
        tuned = {f"spt.{name}" for name, p in self.spt.named_parameters() if p.requires_grad} | {"there"}
        return {
            k: v
            for k, v in self.state_dict().items()
            if k in tuned or (k.startswith("guide.") and not k.startswith(self.frozen))
        }

    # ── studying ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        asked = round(samples / 2 / (1 - NEGATIVES))
        own = math.ceil(samples / batch) + epochs * math.ceil(asked / batch)
        return self.guide.count_steps(samples, epochs=epochs, batch=batch) + own

    def fit(
        self, lessons: Sequence[TeacherSample], *, epochs: int, batch: int, rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        for figures in self.guide.fit(lessons, epochs=epochs, batch=batch, rate=rate, seed=seed):
            yield {f"guide_{name}": value for name, value in figures.items()}
        tuned = [p for p in self.spt.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(tuned, lr=rate * self.settings.learning_rate_scale)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(SLOWER_AFTER * epochs))], gamma=0.1)
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        damaged: list[int] = []
        untouched: list[int] = []
        for number, lesson in enumerate(lessons):
            (untouched if lesson.mask is None else damaged).append(number)
            if self.keeps:
                self._embedding(self._scaled(lesson.image))
            if number % batch == 0:
                yield {}
        for _ in range(epochs):
            wanted = round(len(damaged) * NEGATIVES / (1 - NEGATIVES)) if untouched else 0
            order = rng.permutation([*damaged, *rng.choice(untouched or [0], wanted)])
            for start in range(0, len(order), batch):
                part = [lessons[int(i)] for i in order[start : start + batch]]
                terms = tuning_losses(*self._ask(part, rng), generator)
                loss = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
            schedule.step()
        self._gate([lessons[i] for i in untouched[:: max(1, len(untouched) // 200)]], rng)

    def _gate(self, sound: Sequence[TeacherSample], rng: np.random.Generator) -> None:
        """Presence must be surer than on all but a few false alarms: an even chance is no reason to draw a mask."""
        alarms = [
            self._answered(lesson.image, nowhere(self.side, self.mask_side, rng)).masks.presence_K for lesson in sound
        ]
        if alarms:
            with torch.no_grad():
                self.there.copy_(torch.cat(alarms).quantile(1 - FALSE_ALARMS).clamp_min(0))

    def validate(self, lessons: Sequence[TeacherSample]) -> dict[str, float]:
        """On drawn defects: how well draft and final mask agree with the truth, asked as the guide asks and with box and points
        alone, as SPT was published; on untouched parts: how often SAM sees any."""
        rng = np.random.default_rng(0)
        found: dict[str, list[float]] = {}
        for lesson in lessons:
            if lesson.mask is None:
                masks, _ = self._answered(lesson.image, nowhere(self.side, self.mask_side, rng))
                found.setdefault("false_masks", []).append(float(self._accepted(masks)[0]))
                continue
            damaged = self._scaled_mask(lesson.mask)
            place = spoilt(damaged, rng, self.mask_side)
            truth = _within(damaged, place)
            told = self._answered(lesson.image, place)
            found.setdefault("found_masks", []).append(float(self._accepted(told.masks)[0]))
            boxed = self._answered(lesson.image, place.bare(points=True, logits=False))
            for asked, answer in (("", told), ("boxed_", boxed)):
                for name, logits_11SS in (("draft", self._draft(answer)), ("final", self._final(answer))):
                    overlap, boundary = agreement((logits_11SS[0, 0] > 0).cpu().numpy(), truth)
                    found.setdefault(f"{asked}{name}_iou", []).append(overlap)
                    found.setdefault(f"{asked}{name}_boundary_iou", []).append(boundary)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _answered(self, image: ImageU8, place: Place) -> Answer:
        with torch.no_grad():
            return self._answer([image], [place])

    def _draft(self, answer: Answer) -> Tensor:
        """At the size of what SAM sees."""
        return F.interpolate(answer.masks.draft_K1hw, (self.side, self.side), mode="bilinear", align_corners=False)

    def _final(self, answer: Answer) -> Tensor:
        return closer.laid_out(answer.masks.final_K1hw, answer.squares_K4, self.side)

    def release_training_state(self) -> None:
        self.guide.release_training_state()

    def _ask(self, lessons: Sequence[TeacherSample], rng: np.random.Generator) -> tuple[Masks, Tensor, Tensor]:
        """One prompt a lesson, and what should have been answered: of the whole, and of what was looked at in the end."""
        # The guide always tells its map; box and points alone are for other prompters.
        points, logits = rng.random() < 0.7, rng.random() < 0.8
        places, truths = [], []
        for lesson in lessons:
            mask = None if lesson.mask is None else self._scaled_mask(lesson.mask)
            if mask is None:
                places.append(nowhere(self.side, self.mask_side, rng))
                truths.append(np.zeros((self.side, self.side), bool))
            else:
                place = spoilt(mask, rng, self.mask_side)
                places.append(place)
                truths.append(_within(mask, place))
        asked = [place.bare(points=points, logits=logits) for place in places]
        masks, squares_K4 = self._answer([lesson.image for lesson in lessons], asked)
        shown = [
            truth[top:bottom, left:right]
            for truth, (left, top, right, bottom) in zip(truths, squares_K4.tolist(), strict=True)
        ]
        return masks, self._targets(truths), self._targets(shown)

    def _targets(self, truths: Sequence[Mask]) -> Tensor:
        shrunk_Kmm = np.stack([_shrunk(truth, self.mask_side) for truth in truths])
        return torch.from_numpy(shrunk_Kmm)[:, None].to(self.spt.presence.weight.device)

    def _answer(self, images: Sequence[ImageU8], places: list[Place]) -> Answer:
        """Of one image for each place, or of one image for all."""
        prompt = as_prompt(places, self.spt.presence.weight.device)
        embeddings_KChw = torch.stack([self._embedding(self._scaled(image)) for image in images])
        if len(images) < len(places):
            embeddings_KChw = embeddings_KChw.expand(len(places), -1, -1, -1)
        if not self.settings.closer:
            whole_4 = torch.tensor([0, 0, self.side, self.side])
            return Answer(self.spt(embeddings_KChw, prompt), whole_4.expand(len(places), -1))
        draft_K1hw = self.spt.drafted(embeddings_KChw, prompt)
        asked = about(draft_K1hw, prompt, (self.side, self.side))
        assert asked.boxes_K4 is not None  # a place has a box
        squares_K4 = closer.squares(asked.boxes_K4, self.side)
        each = images if len(images) == len(places) else [images[0]] * len(places)
        cuts = [closer.cut(image, square_4, self.side) for image, square_4 in zip(each, squares_K4, strict=True)]
        again_KChw = self._encoded([self._scaled(cut) for cut in cuts])
        refined = self.spt.refined(again_KChw, closer.seen_in(asked, squares_K4, self.side))
        return Answer(Masks(draft_K1hw, *refined), squares_K4)

    def _encoded(self, images: Sequence[ImageU8]) -> Tensor:
        """Not kept: no prompt comes twice."""
        images_KHW3 = torch.from_numpy(np.stack(images)).to(self.spt.presence.weight.device)
        with torch.set_grad_enabled(self.settings.tune_encoder and torch.is_grad_enabled()):
            return embed(self.spt.sam, images_KHW3.permute(0, 3, 1, 2).float())

    def _embedding(self, image: ImageU8) -> Tensor:
        device = self.spt.presence.weight.device

        def make() -> Tensor:
            return embed(self.spt.sam, torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device))[0]

        if not self.keeps:
            return make()
        if self.kept is None:
            self.kept = TensorCache(cache_home() / "embeddings", self.sources[-1].sha256, f"{RESIZE}/{self.side}")
        with torch.no_grad():
            return self.kept.get(image, lambda: {"embedding": make()})["embedding"].float().to(device)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """The guide's: masks follow from decisions, which are no part of a graph."""
        output: ModelOutput = self.guide(images_B3HW)
        return output

    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        guided = self.guide.predict(images)
        heatmap_B1HW = guided.heatmap_B1HW.clone()
        for heatmap_HW, image, tokens_Chw in zip(heatmap_B1HW[:, 0], images, guided.tokens_BChw, strict=True):
            told_HW, asked_HW = torch.zeros_like(heatmap_HW), torch.zeros_like(heatmap_HW, dtype=torch.bool)
            for segment in self.segments(image, tokens_Chw):
                window, peak = segment.window, heatmap_HW[segment.cells_HW].max()
                # Where boxes overlap, what one mask holds is not for its neighbour to take away.
                told_HW[window] = torch.maximum(told_HW[window], peak * segment.sure_HW[window])
                asked_HW[window] = True
            heatmap_HW += self.settings.weight * torch.where(asked_HW, told_HW - heatmap_HW, 0)
        return TeacherOutput(heatmap_B1HW, (2 * heatmap_B1HW - 1).abs(), guided.tokens_BChw)

    def class_vectors(self) -> Tensor | None:
        return self.guide.class_vectors()

    def segments(self, image: ImageU8, tokens_Chw: Tensor) -> list[Segment]:
        """The masks that SAM draws where the guide sees something, and that stand up to every rule; none on a usual part."""
        with torch.no_grad():
            coarse = self.guide.heat(tokens_Chw[None])[0, 0].cpu().numpy()
            found = places_in(coarse, float(self.guide.suspicious), self.side, self.mask_side)
            if not found:
                return []
            answer = self._answer([image], [place for place, _ in found])
            size = (self.size, self.size)
            sure_K1HW = F.interpolate(self._final(answer), size, mode="bilinear", align_corners=False).sigmoid()
        segments = []
        for (place, cells), sure_HW, taken in zip(found, sure_K1HW[:, 0], self._accepted(answer.masks), strict=True):
            enlarged = cv2.resize(cells.astype(np.uint8), (self.size, self.size), interpolation=cv2.INTER_NEAREST) > 0
            cells_HW, said_HW = torch.from_numpy(enlarged).to(sure_HW.device), sure_HW > 0.5
            if taken and (said_HW & cells_HW).any() and said_HW.float().mean() < LARGEST:
                left, top, right, bottom = (round(edge * self.size / self.side) for edge in place.box)
                window = slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
                segments.append(Segment(window, cells_HW, sure_HW))
        return segments

    def _accepted(self, masks: Masks) -> list[bool]:
        """There is something, SAM trusts its own mask, and the mask is not empty."""
        there = (
            (masks.presence_K > self.there)
            & (masks.iou_K >= self.settings.accept)
            & (masks.final_K1hw.flatten(1).amax(dim=1) > 0)
        )
        return [bool(each) for each in there]

    def _scaled(self, image: ImageU8) -> ImageU8:
        return resize(image, self.side, self.side)

    def _scaled_mask(self, mask: Mask) -> Mask:
        """Whatever is damaged stays so, however thin."""
        if min(mask.shape) >= self.side:
            shrunk: Mask = _shrunk(mask, self.side) > 0
            return shrunk
        enlarged: Mask = cv2.resize(mask.astype(np.uint8), (self.side, self.side), interpolation=cv2.INTER_NEAREST) > 0
        return enlarged


def _shrunk(mask: Mask, side: int) -> Any:
    """The largest of each cell."""
    return F.adaptive_max_pool2d(torch.from_numpy(mask.astype(np.float32))[None, None], side)[0, 0].numpy()


def _within(mask: Mask, place: Place) -> Mask:
    """What the box touches: of several defects those that were asked about."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    left, top, right, bottom = (round(edge) for edge in place.box)
    touched = set(np.unique(labels[top : bottom + 1, left : right + 1])) - {0}
    return np.isin(labels, list(touched)) if touched and count > 2 else mask
