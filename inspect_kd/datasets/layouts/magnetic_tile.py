"""The magnetic tile data set: `MT_Free/Imgs/*.jpg`, `MT_<Kind>/Imgs/*.jpg` with the mask beside it as `.png`.

Images with the same number in their names, such as `exp1_num_106151`, show the same tile and share a group.
"""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd.datasets.layouts._walk import folders, images_in
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return (root / "MT_Free" / "Imgs").is_dir()


def scan(root: Path) -> list[Sample]:
    return [
        _make_sample(path, folder.name.removeprefix("MT_").lower())
        for folder in folders(root)
        if folder.name.startswith("MT_")
        for path in images_in(folder / "Imgs")
        if path.suffix.lower() == ".jpg"
    ]


def _make_sample(image: Path, kind: str) -> Sample:
    number = re.search(r"num_(\d+)", image.stem)
    is_sound, mask = kind == "free", image.with_suffix(".png")
    return Sample(
        image=image,
        category="tile",
        kind="good" if is_sound else kind,
        mask=None if is_sound or not mask.is_file() else mask,
        group=number.group(1) if number else None,
    )
