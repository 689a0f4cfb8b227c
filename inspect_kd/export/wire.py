"""What an ONNX file says of itself, and whether it leads out of itself. Read from the bytes alone, with neither onnx nor a runtime.

A tensor of an ONNX model may say that its numbers lie in another file. Also of a model that comes as bytes OpenVINO 2026.4 and
ONNX Runtime 1.31 read any file below the working directory, hard links out of it included (measured: tests/test_openvino.py,
tests/test_hostile.py). So the protobuf is walked here, along every field in which a tensor can stand, before a runtime sees it.
A file that is a protobuf and something else at once (an OpenVINO IR, a model of another framework) is refused by its fields:
the outermost message has the fields of an ONNX model with their wire types, and no others. `export/cpp/onnx_file.hpp` is the same in C++.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from inspect_kd.errors import BadInput
from inspect_kd.export.card import KEY

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
GRAPH, METADATA, KEY_FIELD, VALUE_FIELD = 7, 14, 1, 2
MODEL_FIELDS = {1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, GRAPH: LENGTH, 8: LENGTH, METADATA: LENGTH,
                20: LENGTH, 25: LENGTH, 26: LENGTH}  # fmt: skip
"""Every field of an ONNX model (IR version 13), with its wire type."""
DEEPEST = 64
"""Graphs within graphs: more is an attack on the reader's stack."""
MOST_FIELDS = 2**20
"""In all messages that are walked through; the largest artifacts of this program have some ten thousand."""
LOCATION, EXTERNAL_DATA, IN_THIS_FILE = 14, 13, 0
TENSOR = "tensor"
# Message -> field -> the message that stands there; fields in which no tensor can stand are skipped.
INSIDE: dict[str, dict[int, str]] = {
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
    """Raise where any tensor names another file, or the bytes are no ONNX file."""
    _refuse_other_formats(data, where)
    stack: list[tuple[memoryview, str, int]] = [(memoryview(data), "model", 0)]
    count = itertools.count(1)
    while stack:
        message, kind, depth = stack.pop()
        if depth > DEEPEST:
            raise BadInput(f"{where}: graphs are nested more than {DEEPEST} deep; no artifact of this program is")
        for field, _, value in _fields(message, where, count):
            if kind == TENSOR and (field == EXTERNAL_DATA or (field == LOCATION and value != IN_THIS_FILE)):
                raise BadInput(
                    f"{where}: a tensor in it lies in another file; an artifact is one file, and nothing else is read"
                )
            inner = INSIDE[kind].get(field)
            if inner is None:
                continue
            if not isinstance(value, memoryview):
                raise _torn(where)
            stack.append((value, inner, depth + 1))


def card_text(data: bytes, where: str) -> str:
    """The card as it lies in the file's metadata: of all runtimes the same, hence read here and not by them."""
    cards, count = [], itertools.count(1)
    for field, _, entry in _fields(memoryview(data), where, count):
        if field == METADATA and isinstance(entry, memoryview):
            pair = _fields(entry, where, count)
            told = {number: bytes(value) for number, _, value in pair if isinstance(value, memoryview)}
            if told.get(KEY_FIELD) == KEY.encode():
                cards.append(told.get(VALUE_FIELD, b""))
    if not cards:
        raise BadInput(f"{where}: an ONNX file, but not an inspect-kd artifact: it carries no card")
    if len(cards) > 1:
        raise BadInput(
            f"{where}: it carries {len(cards)} cards, and readers of ONNX differ in which one they take; export it again"
        )
    try:
        return cards[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: its metadata is damaged ({error})") from error


def _refuse_other_formats(data: bytes, where: str) -> None:
    graphs = 0
    for field, wire, _ in _fields(memoryview(data), where, itertools.count(1)):
        if MODEL_FIELDS.get(field) != wire:
            raise _torn(where)
        graphs += field == GRAPH
    if graphs != 1:
        raise _torn(where)


def _fields(message: memoryview, where: str, count: Iterator[int]) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and content of each field: bytes where they have a length, else a number.

    `count` goes on from message to message: a file of empty ones would be walked through for minutes.
    """
    place, end = 0, len(message)
    while place < end:
        if next(count) > MOST_FIELDS:
            raise BadInput(f"{where}: more than {MOST_FIELDS} protobuf fields; no artifact of this program has as many")
        tag, place = _varint(message, place, where)
        if tag >> 32 or tag < 8:
            # Readers in C++ cut such a tag to 32 bits and find a field in it that is not seen here.
            raise _torn(where)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(message, place, where)
            yield field, wire, value
        elif wire == LENGTH:
            length, place = _varint(message, place, where)
            if length > end - place:
                raise _torn(where)
            yield field, wire, message[place : place + length]
            place += length
        elif wire in (FIXED32, FIXED64):
            start, place = place, place + (4 if wire == FIXED32 else 8)
            if place > end:
                raise _torn(where)
            yield field, wire, int.from_bytes(message[start:place], "little")
        else:
            raise _torn(where)


def _varint(message: memoryview, place: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _torn(where)
        byte = message[place]
        place += 1
        if shift == 63 and byte > 1:
            # Beyond 64 bits: readers in C++ cut it and find another number than this one.
            raise _torn(where)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _torn(where)


def _torn(where: str) -> BadInput:
    return BadInput(f"{where}: not an ONNX file, or a torn one")
