"""What a student needs to hear teachers and labels, as changes of its recipe: heads, stages, and how much each voice counts."""

from __future__ import annotations

from inspect_kd.config import Recipe

FIT_ALONE = ("distill.align.steps=0", "distill.supervise.steps=0", "distill.refine.steps=0", "distill.teachers=[]")
HEADS = ("student.head_width=32",)
SUPERVISE = ("distill.supervise.steps=1500", "distill.supervise.learning_rate=2.0e-3")
DRAWN = (*HEADS, *SUPERVISE, "distill.blend=[1, 3, 0]", "distill.score_blend=[1, 0.5, 0]")
"""A head that learns drawn defects: what the default recipe has."""
REFINE = (
    "distill.refine.steps=600",
    "distill.refine.learning_rate=2.0e-3",
    "distill.blend=[1, 1.5, 1.5]",
    "distill.score_blend=[1, 0.25, 0.25]",
)


def needed(recipe: Recipe, *, teachers: bool, labels: bool) -> list[str]:
    """What the recipe lacks for teachers, or labels, that are named beside it; what it has stays as it is."""
    if not recipe.student or not (teachers or labels):
        return []
    distill = recipe.distill
    changes = [] if recipe.student.get("head_width") else [*HEADS]
    taught = bool(distill.align.steps or distill.refine.steps)
    if not distill.supervise.steps and (labels or not taught):
        # S3 reads what S2 has made; whoever has stages of their own knows what they leave out.
        changes += SUPERVISE
    return [*changes, *(REFINE if teachers and not taught else ())]
