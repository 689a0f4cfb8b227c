"""Losses of segmentation that teachers and label heads share: both on probabilities.

Shapes: B batch, H W mask.
"""

from __future__ import annotations

import torch
from torch import Tensor


def focal(found_B1HW: Tensor, mask_B1HW: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy in which what is already right counts little (Lin et al. 2017)."""
    right_B1HW = torch.where(mask_B1HW > 0.5, found_B1HW, 1 - found_B1HW).clamp(1e-6, 1)
    return (-((1 - right_B1HW) ** gamma) * right_B1HW.log()).mean()


def dice(found_B1HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """1 - overlap, a mean over images; an empty mask with nothing found is no loss."""
    together_B = (found_B1HW * mask_B1HW).flatten(1).sum(dim=1)
    each_B = found_B1HW.flatten(1).sum(dim=1) + mask_B1HW.flatten(1).sum(dim=1)
    return (1 - (2 * together_B + 1) / (each_B + 1)).mean()
