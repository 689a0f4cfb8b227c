"""What a student is shown after the fit: drawn defects, images of the line that nobody has looked at, and the few with labels.

The parts are numbered and fixed, so that a teacher looks at each of them once.

Shapes: B batch, H W image, m m grid of heat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.config import Recipe, Teach
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore, to_tensor
from inspect_kd.datasets.batches import as_input as channels_last
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.view import View
from inspect_kd.distill.stages import Batch
from inspect_kd.distill.teacher_cache import CachedTeacher
from inspect_kd.resize import resize
from inspect_kd.train.real_parts import RealParts
from inspect_kd.train.run import view_of
from inspect_kd.train.teacher_data import TeacherDataset
from inspect_kd.types import ImageU8, Mask, Sample, Split

DRAWN_WITH = 0
"""The same drawn parts whatever the student's seed: what teachers said of them is found again."""
REAL_SHARE = 0.25
"""Of a batch that labelled parts take, and that unlabelled ones do, where there are any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSample:
    """One part, and what is known of it."""

    image: ImageU8
    sound: ImageU8 | None = None
    """Its sound twin; the image itself where nobody touched a sound part."""
    mask: Mask | None = None
    """None: nobody has outlined anything, or there is nothing to outline."""
    defective: bool | None = None
    """None: nobody knows."""

    @property
    def outlined(self) -> bool:
        return self.mask is not None or self.defective is False


class SampleLabel(NamedTuple):
    """What is known of a part without its picture."""

    mask_1mm: Tensor
    outlined: bool
    defective: bool | None


class DistillDataset:
    """All of them, drawn ones first."""

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        *,
        side: int,
        grid: int,
        real: RealParts,
    ) -> None:
        view = view_of(recipe) if recipe.data.tile else View(size=side)
        store = ImageStore(data.select(Split.TRAIN), view, bits=recipe.data.bits, budget_mb=recipe.data.cache_mb // 2)
        teach = Teach(variants=recipe.distill.variants)
        self.lessons = TeacherDataset(store, teach, recipe.data.flip, DRAWN_WITH)
        order = np.random.default_rng(DRAWN_WITH).permutation(len(self.lessons))
        self.drawn = sorted(int(number) for number in order[: recipe.distill.max_samples])
        self.unlabelled, self.labelled = real.unlabelled, real.labelled
        self.flips = [False] if recipe.data.flip == "none" else [False, True]
        self.size, self.side, self.bits = recipe.data.size, view.size, recipe.data.bits
        self.room = recipe.data.cache_mb * 2**20
        self.kept: dict[int, DistillSample] = {}
        self.grid = grid
        self.facts: dict[int, SampleLabel] = {}

    def __len__(self) -> int:
        return len(self.drawn) + len(self.unlabelled) + len(self.flips) * len(self.labelled)

    def __getitem__(self, number: int) -> DistillSample:
        if number in self.kept:
            return self.kept[number]
        shown = self._make(number)
        taken = sum(each.nbytes for each in (shown.image, shown.sound, shown.mask) if each is not None)
        if taken <= self.room:
            self.kept[number] = shown
            self.room -= taken
        self.facts[number] = SampleLabel(cells(shown.mask, self.grid), shown.outlined, shown.defective)
        return shown

    def known(self, number: int) -> SampleLabel:
        """Small, and kept for all: a part that is drawn anew for its mask alone would cost a step."""
        if number not in self.facts:
            self[number]
        return self.facts[number]

    def draw(self, batch: int, rng: np.random.Generator, *, taught: bool) -> list[int]:
        """Numbers for one step. Unlabelled parts say something only where teachers are asked."""
        real = round(REAL_SHARE * batch) if self.labelled else 0
        unknown = round(REAL_SHARE * batch) if self.unlabelled and taught else 0
        numbers = rng.integers(len(self.drawn), size=batch - real - unknown)
        first = len(self.drawn)
        others = first + rng.integers(max(1, len(self.unlabelled)), size=unknown)
        first += len(self.unlabelled)
        labelled = first + rng.integers(max(1, len(self.flips) * len(self.labelled)), size=real)
        return [int(number) for number in (*numbers, *others, *labelled)]

    def batch(self, numbers: Sequence[int], teachers: Mapping[str, CachedTeacher], device: torch.device) -> Batch:
        """What is known of them, without what the student sees."""
        shown = [self.known(number) for number in numbers]
        images = [self[number].image for number in numbers] if teachers else []
        return Batch(
            mask_B1mm=torch.stack([each.mask_1mm for each in shown]).float().to(device),
            outlined_B=torch.tensor([each.outlined for each in shown], device=device),
            defective_B=torch.tensor([bool(each.defective) for each in shown], device=device),
            judged_B=torch.tensor([each.defective is not None for each in shown], device=device),
            drawn_B=torch.tensor([number < len(self.drawn) for number in numbers], device=device),
            told={name: teacher.predict(images, device) for name, teacher in teachers.items()},
        )

    def seen(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """As the student sees them."""
        return self.as_input([self[number].image for number in numbers], device)

    def sound(self, numbers: Sequence[int]) -> list[ImageU8]:
        """Before they were damaged, where that is known."""
        shown = [self[number] for number in numbers]
        return [each.image if each.sound is None else each.sound for each in shown]

    def _make(self, number: int) -> DistillSample:
        if number < len(self.drawn):
            lesson = self.lessons[self.drawn[number]]
            sound = lesson.image if lesson.sound is None else lesson.sound
            return DistillSample(image=lesson.image, sound=sound, mask=lesson.mask, defective=lesson.mask is not None)
        number -= len(self.drawn)
        if number < len(self.unlabelled):
            return DistillSample(image=self._read(self.unlabelled[number]))
        number -= len(self.unlabelled)
        sample, flipped = self.labelled[number // len(self.flips)], self.flips[number % len(self.flips)]
        image, mask = self._read(sample), None
        if sample.mask is not None:
            mask = read_mask(sample.mask, size=(self.side, self.side))
        if flipped:
            image = np.ascontiguousarray(image[:, ::-1])
            mask = None if mask is None else np.ascontiguousarray(mask[:, ::-1])
        return DistillSample(image=image, mask=mask, defective=sample.defective)

    def _read(self, sample: Sample) -> ImageU8:
        return resize(read_image(sample.image, bits=self.bits), self.side, self.side)

    def as_input(self, images: Sequence[ImageU8], device: torch.device) -> Tensor:
        scaled = [resize(image, self.size, self.size) for image in images]
        return channels_last(torch.stack([to_tensor(image) for image in scaled])).to(device)


def cells(mask: Mask | None, grid: int) -> Tensor:
    """Damaged where half of a cell is; but no defect vanishes, however thin it is: (1, m, m)."""
    if mask is None:
        return torch.zeros(1, grid, grid, dtype=torch.bool)
    whole = torch.from_numpy(mask.astype(np.float32))[None]
    damaged = F.adaptive_avg_pool2d(whole, grid) >= 0.5
    return damaged if damaged.any() else F.adaptive_max_pool2d(whole, grid) > 0
