"""Recipes of distillations: settings that contradict each other, and presets for teachers and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspect_kd.bench import ablate
from inspect_kd.config import load_recipe
from inspect_kd.errors import UsageError
from inspect_kd.training.presets import distillation_changes

STUDENTS = ["omni_ad", "embedded", "ras", "omni_ras"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["distill.supervise.steps=5", "student.head_width=0"], "head_width"),
        (["distill.align.steps=5", "student.head_width=8", "distill.teachers=[]"], "need `teachers:`"),
    ],
)
def test_stages_without_heads_or_teachers_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("embedded", changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["distill.denoising_weight=0.5"], "set tune_decoder to true"),
        (["distill.refine.steps=0"], "teachers are set but no stage uses them"),
        (["distill.blend=[1, 3, 0]"], "refine has no effect"),
        (["distill.supervise.steps=0", "distill.labelled=found/"], "no stage uses labels"),
    ],
)
def test_settings_without_effect_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("embedded", [*ablate.teacher_changes(["memory"]), *changes])


@pytest.mark.parametrize("model", STUDENTS)
@pytest.mark.parametrize(("teachers", "labelled"), [(["memory"], None), ([], "labels/"), (["memory"], "labels/")])
def test_command_line_options_add_missing_stages(model: str, teachers: list[str], labelled: str | None) -> None:
    recipe = load_recipe(model, distillation_changes(load_recipe(model), teachers=teachers, labelled=labelled))
    assert recipe.student["head_width"] == 32 and recipe.distill.supervise.steps == 1500
    assert bool(recipe.distill.refine.steps) is bool(teachers) and recipe.distill.labelled == labelled
    assert recipe.distill.blend == ((1.0, 1.5, 1.5) if teachers else (1.0, 3.0, 0.0))


def test_command_line_options_keep_the_settings_of_the_recipe(tmp_path: Path) -> None:
    assert distillation_changes(load_recipe("embedded")) == []
    own = tmp_path / "own.yaml"
    own.write_text(load_recipe("embedded", ["student.head_width=8", "distill.supervise.steps=7"]).to_yaml())
    recipe = load_recipe(str(own), distillation_changes(load_recipe(str(own)), labelled="labels/"))
    assert recipe.student["head_width"] == 8 and recipe.distill.supervise.steps == 7


@pytest.mark.parametrize("model", STUDENTS)
def test_every_arm_of_the_ablation_is_valid_for_every_student(model: str) -> None:
    for arm in ablate.list_arms(["memory"], "line/"):
        load_recipe(model, list(arm.changes))
