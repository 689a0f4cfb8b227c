"""Second pass of a CLIP teacher over crops of suspicious regions, cut from the full image. A ViT's patch takes a twentieth of
the image's side, so the first pass alone localises only roughly.

Our variant of the anomaly region refinement of CLIP-ADA, which the paper calls R1.
A sound image usually has no suspicious region and needs no second pass.

Shapes: K crops, H W image, h w map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.hot_regions import find_hot_regions
from inspect_kd.types import ImageU8

MARGIN = 1.5
"""Side of a crop divided by the side of its region."""
MIN_SIDE = 0.25
"""Smallest side of a crop, as a share of the image's side: smaller crops show too little context."""
SECOND_PASS_WEIGHT = 0.5
"""The first pass has the weight 1 - SECOND_PASS_WEIGHT."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A region of the image, in shares of its height and width; square once the image is resized to a square."""

    top: float
    left: float
    side: float

    def cut(self, image: ImageU8) -> ImageU8:
        rows, columns = (
            self.span(start, length) for start, length in zip((self.top, self.left), image.shape[:2], strict=True)
        )
        return image[rows, columns]

    def span(self, start: float, length: int) -> slice:
        """Pixels of the crop along a side with this length, where the crop starts at the share `start`."""
        begin = min(round(start * length), length - 1)
        return slice(begin, max(begin + 1, round((start + self.side) * length)))


def suspicious_crops(heat_hw: npt.NDArray[np.float32], threshold: float) -> list[Crop]:
    """Crops around the connected hot regions, hottest first."""
    crops = []
    for region in find_hot_regions(heat_hw, threshold):
        rows, columns = np.nonzero(region)
        height, width = heat_hw.shape
        top, bottom = rows.min() / height, (rows.max() + 1) / height
        left, right = columns.min() / width, (columns.max() + 1) / width
        side = float(min(1.0, max(MIN_SIDE, MARGIN * max(bottom - top, right - left))))
        crops.append(Crop(_crop_start(top, bottom, side), _crop_start(left, right, side), side))
    return crops


def blend_crops(heatmap_HW: Tensor, crops: Sequence[Crop], maps_Khw: Tensor) -> Tensor:
    """Blend the crops' maps into the heatmap, which they can only raise."""
    blended = heatmap_HW.clone()
    for crop, map_hw in zip(crops, maps_Khw, strict=True):
        rows, columns = (
            crop.span(start, length) for start, length in zip((crop.top, crop.left), blended.shape, strict=True)
        )
        first = blended[rows, columns]
        second = F.interpolate(map_hw[None, None], size=first.shape, mode="bilinear", align_corners=False)[0, 0]
        blended[rows, columns] = (1 - SECOND_PASS_WEIGHT) * first + SECOND_PASS_WEIGHT * torch.maximum(first, second)
    return blended


def _crop_start(begin: float, end: float, side: float) -> float:
    """Start of a crop with this side, centred on the region as far as the image's border allows."""
    return float(min(max(0.0, (begin + end) / 2 - side / 2), 1 - side))
