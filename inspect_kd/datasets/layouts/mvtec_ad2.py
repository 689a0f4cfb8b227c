"""MVTec AD 2: `<category>/train/good`, `validation/good`, `test_public/{good,bad}`, `test_public/ground_truth/bad`.

The private tests have no ground truth and are left out.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import folders, images_in, mask_in
from inspect_kd.types import Sample, Split


def recognise(root: Path) -> bool:
    return bool(_find_categories(root))


def scan(root: Path) -> list[Sample]:
    return [sample for category in _find_categories(root) for sample in _scan_category(category)]


def _find_categories(root: Path) -> list[Path]:
    return [folder for folder in (root, *folders(root)) if (folder / "test_public").is_dir()]


def _scan_category(root: Path) -> list[Sample]:
    name, test = root.resolve().name, root / "test_public"
    sound = [*images_in(root / "train" / "good"), *images_in(root / "validation" / "good")]
    samples = [Sample(image=path, category=name, split=Split.TRAIN) for path in sound]
    samples += [Sample(image=path, category=name, split=Split.TEST) for path in images_in(test / "good")]
    truth = test / "ground_truth" / "bad"
    return samples + [
        Sample(image=path, category=name, kind="bad", split=Split.TEST, mask=mask_in(truth, path.stem))
        for path in images_in(test / "bad")
    ]
