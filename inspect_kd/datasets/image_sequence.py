"""The images of samples as a sequence whose memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspect_kd.datasets.images import read_image
from inspect_kd.types import ImageU8, Sample

KEPT_BYTES = 2**28
"""Decoded images that stay in memory: a hundred of 900x900 pixels, which are then read once."""


class ImageSequence(Sequence[ImageU8]):
    """Images that are read when they are needed; the first ones stay in memory, and the others are read again each time.

    An index is a number; slices are not supported.
    """

    def __init__(self, samples: Sequence[Sample], bits: int | None) -> None:
        self.samples = samples
        self.bits = bits
        self.free_bytes = KEPT_BYTES
        self.kept: dict[int, ImageU8] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        if index in self.kept:
            return self.kept[index]
        image = read_image(self.samples[index].image, bits=self.bits)
        if image.nbytes <= self.free_bytes:
            self.kept[index] = image
            self.free_bytes -= image.nbytes
        return image
