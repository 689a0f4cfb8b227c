"""Losses of self-perception tuning: BCE and Dice mostly at the pixels where a mask is least certain, for draft and final mask.

Shapes: K prompts, m m mask logits, N = m * m, Q candidate pixels, P sampled pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.layers.losses import dice_loss
from inspect_kd.models.sam.tuning import SptOutput

SAMPLED_PIXELS = 12_544
"""Pixels per mask, as published; a mask of at most twice as many pixels is not sampled, all its pixels are used."""
OVERSAMPLING, UNCERTAIN_SHARE = 3, 0.75
"""Three times as many candidates are chosen at random; the least certain of them make up this share of the sample."""
LOSS_WEIGHTS = {"draft": 1.0, "final": 1.0, "presence": 0.1, "estimate": 0.1}
"""Presence and estimate share the second decoder's token with its mask; larger weights would harm the mask."""


def tuning_losses(
    output: SptOutput, truth_K1mm: Tensor, cropped_truth_K1mm: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Loss terms: the draft against the mask of the whole input, the final mask against that of the second decoder's crop.

    An empty truth trains the draft and presence, but not the final mask: the second decoder would only learn to predict smaller masks.
    """
    present_K = truth_K1mm.flatten(1).amax(dim=1) > 0
    final_K1mm, in_crop_K = output.final_K1hw, cropped_truth_K1mm.flatten(1).amax(dim=1) > 0
    return {
        "draft": mask_loss(output.draft_K1hw, truth_K1mm, generator),
        "final": mask_loss(final_K1mm[in_crop_K], cropped_truth_K1mm[in_crop_K], generator)
        if in_crop_K.any()
        else final_K1mm.new_zeros(()),
        "presence": F.binary_cross_entropy_with_logits(output.presence_K, present_K.float()),
        # SAM's own estimate decides which masks are accepted, so the tuned decoder must keep predicting it.
        "estimate": F.mse_loss(output.iou_K, mask_iou(final_K1mm.detach(), cropped_truth_K1mm)),
    }


def mask_iou(logits_K1mm: Tensor, truth_K1mm: Tensor) -> Tensor:
    """IoU of each mask with its truth; 0 where both are empty."""
    predicted = (logits_K1mm > 0).float()
    intersection_K = (predicted * truth_K1mm).flatten(1).sum(dim=1)
    return intersection_K / ((predicted + truth_K1mm) > 0).float().flatten(1).sum(dim=1).clamp_min(1)


def mask_loss(logits_K1mm: Tensor, truth_K1mm: Tensor, generator: torch.Generator) -> Tensor:
    """BCE plus Dice at sampled pixels."""
    logits_KP, truth_KP = sample_pixels(logits_K1mm, truth_K1mm, generator)
    bce = F.binary_cross_entropy_with_logits(logits_KP, truth_KP)
    return bce + dice_loss(logits_KP.sigmoid(), truth_KP)


def sample_pixels(logits_K1mm: Tensor, truth_K1mm: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample pixels, mostly the least certain ones, which lie along the mask's border."""
    logits_KN, truth_KN = logits_K1mm.flatten(1), truth_K1mm.flatten(1)
    count = logits_KN.shape[1]
    if count <= 2 * SAMPLED_PIXELS:
        return logits_KN, truth_KN
    candidates_KQ = torch.randint(count, (len(logits_KN), OVERSAMPLING * SAMPLED_PIXELS), generator=generator).to(
        logits_KN.device
    )
    uncertainty_KQ = -logits_KN.detach().gather(1, candidates_KQ).abs()
    uncertain_count = round(UNCERTAIN_SHARE * SAMPLED_PIXELS)
    uncertain_KP = candidates_KQ.gather(1, uncertainty_KQ.topk(uncertain_count, dim=1).indices)
    random_KP = torch.randint(count, (len(logits_KN), SAMPLED_PIXELS - uncertain_count), generator=generator).to(
        logits_KN.device
    )
    pixels_KP = torch.cat([uncertain_KP, random_KP], dim=1)
    return logits_KN.gather(1, pixels_KP), truth_KN.gather(1, pixels_KP)
