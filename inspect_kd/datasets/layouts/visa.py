"""VisA: `split_csv/1cls.csv` (object, split, label, image, mask) beside a folder for each category."""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import check_inside, read_table
from inspect_kd.errors import BadInput
from inspect_kd.types import Sample, Split

_SPLIT = Path("split_csv") / "1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")


def recognise(root: Path) -> bool:
    return (root / _SPLIT).is_file()


def scan(root: Path) -> list[Sample]:
    rows = read_table(check_inside(root, root / _SPLIT), COLUMNS)
    try:
        return [_make_sample(root, row) for row in rows]
    except KeyError as error:
        raise BadInput(f"{root / _SPLIT}: the column {error} is missing") from error


def _make_sample(root: Path, row: dict[str, str]) -> Sample:
    if not row["image"]:
        raise BadInput(f"{root / _SPLIT}: a row has no image")
    is_sound = row["label"] == "normal"
    return Sample(
        image=root / row["image"],
        category=row["object"],
        kind="good" if is_sound else "anomaly",
        split=Split.TRAIN if row["split"] == "train" else Split.TEST,
        mask=None if is_sound or not row["mask"] else root / row["mask"],
    )
