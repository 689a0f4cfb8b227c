"""Likeness of pictures to each other: correlation of their fine structure, whatever the light."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.datasets.alignment.pose import to_grey

Likeness = npt.NDArray[np.float64]
"""(N, N): correlation of each pair of pictures."""
SIDE = 96
"""Side of the pictures that are compared, in pixels."""
FINE, COARSE = 0.7, 4.0
"""Sigmas in pixels of the band of structure that is compared."""


def correlate(pictures: Sequence[SoundPicture], *, without_common: bool) -> Likeness:
    """Correlate all pairs; `without_common` removes what the pictures have in common, so that only what marks one part counts."""
    structures: npt.NDArray[np.float32] = np.stack([_structure(picture) for picture in pictures])
    if without_common:
        structures -= np.median(structures, axis=0)
    structures -= structures.mean(axis=1, keepdims=True)
    structures /= np.linalg.norm(structures, axis=1, keepdims=True) + 1e-6
    return np.asarray(structures @ structures.T, np.float64)


def _structure(picture: SoundPicture) -> npt.NDArray[np.float32]:
    """A band of structure, divided by its local strength, which removes light and contrast."""
    small = cv2.resize(picture.small, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = to_grey(np.asarray(small, np.uint8)).astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), FINE) - cv2.GaussianBlur(grey, (0, 0), COARSE)
    strength = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 2 * COARSE)) + 1
    return np.asarray(band / strength, np.float32).ravel()
