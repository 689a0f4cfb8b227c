"""Job: everything that one training needs, in one value that is passed along unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.run import RunFolder, view_of
from inspect_kd.types import Progress, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to train, on which data, into which folder, and on what hardware."""

    recipe: Recipe
    data: DataSet
    folder: RunFolder
    hardware: Hardware
    progress: Progress

    def open_images(self, split: Split) -> ImageStore:
        """The images of one split, scaled as the student's view says."""
        data = self.recipe.data
        return ImageStore(self.data.select(split), view_of(self.recipe), bits=data.bits, budget_mb=data.cache_mb)
