"""MVTec tree: `<category>/train/good`, `<category>/test/<kind>`, `<category>/ground_truth/<kind>/<stem>_mask.png`.

The root may also be a single category.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import folders, images_in, is_sound_name, mask_in
from inspect_kd.types import Sample, Split


def recognise(root: Path) -> bool:
    return bool(_find_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _find_categories(root) for sample in _scan_category(category)]


def _find_categories(root: Path) -> list[Path]:
    return [
        folder
        for folder in (root, *folders(root))
        if (folder / "train").is_dir() and _find_sound_folder(folder / "train")
    ]


def _find_sound_folder(split: Path) -> Path | None:
    return next((folder for folder in folders(split) if is_sound_name(folder.name)), None)


def _scan_category(root: Path) -> list[Sample]:
    # Resolve the path, because `--data .` has no name.
    name = root.resolve().name
    sound = _find_sound_folder(root / "train")
    samples = [Sample(image=path, category=name, split=Split.TRAIN) for path in images_in(sound)] if sound else []
    for folder in folders(root / "test"):
        kind = "good" if is_sound_name(folder.name) else folder.name
        for path in images_in(folder):
            mask = None if kind == "good" else mask_in(root / "ground_truth" / folder.name, path.stem)
            samples.append(Sample(image=path, category=name, kind=kind, split=Split.TEST, mask=mask))
    return samples
