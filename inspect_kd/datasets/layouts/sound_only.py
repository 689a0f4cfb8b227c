"""A plain folder of sound images; no name in it may suggest a defect or a mask.

A folder with subfolders of images is not recognised: images in `scratch/` would be used as sound parts.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import folders, images_in, is_mask, unreadable_masks
from inspect_kd.types import Sample

_DEFECT_WORDS = (
    "bad",
    "ng",
    "ko",
    "nok",
    "nio",
    "defect",
    "defective",
    "anomaly",
    "reject",
    "rejects",
    "fail",
    "scrap",
)


def recognise(root: Path) -> bool:
    files = images_in(root)
    names = [root.resolve().name.lower(), *(path.stem.lower() for path in files)]
    has_masks = any(is_mask(path) for path in files) or (bool(files) and bool(unreadable_masks(root)))
    suggests_defects = has_masks or any(_names_defect(name) for name in names)
    # With images in the root and in its folders, the meaning of the folders is unclear.
    return bool(files) and not suggests_defects and not any(images_in(folder) for folder in folders(root))


def scan(root: Path) -> list[Sample]:
    return [Sample(image=path, category=root.resolve().name) for path in images_in(root)]


def _names_defect(name: str) -> bool:
    return any(name == word or name.startswith((f"{word}_", f"{word}-")) for word in _DEFECT_WORDS)
