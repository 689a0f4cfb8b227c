"""Sound pictures for the advice: each is read once, measured, and kept as a small copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.alignment.by_silhouette import WORKING_SIDE
from inspect_kd.datasets.alignment.pose import shrink, size_of, to_grey
from inspect_kd.datasets.alignment.silhouette import Silhouette, find_silhouette
from inspect_kd.types import ImageU8, Sample

MAX_PICTURES = 300
"""Most pictures of a category that are read."""
SEQUENCE = 10
"""Pictures are chosen in sequences of this many neighbours by name: if only every n-th one were read, no series would be found."""
DETAIL_SIDE = 1024
"""Longest side in pixels at which detail is measured."""
MIN_ENERGY = 0.25
"""Least energy of an octave, in squared grey levels, that is more than the rounding of grey levels."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SoundPicture:
    """One sound picture, shrunk, with what was measured on it."""

    sample: Sample
    size: tuple[int, int]
    """(width, height) of the image."""
    small: ImageU8
    """The image with a longest side of 256 pixels at most."""
    detail: float
    """Energy of the finest octave over that of the next one, as a power of 2; blur lowers it, contrast and light do not."""
    silhouette: Silhouette | None
    """In pixels of the small picture; None if no single part was found."""
    not_found: str = ""
    """Why there is no silhouette."""


def choose_samples(samples: Sequence[Sample], most: int = MAX_PICTURES) -> list[Sample]:
    """Choose samples in sequences of neighbours by name, evenly spread over all of them."""
    ordered = sorted(samples, key=lambda sample: str(sample.image))
    if len(ordered) <= most:
        return ordered
    starts = np.linspace(0, len(ordered) - SEQUENCE, most // SEQUENCE).round().astype(int)
    return [ordered[start + offset] for start in starts for offset in range(SEQUENCE)]


def measure_picture(sample: Sample, image: ImageU8) -> SoundPicture:
    """Measure one sound image."""
    small = shrink(image, WORKING_SIDE)
    found = find_silhouette(small)
    return SoundPicture(
        sample=sample,
        size=size_of(image),
        small=small,
        detail=_measure_detail(to_grey(shrink(image, DETAIL_SIDE))),
        silhouette=found if isinstance(found, Silhouette) else None,
        not_found="" if isinstance(found, Silhouette) else found.reason,
    )


def _measure_detail(grey: npt.NDArray[np.uint8]) -> float:
    """Return the energy of the finest octave over that of the next one, as a power of 2; 0 where there is too little detail to measure."""
    levels = grey.astype(np.float32)
    fine, middle = (cv2.GaussianBlur(levels, (0, 0), sigma) for sigma in (1, 2))
    finest, next_one = (cv2.meanStdDev(octave)[1].item() ** 2 for octave in (levels - fine, fine - middle))
    return float(np.log2((finest + 1e-6) / next_one)) if next_one > MIN_ENERGY else 0.0
