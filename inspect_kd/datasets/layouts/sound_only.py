"""A plain folder of sound images; no name in it may suggest a defect or a mask.

A folder with subfolders of images is not recognised: images in `scratch/` would be used as sound parts.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import (
    folders,
    has_unusual_mask_name,
    images_in,
    is_mask,
    names_defect,
    unreadable_masks,
)
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    files = images_in(root)
    names = [root.resolve().name, *(path.stem for path in files)]
    stems = {path.stem.casefold() for path in files}
    has_masks = any(is_mask(path) or has_unusual_mask_name(path, stems) for path in files)
    suggests_defects = has_masks or any(map(names_defect, names)) or (bool(files) and bool(unreadable_masks(root)))
    # With images in the root and in its folders, the meaning of the folders is unclear.
    return bool(files) and not suggests_defects and not any(images_in(folder) for folder in folders(root))


def scan(root: Path) -> list[Sample]:
    return [Sample(image=path, category=root.resolve().name) for path in images_in(root)]
