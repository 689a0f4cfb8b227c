"""`data check` finds problems that would spoil a training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.datasets import layouts, open_dataset
from inspect_kd.datasets.check import Finding, check
from inspect_kd.errors import BadInput, EnvironmentFault
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
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["counts"]["screw"][Split.TEST] == 6
    trees.mask(tmp_path / "screw" / "ground_truth" / "bent" / "b0_mask.png", empty=True)
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert isinstance(result.exception, BadInput)


def test_real_data_set_has_no_errors(real_data: Path) -> None:
    pytest.importorskip("cv2")
    findings = check(open_dataset(real_data / "mpdd"), NoProgress())
    assert not [finding for finding in findings if finding.severity == "error"]


def mixed_layouts(root: Path) -> str:
    trees.picture(root / "plate" / "good" / "0.png")
    return "1 images are left out by the layout 'mvtec': plate/good/0.png"


def deeper_folder(root: Path) -> str:
    for i in range(4):
        trees.picture(root / "screw" / "test" / "bent" / "more" / f"{i}.png")
    return "4 images are left out by the layout 'mvtec': screw/test/bent/more/0.png, .*2.png …"


def dangling_link(root: Path) -> str:
    (root / "screw" / "test" / "bent" / "9.png").symlink_to("nowhere.png")
    return "1 images are left out by the layout 'mvtec': screw/test/bent/9.png"


@pytest.mark.parametrize("spoil", [mixed_layouts, deeper_folder, dangling_link])
def test_images_that_the_layout_leaves_out_are_reported(spoil: Callable[[Path], str], tmp_path: Path) -> None:
    expected = spoil(trees.mvtec(tmp_path))
    (finding,) = [finding for finding in check_folder(tmp_path) if finding.severity == "warning"]
    assert re.fullmatch(expected, finding.text)


@pytest.mark.parametrize("name", trees.BUILDERS)
def test_no_layout_reports_its_own_files_as_left_out(name: str, tmp_path: Path) -> None:
    data = open_dataset(trees.BUILDERS[name](tmp_path / "parts"))
    assert layouts.left_out(data.root, data.layout, data.samples) == []


def test_training_notes_images_that_are_left_out(tmp_path: Path) -> None:
    from inspect_kd import api

    class Notes(NoProgress):
        def __init__(self) -> None:
            self.texts: list[str] = []

        def note(self, text: str) -> None:
            self.texts.append(text)

    deeper_folder(trees.mvtec(tmp_path))
    recipe, data = api.plan_training(tmp_path, "embedded", [])
    api._note_left_out(recipe, data, progress := Notes())
    assert progress.texts[0].startswith("4 images are left out")


def test_check_draws_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "ev.yaml").write_text(
        f"name: ev\ntitle: Ev\nlicence: {{name: x, commercial: false}}\nroot: {target}\nsource: {{drawn: 3}}\n"
    )
    for _ in ("no folder", "an empty folder"):
        result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "ev.yaml")])
        assert isinstance(result.exception, EnvironmentFault) and "is not drawn yet" in str(result.exception)
        assert not target.exists() or not list(target.iterdir())
        target.mkdir(exist_ok=True)
