"""A training whose artifact fails its proof: the run is complete, names the images that differ, and can be exported again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from inspect_kd import zoo
from inspect_kd.cli import app
from inspect_kd.errors import GateFailed
from inspect_kd.inspector import Inspector
from inspect_kd.train.run import load_run
from tests.tiny import command


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped deployment `onnx` that the program finds under its name."""
    copied = shutil.copytree(zoo.folder_of("export"), tmp_path / "export", ignore=shutil.ignore_patterns("cpp"))
    shipped = zoo.folder_of
    monkeypatch.setattr(zoo, "folder_of", lambda kind: copied if kind == "export" else shipped(kind))
    return copied / "onnx.yaml"


def limit_heatmap(deployment: Path, limit: float) -> None:
    content = yaml.safe_load(deployment.read_text())
    content["accept"]["heatmap"] = limit
    deployment.write_text(yaml.safe_dump(content))


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_failed_proof_keeps_the_training_and_export_tries_again(
    run: Path, parts: Path, tmp_path: Path, deployment: Path
) -> None:
    shipped = deployment.read_text()
    limit_heatmap(deployment, 1e-12)
    planted, run = run / "r.onnx", tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    shutil.copy(planted, run / "r.onnx")
    program = command(parts, run.parent, "--set", "fit.steps=4")
    trained = call(*program[program.index("train") :])
    assert isinstance(trained.exception, GateFailed) and trained.exception.exit_code == 1
    complaint = str(trained.exception)
    assert "limit 1e-12" in complaint and f"`inspect-kd export {run} --to onnx` tries again" in complaint
    # Which images differ most in the last digits is chance: three of the four artificial ones, or real ones.
    image = r"(artificial image '\w+'|\w+/\w+/\w+/\d+\.png)"
    assert re.search(image + r": heatmap \S+ at row \d+, column \d+", complaint), complaint
    assert "report  " in trained.stdout and "artifact  " not in trained.stdout

    # Everything but the artifact is there, and says that it is not; what was planted under its name is gone.
    assert not (run / "r.onnx").exists()
    assert list(json.loads((run / "run.json").read_text())["refused"]) == ["onnx"]
    page = (run / "report.html").read_text()
    assert "NO ARTIFACT" in page and "<figure>" in page and "Use the artifact" not in page
    assert (run / "r.onnx.conversion.html").is_file()

    # A second try under the same limit fails as the first; under the shipped one it succeeds.
    again = call("export", str(run))
    assert isinstance(again.exception, GateFailed) and "at row" in str(again.exception)
    deployment.write_text(shipped)
    assert call("export", str(run)).exit_code == 0
    assert Inspector(run / "r.onnx").card.name == "r"
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["refused"] == {} and manifest["parity"]["onnx"]["flips"] == 0
    assert load_run(run).calibration.limits
