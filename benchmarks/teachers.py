"""Measure the teachers on real parts, and what each of their pieces is worth. Writes docs/results/teachers.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.teachers [--only tile] [--teacher spt]

Each teacher is trained for one category, on its sound parts; real defects only measure it. A quarter of an hour a category on two
cores. Categories and teachers that are not named stay as published.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.real_data import SETS, load
from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.images import read_image
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

FULL = 512
"""Side of the images from which the enlarged places (R1) are cut."""
FEW = (4, 8, 16)
VARIANTS = 16
"""Of each sound part that a teacher was not trained on, half of them damaged."""
SEEDS = 3
"""Draws of random sentences."""
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1max")
ABOUT = {
    "no image": "not trained, without statistics of any image",
    "plain": f"no prompt learned: similarity with random sentences, mean of {SEEDS}",
    "linear": "sentences learned on drawn defects, without the channels' deviations",
    "learnt": "sentences learned on drawn defects",
    "shared": "and patches that look alike share their heat (R2)",
    "closer": "and suspicious places are enlarged and predicted again (R1): the whole teacher",
    "guide": "the guide of the row below, trained for as long",
    "spt": "the tuned SAM, prompted by the guide",
    **{f"{n} parts": f"the whole teacher, trained on {n} sound parts" for n in FEW},
}


class RefinedTeacher:
    """A teacher as a model to be measured: its refined map of full images, the score of its first pass."""

    size = FULL

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher.eval()

    def predict_batch(self, images_NHW3: np.ndarray) -> BatchPrediction:
        images, side = list(images_NHW3), self.teacher.size
        small = np.stack([resize(image, side, side) for image in images])
        with torch.no_grad():
            scores = self.teacher(torch.from_numpy(small).permute(0, 3, 1, 2).float()).score_B
        return BatchPrediction(scores.numpy(), self.teacher.predict(images).heatmap_B1HW[:, 0].numpy())


def with_switches(teacher: clip_ada.ClipAdaTeacher, **changes: Any) -> clip_ada.ClipAdaTeacher:
    """The same teacher, its weights shared, with other switches."""
    other = clip_ada.ClipAdaTeacher.__new__(clip_ada.ClipAdaTeacher)
    other.__dict__ = dict(teacher.__dict__)
    other.settings = replace(teacher.settings, **changes)
    return other


def measured(teacher: Teacher, data: DataSet) -> dict[str, Any]:
    found = measures_to_json(
        measure(predict_samples(RefinedTeacher(teacher), data.select(Split.TEST), View(size=FULL)))
    )
    return {name: found["mean"][name] for name in COLUMNS}


def averaged(teacher: clip_ada.ClipAdaTeacher, data: DataSet) -> dict[str, Any]:
    """Mean over draws of random sentences: a single draw may point anywhere."""
    draws, random = [], with_switches(teacher, closer=False, affinity_steps=0)
    for seed in range(SEEDS):
        assert random.prompts is not None
        random.prompts.begin(seed)
        random.fold()
        draws.append(measured(random, data))
    return {name: float(np.mean([draw[name] for draw in draws])) for name in COLUMNS}


def as_clip(teacher: Teacher) -> clip_ada.ClipAdaTeacher:
    assert isinstance(teacher, clip_ada.ClipAdaTeacher)
    return teacher


def trained(model: str, changes: list[str], data: DataSet, folder: Path, progress: Progress) -> tuple[Job, Teacher]:
    recipe = resolve_recipe(load_recipe(model, changes))
    job = Job(recipe=recipe, data=data, folder=RunFolder(folder), hardware=Hardware(), progress=progress)
    torch.manual_seed(recipe.fit.seed)
    teacher = build_teacher(recipe)
    begin_run(job.folder, recipe, "cpu")
    fit_teacher(job, teacher, open_teacher_dataset(job, teacher))
    return job, teacher


def clip_figures(data: DataSet, folder: Path, progress: Progress) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    linear = trained("clip_ada_local", ["teacher.deviations=false"], data, folder / "linear", progress)[1]
    figures["linear"] = measured(with_switches(as_clip(linear), closer=False, affinity_steps=0), data)
    figures["no image"] = averaged(as_clip(build_teacher(resolve_recipe(load_recipe("clip_ada_local")))), data)
    figures["plain"] = averaged(
        as_clip(trained("clip_ada_local", ["teach.epochs=0"], data, folder / "plain", progress)[1]), data
    )
    teacher = as_clip(trained("clip_ada_local", [], data, folder / "whole", progress)[1])
    figures["learnt"] = measured(with_switches(teacher, closer=False, affinity_steps=0), data)
    figures["shared"] = measured(with_switches(teacher, closer=False), data)
    figures["closer"] = measured(with_switches(teacher, closer=True), data)
    for parts in FEW:
        # As many samples as of sixteen parts in 32 variants: fewer parts are shown more often.
        changes = [f"teach.parts={parts}", f"teach.variants={512 // parts}"]
        figures[f"{parts} parts"] = measured(
            trained("clip_ada_local", changes, data, folder / f"{parts}", progress)[1], data
        )
    return figures


def spt_figures(data: DataSet, folder: Path, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics of guide and SAM, and figures of SAM's masks on drawn defects and sound parts."""
    job, teacher = trained("sam_spt_tiny", [], data, folder / "spt", progress)
    assert isinstance(teacher, sam_spt.SamSptTeacher)
    drawn = validate_teacher(job, teacher, variants=VARIANTS)
    sound = [read_image(s.image) for s in data.select(Split.TEST) if not s.defective]
    asked, accepted = [], []
    for image in sound:
        tokens_BChw = teacher.guide.predict([image]).tokens_BChw
        asked.append(bool((teacher.guide.heat(tokens_BChw) > teacher.guide.region_threshold).any()))
        accepted.append(bool(teacher.accepted_masks(image, tokens_BChw[0])))
    drawn |= {"asked_on_sound": float(np.mean(asked)), "drawn_on_sound": float(np.mean(accepted))}
    return {"guide": measured(teacher.guide, data), "spt": measured(teacher, data)}, drawn


def page(content: Content) -> str:
    machine, results = content["environment"], content["categories"]
    names = list(results)
    lines = [
        "# What the teachers are worth",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, {machine['cores']} CPU cores; the commit of each part is "
        "below it. Both teachers are stand-ins: `clip_ada_local` uses an ImageNet MobileNetV2, `sam_spt_tiny` a SAM of half a million "
        "parameters that was trained on drawn scenes. Weights of CLIP and SAM were not available, and nothing here says what those would "
        "reach. Each category alone, one seed. A cell: image AUROC / pixel AUROC / pixel AP / pixel "
        "F1max. There is no V-V path, which needs attention: this tower has none.",
        "",
        "| teacher | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for variant, about in ABOUT.items():
        cells = [_cell(results[name]["figures"].get(variant)) for name in names]
        lines.append(f"| {variant} | {about} | " + " | ".join(cells) + " |")
        if variant == "learnt":
            gains = [_gain(results[name]["figures"], "plain", "learnt") for name in names]
            lines.append("| | gain of learning over random sentences | " + " | ".join(gains) + " |")
    lines.append(_commits("clip", results))
    lines += ["", "## Self-perception tuning", "", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, about in {
        "draft_iou": "drawn defects: IoU of the draft",
        "final_iou": "of the final mask",
        "draft_boundary_iou": "boundary IoU of the draft",
        "final_boundary_iou": "of the final mask",
        "boxed_draft_iou": "prompted with box and points alone, as published: IoU of the draft",
        "boxed_final_iou": "of the final mask",
        "found_masks": "share of drawn defects with an accepted mask",
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


def _gain(figures: dict[str, dict[str, float]], before: str, after: str) -> str:
    if before not in figures or after not in figures:
        return "–"
    return " / ".join(f"{figures[after][column] - figures[before][column]:+.3f}" for column in COLUMNS)


def _cell(figures: dict[str, float] | None) -> str:
    return "–" if figures is None else " / ".join(f"{figures[column]:.3f}" for column in COLUMNS)


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
            data, folder = load([name], "clip_ada_local"), arguments.out / name
            category = results.setdefault(name, {"figures": {}, "spt": {}})
            if arguments.teacher != "spt":
                category["figures"] |= clip_figures(data, folder, progress)
                category["clip_commit"] = commit
            if arguments.teacher != "clip":
                rows, category["spt"] = spt_figures(data, folder, progress)
                category["figures"] |= rows
                category["spt_commit"] = commit
            kept = {name: results[name] for name in SETS if name in results}
            publish("teachers", {"environment": environment("cpu"), "categories": kept}, page)


if __name__ == "__main__":
    main()
