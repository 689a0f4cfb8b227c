"""Check an ONNX file against the list of what TensorRT supports, without a GPU.

The table (`export/tensorrt_operators.json`) names its version and its source, TensorRT's documentation; its entries were not tested on
a GPU. Besides operators and types this module checks the k of TopK, zero points of the quantisation, axes of reductions and modes of
Resize.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from inspect_kd import zoo
from inspect_kd.errors import GateFailed

TABLE = "tensorrt_operators.json"
REDUCE_PREFIX = "Reduce"


@cache
def load_table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(zoo.asset("export", TABLE).read_text(encoding="utf-8"))
    return content


def refuse_unsupported(file: Path) -> None:
    """Raise a `GateFailed` that lists the nodes that TensorRT does not support."""
    faults = list(dict.fromkeys(_find_faults(onnx.load(str(file)))))
    if faults:
        raise GateFailed(
            f"TensorRT {load_table()['tensorrt']} does not support this graph, according to its documentation: {'; '.join(faults[:8])}"
            + (f" and {len(faults) - 8} more" if len(faults) > 8 else "")
        )


def _find_faults(model: ModelProto) -> Iterator[str]:
    rules, graph = load_table(), onnx.shape_inference.infer_shapes(model).graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if not rules["opsets"][0] <= opset <= rules["opsets"][1]:
        yield f"opset {opset} is not within {rules['opsets']}"
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: helper.get_node_attr_value(node, "value")
        for node in graph.node
        if node.op_type == "Constant" and any(attribute.name == "value" for attribute in node.attribute)
    }
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info, *graph.output]}
    types |= {name: tensor.data_type for name, tensor in constants.items()}
    for node in graph.node:
        yield from _node_faults(node, constants, types, rules)


def _node_faults(
    node: NodeProto, constants: dict[str, TensorProto], types: dict[str, int], rules: dict[str, Any]
) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in rules["operators"]:
        yield f"{node.domain + '.' if node.domain else ''}{node.op_type}: not supported"
        return
    allowed = rules["types"][rules["operators"][node.op_type]]
    # The table lists the allowed types of the first input only; the others are indices and shapes.
    input_type = types.get(node.input[0]) if node.input else None
    if input_type and TensorProto.DataType.Name(input_type) not in allowed:
        yield f"{node.op_type} of {TensorProto.DataType.Name(input_type)}"
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "TopK":
        yield from _topk_faults(node, attributes, constants, rules["largest_k"])
    elif node.op_type.startswith(REDUCE_PREFIX) and len(node.input) > 1 and node.input[1] not in constants:
        yield f"{node.op_type} along axes that are not constant"
    elif node.op_type == "Resize":
        if attributes.get("antialias") or attributes.get("mode", b"nearest") not in (b"nearest", b"linear"):
            yield "Resize with antialiasing, or in another mode than nearest and linear"
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
        zero_point = constants.get(node.input[2])
        if zero_point is None or np.any(numpy_helper.to_array(zero_point)):
            yield f"{node.op_type} with a zero point other than 0"


def _topk_faults(
    node: NodeProto, attributes: dict[str, Any], constants: dict[str, TensorProto], max_k: int
) -> Iterator[str]:
    if node.input[1] not in constants:
        yield "TopK with a k that is not constant"
    elif int(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[0]) > max_k:
        yield f"TopK of more than {max_k}"
    if attributes.get("sorted", 1) != 1:
        yield "TopK that is not sorted"
