"""The Python API, and its example in a script and in a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import inspect_kd
from inspect_kd import api
from inspect_kd.config import load_recipe
from inspect_kd.errors import BadInput, GateFailed, UsageError
from inspect_kd.evaluate import MEAN
from inspect_kd.types import NoProgress, Split

DOCS = Path(__file__).parents[1] / "docs"


def read_code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")


def test_the_notebook_has_the_code_of_the_script() -> None:
    script = (DOCS / "example.py").read_text(encoding="utf-8")
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert [line for line in read_code(DOCS / "example.ipynb").splitlines() if line] == lines


def test_the_example_runs_from_training_to_inspection(tmp_path: Path) -> None:
    """The cells of the notebook run one after another, in a new process."""
    result = subprocess.run(
        [sys.executable, "-c", read_code(DOCS / "example.ipynb")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout and "part.onnx" in result.stdout
    assert result.stdout.splitlines()[-1] == "embedded"
    assert '"phase": "train"' in result.stderr, "long work shows its progress"


def test_metrics_of_a_run_are_those_of_its_manifest(run: Path) -> None:
    opened = inspect_kd.open_run(run)
    assert opened.metrics == json.loads((run / "run.json").read_text())["metrics"]
    assert opened.report == run / "report.html" and opened.artifact() == run / "r.onnx"
    assert opened.artifact("onnx_fp16") == run / "r.fp16.onnx"


def test_evaluation_of_a_run_reproduces_the_metrics_of_its_training(run: Path) -> None:
    opened = inspect_kd.open_run(run)
    evaluation = opened.evaluate(progress=NoProgress())
    for name, value in opened.metrics[MEAN].items():
        assert evaluation.measures[MEAN][name].value == pytest.approx(value, abs=1e-4)


def test_settings_act_like_overrides_of_the_command_line(parts: Path) -> None:
    settings = {"fit.steps": 7, "data.flip": "none", "distill.blend": [1, 2, 0]}
    overrides = ["fit.steps=7", "data.flip=none", "distill.blend=[1, 2, 0]"]
    recipe, data = api.plan_training(parts, "embedded", settings)
    assert recipe == load_recipe("embedded", overrides) == api.plan_training(parts, "embedded", overrides)[0]
    assert data.select(Split.TRAIN)


def test_a_wrong_setting_names_its_key(parts: Path) -> None:
    with pytest.raises(UsageError, match=r"fit\.stepz.*did you mean 'fit\.steps'"):
        inspect_kd.train(parts, model="embedded", settings={"fit.stepz": 1})


def test_an_unfinished_run_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"run\.json"):
        inspect_kd.open_run(tmp_path)


def test_an_export_beyond_its_limits_raises_and_leaves_no_artifact(run: Path, tmp_path: Path) -> None:
    deployment = tmp_path / "strict.yaml"
    text = (DOCS.parent / "export" / "onnx_fp16.yaml").read_text()
    limits = "accept: {score: 0.0, heatmap: 0.0, auroc: 0.0, flips: 0, guard: 0.0}\n"
    deployment.write_text(text.replace("name: onnx_fp16", "name: onnx_strict").partition("accept:")[0] + limits)
    artifact = tmp_path / "strict.onnx"
    with pytest.raises(GateFailed, match="no artifact was written"):
        inspect_kd.open_run(run).export(str(deployment), output=artifact, progress=NoProgress())
    assert not artifact.exists()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, inspect_kd; inspect_kd.Inspector; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
