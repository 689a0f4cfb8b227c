"""Files that some readers take for an ONNX model and others for another format, and ONNX files with too many fields."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from openvino import opset13

from inspect_kd.export.card import KEY
from tests.fuzzing import graphs

VARINT_WIDTH = 5
"""Bytes of each varint, enough for any length below 2**35."""


def varint(number: int, width: int) -> bytes:
    """Encode a varint of a fixed width, so that its size is known before its value."""
    groups = [number >> 7 * index & 0x7F | 0x80 for index in range(width)]
    return bytes([*groups[:-1], groups[-1] & 0x7F])


def artifact_in_ort_format(folder: Path) -> bytes:
    """Return the tiny artifact in ONNX Runtime's own format, a flatbuffer."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(folder / "a.ort")
    onnxruntime.InferenceSession(graphs.artifact().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return (folder / "a.ort").read_bytes()


def flatbuffer_that_is_a_protobuf(folder: Path) -> bytes:
    """Return the tiny artifact in ONNX Runtime's format, changed so that it also reads as a protobuf of three fields."""
    original = artifact_in_ort_format(folder)
    # The flatbuffer begins with the offset of its root: this one, to which the rest of the file is moved.
    root = 0x90008
    shift = root - struct.unpack("<I", original[:4])[0]
    # As a protobuf: 08 00 is field 1, a varint; 09 is field 1 of 8 bytes; 1a is field 3, whose length and content follow.
    head = struct.pack("<I", root) + b"ORTM" + bytes(3) + b"\x1a"
    body = bytes(shift - len(head) - VARINT_WIDTH + 8) + original[8:]
    return head + varint(len(body), VARINT_WIDTH) + body


def artifact_in_openvino_format(folder: Path) -> bytes:
    """Return the tiny artifact in OpenVINO's own format, XML, changed so that it also reads as a protobuf of two fields.

    The first field is the first line and the start of an XML comment; the second one is the rest.
    """
    images = opset13.parameter([-1, graphs.SIZE, graphs.SIZE, 3], np.uint8, "images")
    heatmap, score = (opset13.convert(images, "f32") for _ in range(2))
    images.output(0).set_names({"images"})
    heatmap.output(0).set_names({"heatmap"})
    score.output(0).set_names({"score"})
    model = openvino.Model([heatmap, score], [images], "g")
    model.set_rt_info(graphs.card().dump(), ["framework", KEY])
    openvino.save_model(model, folder / "a.xml", compress_to_fp16=False)
    declaration, _, net = (folder / "a.xml").read_bytes().partition(b"?>")
    first_line = declaration.removeprefix(b"<") + b"?>"
    # The line break is the tag of field 1, and "<" its length: 60 bytes, which end with the start of an XML comment.
    first_field = b"\n<" + first_line + b" " * (ord("<") - len(first_line) - 4) + b"<!--"
    # The quotation mark is the tag of field 4, and the characters after it are its length, half a megabyte.
    length = 0x43 | 0x29 << 7 | 0x20 << 14
    return first_field + b'"\xc3\xa9 ' + (b"-->" + net).ljust(length)


def artifact_with_many_fields() -> bytes:
    """Return an artifact whose graph has two million empty fields: a small file that takes long to check."""
    # 52 00 is an empty field 10 of the graph; 08 0a is the model's version, 3a the tag of its graph.
    graph = b"\x52\x00" * 2**21
    return b"\x08\x0a\x3a" + graphs.with_length(graph)
