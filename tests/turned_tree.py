"""An MVTec tree of two categories: brackets at random angles, which training must align, and tall strips at a fixed place, which it must
cut into tiles.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from inspect_kd.datasets.image_writer import write_image
from inspect_kd.types import ImageU8
from tests.turned_parts import OUTLINE, draw_part, pose_matrix

SIDE = 128
"""Side in pixels of a bracket's image."""
TRAIN_BRACKETS, TRAIN_STRIPS = 40, 12
"""Number of sound training parts of each category."""


def draw_turned_parts(root: Path) -> Path:
    """Write both categories. One sound bracket of the test split is cut off by the border; two defective ones have lost an end."""
    rng = np.random.default_rng(1)
    for i in range(TRAIN_BRACKETS):
        _write(root / f"bracket/train/good/{i:03d}.png", bracket(rng, i))
    for i in range(5):
        _write(root / f"bracket/test/good/{i:03d}.png", bracket(rng, 100 + i))
    _write(root / "bracket/test/good/005.png", _shrunk(draw_part(pose_matrix(20, 265, 150), seed=105)))
    for i in range(4):
        image, mask = scratched_bracket(rng, 200 + i)
        _write(root / f"bracket/test/scratch/{i:03d}.png", image)
        _write(root / f"bracket/ground_truth/scratch/{i:03d}_mask.png", mask)
    for i in range(2):
        _write(root / f"bracket/test/broken/{i:03d}.png", bracket(rng, 300 + i, broken=True))
    for i in range(TRAIN_STRIPS + 3):
        _write(root / f"strip/{'train' if i < TRAIN_STRIPS else 'test'}/good/{i:03d}.png", strip(i))
    for i in range(3):
        image, mask = strip(50 + i), np.zeros((320, 64, 3), np.uint8)
        for picture, value in ((image, 230), (mask, 255)):
            cv2.circle(picture, (20 + 8 * i, 60 + 90 * i), 4, (value, value, value), -1)
        _write(root / f"strip/test/spot/{i:03d}.png", image)
        _write(root / f"strip/ground_truth/spot/{i:03d}_mask.png", mask)
    return root


def bracket(rng: np.random.Generator, seed: int, *, broken: bool = False) -> ImageU8:
    """A bracket at a random place and angle."""
    outline = OUTLINE.copy()
    if broken:
        outline[:, 0] = np.minimum(outline[:, 0], 20)
    return _shrunk(draw_part(pose_matrix(rng.uniform(0, 360), *rng.uniform(125, 175, 2)), outline=outline, seed=seed))


def scratched_bracket(rng: np.random.Generator, seed: int) -> tuple[ImageU8, ImageU8]:
    """A bracket with a light scratch, and the scratch's mask."""
    matrix = pose_matrix(rng.uniform(0, 360), *rng.uniform(125, 175, 2))
    image = draw_part(matrix, seed=seed)
    mask = np.zeros_like(image)
    start, end = (tuple(np.round(matrix @ (x, y, 1.0)).astype(int).tolist()) for x, y in ((-20, -15), (15, 10)))
    for picture, value in ((image, 200), (mask, 255)):
        cv2.line(picture, start, end, (value, value, value), 5)
    return _shrunk(image), (_shrunk(mask) > 127).astype(np.uint8) * 255


def strip(seed: int) -> ImageU8:
    """A tall strip that always lies at one place."""
    image = np.full((320, 64, 3), 150, np.uint8)
    cv2.rectangle(image, (8, 6), (56, 314), (90, 100, 110), -1)
    for y in range(30, 310, 40):
        cv2.line(image, (8, y), (56, y), (70, 70, 70), 2)
    noise = np.random.default_rng(seed).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _shrunk(image: ImageU8) -> ImageU8:
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _write(path: Path, image: ImageU8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image, [])
