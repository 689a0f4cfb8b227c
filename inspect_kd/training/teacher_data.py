"""A teacher's dataset: every sound part several times, half of them with synthetic defects, whose masks are exact.

Unusual here: a sample depends on its number and the seed alone, so it is generated anew at each access.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from inspect_kd.config import Teach
from inspect_kd.datasets.batches import Flip, ImageStore, random_flip
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.read_sample import read_sample
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.models.base import TeacherSample
from inspect_kd.types import Sample

CHOICE_STREAM = 2**33
"""Separates the random choice of parts from other randomness of the same seed."""


class TeacherDataset(Sequence[TeacherSample]):
    """Generated samples, equally many of each category, then real defects with masks."""

    def __init__(
        self, store: ImageStore, teach: Teach, flip: Flip, seed: int, real: Sequence[TeacherSample] = ()
    ) -> None:
        self.real = real
        self.store, self.flip, self.seed, self.variants = store, flip, seed, teach.variants
        categories = group_by_category(choose_parts(store.samples, teach.parts, seed), store.samples)
        largest = max(map(len, categories))
        self.order = [
            int(i) for i in np.concatenate([np.resize(np.array(category), largest) for category in categories])
        ]
        """Part indices; each one serves `variants` consecutive samples. Smaller categories repeat their parts until they have as many
        as the largest."""
        self.donors = {index: category for category in categories for index in category}
        """By part, the parts of its category, from which a defect may take texture."""

    def __len__(self) -> int:
        return (len(self.order) + len(self.real)) * self.variants

    @overload
    def __getitem__(self, number: int) -> TeacherSample: ...
    @overload
    def __getitem__(self, number: slice) -> list[TeacherSample]: ...
    def __getitem__(self, number: int | slice) -> TeacherSample | list[TeacherSample]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        if not 0 <= number < len(self):
            raise IndexError(number)
        if number >= len(self.order) * self.variants:
            return self.real[number % len(self.real)]
        index, variant = self.order[number // self.variants], number % self.variants
        rng = np.random.default_rng([self.seed, number])
        frame = random_flip(self.store.sound_frame(index, rng), self.flip, rng)
        image = np.ascontiguousarray(frame.image)
        if variant % 2 == 0:
            return TeacherSample(image=image, mask=None, part=index)
        donor = self.store.frame(int(rng.choice(self.donors[index])), rng)
        defect = add_defect(image, rng, donor=donor, inspected=frame.inspected)
        return TeacherSample(image=defect.image, mask=defect.mask, sound=image, part=index)

    def __iter__(self) -> Iterator[TeacherSample]:
        return (self[i] for i in range(len(self)))


def real_samples(samples: Sequence[Sample], presentations: Presentations, *, bits: int | None) -> list[TeacherSample]:
    """Samples of real defects with masks."""
    size = (presentations.size, presentations.size)
    outlined = []
    for sample in samples:
        if sample.mask is not None:
            prepared = presentations.prepare(read_sample(sample, presentations, bits), sample.category)
            mask = prepared.read_mask(sample.mask, size=size)
            if mask.any() or prepared.zones is None:
                outlined.append(TeacherSample(image=prepared.scaled(), mask=mask))
    return outlined


def choose_parts(samples: Sequence[Sample], parts: int | None, seed: int) -> list[int]:
    """Indices of `parts` random samples of each category; of all samples where `parts` is None."""
    rng = np.random.default_rng([seed, CHOICE_STREAM])
    chosen: list[int] = []
    for category in group_by_category(list(range(len(samples))), samples):
        chosen += sorted(int(i) for i in rng.permutation(category)[:parts])
    return chosen


def group_by_category(indices: Sequence[int], samples: Sequence[Sample]) -> list[list[int]]:
    """Indices, one list per category."""
    categories = sorted({samples[i].category for i in indices})
    return [[i for i in indices if samples[i].category == category] for category in categories]
