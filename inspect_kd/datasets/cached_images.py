"""The images of samples as a sequence whose memory does not grow with the number of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from inspect_kd.datasets.images import read_image
from inspect_kd.types import ImageU8, Sample

KEPT_BYTES = 2**28
"""Decoded images of a fit that stay in memory: a hundred of 900x900 pixels, which are then read once."""


class CachedImages(Sequence[ImageU8]):
    """Images that are loaded when they are needed; the first ones stay in memory, and the others are loaded again each time.

    An index is a number; slices are not supported.
    """

    def __init__(self, samples: Sequence[Sample], max_bytes: int) -> None:
        self.samples = samples
        self.free_bytes = max_bytes
        self.cached: dict[int, ImageU8] = {}

    @abstractmethod
    def load(self, index: int) -> ImageU8:
        """Load an image."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        if index in self.cached:
            return self.cached[index]
        image = self.load(index)
        if image.nbytes <= self.free_bytes:
            self.cached[index] = image
            self.free_bytes -= image.nbytes
        return image


class OriginalImages(CachedImages):
    """Images as they are in their files."""

    def __init__(self, samples: Sequence[Sample], bits: int | None) -> None:
        super().__init__(samples, KEPT_BYTES)
        self.bits = bits

    def load(self, index: int) -> ImageU8:
        return read_image(self.samples[index].image, bits=self.bits)
