"""Alignment of boards, prints and parts in clutter: match corners with a reference picture, then refine the match on all pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.alignment.pose import (
    Grey,
    Matrix,
    NotFound,
    Pose,
    chain,
    invert,
    resizing,
    shrink,
    size_of,
    to_grey,
)
from inspect_kd.types import ImageU8

WORKING_SIDE = 320
"""Longest side in pixels of the shrunk images in which corners are matched."""
CORNERS = 500
"""Most corners of a picture."""
MIN_MATCHES = 12
"""Fewest corners that must agree on one pose."""
MAX_ERROR = 3.0
"""Largest distance in pixels between a matched corner and its place."""
MAX_SCALE = 1.25
"""Largest ratio of sizes, either way, between a part and the reference."""
REFINE_SIDE = 128
"""Longest side in pixels of the pictures on which the match is refined."""
ITERATIONS = 30
FILTER = 5
"""Width in pixels of the blur during refinement."""
NO_MATCH = NotFound("no match with the reference picture")


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """ORB's corners of a picture."""

    points_N2: npt.NDArray[np.float32]
    descriptors: Any
    """None where there is no corner."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateReference:
    """The picture of one sound part, which is the reference frame."""

    frame: tuple[int, int]
    """(width, height) in pixels of the original images."""
    grey: Grey
    """The frame, shrunk to the working side."""

    @cached_property
    def corners(self) -> Corners:
        return find_corners(self.grey)

    @cached_property
    def coarse(self) -> Grey:
        return shrink(self.grey, REFINE_SIDE)

    def locate(self, image: ImageU8) -> tuple[Pose | None, NotFound | None]:
        """Find a part's pose."""
        grey = to_grey(shrink(image, WORKING_SIDE))
        match = self._match(grey)
        matrix, quality = (None, 0.0) if match is None else self._refine(grey, match)
        if matrix is None:
            return None, NO_MATCH
        to_frame = resizing(size_of(self.grey), self.frame)
        return Pose(chain(resizing(size_of(image), size_of(grey)), matrix, to_frame), quality), None

    def _match(self, grey: Grey) -> Matrix | None:
        """Estimate the similarity from a picture to the reference by matched corners."""
        found, reference = find_corners(grey), self.corners
        if found.descriptors is None or reference.descriptors is None:
            return None
        matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(found.descriptors, reference.descriptors)
        if len(matches) < MIN_MATCHES:
            return None
        matrix, agrees = cv2.estimateAffinePartial2D(
            found.points_N2[[match.queryIdx for match in matches]],
            reference.points_N2[[match.trainIdx for match in matches]],
            method=cv2.RANSAC,
            ransacReprojThreshold=MAX_ERROR,
            maxIters=2000,
            confidence=0.995,
        )
        if matrix is None or int(agrees.sum()) < MIN_MATCHES:
            return None
        scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
        return np.asarray(matrix, np.float64) if 1 / MAX_SCALE < scale < MAX_SCALE else None

    def _refine(self, grey: Grey, matrix: Matrix) -> tuple[Matrix | None, float]:
        """Improve a match by a small shift and turn; the quality is the correlation of all pixels."""
        to_coarse = resizing(size_of(self.grey), size_of(self.coarse))
        moved = cv2.warpAffine(
            grey,
            chain(matrix, to_coarse),
            size_of(self.coarse),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 1e-4)
        step: Any = np.eye(2, 3, dtype=np.float32)
        try:
            quality, step = cv2.findTransformECC(
                self.coarse, moved, step, cv2.MOTION_EUCLIDEAN, stop, np.full_like(self.coarse, 255), FILTER
            )
        except cv2.error:  # it does not converge
            return None, 0.0
        return chain(matrix, to_coarse, invert(np.asarray(step, np.float64)), invert(to_coarse)), max(
            0.0, float(quality)
        )


def find_corners(grey: Grey) -> Corners:
    """Find the corners of a picture."""
    orb = cv2.ORB.create(nfeatures=CORNERS, edgeThreshold=15, fastThreshold=8)
    points, descriptors = orb.detectAndCompute(grey, None)
    return Corners(np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors)
