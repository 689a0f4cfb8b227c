"""A training whose artifact fails verification: a complete run that names the differing images and can be exported again."""

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
class FailedVerification:
    """A training with a limit that no artifact can meet."""

    run: Path
    result: Result
    deployment: Path
    shipped_text: str
    """The text of the deployment before its limit was changed."""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the shipped deployment `onnx` that the program finds under its name."""
    folder = tmp_path_factory.mktemp("zoo") / "export"
    copied_folder = shutil.copytree(zoo.folder_of("export"), folder, ignore=shutil.ignore_patterns("cpp"))
    original_folder_of = zoo.folder_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "folder_of", lambda kind: copied_folder if kind == "export" else original_folder_of(kind))
        yield copied_folder / "onnx.yaml"


@pytest.fixture(scope="module")
def failed_training(
    run: Path, parts: Path, deployment: Path, tmp_path_factory: pytest.TempPathFactory
) -> FailedVerification:
    shipped = deployment.read_text()
    content = yaml.safe_load(shipped)
    content["accept"]["heatmap"] = 1e-12
    deployment.write_text(yaml.safe_dump(content))
    folder = tmp_path_factory.mktemp("failed") / "r"
    folder.mkdir()
    shutil.copy(run / "r.onnx", folder / "r.onnx")  # an artifact of another training, which this run must not offer
    program = command(parts, folder.parent, "--set", "fit.steps=4")
    return FailedVerification(folder, call(*program[program.index("train") :]), deployment, shipped)


def test_failed_verification_names_images_and_the_command_to_try_again(failed_training: FailedVerification) -> None:
    error = failed_training.result.exception
    assert isinstance(error, GateFailed) and error.exit_code == 1
    assert "limit 1e-12" in str(error) and f"`inspect-kd export {failed_training.run} --to onnx` tries again" in str(
        error
    )
    # It is chance which images differ most: artificial or real ones.
    image = r"(artificial image '\w+'|\w+/\w+/\w+/\d+\.png)"
    assert re.search(image + r": heatmap \S+ at row \d+, column \d+", str(error)), str(error)
    assert "report  " in failed_training.result.stdout and "artifact  " not in failed_training.result.stdout


def test_run_is_complete_without_an_artifact(failed_training: FailedVerification) -> None:
    assert not (failed_training.run / "r.onnx").exists()
    assert list(json.loads((failed_training.run / "run.json").read_text())["refused"]) == ["onnx"]
    page = (failed_training.run / "report.html").read_text()
    assert "NO ARTIFACT" in page and "<figure>" in page and "Use the artifact" not in page
    assert (failed_training.run / "r.onnx.conversion.html").is_file()


def test_export_under_the_same_limit_fails_again(failed_training: FailedVerification, tmp_path: Path) -> None:
    result = call("export", str(shutil.copytree(failed_training.run, tmp_path / "r")))
    assert isinstance(result.exception, GateFailed) and "at row" in str(result.exception)


def test_export_under_the_shipped_limit_completes_the_run(failed_training: FailedVerification, tmp_path: Path) -> None:
    run, changed_text = shutil.copytree(failed_training.run, tmp_path / "r"), failed_training.deployment.read_text()
    failed_training.deployment.write_text(failed_training.shipped_text)
    assert call("export", str(run)).exit_code == 0
    failed_training.deployment.write_text(changed_text)
    assert Inspector(run / "r.onnx").card.name == "r"
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["refused"] == {} and manifest["parity"]["onnx"]["flips"] == 0
    assert load_run(run).calibration.limits
