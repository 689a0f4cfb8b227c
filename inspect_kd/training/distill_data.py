"""The distillation's samples: training parts with synthetic defects, unlabelled images from the line, a few labelled parts.

The samples are numbered and always the same, so that a teacher predicts each of them once.

Shapes: B batch, H W image, m m grid of the student's heads.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.config import Teach
from inspect_kd.datasets.batches import ImageStore, as_input, to_tensor
from inspect_kd.datasets.presentation import Prepared
from inspect_kd.datasets.read_sample import read_sample
from inspect_kd.distill.stages import BatchLabels
from inspect_kd.resize import resize
from inspect_kd.training.job import Job
from inspect_kd.training.real_parts import RealParts
from inspect_kd.training.teacher_data import TeacherDataset
from inspect_kd.types import ImageU8, Mask, Sample, Split

GENERATED_SEED = 0
"""Seed of the generated samples. It is not the student's, so that students of all seeds share the teachers' cached outputs."""
REAL_SHARE = 0.25
"""Share of a batch for labelled parts, if there are any; the same share for unlabelled ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSample:
    """One part with its label."""

    image: ImageU8
    sound: ImageU8
    """The image without its synthetic defect; the image itself if it has none."""
    mask: Mask | None = None
    """None: the mask is unknown, or the part is sound."""
    defective: bool | None = None
    """None: unlabelled."""

    @property
    def nbytes(self) -> int:
        sound = 0 if self.sound is self.image else self.sound.nbytes
        return self.image.nbytes + sound + (0 if self.mask is None else self.mask.nbytes)


class SampleLabel(NamedTuple):
    """The label of one sample, without its image; labels are small, so those of all samples are cached."""

    mask_1mm: Tensor
    """Empty where the mask is unknown."""
    is_mask_known: bool
    """True also for sound parts, whose mask is empty."""
    defective: bool | None
    """None: unlabelled."""


class SampleCache:
    """Keeps the small labels of all samples, and as many samples as fit. Datasets of the same size and grid may share it."""

    def __init__(self, max_bytes: int) -> None:
        self.free_bytes = max_bytes
        self.samples: dict[Hashable, DistillSample] = {}
        self.labels: dict[Hashable, SampleLabel] = {}

    def add(self, key: Hashable, sample: DistillSample, label: SampleLabel) -> None:
        self.labels[key] = label
        if sample.nbytes <= self.free_bytes:
            self.samples[key] = sample
            self.free_bytes -= sample.nbytes


class DistillDataset:
    """All samples by number: first those generated from training parts, then the unlabelled, then the labelled, also mirrored."""

    def __init__(self, job: Job, *, side: int, grid: int, real: RealParts, cache: SampleCache | None = None) -> None:
        """`side`: side of the images, as the largest teacher takes them. `grid`: side of the heads' output."""
        settings = job.recipe.data
        # Only teachers may need larger images than the student, and a student that is trained on tiles has none.
        self.presentations = job.presentations if job.presentations.has_tiles else job.presentations.resized(side)
        sound = job.data.select(Split.TRAIN)
        store = ImageStore(sound, self.presentations, bits=settings.bits, budget_mb=settings.cache_mb // 2)
        teach = Teach(variants=job.recipe.distill.variants)
        self.generated_samples = TeacherDataset(store, teach, settings.flip, GENERATED_SEED)
        order = np.random.default_rng(GENERATED_SEED).permutation(len(self.generated_samples))
        self.generated_numbers = sorted(int(number) for number in order[: job.recipe.distill.max_samples])
        self.unlabelled, self.labelled = real.unlabelled, real.labelled
        self.flips = [False] if settings.flip == "none" else [False, True]
        self.student_side, self.sample_side = settings.size, self.presentations.size
        self.bits, self.grid = settings.bits, grid
        self.cache = cache or SampleCache(settings.cache_mb * 2**20)

    def __len__(self) -> int:
        return len(self.generated_numbers) + len(self.unlabelled) + len(self.flips) * len(self.labelled)

    def __getitem__(self, number: int) -> DistillSample:
        key = self._key(number)
        if key in self.cache.samples:
            return self.cache.samples[key]
        sample = self._make(number)
        is_mask_known = sample.mask is not None or sample.defective is False
        self.cache.add(key, sample, SampleLabel(pool_mask(sample.mask, self.grid), is_mask_known, sample.defective))
        return sample

    def label(self, number: int) -> SampleLabel:
        """The label alone. All are cached: generating a sample again for its mask would cost as much as a step."""
        key = self._key(number)
        if key not in self.cache.labels:
            self[number]
        return self.cache.labels[key]

    def sample_numbers(self, batch: int, rng: np.random.Generator, *, with_teachers: bool) -> list[int]:
        """Random sample numbers for one step, unlabelled parts only if teachers take part."""
        labelled_count = round(REAL_SHARE * batch) if self.labelled else 0
        unlabelled_count = round(REAL_SHARE * batch) if self.unlabelled and with_teachers else 0
        generated = rng.integers(len(self.generated_numbers), size=batch - labelled_count - unlabelled_count)
        first = len(self.generated_numbers)
        unlabelled = first + rng.integers(max(1, len(self.unlabelled)), size=unlabelled_count)
        first += len(self.unlabelled)
        labelled = first + rng.integers(max(1, len(self.flips) * len(self.labelled)), size=labelled_count)
        return [int(number) for number in (*generated, *unlabelled, *labelled)]

    def labels(self, numbers: Sequence[int], device: torch.device) -> BatchLabels:
        labels = [self.label(number) for number in numbers]
        return BatchLabels(
            mask_B1mm=torch.stack([label.mask_1mm for label in labels]).float().to(device),
            has_mask_B=torch.tensor([label.is_mask_known for label in labels], device=device),
            defective_B=torch.tensor([bool(label.defective) for label in labels], device=device),
            has_label_B=torch.tensor([label.defective is not None for label in labels], device=device),
            has_sound_twin_B=torch.tensor([number < len(self.generated_numbers) for number in numbers], device=device),
        )

    def student_input(self, images: Sequence[ImageU8], device: torch.device) -> Tensor:
        """Convert images to the student's size and format: float (B, 3, H, W)."""
        scaled = [resize(image, self.student_side, self.student_side) for image in images]
        return as_input(torch.stack([to_tensor(image) for image in scaled])).to(device)

    def _key(self, number: int) -> Hashable:
        if number < len(self.generated_numbers):
            return self.generated_numbers[number]
        number -= len(self.generated_numbers)
        if number < len(self.unlabelled):
            return self.unlabelled[number].image
        sample, flipped = self._labelled(number - len(self.unlabelled))
        return sample.image, flipped

    def _make(self, number: int) -> DistillSample:
        if number < len(self.generated_numbers):
            generated = self.generated_samples[self.generated_numbers[number]]
            sound = generated.image if generated.sound is None else generated.sound
            return DistillSample(
                image=generated.image, sound=sound, mask=generated.mask, defective=generated.mask is not None
            )
        number -= len(self.generated_numbers)
        if number < len(self.unlabelled):
            image = self._prepare(self.unlabelled[number]).scaled()
            return DistillSample(image=image, sound=image)
        sample, flipped = self._labelled(number - len(self.unlabelled))
        prepared = self._prepare(sample)
        image = prepared.scaled()
        mask = (
            None if sample.mask is None else prepared.read_mask(sample.mask, size=(self.sample_side, self.sample_side))
        )
        if flipped:
            image = np.ascontiguousarray(image[:, ::-1])
            mask = None if mask is None else np.ascontiguousarray(mask[:, ::-1])
        # A part whose defect lies wholly in ignored places counts as sound.
        defective = sample.defective and not (prepared.zones is not None and mask is not None and not mask.any())
        return DistillSample(
            image=image, sound=image, mask=mask if defective == sample.defective else None, defective=defective
        )

    def _labelled(self, number: int) -> tuple[Sample, bool]:
        """A labelled part, and whether to mirror it."""
        return self.labelled[number // len(self.flips)], self.flips[number % len(self.flips)]

    def _prepare(self, sample: Sample) -> Prepared:
        return self.presentations.prepare(read_sample(sample, self.presentations, self.bits), sample.category)


def pool_mask(mask: Mask | None, grid: int) -> Tensor:
    """Cells of which at least half is defective; if there are none, all cells that the defect touches: (1, m, m)."""
    if mask is None:
        return torch.zeros(1, grid, grid, dtype=torch.bool)
    mask_1HW = torch.from_numpy(mask.astype(np.float32))[None]
    defective = F.adaptive_avg_pool2d(mask_1HW, grid) >= 0.5
    return defective if defective.any() else F.adaptive_max_pool2d(mask_1HW, grid) > 0
