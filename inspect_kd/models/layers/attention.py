"""Attention with one learned side (queries, or keys and values): its output cannot copy the image's features.

Our variant of Omni-AD's global branch (arXiv 2503.21125). A learned side does not depend on the image, so its projection is a
constant of the exported graph.

Shapes: B batch, C channels, h w feature grid, N = h * w, M = another number of positions, T learned tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention; either side may be learned."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def attend(
        self, query_BNC: Tensor, key_BMC: Tensor, value_BMC: Tensor, batch: int, masked_NM: Tensor | None = None
    ) -> Tensor:
        """A learned side has a batch of one and is projected once; `masked_NM` marks keys that a query must not attend to."""
        q, k, v = self.query(query_BNC), self.key(key_BMC), self.value(value_BMC)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(batch, -1, -1, -1) for x in (q, k, v))
        mask = None if masked_NM is None else ~masked_NM
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class _LearnedSide(Attention):
    def __init__(self, dim: int, heads: int, tokens: int) -> None:
        super().__init__(dim, heads)
        # Random: tokens that start at zero would get equal gradients and stay identical.
        self.tokens_TC = nn.Parameter(torch.randn(tokens, dim) / math.sqrt(dim))


class LearnedQueries(_LearnedSide):
    """Learned queries attend to all positions: (B, N, C) -> (B, T, C)."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.attend(self.tokens_TC.unsqueeze(0), x_BNC, x_BNC, x_BNC.shape[0])


class LearnedMemory(_LearnedSide):
    """Every position attends to learned keys and values: (B, N, C) -> (B, N, C)."""

    def forward(self, x_BNC: Tensor) -> Tensor:
        tokens_1TC = self.tokens_TC.unsqueeze(0)
        return self.attend(x_BNC, tokens_1TC, tokens_1TC, x_BNC.shape[0])
