"""A tiny working artifact, and hostile graphs that read files, or use memory or time without bound."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from inspect_kd.calibrate import calibrate
from inspect_kd.export.card import KEY, ArtifactCard
from inspect_kd.resize import RESIZE
from tests.fuzzing.mutate import mutate_bytes, mutate_tree, to_hostile_json

SIZE = 16
HUGE_SIZES = (2**8, 2**20, 2**31, 2**33, 2**40, 2**62)
ODD_SIZES = (-1, 0, 1, 3, SIZE, 2**20, 2**31, 2**40, 2**62)


def card() -> ArtifactCard:
    calibration = calibrate({"a": [0.1, 0.2, 0.3, 0.4], "b": [0.2, 0.3]}, reject_rate=0.01, reinspect_rate=0.05)
    return ArtifactCard(
        name="tiny", target="onnx", size=SIZE, resize=RESIZE, categories=("a", "b"), calibration=calibration,
        licences={"w": "Apache-2.0"}, versions={"inspect_kd": "0"}, bits=12, data={"name": "d"}, recipe={"name": "r"},
    )  # fmt: skip


def artifact(card_text: str | None = None) -> ModelProto:
    """Make an artifact of six nodes and a kilobyte, whose heatmap is the brightness. By default it has the card of `card()`."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["heat"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["heat"], ["heatmap"]),
        helper.make_node("ReduceMax", ["heatmap", "axes"], ["top"], keepdims=0),
        helper.make_node("Add", ["top", "shift"], ["score"]),
    ]
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 3, 3], [0.001] * 27),
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("shift", TensorProto.FLOAT, [1], [0.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key=KEY, value=card().dump() if card_text is None else card_text)
    return model


def make_hostile(rng: Random, seeds: list[bytes], sandbox: Path) -> bytes:
    """Mutate an artifact's bytes, its card or its graph."""
    draw = rng.random()
    if draw < 0.45:
        return mutate_bytes(rng, rng.choice(seeds), rng.choice(seeds))
    if draw < 0.6:
        return with_card(to_hostile_json(rng, mutate_tree(rng, json.loads(card().dump()))))
    model = artifact()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        # An earlier mutation may have removed what the next one changes.
        with contextlib.suppress(IndexError, ValueError):
            rng.choice(MUTATIONS)(rng, model, sandbox)
    try:
        data: bytes = model.SerializeToString()
    except ValueError:  # protobuf itself refuses some mutations
        data = artifact().SerializeToString()
    return mutate_bytes(rng, data, rounds=2) if rng.random() < 0.1 else data


def with_card(text: bytes) -> bytes:
    """Make an artifact with this card, written as raw bytes because the onnx package refuses text that is not UTF-8."""
    model = artifact("")
    del model.metadata_props[:]
    entry = b"\x0a" + with_length(KEY.encode()) + b"\x12" + with_length(text)
    return bytes(model.SerializeToString()) + b"\x72" + with_length(entry)


def with_external_weights(*, overlong: bool) -> bytes:
    """Make an artifact whose weights are in `w.bin`.

    With `overlong`, the protobuf tags that declare this exceed 32 bits; readers in C++ truncate them to the usual tags.
    """
    model, tensor = artifact(), TensorProto(name="w", data_type=1, dims=[1, 3, 3, 3], data_location=1)
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "108")):
        tensor.external_data.add(key=key, value=value)
    raw = tensor.SerializeToString()
    if overlong:
        raw = raw.replace(b"\x6a", b"\xea\x80\x80\x80\x10").replace(b"\x70\x01", b"\xf0\x80\x80\x80\x10\x01")
    del model.graph.initializer[0]
    graph = model.graph.SerializeToString() + b"\x2a" + with_length(raw)
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + b"\x3a" + with_length(graph)


def with_length(content: bytes) -> bytes:
    """Return the content of a protobuf field after its length, a varint."""
    count, out = len(content), bytearray()
    while count > 0x7F:
        out.append(count & 0x7F | 0x80)
        count >>= 7
    return bytes(out) + bytes([count]) + content


def use_external_data(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Declare that weights are in another file: in a parent folder, at an absolute path, behind a link, in a device or in memory."""
    outside = sandbox.parent / "outside" / "secret.bin"
    places = (
        "../outside/secret.bin", str(outside), "link.bin", "folder/secret.bin", "hard.bin", "./../outside/secret.bin",
        "/proc/self/environ", "/proc/self/mem", "/dev/zero", "/dev/stdin", f"{sandbox.name}/../../outside/secret.bin",
        "file:///etc/passwd", "", ".", "a" * 5000, "\\\\host\\share", "*/_ORT_MEM_ADDR_/*",
    )  # fmt: skip
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    location = rng.choice(places)
    offset, length = rng.choice(("0", "-1", "64", str(2**62))), rng.choice(("108", "0", "-1", str(2**62)))
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.1:
        tensor.data_location = TensorProto.DEFAULT
    graph = model.graph
    match rng.randrange(4):
        case 0:
            graph.initializer[0].CopyFrom(tensor)
        case 1:
            graph.initializer.pop(0)
            node = graph.node.add(op_type="Constant", output=["w"])
            node.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
            graph.node.insert(0, graph.node.pop())
        case 2:
            branch = helper.make_graph(
                [helper.make_node("Identity", ["w"], ["z"])], "b", [], [_float_value("z")], [tensor]
            )
            _append(model, helper.make_node("If", ["truth"], ["from_branch"], then_branch=branch, else_branch=branch))
            graph.initializer.append(helper.make_tensor("truth", TensorProto.BOOL, [], [True]))
        case _:
            sparse = graph.sparse_initializer.add(dims=[27])
            sparse.values.CopyFrom(tensor)
            sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [27], list(range(27))))


def mutate_initializer(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Change a tensor's declaration: huge or negative sizes, another type, too much or too little data."""
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(5):
        case 0:
            tensor.dims[:] = [rng.choice(ODD_SIZES) for _ in range(rng.randint(0, 5))]
        case 1:
            tensor.data_type = rng.choice((0, 1, 2, 6, 7, 8, 9, 10, 11, 16, 17, 21, 22, 99))
        case 2:
            tensor.ClearField("float_data")
            tensor.raw_data = rng.randbytes(rng.choice((0, 1, 107, 109, 4096)))
        case 3:
            tensor.dims.append(rng.choice(ODD_SIZES))
        case _:
            tensor.name = rng.choice(("", "images", "heatmap", "axes", "x" * 10_000))


def mutate_signature(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Declare inputs and outputs with another shape or type than the graph has."""
    values = [*model.graph.input, *model.graph.output]
    value = rng.choice(values)
    shape = value.type.tensor_type.shape
    match rng.randrange(6):
        case 0:
            shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(ODD_SIZES)
        case 1:
            shape.dim.add(dim_value=rng.choice(ODD_SIZES))
        case 2:
            value.type.tensor_type.elem_type = rng.choice((0, 1, 2, 7, 8, 9, 10, 11, 99))
        case 3:
            shape.dim.pop()
        case 4:
            value.name = rng.choice(("", "score", "images", "heatmap", "nothing"))
        case _:
            model.graph.input.append(_float_value(rng.choice(("images", "more", ""))))


def mutate_node(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Change or remove a node: unknown operators, wrong arguments, missing values and cycles."""
    graph = model.graph
    chosen = rng.choice(graph.node)
    match rng.randrange(7):
        case 0:
            names = ("Nothing", "Softmax", "Resize", "TopK", "NonMaxSuppression", "LSTM", "GridSample", "Einsum", "DFT")
            chosen.op_type = rng.choice(names)
        case 1:
            chosen.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "evil", "ai.onnx.preview.training"))
        case 2 if chosen.attribute:
            attribute = rng.choice(chosen.attribute)
            attribute.i = rng.choice(ODD_SIZES)
            attribute.ints[:] = [rng.choice(ODD_SIZES) for _ in range(rng.randint(0, 9))]
        case 3 if chosen.input:
            chosen.input[rng.randrange(len(chosen.input))] = rng.choice(("score", "w", "images", "", "nothing", "top"))
        case 4:
            graph.node.remove(chosen)
        case 5:
            chosen.attribute.append(helper.make_attribute("axis", rng.choice(ODD_SIZES)))
        case _:
            chosen.output[0] = rng.choice(("score", "heatmap", "w", "images"))


def add_greedy_node(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Add a node that uses memory or time without bound; its sizes are constants or computed from the image."""
    huge_sizes = [rng.choice(HUGE_SIZES) for _ in range(rng.randint(1, 3))]
    graph = model.graph
    graph.initializer.append(helper.make_tensor("much", TensorProto.INT64, [len(huge_sizes)], huge_sizes))
    graph.initializer.append(helper.make_tensor("many", TensorProto.INT64, [], [rng.choice(HUGE_SIZES)]))
    if rng.random() < 0.5:
        # Computed at run time, so that loading cannot fold it.
        _append(model, helper.make_node("Cast", ["top"], ["whole"], to=TensorProto.INT64))
        _append(model, helper.make_node("ReduceMax", ["whole"], ["most"], keepdims=0))
        _append(model, helper.make_node("Max", ["most", "many"], ["late"]))
        _append(model, helper.make_node("Max", ["much", "late"], ["sizes"]))
        sizes, count = "sizes", "late"
    else:
        sizes, count = "much", "many"
    name = rng.choice(("ConstantOfShape", "Expand", "Range", "Loop", "Tile", "Pad", "OneHot", "Resize"))
    if name == "ConstantOfShape":
        _append(model, helper.make_node(name, [sizes], ["big"]))
    elif name in ("Expand", "Tile"):
        _append(model, helper.make_node(name, ["shift", sizes], ["big"]))
    elif name == "Range":
        graph.initializer.append(helper.make_tensor("none", TensorProto.INT64, [], [0]))
        graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [], [1]))
        _append(model, helper.make_node(name, ["none", count, "one"], ["big_i"]))
        _append(model, helper.make_node("Cast", ["big_i"], ["big"], to=TensorProto.FLOAT))
    elif name == "Loop":
        _append(model, _loop(count))
    elif name == "Pad":
        graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [2], [0, huge_sizes[0]]))
        _append(model, helper.make_node(name, ["shift", "pads"], ["big"]))
    elif name == "OneHot":
        graph.initializer.append(helper.make_tensor("pair", TensorProto.FLOAT, [2], [0.0, 1.0]))
        _append(model, helper.make_node(name, ["shift", count, "pair"], ["big"]))
    else:
        graph.initializer.append(helper.make_tensor("four", TensorProto.INT64, [4], [1, 1, *([huge_sizes[0]] * 2)]))
        _append(model, helper.make_node(name, ["heatmap", "", "", "four"], ["big"]))
    _append(model, helper.make_node("ReduceMax", ["big"], ["peak"], keepdims=0))
    adder = next((node for node in graph.node if node.op_type == "Add" and "score" in node.output), None)
    if adder is not None:
        graph.node.remove(adder)
        _append(model, helper.make_node("Add", ["top", "peak"], ["score"]))


def _loop(count: str) -> NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []), _float_value("y")],
    )
    return helper.make_node("Loop", [count, "", "shift"], ["big"], body=body)


def nest_graphs(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Add an `If` node whose branches are graphs with further `If` nodes, up to forty deep."""
    inner: GraphProto = helper.make_graph(
        [helper.make_node("Identity", ["shift"], ["z"])], "b", [], [_float_value("z")]
    )
    for _ in range(rng.choice((1, 5, 20, 40))):
        branch = helper.make_node("If", ["truth"], ["z"], then_branch=inner, else_branch=inner)
        if inner.ByteSize() > 100_000:
            break
        inner = helper.make_graph([branch], "b", [], [_float_value("z")])
    model.graph.initializer.append(helper.make_tensor("truth", TensorProto.BOOL, [], [True]))
    _append(model, helper.make_node("If", ["truth"], ["deep"], then_branch=inner, else_branch=inner))


def add_recursive_function(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Add a function that calls itself, directly or through another."""
    names = ("F", "G") if rng.random() < 0.5 else ("F", "F")
    for name, called in {names[0]: names[1], names[1]: names[0]}.items():
        body = [helper.make_node(called, ["x"], ["y"], domain="own")]
        model.functions.append(
            helper.make_function(
                "own", name, ["x"], ["y"], body, [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
            )
        )
    model.opset_import.append(helper.make_opsetid("own", 1))
    _append(model, helper.make_node("F", ["shift"], ["called"], domain="own"))


def mutate_header(rng: Random, model: ModelProto, sandbox: Path) -> None:
    """Change versions, names and metadata."""
    match rng.randrange(4):
        case 0:
            model.ir_version = rng.choice((0, 1, 3, 13, 99, 2**62))
        case 1:
            model.opset_import[0].version = rng.choice((0, 1, 7, 25, 99, 2**62, -1))
        case 2:
            model.metadata_props.add(key=KEY, value=rng.choice(("", "{", card().dump())))
        case _:
            model.metadata_props[0].key = rng.choice(("", "x", "inspect_kd\0"))


MUTATIONS: tuple[Callable[[Random, ModelProto, Path], None], ...] = (
    use_external_data,
    mutate_initializer,
    mutate_signature,
    mutate_node,
    add_greedy_node,
    nest_graphs,
    add_recursive_function,
    mutate_header,
)


def _append(model: ModelProto, node: NodeProto) -> None:
    model.graph.node.append(node)


def _float_value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
