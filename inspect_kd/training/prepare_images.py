"""Decide once per training how each category's images are presented: aligned or not, whole or in tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inspect_kd import config
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.advice import Advice, advise
from inspect_kd.datasets.fit_presentation import fit_presentations, replace_zones
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.errors import UsageError, printable
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, read_presentations, write_presentations
from inspect_kd.types import Progress, Sample, Split


def prepare_images(job: Job, *, resume: bool, write: bool) -> Job:
    """Fit the presentations to the training images, or read those of the run from which this training starts or resumes."""
    start = job.recipe.distill.start
    if start is not None:
        earlier = RunFolder(Path(start))
        presentations = read_presentations(earlier, config.read_recipe(earlier.recipe))
        if job.recipe.data.zones is not None:
            presentations = replace_zones(
                presentations, job.recipe.data.zones, training_images(job.data), job.recipe.data.bits
            )
    elif resume and job.folder.presentation.is_file():
        presentations = read_presentations(job.folder, job.recipe)
    else:
        presentations = fit_to_training_images(job.recipe, job.data, job.progress)
    if presentations.has_tiles and needs_whole_images(job.recipe):
        raise UsageError(
            f"distill.start: {start} was fitted on tiles, with which teachers and labels cannot be used; train without --start, "
            "or start from a run with data.tile=null"
        )
    if not write:
        return replace(job, presentations=presentations)
    write_presentations(job.folder, presentations)
    advice = advise_on_training_images(job.recipe, job.data, presentations, job.progress)
    return replace(job, presentations=presentations, advice=advice)


def fit_to_training_images(recipe: config.Recipe, data: DataSet, progress: Progress) -> Presentations:
    """Choose each category's presentation from its training images."""
    return fit_presentations(
        training_images(data),
        recipe.data,
        progress,
        whole_images=needs_whole_images(recipe),
    )


def advise_on_training_images(
    recipe: config.Recipe, data: DataSet, presentations: Presentations, progress: Progress
) -> tuple[Advice, ...]:
    """Compute advice on the images as they are presented, and report it; advice that training follows by itself is left out."""
    advice = advise(
        data,
        recipe.data,
        recipe.calibration,
        progress,
        presentations=presentations,
        whole_images=needs_whole_images(recipe),
    )
    open_advice = tuple(each for each in advice if not each.done)
    for each in open_advice:
        command = each.command(data.source)
        progress.note(printable(each.describe() + (f": {command}" if command else "")))
    return open_advice


def training_images(data: DataSet) -> dict[str, list[Sample]]:
    """The sound training images of each category."""
    return {category: data.select(Split.TRAIN, category) for category in data.categories}


def needs_whole_images(recipe: config.Recipe) -> bool:
    """Whether the model cannot be trained on tiles: teachers and labelled parts are compared image by image."""
    return bool(recipe.teacher or recipe.distill.teachers or recipe.distill.labelled)
