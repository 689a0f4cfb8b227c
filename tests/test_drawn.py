"""The drawn data set: reproducible by its seed, with exact masks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.drawn import (
    CATEGORIES,
    FIRST_CATEGORIES,
    MARKER,
    MIN_DIFFERENCE,
    draw_part,
    draw_sample,
    write_contact_sheet,
)
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.types import NoProgress, Split

KINDS = [(category, kind) for category, module in CATEGORIES.items() for kind in module.KINDS]


def test_there_are_at_least_five_categories_and_six_kinds_of_defect() -> None:
    assert len(CATEGORIES) >= 5 and len({kind for _, kind in KINDS}) >= 6


@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_masks_are_exact_and_defects_visible(category: str, kind: str) -> None:
    for index in range(2):
        part = draw_part(category, (11, index), kind)
        assert part.mask is not None
        difference = np.abs(part.image.astype(int) - part.sound).max(axis=2)
        assert 0.0003 < part.mask.mean() < 0.2
        assert difference[part.mask].mean() > MIN_DIFFERENCE
        # Both images have the same noise, so outside the mask they may differ only invisibly.
        assert difference[~part.mask].max() <= MIN_DIFFERENCE + 3


def test_image_depends_on_the_seed_only() -> None:
    for category in CATEGORIES:
        first, repeated, of_other_seed = (draw_part(category, seed).image for seed in ((0, 1), (0, 1), (0, 2)))
        assert np.array_equal(first, repeated)
        assert np.abs(first.astype(int) - of_other_seed).mean() > 1


FEW: dict[str, Any] = {"size": 64, "train": 5, "test_good": 1, "per_kind": 1}
TINY_SAMPLE: dict[str, Any] = {**FEW, "categories": ("bottle", "metal")}


def test_drawn_tree_is_a_complete_data_set(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 3, size=64, train=8, test_good=2, per_kind=1)
    data = open_dataset(root)
    assert data.categories == sorted(CATEGORIES)
    assert len(data.select(Split.TEST)) == len(KINDS) + 2 * len(CATEGORIES)
    assert all(sample.mask for sample in data.samples if sample.defective)


def test_tree_is_drawn_again_only_for_other_settings(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 3, **TINY_SAMPLE)
    image = root / "metal" / "train" / "good" / "000.png"
    before = image.stat().st_mtime_ns
    time.sleep(0.01)
    assert draw_sample(root, 3, **TINY_SAMPLE) == root
    assert image.stat().st_mtime_ns == before
    draw_sample(root, 4, **TINY_SAMPLE)
    assert image.stat().st_mtime_ns != before


def test_image_does_not_depend_on_the_other_categories_that_are_drawn(tmp_path: Path) -> None:
    """Data sets of earlier versions, which had fewer categories, keep their images."""
    several, alone = (
        draw_sample(tmp_path / "s", 3, **TINY_SAMPLE),
        draw_sample(tmp_path / "a", 3, **FEW, categories=["metal"]),
    )
    images = sorted(path.relative_to(alone) for path in alone.rglob("*.png"))
    assert len(images) == 5 + 1 + 2 * len(CATEGORIES["metal"].KINDS)
    assert all((alone / image).read_bytes() == (several / image).read_bytes() for image in images)


def test_other_categories_are_drawn_into_the_folder_of_an_earlier_version(tmp_path: Path) -> None:
    """Marker files of earlier versions name no categories."""
    first = FIRST_CATEGORIES
    root = draw_sample(tmp_path / "s", 3, **FEW, categories=first)
    settings = json.loads((root / MARKER).read_text())
    assert settings.pop("categories") == list(first)
    (root / MARKER).write_text(json.dumps(settings))
    image = root / "metal" / "train" / "good" / "000.png"
    before = image.read_bytes(), image.stat().st_mtime_ns
    draw_sample(root, 3, **FEW, categories=first)
    assert image.stat().st_mtime_ns == before[1], "the folder is complete"
    draw_sample(root, 3, **FEW, categories=("metal", "bracket"))
    assert open_dataset(root).categories == ["bracket", "metal"] and image.read_bytes() == before[0]


def test_unknown_categories_are_refused(tmp_path: Path) -> None:
    for categories, named in ((["metl"], "metl"), ([], "none"), ("metal", "a, e, l, m, t")):
        with pytest.raises(UsageError, match=rf"categories to draw: {named}; choose from board, .*, bracket$"):
            draw_sample(tmp_path / "s", 0, categories=categories)
    assert not any(tmp_path.iterdir())


def test_contact_sheet_is_drawn(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 0, size=64, train=5, test_good=1, per_kind=2)
    sheet = read_image(write_contact_sheet(root, tmp_path / "sheet.jpg"))
    assert sheet.shape[1] > 1000 and sheet.std() > 30


def test_drawing_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 0, **TINY_SAMPLE)
    users_file = root / "bottle" / "train" / "good" / "mine.png"
    users_file.write_bytes(b"my own")
    with pytest.raises(BadInput, match=r"mine\.png: was not drawn"):
        draw_sample(root, 1, **TINY_SAMPLE)
    assert users_file.read_bytes() == b"my own"
    users_file.unlink()
    assert draw_sample(root, 1, **TINY_SAMPLE) == root


def test_drawing_refuses_a_folder_with_a_broken_marker(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 1, **TINY_SAMPLE)
    (root / ".drawn.json").write_text("[")
    with pytest.raises(BadInput, match="was not drawn"):
        draw_sample(root, 2, **TINY_SAMPLE)


def test_second_drawing_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    class SecondDrawing(NoProgress):
        """Draws into the same folder while the first one draws."""

        refusal: Exception | None = None

        def phase(self, name: str, total: int, done: int = 0) -> None:
            try:
                draw_sample(tmp_path / "s", 0, **TINY_SAMPLE)
            except EnvironmentFault as error:
                self.refusal = error

    progress = SecondDrawing()
    root = draw_sample(tmp_path / "s", 0, **TINY_SAMPLE, progress=progress)
    assert "is in use by process" in str(progress.refusal)
    assert open_dataset(root).categories == ["bottle", "metal"]
    assert list(tmp_path.iterdir()) == [root]


def test_drawing_keeps_a_foreign_folder_beside_it(tmp_path: Path) -> None:
    mine = tmp_path / ".s.drawing" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("my own")
    draw_sample(tmp_path / "s", 0, **TINY_SAMPLE)
    assert mine.read_text() == "my own"


@pytest.mark.timeout(60)
def test_pipe_in_place_of_the_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    os.mkfifo(tmp_path / "s" / ".drawn.json")
    with pytest.raises(BadInput, match=r"\.drawn\.json: was not drawn"):
        draw_sample(tmp_path / "s", 0, **TINY_SAMPLE)
