"""Interfaces of students and teachers, as the rest of the program uses them.

Shapes: B batch, C channels, H W image, h w feature grid. Images are RGB floats in 0..255; each model normalises its input itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from inspect_kd.types import ImageU8, Mask


class ModelOutput(NamedTuple):
    """Distance from sound parts, of each image and of each of its pixels; not calibrated."""

    score_B: Tensor
    heatmap_B1HW: Tensor


class Student(nn.Module, ABC):
    """A small model that inspects every part on the line."""

    @abstractmethod
    def fit_statistics(self, batches_B3HW: Iterable[Tensor], weights: Iterable[Tensor | None] | None = None) -> None:
        """Estimate statistics of sound parts that need no gradient; called before the first training step.

        `weights`: the zones' weights for each batch (B, 1, H, W); places of weight 0 are left out.
        """

    @abstractmethod
    def losses(self, images_B3HW: Tensor, clean_B3HW: Tensor, weights_B1HW: Tensor | None = None) -> dict[str, Tensor]:
        """Loss terms by name; the images may have synthetic defects, `clean_B3HW` are the same images without them.

        `weights_B1HW`: the zones' weights; None without zones.
        """

    @abstractmethod
    def forward(self, images_B3HW: Tensor, weights_B1hw: Tensor | None = None) -> ModelOutput:
        """Score and heatmap at the images' size; `weights_B1hw` are the zones' weights at `weights_side`."""

    @abstractmethod
    def weights_side(self, size: int) -> int:
        """Side of the grid of the zones' weights for square images of side `size`: the score is pooled on this grid."""

    def half_precision_parts(self) -> Sequence[nn.Module]:
        """Modules that an fp16 export may compute in half precision: the expensive ones, never the comparison. Empty by default."""
        return ()


class TeacherOutput(NamedTuple):
    """A teacher's prediction for a batch of parts."""

    heatmap_B1HW: Tensor
    """0 to 1, where 1 is a certain defect."""
    confidence_B1HW: Tensor
    """0 where the heatmap is no better than chance, 1 where it is certain."""
    tokens_BChw: Tensor
    """Dense features of unit length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSample:
    """One training image of a teacher."""

    image: ImageU8
    mask: Mask | None
    """The defective pixels; None for a sound part."""
    sound: ImageU8 | None = None
    """The image without its synthetic defect, where available."""
    part: int = 0
    """Samples with the same number show the same part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsSource:
    """Pretrained weights inside a teacher: their name, licence and origin."""

    name: str
    licence: str
    origin: str
    """Where the weights came from, as a text for people."""
    sha256: str = ""


class Teacher(nn.Module, ABC):
    """A large model used in training only. Its base is frozen; only what it learns is saved."""

    settings: Any
    """Its `Config`."""
    sources: tuple[WeightsSource, ...]
    """All pretrained weights inside it."""
    frozen: ClassVar[tuple[str, ...]]
    """Prefixes of the frozen weights' names in the state dict."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Side of the square images that `forward` takes."""

    @property
    def training_size(self) -> int:
        """Side of the square images that `fit` takes."""
        return self.size

    @abstractmethod
    def fit(
        self, samples: Sequence[TeacherSample], *, epochs: int, batch: int, learning_rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Train; yields the metrics of each step, an empty dict for a step that only prepares."""

    @abstractmethod
    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        """Number of times that `fit` yields."""

    def validate(self, samples: Sequence[TeacherSample]) -> dict[str, float]:
        """Compute the teacher's own metrics on held-out samples, sound and synthetic; none by default."""
        return {}

    @abstractmethod
    def release_training_state(self) -> None:
        """Drop what only `fit` needs."""

    @abstractmethod
    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        """Predict images of any size for distillation; it may use more detail than `forward`, which gets resized images."""

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """Score and heatmap as one exportable graph."""

    def class_vectors(self) -> Tensor | None:
        """Unit vectors for `sound` and `damaged`, comparable with the tokens: (2, C); None if the teacher has none."""
        return None

    def adapted_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen base."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(self.frozen)}
