"""Measure the teachers on real parts, whole and without some of their components. Writes docs/results/teachers.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.teachers [--only tile] [--teacher spt]

Each teacher is trained for one category, on its sound parts; real defects are used only to measure it. A category takes a quarter of
an hour on two cores. Categories and teachers that are not named stay as published.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.view import View
from inspect_kd.evaluate import measure, measures_to_json, predict_samples
from inspect_kd.models.base import Teacher
from inspect_kd.models.teachers import clip_ada, sam_spt
from inspect_kd.progress_display import show_progress
from inspect_kd.resize import resize
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, begin_run, build_teacher, environment, resolve_recipe
from inspect_kd.training.teach import fit_teacher, open_teacher_dataset, validate_teacher
from inspect_kd.types import BatchPrediction, Progress, Split

FULL_SIDE = 512
"""Side of the images from which suspicious regions are cropped and enlarged."""
PART_COUNTS = (4, 8, 16)
SAMPLES_PER_PART = 16
"""Samples made from each sound part that a teacher was not trained on; half of them have a synthetic defect."""
SEEDS = 3
"""Number of random pairs of sentences whose metrics are averaged."""
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1max")
# Stored key of a row → its name in the table, where a plainer one was found later.
ROW_NAMES = {"no image": "no statistics", "linear": "no deviations"}
# Stored key of a row → description.
ABOUT = {
    "no image": f"random sentences, mean of {SEEDS}; no statistics of sound parts",
    "plain": f"random sentences, mean of {SEEDS}; with the statistics of sound parts",
    "linear": "sentences learned on synthetic defects, without the channels' deviations",
    "learnt": "sentences learned on synthetic defects",
    "shared": "and patches that look alike share their heat",
    "closer": "and suspicious regions are enlarged and predicted again: the whole teacher",
    "guide": "the guide of the row below, alone",
    "spt": "the tuned SAM, prompted by the guide",
    **{f"{n} parts": f"the whole teacher, trained on {n} sound parts" for n in PART_COUNTS},
}


class RefinedTeacher:
    """Gives a teacher the interface of an inspection model: the heatmap is refined on full images, the score is that of the first pass."""

    size = FULL_SIDE

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher.eval()

    def predict_batch(self, images_NHW3: np.ndarray) -> BatchPrediction:
        images, side = list(images_NHW3), self.teacher.size
        small = np.stack([resize(image, side, side) for image in images])
        with torch.no_grad():
            scores = self.teacher(torch.from_numpy(small).permute(0, 3, 1, 2).float()).score_B
        return BatchPrediction(scores.numpy(), self.teacher.predict(images).heatmap_B1HW[:, 0].numpy())


def with_settings(teacher: clip_ada.ClipAdaTeacher, **changes: Any) -> clip_ada.ClipAdaTeacher:
    """Copy a teacher with other settings; the copy shares its weights."""
    copied = clip_ada.ClipAdaTeacher.__new__(clip_ada.ClipAdaTeacher)
    copied.__dict__ = dict(teacher.__dict__)
    copied.settings = replace(teacher.settings, **changes)
    return copied


def measure_teacher(teacher: Teacher, data: DataSet) -> dict[str, Any]:
    metrics = measures_to_json(
        measure(
            predict_samples(RefinedTeacher(teacher), data.select(Split.TEST), Presentations.plain(View(size=FULL_SIDE)))
        )
    )
    return {name: metrics["mean"][name] for name in COLUMNS}


def measure_random_sentences(teacher: clip_ada.ClipAdaTeacher, data: DataSet) -> dict[str, Any]:
    """Average over several random pairs of sentences, since the direction between the vectors of one random pair is arbitrary."""
    metrics, untrained = [], with_settings(teacher, closer=False, affinity_steps=0)
    for seed in range(SEEDS):
        assert untrained.prompts is not None
        untrained.prompts.reset(seed)
        untrained.store_vectors()
        metrics.append(measure_teacher(untrained, data))
    return {name: float(np.mean([values[name] for values in metrics])) for name in COLUMNS}


def as_clip(teacher: Teacher) -> clip_ada.ClipAdaTeacher:
    assert isinstance(teacher, clip_ada.ClipAdaTeacher)
    return teacher


def train_teacher(
    model: str, changes: list[str], data: DataSet, folder: Path, progress: Progress
) -> tuple[Job, Teacher]:
    recipe = resolve_recipe(load_recipe(model, changes))
    job = Job(recipe=recipe, data=data, folder=RunFolder(folder), hardware=Hardware(), progress=progress)
    torch.manual_seed(recipe.fit.seed)
    teacher = build_teacher(recipe)
    begin_run(job.folder, recipe, "cpu")
    fit_teacher(job, teacher, open_teacher_dataset(job, teacher))
    return job, teacher


def measure_clip(data: DataSet, folder: Path, progress: Progress) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    without_deviations = train_teacher(
        "clip_ada_local", ["teacher.deviations=false"], data, folder / "linear", progress
    )[1]
    metrics["linear"] = measure_teacher(
        with_settings(as_clip(without_deviations), closer=False, affinity_steps=0), data
    )
    metrics["no image"] = measure_random_sentences(
        as_clip(build_teacher(resolve_recipe(load_recipe("clip_ada_local")))), data
    )
    metrics["plain"] = measure_random_sentences(
        as_clip(train_teacher("clip_ada_local", ["teach.epochs=0"], data, folder / "plain", progress)[1]), data
    )
    teacher = as_clip(train_teacher("clip_ada_local", [], data, folder / "whole", progress)[1])
    metrics["learnt"] = measure_teacher(with_settings(teacher, closer=False, affinity_steps=0), data)
    metrics["shared"] = measure_teacher(with_settings(teacher, closer=False), data)
    metrics["closer"] = measure_teacher(with_settings(teacher, closer=True), data)
    for parts in PART_COUNTS:
        # 512 samples each time, so fewer parts are repeated more often.
        changes = [f"teach.parts={parts}", f"teach.variants={512 // parts}"]
        metrics[f"{parts} parts"] = measure_teacher(
            train_teacher("clip_ada_local", changes, data, folder / f"{parts}", progress)[1], data
        )
    return metrics


def measure_spt(data: DataSet, folder: Path, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics of guide and SAM, and metrics of SAM's masks on synthetic defects and sound parts."""
    job, teacher = train_teacher("sam_spt_tiny", [], data, folder / "spt", progress)
    assert isinstance(teacher, sam_spt.SamSptTeacher)
    mask_metrics = validate_teacher(job, teacher, variants=SAMPLES_PER_PART)
    sound = [read_image(s.image) for s in data.select(Split.TEST) if not s.defective]
    is_prompted, has_mask = [], []
    for image in sound:
        tokens_BChw = teacher.guide.predict([image]).tokens_BChw
        is_prompted.append(bool((teacher.guide.heat(tokens_BChw) > teacher.guide.region_threshold).any()))
        has_mask.append(bool(teacher.accepted_masks(image, tokens_BChw[0])))
    # Stored keys: the shares of sound parts on which SAM is prompted ("asked"), and on which it has an accepted mask ("drawn").
    mask_metrics |= {"asked_on_sound": float(np.mean(is_prompted)), "drawn_on_sound": float(np.mean(has_mask))}
    return {"guide": measure_teacher(teacher.guide, data), "spt": measure_teacher(teacher, data)}, mask_metrics


def page(content: Content) -> str:
    machine, results = content["environment"], content["categories"]
    names = list(results)
    lines = [
        "# What the teachers are worth",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, {machine['cores']} CPU cores; the commits are in the last row of "
        "each table. Both teachers are stand-ins: `clip_ada_local` uses an ImageNet MobileNetV2, `sam_spt_tiny` a SAM of half a million "
        "parameters that was trained on drawn scenes. Weights of CLIP and SAM were not available, and nothing here says what those would "
        "reach. Each category alone, one seed. A cell: image AUROC / pixel AUROC / pixel AP / pixel "
        "F1max. There is no V-V path: it would need attention layers, which MobileNetV2 does not have.",
        "",
        "| teacher | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for row, about in ABOUT.items():
        cells = [_cell(results[name]["figures"].get(row)) for name in names]
        lines.append(f"| {ROW_NAMES.get(row, row)} | {about} | " + " | ".join(cells) + " |")
        if row == "learnt":
            gains = [_gain(results[name]["figures"], "plain", "learnt") for name in names]
            lines.append("| | gain of learning over random sentences | " + " | ".join(gains) + " |")
    lines.append(_commits("clip", results))
    lines += ["", "## Self-perception tuning", "", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, about in {
        "draft_iou": "synthetic defects: IoU of the draft",
        "final_iou": "of the final mask",
        "draft_boundary_iou": "boundary IoU of the draft",
        "final_boundary_iou": "of the final mask",
        "boxed_draft_iou": "prompted with box and points alone, as published: IoU of the draft",
        "boxed_final_iou": "of the final mask",
        "found_masks": "share of synthetic defects with an accepted mask",
        "false_masks": "share of boxes on untouched parts with an accepted mask",
        "asked_on_sound": "share of real sound test parts on which SAM is prompted at all",
        "drawn_on_sound": "share of real sound test parts with an accepted mask",
    }.items():
        cells = [f"{results[name]['spt'][key]:.3f}" if key in results[name]["spt"] else "–" for name in names]
        lines.append(f"| {about} | " + " | ".join(cells) + " |")
    lines.append(_commits("spt", results))
    return "\n".join(lines) + "\n"


def _commits(teacher: str, results: dict[str, dict[str, Any]]) -> str:
    about = "| | commit |" if teacher == "clip" else "| commit |"
    return f"{about} " + " | ".join(results[name].get(f"{teacher}_commit", "–") for name in results) + " |"


def _gain(metrics: dict[str, dict[str, float]], before: str, after: str) -> str:
    if before not in metrics or after not in metrics:
        return "–"
    return " / ".join(f"{metrics[after][column] - metrics[before][column]:+.3f}" for column in COLUMNS)


def _cell(metrics: dict[str, float] | None) -> str:
    return "–" if metrics is None else " / ".join(f"{metrics[column]:.3f}" for column in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--teacher", choices=["clip", "spt"], help="measure only this one")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "teachers")
    arguments = parser.parse_args()
    results = load_results("teachers").get("categories", {})
    commit = environment("cpu")["commit"]
    with show_progress() as progress:
        for name in arguments.only:
            data, folder = load_categories([name], "clip_ada_local"), arguments.out / name
            # Stored keys: "figures" has the rows of the first table, "spt" the metrics of SAM's masks.
            category = results.setdefault(name, {"figures": {}, "spt": {}})
            if arguments.teacher != "spt":
                category["figures"] |= measure_clip(data, folder, progress)
                category["clip_commit"] = commit
            if arguments.teacher != "clip":
                rows, category["spt"] = measure_spt(data, folder, progress)
                category["figures"] |= rows
                category["spt_commit"] = commit
            ordered = {name: results[name] for name in SETS if name in results}
            publish("teachers", {"environment": environment("cpu"), "categories": ordered}, page)


if __name__ == "__main__":
    main()
