"""Inputs of the defect heads: one ordered list defines both the number of channels and the order of the tensors.

Shapes: B batch, C channels, h w feature grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.models.layers.features import Group
from inspect_kd.models.rebuild_config import RebuildConfig

Quantity = Literal["distance", "product", "length"]
"""What a comparison holds: the distance (1 channel), the product of unit vectors, whose channels sum to the cosine (C channels), and the
length of the features (1 channel)."""
Comparison = Mapping[Quantity, Tensor]
"""One group's features compared with their reconstruction, or with prototypes."""


class HeadInput(NamedTuple):
    """One tensor that the heads read."""

    comparison_number: int
    """Position among all comparisons: first the rebuilt groups, then those compared with prototypes."""
    quantity: Quantity
    channels: int


def list_head_inputs(config: RebuildConfig, channels_of: Callable[[Group], int]) -> list[HeadInput]:
    """List the heads' inputs in a fixed order. Trained heads depend on this order, so it is defined only here."""
    rebuilt = list(enumerate(config.rebuild))
    inputs = [HeadInput(number, "product", channels_of(group)) for number, group in rebuilt]
    inputs += [HeadInput(number, "distance", 1) for number, _ in rebuilt]
    rebuilt_strides = {stride for group in config.rebuild for stride in group}
    for number, compare in enumerate(config.compare, start=len(rebuilt)):
        inputs.append(HeadInput(number, "distance", 1))
        # The heads already read the rebuilt levels channel by channel.
        if not set(compare.strides) <= rebuilt_strides:
            inputs += [HeadInput(number, "product", channels_of(compare.strides)), HeadInput(number, "length", 1)]
    return inputs


def concatenate_head_inputs(inputs: Sequence[HeadInput], comparisons: Sequence[Comparison], size: torch.Size) -> Tensor:
    """Pick the inputs from all groups' comparisons, resize them to one grid and concatenate them: (B, C, h, w)."""
    tensors = [comparisons[head_input.comparison_number][head_input.quantity] for head_input in inputs]
    resized = [
        tensor if tensor.shape[-2:] == size else F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
        for tensor in tensors
    ]
    return torch.cat(resized, dim=1)
