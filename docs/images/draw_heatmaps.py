"""Draw the README's picture: parts of the demo with the heatmaps of the demo's student. Writes heatmaps.jpg beside this file.

    make demo && .venv/bin/python docs/images/draw_heatmaps.py [runs/demo]

One column per category of the drawn data set: a sound part with its heatmap, a defective part, and the defective part with its heatmap.
The defective part is the first test image of the first kind of defect, as in the overlays of `inspect-kd demo`, so it is not selected
by its result. Decisions use the category's own thresholds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import read_image
from inspect_kd.inspector import Inspector
from inspect_kd.types import ImageU8

PICTURE = Path(__file__).parent / "heatmaps.jpg"
CELL, GAP, LABEL = 236, 8, 26
"""Side of a cell, space between cells and height of a label, in pixels."""
QUALITY = 88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", type=Path, default=Path("runs/demo"), help="folder of `inspect-kd demo`")
    demo = parser.parse_args().demo
    categories = sorted(path for path in (demo / "sample").iterdir() if path.is_dir())
    columns = [draw_column(demo / "parts" / "parts.onnx", category) for category in categories]
    write_image(PICTURE, np.hstack(columns), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


def draw_column(artifact: Path, category: Path) -> ImageU8:
    inspector = Inspector(artifact, category=category.name)
    kind = min(path for path in (category / "test").iterdir() if path.name != "good")
    sound, defective = min((category / "test" / "good").iterdir()), min(kind.iterdir())
    name = kind.name.replace("_", " ")
    return np.vstack(
        [
            draw_cell(f"{category.name}: a sound part", draw_inspection(inspector, sound)),
            draw_cell(f"{category.name}: {name}", read_image(defective)),
            draw_cell("its heatmap and decision", draw_inspection(inspector, defective)),
        ]
    )


def draw_inspection(inspector: Inspector, image: Path) -> ImageU8:
    """Draw heatmap, score and decision on the category's scale, where 1.0 is its reject threshold."""
    inspection, threshold = inspector(image), inspector.thresholds.reject
    scaled = replace(inspection, score=inspection.score / threshold, heatmap=inspection.heatmap / threshold)
    return overlay.draw(read_image(image), scaled, contours=False, numbers=False)


def draw_cell(label: str, picture: ImageU8) -> ImageU8:
    """Put a picture under its label, on white."""
    canvas = np.full((LABEL + CELL + GAP, CELL + GAP, 3), 255, np.uint8)
    canvas[LABEL : LABEL + CELL, GAP // 2 : GAP // 2 + CELL] = cv2.resize(
        picture, (CELL, CELL), interpolation=cv2.INTER_AREA
    )
    position = (GAP // 2 + 1, LABEL - 8)
    cv2.putText(canvas, label, position, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


if __name__ == "__main__":
    main()
