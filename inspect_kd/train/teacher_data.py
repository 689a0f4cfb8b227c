"""What a teacher studies: every sound part several times, half of them damaged by drawn defects whose masks are exact.

Unusual here: a lesson follows from its number and the seed alone, so it can be drawn again whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from inspect_kd.config import Teach
from inspect_kd.datasets.batches import Flip, ImageStore, random_flip
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.models.base import TeacherSample
from inspect_kd.resize import resize
from inspect_kd.types import Sample

FEW = 2**33
"""Sets the choice of few parts apart from other randomness of the same seed."""


class TeacherDataset(Sequence[TeacherSample]):
    """Categories in equal shares: a teacher of all parts must not be one of the largest category."""

    def __init__(
        self, store: ImageStore, teach: Teach, flip: Flip, seed: int, real: Sequence[TeacherSample] = ()
    ) -> None:
        self.real = real
        self.store, self.flip, self.seed, self.variants = store, flip, seed, teach.variants
        members = [np.array(each) for each in by_category(few(store.samples, teach.parts, seed), store.samples)]
        self.members = [[int(i) for i in each] for each in members]
        most = max(map(len, self.members))
        self.order = [int(i) for i in np.concatenate([np.resize(each, most) for each in members])]
        self.donors = {i: each for each in self.members for i in each}

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
        image = np.ascontiguousarray(random_flip(self.store.frame(index, rng), self.flip, rng))
        if variant % 2 == 0:
            return TeacherSample(image=image, mask=None, part=index)
        donor = self.store.frame(int(rng.choice(self.donors[index])), rng)
        defect = add_defect(image, rng, donor=donor)
        return TeacherSample(image=defect.image, mask=defect.mask, sound=image, part=index)

    def __iter__(self) -> Iterator[TeacherSample]:
        return (self[i] for i in range(len(self)))


def real_samples(samples: Sequence[Sample], size: int, bits: int | None) -> list[TeacherSample]:
    """Defects that somebody has outlined."""
    outlined = [(sample.image, sample.mask) for sample in samples if sample.mask is not None]
    return [
        TeacherSample(image=resize(read_image(image, bits=bits), size, size), mask=read_mask(mask, size=(size, size)))
        for image, mask in outlined
    ]


def few(samples: Sequence[Sample], parts: int | None, seed: int) -> list[int]:
    """Indices of so many sound parts of each category, drawn once; of all of them without a limit."""
    rng = np.random.default_rng([seed, FEW])
    kept: list[int] = []
    for members in by_category(list(range(len(samples))), samples):
        kept += sorted(int(i) for i in rng.permutation(members)[:parts])
    return kept


def by_category(indices: Sequence[int], samples: Sequence[Sample]) -> list[list[int]]:
    categories = sorted({samples[i].category for i in indices})
    return [[i for i in indices if samples[i].category == category] for category in categories]
