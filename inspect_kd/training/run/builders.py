"""Build what a recipe describes: its student or teacher, and all of its settings."""

from __future__ import annotations

from dataclasses import asdict
from types import ModuleType
from typing import Any

from inspect_kd import config, registry
from inspect_kd.config import Recipe
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Student, Teacher, WeightsSource
from inspect_kd.models.encoders import EncoderSpec, build_encoder, empty_encoder


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Write out all of the model's settings, so that changing a default does not change a saved run."""
    module, settings = _module_and_settings(recipe)
    section = "student" if recipe.student else "teacher"
    return recipe.model_copy(update={section: {"build": module.__name__.rpartition(".")[2], **asdict(settings)}})


def _module_and_settings(recipe: Recipe) -> tuple[ModuleType, Any]:
    """The module that builds the recipe's model, and its filled `Config`."""
    options = dict(recipe.student or recipe.teacher)
    module = registry.load(recipe.family, options.pop("build", ""))
    return module, config.fill(
        module.Config, options, where=f"recipe {recipe.name}, {'student' if recipe.student else 'teacher'}"
    )


def build_student(recipe: Recipe, spec: EncoderSpec | None = None) -> Student:
    """A student with a pretrained encoder; with `spec` an empty encoder, whose weights are loaded afterwards."""
    if not recipe.student:
        raise UsageError(f"recipe {recipe.name} has a teacher, not a student")
    module, settings = _module_and_settings(recipe)
    if spec is not None and (spec.name, spec.strides) != (settings.encoder, tuple(settings.strides)):
        raise BadInput(
            f"the run's encoder is {spec.name} with strides {spec.strides}; its recipe has {settings.encoder} with {settings.strides}"
        )
    encoder = build_encoder(settings.encoder, settings.strides) if spec is None else empty_encoder(spec)
    student: Student = module.build(settings, encoder)
    return student


def build_teacher(recipe: Recipe) -> Teacher:
    """A teacher on its frozen base, not trained yet."""
    if not recipe.teacher:
        raise UsageError(f"recipe {recipe.name} has a student, not a teacher")
    module, settings = _module_and_settings(recipe)
    teacher: Teacher = module.build(settings, recipe.data.size)
    return teacher


def sources_of(model: Student | Teacher) -> tuple[WeightsSource, ...]:
    """Every set of pretrained weights in a model."""
    if isinstance(model, Teacher):
        return model.sources
    encoder: Any = model.encoder
    spec: EncoderSpec = encoder.spec
    return (WeightsSource(name=spec.name, licence=spec.licence, origin=spec.source, sha256=spec.sha256),)
