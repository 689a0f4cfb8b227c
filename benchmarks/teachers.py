"""What the teachers are worth on real parts, and each of their pieces. Writes docs/results/teachers.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python benchmarks/teachers.py [--only tile] [--teacher spt]

Each category is studied alone, its sound parts only; real defects are for measuring. A quarter of an hour a category on two
cores. What is not asked for stays on the page as it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_data import RESULTS, SETS, load

from inspect_kd.cli.progress import show_progress
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.view import View
from inspect_kd.evaluate import measure, measures_to_json, predict_samples
from inspect_kd.models.base import Teacher
from inspect_kd.models.teachers import clip_ada, sam_spt
from inspect_kd.resize import resize
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.job import Job
from inspect_kd.train.run import RunFolder, begin_run, build_teacher, environment, resolved
from inspect_kd.train.teach import fit_teacher, open_teacher_dataset, validate_teacher
from inspect_kd.types import BatchPrediction, Progress, Split

FULL = 512
"""Side of the images as they lie here: what a closer look is cut from."""
FEW = (4, 8, 16)
VARIANTS = 16
"""Of each sound part that a teacher has not studied, half of them damaged."""
SEEDS = 3
"""Sentences that mean nothing: as many draws."""
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_f1max")
ABOUT = {
    "no image": "nothing studied, not one image seen",
    "plain": f"no prompt learnt: plain similarity with sentences that mean nothing, mean of {SEEDS}",
    "linear": "sentences learnt on drawn defects, without the channels' deviations",
    "learnt": "sentences learnt on drawn defects",
    "shared": "and patches that look alike share their heat (R2)",
    "closer": "and suspicious places are looked at again (R1): the whole teacher",
    "guide": "the guide of the row below, which studied for as long as it",
    "spt": "SAM, tuned, draws what the guide has seen",
    **{f"{n} parts": f"the whole teacher, having seen {n} sound parts" for n in FEW},
}


class Looking:
    """A teacher's door as a model to be measured: images as they lie, its refined map, the score of its first look."""

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
    found = measures_to_json(measure(predict_samples(Looking(teacher), data.select(Split.TEST), View(size=FULL))))
    return {name: found["mean"][name] for name in COLUMNS}


def averaged(teacher: clip_ada.ClipAdaTeacher, data: DataSet) -> dict[str, Any]:
    """Over sentences that mean nothing: one draw may point anywhere."""
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


def taught(model: str, changes: list[str], data: DataSet, folder: Path, progress: Progress) -> tuple[Job, Teacher]:
    recipe = resolved(load_recipe(model, changes))
    job = Job(recipe=recipe, data=data, folder=RunFolder(folder), hardware=Hardware(), progress=progress)
    torch.manual_seed(recipe.fit.seed)
    teacher = build_teacher(recipe)
    begin_run(job.folder, recipe, "cpu")
    fit_teacher(job, teacher, open_teacher_dataset(job, teacher))
    return job, teacher


def clip_figures(data: DataSet, folder: Path, progress: Progress) -> dict[str, Any]:
    told: dict[str, Any] = {}
    linear = taught("clip_ada_local", ["teacher.deviations=false"], data, folder / "linear", progress)[1]
    told["linear"] = measured(with_switches(as_clip(linear), closer=False, affinity_steps=0), data)
    told["no image"] = averaged(as_clip(build_teacher(resolved(load_recipe("clip_ada_local")))), data)
    told["plain"] = averaged(
        as_clip(taught("clip_ada_local", ["teach.epochs=0"], data, folder / "plain", progress)[1]), data
    )
    teacher = as_clip(taught("clip_ada_local", [], data, folder / "whole", progress)[1])
    told["learnt"] = measured(with_switches(teacher, closer=False, affinity_steps=0), data)
    told["shared"] = measured(with_switches(teacher, closer=False), data)
    told["closer"] = measured(with_switches(teacher, closer=True), data)
    for parts in FEW:
        # As many lessons as sixteen parts in 32 variants: fewer parts are shown more often.
        changes = [f"teach.parts={parts}", f"teach.variants={512 // parts}"]
        told[f"{parts} parts"] = measured(
            taught("clip_ada_local", changes, data, folder / f"{parts}", progress)[1], data
        )
    return told


def spt_figures(data: DataSet, folder: Path, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows of guide and SAM, and what SAM does with drawn defects and sound parts."""
    job, teacher = taught("sam_spt_tiny", [], data, folder / "spt", progress)
    assert isinstance(teacher, sam_spt.SamSptTeacher)
    drawn = validate_teacher(job, teacher, variants=VARIANTS)
    sound = [read_image(s.image) for s in data.select(Split.TEST) if not s.defective]
    asked, accepted = [], []
    for image in sound:
        tokens_BChw = teacher.guide.predict([image]).tokens_BChw
        asked.append(bool((teacher.guide.heat(tokens_BChw) > teacher.guide.suspicious).any()))
        accepted.append(bool(teacher.accepted_masks(image, tokens_BChw[0])))
    drawn |= {"asked_on_sound": float(np.mean(asked)), "drawn_on_sound": float(np.mean(accepted))}
    return {"guide": measured(teacher.guide, data), "spt": measured(teacher, data)}, drawn


def write(results: dict[str, dict[str, Any]]) -> None:
    machine = environment("cpu")
    path = RESULTS / "teachers.json"
    path.write_text(json.dumps({"environment": machine, "categories": results}, indent=1) + "\n")
    names = list(results)
    lines = [
        "# What the teachers are worth",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, {machine['cores']} CPU cores; the commit of each part "
        "stands below it. Both teachers are stand-ins: `clip_ada_local` sees with an ImageNet MobileNetV2, `sam_spt_tiny` draws with a "
        "SAM of half a million numbers that was taught on drawn scenes. Real CLIP and SAM weights were not at hand; nothing "
        "here says what they would do. Each category alone, one seed. A cell: image AUROC / pixel AUROC / pixel AP / pixel "
        "F1max. A V-V path needs attention, which this tower has not.",
        "",
        "| teacher | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for variant, about in ABOUT.items():
        cells = [_cell(results[name]["figures"].get(variant)) for name in names]
        lines.append(f"| {variant} | {about} | " + " | ".join(cells) + " |")
        if variant == "learnt":
            gains = [_gain(results[name]["figures"], "plain", "learnt") for name in names]
            lines.append("| | what learning is worth over plain similarity | " + " | ".join(gains) + " |")
    lines.append(_commits("clip", results))
    lines += ["", "## Self-perception tuning", "", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for key, about in {
        "draft_iou": "drawn defects: IoU of the draft",
        "final_iou": "of the final mask",
        "draft_boundary_iou": "boundary IoU of the draft",
        "final_boundary_iou": "of the final mask",
        "boxed_draft_iou": "asked with box and points alone, as published: IoU of the draft",
        "boxed_final_iou": "of the final mask",
        "found_masks": "share of drawn defects with an accepted mask",
        "false_masks": "share of boxes on untouched parts with an accepted mask",
        "asked_on_sound": "share of real sound test parts on which SAM is asked at all",
        "drawn_on_sound": "share of real sound test parts with an accepted mask",
    }.items():
        cells = [f"{results[name]['spt'][key]:.3f}" if key in results[name]["spt"] else "–" for name in names]
        lines.append(f"| {about} | " + " | ".join(cells) + " |")
    lines.append(_commits("spt", results))
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


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
    parser.add_argument("--teacher", choices=["clip", "spt"], help="one of them alone")
    parser.add_argument("--out", type=Path, default=RESULTS.parents[1] / "runs" / "teachers")
    arguments = parser.parse_args()
    kept = RESULTS / "teachers.json"
    results = json.loads(kept.read_text())["categories"] if kept.is_file() else {}
    commit = environment("cpu")["commit"]
    with show_progress() as progress:
        for name in arguments.only:
            data, folder = load([name], "clip_ada_local"), arguments.out / name
            told = results.setdefault(name, {"figures": {}, "spt": {}})
            if arguments.teacher != "spt":
                told["figures"] |= clip_figures(data, folder, progress)
                told["clip_commit"] = commit
            if arguments.teacher != "clip":
                rows, told["spt"] = spt_figures(data, folder, progress)
                told["figures"] |= rows
                told["spt_commit"] = commit
            write({name: results[name] for name in SETS if name in results})
    print((RESULTS / "teachers.md").read_text())


if __name__ == "__main__":
    main()
