"""BTAD: `<category>/train/ok`, `<category>/test/{ok,ko}`, `<category>/ground_truth/ko/<stem>.png`.

Only the names of folders and masks differ from an MVTec tree.
"""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.layouts import mvtec
from inspect_kd.datasets.layouts._walk import folders
from inspect_kd.types import Sample


def recognise(root: Path) -> bool:
    return any(
        (folder / "test" / "ko").is_dir() and (folder / "train" / "ok").is_dir() for folder in (root, *folders(root))
    )


def scan(root: Path) -> list[Sample]:
    return mvtec.scan(root)
