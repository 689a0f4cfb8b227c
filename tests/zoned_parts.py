"""Drawn pictures, and the zones that tests draw on them."""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.datasets.zones import Zone
from inspect_kd.types import ImageU8

FRAME = (160, 120)

IGNORED = Zone("label", ((20, 30), (70, 30), (70, 80), (20, 80)))
"""An ignored zone; its border crosses cells of the model's grid of weights."""

STRICT = Zone("seal", ((90, 10), (150, 10), (150, 110), (90, 110)), 0.5)
"""A zone whose tolerance of 0.5 doubles the heat."""


def picture(seed: int = 0, frame: tuple[int, int] = FRAME) -> ImageU8:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (frame[1] // 10, frame[0] // 10, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, frame, interpolation=cv2.INTER_CUBIC), np.uint8)


def with_defect(image: ImageU8, x: int, y: int) -> ImageU8:
    image = image.copy()
    image[y : y + 20, x : x + 20] = (255, 0, 255)
    return image
