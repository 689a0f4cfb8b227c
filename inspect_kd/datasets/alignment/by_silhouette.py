"""Alignment of single parts on a plain background, by their silhouettes.

A part's centroid is moved to one place of the frame, and its principal axis is turned to one direction. An axis does not say which
end is which: both turns are tried, and the one is taken after which silhouette and grey levels agree better with the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from inspect_kd.datasets.alignment.pose import (
    Grey,
    Matrix,
    NotFound,
    Pose,
    area_scale,
    chain,
    correlation,
    map_point,
    resizing,
    shift,
    shrink,
    shrunk_size,
    size_of,
    to_grey,
    turn,
    warp,
)
from inspect_kd.datasets.alignment.silhouette import Silhouette, find_silhouette
from inspect_kd.types import ImageU8

WORKING_SIDE = 256
"""Longest side in pixels of the shrunk image in which parts are looked for."""
REFERENCE_SIDE = 128
"""Longest side in pixels of the reference's pictures."""
ROUND = 1.15
"""A silhouette whose axes' ratio is below this has no reliable direction: such parts are centred and never turned."""
EXTENT = 99
"""Percentile of the parts' extents that the frame is fitted to."""
MARGIN = 0.06
"""Added on each side of the frame, as a share of the parts' extent."""


@dataclass(frozen=True, slots=True, eq=False)
class ShrunkPart:
    """A sound part in a shrunk image, with its silhouette."""

    grey: Grey
    silhouette: Silhouette
    image_size: tuple[int, int]
    """(width, height) of the original image."""

    @property
    def to_image(self) -> Matrix:
        """Map from the shrunk image to the original one."""
        return resizing(size_of(self.grey), self.image_size)

    @property
    def is_line(self) -> bool:
        """Whether the silhouette is a single row or column of pixels, around which there is no frame."""
        rows, columns = np.nonzero(self.silhouette.mask)
        return bool(np.ptp(rows) == 0 or np.ptp(columns) == 0)


def find_part(image: ImageU8) -> ShrunkPart | NotFound:
    """Find the one part in an image of any size."""
    small = shrink(image, WORKING_SIDE)
    silhouette = find_silhouette(small)
    return silhouette if isinstance(silhouette, NotFound) else ShrunkPart(to_grey(small), silhouette, size_of(image))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SilhouetteReference:
    """The reference frame, and small pictures of it with the average sound part."""

    frame: tuple[int, int]
    """(width, height) in pixels of the original images."""
    anchor: tuple[float, float]
    """Place in the frame of the part's centroid."""
    axis: float | None
    """Direction in the frame of the principal axis, in radians; None: parts are never turned."""
    grey: Grey
    mask: Grey
    """255 where every sound part is, 0 where none is."""
    max_border_share: float = 1.0
    """Largest share of the image's border that a part may touch: beyond it the camera has not seen the whole part."""

    def locate(self, image: ImageU8) -> tuple[Pose | None, NotFound | None]:
        """Find a part's pose; beside a pose, a reason means that the part is not completely in the image."""
        return self.locate_in(find_part(image))

    def locate_in(self, part: ShrunkPart | NotFound) -> tuple[Pose | None, NotFound | None]:
        """Find the pose of a part in a shrunk image."""
        if isinstance(part, NotFound):
            return None, part
        cut = part.silhouette.border_share > self.max_border_share
        return self.pose_of(part), NotFound("the part is cut off by the picture's border") if cut else None

    def pose_of(self, part: ShrunkPart) -> Pose:
        """Choose the direction of a silhouette that agrees best with the reference."""
        silhouette = part.silhouette
        x, y = map_point(part.to_image, silhouette.x, silhouette.y)
        turns = (0.0,) if self.axis is None else (self.axis - silhouette.angle, self.axis - silhouette.angle + math.pi)
        poses = []
        for angle in turns:
            matrix = chain(shift(-x, -y), turn(angle), shift(*self.anchor))
            to_picture = chain(part.to_image, matrix, resizing(self.frame, size_of(self.mask)))
            overlap = self._overlap(silhouette.mask, to_picture)
            likeness = self._likeness(part.grey, to_picture) if len(turns) > 1 else 0.0
            poses.append((overlap + likeness, Pose(matrix, overlap)))
        return max(poses, key=lambda pose: pose[0])[1]

    def _overlap(self, mask: Grey, to_picture: Matrix) -> float:
        """Intersection over union with the reference's silhouette; pixels outside the frame belong to the union."""
        moved = warp(mask, to_picture, size_of(self.mask))
        whole = float(np.sum(mask, dtype=np.int64)) * abs(area_scale(to_picture))
        common = float(np.minimum(moved, self.mask).sum(dtype=np.int64))
        union = max(whole, float(moved.sum(dtype=np.int64))) + float(self.mask.sum(dtype=np.int64)) - common
        return common / union if union > 0 else 0.0

    def _likeness(self, grey: Grey, to_picture: Matrix) -> float:
        """Correlation of the grey levels where the reference's part is."""
        on_part = self.mask > 127
        return correlation(move(grey, to_picture, self.mask)[on_part], self.grey[on_part])


def move(picture: Grey, matrix: Matrix, into: Grey) -> Grey:
    """Move a picture into another one's size; the border is continued."""
    return warp(picture, matrix, size_of(into), border=cv2.BORDER_REPLICATE)


def fit_silhouette_reference(parts: Sequence[ShrunkPart]) -> SilhouetteReference:
    """Fit frame and pictures to sound parts; directions are chosen against the part of median area, then against the average."""
    middle = sorted(parts, key=lambda part: part.silhouette.area / part.grey.size)[len(parts) // 2]
    are_turned = float(np.median([part.silhouette.axis_ratio for part in parts])) >= ROUND
    # The nearest of the four upright directions: so people see parts turned as little as possible.
    axis = round(middle.silhouette.angle / (math.pi / 2)) * math.pi / 2 if are_turned else None
    side = math.ceil(2 * math.hypot(*middle.image_size))
    blank = np.zeros((REFERENCE_SIDE * 2, REFERENCE_SIDE * 2), np.uint8)
    wide = SilhouetteReference(frame=(side, side), anchor=(side / 2, side / 2), axis=axis, grey=blank, mask=blank)
    first = _with_pictures(wide, [middle])
    average = _with_pictures(_cropped(first, parts), parts, directions=first)
    fitted = _with_pictures(_cropped(average, parts), parts, directions=average)
    return replace(fitted, max_border_share=1.5 * max(part.silhouette.border_share for part in parts) + 0.005)


def _cropped(reference: SilhouetteReference, parts: Sequence[ShrunkPart]) -> SilhouetteReference:
    """Return a reference with the frame around the parts as this one aligns them; its pictures are still blank."""
    reach = np.array([list(_reach(part, reference)) for part in parts])
    left, top, right, bottom = map(float, np.percentile(reach, EXTENT, axis=0))
    width, height = left + right, top + bottom
    frame = math.ceil(width * (1 + 2 * MARGIN)), math.ceil(height * (1 + 2 * MARGIN))
    blank = np.zeros(shrunk_size(frame, REFERENCE_SIDE)[::-1], np.uint8)
    return replace(
        reference, frame=frame, anchor=(left + MARGIN * width, top + MARGIN * height), grey=blank, mask=blank
    )


def _reach(part: ShrunkPart, reference: SilhouetteReference) -> Iterator[float]:
    """Yield how far a part reaches from the anchor to the left, up, right and down."""
    rows, columns = np.nonzero(part.silhouette.mask)
    corners = np.stack([columns, rows, np.ones_like(rows)])
    x, y = chain(part.to_image, reference.pose_of(part).matrix) @ corners
    yield from (reference.anchor[0] - x.min(), reference.anchor[1] - y.min())
    yield from (x.max() - reference.anchor[0], y.max() - reference.anchor[1])


def _with_pictures(
    reference: SilhouetteReference, parts: Sequence[ShrunkPart], directions: SilhouetteReference | None = None
) -> SilhouetteReference:
    """Average the pictures of parts; another reference, of another frame, may decide their directions."""
    greys, masks = [], []
    for part in parts:
        matrix = (directions or reference).pose_of(part).matrix
        if directions is not None:
            matrix = chain(matrix, shift(*np.subtract(reference.anchor, directions.anchor)))
        to_picture = chain(part.to_image, matrix, resizing(reference.frame, size_of(reference.mask)))
        greys.append(move(part.grey, to_picture, reference.mask))
        masks.append(warp(part.silhouette.mask, to_picture, size_of(reference.mask)))
    grey, mask = (np.asarray(np.mean(pictures, axis=0).round(), np.uint8) for pictures in (greys, masks))
    return replace(reference, grey=grey, mask=mask)
