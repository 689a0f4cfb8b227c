"""A student's teachers: trained once for this data, reused, and refused if they may have been trained on the test split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from inspect_kd.config import Recipe, load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.errors import UsageError
from inspect_kd.training import pipeline
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder
from inspect_kd.training.teachers import open_teachers, teacher_identities, training_identity, with_data_of
from tests.builders import InterruptedProgress, edit_recipe, make_job
from tests.distill.builders import EVERY_STAGE, MEMORY_RECIPE, RecordingProgress
from tests.tiny import TINY


def with_teachers(distilled: Path, *names: Path) -> Recipe:
    return load_recipe(str(distilled / "recipe.yaml"), [f"distill.teachers={json.dumps(list(map(str, names)))}"])


def test_first_of_two_trainings_of_one_teacher_to_finish_is_kept(
    distilled: Path, teacher_run: Path, parts: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    target = runs / teacher_run.name

    def train_slowly(job: Job) -> RunFolder:
        """Another process finishes in the meantime."""
        assert job.folder.path != target
        shutil.copytree(teacher_run, target)
        return pipeline.train(job)

    job = make_job(load_recipe(str(distilled / "recipe.yaml")), open_dataset(parts), tmp_path / "r")
    assert set(open_teachers(job, train_slowly, runs)) == {"tiny_memory"}
    files = {path.name: path.read_bytes() for path in teacher_run.iterdir()}
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    assert [path.name for path in runs.iterdir()] == [teacher_run.name], "nothing unfinished is left"


def test_teacher_is_trained_in_full_precision_for_a_student_in_half_precision(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny_memory.yaml").write_text(json.dumps(MEMORY_RECIPE))
    teachers = f"distill.teachers={json.dumps([str(tmp_path / 'tiny_memory.yaml')])}"
    recipe = load_recipe("embedded", [*TINY, *EVERY_STAGE, teachers])
    hardware = Hardware(workers=1, precision="bf16-mixed")
    job = make_job(
        recipe, open_dataset(parts), tmp_path / "r", hardware=hardware, progress=InterruptedProgress("train")
    )
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(job)
    assert len(list(tmp_path.glob("*-tiny_memory-*/run.json"))) == 1


def test_teacher_of_other_parts_is_used_with_a_note(
    distilled: Path, teacher_run: Path, parts: Path, tmp_path: Path
) -> None:
    progress = RecordingProgress()
    recipe, fewer = with_teachers(distilled, teacher_run), open_dataset(parts).only("metal")
    job = make_job(recipe, fewer, tmp_path / "r", progress=progress)
    assert set(open_teachers(job, pipeline.train, tmp_path)) == {"tiny_memory"}
    assert any("trained on other parts than these" in note for note in progress.notes)


def test_teacher_that_learned_defects_of_other_parts_is_refused(
    distilled: Path, teacher_run: Path, parts: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(teacher_run, tmp_path / "copied")
    edit_recipe(copied, lambda recipe: recipe["teach"].update(labelled="found/"))
    job = make_job(with_teachers(distilled, copied), open_dataset(parts).only("metal"), tmp_path / "r")
    with pytest.raises(UsageError, match="trained with real defects on other parts"):
        open_teachers(job, pipeline.train, tmp_path)


def test_identity_of_a_teacher_changes_with_its_recipe(
    distilled: Path, teacher_run: Path, parts: Path, tmp_path: Path
) -> None:
    data, file = open_dataset(parts), tmp_path / "tiny_memory.yaml"
    recipe = with_teachers(distilled, file, teacher_run)
    file.write_text(json.dumps(MEMORY_RECIPE))
    first = teacher_identities(recipe, data)
    assert teacher_identities(recipe, data) == first
    file.write_text(json.dumps(MEMORY_RECIPE | {"teacher": MEMORY_RECIPE["teacher"] | {"rows": 255}}))
    second = teacher_identities(recipe, data)
    assert second[str(file)] != first[str(file)] and second[str(teacher_run)] == first[str(teacher_run)]


def test_training_identity_ignores_the_students_own_settings(parts: Path) -> None:
    data, teacher = open_dataset(str(parts)), load_recipe("memory")
    student, other = load_recipe("embedded"), load_recipe("embedded", ["distill.batch=7", "fit.steps=9"])
    first = training_identity(with_data_of(teacher, student), data)
    assert training_identity(with_data_of(teacher, other), data) == first
    larger = load_recipe("memory", ["data.size=320"])
    assert training_identity(with_data_of(larger, student), data) != first
