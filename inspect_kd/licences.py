"""The licences that `profile: production` accepts for weights; docs/licences.md gives the reasons.

This is our reading of the weights' terms, not legal advice. Licences that are not on the list, or unknown, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from inspect_kd.errors import UsageError

ALLOWED = (
    "Apache-2.0",
    "MIT",
    "BSD-3-Clause",
    "BSD-2-Clause",
    "CC0-1.0",
    "CC-BY-4.0",
)
"""Licences that permit commercial use and require at most a notice; the first word of a licence's name must match."""


def is_permitted(licence: str) -> bool:
    """True if a licence permits use in production."""
    return any(licence.lower().split(" ")[0] == allowed.lower() for allowed in ALLOWED)


def check(profile: str, licences: Mapping[str, str]) -> None:
    """Raise a UsageError in production if the licence of any weights is not on the list."""
    for name, licence in licences.items():
        if profile == "production" and not is_permitted(licence):
            raise UsageError(
                f"profile production: the weights '{name}' are licensed '{licence}', which is not on the allow list "
                f"({', '.join(ALLOWED)}). Choose other weights, name the licence of your own file in the recipe, or train "
                "with `--set profile=research`"
            )
