"""The C++ program aligns parts, cuts tiles and recognises categories as Python does, to the last pixel."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspect_kd.datasets.alignment import Alignment, choose_alignment
from inspect_kd.datasets.presentation import DETAIL, Presentation
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput
from inspect_kd.export.to_onnx import write_card
from inspect_kd.types import Decision, ImageU8
from tests.cpp_program import assert_same, run_program, with_changed_card
from tests.presented_artifacts import (
    SIZE,
    card_of,
    compare,
    draw_boards,
    faulty_parts,
    fit_alignment,
    inspector_of,
    save_images,
    with_middle_thresholds,
    with_presentations,
)
from tests.turned_parts import OUTLINE, draw_part, pose_matrix, random_parts


def tiny_images() -> list[ImageU8]:
    return [np.zeros((height, width, 3), np.uint8) for height, width in ((5, 7), (1, 1), (1, 400), (31, 31))]


def test_200_turned_parts_are_decided_as_in_python(
    program: Path, run: Path, silhouette: Alignment, tmp_path: Path
) -> None:
    artifact = with_presentations(
        run,
        tmp_path / "a.onnx",
        Presentation(view=View(size=SIZE), alignment=silhouette),
        Presentation(view=View(size=SIZE)),
    )
    category = card_of(artifact).categories[0]
    faulty = faulty_parts()
    paths = save_images(tmp_path, [image for _, image in random_parts(200 - len(faulty), seed=1000)] + faulty)
    inspect = inspector_of(artifact, category)
    first = [inspect(path) for path in paths[::3]]
    with_middle_thresholds(artifact, category, [each.score for each in first if each.cause is None])
    inspections = compare(program, artifact, paths, category)
    assert len(inspections) == 200 and {each.decision for each in inspections} == set(Decision)
    not_found = [each for each in inspections if each.cause]
    assert 11 <= len(not_found) <= 20 and all(each.decision is Decision.NG for each in not_found)
    reasons = {(each.explanation or "")[:12] for each in not_found}
    assert reasons == {"agrees with ", "2 parts in o", "the part is ", "no part on t"}


def test_images_of_any_shape_are_aligned_as_in_python(program: Path, run: Path, tmp_path: Path) -> None:
    """Images are larger than the working side, wide or tall, or smaller than the frame of the part."""
    rng = np.random.default_rng(1)
    for number, (width, height) in enumerate([(900, 640), (333, 1000), (257, 255)]):
        images = [cv2.resize(image, (width, height)) for _, image in random_parts(8, seed=number)]
        folder = tmp_path / str(number)
        folder.mkdir()
        presentation = Presentation(view=View(size=SIZE), alignment=fit_alignment(images, "silhouette"))
        artifact = with_presentations(run, folder / "a.onnx", presentation)
        others = [cv2.resize(images[0], tuple(rng.integers(100, 1200, 2).tolist())) for _ in range(4)] + tiny_images()
        inspections = compare(
            program, artifact, save_images(folder, [*images, *others]), card_of(artifact).categories[0]
        )
        assert sum(each.cause is None for each in inspections) >= 7


def test_boards_are_aligned_as_in_python(program: Path, run: Path, template: Alignment, tmp_path: Path) -> None:
    artifact = with_presentations(run, tmp_path / "a.onnx", Presentation(view=View(size=SIZE), alignment=template))
    category = card_of(artifact).categories[0]
    images = [*draw_boards(40, 500), np.full((400, 400, 3), 90, np.uint8), *tiny_images(), *draw_boards(1, 9)]
    images[-1][100:] = 0
    inspections = compare(program, artifact, save_images(tmp_path, images), category)
    assert sum(each.cause is None for each in inspections) >= 38
    assert {each.explanation for each in inspections[40:45]} == {"no match with the reference picture"}


@pytest.mark.parametrize(("tile", "overlap"), [(100, 0.25), (64, 0.0), (33, 0.6), (150, 0.75)])
def test_tiles_are_joined_as_in_python(program: Path, run: Path, tmp_path: Path, tile: int, overlap: float) -> None:
    """The card has tiles for all categories or for each one; some images are smaller than a tile."""
    rng = np.random.default_rng(tile)
    sizes = [(300, 200), (200, 333), (101, 100), (30, 40), (500, 60)]
    images = [cv2.resize(draw_part(pose_matrix(rng.uniform(0, 360), 150, 150)), size) for size in sizes]
    paths = save_images(tmp_path, images)
    squash = with_presentations(run, tmp_path / "squash.onnx", Presentation(view=View(size=SIZE)))
    whole = Path(shutil.copyfile(squash, tmp_path / "whole.onnx"))
    write_card(whole, replace(card_of(whole), presentations=None, tile=tile, overlap=overlap))
    own = with_presentations(run, tmp_path / "own.onnx", Presentation(view=View(size=SIZE, tile=tile, overlap=overlap)))
    first, second = compare(program, whole, paths), compare(program, own, paths)
    assert [each.score for each in first] == [each.score for each in second]
    squashed = compare(program, squash, paths)
    assert all(one.score != other.score for one, other in zip(first, squashed, strict=True))


def test_category_is_recognised_as_in_python(
    program: Path, run: Path, silhouette: Alignment, template: Alignment, tmp_path: Path
) -> None:
    """Turned parts in tiles, boards and other pictures, inspected without a category by one artifact for both."""
    artifact = with_presentations(
        run,
        tmp_path / "a.onnx",
        Presentation(view=View(size=SIZE, tile=100), alignment=silhouette, foreign_quality=0.6),
        Presentation(view=View(size=SIZE), alignment=template),
        Presentation(view=View(size=SIZE, tile=120)),
    )
    categories = card_of(artifact).categories
    texture = np.random.default_rng(0).integers(0, 255, (90, 130, 3)).astype(np.uint8)
    paths = save_images(tmp_path, [image for _, image in random_parts(5, seed=70)] + draw_boards(5, 70) + [texture])
    recognised = [each.category for each in compare(program, artifact, paths)]
    assert recognised == [categories[0]] * 5 + [categories[1]] * 5 + [None]
    # Where all categories are aligned, an image of neither part is not found.
    both = with_presentations(
        run,
        tmp_path / "both.onnx",
        Presentation(view=View(size=SIZE), alignment=template),
        Presentation(view=View(size=SIZE), alignment=silhouette),
    )
    last = compare(program, both, paths)[-1]
    assert last.cause == "not_found" and last.decision is Decision.NG


def test_strange_part_of_no_named_category_is_not_judged_as_another_one(
    program: Path, run: Path, silhouette: Alignment, tmp_path: Path
) -> None:
    """A mirrored part is not found. It is another category's part only if those are as much like the reference."""
    mirrored = [draw_part(pose_matrix(angle, 150, 150), outline=OUTLINE * (1, -1)) for angle in (0, 77)]
    paths = save_images(tmp_path, mirrored)
    aligned = Presentation(view=View(size=SIZE), alignment=silhouette)
    other = Presentation(view=View(size=SIZE))
    artifact = with_presentations(run, tmp_path / "a.onnx", aligned, other)
    own = card_of(artifact).categories[0]
    for inspection in compare(program, artifact, paths):
        assert (inspection.category, inspection.cause, inspection.decision) == (own, "not_found", Decision.NG)
    artifact = with_presentations(run, tmp_path / "b.onnx", replace(aligned, foreign_quality=1.0), other)
    assert [each.category for each in compare(program, artifact, paths)] == [None, None]


@pytest.mark.parametrize(("categories", "presentations"), [([], {}), (["a"], {}), (["a"], [])])
def test_artifact_without_presentations_is_refused_by_both(
    program: Path, run: Path, tmp_path: Path, categories: list[str], presentations: Any
) -> None:
    artifact = with_presentations(run, tmp_path / "a.onnx", Presentation(view=View(size=SIZE)))
    damaged = with_changed_card(artifact, tmp_path / "b.onnx", categories=categories, presentations=presentations)
    with pytest.raises(BadInput, match="the presentations are not those of 1 to 1000 categories"):
        card_of(damaged)
    lines, code, stderr = run_program(program, damaged, save_images(tmp_path, [draw_part(pose_matrix(0, 150, 150))])[0])
    assert (lines, code) == ([], 3), stderr


def test_large_parts_are_cut_at_twice_the_models_resolution_as_in_python(
    program: Path, run: Path, tmp_path: Path
) -> None:
    """Frames of 3 and 10 times the model's size, which are cut and shrunk in one step."""
    for factor in (2, 6):
        images = [cv2.resize(image, None, fx=factor, fy=factor) for _, image in random_parts(12, seed=factor)]
        alignment = choose_alignment([np.asarray(image, np.uint8) for image in images], "silhouette").chosen.alignment
        assert alignment is not None and min(alignment.frame) >= DETAIL * SIZE
        presentation = Presentation(view=View(size=SIZE), alignment=alignment)
        artifact = with_presentations(run, tmp_path / "a.onnx", presentation)
        compare(program, artifact, save_images(tmp_path, [np.asarray(image, np.uint8) for image in images]))
        prepared = presentation.prepare(np.asarray(images[0], np.uint8))
        at_full_resolution = prepared.view.scaled(prepared.picture).astype(int)
        assert np.abs(prepared.scaled().astype(int) - at_full_resolution).mean() < 1.5


def test_image_too_large_to_align_is_ng(program: Path, run: Path, silhouette: Alignment, tmp_path: Path) -> None:
    artifact = with_presentations(run, tmp_path / "a.onnx", Presentation(view=View(size=SIZE), alignment=silhouette))
    for side, refused in ((2**15 - 2, False), (2**15 - 1, True)):
        path = tmp_path / f"{side}.png"
        cv2.imwrite(str(path), np.full((8, side, 3), 200, np.uint8))
        lines, code, _ = run_program(program, artifact, path)
        assert lines[0]["decision"] == "NG" and code == (3 if refused else 0)
        assert ("has at most 32766: crop the image" in lines[0].get("error", "")) == refused
        if refused:
            with pytest.raises(BadInput, match="has at most 32766: crop the image"):
                inspector_of(artifact)(path)
        else:
            assert_same(lines[0], inspector_of(artifact)(path))


def change_alignment(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda own: own["alignment"].update(changes)


def small_picture() -> str:
    return base64.b64encode(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()).decode()


DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a tile": (lambda own: own.update(tile=10), "impossible tile 10"),
    "a wrapped tile": (lambda own: own.update(tile=2**32 + 64), "impossible tile"),
    "an overlap": (lambda own: own.update(overlap=0.9), "impossible overlap 0.9"),
    "no overlap": (lambda own: own.pop("overlap"), "damaged"),
    "another field": (lambda own: own.update(later=1), "damaged"),
    "a reason": (lambda own: own.update(reasons=[1]), "damaged"),
    "a method": (change_alignment(method="magic"), "alignment by 'magic' is unknown to this program"),
    "a frame": (change_alignment(frame=[0, 100]), "impossible frame"),
    "a huge frame": (change_alignment(frame=[30000, 30000]), "impossible frame"),
    "a quality": (change_alignment(min_quality=-1), "-1"),
    "an anchor": (change_alignment(anchor=[1e9, 0]), "1000000000"),
    "an axis": (change_alignment(axis=True), "true|True"),
    "a foreign quality": (lambda own: own.update(foreign_quality=1.5), "impossible foreign"),
    "no base 64": (change_alignment(grey="!"), "not in base 64"),
    "no picture": (change_alignment(grey="AAAA"), "no grey PNG"),
    "a long picture": (change_alignment(grey="A" * 2**21), "the limit is"),
    "half a picture": (lambda own: own["alignment"].update(grey=own["alignment"]["grey"][:100]), "damaged"),
    "two sizes": (lambda own: own["alignment"].update(mask=small_picture()), "differ in size"),
    "a field of the alignment": (change_alignment(extra=1), "extra|unknown field"),
    "no mask": (lambda own: own["alignment"].pop("mask"), "damaged"),
}
"""Name → a change of one category's presentation, and a pattern for the message of both programs."""


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_presentation_is_refused_by_both(
    program: Path, run: Path, silhouette: Alignment, tmp_path: Path, name: str
) -> None:
    change, reason = DAMAGED[name]
    artifact = with_presentations(run, tmp_path / "a.onnx", Presentation(view=View(size=SIZE), alignment=silhouette))
    presentations = json.loads(json.dumps(card_of(artifact).presentations.to_json()))  # type: ignore[union-attr]
    change(presentations[min(presentations)])
    damaged = with_changed_card(artifact, tmp_path / "damaged.onnx", presentations=presentations)
    with pytest.raises(BadInput, match=reason):
        card_of(damaged)
    path = save_images(tmp_path, [draw_part(pose_matrix(0, 150, 150))])[0]
    lines, code, stderr = run_program(program, damaged, path)
    assert (lines, code) == ([], 3) and any(each in stderr for each in reason.split("|")), stderr


def test_presentations_of_other_categories_are_refused_by_both(program: Path, run: Path, tmp_path: Path) -> None:
    artifact = with_presentations(run, tmp_path / "a.onnx", Presentation(view=View(size=SIZE)))
    presentations = card_of(artifact).presentations
    assert presentations is not None
    content = presentations.to_json()
    path = save_images(tmp_path, [draw_part(pose_matrix(0, 150, 150))])[0]
    fewer = {name: each for name, each in content.items() if name != min(content)}
    for wrong in (fewer, content | {"other": content[min(content)]}):
        damaged = with_changed_card(artifact, tmp_path / "damaged.onnx", presentations=wrong)
        with pytest.raises(BadInput, match="its presentations are not those of its categories"):
            card_of(damaged)
        lines, code, stderr = run_program(program, damaged, path)
        assert (lines, code) == ([], 3) and "its presentations are not those of its categories" in stderr
