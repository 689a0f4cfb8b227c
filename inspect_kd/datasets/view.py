"""How a model that takes squares looks at an image of any size: squashed as a whole, or tile by tile with blended seams.

Training, calibration, evaluation and the line use this one view, so a score means the same everywhere. No torch here.

Shapes: N frames, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, UsageError
from inspect_kd.resize import resize
from inspect_kd.types import Heatmap, ImageU8, Model

BATCH = 8
"""Frames that a model is asked about at once."""

LARGEST_SCALED = 400_000_000
"""Pixels of an image at its frames' scale: a thin image grows to a whole frame's width, a small tile up to a frame's side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    size: int
    """Side of the model's input."""
    tile: int | None = None
    """Side of a tile in the image's own pixels; None squashes the whole image into one frame."""
    overlap: float = 0.25
    """Share of a tile that its neighbour sees too."""

    def __post_init__(self) -> None:
        if self.tile is not None and 2 * self.tile < self.size:
            raise UsageError(
                f"data.tile: tiles of {self.tile} pixels blown up to {self.size} show nothing new; at least {self.size // 2}"
            )

    def scaled(self, image: ImageU8) -> ImageU8:
        """The image at the frames' scale, at least one frame large: what tiles are cut from."""
        if self.tile is None:
            return resize(image, self.size, self.size)
        self.check_size(image)
        width, height = self._extent(image)
        scaled = resize(image, width, height)
        missing = (0, max(0, self.size - height), 0, max(0, self.size - width))
        # Mirrored: a black border would be a defect on every small part.
        return (
            np.asarray(cv2.copyMakeBorder(scaled, *missing, cv2.BORDER_REFLECT), np.uint8) if any(missing) else scaled
        )

    def check_size(self, image: npt.NDArray[np.generic], name: str = "an image") -> None:
        """Refuse an image that would take too much memory at the scale of its tiles; `name` is what the error calls it."""
        if self.tile is None:
            return
        width, height = (max(length, self.size) for length in self._extent(image))
        if width * height > LARGEST_SCALED:
            raise BadInput(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels take {width * height // 10**6} million at the scale of "
                f"their tiles, at most {LARGEST_SCALED // 10**6} million are inspected; crop the image or use larger tiles"
            )

    def frames(self, image: ImageU8) -> Iterator[ImageU8]:
        """Everything that the model is to see of this image, row by row."""
        scaled = self.scaled(image)
        for top, left in self._corners(scaled):
            yield scaled[top : top + self.size, left : left + self.size]

    def middle_frame(self, image: ImageU8) -> ImageU8:
        """One frame to stand for the image where all would be too many."""
        scaled = self.scaled(image)
        corners = self._corners(scaled)
        top, left = corners[len(corners) // 2]
        return scaled[top : top + self.size, left : left + self.size]

    def join(self, answers: Iterable[tuple[float, Heatmap]], image: ImageU8) -> tuple[float, Heatmap]:
        """The image's score, that of its worst frame, and its heatmap at the frames' scale; answers in the frames' order."""
        if self.tile is None:
            return next(iter(answers))
        width, height = self._extent(image)
        heat = np.zeros((max(height, self.size), max(width, self.size)), np.float32)
        weight = np.zeros_like(heat)
        fade = _fade(self.size, self.overlap)
        scores = []
        for (top, left), (score, heatmap) in zip(self._corners(heat), answers, strict=True):
            place = slice(top, top + self.size), slice(left, left + self.size)
            heat[place] += fade * heatmap
            weight[place] += fade
            scores.append(score)
        heat /= weight
        # Python's max() would hide a NaN behind a number.
        return float(np.max(scores)), heat[:height, :width]

    def _extent(self, image: npt.NDArray[np.generic]) -> tuple[int, int]:
        """(width, height) of the image at the frames' scale."""
        assert self.tile is not None
        height, width = image.shape[:2]
        return max(1, round(width * self.size / self.tile)), max(1, round(height * self.size / self.tile))

    def _corners(self, scaled: npt.NDArray[np.generic]) -> list[tuple[int, int]]:
        """Upper left corners, evenly spread: no tile hangs over the border, none lies upon another."""
        tops, lefts = (self._starts(length) for length in scaled.shape[:2])
        return [(top, left) for top in tops for left in lefts]

    def _starts(self, length: int) -> list[int]:
        shared = int(self.overlap * self.size)
        count = max(1, math.ceil((length - shared) / (self.size - shared)))
        return [round(start) for start in np.linspace(0, length - self.size, count)]


def predict_image(model: Model, view: View, image: ImageU8) -> tuple[float, Heatmap]:
    """Score and heatmap of one image."""
    return view.join(_ask(model, view.frames(image)), image)


def predict_images(model: Model, view: View, images: Iterable[ImageU8]) -> Iterator[tuple[float, Heatmap]]:
    """The same for several, read when their turn comes; whole images share a batch."""
    if view.tile is None:
        yield from _ask(model, (frame for image in images for frame in view.frames(image)))
    else:
        for image in images:
            yield predict_image(model, view, image)


def _ask(model: Model, frames: Iterator[ImageU8]) -> Iterator[tuple[float, Heatmap]]:
    """A batch at a time: of a large image thousands of frames and answers would not fit into memory together."""
    while batch := list(islice(frames, BATCH)):
        scores_N, heatmaps_NHW = model.predict_batch(np.stack(batch))
        yield from zip(map(float, scores_N), heatmaps_NHW, strict=True)


@lru_cache
def _fade(size: int, overlap: float) -> npt.NDArray[np.float32]:
    """How much a tile's heat counts at each of its places: all in the middle, next to nothing at its rim."""
    shared = max(1, int(overlap * size))
    ramp = (np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / shared
    rise = np.sin(np.clip(ramp, 0, 1) * math.pi / 2) ** 2
    return np.asarray(np.outer(rise, rise), np.float32)
