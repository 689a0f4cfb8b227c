"""Precision fp16: decided in torch, before the export; both converters of finished files write invalid ones from such graphs.

Unusual here: only what the student names computes in half precision, which is nearly all of its work; distances, smoothing and
the score stay in fp32, where half precision would move decisions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.export.graph import ArtifactGraph


def in_half(graph: ArtifactGraph) -> ArtifactGraph:
    """A copy whose heavy parts compute in half precision; what flows between them stays fp32."""
    halved = copy.deepcopy(graph)
    parts: list[nn.Module] = list(getattr(halved.student, "half_precision_parts", list)())
    if not parts:
        raise UsageError(
            f"fp16: a {type(graph.student).__module__.rpartition('.')[2]} names nothing that may compute in half precision; "
            "export it as fp32"
        )
    for part in parts:
        part.half()
        part.register_forward_pre_hook(lambda _, given: _to(given, torch.float16))
        part.register_forward_hook(lambda _, given, answer: _to(answer, torch.float32))
    return halved


def _to(value: Any, dtype: torch.dtype) -> Any:
    """Tensors of numbers, however deep they lie in tuples and lists."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_to(item, dtype) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_to(item, dtype) for item in value)
    return value
