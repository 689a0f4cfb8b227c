"""Poses: where a part lies in an image, as an affine map into the reference frame.

Pixel coordinates are OpenCV's: the centre of the first pixel is (0, 0). Matrices are (2, 3) and map (x, y, 1).

Unusual here: the C++ program must find the same poses and cut the same pixels with another version of OpenCV. So maps are combined
number by number, sums are taken over whole numbers, and images are moved by `warp`, all of which are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import FrameOutline, Heatmap, ImageU8

Matrix = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]
"""(H, W): a picture or a silhouette in grey levels."""
MAX_SIDE = 2**15 - 2
"""Longest side in pixels of an image or a frame: OpenCV warps no larger one."""
MIN_GRID = 16
"""Least side in pixels of a heatmap over the whole image."""
BORDER = 2
"""Width in pixels of the ring that is taken as an image's border."""
STRIP_PIXELS = 2**16
"""Pixels that are moved at once: their maps stay in the processor's cache."""


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
    """Return the matrix that moves points."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def turn(angle: float) -> Matrix:
    """Return the matrix that turns points about the origin, by radians from x towards y."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])


def resizing(before: tuple[int, int], after: tuple[int, int]) -> Matrix:
    """Return the matrix from pixels of an image to those of the resized one; sizes are (width, height)."""
    across, down = after[0] / before[0], after[1] / before[1]
    return np.array([[across, 0.0, (across - 1) / 2], [0.0, down, (down - 1) / 2]])


def chain(*matrices: Matrix) -> Matrix:
    """Combine maps; the first one is applied first."""
    a, b, x, c, d, y = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    for matrix in matrices:
        (e, f, u), (g, h, v) = matrix.tolist()
        a, b, x, c, d, y = (
            e * a + f * c,
            e * b + f * d,
            e * x + f * y + u,
            g * a + h * c,
            g * b + h * d,
            g * x + h * y + v,
        )
    return np.array([[a, b, x], [c, d, y]])


def map_point(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Map one point."""
    (a, b, u), (c, d, v) = matrix.tolist()
    return a * x + b * y + u, c * x + d * y + v


def area_scale(matrix: Matrix) -> float:
    """Return by how much a map enlarges areas; negative where it mirrors."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return float(a * d - b * c)


def invert(matrix: Matrix) -> Matrix:
    """Invert a map."""
    (a, b, x), (c, d, y) = matrix.tolist()
    scale = a * d - b * c
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    return np.array([[a, b, -(a * x + b * y)], [c, d, -(c * x + d * y)]])


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
    size = shrunk_size(size_of(image), side)
    if size == size_of(image):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def shrunk_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (width, height) with the longest side at most `side`."""
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def to_grey(image: ImageU8) -> Grey:
    """Convert an image to grey levels."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def warp(
    picture: npt.NDArray[Any],
    matrix: Matrix,
    size: tuple[int, int],
    *,
    border: int = cv2.BORDER_CONSTANT,
    fill: tuple[int, ...] = (0,),
) -> npt.NDArray[Any]:
    """Move a picture into (width, height), in steps of 1/32 pixel.

    `cv2.warpAffine` does the same, but its pixels differ between OpenCV 4.6 and 5.0 by up to 4 grey levels. Those of `cv2.remap`
    with whole-number maps do not differ.
    """
    width, height = size
    (a, b, x), (c, d, y) = invert(matrix).tolist()
    columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    x_of_column, y_of_column = ((step * columns).astype(np.float32) for step in (a, c))
    x_of_row, y_of_row = ((b * rows + x).astype(np.float32)[:, None], (d * rows + y).astype(np.float32)[:, None])
    moved = np.empty((height, width, *picture.shape[2:]), picture.dtype)
    step = min(height, max(1, STRIP_PIXELS // width))
    x_map, y_map = np.empty((2, step, width), np.float32)
    places, fractions = np.empty((step, width, 2), np.int16), np.empty((step, width), np.uint16)
    for top in range(0, height, step):
        strip, part = slice(top, min(top + step, height)), slice(0, min(step, height - top))
        np.add(x_of_column, x_of_row[strip], out=x_map[part])
        np.add(y_of_column, y_of_row[strip], out=y_map[part])
        maps = cv2.convertMaps(x_map[part], y_map[part], cv2.CV_16SC2, places[part], fractions[part])
        cv2.remap(picture, *maps, cv2.INTER_LINEAR, dst=moved[strip], borderMode=border, borderValue=fill)
    return moved


def cut_frame(image: ImageU8, matrix: Matrix, frame: tuple[int, int]) -> ImageU8:
    """Move a part into the frame of (width, height); what lies outside the image gets the border's median."""
    return warp(image, matrix, frame, fill=tuple(int(value) for value in border_median(image)))


def cut_shrunk(image: ImageU8, matrix: Matrix, frame: tuple[int, int], side: int) -> ImageU8:
    """Cut a frame and shrink it to a square of `side` pixels, which is at most the frame's shorter side, in one step.

    The bilinear map reads at most every second pixel in each direction: images of more detail are averaged first.
    """
    step = min(frame) // side
    averaged = image
    if step > 1:
        size = max(1, image.shape[1] // step), max(1, image.shape[0] // step)
        averaged = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    to_square = chain(resizing(size_of(averaged), size_of(image)), matrix, resizing(frame, (side, side)))
    return warp(averaged, to_square, (side, side), fill=tuple(int(value) for value in border_median(image)))


def corners_in_image(matrix: Matrix, frame: tuple[int, int]) -> FrameOutline:
    """Map the corners of a frame of (width, height) back into the image, from its first pixel's clockwise."""
    width, height = frame
    back = invert(matrix)
    corners = ((-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5))
    # A pixel's centre has whole coordinates in OpenCV; measured from the image's edge it lies half a pixel further.
    places = (map_point(back, x, y) for x, y in corners)
    return tuple((round(x + 0.5, 2), round(y + 0.5, 2)) for x, y in places)


def heatmap_in_image(heatmap: Heatmap, matrix: Matrix, frame: tuple[int, int], image: tuple[int, int]) -> Heatmap:
    """Map the heatmap of a frame back to the whole image, at about the same resolution; 0 outside the frame."""
    density = min(1.0, math.sqrt(heatmap.size / (frame[0] * frame[1])))
    grid = (max(MIN_GRID, round(image[0] * density)), max(MIN_GRID, round(image[1] * density)))
    return warp(heatmap, chain(resizing(size_of(heatmap), frame), invert(matrix), resizing(image, grid)), grid)


def correlation(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    """Compute Pearson's correlation; 0 where one of both is empty or constant."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    # For grey levels these sums are whole numbers, which a float holds exactly.
    sum_a, sum_b, count = float(a.sum()), float(b.sum()), a.size
    a_a, b_b, a_b = (float(x @ y) for x, y in ((a, a), (b, b), (a, b)))
    norm = math.sqrt(max(0.0, count * a_a - sum_a * sum_a)) * math.sqrt(max(0.0, count * b_b - sum_b * sum_b))
    return (count * a_b - sum_a * sum_b) / norm if norm > 0 else 0.0
