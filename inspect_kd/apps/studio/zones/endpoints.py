"""Named endpoints for programs: the runs that can get zones, what they are drawn on, their check, and an artifact with them.

Zones are sent as the text of a file for `--zones`.
"""

from __future__ import annotations

from typing import Any

from gradio.events import api

from inspect_kd.apps.studio.handlers import errors_in_one_line, with_checked_types
from inspect_kd.apps.studio.zones.service import ZoneService


def build(service: ZoneService) -> None:
    """Register the endpoints in the open Blocks."""

    def zones_runs() -> list[str]:
        """Names of the finished runs, the latest first."""
        return service.finished_runs()

    def zones_frame(run: str, category: str = "") -> dict[str, Any]:
        """The frame of a run's category in pixels, its median sound part as a data address, and the run's own zones."""
        with errors_in_one_line():
            found = service.describe(run, category)
        return {"category": found.category, "picture": found.picture, "zones": found.zones} | found.frames[
            found.category
        ]

    def zones_check(run: str, text: str) -> list[str]:
        """What a file of zones says, by category; an error in one line if something is wrong with it."""
        with errors_in_one_line():
            return service.check(run, "", text, all_categories=True)

    def zones_export(run: str, text: str) -> dict[str, Any]:
        """Make an artifact of a run with these zones, calibrated anew; takes minutes."""
        with errors_in_one_line():
            *_, result = service.export(run, text)
        artifact = str(service.folder / result.artifact.name) if result.artifact else ""
        return {"artifact": artifact, "thresholds": list(result.thresholds), "error": result.error}

    for endpoint in (zones_runs, zones_frame, zones_check):
        api(with_checked_types(endpoint), api_name=endpoint.__name__)
    api(with_checked_types(zones_export), api_name="zones_export", concurrency_id="zones-export", concurrency_limit=1)
