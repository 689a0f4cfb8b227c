"""Start a student's training: from scratch, from another run's fit, or where an interrupted training stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from inspect_kd import licences
from inspect_kd.datasets.batches import ImagePair, Sweep, TrainingImages, batches
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Student
from inspect_kd.training import checkpoint
from inspect_kd.training.job import Job
from inspect_kd.training.metrics_log import begin_log
from inspect_kd.training.real_parts import RealParts
from inspect_kd.training.run import begin_run, build_student, read_environment, sources_of
from inspect_kd.training.warm_start import copy_fit

STATISTICS_IMAGES = 1536
"""Images whose features give a student its statistics and prototypes before the first step; more than most sets have."""


@dataclass(kw_only=True, slots=True)
class StudentTraining:
    """A student in training, its optimizer, and how far they have come."""

    student: Student
    optimizer: Optimizer
    state: checkpoint.TrainingState
    best: dict[str, Tensor]
    """Copies of the student's weights at `state.best_step`, by name; empty before the first measurement."""


def start_training(
    job: Job, images: TrainingImages, real: RealParts, fabric: Fabric, *, resume: bool
) -> StudentTraining:
    """Build the student, and load the state from which its training starts or resumes."""
    settings, folder = job.recipe.fit, job.folder
    torch.manual_seed(settings.seed)
    student = build_student(job.recipe).to(memory_format=torch.channels_last)
    licences.check(job.recipe.profile, {source.name: source.licence for source in sources_of(student)})
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if resume and folder.checkpoint.is_file():
        training = _resume(job, student, optimizer)
        # Only the first of several processes has read the real parts.
        if fabric.is_global_zero and training.state.real != real.digest:
            raise BadInput(
                f"{folder.path}: labelled or unlabelled parts have changed since the training began; choose another --name"
            )
    else:
        training = _begin(job, student, optimizer, images, real)
        if fabric.is_global_zero:
            begin_run(folder, job.recipe, str(fabric.device))
    if fabric.is_global_zero:
        begin_log(folder.metrics, training.state.step)
    fabric.barrier()
    return training


def _resume(job: Job, student: Student, optimizer: Optimizer) -> StudentTraining:
    path = job.folder.checkpoint
    read_environment(job.folder.environment)  # the report needs it: refuse an unreadable one before training
    # Read first: with another recipe the weights differ too, and an error about the recipe is clearer.
    state = checkpoint.read_state(path)
    if state.recipe != job.recipe.digest():
        raise UsageError(
            f"{job.folder.path}: begun with another recipe; resume without --set, or choose another --name"
        )
    if state.data != job.data.digest:
        raise BadInput(f"{job.folder.path}: the data set has changed since the training began; choose another --name")
    is_in_fit = state.stage == checkpoint.FIT
    state, best = checkpoint.load(path, student, optimizer if is_in_fit else None)
    where = f" of {job.recipe.fit.steps}" if is_in_fit else f", {state.stage}"
    job.progress.note(f"resuming at step {state.step}{where}")
    return StudentTraining(student=student, optimizer=optimizer, state=state, best=best)


def _begin(
    job: Job, student: Student, optimizer: Optimizer, images: TrainingImages, real: RealParts
) -> StudentTraining:
    state = checkpoint.TrainingState(recipe=job.recipe.digest(), data=job.data.digest, real=real.digest)
    if job.recipe.distill.start:
        copy_fit(job, job.recipe.distill.start, student)
        state.stage = checkpoint.FITTED
    else:
        batches_B3HW, weights = tee(_statistics_batches(job, images))
        student.fit_statistics((pair.clean_B3HW for pair in batches_B3HW), (pair.weights_B1HW for pair in weights))
    return StudentTraining(student=student, optimizer=optimizer, state=state, best={})


def _statistics_batches(job: Job, images: TrainingImages) -> Iterator[ImagePair]:
    settings, tiled = job.recipe.fit, job.presentations.has_tiles
    sweep = Sweep(
        images.store.samples, max_images=STATISTICS_IMAGES, repeat=tiled, batch=settings.batch, seed=settings.seed
    )
    return batches(images, sweep, workers=0)
