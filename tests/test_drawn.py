"""The drawn data set: reproducible by its seed, with exact masks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.drawn import CATEGORIES, MIN_DIFFERENCE, contact_sheet, draw_part, draw_sample
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.types import NoProgress, Split

KINDS = [(category, kind) for category, module in CATEGORIES.items() for kind in module.KINDS]


def test_there_are_four_categories_and_six_kinds() -> None:
    assert len(CATEGORIES) >= 4 and len({kind for _, kind in KINDS}) >= 6


@pytest.mark.parametrize(("category", "kind"), KINDS)
def test_masks_are_exact_and_defects_visible(category: str, kind: str) -> None:
    for index in range(2):
        part = draw_part(category, (11, index), kind)
        assert part.mask is not None
        change = np.abs(part.image.astype(int) - part.sound).max(axis=2)
        assert 0.0003 < part.mask.mean() < 0.2
        assert change[part.mask].mean() > MIN_DIFFERENCE
        # Both images have the same noise, so outside the mask they may differ only invisibly.
        assert change[~part.mask].max() <= MIN_DIFFERENCE + 3


def test_image_depends_on_the_seed_only() -> None:
    for category in CATEGORIES:
        first, again, other = (draw_part(category, seed).image for seed in ((0, 1), (0, 1), (0, 2)))
        assert np.array_equal(first, again)
        assert np.abs(first.astype(int) - other).mean() > 1


TINY = {"size": 64, "train": 5, "test_good": 1, "per_kind": 1}


def test_drawn_tree_is_a_complete_data_set(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 3, size=64, train=8, test_good=2, per_kind=1)
    data = open_dataset(root)
    assert data.categories == sorted(CATEGORIES)
    assert len(data.select(Split.TEST)) == len(KINDS) + 2 * len(CATEGORIES)
    assert all(sample.mask for sample in data.samples if sample.defective)


def test_tree_is_drawn_again_only_for_other_settings(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 3, **TINY)
    image = root / "metal" / "train" / "good" / "000.png"
    before = image.stat().st_mtime_ns
    time.sleep(0.01)
    assert draw_sample(root, 3, **TINY) == root
    assert image.stat().st_mtime_ns == before
    draw_sample(root, 4, **TINY)
    assert image.stat().st_mtime_ns != before


def test_contact_sheet_is_drawn(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 0, size=64, train=5, test_good=1, per_kind=2)
    sheet = read_image(contact_sheet(root, tmp_path / "sheet.jpg"))
    assert sheet.shape[1] > 1000 and sheet.std() > 30


def test_drawing_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 0, **TINY)
    mine = root / "bottle" / "train" / "good" / "mine.png"
    mine.write_bytes(b"my own")
    with pytest.raises(BadInput, match=r"mine\.png: was not drawn"):
        draw_sample(root, 1, **TINY)
    assert mine.read_bytes() == b"my own"
    mine.unlink()
    assert draw_sample(root, 1, **TINY) == root


def test_drawing_refuses_a_folder_with_a_broken_marker(tmp_path: Path) -> None:
    root = draw_sample(tmp_path / "s", 1, **TINY)
    (root / ".drawn.json").write_text("[")
    with pytest.raises(BadInput, match="was not drawn"):
        draw_sample(root, 2, **TINY)


def test_second_process_drawing_into_a_folder_is_refused(tmp_path: Path) -> None:
    class SecondDrawing(NoProgress):
        """Draws into the same folder while the first one draws."""

        refusal: Exception | None = None

        def phase(self, name: str, total: int, done: int = 0) -> None:
            try:
                draw_sample(tmp_path / "s", 0, **TINY)
            except EnvironmentFault as error:
                self.refusal = error

    progress = SecondDrawing()
    root = draw_sample(tmp_path / "s", 0, **TINY, progress=progress)
    assert "is in use by process" in str(progress.refusal)
    assert open_dataset(root).categories == sorted(CATEGORIES)
    assert list(tmp_path.iterdir()) == [root]
