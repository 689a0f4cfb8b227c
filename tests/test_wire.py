"""Files that are an ONNX model to one reader and something else to another are no artifacts."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
from openvino import opset13

from inspect_kd.errors import BadInput
from inspect_kd.export import to_onnx, to_openvino
from inspect_kd.export.card import KEY
from inspect_kd.export.options import DEFAULTS
from inspect_kd.export.wire import card_text, refuse_external_data
from tests.fuzzing import graphs


def varint(number: int, width: int) -> bytes:
    """Of a fixed width, so that what it counts can be measured before it is written."""
    parts = [number >> 7 * place & 0x7F | 0x80 for place in range(width)]
    return bytes([*parts[:-1], parts[-1] & 0x7F])


def runtime_format(folder: Path) -> bytes:
    """The tiny artifact in ONNX Runtime's own format, a flatbuffer."""
    how = onnxruntime.SessionOptions()
    how.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    how.add_session_config_entry("session.save_model_format", "ORT")
    how.optimized_model_filepath = str(folder / "a.ort")
    onnxruntime.InferenceSession(graphs.artifact().SerializeToString(), how, providers=["CPUExecutionProvider"])
    return (folder / "a.ort").read_bytes()


def flatbuffer_that_is_a_protobuf(folder: Path) -> bytes:
    """Its root moved to 0x90008: then its head reads as a varint and a fixed64, and one long text takes the rest."""
    plain, place = runtime_format(folder), 0x90008
    gap = place - struct.unpack("<I", plain[:4])[0]
    head = struct.pack("<I", place) + b"ORTM" + bytes(3) + b"\x1a"
    rest = bytes(gap - len(head) - 5 + 8) + plain[8:]
    return head + varint(len(rest), 5) + rest


def openvino_format(folder: Path) -> bytes:
    """OpenVINO's own format (XML) that reads as a protobuf: its first line is one field, a comment begins the second."""
    images = opset13.parameter([-1, graphs.SIZE, graphs.SIZE, 3], np.uint8, "images")
    heatmap, score = (opset13.convert(images, "f32") for _ in range(2))
    images.output(0).set_names({"images"})
    heatmap.output(0).set_names({"heatmap"})
    score.output(0).set_names({"score"})
    model = openvino.Model([heatmap, score], [images], "g")
    model.set_rt_info(graphs.card().dump(), ["framework", KEY])
    openvino.save_model(model, folder / "a.xml", compress_to_fp16=False)
    declaration, _, net = (folder / "a.xml").read_bytes().partition(b"?>")
    first = declaration.removeprefix(b"<") + b"?>"
    begin = b"\n<" + first + b" " * (ord("<") - len(first) - 4) + b"<!--"
    # A tag, and a length of three bytes that are text: half a megabyte.
    length = 0x43 | 0x29 << 7 | 0x20 << 14
    return begin + b'"\xc3\xa9 ' + (b"-->" + net).ljust(length)


def test_the_runtimes_own_format_is_no_artifact(tmp_path: Path) -> None:
    content = flatbuffer_that_is_a_protobuf(tmp_path)
    # The threat is real: left to itself the runtime opens it.
    assert onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "images"
    with pytest.raises(BadInput, match="not an ONNX file"):
        to_onnx.Runtime(content, "a.onnx")
    # Whatever a file's fields look like, the session reads ONNX and nothing else.
    with pytest.raises(BadInput, match="not an ONNX file"):
        to_onnx.open_session(runtime_format(tmp_path), "a.onnx", DEFAULTS)


def test_openvinos_own_format_is_no_artifact(tmp_path: Path) -> None:
    content = openvino_format(tmp_path)
    assert openvino.Core().read_model(content).inputs[0].any_name == "images"
    with pytest.raises(BadInput, match="not an ONNX file"):
        to_openvino.Runtime(content, "a.openvino.onnx")


@pytest.mark.parametrize(
    "content",
    [
        graphs.artifact().SerializeToString() + b"\x09" + bytes(8),
        graphs.artifact().SerializeToString() + b"\x9a\x06\x00",
        graphs.artifact().SerializeToString() + b"\x3a\x00",
        graphs.artifact().SerializeToString() + b"\x38\x01",
        b"\x08\x0a",
    ],
    ids=["fixed64 version", "unknown field", "two graphs", "graph that is a number", "no graph"],
)
def test_fields_that_no_onnx_model_has_are_refused(content: bytes) -> None:
    refuse_external_data(graphs.artifact().SerializeToString(), "a.onnx")
    with pytest.raises(BadInput, match="not an ONNX file"):
        refuse_external_data(content, "a.onnx")


def test_two_cards_are_refused_by_every_reader() -> None:
    model = graphs.artifact()
    model.metadata_props.add(key=KEY, value=graphs.card().dump().replace('"tiny"', '"other"'))
    content = model.SerializeToString()
    with pytest.raises(BadInput, match="carries 2 cards"):
        card_text(content, "a.onnx")
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput, match="carries 2 cards"):
            target.Runtime(content, "a.onnx")


def many_fields() -> bytes:
    """A graph of two million empty texts: few bytes, and a long walk."""
    graph = b"\x52\x00" * 2**21
    return b"\x08\x0a\x3a" + graphs.length_of(graph)


def test_more_fields_than_any_artifact_has_are_refused() -> None:
    with pytest.raises(BadInput, match="more than 1048576 protobuf fields"):
        refuse_external_data(many_fields(), "a.onnx")
    entry = b"\x1a\x00" * 2**18
    with pytest.raises(BadInput, match="more than 1048576 protobuf fields"):
        card_text((b"\x72" + graphs.length_of(entry)) * 5, "a.onnx")
