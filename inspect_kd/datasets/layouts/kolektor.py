"""KolektorSDD: `kos01/Part0.jpg` with `kos01/Part0_label.bmp`; an all-black label means a sound part.

The eight images of one commutator (one folder) share a group.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.images import read_mask
from inspect_kd.datasets.layouts._walk import check_inside, folders, images_in, is_mask
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return any(any(folder.glob("Part*_label.bmp")) for folder in folders(root) if folder.name.startswith("kos"))


def scan(root: Path) -> list[Sample]:
    return [
        _make_sample(root, path)
        for folder in folders(root)
        if folder.name.startswith("kos")
        for path in images_in(folder)
        if not is_mask(path)
    ]


def _make_sample(root: Path, image: Path) -> Sample:
    label = image.with_name(f"{image.stem}_label.bmp")
    # Any size will do: a mask that is shrunk keeps at least one pixel of the smallest defect.
    defective = bool(read_mask(check_inside(root, label), size=(64, 160)).any())
    return Sample(
        image=image,
        category="commutator",
        kind="crack" if defective else "good",
        mask=label if defective else None,
        group=image.parent.name,
    )
