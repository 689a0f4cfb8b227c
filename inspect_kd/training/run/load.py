"""Load a complete run: its recipe, model and calibration, checked against its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_kd import config, weights
from inspect_kd.calibrate import Calibration, read_calibration
from inspect_kd.config import Recipe
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.former_names import rename_weights
from inspect_kd.models.base import Student, Teacher
from inspect_kd.models.encoders import EncoderSpec
from inspect_kd.training.run.builders import build_student, build_teacher
from inspect_kd.training.run.folder import RunFolder
from inspect_kd.training.run.manifest import read_manifest, refuse_changed_files
from inspect_kd.training.run.presentation_file import read_presentations
from inspect_kd.training.run.weight_limit import WeightLimit


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A complete run in memory."""

    folder: RunFolder
    recipe: Recipe
    model: Student | Teacher
    calibration: Calibration
    presentations: Presentations
    manifest: dict[str, Any]


def load_run(path: Path) -> FinishedRun:
    """Load a complete run; refuse files that differ from those of its manifest."""
    folder = RunFolder(path)
    if not folder.is_complete:
        hint = (
            "the training is unfinished: go on with `inspect-kd train --resume`"
            if folder.recipe.is_file()
            else "no run there"
        )
        raise BadInput(f"{path}: {hint}")
    manifest = read_manifest(folder.manifest)
    required = {folder.recipe.name, folder.calibration.name}
    refuse_changed_files(
        path,
        manifest["files"],
        [
            frozenset({*required, file.name, *presentation})
            for file in (folder.student, folder.teacher)
            for presentation in ([folder.presentation.name], [])  # earlier versions wrote none
        ],
    )
    if folder.presentation.name not in manifest["files"] and folder.presentation.exists():
        raise BadInput(f"{folder.presentation}: not a file of this run; remove it")
    recipe = config.read_recipe(folder.recipe)
    model = _load_student(folder, recipe, manifest) if recipe.student else _load_teacher(folder, recipe, manifest)
    calibration = read_calibration(folder.calibration)
    return FinishedRun(
        folder=folder,
        recipe=recipe,
        model=model.eval(),
        calibration=calibration,
        presentations=read_presentations(folder, recipe),
        manifest=manifest,
    )


def _load_student(folder: RunFolder, recipe: Recipe, manifest: dict[str, Any]) -> Student:
    where = f"{folder.manifest}: encoder"
    if manifest.get("encoder") is None:
        raise BadInput(f"{where}: missing; a student has one: train the run again")
    spec = config.fill(EncoderSpec, manifest["encoder"], where=where, fault=BadInput)
    with WeightLimit(str(folder.recipe)):
        student = build_student(recipe, spec)
    try:
        student.load_state_dict(rename_weights(weights.load_state(folder.student)))
    except RuntimeError as error:
        raise BadInput(f"{folder.student}: not the weights of its recipe ({weights.short_message(error)})") from error
    return student


def _load_teacher(folder: RunFolder, recipe: Recipe, manifest: dict[str, Any]) -> Teacher:
    """A teacher's learned weights on its base, which must be the one that it was trained on."""
    try:
        # The run may come from another person: its recipe must neither download anything nor fill the memory.
        with weights.downloaded_only(), WeightLimit(str(folder.recipe)):
            teacher = build_teacher(recipe)
    except EnvironmentFault as error:
        raise BadInput(
            f"{folder.path}: the weights that its teacher was trained on are not on this machine, and loading a run downloads "
            f"nothing: {error}"
        ) from error
    if len(teacher.sources) != len(manifest["sources"]):
        raise BadInput(f"{folder.manifest}: sources: expected {len(teacher.sources)}, one for each base of the teacher")
    for source, recorded in zip(teacher.sources, manifest["sources"], strict=True):
        if source.sha256 != recorded["sha256"]:
            raise BadInput(
                f"{folder.path}: {source.name} ({source.origin}) is not the file that the teacher was trained on"
            )
    learned = weights.load_state(folder.teacher)
    if learned.keys() != teacher.adapted_state().keys():
        raise BadInput(f"{folder.teacher}: not the learned weights of a {recipe.teacher['build']}")
    try:
        teacher.load_state_dict(learned, strict=False)
    except RuntimeError as error:
        raise BadInput(f"{folder.teacher}: not the weights of its recipe ({weights.short_message(error)})") from error
    teacher.release_training_state()
    return teacher
