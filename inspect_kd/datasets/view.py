"""Split images of any size into a model's square frames: the whole image squashed, or overlapping tiles with blended seams.

Training, calibration, evaluation and inspection use the same view, so that scores are comparable. No torch.

Shapes: N frames, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, UsageError
from inspect_kd.resize import resize, resize_map
from inspect_kd.types import Heatmap, ImageU8, Model

Scalar = TypeVar("Scalar", bound=np.generic)
BATCH = 8
"""Frames that are predicted at once."""
MAX_SCALED_PIXELS = 400_000_000
"""Limit for an image at the frames' scale, which can exceed the image itself: tiles smaller than a frame are enlarged."""


class Frame(NamedTuple):
    """One square of an image, as a model takes it."""

    image: ImageU8
    weights: npt.NDArray[np.float32] | None = None
    """The zones' weights (h, w) on the grid of the model's second input; None without zones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """How images become frames: the frame's size, and tiles if any."""

    size: int
    """Side of the model's input."""
    tile: int | None = None
    """Side of a tile in the image's own pixels; None squashes the whole image into one frame."""
    overlap: float = 0.25
    """Share of a tile's side that overlaps with its neighbour."""

    def __post_init__(self) -> None:
        if self.tile is not None and 2 * self.tile < self.size:
            raise UsageError(
                f"data.tile: {self.tile} pixels is less than half the model's size of {self.size}, and enlarging adds no detail; "
                f"set it to at least {self.size // 2}"
            )

    def scaled(self, image: ImageU8) -> ImageU8:
        """Resize an image to the frames' scale, padded to at least one frame; tiles are cut from the result."""
        self.check_size(image)
        width, height = self._extent(image.shape[1], image.shape[0])
        return np.asarray(self._pad(resize(image, width, height)), np.uint8)

    def scaled_map(self, values_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Resize and pad a map with one value per pixel of an image, as `scaled` does with the image."""
        width, height = self._extent(values_HW.shape[1], values_HW.shape[0])
        return np.asarray(self._pad(resize_map(values_HW, width, height)), np.float32)

    def _pad(self, scaled: npt.NDArray[Any]) -> npt.NDArray[Any]:
        height, width = scaled.shape[:2]
        padding = (0, max(0, self.size - height), 0, max(0, self.size - width))
        # Pad by reflection, because a black border would look like a defect.
        return cv2.copyMakeBorder(scaled, *padding, cv2.BORDER_REFLECT) if any(padding) else scaled

    def check_size(self, image: npt.NDArray[np.generic], name: str = "an image") -> None:
        """Refuse an image that would need too much memory at the frames' scale; `name` is used in the error."""
        if self.tile is None:
            return
        width, height = (max(length, self.size) for length in self._extent(image.shape[1], image.shape[0]))
        if width * height > MAX_SCALED_PIXELS:
            raise BadInput(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels become {width * height // 10**6} million at the tiles' scale; "
                f"the limit is {MAX_SCALED_PIXELS // 10**6} million: crop the image or use larger tiles"
            )

    def cut(self, scaled: npt.NDArray[Scalar]) -> Iterator[npt.NDArray[Scalar]]:
        """Yield all frames of an image, or of a map, at the frames' scale."""
        for top, left in self._corners(scaled):
            yield scaled[top : top + self.size, left : left + self.size]

    def count(self, width: int, height: int) -> int:
        """Return the number of frames of an image."""
        if self.tile is None:
            return 1
        across, down = (max(1, round(length * self.size / self.tile)) for length in (width, height))
        return len(self._starts(max(down, self.size))) * len(self._starts(max(across, self.size)))

    def tile_corners(self, width: int, height: int) -> list[tuple[float, float]]:
        """Return the tiles' upper left corners (x, y) in pixels of an image; empty without tiles."""
        if self.tile is None:
            return []
        across, down = (max(1, round(length * self.size / self.tile)) for length in (width, height))
        tops, lefts = (self._starts(max(length, self.size)) for length in (down, across))
        return [(left * width / across, top * height / down) for top in tops for left in lefts]

    def join(self, predictions: Iterable[tuple[float, Heatmap]], size: tuple[int, int]) -> tuple[float, Heatmap]:
        """Join the predictions of an image of (width, height): the highest score, and the heatmap at the frames' scale."""
        if self.tile is None:
            return next(iter(predictions))
        width, height = self._extent(*size)
        heat_sum = np.zeros((max(height, self.size), max(width, self.size)), np.float32)
        weight = np.zeros_like(heat_sum)
        window = _blend_window(self.size, self.overlap)
        scores = []
        for (top, left), (score, heatmap) in zip(self._corners(heat_sum), predictions, strict=True):
            place = slice(top, top + self.size), slice(left, left + self.size)
            heat_sum[place] += window * heatmap
            weight[place] += window
            scores.append(score)
        heat_sum /= weight
        # np.max, because Python's max() may ignore a NaN.
        return float(np.max(scores)), heat_sum[:height, :width]

    def _extent(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of an image at the frames' scale."""
        if self.tile is None:
            return self.size, self.size
        return max(1, round(width * self.size / self.tile)), max(1, round(height * self.size / self.tile))

    def _corners(self, scaled: npt.NDArray[np.generic]) -> list[tuple[int, int]]:
        """Return the tiles' upper left corners, evenly spaced so that no tile crosses the border."""
        tops, lefts = (self._starts(length) for length in scaled.shape[:2])
        return [(top, left) for top in tops for left in lefts]

    def _starts(self, length: int) -> list[int]:
        """Return where the tiles begin along an axis of this length at the frames' scale."""
        shared = int(self.overlap * self.size)
        count = max(1, math.ceil((length - shared) / (self.size - shared)))
        return [round(start) for start in np.linspace(0, length - self.size, count)]


def predict_frames(model: Model, frames: Iterator[Frame]) -> Iterator[tuple[float, Heatmap]]:
    """Predict frames batch by batch: all frames of a large image would not fit into memory. Either all have weights or none."""
    while batch := list(islice(frames, BATCH)):
        images_NHW3, weights = (
            np.stack([frame.image for frame in batch]),
            stack_weights([frame.weights for frame in batch]),
        )
        # A model without zones has no second argument.
        scores_N, heatmaps_NHW = model.predict_batch(*((images_NHW3,) if weights is None else (images_NHW3, weights)))
        yield from zip(map(float, scores_N), heatmaps_NHW, strict=True)


def stack_weights(weights: Sequence[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
    """Stack the weights of frames to (N, 1, h, w); None if a frame has none."""
    present = [each for each in weights if each is not None]
    return np.stack(present)[:, None] if len(present) == len(weights) else None


@lru_cache
def _blend_window(size: int, overlap: float) -> npt.NDArray[np.float32]:
    """Return the weight of each pixel of a tile in the blend: 1 in the middle, near 0 at the border."""
    shared = max(1, int(overlap * size))
    ramp = (np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / shared
    rise = np.sin(np.clip(ramp, 0, 1) * math.pi / 2) ** 2
    return np.asarray(np.outer(rise, rise), np.float32)
