"""Where a heatmap is hot: the connected places above a limit, hottest first."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import Mask

MOST = 5
"""So many places are looked at; what has more is damaged all over, and the first ones say so."""


def hot_places(heat_hw: npt.NDArray[np.float32], above: float) -> list[Mask]:
    """The cells of each place."""
    count, labels = cv2.connectedComponents((heat_hw > above).astype(np.uint8), connectivity=8)
    ranked = sorted(((float(heat_hw[labels == label].max()), label) for label in range(1, count)), reverse=True)
    return [labels == label for _, label in ranked[:MOST]]
