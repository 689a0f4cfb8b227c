"""IoU of a mask with the truth, and boundary IoU: the same within a narrow band along both outlines.

Boundary IoU after Cheng et al., CVPR 2021, with their band of 2 % of the diagonal.
"""

from __future__ import annotations

import cv2
import numpy as np

from inspect_kd.types import Mask

BAND = 0.02
"""Width of the band, as a share of the image diagonal."""


def iou_and_boundary_iou(predicted: Mask, truth: Mask) -> tuple[float, float]:
    """Compute both measures; 1 where both masks are empty."""
    width = max(1, round(BAND * float(np.hypot(*truth.shape))))
    return _iou(predicted, truth), _iou(_rim(predicted, width), _rim(truth, width))


def _iou(predicted: Mask, truth: Mask) -> float:
    union = int((predicted | truth).sum())
    return float((predicted & truth).sum() / union) if union else 1.0


def _rim(mask: Mask, width: int) -> Mask:
    """The pixels of the mask within `width` of its outline; the image's border does not count as outline."""
    padded = np.pad(mask.astype(np.uint8), 1, mode="edge")
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width, borderType=cv2.BORDER_REPLICATE)[1:-1, 1:-1]
    rim: Mask = mask & (inner == 0)
    return rim
