"""teach(): from a recipe with a teacher and a data set to a run like a student's. A teacher studies sound parts only.

A stopped study is begun again: it takes minutes, and reaches the same numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import torch

from inspect_kd import licences
from inspect_kd.config import Recipe, Teach
from inspect_kd.datasets import DataSet, outlined_defects
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Lesson, Teacher
from inspect_kd.train.conclude import conclude
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.lessons import Lessons, real_lessons
from inspect_kd.train.run import RunFolder, build_teacher, open_folder, resolved, sources_of, view_of
from inspect_kd.types import Sample, Split, Watch


def teach(recipe: Recipe, data: DataSet, folder: RunFolder, *, hardware: Hardware, watch: Watch) -> RunFolder:
    if hardware.devices > 1:
        raise UsageError("a teacher studies on one device; leave --devices out")
    began = time.monotonic()
    recipe = resolved(recipe)
    torch.manual_seed(recipe.fit.seed)
    teacher = build_teacher(recipe)
    licences.check(recipe.profile, {source.name: source.licence for source in sources_of(teacher)})
    fabric = hardware.fabric()
    open_folder(folder, recipe, str(fabric.device))
    teacher = teacher.to(fabric.device)
    steps = study(teacher, recipe, data, folder, watch)
    teacher.settle()
    facts = {"steps": steps, "examined": examine(teacher, recipe, data, watch)}
    conclude(recipe, data, folder, teacher, facts, began, watch)
    return folder


def study(teacher: Teacher, recipe: Recipe, data: DataSet, folder: RunFolder, watch: Watch) -> int:
    """Let it study; a line of metrics for each step that learnt something. Returns how many they were."""
    settings = recipe.teach
    store = _store(data.select(Split.TRAIN), recipe)
    lessons = Lessons(store, settings, recipe.data.flip, recipe.fit.seed, _labelled(recipe))
    watch.phase("study", teacher.steps(len(lessons), epochs=settings.epochs, batch=settings.batch))
    step = 0
    with folder.metrics.open("w", encoding="utf-8") as log:
        for figures in teacher.study(
            lessons,
            epochs=settings.epochs,
            batch=settings.batch,
            rate=settings.learning_rate,
            seed=recipe.fit.seed,
        ):
            watch.advance(1, **figures)
            if not figures:
                continue
            step += 1
            if not all(map(_finite, figures.values())):
                raise BadInput(f"the loss is no number any more at step {step}: lower teach.learning_rate")
            log.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in figures.items()}}) + "\n")
    return step


def examine(teacher: Teacher, recipe: Recipe, data: DataSet, watch: Watch) -> dict[str, float]:
    """What a teacher knows of drawn defects on sound parts that it has not studied."""
    unseen = Lessons(_store(data.select(Split.VALIDATION), recipe), Teach(variants=2), "none", recipe.fit.seed)
    figures = {name: round(value, 4) for name, value in teacher.eval().examine(unseen).items()}
    if figures:
        watch.say("on drawn defects: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def _store(samples: Sequence[Sample], recipe: Recipe) -> ImageStore:
    return ImageStore(samples, view_of(recipe), bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)


def _labelled(recipe: Recipe) -> list[Lesson]:
    if recipe.teach.labelled is None:
        return []
    real = real_lessons(outlined_defects(recipe.teach.labelled), recipe.data.size, recipe.data.bits)
    if not real:
        raise BadInput(f"teach.labelled: no defect with a mask in {recipe.teach.labelled}")
    return real


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
