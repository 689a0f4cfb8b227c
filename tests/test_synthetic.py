"""Synthetic defects: exact masks, limited sizes, all kinds, any image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.synthetic import KINDS, MAX_SHARE, MIN_SHARE, add_defect, find_part
from inspect_kd.datasets.textures import draw_scene, draw_texture
from inspect_kd.resize import resize


def scene(seed: int, size: int = 128) -> np.ndarray:
    return draw_scene(size, size, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_only_pixels_in_its_mask(kind: str) -> None:
    for seed in range(12):
        image = scene(seed)
        defect = add_defect(image, np.random.default_rng(seed), donor=scene(seed + 100), kinds=[kind])
        assert defect.image.shape == image.shape and defect.mask.dtype == bool
        changed = (defect.image != image).any(axis=2)
        assert not (changed & ~defect.mask).any()
        assert changed[defect.mask].mean() > 0.5
        assert 0.4 * MIN_SHARE <= defect.mask.mean() <= 2.1 * MAX_SHARE or defect.mask.sum() >= 4


def test_all_kinds_occur() -> None:
    image = scene(1)
    kinds = {add_defect(image, np.random.default_rng(seed)).kind for seed in range(150)}
    assert kinds == set(KINDS)


def test_same_seed_gives_same_defect() -> None:
    first, second = (add_defect(scene(3), np.random.default_rng(5), donor=scene(4)) for _ in range(2))
    assert np.array_equal(first.image, second.image) and first.kind == second.kind


@pytest.mark.parametrize("tone", [0, 127, 255])
def test_flat_image_gets_a_visible_defect(tone: int) -> None:
    flat = np.full((64, 64, 3), tone, np.uint8)
    for seed in range(20):
        assert add_defect(flat, np.random.default_rng(seed)).mask.any()


def test_defects_lie_on_the_part() -> None:
    image = np.full((128, 128, 3), 240, np.uint8)
    image[32:96, 32:96] = draw_texture(64, 64, np.random.default_rng(0))
    image[32:96, 32:96] //= 2
    part = find_part(image)
    assert 0.15 < part.mean() < 0.4
    shares = [
        (d.mask & part).sum() / d.mask.sum() for d in (add_defect(image, np.random.default_rng(s)) for s in range(40))
    ]
    assert min(shares) >= 0.49


def test_defects_on_real_parts_have_varied_sizes(real_data: Path) -> None:
    paths = sorted((real_data / "mvtec_ad" / "bottle" / "train" / "good").glob("*"))[:2]
    image, donor = (resize(read_image(path), 256, 256) for path in paths)
    part = find_part(image)
    assert 0.4 < part.mean() < 0.9
    sizes = [add_defect(image, np.random.default_rng(seed), donor=donor).mask.mean() for seed in range(40)]
    assert min(sizes) < 0.005 and max(sizes) > 0.03
