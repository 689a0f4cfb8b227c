"""A CSV: columns `image` and `label` (or `kind`); optionally `category`, `split`, `mask`, `group`.

`label` is good / ok / sound / normal / 0 for a sound part; anything else names the defect. Paths are relative to the CSV.
`split` is train or test; if it is empty, sound parts are split by seed and defects are used for the test.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts._walk import is_sound_name, read_column_names, read_table
from inspect_kd.errors import BadInput
from inspect_kd.types import Sample, Split

COLUMNS = ("image", "label", "kind", "category", "split", "mask", "group")


def recognise(root: Path) -> bool:
    return root.is_file() and root.suffix.lower() == ".csv"


def scan(root: Path) -> list[Sample]:
    columns = set(read_column_names(root))
    if "image" not in columns or not columns & {"label", "kind"}:
        raise BadInput(f"{root}: needs the columns image and label; found {', '.join(sorted(columns)) or 'none'}")
    return [_make_sample(root, row, number) for number, row in enumerate(read_table(root, COLUMNS), start=2)]


def _make_sample(root: Path, row: dict[str, str], number: int) -> Sample:
    labels = [text for name in ("label", "kind") if (text := (row.get(name) or "").strip())]
    if not labels:
        raise BadInput(f"{root}, line {number}: no label; write good, or the name of the defect")
    if len({_is_sound(text) for text in labels}) > 1:
        raise BadInput(f"{root}, line {number}: label '{labels[0]}' and kind '{labels[1]}' contradict each other")
    label, is_sound = labels[0], _is_sound(labels[0])
    split = (row.get("split") or "").strip().lower()
    if split not in {"", "train", "test"}:
        raise BadInput(f"{root}, line {number}: split '{split}'; expected train, test or nothing")
    if split == "train" and not is_sound:
        raise BadInput(
            f"{root}, line {number}: a defective part ('{label}') cannot be in the split train; use test or leave it empty"
        )
    if not row["image"].strip():
        raise BadInput(f"{root}, line {number}: the cell of the column image is empty")
    mask = (row.get("mask") or "").strip()
    return Sample(
        image=root.parent / row["image"].strip(),
        category=(row.get("category") or root.stem).strip(),
        kind="good" if is_sound else label,
        split=Split(split) if split else None,
        mask=root.parent / mask if mask and not is_sound else None,
        group=(row.get("group") or "").strip() or None,
    )


def _is_sound(label: str) -> bool:
    return is_sound_name(label) or label == "0"
