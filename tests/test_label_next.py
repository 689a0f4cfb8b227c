"""Command `label-next`: it chooses the images to label next, and copies them into a folder for a person."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import pytest

from inspect_kd.cli.label_next import _copy_chosen
from inspect_kd.label_next import CELLS, choose_next, defect_probabilities
from inspect_kd.types import Inspection


def test_defect_probabilities_are_per_cell() -> None:
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[0, 0], heatmap[-1, -1] = 1.0, 3.0
    probabilities = defect_probabilities(heatmap).reshape(CELLS, CELLS)
    assert probabilities[0, 0] == pytest.approx(0.5) and probabilities[-1, -1] > 0.98
    assert probabilities[0, 1:].max() == 0
    assert defect_probabilities(np.full((70, 90), 0.5, np.float32)).shape == (CELLS * CELLS,)


def test_farthest_and_uncertain_images_are_chosen_in_turn() -> None:
    points = [np.array(p, np.float32) for p in ([0.1, 0], [1, 0], [0.95, 0], [0, 0.6], [0, 1])]
    chosen = choose_next(points, [], 4)
    # Points 1 and 4 are certain defects; the uncertain point 3 is chosen between them, though point 4 is farther away.
    assert [choice.index for choice in chosen] == [1, 3, 4, 0]
    assert [choice.novelty for choice in chosen] == pytest.approx([1.0, 0.6, 0.4, 0.1])
    with_one_labelled = choose_next(points, [np.array([1, 0], np.float32)], 2)
    assert [choice.index for choice in with_one_labelled] == [4, 3], "a labelled point and its neighbours come last"
    assert sorted(choice.index for choice in choose_next(points, [], 9)) == [0, 1, 2, 3, 4]


def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspect_kd", "label-next", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


class LabelNextResult(NamedTuple):
    """The results of a call of `label-next`: the folder of chosen images, the printed lines and stderr."""

    folder: Path
    lines: list[dict[str, Any]]
    stderr: str


@pytest.fixture(scope="module")
def result(run: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelNextResult:
    """Choose three images from a folder of images and one broken image."""
    home = tmp_path_factory.mktemp("label_next")
    broken = home / "broken.png"
    broken.write_bytes(b"no image")
    answer = call(run, parts / "bottle" / "test", broken, "-n", 3, "--out", home / "to_label")
    assert answer.returncode == 0, answer.stderr
    return LabelNextResult(home / "to_label", [json.loads(line) for line in answer.stdout.splitlines()], answer.stderr)


def test_chosen_images_are_printed_in_order_of_novelty(result: LabelNextResult) -> None:
    assert len(result.lines) == 3
    assert all({"image", "novelty", "score", "decision"} == set(line) for line in result.lines)
    assert result.lines[0]["novelty"] >= result.lines[2]["novelty"] > 0


def test_chosen_images_are_copied_with_a_contact_sheet(result: LabelNextResult) -> None:
    copies = sorted(result.folder.glob("0*"))
    assert [copy.name[4:] for copy in copies] == [Path(line["image"]).name for line in result.lines]
    sheet = cv2.imread(str(result.folder.with_name("to_label_sheet.jpg")))
    assert sheet is not None and sheet.shape[1] > 3 * 60


def test_broken_image_is_left_out_with_a_note(result: LabelNextResult) -> None:
    assert "left out" in result.stderr and "broken.png" in result.stderr


def test_known_image_is_not_chosen_first(result: LabelNextResult, run: Path, parts: Path) -> None:
    first = result.lines[0]["image"]
    answer = call(run, parts / "bottle" / "test", "-n", 3, "--known", first)
    assert json.loads(answer.stdout.splitlines()[0])["image"] != first


def test_output_folder_with_files_is_refused(run: Path, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.png").touch()
    answer = call(run, parts / "bottle" / "test", "--out", tmp_path)
    assert answer.returncode == 3 and "not empty" in answer.stderr


def test_contact_sheet_lies_beside_the_output_folder_even_if_that_is_the_working_directory(
    run: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    answer = call(run, parts / "bottle" / "test", "-n", 1, "--out", ".", cwd=tmp_path / "here")
    assert answer.returncode == 0 and (tmp_path / "here_sheet.jpg").is_file(), answer.stderr


@pytest.mark.parametrize("letter", ["y", "ß"])
def test_copy_of_an_image_with_a_very_long_name_gets_a_shorter_one(
    run: Path, parts: Path, tmp_path: Path, letter: str
) -> None:
    image = next((parts / "bottle" / "test" / "good").iterdir())
    name = letter * (251 // len(letter.encode())) + ".png"
    (tmp_path / name).write_bytes(image.read_bytes())
    answer = call(run, tmp_path / name, image, "--out", tmp_path / "to_label")
    assert answer.returncode == 0, answer.stderr
    copies = sorted(path.name for path in (tmp_path / "to_label").iterdir())
    assert len(copies) == 2 and all(len(copy.encode()) <= 255 and copy.endswith(".png") for copy in copies)
    assert any(copy[4:].startswith(letter * 100) for copy in copies)


@pytest.mark.parametrize("exists", [True, False])
def test_failed_copy_removes_the_copies_and_keeps_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder, images = tmp_path / "to_label", [tmp_path / "a.png", tmp_path / "missing.png"]
    images[0].write_bytes(b"image")
    if exists:
        folder.mkdir()
    monkeypatch.setattr("inspect_kd.datasets.images.read_image", lambda path, bits: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr("inspect_kd.overlay.draw", lambda image, inspection: image)
    with pytest.raises(FileNotFoundError):
        _copy_chosen([(image, cast(Inspection, None)) for image in images], folder, None)
    assert sorted(tmp_path.rglob("*")) == [images[0], *([folder] if exists else [])]


def test_no_readable_image_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    answer = call(run, tmp_path / "broken.png")
    assert answer.returncode == 3 and "no image to choose from" in answer.stderr


def test_existing_contact_sheet_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "to_label_sheet.jpg").write_bytes(b"mine")
    answer = call("none.onnx", "parts", "--out", "to_label", cwd=tmp_path)
    assert answer.returncode == 3 and "to_label_sheet.jpg: exists already, and would be replaced" in answer.stderr
    assert (tmp_path / "to_label_sheet.jpg").read_bytes() == b"mine"
