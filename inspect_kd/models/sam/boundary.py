"""How well a mask agrees with the truth: overlap over union, and the same within a narrow band along both outlines.

Boundary IoU after Cheng et al., CVPR 2021, with their band of 2 % of the diagonal.
"""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.types import Mask

BAND = 0.02


def agreement(said: Mask, truth: Mask) -> tuple[float, float]:
    """IoU and boundary IoU."""
    width = max(1, round(BAND * float(np.hypot(*truth.shape))))
    return _overlap(said, truth), _overlap(_rim(said, width), _rim(truth, width))


def _overlap(said: Mask, truth: Mask) -> float:
    union = int((said | truth).sum())
    return float((said & truth).sum() / union) if union else 1.0


def _rim(mask: Mask, width: int) -> Mask:
    """The part of the mask within so many pixels of its outline; the image's border is no outline."""
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width, borderType=cv2.BORDER_REPLICATE)[1:-1, 1:-1]
    rim: Mask = mask & (inner == 0)
    return rim
