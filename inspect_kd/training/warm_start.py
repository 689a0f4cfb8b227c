"""Warm start: reuse the fitted student of another run (`distill.start`), so that only the later stages are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspect_kd.config import Recipe
from inspect_kd.errors import UsageError
from inspect_kd.models.base import Student, Teacher
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.training.job import Job
from inspect_kd.training.run import build_student, load_run, resolve_recipe, sources_of


def load_fitted_student(job: Job, start: str) -> RebuildStudent:
    """A new student with the fitted weights of the run `start`."""
    student = build_student(job.recipe)
    copy_fit(job, start, student)
    if not isinstance(student, RebuildStudent):
        raise UsageError(f"distill.start: a {job.recipe.student['build']} has no heads to train")
    return student.eval()


def copy_fit(job: Job, start: str, student: Student) -> None:
    """Copy a run's weights into a student; refuse a run of other data, or of a student that differs. Heads are left out."""
    earlier = load_run(Path(start))
    if not earlier.recipe.student:
        raise UsageError(f"distill.start: {start} is a teacher's run; name teachers with --teachers")
    if earlier.manifest["data"]["digest"] != job.data.digest:
        raise UsageError(
            f"distill.start: {start} was trained on other parts, or with another split: parts that it was trained on could be "
            "used for calibration or test. Train without --start"
        )
    if earlier.recipe.distill.tune_decoder and "refine" in earlier.manifest.get("stages", {}):
        raise UsageError(
            f"distill.start: distillation has changed the decoder of {start}; start from a run without distill.tune_decoder"
        )
    same_settings = _fit_settings(earlier.recipe) == _fit_settings(job.recipe)
    if not same_settings or _encoder_digest(earlier.model) != _encoder_digest(student):
        raise UsageError(
            f"distill.start: {start} uses a different student or input settings; name its recipe with --model"
        )
    fitted = {key: value for key, value in earlier.model.state_dict().items() if not key.startswith("heads.")}
    student.load_state_dict(fitted, strict=False)


def _fit_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that fitted weights depend on."""
    student = {key: value for key, value in resolve_recipe(recipe).student.items() if key != "head_width"}
    data = recipe.data.model_dump(include={"size", "align", "tile", "smallest_defect", "overlap", "bits"})
    return {"student": student, "data": data}


def _encoder_digest(student: Student | Teacher) -> str:
    return sources_of(student)[0].sha256
