"""Poses: where a part lies in an image, as an affine map into the reference frame.

Pixel coordinates are OpenCV's: the centre of the first pixel is (0, 0). Matrices are (2, 3) and map (x, y, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import FrameOutline, Heatmap, ImageU8

Matrix = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]
"""(H, W): a picture or a silhouette in grey levels."""
BORDER = 2
"""Width in pixels of the ring that is taken as an image's border."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """A part's pose: the map from image to frame, and how well the part then agrees with the reference."""

    matrix: Matrix
    quality: float
    """From 0 to 1, where 1 is full agreement."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """No part like the reference was found in an image."""

    reason: str


def shift(x: float, y: float) -> Matrix:
    """Matrix that moves points."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def turn(angle: float) -> Matrix:
    """Matrix that turns points about the origin, by radians from x towards y."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])


def resizing(before: tuple[int, int], after: tuple[int, int]) -> Matrix:
    """Matrix from pixels of an image to those of the resized one; sizes are (width, height)."""
    across, down = after[0] / before[0], after[1] / before[1]
    return np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2]])


def chain(*matrices: Matrix) -> Matrix:
    """Combine maps; the first one is applied first."""
    combined = np.eye(3)
    for matrix in matrices:
        combined = np.vstack([matrix, [0.0, 0.0, 1.0]]) @ combined
    return combined[:2]


def invert(matrix: Matrix) -> Matrix:
    """Invert a map."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)


def size_of(image: npt.NDArray[np.generic]) -> tuple[int, int]:
    """(width, height) of an image."""
    return image.shape[1], image.shape[0]


def border_median(image: ImageU8) -> npt.NDArray[np.uint8]:
    """Median of each channel along an image's border."""
    width = min(BORDER, *image.shape[:2])
    sides = (image[:width], image[-width:], image[:, :width], image[:, -width:])
    ring = np.concatenate([side.reshape(-1, image.shape[2]) for side in sides])
    return np.asarray(np.median(ring, axis=0), np.uint8)


def shrink(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Shrink an image so that its longest side is at most `side`."""
    width, height = size_of(image)
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_grey(image: ImageU8) -> Grey:
    """Convert an image to grey levels."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def cut_frame(image: ImageU8, matrix: Matrix, frame: tuple[int, int]) -> ImageU8:
    """Move a part into the frame of (width, height); what lies outside the image gets the border's median."""
    fill = tuple(int(value) for value in border_median(image))
    return np.asarray(
        cv2.warpAffine(image, matrix, frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill),
        np.uint8,
    )


def corners_in_image(matrix: Matrix, frame: tuple[int, int]) -> FrameOutline:
    """Map the corners of a frame of (width, height) back into the image, from its first pixel's clockwise."""
    width, height = frame
    back = invert(matrix)
    corners = ((-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5))
    # A pixel's centre has whole coordinates in OpenCV; measured from the image's edge it lies half a pixel further.
    places = (back @ (x, y, 1.0) + 0.5 for x, y in corners)
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in places)


def heatmap_in_image(heatmap: Heatmap, matrix: Matrix, frame: tuple[int, int], image: tuple[int, int]) -> Heatmap:
    """Map the heatmap of a frame back to the whole image, at about the same resolution; 0 outside the frame."""
    density = math.sqrt(heatmap.size / (frame[0] * frame[1]))
    grid = (max(1, round(image[0] * min(1.0, density))), max(1, round(image[1] * min(1.0, density))))
    to_grid = chain(resizing(size_of(heatmap), frame), invert(matrix), resizing(image, grid))
    return np.asarray(cv2.warpAffine(heatmap, to_grid, grid, flags=cv2.INTER_LINEAR), np.float32)


def correlation(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    """Compute Pearson's correlation; 0 where one of both is empty or constant."""
    if one.size == 0:
        return 0.0
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    a -= a.mean()
    b -= b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0
