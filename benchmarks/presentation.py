"""Measure alignment and automatic tiles on the development sets and their turned twins. Writes docs/results/presentation.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.presentation [--model omni_ad] [--only alien …]

A turned twin is a data set whose every picture is turned by any angle and shifted by up to a tenth of its sides, on a larger canvas
into which its border is continued. Each set and each twin is trained with `data.align=none data.tile=null` and with the defaults
(`auto`); where `auto` changes nothing, its row repeats the other one's numbers. A complete run is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_for_recipe
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.progress_display import show_progress
from inspect_kd.training import pipeline
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.prepare_images import fit_to_training_images
from inspect_kd.training.run import RunFolder, environment
from inspect_kd.types import NoProgress, Sample

DEFAULT_MODEL = "omni_ad"
# Category → folder below the data, and a regular expression for file names; images with equal matches show one part.
SETS = {
    "bottle": ("mvtec_ad", None),
    "metal_plate": ("mpdd", None),
    "tile": ("magnetic_tile", r"num_(\d+)"),
    "paper": ("piped", None),
    "assembly": ("screws4", None),
    "alien": ("lookout", None),
}
ARMS = {"none": ["data.align=none", "data.tile=null"], "auto": []}
MAX_SHIFT = 0.1
"""Largest shift of a twin's part, as a share of the picture's sides."""
METRICS = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "pixel_aupro": "AUPRO"}


def turn_picture(picture: np.ndarray, rng: np.random.Generator, *, interpolation: int) -> np.ndarray:
    """Turn and shift a picture on a canvas that holds it at any angle; its border is continued."""
    height, width = picture.shape[:2]
    side = math.ceil(math.hypot(width, height) * (1 + 2 * MAX_SHIFT))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(0, 360), 1.0)
    matrix[:, 2] += np.array([side - width, side - height]) / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * (
        width,
        height,
    )
    border = cv2.BORDER_REPLICATE if interpolation == cv2.INTER_LINEAR else cv2.BORDER_CONSTANT
    return cv2.warpAffine(picture, matrix, (side, side), flags=interpolation, borderMode=border)


def make_twin(data: DataSet, folder: Path) -> Path:
    """Write a data set's turned twin as an MVTec tree, unless it is there."""
    marker = folder / "complete"
    if not marker.exists():
        for number, sample in enumerate(data.samples):
            _write_twin(sample, data, folder, number)
        marker.touch()
    return folder


def _write_twin(sample: Sample, data: DataSet, folder: Path, number: int) -> None:
    """Write the twin of one image and of its mask, turned alike."""
    seed = [zlib.crc32(sample.category.encode()), number]
    relative = sample.image.relative_to(data.root).with_suffix(".png")
    (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    image = read_image(sample.image)
    write_image(folder / relative, turn_picture(image, np.random.default_rng(seed), interpolation=cv2.INTER_LINEAR))
    if sample.mask is not None:
        mask = read_mask(sample.mask, size=(image.shape[1], image.shape[0])).astype(np.uint8) * 255
        path = (folder / sample.mask.relative_to(data.root)).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, turn_picture(mask, np.random.default_rng(seed), interpolation=cv2.INTER_NEAREST))


def open_set(name: str, model: str, changes: list[str], twins: Path | None) -> DataSet:
    """Open a development set, or its turned twin."""
    recipe = load_recipe(model, changes)
    root = Path(os.environ.get("INSPECT_KD_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    folder, group = SETS[name]
    data = open_for_recipe(root / folder, recipe, group=group)
    if twins is None:
        return data.only(name)
    return open_for_recipe(make_twin(data, twins / folder), recipe, group=group).only(name)


def measure(name: str, arm: str, model: str, out: Path, *, turned: bool) -> dict[str, Any] | None:
    """Train and measure one row; None where `auto` presents the images as `none` does."""
    changes = ARMS[arm]
    data = open_set(name, model, changes, out / "twins" if turned else None)
    recipe = load_recipe(model, changes)
    if arm == "auto" and _changes_nothing(fit_to_training_images(recipe, data, NoProgress())):
        return None
    folder = RunFolder(out / model / ("turned" if turned else "as_is") / f"{name}-{arm}")
    if not folder.is_complete:
        with show_progress() as progress:
            job = Job(recipe=recipe, data=data, folder=folder, hardware=Hardware(), progress=progress)
            pipeline.train(job, resume=folder.checkpoint.is_file())
    manifest = json.loads(folder.manifest.read_text())
    return {
        "presentation": manifest["presentations"][name],
        "metrics": manifest["metrics"][name],
        "decisions": manifest["decisions"][name],
        "promise": manifest["promises"][name],
        "not_found": manifest.get("not_found", {}).get(name),
        "train_seconds": manifest["train_seconds"],
        "commit": json.loads(folder.environment.read_text())["commit"],
    }


def _changes_nothing(presentations: Presentations) -> bool:
    """Whether all pictures are squashed as a whole, without alignment."""
    view = presentations.common_view
    return view is not None and view.tile is None


def page(content: Content) -> str:
    machine = content["environment"]
    command = f"python -m benchmarks.{machine['command'].replace('.py', '', 1)}"
    lines = [
        "# Alignment and tiles, on the development sets and their turned twins",
        "",
        f"Written by `{command}`, {machine['started'][:10]}, model `{content['model']}`, one category at a time. "
        "`none`: pictures as they are, squashed. `auto`: the defaults `data.align=auto data.tile=auto`. "
        "OK / defective: defective parts that pass.",
        "",
        "| set | pictures | arm | align | tile | "
        + " | ".join(METRICS.values())
        + " | OK / defective | NG / sound (promise) |",
        "|---|---|---|---|---|" + "---|" * (len(METRICS) + 2),
    ]
    for name, kinds in content["sets"].items():
        for kind, arms in kinds.items():
            for arm, row in arms.items():
                lines.append(_row(name, kind, arm, row or arms["none"], same=row is None))
    missing = [name for name in SETS if name not in content["sets"]]
    if missing:
        lines += ["", f"Not measured yet with this model: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _row(name: str, kind: str, arm: str, row: dict[str, Any], *, same: bool) -> str:
    values = [row["metrics"][metric] for metric in METRICS]
    cells = [f"{value:.3f}" if isinstance(value, float) else "–" for value in values]
    sound, defective = row["decisions"]["sound"], row["decisions"]["defective"]
    presentation = row["presentation"]
    return (
        f"| {name} | {kind} | {arm}{' (as `none`)' if same else ''} | {presentation['align']} | {presentation['tile'] or '–'} | "
        f"{' | '.join(cells)} | {defective['OK']} / {sum(defective.values())} | "
        f"{sound['NG']} / {sum(sound.values())} (≤ {100 * row['promise']['reject']:.1f} %) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "presentation")
    arguments = parser.parse_args()
    content = load_results("presentation")
    sets = content.get("sets", {}) if content.get("model") == arguments.model else {}
    for name in arguments.only:
        sets[name] = {
            kind: {arm: measure(name, arm, arguments.model, arguments.out, turned=kind == "turned") for arm in ARMS}
            for kind in ("as they are", "turned")
        }
        publish("presentation", {"environment": environment("cpu"), "model": arguments.model, "sets": sets}, page)


if __name__ == "__main__":
    main()
