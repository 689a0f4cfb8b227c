"""fp16 and int8: precision of each component, effect on predictions, and the conversion report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from inspect_kd.calibrate import calibrate_scaled
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.export.deploy import deployments_for, load_deployment
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.export.half import to_half_precision
from inspect_kd.export.quantise import QuantiseSettings, quantise
from inspect_kd.export.verify import WeightedImages
from inspect_kd.inspector import Inspector
from inspect_kd.types import NoProgress

ROOT = Path(__file__).parents[1]


def export(run: Path, to: str, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "inspect_kd", "export", str(run), "--to", to, *more]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def list_test_images(parts: Path) -> list[Path]:
    return sorted(parts.rglob("test/*/*.png"))


def count_data_types(path: Path) -> Counter[int]:
    """Number of weights per data type."""
    return Counter(tensor.data_type for tensor in onnx.load(str(path)).graph.initializer)


@pytest.fixture(scope="module")
def fp16_artifact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("half") / "r.fp16.onnx"
    result = export(run, "onnx_fp16", "--output", str(output))
    assert result.returncode == 0, result.stderr
    assert "plain fp32" in result.stdout
    return output


def test_fp16_changes_scores_only_slightly(fp16_artifact: Path, run: Path, parts: Path) -> None:
    fp32, fp16 = Inspector(run / "r.onnx"), Inspector(fp16_artifact)
    differences = []
    for image in list_test_images(parts):
        a, b = fp32(image), fp16(image)
        differences.append(abs(a.score - b.score))
    assert 0 < max(differences) < 5e-3  # zero would mean that nothing was converted


def test_distances_stay_in_fp32(fp16_artifact: Path) -> None:
    model = onnx.load(str(fp16_artifact))
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    fp16_convolutions = [node for node in convolutions if weights.get(node.input[1]) == TensorProto.FLOAT16]
    assert len(fp16_convolutions) > 0.8 * len(convolutions)
    fp32_shapes = {
        tensor.name: list(tensor.dims) for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
    }
    assert any("feature_norm" in name for name in fp32_shapes)
    assert [dims[1] for dims in fp32_shapes.values() if len(dims) == 2] == [16, 32], (
        "both sets of prototypes are unchanged"
    )
    fp16_names = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert not any("memories" in name or "smooth" in name or "feature_norm" in name for name in fp16_names)


def test_conversion_report_of_fp16_states_times_sizes_and_scores(fp16_artifact: Path) -> None:
    report = json.loads(fp16_artifact.with_name("r.fp16.onnx.conversion.json").read_text())
    assert report["precision"] == "fp16" and report["missed"] == [] and report["parity"]["flips"] == 0
    assert set(report["times"]) == {"this", "fp32"} and report["times"]["this"]["cpu_ms"] > 0
    assert (
        report["file_bytes"] == pytest.approx(fp16_artifact.stat().st_size, rel=0.01)
        and report["file_bytes"] < report["plain_bytes"]
    )
    assert set(report["parity"]["aurocs"]) == {"*", *Inspector(fp16_artifact).card.categories}
    page = fp16_artifact.with_name("r.fp16.onnx.conversion.html").read_text()
    assert (
        "ACCEPTED" in page
        and "Scores before and after, and the limits" in page
        and page.count("<circle") == report["parity"]["real_images"]
    )


def test_fp16_refuses_a_model_without_half_precision_parts() -> None:
    class StudentWithoutParts(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(UsageError, match="has no half_precision_parts"):
        to_half_precision(ArtifactGraph(StudentWithoutParts(), 1.0))


LENIENT = {"name": "lenient", "target": "onnx", "precision": "int8", "accept": {"auroc": 1, "flips": 1}}


def write_deployment(folder: Path, **changes: Any) -> str:
    file = folder / "lenient.yaml"
    content = LENIENT | {"quantise": {"sound": 8, "checked": 3, "score": 0.05}} | changes
    file.write_text(json.dumps(content))  # JSON is YAML
    return str(file)


@pytest.fixture(scope="module")
def int8_artifact(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lenient")
    output = folder / "r.lenient.onnx"
    result = export(run, write_deployment(folder), "--output", str(output))
    assert result.returncode == 0, result.stderr
    assert '"phase": "quantise"' in result.stderr
    return output


def test_int8_quantises_the_least_harmful_convolutions(int8_artifact: Path) -> None:
    report = json.loads(int8_artifact.with_name("r.lenient.onnx.conversion.json").read_text())["quantised"]
    model = onnx.load(str(int8_artifact))
    producers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    quantised = [node for node in convolutions if producers.get(node.input[1], node).op_type == "DequantizeLinear"]
    assert len(convolutions) == report["convolutions"]
    assert len(quantised) == report["convolutions"] - len(report["left"]) > 0
    unquantised = {node.name for node in convolutions} - {node.name for node in quantised}
    assert unquantised == {entry["node"] for entry in report["left"]}
    assert report["score"] <= 0.05
    heatmap_changes = [entry["heatmap"] for entry in report["left"]]
    assert heatmap_changes == sorted(heatmap_changes, reverse=True)
    assert count_data_types(int8_artifact)[TensorProto.INT8] > 0


def test_int8_thresholds_are_derived_from_its_own_scores(int8_artifact: Path, run: Path) -> None:
    derived, original = Inspector(int8_artifact).card.calibration, Inspector(run / "r.onnx").card.calibration
    assert derived.scale == original.scale
    assert derived.scores != original.scores
    recomputed = calibrate_scaled(derived.scale, derived.scores, reject_rate=0.05, reinspect_rate=0.1)
    assert set(recomputed.limits) == set(derived.limits)
    page = int8_artifact.with_name("r.lenient.onnx.conversion.html").read_text()
    assert "Calibrated again" in page and "Convolutions in fp32" in page


def test_int8_file_gives_the_same_scores_in_openvino(int8_artifact: Path, parts: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    from inspect_kd.export.to_openvino import Runtime

    first, second = Inspector(int8_artifact), Runtime(int8_artifact.read_bytes(), "r")
    noise = np.random.default_rng(0).integers(0, 256, (2, first.size, first.size, 3), dtype=np.uint8)
    assert np.abs(first.predict_batch(noise).scores_N - second.predict_batch(noise).scores_N).max() < 0.1


def test_exceeded_limit_leaves_a_report_and_no_artifact(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.lenient.onnx"
    strict = write_deployment(tmp_path, accept={"auroc": 1, "flips": 1, "heatmap": 1e-9})
    result = export(run, strict, "--output", str(output))
    assert result.returncode == 1 and "no artifact was written" in result.stderr
    assert "heatmap" in result.stderr and "limit 1e-09" in result.stderr
    assert not output.exists()
    assert "REFUSED" in output.with_name("r.lenient.onnx.conversion.html").read_text()
    assert json.loads(output.with_name("r.lenient.onnx.conversion.json").read_text())["missed"]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".yaml"]


def test_quantisation_fails_if_no_convolution_is_within_the_limit(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.onnx"
    file.write_bytes((run / "r.onnx").read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(BadInput, match=r"none of .* convolutions can be quantised"):
        quantise(
            file,
            WeightedImages(noise),
            WeightedImages(noise),
            QuantiseSettings(sound=8, checked=4, score=1e-12),
            NoProgress(),
        )
    assert file.read_bytes() == (run / "r.onnx").read_bytes()


def test_shipped_deployments_load_and_name_their_devices() -> None:
    assert set(deployments_for("cpu")) >= {"onnx", "onnx_fp16", "onnx_int8", "openvino"}
    for file in (ROOT / "export").glob("*.yaml"):
        assert load_deployment(file.stem).name == file.stem
    assert load_deployment("onnx_int8").accept.guard == 0, "every decision that int8 changes must count"


def test_one_output_path_for_several_targets_is_refused(run: Path, tmp_path: Path) -> None:
    result = export(run, "onnx,openvino", "--output", str(tmp_path / "x.onnx"))
    assert result.returncode == 2 and "--output names one file" in result.stderr
