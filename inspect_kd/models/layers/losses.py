"""Segmentation losses on probabilities, shared by teachers and heads.

Shapes: B batch, H W mask.
"""

from __future__ import annotations

import torch
from torch import Tensor


def focal_loss(predicted_B1HW: Tensor, mask_B1HW: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss: cross-entropy with small weights for well-classified pixels (Lin et al. 2017)."""
    correct_B1HW = torch.where(mask_B1HW > 0.5, predicted_B1HW, 1 - predicted_B1HW).clamp(1e-6, 1)
    return (-((1 - correct_B1HW) ** gamma) * correct_B1HW.log()).mean()


def dice_loss(predicted_B1HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Dice loss, averaged over images; 0 for an empty mask with an empty prediction."""
    intersection_B = (predicted_B1HW * mask_B1HW).flatten(1).sum(dim=1)
    total_B = predicted_B1HW.flatten(1).sum(dim=1) + mask_B1HW.flatten(1).sum(dim=1)
    return (1 - (2 * intersection_B + 1) / (total_B + 1)).mean()
