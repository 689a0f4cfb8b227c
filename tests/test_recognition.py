"""An image whose category is not named: which category's presentation is used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd.config import Data
from inspect_kd.datasets.fit_presentation import fit_presentations
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.errors import BadInput
from inspect_kd.types import ImageU8, NoProgress, Sample, Split
from tests.turned_parts import OUTLINE, draw_part, pose_matrix, random_parts

PLATE = np.array([[-80, -40], [80, -40], [80, 40], [-80, 40]], np.float64)


def plate(seed: int) -> ImageU8:
    """A part in a fixture: always in the same place, so it is not aligned."""
    return draw_part(pose_matrix(0, 150, 150), outline=PLATE, seed=seed)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Sample]]:
    """Turned brackets, and plates in a fixture."""
    folder = tmp_path_factory.mktemp("parts")
    images = {"bracket": [image for _, image in random_parts(12)], "plate": [plate(seed) for seed in range(12)]}
    sound = {}
    for category, members in images.items():
        paths = [folder / f"{category}_{number}.png" for number in range(len(members))]
        for path, image in zip(paths, members, strict=True):
            write_image(path, image)
        sound[category] = [Sample(image=path, category=category, split=Split.TRAIN) for path in paths]
    return sound


@pytest.fixture(scope="module")
def presentations(sound: dict[str, list[Sample]]) -> Presentations:
    return fit_presentations(sound, Data(size=64), NoProgress(), whole_images=False)


def test_method_that_finds_no_part_is_refused_with_the_category(sound: dict[str, list[Sample]], tmp_path: Path) -> None:
    write_image(tmp_path / "blank.png", np.full((60, 60, 3), 128, np.uint8))
    blank = Sample(image=tmp_path / "blank.png", category="felt", split=Split.TRAIN)
    reason = r"^felt: data\.align: silhouette finds no part in 2 of 2 sound images: no part on the background$"
    with pytest.raises(BadInput, match=reason):
        settings = Data(size=64, align="silhouette")
        fit_presentations(sound | {"felt": [blank] * 2}, settings, NoProgress(), whole_images=False)


def test_likeness_of_parts_without_alignment_to_the_reference_is_measured(presentations: Presentations) -> None:
    bracket, plates = (presentations.by_category[name] for name in ("bracket", "plate"))
    assert bracket.alignment is not None and plates.alignment is None
    assert 0.3 < bracket.foreign_quality < 1 and plates.foreign_quality == 0
    stored = Presentations.from_json(presentations.to_json(), 64).by_category["bracket"]
    assert stored.foreign_quality == bracket.foreign_quality


def test_sound_part_without_alignment_is_inspected_as_its_own_category(presentations: Presentations) -> None:
    prepared = presentations.prepare(plate(seed=99), None)
    assert prepared.matrix is None and prepared.fault is None


def test_part_that_is_cut_off_is_not_inspected_as_a_category_without_alignment(presentations: Presentations) -> None:
    """It is more like the bracket than any plate is."""
    prepared = presentations.prepare(draw_part(pose_matrix(30, 215, 150)), None)
    assert prepared.category == "bracket" and prepared.fault is not None


def test_turned_part_with_a_broken_end_is_not_inspected_as_a_category_without_alignment(
    presentations: Presentations,
) -> None:
    broken = OUTLINE.copy()
    broken[:, 0] = np.minimum(broken[:, 0], 75)
    prepared = presentations.prepare(draw_part(pose_matrix(140, 150, 150), outline=broken), None)
    assert prepared.category == "bracket" and prepared.fault is not None


def test_image_of_something_else_is_inspected_as_the_category_without_alignment(presentations: Presentations) -> None:
    texture = cv2.resize(np.random.default_rng(0).integers(0, 255, (30, 30, 3)).astype(np.uint8), (300, 300))
    assert presentations.prepare(np.asarray(texture, np.uint8), None).matrix is None
