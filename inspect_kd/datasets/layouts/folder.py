"""A folder with `good/` (or `ok/`, `sound/`, `normal/` …) and other folders, each one kind of defect.

The root is one category, or holds one such folder a category. Masks: `<stem>_mask.*` beside the image, or a folder
`ground_truth/<kind>` or `masks/<kind>`.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, folders, images_in, inside, is_mask, is_sound_name, mask_in
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return bool(_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _categories(root) for sample in _category(category)]


def defects_by_kind(root: Path) -> list[Sample]:
    """As a person sorts what was found: a folder a kind and nothing sound among them. Empty where images lie beside the folders:
    then nobody can tell what the folders mean."""
    if images_in(root):
        return []
    samples = [sample for sample in _category(root) if sample.defective]
    for sample in samples:
        for file in filter(None, (sample.image, sample.mask)):
            inside(root, file)
    return samples


def _categories(root: Path) -> list[Path]:
    """The root itself, if it has sound parts; else those of its folders that have."""
    if _is_category(root):
        return [root]
    found = [folder for folder in folders(root) if _is_category(folder)]
    # One folder without sound parts among categories might hold anything: not this layout.
    return found if found and len(found) == len(folders(root)) else []


def _is_category(root: Path) -> bool:
    return any(is_sound_name(folder.name) and images_in(folder) for folder in folders(root))


def _category(root: Path) -> list[Sample]:
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
                        image=path, category=name, kind=kind, mask=None if kind == "good" else _mask(root, path, kind)
                    )
                )
    return samples


def _mask(root: Path, image: Path, kind: str) -> Path | None:
    beside = mask_in(image.parent, f"{image.stem}_mask") or _beside(image)
    return beside or next(filter(None, (mask_in(root / name / kind, image.stem) for name in MASK_FOLDERS)), None)


def _beside(image: Path) -> Path | None:
    found = mask_in(image.parent, image.stem)
    return found if found is not None and found != image and is_mask(found) else None
