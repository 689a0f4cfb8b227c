"""Which unlabelled parts are worth a person's time: those that cover best what the student thinks of parts.

After PCoreSet (arXiv 2506.00910): farthest-first traversal of the student's probability space, not of its features. Unusual
here: that space says where, too. Two scratches of one kind at one place teach once; the same at another place teaches more. And
every second choice is of what the student doubts: the farthest alone are glaring defects, of which it is sure already.

NumPy only. Shapes: N parts, K known parts, D numbers of one part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from inspect_kd.types import Heatmap

CELLS = 8
"""Places along a side that are told apart."""
STEEPNESS = 4.0
"""Of the step from sound to damaged around the threshold: half of it is even odds of 1 to 16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    index: int
    novelty: float
    """How far the student's opinion of this part is from that of any part before it."""


def opinion(heatmap: Heatmap) -> npt.NDArray[np.float32]:
    """How probable damage is at each of some places: (CELLS * CELLS,)."""
    height, width = heatmap.shape
    rows, columns = (np.linspace(0, length, CELLS + 1).round().astype(int) for length in (height, width))
    cells = [[heatmap[a:b, c:d] for c, d in pairwise(columns)] for a, b in pairwise(rows)]
    hottest = np.array([[cell.max() for cell in row] for row in cells])
    heat = np.maximum(hottest, 0.0) ** STEEPNESS
    return np.asarray(heat / (1 + heat), np.float32).ravel()


def next_to_label(
    opinions_ND: Sequence[npt.NDArray[np.float32]], known_KD: Sequence[npt.NDArray[np.float32]], count: int
) -> list[Choice]:
    """By turns the farthest from all that is known, and the farthest that the student doubts. A flawless part is always known."""
    points = np.stack(list(opinions_ND))
    known = [np.zeros(points.shape[1], np.float32), *known_KD]
    nearest_N = np.min([np.linalg.norm(points - one, axis=1) for one in known], axis=0)
    doubt_N = 1 - np.abs(2 * points.max(axis=1) - 1)
    chosen: list[Choice] = []
    for turn in range(min(count, len(points))):
        worth_N = nearest_N * doubt_N if turn % 2 else nearest_N.copy()
        worth_N[[choice.index for choice in chosen]] = -1.0
        index = int(worth_N.argmax())
        chosen.append(Choice(index=index, novelty=float(nearest_N[index])))
        nearest_N = np.minimum(nearest_N, np.linalg.norm(points - points[index], axis=1))
    return chosen
