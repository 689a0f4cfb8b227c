"""Images with masks beside them: `0001.png` and `0001_mask.png`. No mask, or an empty one, means a sound part.

Names are compared in lower case. A mask without its image, a second mask, and a defect's name without a mask are errors.

The root is one category, or holds one such folder for each category. At least one mask is required, since
otherwise no part would be defective.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.images import read_mask
from inspect_kd.datasets.layouts._walk import (
    check_inside,
    folders,
    images_in,
    is_mask,
    masks_by_stem,
    names_defect,
    unreadable_masks,
)
from inspect_kd.errors import BadInput
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return bool(_find_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _find_categories(root) for sample in _scan_category(root, category)]


def _find_categories(root: Path) -> list[Path]:
    return [folder for folder in (root, *folders(root)) if any(is_mask(path) for path in images_in(folder))]


def _scan_category(root: Path, folder: Path) -> list[Sample]:
    for path in unreadable_masks(folder):
        raise BadInput(f"{path}: has a mask's name, but is no readable image; save it as PNG, or rename it")
    masks = masks_by_stem(folder)
    samples = []
    for path in images_in(folder):
        if is_mask(path):
            continue
        mask = masks.get(path.stem.casefold())
        if mask is None and names_defect(path.stem):
            raise BadInput(
                f"{path}: its name says that the part is defective, but it has no mask; add one, or rename it"
            )
        # Any size will do: a mask that is shrunk keeps at least one pixel of the smallest defect.
        defective = mask is not None and bool(read_mask(check_inside(root, mask), size=(256, 256)).any())
        kind = "defect" if defective else "good"
        samples.append(Sample(image=path, category=folder.resolve().name, kind=kind, mask=mask if defective else None))
    return samples
