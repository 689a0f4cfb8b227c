"""Layouts of data sets on disk. Each module has `recognise(root) -> bool` and `scan(root) -> list[Sample]`.

An ambiguous folder is not recognised, because a defect used as a sound part would spoil training and thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from inspect_kd import registry
from inspect_kd.datasets.layouts._walk import check_inside, folders, images_in
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
        for file in filter(None, (sample.image, sample.mask)):
            check_inside(root, file)
    return name, [_with_printable_names(sample) for sample in samples]


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
