"""Likeness of pictures to each other: correlation of their fine structure, whatever the light."""

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
MOST_WAYS, PICTURES_PER_WAY = 24, 6
"""Main ways in which pictures differ that are removed: at most so many, and one for so many pictures."""


def correlate(pictures: Sequence[SoundPicture]) -> Likeness:
    """Correlate all pairs of pictures as they are."""
    return _correlation(np.stack([_structure(picture.small) for picture in pictures]))


def correlate_individually(pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> Likeness:
    """Correlate what marks one part: without what all pictures have in common and the main ways in which they differ.

    Those ways are where parts lie and how the light falls, which two parts may share by chance. Single parts are moved to one
    place first.
    """
    moved = [picture.small if spread is None else _upright(picture, spread) for picture in pictures]
    structures: npt.NDArray[np.float32] = np.stack([_structure(picture) for picture in moved])
    structures -= np.median(structures, axis=0)
    structures -= structures.mean(axis=1, keepdims=True)
    ways = min(MOST_WAYS, len(pictures) // PICTURES_PER_WAY)
    if ways:
        main = np.linalg.eigh(structures @ structures.T)[1][:, -ways:]
        structures -= main @ (main.T @ structures)
    return _correlation(structures)


def _correlation(structures: npt.NDArray[np.float32]) -> Likeness:
    centred = structures - structures.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6
    return np.asarray(centred @ centred.T, np.float64)


def _upright(picture: SoundPicture, spread: PoseSpread) -> ImageU8:
    """Move the part to the middle of its picture, and turn it along its axis unless it is round."""
    if picture.silhouette is None:
        return picture.small
    height, width = picture.small.shape[:2]
    angle = picture.silhouette.angle if spread.angles else 0.0
    to_middle = (width / 2 - picture.silhouette.x, height / 2 - picture.silhouette.y)
    matrix = chain(shift(*to_middle), shift(-width / 2, -height / 2), turn(-angle), shift(width / 2, height / 2))
    return cut_frame(picture.small, matrix, (width, height))


def _structure(image: ImageU8) -> npt.NDArray[np.float32]:
    """A band of structure, divided by its local strength, which removes light and contrast."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = to_grey(np.asarray(small, np.uint8)).astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), FINE) - cv2.GaussianBlur(grey, (0, 0), COARSE)
    strength = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 2 * COARSE)) + 1
    return np.asarray(band / strength, np.float32).ravel()
