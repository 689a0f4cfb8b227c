"""From a camera's image to model input and back: align the part, cut it into square frames, map the heatmap back.

Training, calibration, evaluation and the line share this, so a score means the same everywhere. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain as joined
from typing import NamedTuple

import cv2
import numpy as np

from inspect_kd.datasets.alignment import Alignment, NotFound, cut_frame, heatmap_in_image
from inspect_kd.datasets.alignment.pose import Matrix, resizing, size_of
from inspect_kd.datasets.view import BATCH, View, predict_frames
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.types import NOT_FOUND_SCORE, Heatmap, ImageU8, Mask, Model


class ImagePrediction(NamedTuple):
    """What a model predicts for one image."""

    score: float
    heatmap: Heatmap
    """Over the whole image, at about the model's resolution; 0 where nothing was inspected."""
    not_found: str | None = None
    """Why the part counts as not found; its score is then above every threshold."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """An image ready to be cut into frames."""

    picture: ImageU8
    """The reference frame with the part; without alignment the image itself."""
    image_size: tuple[int, int]
    """(width, height) of the original image."""
    matrix: Matrix | None = None
    """Map from the image into the frame; None without alignment."""
    fault: NotFound | None = None

    def mask_in_picture(self, mask: Mask) -> Mask:
        """Move a mask of the original image into the picture."""
        if self.matrix is None:
            return mask
        moved = cv2.warpAffine(mask.astype(np.uint8), self.matrix, size_of(self.picture), flags=cv2.INTER_NEAREST)
        return np.asarray(moved > 0)

    def heatmap_in_image(self, heatmap: Heatmap) -> Heatmap:
        """Map the picture's heatmap back to the original image."""
        if self.matrix is None:
            return heatmap
        return heatmap_in_image(heatmap, self.matrix, size_of(self.picture), self.image_size)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Presentation:
    """How the images of one category become model input."""

    view: View
    alignment: Alignment | None = None

    def prepare(self, image: ImageU8) -> Prepared:
        """Align the part in an image, if this category's parts are aligned."""
        if self.alignment is None:
            return Prepared(picture=image, image_size=size_of(image))
        found = self.alignment.locate(image)
        if found.pose is not None:
            matrix = found.pose.matrix
        else:  # nothing to align: people still see where the picture differs
            matrix = resizing(size_of(image), self.alignment.frame)
        picture = cut_frame(image, matrix, self.alignment.frame)
        return Prepared(picture=picture, image_size=size_of(image), matrix=matrix, fault=found.fault)

    def scaled(self, image: ImageU8) -> ImageU8:
        """Align an image and resize it to the frames' scale."""
        return self.view.scaled(self.prepare(image).picture)

    def middle_frame(self, image: ImageU8) -> ImageU8:
        """Return the middle one of an image's frames."""
        return self.view.middle_frame(self.prepare(image).picture)

    def check_size(self, image: ImageU8, name: str = "an image") -> None:
        """Refuse an image that would need too much memory; `name` is used in the error."""
        if self.alignment is None:
            self.view.check_size(image, name)
        elif max(image.shape[:2]) >= 2**15:
            raise BadInput(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels; an image to align has at most 32767 a side"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Presentations:
    """The presentation of each category."""

    by_category: Mapping[str, Presentation]
    default: Presentation | None = None
    """For categories without one of their own."""

    @staticmethod
    def all_alike(view: View) -> Presentations:
        """Present all categories alike, without alignment."""
        return Presentations(by_category={}, default=Presentation(view=view))

    def of(self, category: str) -> Presentation:
        """The presentation of a category."""
        presentation = self.by_category.get(category, self.default)
        if presentation is None:
            raise UsageError(f"no category '{category}' here; there are: {', '.join(sorted(self.by_category))}")
        return presentation
