"""What self-perception tuning minimises: BCE and Dice on the places that the mask is least sure of, draft and final alike.

Shapes: K prompts, m m mask logits, P sampled places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.layers.losses import dice
from inspect_kd.models.sam.tuning import Masks

PLACES = 12_544
"""As published; smaller masks are taken whole."""
DRAWN, UNSURE = 3, 0.75
"""Three times as many places are drawn at random; three fourths of those that are kept are the least sure ones."""

WEIGHTS = {"draft": 1.0, "final": 1.0, "presence": 0.1, "estimate": 0.1}
"""What is read from the second decoder's token beside its mask is learnt at the mask's expense where it counts as much."""


def tuning_losses(
    masks: Masks, truth_K1mm: Tensor, looked_at_K1mm: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Truth of the draft, and of what the second decoder looked at. An empty truth teaches the draft to draw nothing and presence
    to refuse; the second decoder, which has to guess the extent of what is there, would only learn to draw less."""
    there_K = truth_K1mm.flatten(1).amax(dim=1) > 0
    final_K1mm, shown_K = masks.final_K1hw, looked_at_K1mm.flatten(1).amax(dim=1) > 0
    return {
        "draft": mask_loss(masks.draft_K1hw, truth_K1mm, generator),
        "final": mask_loss(final_K1mm[shown_K], looked_at_K1mm[shown_K], generator)
        if shown_K.any()
        else final_K1mm.new_zeros(()),
        "presence": F.binary_cross_entropy_with_logits(masks.presence_K, there_K.float()),
        # SAM's own estimate gates what is accepted: the tuned decoder must go on to read it from the same token.
        "estimate": F.mse_loss(masks.iou_K, overlap(final_K1mm.detach(), looked_at_K1mm)),
    }


def overlap(logits_K1mm: Tensor, truth_K1mm: Tensor) -> Tensor:
    """IoU of each mask with its truth; 0 where there is none."""
    said = (logits_K1mm > 0).float()
    both_K = (said * truth_K1mm).flatten(1).sum(dim=1)
    return both_K / ((said + truth_K1mm) > 0).float().flatten(1).sum(dim=1).clamp_min(1)


def mask_loss(logits_K1mm: Tensor, truth_K1mm: Tensor, generator: torch.Generator) -> Tensor:
    logits_KP, truth_KP = sample(logits_K1mm, truth_K1mm, generator)
    crossed = F.binary_cross_entropy_with_logits(logits_KP, truth_KP)
    return crossed + dice(logits_KP.sigmoid(), truth_KP)


def sample(logits_K1mm: Tensor, truth_K1mm: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places near the mask's own border count more than its inside."""
    logits_KN, truth_KN = logits_K1mm.flatten(1), truth_K1mm.flatten(1)
    count = logits_KN.shape[1]
    if count <= 2 * PLACES:
        return logits_KN, truth_KN
    drawn_KN = torch.randint(count, (len(logits_KN), DRAWN * PLACES), generator=generator).to(logits_KN.device)
    unsure_KN = -logits_KN.detach().gather(1, drawn_KN).abs()
    sure = round(UNSURE * PLACES)
    picked_KP = drawn_KN.gather(1, unsure_KN.topk(sure, dim=1).indices)
    others_KP = torch.randint(count, (len(logits_KN), PLACES - sure), generator=generator).to(logits_KN.device)
    places_KP = torch.cat([picked_KP, others_KP], dim=1)
    return logits_KN.gather(1, places_KP), truth_KN.gather(1, places_KP)
