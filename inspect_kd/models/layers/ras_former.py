"""RAS: a stack of decoder layers read as the time steps of a recurrence whose state is the whole token map.

Written from the paper (arXiv 2409.06285). A layer's queries are learned and never contain the input; a gate selects the part
of the state that it reads.

Shapes: B batch, N tokens, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inspect_kd.models.layers.attention import Attention


def feed_forward(dim: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, inner), nn.ReLU(inplace=True), nn.Linear(inner, dim))


class EncoderLayer(nn.Module):
    """Post-norm self-attention that masks each token's own neighbourhood."""

    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.norm_attention = nn.LayerNorm(dim)
        self.ffn = feed_forward(dim, inner)
        self.norm_ffn = nn.LayerNorm(dim)

    def forward(self, x_BNC: Tensor, position_1NC: Tensor, barred_NN: Tensor) -> Tensor:
        positioned = x_BNC + position_1NC
        x_BNC = self.norm_attention(
            x_BNC + self.attention.attend(positioned, positioned, x_BNC, x_BNC.shape[0], barred_NN)
        )
        out: Tensor = self.norm_ffn(x_BNC + self.ffn(x_BNC))
        return out


class RASFormer(nn.Module):
    """One time step: h' = LN((W h + z) / 2), where z is the output of learned queries attending to the gated state."""

    def __init__(self, dim: int, heads: int, inner: int, tokens: int) -> None:
        super().__init__()
        self.context_1NC = nn.Parameter(torch.randn(1, tokens, dim) / math.sqrt(dim))
        self.gate_context = nn.Linear(dim, dim)
        self.gate_state = nn.Linear(dim, dim, bias=False)
        self.attention = Attention(dim, heads)
        self.norm_read = nn.LayerNorm(dim)
        self.ffn = feed_forward(dim, inner)
        self.norm_ffn = nn.LayerNorm(dim)
        self.carry = nn.Linear(dim, dim)
        self.norm_state = nn.LayerNorm(dim)

    def forward(self, state_BNC: Tensor, position_1NC: Tensor) -> Tensor:
        gate_BNC = torch.sigmoid(self.gate_context(self.context_1NC) + self.gate_state(state_BNC))
        gated_BNC = gate_BNC * state_BNC
        queries_1NC = self.context_1NC + position_1NC
        attended_BNC = self.attention.attend(queries_1NC, gated_BNC + position_1NC, gated_BNC, state_BNC.shape[0])
        read_BNC = self.norm_read(self.context_1NC + attended_BNC)
        step_BNC = self.norm_ffn(read_BNC + self.ffn(read_BNC))
        next_state: Tensor = self.norm_state((self.carry(state_BNC) + step_BNC) / 2)
        return next_state


def neighbourhood(grid: int, reach: int) -> Tensor:
    """Mask (N, N) of the tokens within a window of side `reach` around each token."""
    row_N, column_N = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    row_N, column_N = row_N.flatten(), column_N.flatten()
    distance_NN = torch.maximum((row_N[:, None] - row_N).abs(), (column_N[:, None] - column_N).abs())
    return distance_NN <= reach // 2
