"""Rename the keys of recipes and weights that earlier versions wrote, so that their runs and checkpoints still open."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")

RECIPE_KEYS = {
    "student.answer_width": "student.head_width",
    "teacher.pace": "teacher.learning_rate_scale",
    "fit.fall": "fit.schedule",
    "distill.voices": "distill.blend",
    "distill.score_voices": "distill.score_blend",
    "distill.most": "distill.max_samples",
    "distill.loosen": "distill.tune_decoder",
    "distill.streams": "distill.denoising_weight",
    "distill.contrast": "distill.contrast_weight",
    "distill.relations": "distill.relation_weight",
    "distill.trust": "distill.teacher_weights",
    "distill.trust_temperature": "distill.weight_temperature",
}
"""Current name of each former key."""
RECIPE_VALUES = {"distill.teacher_weights": {"learnt": "learned", "alike": "equal"}}
"""Current name of each former value, by the current key."""
WEIGHT_PREFIXES = {"heads.voices": "heads.blend_weights", "heads.even.": "heads.input_norm."}
"""Current prefix of each former prefix of keys in a student's state dict."""


def rename_key(key: str, value: Any) -> tuple[str, Any]:
    """Return the current name of a recipe's `section.key`, and of its value."""
    key = RECIPE_KEYS.get(key, key)
    values = RECIPE_VALUES.get(key, {})
    return key, values.get(value, value) if isinstance(value, str) else value


def rename_recipe_keys(content: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's content with the current keys. A section that is not a mapping stays, for validation to refuse."""
    renamed: dict[str, Any] = {}
    for section, settings in content.items():
        if not isinstance(settings, dict):
            renamed[section] = settings
            continue
        pairs = [rename_key(f"{section}.{key}", value) for key, value in settings.items()]
        current = {key.removeprefix(f"{section}."): value for key, value in pairs}
        # If a file has both names of a setting, the current one wins.
        renamed[section] = current | {key: settings[key] for key in settings if key in current}
    return renamed


def rename_weights(state: dict[str, T]) -> dict[str, T]:
    """Return a student's state dict with the current keys."""
    return {_rename_weight(key): value for key, value in state.items()}


def _rename_weight(key: str) -> str:
    for former, current in WEIGHT_PREFIXES.items():
        if key.startswith(former):
            return current + key.removeprefix(former)
    return key
