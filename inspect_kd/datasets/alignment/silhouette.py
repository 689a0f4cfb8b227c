"""Find the silhouette of a single part on a plain background.

The difference to the border's colour is thresholded by Otsu's method; the largest connected component is the part. Its moments
give the centroid and the principal axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from inspect_kd.datasets.alignment.pose import Grey, NotFound, border_median
from inspect_kd.types import ImageU8

MIN_CONTRAST = 24
"""Least difference to the background, in grey levels, that separates a part from it."""
MIN_AREA, MAX_AREA = 0.005, 0.95
"""Smallest and largest part, as a share of the image."""
SECOND_PART = 0.4
"""A component of at least this share of the largest one's area counts as another part."""
_KERNEL = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)), np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Silhouette:
    """A part's silhouette, and the pose and size that follow from its moments."""

    mask: Grey
    """255 on the part, 0 elsewhere."""
    x: float
    y: float
    """The centroid."""
    angle: float
    """Direction of the principal axis, in radians."""
    axis_ratio: float
    """Length of the principal axis over that of the other one."""
    area: int
    border_share: float
    """Share of the image's border that the part touches."""


def find_silhouette(image: ImageU8) -> Silhouette | NotFound:
    """Find the one part in an image; it is meant for images of about 256 pixels."""
    height, width = image.shape[:2]
    background = np.full_like(image, border_median(image))
    red, green, blue = cv2.split(cv2.absdiff(image, background))
    difference = cv2.GaussianBlur(cv2.max(cv2.max(red, green), blue), (5, 5), 0)
    if difference.max() < MIN_CONTRAST:
        return NotFound("no part on the background")
    _, mask = cv2.threshold(difference, 0, 255, cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _KERNEL)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _KERNEL)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < MIN_AREA * height * width:
        return NotFound("no part on the background")
    if areas.max() > MAX_AREA * height * width:
        return NotFound("no background around the part")
    parts = int((areas >= SECOND_PART * areas.max()).sum())
    if parts > 1:
        return NotFound(f"{parts} parts in one picture")
    largest = 1 + int(areas.argmax())
    return measure_silhouette(np.asarray(cv2.inRange(labels, (largest,), (largest,)), np.uint8))


def measure_silhouette(mask: Grey) -> Silhouette:
    """Compute a silhouette's moments."""
    moments = cv2.moments(mask, binaryImage=True)
    area, along_x, along_y = (moments[key] for key in ("m00", "m10", "m01"))
    # Computed from the raw moments, which are integers, and without hypot(), so that the C++ program gets the same digits.
    x, y = along_x / area, along_y / area
    xx, xy, yy = moments["m20"] / area - x * x, moments["m11"] / area - x * y, moments["m02"] / area - y * y
    root = math.sqrt((xx - yy) * (xx - yy) + 4 * xy * xy)
    longer, shorter = (max((xx + yy + sign * root) / 2, 1e-9) for sign in (1, -1))
    touching = sum(int(np.count_nonzero(side)) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return Silhouette(
        mask=mask,
        x=x,
        y=y,
        angle=0.5 * math.atan2(2 * xy, xx - yy),
        axis_ratio=math.sqrt(longer / shorter),
        area=int(area),
        border_share=touching / (2 * sum(mask.shape)),
    )
