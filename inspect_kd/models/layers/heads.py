"""Two small heads that predict defects; one learns from labels, one from teachers.

They read what a student computes when it compares features with prototypes and with their reconstruction (`models/head_inputs.py`).
They are separate from the decoder, because their goals are opposite: a head must predict defects, the decoder must fail to
rebuild them.

Shapes: B batch, C channels, h w grid of the inputs, m m grid of the logits, twice as fine.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inspect_kd.models.layers.convolution import conv_bn_relu

UPSCALING = 2
"""Output cells per input cell along a side: finer than the input, because a defect's edge runs between cells."""
INITIAL_LOGIT = -4.0
"""Few positions are defective: starting from a probability of 0.5 would waste the first steps."""
INPUT_DROPOUT = 0.2
"""Share of input channels dropped at each step: a head that relies on few channels detects only synthetic defects."""


class HeadOutputs(NamedTuple):
    """Defect logits of both heads, and the tokens from which they are computed."""

    label_B1mm: Tensor
    imitation_B1mm: Tensor
    tokens_BChw: Tensor


class DefectHeads(nn.Module):
    blend_weights: Tensor
    """Rows: map, score; columns: discrepancy, label head, imitation head. Initially the discrepancy alone."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        # Distances and products differ in scale by orders of magnitude. Fitted once, not updated in training.
        self.input_norm = nn.BatchNorm2d(channels, affine=False, eps=1e-8)
        self.trunk = nn.Sequential(
            nn.Dropout2d(INPUT_DROPOUT),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *conv_bn_relu(width, width),
            *conv_bn_relu(width, width),
        )
        self.label = _logit_layer(width)
        self.imitation = _logit_layer(width)
        self.register_buffer("blend_weights", torch.tensor([[1.0, 0.0, 0.0]] * 2))

    def train(self, mode: bool = True) -> DefectHeads:
        super().train(mode)
        self.input_norm.eval()
        return self

    def fit_normalisation(self, head_inputs_NChw: Tensor) -> None:
        """Set mean and variance of every input channel."""
        value_sums, square_sums, counts = (
            torch.zeros(head_inputs_NChw.shape[1], dtype=torch.float64) for _ in range(3)
        )
        for chunk in head_inputs_NChw.split(64):
            values = chunk.double()
            value_sums += values.sum(dim=(0, 2, 3))
            square_sums += values.square().sum(dim=(0, 2, 3))
            counts += values.numel() / values.shape[1]
        mean, norm = value_sums / counts, self.input_norm
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square_sums / counts - mean.square()).clamp_min(1e-8))

    def forward(self, head_inputs_BChw: Tensor) -> HeadOutputs:
        tokens_BChw = self.trunk(self.input_norm(head_inputs_BChw))
        return HeadOutputs(self.label(tokens_BChw), self.imitation(tokens_BChw), tokens_BChw)


def _logit_layer(width: int) -> nn.Sequential:
    logits = nn.Conv2d(width, UPSCALING**2, 1)
    assert logits.bias is not None
    nn.init.constant_(logits.bias, INITIAL_LOGIT)
    return nn.Sequential(logits, nn.PixelShuffle(UPSCALING))
