"""The only resize of images: training, calibration, evaluation, teachers and the line use it.

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
    return np.asarray(_resize(image, width, height), np.uint8)


def resize_map(values_HW: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """Resize one value a pixel like an image."""
    return np.asarray(_resize(values_HW, width, height), np.float32)


def _resize(image: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return np.ascontiguousarray(image)
    # OpenCV's area averaging only shrinks, so shrink and enlarge in two steps.
    shrunk_size = (min(old_width, width), min(old_height, height))
    if shrunk_size != (old_width, old_height):
        image = cv2.resize(image, shrunk_size, interpolation=cv2.INTER_AREA)
    if shrunk_size != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image
