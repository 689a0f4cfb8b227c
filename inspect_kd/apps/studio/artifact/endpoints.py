"""Named endpoints for programs: the artifacts that the Studio offers, and their cards."""

from __future__ import annotations

from typing import Any

from gradio.events import api

from inspect_kd.apps.studio.handlers import errors_in_one_line, typed
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.export.card import card_facts


def build(studio: Studio) -> None:
    """Register the endpoints in the open Blocks."""

    def artifacts() -> list[str]:
        """Names of the artifacts; the first one is the default."""
        return studio.library.names

    def card(artifact: str) -> dict[str, Any]:
        """An artifact's card: recipe, calibration, licences, parity, versions."""
        with errors_in_one_line():
            return dict(card_facts(studio.library.open(artifact).card))

    for endpoint in (artifacts, card):
        api(typed(endpoint), api_name=endpoint.__name__)
