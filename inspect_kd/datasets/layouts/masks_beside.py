"""Images with masks beside them: `0001.png` and `0001_mask.png`. No mask, or an empty one, means a sound part.

The root is one category, or holds one such folder for each category. At least one mask is required; otherwise nothing
marks the defective parts.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.images import read_mask
from inspect_kd.datasets.layouts._walk import folders, image_stem, images_in, inside, is_mask, unreadable_masks
from inspect_kd.errors import BadInput
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return bool(_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _categories(root) for sample in _category(root, category)]


def _categories(root: Path) -> list[Path]:
    return [folder for folder in (root, *folders(root)) if any(is_mask(path) for path in images_in(folder))]


def _category(root: Path, folder: Path) -> list[Sample]:
    for path in unreadable_masks(folder):
        raise BadInput(f"{path}: named as a mask is, but no image that can be read; save it as PNG, or rename it")
    masks = {image_stem(path): path for path in images_in(folder) if is_mask(path)}
    samples = []
    for path in images_in(folder):
        if is_mask(path):
            continue
        mask = masks.get(path.stem)
        defective = mask is not None and bool(read_mask(inside(root, mask), size=(256, 256)).any())
        kind = "defect" if defective else "good"
        samples.append(Sample(image=path, category=folder.resolve().name, kind=kind, mask=mask if defective else None))
    return samples
