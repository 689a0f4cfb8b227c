"""Refine a pose on all pixels: the small shift and turn after which a picture agrees best with the reference picture.

Enhanced correlation (Evangelidis and Psarakis, 2008), inverse compositional: the reference's slopes are computed once, and each
step is a linear regression of the moved picture on the reference and its slopes. Unusual here: `cv2.findTransformECC` differs
between OpenCV's versions by hundredths of a pixel, which moves heatmaps; these sums are whole numbers, so C++ gets the same digits.

Shapes: N pixels of the reference, and five regressors: constant, reference, slope by x, by y, by turning.
"""

from __future__ import annotations

import math
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.alignment.pose import Grey, Matrix, chain, correlation, shift, size_of, turn, warp

ITERATIONS = 20
PRECISION = 0.02
"""Steps that move no pixel by more than this end the search."""
FILTER = (5, 5)
"""Size in pixels of the blur, which widens the range of the search."""


class Refinement:
    """A reference picture with its slopes."""

    def __init__(self, reference: Grey) -> None:
        self.blurred: Grey = np.asarray(cv2.GaussianBlur(reference, FILTER, 0), np.uint8)

    @cached_property
    def regressors(self) -> npt.NDArray[np.float64]:
        """The regressors (5, N). Slopes and lever arms are doubled, which makes them whole numbers; `_step` corrects for it."""
        width, height = size_of(self.blurred)
        values = self.blurred.astype(np.float64)
        by_x, by_y = np.zeros_like(values), np.zeros_like(values)
        by_x[:, 1:-1] = values[:, 2:] - values[:, :-2]
        by_y[1:-1] = values[2:] - values[:-2]
        across, down = 2 * np.arange(width) - (width - 1), 2 * np.arange(height)[:, None] - (height - 1)
        return np.stack([np.ones_like(values), values, by_x, by_y, across * by_y - down * by_x]).reshape(5, -1)

    @cached_property
    def products(self) -> list[list[float]]:
        """Sums of the regressors' products (5, 5)."""
        products: list[list[float]] = (self.regressors @ self.regressors.T).tolist()
        return products

    def refine(self, picture: Grey, matrix: Matrix) -> tuple[Matrix | None, float]:
        """Improve the map from a picture to the reference; the second value is the correlation of all pixels."""
        width, height = size_of(self.blurred)
        for _ in range(ITERATIONS):
            step = self._step(self._moved(picture, matrix))
            if step is None:
                return None, 0.0
            x, y, angle = step
            centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
            matrix = chain(matrix, shift(-centre_x, -centre_y), turn(angle), shift(centre_x + x, centre_y + y))
            if max(abs(x), abs(y), abs(angle) * max(width, height) / 2) < PRECISION:
                break
        return matrix, max(0.0, correlation(self._moved(picture, matrix), self.blurred))

    def _moved(self, picture: Grey, matrix: Matrix) -> Grey:
        moved = warp(picture, matrix, size_of(self.blurred), border=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.GaussianBlur(moved, FILTER, 0), np.uint8)

    def _step(self, moved: Grey) -> tuple[float, float, float] | None:
        """Compute the shift and the turn about the centre that are still missing; None if the pictures have nothing in common."""
        weights = solve(self.products, (self.regressors @ moved.ravel().astype(np.float64)).tolist())
        if weights is None or weights[1] <= 0:
            return None
        x, y, angle = 2 * weights[2] / weights[1], 2 * weights[3] / weights[1], 4 * weights[4] / weights[1]
        is_small = max(abs(x), abs(y)) < max(size_of(moved)) / 4 and abs(angle) < math.pi / 8
        return (x, y, angle) if is_small else None


def solve(symmetric: list[list[float]], right: list[float]) -> list[float] | None:
    """Solve a small positive definite system; None if it is singular."""
    rows = [[*row, value] for row, value in zip(symmetric, right, strict=True)]
    count = len(rows)
    for pivot in range(count):
        if not rows[pivot][pivot] > 1e-9 * symmetric[pivot][pivot]:
            return None
        for below in range(pivot + 1, count):
            share = rows[below][pivot] / rows[pivot][pivot]
            for column in range(pivot, count + 1):
                rows[below][column] -= share * rows[pivot][column]
    solution = [0.0] * count
    for row in reversed(range(count)):
        value = rows[row][count]
        for column in range(row + 1, count):
            value -= rows[row][column] * solution[column]
        solution[row] = value / rows[row][row]
    return solution
