"""teach(): from a recipe with a teacher and a data set to a run like a student's. A teacher studies sound parts only.

A stopped study is begun again: it takes minutes, and on a CPU it reaches the same numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import torch

from inspect_kd import licences
from inspect_kd.config import Recipe, Teach
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Teacher
from inspect_kd.train.finish import finish_run
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.metrics_log import begin_log, open_log
from inspect_kd.train.real_parts import outlined_parts
from inspect_kd.train.run import RunFolder, build_teacher, hold_run, open_folder, resolved, sources_of
from inspect_kd.train.teacher_data import TeacherDataset, real_samples
from inspect_kd.types import Progress, Sample, Split


def teach(recipe: Recipe, data: DataSet, folder: RunFolder, *, hardware: Hardware, progress: Progress) -> RunFolder:
    if hardware.devices > 1 or hardware.precision != "32-true" or hardware.workers:
        raise UsageError(
            "a teacher studies on one device, in 32 bit, and reads its images itself: leave --devices, --precision and --workers out"
        )
    if recipe.data.tile is not None:
        raise UsageError("data.tile: a teacher looks at whole images; leave it out")
    began = time.monotonic()
    recipe = resolved(recipe)
    torch.manual_seed(recipe.fit.seed)
    teacher = build_teacher(recipe)
    licences.check(recipe.profile, {source.name: source.licence for source in sources_of(teacher)})
    fabric = hardware.fabric()
    lessons = open_teacher_data(teacher, recipe, data)
    with hold_run(folder):
        open_folder(folder, recipe, str(fabric.device))
        steps = study(teacher.to(fabric.device), lessons, recipe, folder, progress)
        teacher.release_training_state()
        facts = {"steps": steps, "examined": examine(teacher, recipe, data, progress)}
        finish_run(recipe, data, folder, teacher, facts, began, progress)
    return folder


def open_teacher_data(teacher: Teacher, recipe: Recipe, data: DataSet) -> TeacherDataset:
    """Sound parts with drawn defects, and real defects where somebody has outlined some."""
    store = _store(teacher, data.select(Split.TRAIN), recipe)
    real = real_samples(outlined_parts(recipe.teach.labelled, data), teacher.training_size, recipe.data.bits)
    return TeacherDataset(store, recipe.teach, recipe.data.flip, recipe.fit.seed, real)


def study(teacher: Teacher, lessons: TeacherDataset, recipe: Recipe, folder: RunFolder, progress: Progress) -> int:
    """Let it study; a line of metrics for each step that learnt something. Returns how many they were."""
    settings = recipe.teach
    progress.phase("study", teacher.count_steps(len(lessons), epochs=settings.epochs, batch=settings.batch))
    step = 0
    begin_log(folder.metrics)
    with open_log(folder.metrics) as log:
        for figures in teacher.fit(
            lessons,
            epochs=settings.epochs,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            seed=recipe.fit.seed,
        ):
            progress.advance(1, **figures)
            if not figures:
                continue
            step += 1
            if not all(map(_finite, figures.values())):
                raise BadInput(f"the loss is no number any more at step {step}: lower teach.learning_rate")
            log.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in figures.items()}}) + "\n")
    return step


def examine(teacher: Teacher, recipe: Recipe, data: DataSet, progress: Progress, variants: int = 2) -> dict[str, float]:
    """What a teacher knows of drawn defects on sound parts that it has not studied; each is shown so often, half damaged."""
    store = _store(teacher, data.select(Split.VALIDATION), recipe)
    unseen = TeacherDataset(store, Teach(variants=variants), "none", recipe.fit.seed)
    figures = {name: round(value, 4) for name, value in teacher.eval().validate(unseen).items()}
    if figures:
        progress.note("on drawn defects: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def _store(teacher: Teacher, samples: Sequence[Sample], recipe: Recipe) -> ImageStore:
    view = View(size=teacher.training_size)
    return ImageStore(samples, view, bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
