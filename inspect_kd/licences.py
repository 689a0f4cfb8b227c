"""Which weights a factory may use: `profile: production` lets nothing else into a model. docs/licences.md gives the reasons.

Our reading of the weights' own terms, no legal advice. What is not on the list is refused, unknown terms among it.
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
"""How the name of a licence begins that permits commercial use, with notice at most."""


def permitted(licence: str) -> bool:
    return any(licence.lower().split(" ")[0] == allowed.lower() for allowed in ALLOWED)


def check(profile: str, licences: Mapping[str, str]) -> None:
    """Refuse, in production, the first set of weights whose licence is not on the list."""
    for name, licence in licences.items():
        if profile == "production" and not permitted(licence):
            raise UsageError(
                f"profile production: the weights '{name}' are licensed '{licence}', which is not on the allow list "
                f"({', '.join(ALLOWED)}). Choose other weights, name the licence of your own file in the recipe, or train "
                "with `--set profile=research`"
            )
