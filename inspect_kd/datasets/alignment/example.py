"""Draw an image in which an alignment finds its part, from the reference alone: for timing without a photograph."""

from __future__ import annotations

import math

import cv2
import numpy as np

from inspect_kd.datasets.alignment.alignment import Alignment
from inspect_kd.datasets.alignment.by_silhouette import SilhouetteReference
from inspect_kd.datasets.alignment.by_template import TemplateReference
from inspect_kd.datasets.alignment.pose import Grey, Matrix, chain, resizing, shift, size_of, turn
from inspect_kd.types import ImageU8

PART_TURN, BOARD_TURN = math.radians(30), math.radians(2)
"""The drawn angle: a single part may lie at any, a board lies nearly as the reference does."""


def draw_example(alignment: Alignment) -> ImageU8:
    """Draw the reference, turned, at the scale of the original images."""
    reference = alignment.reference
    grey = _draw_board(reference) if isinstance(reference, TemplateReference) else _draw_part(reference)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _draw_part(reference: SilhouetteReference) -> Grey:
    """Draw the part on a square background that has room for it at any angle."""
    side = math.ceil(math.hypot(*reference.frame))
    background = int(np.median(reference.grey[reference.mask == 0].astype(np.float32)))
    matrix = _about_middle(0.0 if reference.axis is None else PART_TURN, reference.frame, (side, side))
    to_image = chain(resizing(size_of(reference.grey), reference.frame), matrix)
    image = cv2.warpAffine(reference.grey, to_image, (side, side), flags=cv2.INTER_LINEAR, borderValue=(background,))
    return np.asarray(image, np.uint8)


def _draw_board(reference: TemplateReference) -> Grey:
    """Draw the board so that it fills its image; beyond the reference picture, its border is continued."""
    matrix = _about_middle(BOARD_TURN, reference.frame, reference.frame)
    to_image = chain(resizing(size_of(reference.grey), reference.frame), matrix)
    image = cv2.warpAffine(
        reference.grey, to_image, reference.frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(image, np.uint8)


def _about_middle(angle: float, frame: tuple[int, int], image: tuple[int, int]) -> Matrix:
    """Return the map that turns a frame about its middle and moves it to the image's middle."""
    before, after = ([(side - 1) / 2 for side in size] for size in (frame, image))
    return chain(shift(-before[0], -before[1]), turn(angle), shift(after[0], after[1]))
