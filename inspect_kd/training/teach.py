"""Train a teacher: adapt it to sound parts with synthetic defects, and validate it on parts that it was not trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from inspect_kd.config import Teach
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Teacher
from inspect_kd.training.job import Job
from inspect_kd.training.metrics_log import begin_log, open_log
from inspect_kd.training.real_parts import outlined_parts
from inspect_kd.training.teacher_data import TeacherDataset, real_samples
from inspect_kd.types import Sample, Split


def check_teacher_job(job: Job) -> None:
    """Refuse settings that only a student's training has."""
    if job.hardware.devices > 1 or job.hardware.precision != "32-true" or job.hardware.workers:
        raise UsageError(
            "a teacher is trained on one device, in 32 bit, and reads its images itself: leave --devices, --precision and "
            "--workers out"
        )
    if isinstance(job.recipe.data.tile, int):
        raise UsageError("data.tile: a teacher takes whole images; leave it out")


def open_teacher_dataset(job: Job, teacher: Teacher) -> TeacherDataset:
    """Sound parts with synthetic defects, and the real defects of `teach.labelled`."""
    recipe = job.recipe
    store = _open_images(job, teacher, job.data.select(Split.TRAIN))
    real = real_samples(
        outlined_parts(recipe.teach.labelled, job.data),
        job.presentations.resized(teacher.training_size),
        bits=recipe.data.bits,
    )
    return TeacherDataset(store, recipe.teach, recipe.data.flip, recipe.fit.seed, real)


def fit_teacher(job: Job, teacher: Teacher, dataset: TeacherDataset) -> int:
    """Train the teacher; log the metrics of each step that yields any. Returns the number of these steps."""
    settings = job.recipe.teach
    job.progress.phase("study", teacher.count_steps(len(dataset), epochs=settings.epochs, batch=settings.batch))
    step = 0
    begin_log(job.folder.metrics)
    with open_log(job.folder.metrics) as log:
        for metrics in teacher.fit(
            dataset,
            epochs=settings.epochs,
            batch=settings.batch,
            learning_rate=settings.learning_rate,
            seed=job.recipe.fit.seed,
        ):
            job.progress.advance(1, **metrics)
            if not metrics:
                continue
            step += 1
            if not all(map(math.isfinite, metrics.values())):
                raise BadInput(f"the loss became NaN or infinite at step {step}: lower teach.learning_rate")
            log.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in metrics.items()}}) + "\n")
    return step


def validate_teacher(job: Job, teacher: Teacher, variants: int = 2) -> dict[str, float]:
    """Measure the teacher on the validation split: each part `variants` times, half of them with a synthetic defect."""
    store = _open_images(job, teacher, job.data.select(Split.VALIDATION))
    dataset = TeacherDataset(store, Teach(variants=variants), "none", job.recipe.fit.seed)
    metrics = {name: round(value, 4) for name, value in teacher.eval().validate(dataset).items()}
    if metrics:
        job.progress.note(
            "on synthetic defects: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        )
    return metrics


def _open_images(job: Job, teacher: Teacher, samples: Sequence[Sample]) -> ImageStore:
    settings = job.recipe.data
    presentations = job.presentations.resized(teacher.training_size)
    return ImageStore(samples, presentations, bits=settings.bits, budget_mb=settings.cache_mb)
