"""Suspicious places are looked at again, cut from the full image (R1): a patch of a ViT is a twentieth of the side.

Own form of CLIP-ADA's anomaly region refinement. Most sound images have no suspicious place, and pay nothing.

Shapes: K windows, H W image, h w map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.hot_places import hot_places
from inspect_kd.types import ImageU8

ENLARGED = 1.5
SMALLEST = 0.25
"""Of the image's side: less would show the model something that it has no name for."""
WEIGHT = 0.5
"""What the closer look counts beside the first."""


@dataclass(frozen=True, slots=True)
class Window:
    """A square of the image, in shares of its sides."""

    top: float
    left: float
    side: float

    def cut(self, image: ImageU8) -> ImageU8:
        rows, columns = (
            self.span(start, length) for start, length in zip((self.top, self.left), image.shape[:2], strict=True)
        )
        return image[rows, columns]

    def span(self, start: float, length: int) -> slice:
        begin = min(round(start * length), length - 1)
        return slice(begin, max(begin + 1, round((start + self.side) * length)))


def suspicious_windows(heat_hw: npt.NDArray[np.float32], above: float) -> list[Window]:
    """Around the connected hot places, hottest first."""
    windows = []
    for cells in hot_places(heat_hw, above):
        rows, columns = np.nonzero(cells)
        height, width = heat_hw.shape
        top, bottom = rows.min() / height, (rows.max() + 1) / height
        left, right = columns.min() / width, (columns.max() + 1) / width
        side = float(min(1.0, max(SMALLEST, ENLARGED * max(bottom - top, right - left))))
        windows.append(Window(_place(top, bottom, side), _place(left, right, side), side))
    return windows


def paste_closer(heatmap_HW: Tensor, windows: Sequence[Window], maps_Khw: Tensor) -> Tensor:
    """The first look's map with what the closer looks add to it: they make a place hotter, never cooler."""
    pasted = heatmap_HW.clone()
    for window, map_hw in zip(windows, maps_Khw, strict=True):
        rows, columns = (
            window.span(start, length) for start, length in zip((window.top, window.left), pasted.shape, strict=True)
        )
        place = pasted[rows, columns]
        closer = F.interpolate(map_hw[None, None], size=place.shape, mode="bilinear", align_corners=False)[0, 0]
        pasted[rows, columns] = (1 - WEIGHT) * place + WEIGHT * torch.maximum(place, closer)
    return pasted


def _place(begin: float, end: float, side: float) -> float:
    """Where a window of this side begins so that it is centred and does not hang over."""
    return float(min(max(0.0, (begin + end) / 2 - side / 2), 1 - side))
