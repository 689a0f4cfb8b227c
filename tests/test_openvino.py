"""Target openvino: agreement with ONNX Runtime, fixed precision, and no access to other files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.export.to_openvino import Runtime
from inspect_kd.export.wire import refuse_external_data
from inspect_kd.inspector import Inspector

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'inspect-kd[openvino]'")


@pytest.fixture(scope="module")
def artifact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that `inspect-kd export` wrote and verified."""
    output = tmp_path_factory.mktemp("openvino") / "r.openvino.onnx"
    words = [sys.executable, "-m", "inspect_kd", "export", str(run), "--to", "openvino", "--output", str(output)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "0 decisions flip" in result.stdout
    return output


def test_predictions_agree_with_onnx_runtime(artifact: Path, run: Path, parts: Path) -> None:
    original, converted = Inspector(run / "r.onnx"), Inspector(artifact)
    assert converted.card.target == "openvino" and isinstance(converted.model, Runtime)
    for image in sorted(parts.rglob("test/*/*.png")):
        expected, actual = original(image), converted(image)
        assert actual.score == pytest.approx(expected.score, abs=1e-5) and expected.decision is actual.decision
        assert np.abs(expected.heatmap - actual.heatmap).max() < 1e-4


def test_precision_and_threads_are_set(artifact: Path) -> None:
    compiled = Inspector(artifact, threads=1).model.compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_missing_device_is_an_error(artifact: Path) -> None:
    if any(name.startswith("GPU") for name in openvino.Core().available_devices):
        pytest.skip("this machine has a GPU that OpenVINO supports")
    with pytest.raises(EnvironmentFault, match="requested OpenVINO's GPU"):
        Inspector(artifact, device="gpu")
    assert Inspector(artifact, device="gpu", allow_cpu=True).size == 64
    with pytest.raises(BadInput, match="no device 'tensorrt'"):
        Inspector(artifact, device="tensorrt")


def model_with_external_tensor(location: str, *, hidden_in: str = "initializer") -> bytes:
    """A model that stores one of its tensors in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    if hidden_in == "initializer":
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    elif hidden_in == "attribute":
        constant = helper.make_node("Constant", [], ["w"])
        constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor))
        graph = helper.make_graph([constant, helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y])
    else:
        branch = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "b", [], [y], [tensor])
        condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([node], "g", [x], [y], [condition])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


@pytest.mark.parametrize("hidden_in", ["initializer", "attribute", "branch"])
def test_tensors_in_other_files_are_refused(tmp_path: Path, hidden_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    content = model_with_external_tensor("secret.bin", hidden_in=hidden_in)
    if hidden_in == "initializer":
        # OpenVINO itself would read the file.
        compiled = openvino.Core().compile_model(openvino.Core().read_model(content), "CPU")
        assert compiled(np.zeros(4, np.float32))[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="lies in another file"):
        refuse_external_data(content, "a.onnx")
    with pytest.raises(BadInput, match="lies in another file"):
        Runtime(content, "a.onnx")


def test_truncated_and_mutated_files_raise_nothing_but_bad_input(artifact: Path) -> None:
    content = artifact.read_bytes()
    refuse_external_data(content, "a")
    for invalid in (content[: len(content) // 2], b"\xff" * 40, b"\x0b", b"\x3a\xff\xff\xff\xff\x0f"):
        with pytest.raises(BadInput):
            refuse_external_data(invalid, "a")
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutated = bytearray(content[:4000])
        for position in rng.integers(len(mutated), size=8):
            mutated[position] = int(rng.integers(256))
        try:
            refuse_external_data(bytes(mutated), "a")
        except BadInput:
            continue


def test_invalid_artifacts_and_empty_batches_are_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="carries no card"):
        model = onnx.load(str(artifact))
        del model.metadata_props[:]
        Runtime(model.SerializeToString(), "a.onnx")
    with pytest.raises(BadInput):
        Runtime(b"no model", "a.onnx")
    with pytest.raises(BadInput, match="empty batch"):
        Inspector(artifact).model.predict_batch(np.zeros((0, 64, 64, 3), np.uint8))
