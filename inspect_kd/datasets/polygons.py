"""Polygons on a grid of pixels: which pixels lie inside, and whether an outline is usable.

Unusual here: polygons are not filled by `cv2.fillPoly`, which differs between OpenCV 4.6 and 5.0 by pixels along the outline. The
C++ caller may have another OpenCV, and one more ignored pixel shows the model another picture.

Shapes: K corners, H W picture, R rows that the polygon reaches, S spans of a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inspect_kd.types import Mask

Corners = npt.NDArray[np.float64]
"""(K, 2): x and y."""


def inside_polygon(corners: Corners, size: tuple[int, int]) -> Mask:
    """Whether each pixel of a picture at (width, height) has its centre inside a polygon or on its outline.

    Corners are rounded to pixels. At most 2^15 of them along an axis make every comparison below exact.
    """
    width, height = size
    start = np.rint(corners)
    end = np.roll(start, -1, axis=0)
    low, high = np.minimum(start, end)[:, 1], np.maximum(start, end)[:, 1]
    rows_R1 = np.arange(low.min(), min(high.max(), height - 1) + 1)[:, None]
    is_level = low == high
    (x, y), (along, down) = start.T, (end - start).T
    crossings_RK = (x * down + (rows_R1 - y) * along) / np.where(is_level, 1, down)
    # Where a row meets corners, it borders on what lies above it and on what lies below it.
    above, below = (low < rows_R1) & (rows_R1 <= high), (low <= rows_R1) & (rows_R1 < high)
    changes = np.zeros((len(rows_R1), width + 1), np.int32)
    for is_crossed in (above, below):
        spans_RK = np.sort(np.where(is_crossed & ~is_level, crossings_RK, np.inf), axis=1)[:, : len(start) // 2 * 2]
        _add_spans(changes, spans_RK[:, 0::2], spans_RK[:, 1::2])
    ends_RK = np.where(is_level & (rows_R1 == y), x, np.inf), np.where(is_level & (rows_R1 == y), x + along, np.inf)
    _add_spans(changes, np.minimum(*ends_RK), np.maximum(*ends_RK))
    mask = np.zeros((height, width), np.bool_)
    mask[int(rows_R1[0, 0]) : int(rows_R1[-1, 0]) + 1] = np.cumsum(changes, axis=1)[:, :width] > 0
    return mask


def _add_spans(changes: npt.NDArray[np.int32], left_RS: Corners, right_RS: Corners) -> None:
    """Count the spans that begin, and minus those that have ended, at each pixel."""
    first, last = np.ceil(left_RS), np.minimum(np.floor(right_RS), changes.shape[1] - 2)
    rows, _ = in_picture = np.nonzero(np.isfinite(left_RS) & (first <= last))
    np.add.at(changes, (rows, first[in_picture].astype(int)), 1)
    np.add.at(changes, (rows, last[in_picture].astype(int) + 1), -1)


def crosses_itself(corners: Corners) -> bool:
    """Whether two edges cross: the ends of each lie on both sides of the other."""
    start, end = corners, np.roll(corners, -1, axis=0)
    along = end - start

    def side(ends: Corners) -> Corners:
        offset = ends[None] - start[:, None]
        return np.asarray(np.sign(along[:, None, 0] * offset[:, :, 1] - along[:, None, 1] * offset[:, :, 0]))

    straddles = side(start) * side(end) < 0
    return bool((straddles & straddles.T).any())


def polygon_area(corners: Corners) -> float:
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
