"""Measure alignment and automatic tiles on the development sets and their turned twins. Writes docs/results/presentation.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.presentation [--model omni_ad] [--only alien …]

A turned twin is a data set whose every picture is turned by any angle and shifted by up to a tenth of its sides, on a larger canvas
into which its border is continued. Each set and each twin is trained with `data.align=none data.tile=null` and with the defaults
(`auto`); where `auto` changes nothing, its row repeats the other one's numbers. A complete run is not trained again. Beside it, the CPU
time from an image to model input, on one thread: of each row, and of both methods on images of 1024x1024.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.chunks import evenly_spread
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_for_recipe
from inspect_kd.datasets.alignment import Method, choose_alignment
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.view import View
from inspect_kd.progress_display import show_progress
from inspect_kd.training import pipeline
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.prepare_images import fit_to_training_images
from inspect_kd.training.run import RunFolder, environment, read_presentations
from inspect_kd.types import ImageU8, NoProgress, Sample, Split

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
COST_SETS: dict[Method, str] = {"silhouette": "alien", "template": "assembly"}
"""The set on whose parts each method's time is measured."""
COST_SIDE = 1024
LIMITS_MS = {"silhouette": 6, "template": 15}
TIMED_PARTS, ROUNDS = 10, 5
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


def measure(name: str, arm: str, model: str, out: Path, *, turned: bool) -> dict[str, Any]:
    """Train and measure one row; where `auto` presents the images as `none` does, only say so and why."""
    changes = ARMS[arm]
    data = open_set(name, model, changes, out / "twins" if turned else None)
    recipe = load_recipe(model, changes)
    if arm == "auto":
        presentations = fit_to_training_images(recipe, data, NoProgress())
        if _changes_nothing(presentations):
            return {"as_none": True, "presentation": presentations.summary()[name]}
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
        "present_ms": time_presentation(read_presentations(folder, recipe).of(name), read_parts(data, Split.TEST)),
        "commit": json.loads(folder.environment.read_text())["commit"],
    }


def read_parts(data: DataSet, split: Split) -> list[ImageU8]:
    """Read evenly chosen images of a split."""
    samples = data.select(split)
    return [read_image(samples[i].image) for i in evenly_spread(len(samples), TIMED_PARTS)]


def time_presentation(presentation: Presentation, images: Sequence[ImageU8]) -> float:
    """Median CPU time in milliseconds from an image to model input: finding the part, cutting its frame and resizing."""
    times = []
    for image in list(images) * ROUNDS:
        start = time.process_time()
        presentation.prepare(image).scaled()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def measure_cost(method: Method, model: str, out: Path) -> dict[str, Any]:
    """Fit a method to turned parts at COST_SIDE, and time it on them."""
    data = open_set(COST_SETS[method], model, ARMS["none"], out / "twins")
    size = (COST_SIDE, COST_SIDE)
    images = [
        np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.uint8)
        for each in read_parts(data, Split.TRAIN)
    ]
    view = View(size=load_recipe(model, []).data.size)
    alignment = choose_alignment(images, method).chosen.alignment
    return {
        "set": COST_SETS[method],
        "none_ms": time_presentation(Presentation(view=view), images),
        "aligned_ms": time_presentation(Presentation(view=view, alignment=alignment), images),
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
        "OK / defective: defective parts that pass. NG / sound: sound parts that are rejected, among them those that are not found. "
        "CPU ms: from an image of the set to model input, median.",
        "",
        "| set | pictures | arm | align | tile | "
        + " | ".join(METRICS.values())
        + " | OK / defective | NG / sound (promise) | of these not found | CPU ms |",
        "|---|---|---|---|---|" + "---|" * (len(METRICS) + 4),
    ]
    for name, kinds in content["sets"].items():
        for kind, arms in kinds.items():
            for arm, row in arms.items():
                as_none = row.get("as_none", False)
                lines.append(_row(name, kind, arm, arms["none"] if as_none else row, same=as_none))
    lines += ["", "What `auto` chose, and why:", ""]
    for name, kinds in content["sets"].items():
        for kind, arms in kinds.items():
            lines.append(f"- {name}, {kind}: {'. '.join(arms['auto']['presentation']['reasons'])}.")
    missing = [name for name in SETS if name not in content["sets"]]
    if missing:
        lines += ["", f"Not measured yet with this model: {', '.join(missing)}."]
    lines += [
        "",
        f"From an image of {COST_SIDE}x{COST_SIDE} to model input, median CPU time on one thread (processor with "
        f"{content['vectors']}), fitted to the turned twin:",
        "",
        "| method | set | squashed as it is | aligned and cut | added | limit |",
        "|---|---|---|---|---|---|",
    ]
    for method, cost in content["cost"].items():
        lines.append(
            f"| {method} | {cost['set']} | {cost['none_ms']:.1f} ms | {cost['aligned_ms']:.1f} ms | "
            f"{cost['aligned_ms'] - cost['none_ms']:.1f} ms | {LIMITS_MS[method]} ms |"
        )
    return "\n".join(lines) + "\n"


def _row(name: str, kind: str, arm: str, row: dict[str, Any], *, same: bool) -> str:
    values = [row["metrics"][metric] for metric in METRICS]
    cells = [f"{value:.3f}" if isinstance(value, float) else "–" for value in values]
    sound, defective = row["decisions"]["sound"], row["decisions"]["defective"]
    presentation = row["presentation"]
    return (
        f"| {name} | {kind} | {arm}{' (as `none`)' if same else ''} | {presentation['align']} | {presentation['tile'] or '–'} | "
        f"{' | '.join(cells)} | {defective['OK']} / {sum(defective.values())} | "
        f"{sound['NG']} / {sum(sound.values())} (≤ {100 * row['promise']['reject']:.1f} %) | "
        f"{(row['not_found'] or {}).get('sound', 0)} | {row['present_ms']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "presentation")
    arguments = parser.parse_args()
    content = load_results("presentation")
    sets = content.get("sets", {}) if content.get("model") == arguments.model else {}
    cv2.setNumThreads(1)
    cost = {method: measure_cost(method, arguments.model, arguments.out) for method in COST_SETS}
    for name in arguments.only:
        sets[name] = {
            kind: {arm: measure(name, arm, arguments.model, arguments.out, turned=kind == "turned") for arm in ARMS}
            for kind in ("as they are", "turned")
        }
        facts = {
            "environment": environment("cpu"),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "model": arguments.model,
            "cost": cost,
        }
        publish("presentation", facts | {"sets": sets}, page)


if __name__ == "__main__":
    main()
