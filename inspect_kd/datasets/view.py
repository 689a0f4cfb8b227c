"""How a model that takes squares looks at an image of any size: squashed as a whole, or tile by tile with blended seams.

Training, calibration, evaluation and the line use this one view, so a score means the same everywhere. No torch here.

Shapes: N frames, H W image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.images import resize
from inspect_kd.types import Answers, Heatmap, ImageU8, Model

BATCH = 8
"""Frames that a model is asked about at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    size: int
    """Side of the model's input."""
    tile: int | None = None
    """Side of a tile in the image's own pixels; None squashes the whole image into one frame."""
    overlap: float = 0.25
    """Share of a tile that its neighbour sees too."""

    def scaled(self, image: ImageU8) -> ImageU8:
        """The image at the frames' scale, at least one frame large: what tiles are cut from."""
        if self.tile is None:
            return resize(image, self.size, self.size)
        width, height = self._extent(image)
        scaled = resize(image, width, height)
        missing = (0, max(0, self.size - height), 0, max(0, self.size - width))
        # Mirrored: a black border would be a defect on every small part.
        return (
            np.asarray(cv2.copyMakeBorder(scaled, *missing, cv2.BORDER_REFLECT), np.uint8) if any(missing) else scaled
        )

    def frames(self, image: ImageU8) -> npt.NDArray[np.uint8]:
        """(N, size, size, 3): everything that the model is to see of this image."""
        scaled = self.scaled(image)
        return np.stack([scaled[top : top + self.size, left : left + self.size] for top, left in self._corners(scaled)])

    def middle_frame(self, image: ImageU8) -> ImageU8:
        """One frame to stand for the image where all would be too many."""
        frames = self.frames(image)
        return np.asarray(frames[len(frames) // 2], np.uint8)

    def join(self, answers: Answers, image: ImageU8) -> tuple[float, Heatmap]:
        """The image's score, that of its worst frame, and its heatmap at the frames' scale."""
        score = float(answers.scores_N.max())
        if not np.isfinite(answers.scores_N).all():
            score = math.nan  # max() would hide one behind a finite neighbour
        if self.tile is None:
            return score, answers.heatmaps_NHW[0]
        width, height = self._extent(image)
        padded = (max(height, self.size), max(width, self.size))
        heat, weight = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
        fade = _fade(self.size, self.overlap)
        for (top, left), heatmap in zip(self._corners(heat), answers.heatmaps_NHW, strict=True):
            place = slice(top, top + self.size), slice(left, left + self.size)
            heat[place] += fade * heatmap
            weight[place] += fade
        return score, np.asarray((heat / weight)[:height, :width], np.float32)

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


def look(model: Model, view: View, image: ImageU8) -> tuple[float, Heatmap]:
    """Score and heatmap of one image."""
    return view.join(_ask(model, view.frames(image)), image)


def look_at_many(model: Model, view: View, images: list[ImageU8]) -> list[tuple[float, Heatmap]]:
    """The same for several; whole images share a batch."""
    if view.tile is not None:
        return [look(model, view, image) for image in images]
    answers = _ask(model, np.concatenate([view.frames(image) for image in images]))
    return [(float(score), heatmap) for score, heatmap in zip(*answers, strict=True)]


def _ask(model: Model, frames_NHW3: npt.NDArray[np.uint8]) -> Answers:
    parts = [model.look(frames_NHW3[start : start + BATCH]) for start in range(0, len(frames_NHW3), BATCH)]
    if len(parts) == 1:
        return parts[0]
    return Answers(
        np.concatenate([part.scores_N for part in parts]), np.concatenate([part.heatmaps_NHW for part in parts])
    )


@lru_cache
def _fade(size: int, overlap: float) -> npt.NDArray[np.float32]:
    """How much a tile's heat counts at each of its places: all in the middle, next to nothing at its rim."""
    shared = max(1, int(overlap * size))
    ramp = (np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / shared
    rise = np.sin(np.clip(ramp, 0, 1) * math.pi / 2) ** 2
    return np.asarray(np.outer(rise, rise), np.float32)
