"""Open a student's teachers: runs that exist, or runs that are trained first, beside the student's own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inspect_kd import licences, zoo
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.errors import UsageError
from inspect_kd.models.base import Teacher
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, load_run, resolve_recipe
from inspect_kd.work_folder import DAY_S, work_folder

Train = Callable[[Job], RunFolder]
"""`pipeline.train`, which itself opens teachers: it is passed in, as importing it here would be circular."""


def open_teachers(job: Job, train: Train, runs: Path) -> dict[str, Teacher]:
    """The teachers of the job's recipe by name. One that has no run for this data below `runs` is trained there first."""
    teachers: dict[str, Teacher] = {}
    for name in job.recipe.distill.teachers:
        finished = load_run(_find_or_train(name, job, train, runs).path)
        if not isinstance(finished.model, Teacher):
            raise UsageError(f"--teachers {name}: a student; teachers are: {', '.join(teachers_in_the_zoo())}")
        if finished.recipe.name in teachers:
            raise UsageError(f"--teachers: two of them are called '{finished.recipe.name}'")
        if finished.manifest["data"]["digest"] != job.data.digest:
            if finished.recipe.teach.labelled:
                raise UsageError(
                    f"--teachers {name}: trained with real defects on other parts than these; some of them may be in this test "
                    "split. Name its recipe instead of its run, and it is trained on these parts"
                )
            job.progress.note(
                f"{name}: trained on other parts than these ({finished.manifest['data']['name']}); if parts that are held out "
                "here were among them, its reliability is overestimated"
            )
        licences.check(job.recipe.profile, {source.name: source.licence for source in finished.model.sources})
        teachers[finished.recipe.name] = finished.model
    return teachers


def teachers_in_the_zoo() -> list[str]:
    return [name for name in zoo.names("models") if load_recipe(name).teacher]


def teacher_identities(recipe: Recipe, data: DataSet) -> dict[str, str]:
    """Digest of each teacher of a recipe: of its run, or of what its training would depend on."""
    identities = {}
    for name in recipe.distill.teachers:
        manifest = RunFolder(Path(name)).manifest
        if manifest.is_file():
            identities[name] = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
        else:
            identities[name] = training_identity(with_data_of(load_recipe(name), recipe), data)
    return identities


def _find_or_train(name: str, job: Job, train: Train, runs: Path) -> RunFolder:
    """The run `name`, or the run of the recipe `name` on the job's data."""
    if (Path(name) / "run.json").is_file():
        return RunFolder(Path(name))
    recipe = with_data_of(load_recipe(name), job.recipe)
    if not recipe.teacher:
        raise UsageError(f"--teachers {name}: a student's recipe; teachers are: {', '.join(teachers_in_the_zoo())}")
    folder = RunFolder(runs / f"{job.data.name}-{recipe.name}-{training_identity(recipe, job.data)}")
    if not folder.is_complete:
        job.progress.note(f"training {recipe.name} first: {folder.path}")
        runs.mkdir(parents=True, exist_ok=True)
        # Trained in a temporary folder: of two trainings that need the same teacher, the first to finish moves its run.
        with work_folder(runs, "teacher", abandoned_after_s=7 * DAY_S) as temporary:
            trained = RunFolder(temporary / folder.path.name)
            hardware = replace(job.hardware, devices=1, workers=0, precision=Hardware().precision)
            train(replace(job, recipe=recipe, folder=trained, hardware=hardware))
            if not folder.is_complete:
                shutil.rmtree(folder.path, ignore_errors=True)
                trained.path.rename(folder.path)
    return folder


def with_data_of(teacher: Recipe, student: Recipe) -> Recipe:
    """The teacher's recipe with the student's split, so that it is not trained on held-out parts.

    It keeps its own seed, so that one teacher serves students of all seeds.
    """
    keys = ("calibration", "validation", "test", "group", "categories", "bits", "flip", "cache_mb")
    data = teacher.data.model_copy(update={key: getattr(student.data, key) for key in keys})
    return teacher.model_copy(update={"data": data, "profile": student.profile})


def training_identity(teacher: Recipe, data: DataSet) -> str:
    """Digest of all that a teacher's training depends on; the student's distillation settings are not part of it."""
    return f"{resolve_recipe(teacher).digest(without={'distill'})[:6]}{data.digest[:6]}"
