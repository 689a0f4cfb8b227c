"""The quarantine: an artifact that breaks a runtime breaks a child process only, and one that passes is tried once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inspect_kd import quarantine
from inspect_kd.datasets.view import BATCH
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.inspector import Inspector
from inspect_kd.signing import make_keys, sign
from tests.fuzzing import graphs


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of artifacts that passed, in a cache of the test's own."""
    monkeypatch.setenv("INSPECT_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "quarantine" / "passed.json"


def write_artifact(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def endless_graph() -> onnx.ModelProto:
    """A valid graph with an endless loop."""
    model = graphs.artifact()
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
        ],
    )
    model.graph.initializer.append(helper.make_tensor("times", TensorProto.INT64, [], [2**62]))
    model.graph.node.append(helper.make_node("Loop", ["times", "", "shift"], ["late"], body=body))
    return make_second_input_of_score(model, "late")


def endless_on_a_batch_of(size: int) -> onnx.ModelProto:
    """A graph with a loop that is endless for batches of this size and runs once for others."""
    model = endless_graph()
    nodes = [
        helper.make_node("Shape", ["images"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["count"]),
        helper.make_node("Equal", ["count", "size"], ["is_endless"]),
        helper.make_node("Where", ["is_endless", "times", "one"], ["rounds"]),
    ]
    for name, value in (("first", 0), ("one", 1), ("size", size)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [], [value]))
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    loop.input[0] = "rounds"
    model.graph.node.remove(loop)
    model.graph.node.extend([*nodes, loop])
    return make_second_input_of_score(model, "late")


def memory_hungry_graph() -> onnx.ModelProto:
    """A small graph that allocates 4 GB when it runs, which many machines would allow."""
    model = graphs.artifact()
    model.graph.initializer.append(helper.make_tensor("sides", TensorProto.INT64, [2], [2**15, 2**15]))
    model.graph.node.append(helper.make_node("Expand", ["top_1", "sides"], ["wide"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["top"], ["top_1"], keepdims=0))
    model.graph.node.append(helper.make_node("ReduceMax", ["wide"], ["late"], keepdims=0))
    return make_second_input_of_score(model, "late")


def make_second_input_of_score(model: onnx.ModelProto, value: str) -> onnx.ModelProto:
    """Give the node of the score this value as its second input, and move it to the end."""
    last = next(node for node in model.graph.node if node.output[0] == "score")
    last.input[1] = value
    model.graph.node.remove(last)
    model.graph.node.append(last)
    return model


@pytest.mark.parametrize("target", ["folder", "file"])
def test_record_writable_by_others_is_refused(tmp_path: Path, target: str) -> None:
    path = write_artifact(tmp_path, graphs.artifact())
    Inspector(path)
    file = next((tmp_path / "cache").rglob("*.json"))
    (file if target == "file" else file.parent).chmod(0o777)
    with pytest.raises(EnvironmentFault, match="other users may write there"):
        Inspector(path)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The artifacts that were tried in a child process."""
    calls: list[object] = []
    original = quarantine._try_in_child

    def try_and_record(content: bytes, path: Path, target: str) -> None:
        calls.append(path)
        original(content, path, target)

    monkeypatch.setattr(quarantine, "_try_in_child", try_and_record)
    return calls


def test_artifact_is_tried_once(tmp_path: Path, record: Path, trials: list[object]) -> None:
    path = write_artifact(tmp_path, graphs.artifact())
    assert Inspector(path).size == graphs.SIZE and len(trials) == 1
    assert len(json.loads(record.read_text())["passed"]) == 1
    start = time.perf_counter()
    Inspector(path)
    assert len(trials) == 1 and time.perf_counter() - start < 1
    assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_changed_artifact_is_tried_again(tmp_path: Path, trials: list[object]) -> None:
    Inspector(write_artifact(tmp_path, graphs.artifact()))
    Inspector(write_artifact(tmp_path, graphs.artifact(graphs.card().dump() + " ")))
    assert len(trials) == 2


def test_artifact_is_tried_again_with_another_runtime(
    tmp_path: Path, trials: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_artifact(tmp_path, graphs.artifact())
    Inspector(path)
    monkeypatch.setattr(quarantine, "installed_versions", lambda _: {"onnxruntime": "99"})
    Inspector(path)
    assert len(trials) == 2


def test_endless_graph_is_refused(tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_SECONDS", 4)
    path = write_artifact(tmp_path, endless_graph())
    start = time.monotonic()
    with pytest.raises(BadInput, match=r"a\.onnx: refused: it did not finish within 4 s in quarantine"):
        Inspector(path)
    assert time.monotonic() - start < 15 and not record.exists()


@pytest.mark.parametrize("size", [1, BATCH])
def test_graph_that_is_endless_on_one_batch_size_is_refused(
    size: int, tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of a large image are predicted in batches of eight."""
    monkeypatch.setattr(quarantine, "MAX_SECONDS", 6)
    with pytest.raises(BadInput, match="it did not finish within 6 s"):
        Inspector(write_artifact(tmp_path, endless_on_a_batch_of(size)))
    assert not record.exists()


def test_record_below_a_folder_writable_by_others_is_refused(tmp_path: Path, record: Path) -> None:
    """Even if it does not exist yet: others could create it."""
    path = write_artifact(tmp_path, graphs.artifact())
    record.parents[1].mkdir()
    record.parents[1].chmod(0o777)
    with pytest.raises(EnvironmentFault, match=rf"^{record.parents[1]}: other users may write .*INSPECT_KD_CACHE"):
        Inspector(path)
    assert not record.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the memory of a process")
def test_graph_that_needs_too_much_memory_is_refused(tmp_path: Path, record: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.onnx: .*(could not run it|memory|crashed the runtime)"):
        Inspector(write_artifact(tmp_path, memory_hungry_graph()))
    assert not record.exists()


def test_artifact_that_crashes_the_runtime_is_refused(tmp_path: Path, record: Path) -> None:
    """The child's runtime is replaced by one that crashes like a native parser."""
    path = write_artifact(tmp_path, graphs.artifact())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "onnxruntime.py").write_text("import ctypes\ndef __getattr__(name): ctypes.string_at(0)\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\nfrom inspect_kd.cli import main\nmain()"
    words = [sys.executable, "-c", program, "predict", str(path), str(path)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 3 and not record.exists()
    assert answer.stderr.strip() == f"inspect-kd: {path}: refused: it crashed the runtime in quarantine (SIGSEGV)"


def test_trusted_signature_and_option_skip_the_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_artifact(tmp_path, graphs.artifact())
    public_key = make_keys(tmp_path / "k.pem", None)
    sign(path, tmp_path / "k.pem")
    # A frozen program cannot start a child process, so it opens only artifacts that need no quarantine.
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert Inspector(path, trust=public_key).size == graphs.SIZE
    assert Inspector(path, quarantine=False).size == graphs.SIZE
    with pytest.raises(EnvironmentFault, match=r"no Python interpreter to start: sign it .* quarantine=False"):
        Inspector(path)


def test_child_that_cannot_start_is_an_environment_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_artifact(tmp_path, graphs.artifact())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(EnvironmentFault, match="could not be started"):
        Inspector(path)
    failing_interpreter = tmp_path / "python"
    failing_interpreter.write_text("#!/bin/sh\necho no modules here >&2\nexit 1\n")
    failing_interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing_interpreter))
    with pytest.raises(EnvironmentFault, match=r"did not start \(no modules here\)"):
        Inspector(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"passed": 3}', b'{"passed": [[1]]}', b"\xff\xfe", b"[" * 50_000, b'{"passed": ["' + b"x" * 10**5],
)  # fmt: skip
def test_broken_record_counts_as_empty(content: bytes, tmp_path: Path, record: Path) -> None:
    record.parent.mkdir(parents=True)
    record.write_bytes(content)
    Inspector(write_artifact(tmp_path, graphs.artifact()))
    assert len(json.loads(record.read_text())["passed"]) == 1


def test_record_has_a_limited_size(record: Path) -> None:
    for number in range(quarantine.MAX_RECORDED + 20):
        quarantine._add_to_record(record, f"{number:064}")
    assert quarantine._read_record(record)[-1] == f"{quarantine.MAX_RECORDED + 19:064}"
    assert (
        len(quarantine._read_record(record)) == quarantine.MAX_RECORDED and record.stat().st_size < quarantine.MAX_BYTES
    )


def test_artifact_opens_if_the_record_cannot_be_written(tmp_path: Path, record: Path) -> None:
    record.parent.parent.mkdir()
    record.parent.write_text("a file where the folder should be")
    assert Inspector(write_artifact(tmp_path, graphs.artifact())).size == graphs.SIZE


def test_quarantine_imports_no_torch_and_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)
    Inspector(write_artifact(tmp_path, graphs.artifact()))
    program = (
        "import sys, numpy as np, onnxruntime\nfrom inspect_kd import quarantine, registry\n"
        "runtime = registry.load('export', 'to_onnx').Runtime\n"
        f"assert quarantine._try_artifact(runtime, open({str(tmp_path / 'a.onnx')!r}, 'rb').read(), 'a') == {{'passed': True}}\n"
        "print(','.join(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    answer = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not set(answer.stdout.strip().split(",")) & {"torch", "onnx", "pydantic", "typer", "lightning"}


def test_output_of_an_undeclared_shape_is_refused(tmp_path: Path) -> None:
    model = graphs.artifact()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    node = next(node for node in model.graph.node if node.output[0] == "heatmap")
    node.output[0] = "hot"
    model.graph.initializer.append(helper.make_tensor("flat", TensorProto.INT64, [2], [0, -1]))
    model.graph.node.append(helper.make_node("Reshape", ["hot", "flat"], ["heatmap"]))
    maximum = next(node for node in model.graph.node if node.op_type == "ReduceMax")
    maximum.input[0] = "hot"
    with pytest.raises(BadInput, match="returned scores and heatmaps of shapes"):
        Inspector(write_artifact(tmp_path, model))
    inspector = Inspector(write_artifact(tmp_path, model), quarantine=False)
    with pytest.raises(BadInput, match="returned scores and heatmaps of shapes"):
        inspector(np.zeros((20, 20, 3), np.uint8))
