"""teach(): from a recipe with a teacher and a data set to a run like a student's. A teacher studies sound parts only.

A stopped study is begun again: it takes minutes, and reaches the same numbers.
"""

from __future__ import annotations

import json
import time

import torch

from inspect_kd import licences
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Teacher
from inspect_kd.train.conclude import conclude
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.lessons import Lessons
from inspect_kd.train.run import RunFolder, build_teacher, open_folder, resolved, sources_of, view_of
from inspect_kd.types import Split, Watch


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
    conclude(
        recipe, data, folder, teacher, {"steps": steps, "licences": [s.licence for s in teacher.sources]}, began, watch
    )
    return folder


def study(teacher: Teacher, recipe: Recipe, data: DataSet, folder: RunFolder, watch: Watch) -> int:
    """Let it study; a line of metrics for each step that learnt something. Returns how many they were."""
    sound = data.select(Split.TRAIN)
    store = ImageStore(sound, view_of(recipe), bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)
    lessons = Lessons(store, recipe.teach, recipe.data.flip, recipe.fit.seed)
    settings = recipe.teach
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


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
