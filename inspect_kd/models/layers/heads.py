"""Two small heads that read what a student has found out: one has learnt from labels, one from teachers.

Neither rebuilds anything, and neither is held to features of sound parts: a head that must answer like a teacher, on defects
too, cannot share its goal with a decoder that must fail on them. They read where rebuilt and true features agree, channel by
channel, and how far each group is from sound.

Shapes: B batch, C channels, h w grid of the evidence, m m twice as fine.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINER = 2
"""An answer is given at twice the evidence's grid: a defect's edge runs between its cells."""

USUAL_LOGIT = -4.0
WITHHELD = 0.2
"""Share of the evidence's channels that a head must do without at a step: one that leans on few of them knows drawn defects only."""


class HeadOutputs(NamedTuple):
    """Logits of `damaged`, and the tokens from which they were read."""

    label_B1mm: Tensor
    imitation_B1mm: Tensor
    tokens_BChw: Tensor


class DefectHeads(nn.Module):
    blend_weights: Tensor
    """What discrepancy, label and imitation count in the map, and in the score: at first the discrepancy alone."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        # Distances and products differ in scale by orders of magnitude. Its numbers are settled once, never learnt on the way.
        self.input_norm = nn.BatchNorm2d(channels, affine=False, eps=1e-8)
        self.trunk = nn.Sequential(
            nn.Dropout2d(WITHHELD),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *_conv_bn_relu(width),
            *_conv_bn_relu(width),
        )
        self.label = _answer(width)
        self.imitation = _answer(width)
        self.register_buffer("blend_weights", torch.tensor([[1.0, 0.0, 0.0]] * 2))

    def train(self, mode: bool = True) -> DefectHeads:
        super().train(mode)
        self.input_norm.eval()
        return self

    def fit_normalisation(self, head_inputs_NChw: Tensor) -> None:
        """Bring every channel of the evidence to one scale."""
        total, square, count = (torch.zeros(head_inputs_NChw.shape[1], dtype=torch.float64) for _ in range(3))
        for part in head_inputs_NChw.split(64):
            values = part.double()
            total += values.sum(dim=(0, 2, 3))
            square += values.square().sum(dim=(0, 2, 3))
            count += values.numel() / values.shape[1]
        mean, norm = total / count, self.input_norm
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square / count - mean.square()).clamp_min(1e-8))

    def forward(self, head_inputs_BChw: Tensor) -> HeadOutputs:
        tokens_BChw = self.trunk(self.input_norm(head_inputs_BChw))
        return HeadOutputs(self.label(tokens_BChw), self.imitation(tokens_BChw), tokens_BChw)


def evidence(targets: list[Tensor], rebuilt: list[Tensor], maps: list[Tensor]) -> Tensor:
    """Everything known of each place, at the finest rebuilt grid: products of unit length, which sum to the cosine, and maps."""
    products = [F.normalize(a, dim=1) * F.normalize(b, dim=1) for a, b in zip(targets, rebuilt, strict=True)]
    size = max((product.shape[-2:] for product in products), key=lambda each: each[0])
    at_one_grid = [
        each if each.shape[-2:] == size else F.interpolate(each, size=size, mode="bilinear", align_corners=False)
        for each in [*products, *maps]
    ]
    return torch.cat(at_one_grid, dim=1)


def _conv_bn_relu(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


def _answer(width: int) -> nn.Sequential:
    logits = nn.Conv2d(width, FINER**2, 1)
    assert logits.bias is not None
    # Few places are damaged: to begin with an norm chance would cost the first steps.
    nn.init.constant_(logits.bias, USUAL_LOGIT)
    return nn.Sequential(logits, nn.PixelShuffle(FINER))
