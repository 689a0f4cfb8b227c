"""The check of ONNX files before a runtime opens them: other formats, two cards, too many fields."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import openvino
import pytest

from inspect_kd.errors import BadInput
from inspect_kd.export import to_onnx, to_openvino
from inspect_kd.export.card import KEY
from inspect_kd.export.options import DEFAULTS
from inspect_kd.export.wire import card_text, refuse_external_data
from tests.ambiguous_files import (
    artifact_in_openvino_format,
    artifact_in_ort_format,
    artifact_with_many_fields,
    flatbuffer_that_is_a_protobuf,
)
from tests.fuzzing import graphs


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path) -> None:
    content = flatbuffer_that_is_a_protobuf(tmp_path)
    # ONNX Runtime itself would open it.
    assert onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "images"
    with pytest.raises(BadInput, match="not an ONNX file"):
        to_onnx.Runtime(content, "a.onnx")
    # Even without the check, a session opens no other format than ONNX.
    with pytest.raises(BadInput, match="not an ONNX file"):
        to_onnx.open_session(artifact_in_ort_format(tmp_path), "a.onnx", DEFAULTS)


def test_openvinos_own_format_is_refused(tmp_path: Path) -> None:
    content = artifact_in_openvino_format(tmp_path)
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
def test_fields_of_other_formats_are_refused(content: bytes) -> None:
    refuse_external_data(graphs.artifact().SerializeToString(), "a.onnx")
    with pytest.raises(BadInput, match="not an ONNX file"):
        refuse_external_data(content, "a.onnx")


def test_two_cards_are_refused_by_every_runtime() -> None:
    model = graphs.artifact()
    model.metadata_props.add(key=KEY, value=graphs.card().dump().replace('"tiny"', '"other"'))
    content = model.SerializeToString()
    with pytest.raises(BadInput, match="carries 2 cards"):
        card_text(content, "a.onnx")
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput, match="carries 2 cards"):
            target.Runtime(content, "a.onnx")


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(BadInput, match="more than 1048576 protobuf fields"):
        refuse_external_data(artifact_with_many_fields(), "a.onnx")
    entry = b"\x1a\x00" * 2**18
    with pytest.raises(BadInput, match="more than 1048576 protobuf fields"):
        card_text((b"\x72" + graphs.with_length(entry)) * 5, "a.onnx")
