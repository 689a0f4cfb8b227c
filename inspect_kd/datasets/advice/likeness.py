"""Measure how alike pictures are: the correlation of their fine structure, which does not depend on the light."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.advice.parts_lie import PoseSpread
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.datasets.alignment.pose import chain, cut_frame, shift, to_grey, turn
from inspect_kd.types import ImageU8

Likeness = npt.NDArray[np.float64]
"""(N, N): correlation of each pair of pictures."""
SIDE = 96
"""Side of the pictures that are compared, in pixels."""
FINE, COARSE = 0.7, 4.0
"""Sigmas in pixels of the band of structure that is compared."""
MAX_COMPONENTS, PICTURES_PER_COMPONENT = 24, 6
"""Number of principal components that are removed: one for every six pictures, at most 24."""


def correlate(pictures: Sequence[SoundPicture]) -> Likeness:
    """Correlate all pairs of pictures as they are."""
    return _correlation(np.stack([_structure(picture.small) for picture in pictures]))


def correlate_individually(pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> Likeness:
    """Correlate what is particular to each part: first the median picture and the principal components are removed.

    The components describe how parts lie and how the light falls, which two different parts may share by chance. Before that, single
    parts are moved to the middle of their pictures.
    """
    moved = [picture.small if spread is None else _centre_part(picture, spread) for picture in pictures]
    structures: npt.NDArray[np.float32] = np.stack([_structure(picture) for picture in moved])
    structures -= np.median(structures, axis=0)
    structures -= structures.mean(axis=1, keepdims=True)
    count = min(MAX_COMPONENTS, len(pictures) // PICTURES_PER_COMPONENT)
    if count:
        components = np.linalg.eigh(structures @ structures.T)[1][:, -count:]
        structures -= components @ (components.T @ structures)
    return _correlation(structures)


def _correlation(structures: npt.NDArray[np.float32]) -> Likeness:
    centred = structures - structures.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6
    return np.asarray(centred @ centred.T, np.float64)


def _centre_part(picture: SoundPicture, spread: PoseSpread) -> ImageU8:
    """Move the part to the middle of its picture, and turn it along its axis unless it is round."""
    if picture.silhouette is None:
        return picture.small
    height, width = picture.small.shape[:2]
    angle = picture.silhouette.angle if spread.angles else 0.0
    to_middle = (width / 2 - picture.silhouette.x, height / 2 - picture.silhouette.y)
    matrix = chain(shift(*to_middle), shift(-width / 2, -height / 2), turn(-angle), shift(width / 2, height / 2))
    return cut_frame(picture.small, matrix, (width, height))


def _structure(image: ImageU8) -> npt.NDArray[np.float32]:
    """Return the fine structure of a picture: a band of frequencies, divided by its local strength, which removes light and contrast."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = to_grey(np.asarray(small, np.uint8)).astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), FINE) - cv2.GaussianBlur(grey, (0, 0), COARSE)
    strength = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 2 * COARSE)) + 1
    return np.asarray(band / strength, np.float32).ravel()
