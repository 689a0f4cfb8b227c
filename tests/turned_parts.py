"""Drawn parts at any angle on a plain background, and drawn boards that fill the picture."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from inspect_kd.datasets.alignment.pose import Matrix, chain, shift, turn
from inspect_kd.types import ImageU8

SIDE = 300
OUTLINE = np.array([[-90, -30], [60, -30], [60, -55], [95, -55], [95, 30], [-90, 30]], np.float64)


def pose_matrix(angle: float, x: float, y: float) -> Matrix:
    """Map from the part's own coordinates into an image."""
    return chain(turn(math.radians(angle)), shift(x, y))


def draw_part(matrix: Matrix, *, outline: Any = OUTLINE, seed: int = 0) -> ImageU8:
    """A bracket with two holes on a plain background with some noise."""
    image = np.full((SIDE, SIDE, 3), 210, np.uint8)

    def place(points: Any) -> Any:
        moved = matrix @ np.vstack([np.transpose(points), np.ones(len(points))])
        return np.round(moved.T * 16).astype(np.int32)

    cv2.fillPoly(image, [place(outline)], (70, 80, 90), cv2.LINE_AA, 4)
    for hole in ((-60.0, 0.0), (40.0, 0.0)):
        cv2.circle(image, tuple(int(v) for v in place([hole])[0]), 12 * 16, (210, 210, 210), -1, cv2.LINE_AA, 4)
    noise = np.random.default_rng(seed).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def random_parts(count: int, seed: int = 0) -> list[tuple[Matrix, ImageU8]]:
    rng = np.random.default_rng(seed)
    matrices = [pose_matrix(rng.uniform(0, 360), *rng.uniform(125, 175, 2)) for _ in range(count)]
    return [(matrix, draw_part(matrix, seed=seed + i)) for i, matrix in enumerate(matrices)]


def cluttered_scene(angle: float, dx: float, dy: float, seed: int = 0) -> ImageU8:
    """A board with many marks that fills the picture."""
    rng = np.random.default_rng(7)
    board = np.full((500, 500, 3), 90, np.uint8)
    for _ in range(120):
        x, y, w, h = rng.integers(0, 480, 2).tolist() + rng.integers(5, 40, 2).tolist()
        cv2.rectangle(board, (x, y), (x + w, y + h), rng.integers(0, 255, 3).tolist(), -1)
    matrix = cv2.getRotationMatrix2D((250, 250), angle, 1.0)
    matrix[:, 2] += dx - 50, dy - 50
    noise = np.random.default_rng(seed).normal(0, 3, (400, 400, 3))
    return np.clip(cv2.warpAffine(board, matrix, (400, 400)) + noise, 0, 255).astype(np.uint8)
