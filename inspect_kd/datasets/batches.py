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

from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.view import View
from inspect_kd.types import ImageU8, Sample

Flip = Literal["none", "horizontal", "both"]
SWEEP = 2**32
"""Sets a sweep's randomness apart from that of any step."""


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
    """Images as the student's view scales them, read once and kept while there is room."""

    def __init__(self, samples: Sequence[Sample], view: View, *, bits: int | None = None, budget_mb: int = 0) -> None:
        self.samples = samples
        self.view = view
        self.bits = bits
        self.room = budget_mb * 2**20
        self.kept: dict[int, ImageU8] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageU8:
        if index in self.kept:
            return self.kept[index]
        path = self.samples[index].image
        image = read_image(path, bits=self.bits)
        self.view.check_size(image, str(path))
        image = self.view.scaled(image)
        if image.nbytes <= self.room:
            self.kept[index] = image
            self.room -= image.nbytes
        return image

    def frame(self, index: int, rng: np.random.Generator) -> ImageU8:
        """What a student sees at once: the whole image, or a tile from anywhere in it."""
        image, size = self[index], self.view.size
        height, width = image.shape[:2]
        if (height, width) == (size, size):
            return image
        top, left = (int(rng.integers(length - size + 1)) for length in (height, width))
        return image[top : top + size, left : left + size]


class TrainingImages(Dataset[tuple[Tensor, Tensor]]):
    """Turns a draw into a pair of uint8 images (3, H, W)."""

    def __init__(self, store: ImageStore, flip: Flip) -> None:
        self.store = store
        self.flip = flip

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(draw.seed)
        clean = mirrored(self.store.frame(draw.index, rng), self.flip, rng)
        seen = add_defect(clean, rng, donor=self.store.frame(draw.donor, rng)).image if draw.damaged else clean
        return to_tensor(seen), to_tensor(clean)


def mirrored(image: ImageU8, flip: Flip, rng: np.random.Generator) -> ImageU8:
    left_right, up_down = rng.random(2) < 0.5
    if flip != "none" and left_right:
        image = image[:, ::-1]
    return image[::-1] if flip == "both" and up_down else image


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


class Sweep(Sampler[list[Draw]]):
    """Every image at least once where `most` allows it, categories in equal shares: what a student learns without steps.

    `again`: go on until there are `most`, for images of which a frame shows a part only.
    """

    def __init__(self, samples: Sequence[Sample], *, most: int, again: bool, batch: int, seed: int) -> None:
        categories = sorted({sample.category for sample in samples})
        members = [[i for i, s in enumerate(samples) if s.category == category] for category in categories]
        share = max(1, most // len(members))
        if not again:
            share = min(share, max(map(len, members)))
        rng = np.random.default_rng([seed, SWEEP])
        chosen = np.concatenate([np.resize(rng.permutation(each), share) for each in members])
        self.order = [int(i) for i in rng.permutation(chosen)]
        self.batch, self.seed = batch, seed

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self.order), self.batch):
            part = enumerate(self.order[start : start + self.batch], start)
            yield [Draw(index, index, False, (self.seed, SWEEP, place)) for place, index in part]


def to_tensor(image: ImageU8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def batches(images: TrainingImages, sampler: StepSampler | Sweep, *, workers: int) -> Iterator[Pair]:
    """Float images 0..255, channels last in memory: on a CPU that halves the time of a step."""
    loader = DataLoader(images, batch_sampler=sampler, num_workers=workers, collate_fn=_stack)
    for seen, clean in loader:
        yield Pair(as_input(seen), as_input(clean))


def as_input(images_B3HW: Tensor) -> Tensor:
    return images_B3HW.float().contiguous(memory_format=torch.channels_last)


def _stack(members: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    seen, clean = zip(*members, strict=True)
    return torch.stack(seen), torch.stack(clean)
