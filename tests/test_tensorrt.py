"""Target tensorrt, as far as it can be tested without a GPU: the exported file, the table of operators, the engine cache."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import gpu_check
from inspect_kd.errors import BadInput, EnvironmentFault, GateFailed
from inspect_kd.export.engine_cache import EngineKey
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.tensorrt_rules import load_table, refuse_unsupported
from inspect_kd.export.to_tensorrt import TIMING_FILE, load_or_build_plan
from inspect_kd.export.wire import card_text
from inspect_kd.inspector import Inspector


def export(run: Path, target: str, output: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "inspect_kd", "export", str(run), "--to", target, "--output", str(output)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def artifact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trt") / "r.fp16.tensorrt.onnx"
    result = export(run, "tensorrt_fp16", output)
    assert result.returncode == 0, result.stderr
    return output


def test_fp16_file_has_half_precision_weights_and_its_card(artifact: Path) -> None:
    data_types = {tensor.data_type for tensor in onnx.load(str(artifact)).graph.initializer}
    assert TensorProto.FLOAT16 in data_types
    card = json.loads(card_text(artifact.read_bytes(), "a"))
    assert card["target"] == "tensorrt" and card["parity"]["flips"] == 0
    with pytest.raises(BadInput, match="carries no card"):
        card_text(onnx.ModelProto(ir_version=9).SerializeToString(), "a")


def test_exported_files_pass_the_operator_table(artifact: Path, run: Path) -> None:
    refuse_unsupported(artifact)
    refuse_unsupported(run / "r.onnx")
    assert load_table()["tensorrt"] and "onnx-tensorrt" in load_table()["source"]


def test_int8_file_has_signed_symmetric_weights(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "lenient.yaml"
    lenient = {
        "name": "tensorrt_lenient",
        "target": "tensorrt",
        "precision": "int8",
        "accept": {"auroc": 1, "flips": 1},
    }
    file.write_text(json.dumps(lenient | {"quantise": {"sound": 8, "checked": 2, "score": 0.1, "symmetric": True}}))
    output = tmp_path / "r.lenient.tensorrt.onnx"
    result = export(run, str(file), output)
    assert result.returncode == 0, result.stderr
    model = onnx.load(str(output))
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    data_types = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.INT8 in data_types and TensorProto.UINT8 not in data_types
    refuse_unsupported(output)


def make_model(
    *nodes: onnx.NodeProto, data_type: int = TensorProto.FLOAT, constants: dict[str, np.ndarray] | None = None
) -> bytes:
    """A model with the input x, the output y, and these nodes."""
    values = [helper.make_tensor_value_info(name, data_type, [1, 4]) for name in ("x", "y")]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    )
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (make_model(helper.make_node("NonZero", ["x"], ["y"])), None),
        (make_model(helper.make_node("Det", ["x"], ["y"])), "Det: not supported"),
        (
            make_model(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")),
            "com.microsoft.Gelu: not supported",
        ),
        (make_model(helper.make_node("Transpose", ["x"], ["y"]), data_type=TensorProto.UINT8), "Transpose of UINT8"),
        (make_model(helper.make_node("Cast", ["x"], ["y"], to=1), data_type=TensorProto.UINT8), None),
        (make_model(helper.make_node("TopK", ["x", "x"], ["y", "i"])), "TopK with a k that is not constant"),
        (
            make_model(helper.make_node("TopK", ["x", "k"], ["y", "i"]), constants={"k": np.array([4000])}),
            "TopK of more than 3839",
        ),
        (make_model(helper.make_node("ReduceMax", ["x", "x"], ["y"])), "ReduceMax along axes that are not constant"),
        (make_model(helper.make_node("Resize", ["x"], ["y"], mode="cubic")), "Resize with antialiasing"),
        (
            make_model(
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]),
                constants={"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)},
            ),
            "with a zero point other than 0",
        ),
    ],
    ids=["nonzero", "det", "domain", "uint8", "cast", "k", "large_k", "axes", "cubic", "zero_point"],
)
def test_unsupported_nodes_are_refused(tmp_path: Path, content: bytes, fault: str | None) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    if fault is None:
        refuse_unsupported(file)
        return
    with pytest.raises(GateFailed) as raised:
        refuse_unsupported(file)
    assert fault in str(raised.value)


KEY = EngineKey(artifact="a" * 64, size=64, batch=8, gpu="G 9.0", driver="600", tensorrt="11.4")


def test_engine_is_built_once_with_the_shared_timing_file(run: Path, tmp_path: Path) -> None:
    data, card = (run / "r.onnx").read_bytes(), Inspector(run / "r.onnx").card
    options, timing_files = RuntimeOptions(cache=str(tmp_path / "engines")), []

    def build(timing: Path) -> bytes:
        timing_files.append(timing)
        return b"plan"

    for _ in range(2):
        assert load_or_build_plan(data, card, options, build, KEY) == b"plan"
    assert timing_files == [tmp_path / "engines" / TIMING_FILE]


def test_rejected_engine_is_not_cached(run: Path, tmp_path: Path) -> None:
    data, card = (run / "r.onnx").read_bytes(), Inspector(run / "r.onnx").card
    options = RuntimeOptions(cache=str(tmp_path / "engines"))

    def reject(timing: Path) -> bytes:
        raise BadInput("the scores of the engine differ")

    with pytest.raises(BadInput):
        load_or_build_plan(data, card, options, reject, KEY)
    assert not list((tmp_path / "engines").glob("*.plan"))


def test_missing_gpu_is_an_error(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFault, match="nvidia-smi finds none"):
        Inspector(artifact)


def test_gpu_check_reports_a_missing_gpu(tmp_path: Path) -> None:
    words, root = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path)], Path(__file__).parents[1]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": "/nowhere"}, cwd=root)
    assert answer.returncode == 1 and "no NVIDIA GPU found" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_gpu_check_calls_existing_commands_and_options(run: Path) -> None:
    commands = gpu_check.training_steps(run) | gpu_check.check_steps(
        run, run / "r.onnx", run / "r.fp16.tensorrt.onnx", run / "data"
    )
    for words in commands.values():
        if words[1:4] == ["-P", "-m", "inspect_kd"]:
            # An unknown option fails before the help is shown.
            assert gpu_check.run_step([*words, "--help"])["status"] == 0, words
    failed_step = gpu_check.run_step([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"])
    assert (
        failed_step["status"] == 3
        and failed_step["output"] == ["why"]
        and failed_step["command"].startswith("python -c")
    )
    assert gpu_check.run_step(["no-such-program"])["status"] == 127
    assert "## a: failed" in gpu_check.page({"a": failed_step})


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is None, reason="TensorRT is not installed")
def test_engine_agrees_with_onnx_runtime(artifact: Path, run: Path, parts: Path, tmp_path: Path) -> None:
    plain = Inspector(run / "r.onnx")
    engine = Inspector(artifact, options=RuntimeOptions(device="tensorrt", cache=str(tmp_path / "engines")))
    for image in sorted(parts.rglob("test/*/*.png")):
        a, b = plain(image), engine(image)
        assert b.score == pytest.approx(a.score, abs=0.02)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert engine.predict_batch(images[:1]).scores_N != engine.predict_batch(images[1:]).scores_N
