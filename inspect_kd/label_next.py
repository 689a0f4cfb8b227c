"""Choose which unlabelled images to label next, so that the labels cover the student's different predictions.

After PCoreSet (arXiv 2506.00910): farthest-first traversal of the student's probability space, not of its features. Unusual
here: that space is spatial. Two similar scratches at one place count once, at two places twice. And every second choice is
weighted by the student's uncertainty, since the farthest images alone are obvious defects, which it already detects.

NumPy only. Shapes: N unlabelled images, K labelled images, D cells of a heatmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from inspect_kd.types import Heatmap

CELLS = 8
"""Cells along each side of the heatmap."""
STEEPNESS = 4.0
"""Exponent of the step from sound to defective: half the threshold gives odds of 1 to 16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One chosen image."""

    index: int
    novelty: float
    """Distance between its defect probabilities and those of the nearest image that is labelled or was chosen before."""


def defect_probabilities(heatmap: Heatmap) -> npt.NDArray[np.float32]:
    """Return the probability of a defect in each cell of a heatmap, flattened: (CELLS * CELLS,)."""
    height, width = heatmap.shape
    rows, columns = (np.linspace(0, length, CELLS + 1).round().astype(int) for length in (height, width))
    cells = [[heatmap[a:b, c:d] for c, d in pairwise(columns)] for a, b in pairwise(rows)]
    peaks = np.array([[cell.max() for cell in row] for row in cells])
    heat = np.maximum(peaks, 0.0) ** STEEPNESS
    return np.asarray(heat / (1 + heat), np.float32).ravel()


def choose_next(
    probabilities_ND: Sequence[npt.NDArray[np.float32]], labelled_KD: Sequence[npt.NDArray[np.float32]], count: int
) -> list[Choice]:
    """Choose images that are far from all labelled and chosen ones; every second distance is weighted by uncertainty.

    A virtual image without any defect is among the labelled ones, so sound images are not novel.
    """
    points = np.stack(list(probabilities_ND))
    covered = [np.zeros(points.shape[1], np.float32), *labelled_KD]
    nearest_N = np.min([np.linalg.norm(points - point, axis=1) for point in covered], axis=0)
    uncertainty_N = 1 - np.abs(2 * points.max(axis=1) - 1)
    chosen: list[Choice] = []
    for turn in range(min(count, len(points))):
        value_N = nearest_N * uncertainty_N if turn % 2 else nearest_N.copy()
        value_N[[choice.index for choice in chosen]] = -1.0
        index = int(value_N.argmax())
        chosen.append(Choice(index=index, novelty=float(nearest_N[index])))
        nearest_N = np.minimum(nearest_N, np.linalg.norm(points - points[index], axis=1))
    return chosen
