"""The product's only resize: training, calibration, evaluation, teachers and the line all use it.

No torch: it runs on the line.
"""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.types import ImageU8

RESIZE = "opencv-area-linear-squash/1"
"""Name of the method, stored in every artifact: a different resize gives different scores."""


def resize(image: ImageU8, width: int, height: int) -> ImageU8:
    """Squash an image to a size: area averaging along an axis that shrinks, linear along one that grows."""
    tall, wide = image.shape[:2]
    if (wide, tall) == (width, height):
        return np.ascontiguousarray(image)
    # OpenCV's area averaging only shrinks, so shrink and enlarge in two steps.
    shrunk_to = (min(wide, width), min(tall, height))
    if shrunk_to != (wide, tall):
        image = cv2.resize(image, shrunk_to, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    if shrunk_to != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image
