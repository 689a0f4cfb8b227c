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
    area_scale,
    chain,
    invert,
    resizing,
    shrink,
    size_of,
    to_grey,
)
from inspect_kd.datasets.alignment.refine import Refinement
from inspect_kd.types import ImageU8

WORKING_SIDE = 320
"""Longest side in pixels of the shrunk images in which corners are matched."""
CORNERS = 500
"""Most corners of a picture."""
EDGE = 15
"""Width in pixels of the ring along a picture's border in which no corner is looked for."""
MIN_MATCHES = 12
"""Fewest corners that must agree on one pose."""
MAX_ERROR = 3.0
"""Largest distance in pixels between a matched corner and its place."""
MAX_SCALE = 1.25
"""Largest ratio of sizes, either way, between a part and the reference."""
REFINE_SIDE = 160
"""Longest side in pixels of the pictures on which the match is refined."""
STEPS = 64
"""Coordinates of matched corners are rounded to whole numbers of steps; this is the number of steps in a pixel."""
NO_MATCH = NotFound("no match with the reference picture")


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """ORB's corners of a picture."""

    points_N2: npt.NDArray[np.float32]
    descriptors: Any
    """None where there is no corner."""


@dataclass(frozen=True, slots=True, eq=False)
class ShrunkImage:
    """An image in which corners are matched."""

    grey: Grey
    image_size: tuple[int, int]
    """(width, height) of the original image."""


def shrink_image(image: ImageU8) -> ShrunkImage:
    """Shrink an image of any size to the working side."""
    return ShrunkImage(shrink(to_grey(image), WORKING_SIDE), size_of(image))


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
    def refinement(self) -> Refinement:
        return Refinement(shrink(self.grey, REFINE_SIDE))

    def locate(self, image: ImageU8) -> tuple[Pose | None, NotFound | None]:
        """Find a part's pose."""
        return self.locate_in(shrink_image(image))

    def locate_in(self, shrunk: ShrunkImage) -> tuple[Pose | None, NotFound | None]:
        """Find the pose of a part in a shrunk image."""
        grey = shrunk.grey
        match = self._match(grey)
        matrix, quality = (None, 0.0) if match is None else self._refine(grey, match)
        if matrix is None:
            return None, NO_MATCH
        to_frame = resizing(size_of(self.grey), self.frame)
        return Pose(chain(resizing(shrunk.image_size, size_of(grey)), matrix, to_frame), quality), None

    def _match(self, grey: Grey) -> Matrix | None:
        """Estimate the similarity from a picture to the reference by matched corners."""
        found, reference = find_corners(grey), self.corners
        if found.descriptors is None or reference.descriptors is None:
            return None
        matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(found.descriptors, reference.descriptors)
        if len(matches) < MIN_MATCHES:
            return None
        here = found.points_N2[[match.queryIdx for match in matches]]
        there = reference.points_N2[[match.trainIdx for match in matches]]
        _, agrees = cv2.estimateAffinePartial2D(
            here, there, method=cv2.RANSAC, ransacReprojThreshold=MAX_ERROR, maxIters=2000, confidence=0.995
        )
        if agrees is None or int(agrees.sum()) < MIN_MATCHES:
            return None
        agree = agrees.ravel() > 0
        matrix = fit_similarity(here[agree], there[agree])
        return matrix if matrix is not None and 1 / MAX_SCALE < math.sqrt(area_scale(matrix)) < MAX_SCALE else None

    def _refine(self, grey: Grey, matrix: Matrix) -> tuple[Matrix | None, float]:
        """Improve a match by a small shift and turn; the quality is the correlation of all pixels."""
        to_coarse = resizing(size_of(self.grey), size_of(self.refinement.blurred))
        refined, quality = self.refinement.refine(grey, chain(matrix, to_coarse))
        return None if refined is None else chain(refined, invert(to_coarse)), quality


def fit_similarity(here_N2: npt.NDArray[np.float32], there_N2: npt.NDArray[np.float32]) -> Matrix | None:
    """Fit the shift, turn and scale that move points to others by least squares; None if they are all at one place."""
    # Sums of whole numbers are exact, so the C++ program gets the same digits; OpenCV's own fit would not give the same ones.
    here, there = (np.rint(points * STEPS).astype(np.int64) for points in (here_N2, there_N2))
    count = len(here)
    (x, y), (u, v) = (points.sum(axis=0).tolist() for points in (here, there))

    def products(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64], sums: int) -> int:
        return count * int((one * other).sum()) - sums

    (xs, ys), (us, vs) = here.T, there.T
    spread = products(xs, xs, x * x) + products(ys, ys, y * y)
    if spread <= 0:
        return None
    a = (products(xs, us, x * u) + products(ys, vs, y * v)) / spread
    b = (products(xs, vs, x * v) - products(ys, us, y * u)) / spread
    scale = float(STEPS * count)
    return np.array([[a, -b, (u - (a * x - b * y)) / scale], [b, a, (v - (b * x + a * y)) / scale]])


def find_corners(grey: Grey) -> Corners:
    """Find the corners of a picture."""
    # ORB finds no corner this near to the border, but fails if its own shrinking leaves nothing of a picture.
    if min(grey.shape) <= 2 * EDGE:
        return Corners(np.empty((0, 2), np.float32), None)
    orb = cv2.ORB.create(nfeatures=CORNERS, edgeThreshold=EDGE, fastThreshold=8)
    points, descriptors = orb.detectAndCompute(grey, None)
    return Corners(np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors)
