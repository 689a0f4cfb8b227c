"""Turn dense features and sentence embeddings into heat, 0 to 1.

Shapes: B batch, C channels, P sentences (sound, damaged; or damaged alone), N patches, h w patch grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspect_kd.models.clip.prompts import TEMPERATURE


def damage_probability(dense_BChw: Tensor, vectors_PC: Tensor, slope: Tensor, centre: Tensor) -> Tensor:
    """Probability of `damaged` against `sound` by cosine; with one sentence, a sigmoid of its cosine: (B, 1, h, w)."""
    cosine_BPhw = torch.einsum("bchw,pc->bphw", dense_BChw, vectors_PC)
    if len(vectors_PC) == 2:
        damaged_B1hw: Tensor = (cosine_BPhw / TEMPERATURE).softmax(dim=1)[:, 1:]
        return damaged_B1hw
    return torch.sigmoid(slope * (cosine_BPhw - centre))


def average_by_affinity(heat_B1hw: Tensor, dense_BChw: Tensor) -> Tensor:
    """Average heat over similar patches, weighted by their row-normalised similarity (R2)."""
    patches_BNC = dense_BChw.flatten(2).transpose(1, 2)
    affinity_BNN = (patches_BNC @ patches_BNC.transpose(1, 2) / TEMPERATURE).softmax(dim=2)
    averaged_BN1 = affinity_BNN @ heat_B1hw.flatten(2).transpose(1, 2)
    averaged_B1hw: Tensor = averaged_BN1.transpose(1, 2).unflatten(2, heat_B1hw.shape[-2:])
    return averaged_B1hw
