"""Job: everything that one training needs, in one value that is passed along unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field

from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.advice import Advice
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.run import RunFolder
from inspect_kd.types import Progress, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to train, on which data, into which folder, and on what hardware."""

    recipe: Recipe
    data: DataSet
    folder: RunFolder
    hardware: Hardware
    progress: Progress
    presentations: Presentations = field(default_factory=Presentations)
    """How each category's images are presented; `prepare_images` fits them to the training images."""

    advice: tuple[Advice, ...] = ()
    """Advice on the sound training images that a person must follow; `prepare_images` computes it."""

    def open_images(self, split: Split) -> ImageStore:
        """The images of one split, as they are presented to the student."""
        data = self.recipe.data
        return ImageStore(self.data.select(split), self.presentations, bits=data.bits, budget_mb=data.cache_mb)
