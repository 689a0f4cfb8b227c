"""Layouts of data sets on disk. Each module has `recognise(root) -> bool` and `scan(root) -> list[Sample]`.

An ambiguous folder is not recognised, because a defect used as a sound part would spoil training and thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from inspect_kd import registry
from inspect_kd.calibrate import POOLED
from inspect_kd.datasets.find_images import find_in_folder
from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, check_inside, folders, images_in, is_mask
from inspect_kd.errors import BadInput, printable
from inspect_kd.types import Sample

# The most specific first, since a later layout might misinterpret the folders of an earlier one.
ORDER = (
    "csv",
    "visa",
    "mvtec_ad2",
    "btad",
    "mvtec",
    "kolektor",
    "magnetic_tile",
    "folder",
    "masks_beside",
    "sound_only",
)
_TABLES = frozenset({"csv", "visa"})


def load(name: str) -> ModuleType:
    """Import a layout's module."""
    return registry.load("datasets.layouts", name)


def recognise(root: Path) -> str:
    """Return the name of a folder's layout, or raise an error that describes the folder."""
    if not root.exists():
        raise BadInput(f"{root}: no such folder or file")
    for name in ORDER:
        if load(name).recognise(root):
            return name
    raise BadInput(f"{root}: no layout recognised ({_describe(root)}). {ACCEPTED}")


def scan(root: Path, layout: str | None = None) -> tuple[str, list[Sample]]:
    """Return the layout's name and all samples, after checking that every file lies below the root."""
    name = layout or recognise(root)
    samples: list[Sample] = load(name).scan(root)
    if not samples:
        raise BadInput(f"{root}: no images found in the layout '{name}' ({_describe(root)})")
    for sample in samples:
        if sample.category == POOLED:
            raise BadInput(f"{root}: a category called '{POOLED}', which stands for all categories together; rename it")
        for file in filter(None, (sample.image, sample.mask)):
            check_inside(root, file)
    return name, [_with_printable_names(sample) for sample in samples]


def left_out(root: Path, layout: str, samples: Sequence[Sample]) -> list[Path]:
    """List the images below a folder that are neither samples nor masks, except those that the layout leaves out on purpose.

    A table names its images, so it leaves out all others on purpose. So do the other layouts with hidden folders (`.` or `_` first),
    with mask folders and with private tests.
    """
    if layout in _TABLES or not root.is_dir():
        return []
    used = {path for sample in samples for path in (sample.image, sample.mask)}
    stems = {sample.image.with_suffix("") for sample in samples}  # the magnetic tiles' masks have their image's stem
    return [
        path
        for path in find_in_folder(root)
        if path not in used
        and not is_mask(path)
        and (layout != "magnetic_tile" or path.with_suffix("") not in stems)
        and not any(
            part in MASK_FOLDERS or part.startswith((".", "_", "test_private")) for part in path.relative_to(root).parts
        )
    ]


def _with_printable_names(sample: Sample) -> Sample:
    """Escape unprintable characters in categories and kinds: folder names may be any bytes, reports and artifact cards are text."""
    category, kind = printable(sample.category), printable(sample.kind)
    changed = (category, kind) != (sample.category, sample.kind)
    return replace(sample, category=category, kind=kind) if changed else sample


def _describe(root: Path) -> str:
    if root.is_file():
        return f"a file of type '{root.suffix}'"
    names = [folder.name + "/" for folder in folders(root)]
    count = len(images_in(root))
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    return f"{count} images and {len(names)} folders{': ' + shown if names else ''}"


ACCEPTED = (
    "Accepted: MVTec trees (<category>/train/good, test/<kind>, ground_truth), a folder with good/ (or ok/, sound/, normal/) "
    "beside folders of defects, sound parts only, images with <name>_mask files beside them, a CSV with the columns image and "
    "label, and the original trees of VisA, BTAD, KolektorSDD, MVTec AD 2 and the magnetic tiles."
)
