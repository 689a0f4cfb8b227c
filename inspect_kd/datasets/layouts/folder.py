"""A folder with `good/` (or `ok/`, `sound/`, `normal/` …) and a folder for each kind of defect.

The root is one category, or holds one such folder for each category. Masks: `<stem>_mask.*` beside the image (or with another of
MASK_ENDS), or a folder `ground_truth/<kind>` or `masks/<kind>`.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from inspect_kd.datasets.layouts._walk import (
    MASK_ENDS,
    MASK_FOLDERS,
    check_inside,
    folders,
    images_in,
    is_mask,
    is_sound_name,
    mask_in,
)
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return bool(_find_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _find_categories(root) for sample in _scan_category(category)]


def defects_by_kind(root: Path) -> list[Sample]:
    """List defects sorted into one folder for each kind. Empty if images lie beside the folders, whose meaning is then unclear."""
    if images_in(root):
        return []
    samples = [sample for sample in _scan_category(root) if sample.defective]
    for sample in samples:
        for file in filter(None, (sample.image, sample.mask)):
            check_inside(root, file)
    return samples


def _find_categories(root: Path) -> list[Path]:
    """Return the root if it has a folder of sound parts, else those of its folders that have one."""
    if _is_category(root):
        return [root]
    categories = [folder for folder in folders(root) if _is_category(folder)]
    # A folder without sound parts beside the categories is ambiguous: not this layout.
    return categories if categories and len(categories) == len(folders(root)) else []


def _is_category(root: Path) -> bool:
    return any(is_sound_name(folder.name) and images_in(folder) for folder in folders(root))


def _scan_category(root: Path) -> list[Sample]:
    name = root.resolve().name
    samples = []
    for folder in folders(root):
        if folder.name in MASK_FOLDERS:
            continue
        kind = "good" if is_sound_name(folder.name) else folder.name
        for path in images_in(folder):
            if not is_mask(path):
                samples.append(
                    Sample(
                        image=path,
                        category=name,
                        kind=kind,
                        mask=None if kind == "good" else _find_mask(root, path, kind),
                    )
                )
    return samples


def _find_mask(root: Path, image: Path, kind: str) -> Path | None:
    """Find the mask of a defect beside its image, else in the folders of masks."""
    beside = (mask_in(image.parent, f"{image.stem}{end}") for end in MASK_ENDS)
    in_folders = (mask_in(root / name / kind, image.stem) for name in MASK_FOLDERS)
    return next(filter(None, chain(beside, in_folders)), None)
