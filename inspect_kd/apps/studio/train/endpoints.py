"""Named endpoints for programs: check data sets and run trainings.

Folders are named below the Studio's data folder, runs by their names.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gradio.events import api

from inspect_kd.apps.studio.handlers import errors_in_one_line, typed
from inspect_kd.apps.studio.train.command import default_recipe
from inspect_kd.apps.studio.train.record import TrainRequest
from inspect_kd.apps.studio.train.service import TrainService


def build(service: TrainService) -> None:
    """Register the endpoints in the open Blocks."""

    def train_folders() -> list[str]:
        """Folders below the data folder that look like data sets."""
        return service.folders()

    def train_check(folder: str) -> dict[str, Any]:
        """What a folder contains and what is wrong with it, by category and split."""
        with errors_in_one_line():
            *_, last = service.check(folder)
        return asdict(last) | {"sound": last.is_trainable}

    def train_start(
        folder: str, recipe: str = "", name: str = "", quick: bool = False, seed: int = 0
    ) -> dict[str, Any]:
        """Start a training, or queue it; without a recipe the default one, without a name one made from folder and recipe."""
        request = TrainRequest(data=folder, recipe=recipe or default_recipe(), name=name, quick=quick, seed=seed)
        with errors_in_one_line():
            return service.to_json(service.trainings.start(request))

    def train_state(name: str) -> dict[str, Any]:
        """State, phase, step, seconds left, loss, gap and error of a run."""
        with errors_in_one_line():
            return service.to_json(service.trainings.get(name))

    def train_stop(name: str) -> dict[str, Any]:
        """Stop a training; its checkpoint is kept."""
        with errors_in_one_line():
            return service.to_json(service.trainings.stop(name))

    def train_resume(name: str) -> dict[str, Any]:
        """Continue a stopped or failed training; its results are those of an uninterrupted one."""
        with errors_in_one_line():
            return service.to_json(service.trainings.resume(name))

    for endpoint in (train_folders, train_check, train_start, train_state, train_stop, train_resume):
        api(typed(endpoint), api_name=endpoint.__name__)
