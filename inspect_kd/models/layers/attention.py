"""Two attentions that cannot copy their input: one side of each is learned, not computed from the image.

Own form of Omni-AD's global branch (arXiv 2503.21125). Whichever side is learned does not depend on the image, so its
projection is a constant of the exported graph.

Shapes: B batch, C channels, h w feature grid, N = h * w, T learned tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Attention(nn.Module):
    """Projections and head bookkeeping that both directions need."""

    def __init__(self, dim: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        # Distinct from the start: tokens that begin at zero get equal gradients and stay identical for ever.
        self.tokens_TC = nn.Parameter(torch.randn(tokens, dim) / math.sqrt(dim))

    def attend(self, query_BNC: Tensor, memory_BMC: Tensor, batch: int) -> Tensor:
        """The learned side has a batch of one: it is projected once, and at export becomes a constant."""
        q, k, v = self.query(query_BNC), self.key(memory_BMC), self.value(memory_BMC)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(batch, -1, -1, -1) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class LearnedQueries(_Attention):
    """A fixed set of learned questions, asked of every position: (B, N, C) -> (B, T, C)."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.attend(self.tokens_TC.unsqueeze(0), x_BNC, x_BNC.shape[0])


class LearnedMemory(_Attention):
    """Every position asks a fixed set of learned prototypes: (B, N, C) -> (B, N, C)."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.attend(x_BNC, self.tokens_TC.unsqueeze(0), x_BNC.shape[0])
