"""What every student and every teacher is to the rest of the program, and nothing about how it does it.

Shapes: B batch, C channels, H W image, h w feature grid. Images are float 0..255, RGB; each model normalises for itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from inspect_kd.types import ImageU8, Mask


class ModelOutput(NamedTuple):
    """How far each pixel of a part, and the part itself, is from what sound parts look like. Not calibrated."""

    score_B: Tensor
    heatmap_B1HW: Tensor


class Student(nn.Module, ABC):
    """A small model that looks at every part on the line."""

    @abstractmethod
    def fit_statistics(self, batches_B3HW: Iterable[Tensor]) -> None:
        """Learn the statistics of sound parts that need no gradient, before the first step."""

    @abstractmethod
    def losses(self, seen_B3HW: Tensor, clean_B3HW: Tensor) -> dict[str, Tensor]:
        """Terms to minimise; `seen` may carry a defect that `clean` does not."""

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """Score and heatmap at the images' size."""

    def half_precision_parts(self) -> Sequence[nn.Module]:
        """What may compute in half precision in an exported file: the heavy parts, never the comparison. None by default."""
        return ()


class TeacherOutput(NamedTuple):
    """What a teacher says of a batch of parts."""

    heatmap_B1HW: Tensor
    """0 to 1, where 1 is a defect for certain."""
    confidence_B1HW: Tensor
    """0 where the teacher might as well have tossed a coin, 1 where it is sure."""
    tokens_BChw: Tensor
    """Its dense features, of unit length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSample:
    """A part as a teacher studies it."""

    image: ImageU8
    mask: Mask | None
    """Where it is damaged; None for a part that nobody touched."""
    sound: ImageU8 | None = None
    """The same part before it was damaged, where that is known."""
    part: int = 0
    """Lessons of one number show one part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsSource:
    """One set of weights under a teacher: what must be known to use it, and to use it again."""

    name: str
    licence: str
    origin: str
    """Where the weights came from, in words for people."""
    sha256: str = ""


class Teacher(nn.Module, ABC):
    """A large model that looks at parts once, at training. Its base is frozen; what it learns is small and kept alone."""

    settings: Any
    """Its filled `Config`."""
    sources: tuple[WeightsSource, ...]
    frozen: ClassVar[tuple[str, ...]]
    """How the names of frozen weights begin in the state dict."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Side of the square images that `forward` takes."""

    @property
    def training_size(self) -> int:
        """Side of the square images that it studies."""
        return self.size

    @abstractmethod
    def fit(
        self, lessons: Sequence[TeacherSample], *, epochs: int, batch: int, rate: float, seed: int
    ) -> Iterator[dict[str, float]]:
        """Learn; yields figures, one step each. The lessons are looked at once."""

    @abstractmethod
    def count_steps(self, samples: int, *, epochs: int, batch: int) -> int:
        """How many times `study` will yield."""

    def validate(self, lessons: Sequence[TeacherSample]) -> dict[str, float]:
        """Figures of its own on lessons that it has not studied, drawn defects and untouched parts; none by default."""
        return {}

    @abstractmethod
    def release_training_state(self) -> None:
        """Let go of what only studying needs."""

    @abstractmethod
    def predict(self, images: Sequence[ImageU8]) -> TeacherOutput:
        """The door for distillation: images of any size, of which all detail may be used."""

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        """Score and heatmap in one piece, as it can be exported."""

    def class_vectors(self) -> Tensor | None:
        """Vectors of unit length that its tokens are read against, sound and damaged: (2, C). None: it reads them otherwise."""
        return None

    def adapted_state(self) -> dict[str, Tensor]:
        """What is its own: all but the frozen base."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(self.frozen)}
