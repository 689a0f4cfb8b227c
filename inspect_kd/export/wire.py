"""Read an ONNX file's protobuf without onnx or a runtime: find its card, and refuse tensors that are stored in other files.

A tensor of an ONNX model may store its data in another file. Even for a model loaded from bytes, OpenVINO 2026.4 and ONNX Runtime
1.31 then read any file below the working directory, including hard links to files elsewhere (measured: tests/test_openvino.py,
tests/test_hostile.py). So every field that can hold a tensor is checked here before a runtime opens the file. A file that is also
valid in another format (an OpenVINO IR, a model of another framework) is refused: the outermost message may only have the fields of
an ONNX model, with their wire types. `export/cpp/onnx_file.hpp` does the same in C++.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from inspect_kd.errors import BadInput
from inspect_kd.export.card import KEY

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
GRAPH, METADATA, KEY_FIELD, VALUE_FIELD = 7, 14, 1, 2
"""Field numbers: two of a model, two of a metadata entry."""
MODEL_FIELDS = {1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, GRAPH: LENGTH, 8: LENGTH, METADATA: LENGTH,
                20: LENGTH, 25: LENGTH, 26: LENGTH}  # fmt: skip
"""Every field of an ONNX model (IR version 13), with its wire type."""
MAX_DEPTH = 64
"""Levels of nested graphs; a deeper file is an attack on the reader's stack."""
MAX_FIELDS = 2**20
"""Number of fields in all messages together; the largest artifacts of this program have some ten thousand."""
LOCATION, EXTERNAL_DATA, IN_THIS_FILE = 14, 13, 0
"""Two field numbers of a tensor, and the value of LOCATION for data inside the file."""
TENSOR = "tensor"
# Kind of message -> field number -> kind of message in that field; fields that cannot hold a tensor are left out.
NESTED: dict[str, dict[int, str]] = {
    "model": {GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: TENSOR, 2: TENSOR},
    TENSOR: {},
}


def refuse_external_data(data: bytes, where: str) -> None:
    """Raise if a tensor is stored in another file, or if the bytes are not an ONNX file."""
    _refuse_other_formats(data, where)
    stack: list[tuple[memoryview, str, int]] = [(memoryview(data), "model", 0)]
    field_counter = itertools.count(1)
    while stack:
        message, kind, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise BadInput(f"{where}: graphs are nested more than {MAX_DEPTH} deep; artifacts of this program are not")
        for field, _, value in _read_fields(message, where, field_counter):
            if kind == TENSOR and (field == EXTERNAL_DATA or (field == LOCATION and value != IN_THIS_FILE)):
                raise BadInput(f"{where}: a tensor in it lies in another file; an artifact must be a single file")
            inner_kind = NESTED[kind].get(field)
            if inner_kind is None:
                continue
            if not isinstance(value, memoryview):
                raise _invalid_file(where)
            stack.append((value, inner_kind, depth + 1))


def card_text(data: bytes, where: str) -> str:
    """Read the text of the artifact card from the file's metadata; a runtime's own reader might return another entry."""
    cards, field_counter = [], itertools.count(1)
    for field, _, entry in _read_fields(memoryview(data), where, field_counter):
        if field == METADATA and isinstance(entry, memoryview):
            pair = _read_fields(entry, where, field_counter)
            values = {number: bytes(value) for number, _, value in pair if isinstance(value, memoryview)}
            if values.get(KEY_FIELD) == KEY.encode():
                cards.append(values.get(VALUE_FIELD, b""))
    if not cards:
        raise BadInput(f"{where}: an ONNX file, but not an inspect-kd artifact: it carries no card")
    if len(cards) > 1:
        raise BadInput(
            f"{where}: it carries {len(cards)} cards, and ONNX readers differ in which one they use; export it again"
        )
    try:
        return cards[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: its metadata is damaged ({error})") from error


def _refuse_other_formats(data: bytes, where: str) -> None:
    """Raise if the outermost message has a field that an ONNX model lacks, or not exactly one graph."""
    graph_count = 0
    for field, wire_type, _ in _read_fields(memoryview(data), where, itertools.count(1)):
        if MODEL_FIELDS.get(field) != wire_type:
            raise _invalid_file(where)
        graph_count += field == GRAPH
    if graph_count != 1:
        raise _invalid_file(where)


def _read_fields(
    message: memoryview, where: str, field_counter: Iterator[int]
) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and content of each field; the content is bytes or a number.

    `field_counter` counts the fields of all messages: a file with millions of empty messages would take minutes.
    """
    position, end = 0, len(message)
    while position < end:
        if next(field_counter) > MAX_FIELDS:
            raise BadInput(f"{where}: more than {MAX_FIELDS} protobuf fields; no artifact of this program has as many")
        tag, position = _read_varint(message, position, where)
        if tag >> 32 or tag < 8:
            # Readers in C++ truncate such a tag to 32 bits, and would read another field.
            raise _invalid_file(where)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = _read_varint(message, position, where)
            yield field, wire_type, value
        elif wire_type == LENGTH:
            length, position = _read_varint(message, position, where)
            if length > end - position:
                raise _invalid_file(where)
            yield field, wire_type, message[position : position + length]
            position += length
        elif wire_type in (FIXED32, FIXED64):
            start, position = position, position + (4 if wire_type == FIXED32 else 8)
            if position > end:
                raise _invalid_file(where)
            yield field, wire_type, int.from_bytes(message[start:position], "little")
        else:
            raise _invalid_file(where)


def _read_varint(message: memoryview, position: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _invalid_file(where)
        byte = message[position]
        position += 1
        if shift == 63 and byte > 1:
            # Beyond 64 bits, which readers in C++ truncate to another number.
            raise _invalid_file(where)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _invalid_file(where)


def _invalid_file(where: str) -> BadInput:
    return BadInput(f"{where}: not an ONNX file, or a truncated one")
