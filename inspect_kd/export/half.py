"""Convert a graph to fp16 in torch, before the export: converters of ONNX files to fp16 write invalid files from these graphs.

Unusual here: only the student's `half_precision_parts` are converted; they take nearly all of its time. Distances, smoothing and
score stay in fp32, because half precision would change decisions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from inspect_kd.errors import UsageError
from inspect_kd.export.graph import ArtifactGraph


def to_half_precision(graph: ArtifactGraph) -> ArtifactGraph:
    """Copy the graph with its expensive modules in half precision; tensors between them stay fp32."""
    halved = copy.deepcopy(graph)
    modules: list[nn.Module] = list(getattr(halved.student, "half_precision_parts", list)())
    if not modules:
        raise UsageError(
            f"fp16: a {type(graph.student).__module__.rpartition('.')[2]} has no half_precision_parts; "
            "export it as fp32"
        )
    for module in modules:
        module.half()
        module.register_forward_pre_hook(lambda _, arguments: _cast(arguments, torch.float16))
        module.register_forward_hook(lambda _, arguments, output: _cast(output, torch.float32))
    return halved


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast floating-point tensors, also inside nested tuples and lists."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cast(item, dtype) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_cast(item, dtype) for item in value)
    return value
