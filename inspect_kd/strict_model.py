"""The base of recipes and manifests: unknown keys, infinities and booleans in the place of numbers are errors."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StrictModel(BaseModel):
    """A section of a recipe or of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false in the place of a number: pydantic reads them as 1 and 0."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            # Not a ValueError, whose message would be taken for a complete sentence about its section.
            raise AssertionError("input should be a number, not true or false")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the types of the values that a field takes, but not those of a list's or a tuple's items."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else set()
