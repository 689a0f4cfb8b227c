"""A training whose artifact fails its proof: a complete run that names the images that differ, and can be exported again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from inspect_kd import zoo
from inspect_kd.cli import app
from inspect_kd.errors import GateFailed
from inspect_kd.inspector import Inspector
from inspect_kd.training.run import load_run
from tests.tiny import command


@dataclass(frozen=True)
class FailedProof:
    """A training under a limit that no artifact can hold."""

    run: Path
    result: Result
    deployment: Path
    shipped: str
    """The deployment as it was before."""


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the shipped deployment `onnx` that the program finds under its name."""
    folder = tmp_path_factory.mktemp("zoo") / "export"
    copied = shutil.copytree(zoo.folder_of("export"), folder, ignore=shutil.ignore_patterns("cpp"))
    shipped = zoo.folder_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "folder_of", lambda kind: copied if kind == "export" else shipped(kind))
        yield copied / "onnx.yaml"


@pytest.fixture(scope="module")
def failed(run: Path, parts: Path, deployment: Path, tmp_path_factory: pytest.TempPathFactory) -> FailedProof:
    shipped = deployment.read_text()
    content = yaml.safe_load(shipped)
    content["accept"]["heatmap"] = 1e-12
    deployment.write_text(yaml.safe_dump(content))
    folder = tmp_path_factory.mktemp("failed") / "r"
    folder.mkdir()
    shutil.copy(run / "r.onnx", folder / "r.onnx")  # foreign: it must not be taken for this training's
    program = command(parts, folder.parent, "--set", "fit.steps=4")
    return FailedProof(folder, call(*program[program.index("train") :]), deployment, shipped)


def test_failed_proof_names_images_and_the_way_to_try_again(failed: FailedProof) -> None:
    error = failed.result.exception
    assert isinstance(error, GateFailed) and error.exit_code == 1
    assert "limit 1e-12" in str(error) and f"`inspect-kd export {failed.run} --to onnx` tries again" in str(error)
    # Which images differ most in the last digits is chance: three of the four artificial ones, or real ones.
    image = r"(artificial image '\w+'|\w+/\w+/\w+/\d+\.png)"
    assert re.search(image + r": heatmap \S+ at row \d+, column \d+", str(error)), str(error)
    assert "report  " in failed.result.stdout and "artifact  " not in failed.result.stdout


def test_run_is_complete_but_for_the_artifact(failed: FailedProof) -> None:
    assert not (failed.run / "r.onnx").exists()
    assert list(json.loads((failed.run / "run.json").read_text())["refused"]) == ["onnx"]
    page = (failed.run / "report.html").read_text()
    assert "NO ARTIFACT" in page and "<figure>" in page and "Use the artifact" not in page
    assert (failed.run / "r.onnx.conversion.html").is_file()


def test_export_under_the_same_limit_fails_again(failed: FailedProof, tmp_path: Path) -> None:
    again = call("export", str(shutil.copytree(failed.run, tmp_path / "r")))
    assert isinstance(again.exception, GateFailed) and "at row" in str(again.exception)


def test_export_under_the_shipped_limit_completes_the_run(failed: FailedProof, tmp_path: Path) -> None:
    run, limited = shutil.copytree(failed.run, tmp_path / "r"), failed.deployment.read_text()
    failed.deployment.write_text(failed.shipped)
    assert call("export", str(run)).exit_code == 0
    failed.deployment.write_text(limited)
    assert Inspector(run / "r.onnx").card.name == "r"
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["refused"] == {} and manifest["parity"]["onnx"]["flips"] == 0
    assert load_run(run).calibration.limits
