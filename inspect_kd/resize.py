"""Resize images: training, calibration, evaluation, teachers and the line all use this module, so that scores are comparable.

No torch: it runs on the line.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import ImageU8

RESIZE = "opencv-area-linear-squash/1"
"""Name of the method, stored in every artifact: a different resize gives different scores."""


def resize(image: ImageU8, width: int, height: int) -> ImageU8:
    """Resize an image without keeping its aspect ratio: area averaging along an axis that shrinks, linear along one that grows."""
    # OpenCV's area averaging only shrinks, so shrink and enlarge in two steps.
    shrunk = _shrink(image, width, height)
    if shrunk.shape[1::-1] != (width, height):
        shrunk = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(shrunk, np.uint8)


def resize_map(values_HW: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Resize a map with one value per pixel, as `resize` does with an image.

    Enlarging does not use OpenCV, whose linear resize of floats differs between versions 4.6 and 5.0 by up to 5e-5 of a value.
    """
    shrunk = _shrink(values_HW, width, height)
    return np.ascontiguousarray(_enlarge_rows(_enlarge_rows(shrunk, height).T, width).T, np.float32)


def _shrink(image: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """Average areas along the axes that are longer than wanted."""
    size = (min(image.shape[1], width), min(image.shape[0], height))
    if size == image.shape[1::-1]:
        return np.ascontiguousarray(image)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _enlarge_rows(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Interpolate linearly between the centres of rows, in double precision; beyond the outer rows their values continue."""
    if len(values) == count:
        return values
    position = np.clip((np.arange(count) + 0.5) * len(values) / count - 0.5, 0, len(values) - 1)
    before = position.astype(np.intp)
    after, share = np.minimum(before + 1, len(values) - 1), (position - before)[:, None]
    return np.asarray(values[before] * (1 - share) + values[after] * share)
