"""What a student needs to hear teachers and labels, as changes of its recipe: heads, stages, and how much each voice counts."""

from __future__ import annotations

from inspect_kd.config import Recipe

FIT_ALONE = ("distill.align.steps=0", "distill.supervise.steps=0", "distill.refine.steps=0", "distill.teachers=[]")
HEADS = ("student.answer_width=32",)
SUPERVISE = ("distill.supervise.steps=1500", "distill.supervise.learning_rate=2.0e-3")
DRAWN = (*HEADS, *SUPERVISE, "distill.voices=[1, 3, 0]", "distill.score_voices=[1, 0.5, 0]")
"""A head that learns drawn defects: what the default recipe has."""
ALIGN_AND_REFINE = (
    "distill.align.steps=100",
    "distill.refine.steps=100",
    "distill.voices=[1, 1.5, 1.5]",
    "distill.score_voices=[1, 0.25, 0.25]",
)


def needed(recipe: Recipe, *, teachers: bool, labels: bool) -> list[str]:
    """What the recipe lacks for teachers, or labels, that are named beside it; what it has stays as it is."""
    if not recipe.student or not (teachers or labels):
        return []
    distill = recipe.distill
    changes = [] if recipe.student.get("answer_width") else [*HEADS]
    taught = bool(distill.align.steps or distill.refine.steps)
    if not distill.supervise.steps and not (taught and teachers):
        # S3 without S2 would have to teach the heads all they know in its few steps.
        changes += SUPERVISE
    return [*changes, *(ALIGN_AND_REFINE if teachers and not taught else ())]
