"""Draw a contact sheet of a drawn data set: sound parts, and defects with their outlines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.resize import resize
from inspect_kd.types import ImageU8

CELL, GAP, LABEL = 168, 6, 20
GOOD_PARTS_SHOWN = 3
OUTLINE = (255, 70, 40)


def write_contact_sheet(root: Path, to: Path) -> Path:
    """Write a contact sheet with a row for each category: sound parts, then one part of each kind of defect."""
    rows = [_row(category) for category in sorted(path for path in root.iterdir() if (path / "train").is_dir())]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    to.parent.mkdir(parents=True, exist_ok=True)
    write_image(to, np.vstack(rows))
    return to


def _row(category: Path) -> ImageU8:
    cells = [
        _cell(path, f"{category.name}: good", None)
        for path in sorted((category / "train" / "good").iterdir())[:GOOD_PARTS_SHOWN]
    ]
    for kind in sorted(path for path in (category / "test").iterdir() if path.name != "good"):
        image = sorted(kind.iterdir())[1]
        cells.append(
            _cell(image, kind.name.replace("_", " "), category / "ground_truth" / kind.name / f"{image.stem}_mask.png")
        )
    return np.hstack(cells)


def _cell(path: Path, label: str, mask: Path | None) -> npt.NDArray[np.uint8]:
    picture = resize(read_image(path), CELL, CELL).copy()
    if mask is not None:
        # The outline lies a little outside, so that it does not hide the defect.
        wide = cv2.dilate(read_mask(mask, size=(CELL, CELL)).astype(np.uint8), np.ones((9, 9), np.uint8))
        outlines, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, OUTLINE, 1, cv2.LINE_AA)
    cell = np.full((CELL + LABEL + GAP, CELL + GAP, 3), 255, np.uint8)
    cell[LABEL : LABEL + CELL, GAP // 2 : GAP // 2 + CELL] = picture
    cv2.putText(cell, label, (GAP // 2 + 1, LABEL - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return cell
