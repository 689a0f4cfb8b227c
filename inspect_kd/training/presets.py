"""Presets: changes of a recipe that let a student learn from teachers and labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from inspect_kd.config import Recipe
from inspect_kd.errors import UsageError

FIT_ALONE = ("distill.align.steps=0", "distill.supervise.steps=0", "distill.refine.steps=0", "distill.teachers=[]")
HEADS = ("student.head_width=32",)
SUPERVISE = ("distill.supervise.steps=1500", "distill.supervise.learning_rate=2.0e-3")
LABEL_HEAD = (*HEADS, *SUPERVISE, "distill.blend=[1, 3, 0]", "distill.score_blend=[1, 0.5, 0]")
"""A head that learns synthetic defects, as in the default recipe."""
REFINE = (
    "distill.refine.steps=600",
    "distill.refine.learning_rate=2.0e-3",
    "distill.blend=[1, 1.5, 1.5]",
    "distill.score_blend=[1, 0.25, 0.25]",
)


def distillation_changes(
    recipe: Recipe,
    *,
    teachers: Sequence[str] = (),
    unlabelled: str | Path | None = None,
    labelled: str | Path | None = None,
    start: str | Path | None = None,
) -> list[str]:
    """Overrides of a recipe for the teachers and parts named beside it, with the further settings that they need."""
    changes = required_changes(recipe, teachers=bool(teachers), labels=labelled is not None)
    if teachers:
        changes.append(f"distill.teachers={json.dumps(list(teachers))}")
    for key, path in (("unlabelled", unlabelled), ("labelled", labelled), ("start", start)):
        if path is not None:
            if not str(path).isprintable():
                raise UsageError(f"{key} {path}: the recipe can only hold a printable path; use a link to it")
            changes.append(f"distill.{key}={json.dumps(str(path))}")
    return changes


def required_changes(recipe: Recipe, *, teachers: bool, labels: bool) -> list[str]:
    """The changes that a recipe lacks for the teachers or labels named beside it. Its own settings stay."""
    if not recipe.student or not (teachers or labels):
        return []
    distill = recipe.distill
    changes = [] if recipe.student.get("head_width") else [*HEADS]
    uses_teachers = bool(distill.align.steps or distill.refine.steps)
    if not distill.supervise.steps and (labels or not uses_teachers):
        # S3 builds on S2. A recipe with stages for teachers leaves S2 out on purpose.
        changes += SUPERVISE
    return [*changes, *(REFINE if teachers and not uses_teachers else ())]
