"""Crops for the second decoder: a square around the draft, cut from the image and embedded anew.

On the embedding of the whole image the second decoder hardly improves the draft: 64x64 cells are too coarse for a small
defect. A draft larger than half of the image gets the whole image.

Shapes: K prompts, P points, m m mask logits, S S input of SAM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.sam.tuning import PromptBatch
from inspect_kd.types import ImageU8

MARGIN = 2.0
"""Side of the square divided by the longest side of the draft's box."""
MIN_SIDE = 0.25
"""Smallest side of the square, as a share of the image's side: a smaller crop would only be a blur."""
OUTSIDE_LOGIT = -8.0
"""Mask logit outside the square."""


def crop_squares(boxes_K4: Tensor, side: int) -> Tensor:
    """Squares around boxes, inside SAM's input: left, top, right, bottom in whole pixels."""
    longest_side_K = (boxes_K4[:, 2:] - boxes_K4[:, :2]).amax(dim=1)
    square_sides_K1 = (MARGIN * longest_side_K).clamp(MIN_SIDE * side, side).round()[:, None]
    centre_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2
    corner_K2 = torch.minimum((centre_K2 - square_sides_K1 / 2).clamp_min(0), side - square_sides_K1).round()
    return torch.cat([corner_K2, corner_K2 + square_sides_K1], dim=1).long()


def crop_image(image: ImageU8, square_4: Tensor, side: int) -> ImageU8:
    """Cut a square, in pixels of SAM's input, from the original image, which may have more detail."""
    scale_y, scale_x = image.shape[0] / side, image.shape[1] / side
    left, top, right, bottom = (int(edge) for edge in square_4)
    rows = slice(round(top * scale_y), max(round(bottom * scale_y), round(top * scale_y) + 1))
    columns = slice(round(left * scale_x), max(round(right * scale_x), round(left * scale_x) + 1))
    return image[rows, columns]


def crop_prompts(prompts: PromptBatch, squares_K4: Tensor, side: int) -> PromptBatch:
    """The same prompts in pixels of their crops; points outside a crop become `no point`."""
    corner_K2 = squares_K4[:, :2].float()
    scale_K1 = side / (squares_K4[:, 2:3] - squares_K4[:, :1]).float()
    boxes_K4, points_KP2, labels_KP, masks_K1mm = prompts
    if boxes_K4 is not None:
        boxes_K4 = ((boxes_K4 - corner_K2.repeat(1, 2)) * scale_K1).clamp(0, side - 1)
    if points_KP2 is not None and labels_KP is not None:
        points_KP2 = (points_KP2 - corner_K2[:, None]) * scale_K1[:, None]
        inside_KP = ((points_KP2 >= 0) & (points_KP2 < side)).all(dim=2)
        points_KP2, labels_KP = points_KP2 * inside_KP[..., None], labels_KP.masked_fill(~inside_KP, -1)
    if masks_K1mm is not None:
        size = masks_K1mm.shape[2:]
        full_K1SS = _resize(masks_K1mm, side, side)
        masks_K1mm = torch.cat(
            [
                _resize(full_K1SS[k : k + 1, :, top:bottom, left:right], *size)
                for k, (left, top, right, bottom) in enumerate(squares_K4.tolist())
            ]
        )
    return PromptBatch(boxes_K4, points_KP2, labels_KP, masks_K1mm)


def uncrop_masks(logits_K1mm: Tensor, squares_K4: Tensor, side: int) -> Tensor:
    """Put the crops' masks back into the whole input: (K, 1, S, S)."""
    full_K1SS = logits_K1mm.new_full((len(logits_K1mm), 1, side, side), OUTSIDE_LOGIT)
    for k, (left, top, right, bottom) in enumerate(squares_K4.tolist()):
        full_K1SS[k : k + 1, :, top:bottom, left:right] = _resize(logits_K1mm[k : k + 1], bottom - top, right - left)
    return full_K1SS


def _resize(logits_K1mm: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(logits_K1mm, size=(height, width), mode="bilinear", align_corners=False)
