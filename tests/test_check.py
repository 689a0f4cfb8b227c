"""`data check` finds what would spoil a training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.check import Finding, check
from inspect_kd.errors import BadInput
from inspect_kd.types import NoProgress, Split
from tests import trees


def found(root: Path) -> list[Finding]:
    return check(open_dataset(root), NoProgress())


def test_a_clean_tree_has_no_errors(tmp_path: Path) -> None:
    findings = found(trees.mvtec(tmp_path))
    assert {finding.severity for finding in findings} == {"note"}
    assert any("promise a false-reject rate of 33.3 %" in finding.text for finding in findings)


def test_a_leak_is_found_by_content_not_by_name(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    shutil.copy(tmp_path / "screw" / "train" / "good" / "4.png", tmp_path / "screw" / "test" / "good" / "other.png")
    assert [f.text for f in found(tmp_path) if f.severity == "error"] == [
        "leak: the same picture is learnt from and tested on"
    ]


def test_contradictions_and_bad_files(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    screw = tmp_path / "screw"
    shutil.copy(screw / "test" / "good" / "g0.png", screw / "test" / "bent" / "b9.png")
    trees.mask(screw / "ground_truth" / "bent" / "b0_mask.png", empty=True)
    trees.mask(screw / "ground_truth" / "bent" / "b1_mask.png", size=20)
    (screw / "test" / "bent" / "b2.png").write_bytes(b"\x89PNG torn")
    trees.picture(screw / "test" / "good" / "large.png", size=48)
    findings = found(tmp_path)
    texts = " | ".join(f"{f.severity}: {f.text}" for f in findings)
    assert "error: the same picture is called sound and defective" in texts
    assert "error: an empty mask on a defective part" in texts
    assert "warning: the mask's size is not the image's: mask 20x20, image 32x32" in texts
    assert "b2.png: not an image" in texts
    assert "2 sizes of image" in texts
    assert findings[0].severity == "error"


def test_the_command_exits_with_bad_input(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    answer = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--json"])
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["counts"]["screw"][Split.TEST] == 6
    trees.mask(tmp_path / "screw" / "ground_truth" / "bent" / "b0_mask.png", empty=True)
    answer = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert isinstance(answer.exception, BadInput)


def test_real_sets_have_no_leak(real_data: Path) -> None:
    pytest.importorskip("cv2")
    findings = check(open_dataset(real_data / "mpdd"), NoProgress())
    assert not [finding for finding in findings if finding.severity == "error"]
