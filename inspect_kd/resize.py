"""The one resize of the product: training, calibration, evaluation, teachers and line all squash images with it.

No torch here: it is on the line-side path.
"""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.types import ImageU8

RESIZE = "opencv-area-linear-squash/1"
"""Its name, kept in every artifact: another one gives other scores."""


def resize(image: ImageU8, width: int, height: int) -> ImageU8:
    """The one resize: squash to the size; area averaging where an axis shrinks, linear where it grows."""
    tall, wide = image.shape[:2]
    if (wide, tall) == (width, height):
        return np.ascontiguousarray(image)
    # OpenCV's area averaging only shrinks: each axis is treated by what happens to it.
    shrunk_to = (min(wide, width), min(tall, height))
    if shrunk_to != (wide, tall):
        image = cv2.resize(image, shrunk_to, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if shrunk_to != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image
