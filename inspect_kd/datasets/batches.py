"""Training batches whose content depends on the seed and the step alone.

Unusual here: no random state is carried along. Step 317 draws the same images, mirrored and damaged in the same way, in a
fresh process, after a kill, and whatever the number of workers; so a resumed training needs no random state restored.

Shapes: B batch, H W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from inspect_kd.datasets.images import read_image, resize
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.types import ImageU8, Sample

Flip = Literal["none", "horizontal", "both"]


@dataclass(frozen=True, slots=True)
class Draw:
    """Which image, how it is damaged: everything random about one member of a batch."""

    index: int
    donor: int
    damaged: bool
    seed: tuple[int, ...]


class Pair(NamedTuple):
    """What the student sees and what it should have been; the same image where nothing was damaged."""

    seen_B3HW: Tensor
    clean_B3HW: Tensor


class ImageStore:
    """Images at the student's size, read once and kept while there is room."""

    def __init__(self, samples: Sequence[Sample], size: int, *, bits: int | None = None, budget_mb: int = 0) -> None:
        self.samples = samples
        self.size = size
        self.bits = bits
        self.room = budget_mb * 2**20 // (3 * size * size)
        self.kept: dict[int, ImageU8] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageU8:
        if index in self.kept:
            return self.kept[index]
        image = resize(read_image(self.samples[index].image, bits=self.bits), self.size, self.size)
        if len(self.kept) < self.room:
            self.kept[index] = image
        return image


class TrainingImages(Dataset[tuple[Tensor, Tensor]]):
    """Turns a draw into a pair of uint8 images (3, H, W)."""

    def __init__(self, store: ImageStore, flip: Flip) -> None:
        self.store = store
        self.flip = flip

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(draw.seed)
        clean = self._mirror(self.store[draw.index], rng)
        seen = add_defect(clean, rng, donor=self.store[draw.donor]).image if draw.damaged else clean
        return to_tensor(seen), to_tensor(clean)

    def _mirror(self, image: ImageU8, rng: np.random.Generator) -> ImageU8:
        left_right, up_down = rng.random(2) < 0.5
        if self.flip != "none" and left_right:
            image = image[:, ::-1]
        return image[::-1] if self.flip == "both" and up_down else image


class StepSampler(Sampler[list[Draw]]):
    """One list of draws a step: categories in equal shares, whatever their sizes; each process takes its part."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        steps: range,
        batch: int,
        damaged: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        categories = sorted({sample.category for sample in samples})
        self.members = [[i for i, s in enumerate(samples) if s.category == category] for category in categories]
        self.steps, self.batch, self.damaged, self.seed = steps, batch, round(damaged * batch), seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in self.steps:
            rng = np.random.default_rng([self.seed, step])
            # A shuffled round of categories: with a batch of eight and three of them each comes twice or three times.
            order = np.concatenate(
                [rng.permutation(len(self.members)) for _ in range(-(-self.batch // len(self.members)))]
            )
            draws = [
                Draw(
                    int(rng.choice(self.members[c])),
                    int(rng.choice(self.members[c])),
                    place < self.damaged,
                    (self.seed, step, place),
                )
                for place, c in enumerate(order[: self.batch])
            ]
            yield draws[self.rank :: self.world]


def to_tensor(image: ImageU8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def batches(images: TrainingImages, sampler: StepSampler, *, workers: int) -> Iterator[Pair]:
    """Float images 0..255, channels last in memory: on a CPU that halves the time of a step."""
    loader = DataLoader(images, batch_sampler=sampler, num_workers=workers, collate_fn=_stack)
    for seen, clean in loader:
        yield Pair(as_input(seen), as_input(clean))


def as_input(images_B3HW: Tensor) -> Tensor:
    return images_B3HW.float().contiguous(memory_format=torch.channels_last)


def _stack(members: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    seen, clean = zip(*members, strict=True)
    return torch.stack(seen), torch.stack(clean)
