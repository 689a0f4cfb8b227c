"""`data check` finds problems that would spoil a training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.check import Finding, check
from inspect_kd.errors import BadInput
from inspect_kd.types import NoProgress, Split
from tests import trees


def check_folder(root: Path) -> list[Finding]:
    return check(open_dataset(root), NoProgress())


def test_a_clean_tree_has_no_errors(tmp_path: Path) -> None:
    findings = check_folder(trees.mvtec(tmp_path))
    assert {finding.severity for finding in findings} == {"note"}
    assert any("promise a false-reject rate of 33.3 %" in finding.text for finding in findings)


def test_leak_is_found_by_content_not_by_name(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    shutil.copy(tmp_path / "screw" / "train" / "good" / "4.png", tmp_path / "screw" / "test" / "good" / "other.png")
    assert [f.text for f in check_folder(tmp_path) if f.severity == "error"] == [
        "leak: the same image is used for training and for the test"
    ]


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "contradiction": (
        lambda screw: shutil.copy(screw / "test" / "good" / "g0.png", screw / "test" / "bent" / "b9.png"),
        "error: the same image is labelled both sound and defective",
    ),
    "empty mask": (
        lambda screw: trees.mask(screw / "ground_truth" / "bent" / "b0_mask.png", empty=True),
        "error: a defective part has an empty mask",
    ),
    "mask of another size": (
        lambda screw: trees.mask(screw / "ground_truth" / "bent" / "b1_mask.png", size=20),
        "warning: mask and image differ in size: mask 20x20, image 32x32",
    ),
    "broken image": (
        lambda screw: (screw / "test" / "bent" / "b2.png").write_bytes(b"\x89PNG torn"),
        "b2.png: not a readable image",
    ),
    "image of another size": (
        lambda screw: trees.picture(screw / "test" / "good" / "large.png", size=48),
        "note: screw: 2 image sizes",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_is_reported_with_its_severity(name: str, tmp_path: Path) -> None:
    spoil, expected = PROBLEMS[name]
    trees.mvtec(tmp_path)
    spoil(tmp_path / "screw")
    assert any(expected in f"{finding.severity}: {finding.text}" for finding in check_folder(tmp_path))


def test_errors_are_listed_first(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    trees.mask(tmp_path / "screw" / "ground_truth" / "bent" / "b0_mask.png", empty=True)
    severities = [finding.severity for finding in check_folder(tmp_path)]
    assert severities[0] == "error" and severities == sorted(severities, key=("error", "warning", "note").index)


def test_command_prints_json_and_fails_on_errors(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    answer = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--json"])
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["counts"]["screw"][Split.TEST] == 6
    trees.mask(tmp_path / "screw" / "ground_truth" / "bent" / "b0_mask.png", empty=True)
    answer = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert isinstance(answer.exception, BadInput)


def test_real_data_set_has_no_errors(real_data: Path) -> None:
    pytest.importorskip("cv2")
    findings = check(open_dataset(real_data / "mpdd"), NoProgress())
    assert not [finding for finding in findings if finding.severity == "error"]
