"""Connected hot regions of a heatmap, hottest first."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import Mask

MAX_REGIONS = 5
"""A part with more regions has defects all over; the hottest ones are enough."""


def find_hot_regions(heat_hw: npt.NDArray[np.float32], threshold: float) -> list[Mask]:
    """Find the connected regions above a threshold; returns one mask per region."""
    count, labels = cv2.connectedComponents((heat_hw > threshold).astype(np.uint8), connectivity=8)
    ranked = sorted(((float(heat_hw[labels == label].max()), label) for label in range(1, count)), reverse=True)
    return [labels == label for _, label in ranked[:MAX_REGIONS]]
