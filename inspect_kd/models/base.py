"""What every student is to the rest of the program, and nothing about how it does it.

Shapes: B batch, H W image. Images are float 0..255, RGB; each model normalises for itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn


class StudentOutput(NamedTuple):
    score_B: Tensor
    heatmap_B1HW: Tensor


class Student(nn.Module, ABC):
    """A model that says how far each pixel of a part is from what sound parts look like. Not calibrated."""

    @abstractmethod
    def adapt(self, batches_B3HW: Iterable[Tensor]) -> None:
        """Learn the statistics of sound parts that need no gradient, before the first step."""

    @abstractmethod
    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        """Terms to minimise; `seen` may carry a defect that `clean` does not."""

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> StudentOutput:
        """Score and heatmap at the images' size."""
