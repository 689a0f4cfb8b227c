"""Training batches whose content depends only on the seed and the step.

Unusual here: no random state is carried between steps. Step 317 has the same images, flips and synthetic defects in a new
process and with any number of workers, so a resumed training needs no saved random state.

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

from inspect_kd.datasets.cached_images import CachedImages
from inspect_kd.datasets.presentation import Prepared, Presentations
from inspect_kd.datasets.read_sample import read_sample
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.zones import Weights
from inspect_kd.types import ImageU8, Mask, Sample

Flip = Literal["none", "horizontal", "both"]
SWEEP = 2**32
"""Used in a sweep's seed instead of a step, and larger than any step."""


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One place in a batch: the image, whether it gets a synthetic defect, and its random seed."""

    index: int
    donor: int
    """Index of the image whose patches a synthetic defect may paste."""
    is_synthetic: bool
    seed: tuple[int, ...]


class ImagePair(NamedTuple):
    """Images with synthetic defects and their sound originals; equal where no defect was added."""

    inputs_B3HW: Tensor
    clean_B3HW: Tensor
    weights_B1HW: Tensor | None = None
    """The zones' weights; None where no category has zones."""


class SoundFrame(NamedTuple):
    """A frame of a sound image, with its zones' weights."""

    image: ImageU8
    weights_HW: Weights | None = None
    """None without zones."""

    @property
    def inspected(self) -> Mask | None:
        """The pixels that are inspected; None without zones."""
        return None if self.weights_HW is None else np.asarray(self.weights_HW > 0)


class ImageStore(CachedImages):
    """Reads, aligns and resizes images as the presentations of their categories say, and caches them in memory up to `budget_mb`."""

    def __init__(
        self, samples: Sequence[Sample], presentations: Presentations, *, bits: int | None = None, budget_mb: int = 0
    ) -> None:
        super().__init__(samples, budget_mb * 2**20)
        self.presentations = presentations
        self.bits = bits
        self.weights: dict[int, Weights | None] = {}
        """Zones' weights at the frames' scale of each image read so far; images of a category share them."""

    def load(self, index: int) -> ImageU8:
        prepared = self.prepare(index)
        self.weights[index] = prepared.scaled_weights()
        return prepared.scaled()

    def prepare(self, index: int) -> Prepared:
        """Read and align an image."""
        sample = self.samples[index]
        return self.presentations.prepare(read_sample(sample, self.presentations, self.bits), sample.category)

    def frame(self, index: int, rng: np.random.Generator) -> ImageU8:
        """Return the whole image, or, for a tiled view, a random tile of it."""
        return self.sound_frame(index, rng).image

    def sound_frame(self, index: int, rng: np.random.Generator) -> SoundFrame:
        """Return the whole image, or, for a tiled view, a random tile of it, with its zones' weights."""
        image, size = self[index], self.presentations.size
        height, width = image.shape[:2]
        weights_HW = self.weights[index]
        if weights_HW is None and self.presentations.has_zones:
            weights_HW = np.ones((height, width), np.float32)  # another category has zones, or no part was found here
        if (height, width) == (size, size):
            return SoundFrame(image, weights_HW)
        top, left = (int(rng.integers(length - size + 1)) for length in (height, width))
        place = slice(top, top + size), slice(left, left + size)
        return SoundFrame(image[place], None if weights_HW is None else weights_HW[place])


class TrainingImages(Dataset[tuple[Tensor, ...]]):
    """Turns a batch item into two uint8 images (3, H, W), input and sound original, and, where there are zones, weights (1, H, W)."""

    def __init__(self, store: ImageStore, flip: Flip) -> None:
        self.store = store
        self.flip = flip

    def __getitem__(self, item: BatchItem) -> tuple[Tensor, ...]:
        rng = np.random.default_rng(item.seed)
        frame = random_flip(self.store.sound_frame(item.index, rng), self.flip, rng)
        inputs = clean = frame.image
        if item.is_synthetic:
            donor = self.store.frame(item.donor, rng)
            inputs = add_defect(clean, rng, donor=donor, inspected=frame.inspected).image
        if frame.weights_HW is None:
            return to_tensor(inputs), to_tensor(clean)
        return to_tensor(inputs), to_tensor(clean), torch.from_numpy(np.ascontiguousarray(frame.weights_HW[None]))


def random_flip(frame: SoundFrame, flip: Flip, rng: np.random.Generator) -> SoundFrame:
    """Mirror a frame along each allowed axis with probability one half."""
    left_right, up_down = rng.random(2) < 0.5
    rows = slice(None, None, -1 if flip == "both" and up_down else 1)
    columns = slice(None, None, -1 if flip != "none" and left_right else 1)
    weights_HW = frame.weights_HW
    return SoundFrame(frame.image[rows, columns], None if weights_HW is None else weights_HW[rows, columns])


class StepSampler(Sampler[list[BatchItem]]):
    """Yields the batch items of each step, with equal shares of all categories; each of `world` processes gets its share."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        steps: range,
        batch: int,
        synthetic: float,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        categories = sorted({sample.category for sample in samples})
        self.members = [[i for i, s in enumerate(samples) if s.category == category] for category in categories]
        self.steps, self.batch, self.seed = steps, batch, seed
        self.synthetic_per_batch = round(synthetic * batch)
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[BatchItem]]:
        for step in self.steps:
            rng = np.random.default_rng([self.seed, step])
            # The places of a batch go to all categories in turn, each turn shuffled: of three, each gets two or three of eight places.
            order = np.concatenate(
                [rng.permutation(len(self.members)) for _ in range(-(-self.batch // len(self.members)))]
            )
            items = [
                BatchItem(
                    int(rng.choice(self.members[c])),
                    int(rng.choice(self.members[c])),
                    place < self.synthetic_per_batch,
                    (self.seed, step, place),
                )
                for place, c in enumerate(order[: self.batch])
            ]
            yield items[self.rank :: self.world]


class Sweep(Sampler[list[BatchItem]]):
    """Yields every image at least once, with equal shares of all categories, up to `max_images` in total.

    Statistics are fitted to these images before the first gradient step. `repeat`: repeat images up to `max_images`, for tiled views.
    """

    def __init__(self, samples: Sequence[Sample], *, max_images: int, repeat: bool, batch: int, seed: int) -> None:
        categories = sorted({sample.category for sample in samples})
        members = [[i for i, s in enumerate(samples) if s.category == category] for category in categories]
        share = max(1, max_images // len(members))
        if not repeat:
            share = min(share, max(map(len, members)))
        rng = np.random.default_rng([seed, SWEEP])
        chosen = np.concatenate([np.resize(rng.permutation(indices), share) for indices in members])
        self.order = [int(i) for i in rng.permutation(chosen)]
        self.batch, self.seed = batch, seed

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __iter__(self) -> Iterator[list[BatchItem]]:
        for start in range(0, len(self.order), self.batch):
            numbered = enumerate(self.order[start : start + self.batch], start)
            yield [BatchItem(index, index, False, (self.seed, SWEEP, place)) for place, index in numbered]


def to_tensor(image: ImageU8) -> Tensor:
    """Convert an image to a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def batches(images: TrainingImages, sampler: StepSampler | Sweep, *, workers: int) -> Iterator[ImagePair]:
    """Load batches of float images, 0 to 255, channels last in memory, which halves the time of a step on a CPU."""
    loader = DataLoader(images, batch_sampler=sampler, num_workers=workers, collate_fn=_stack)
    for inputs, clean, *weights in loader:
        yield ImagePair(as_input(inputs), as_input(clean), *weights)


def as_input(images_B3HW: Tensor) -> Tensor:
    """Convert images to the float, channels-last tensors that students take."""
    return images_B3HW.float().contiguous(memory_format=torch.channels_last)


def _stack(members: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.stack(tensors) for tensors in zip(*members, strict=True))
