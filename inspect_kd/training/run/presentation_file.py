"""The file of a run that says how the images of each category are presented to its model."""

from __future__ import annotations

from inspect_kd.config import Recipe
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput
from inspect_kd.training.checkpoint import TRAIN_AGAIN
from inspect_kd.training.run.folder import RunFolder
from inspect_kd.training.run.json_file import read_json_file
from inspect_kd.training.run.save import write_json

MAX_BYTES = 8 << 20
"""Largest file that is read; an alignment's pictures take some ten thousand bytes a category."""


def write_presentations(folder: RunFolder, presentations: Presentations) -> None:
    write_json(folder.presentation, presentations.to_json())


def read_presentations(folder: RunFolder, recipe: Recipe) -> Presentations:
    """Read a run's presentations; runs of earlier versions have none and present all images alike."""
    data = recipe.data
    tile = data.tile if isinstance(data.tile, int) else None
    default = Presentation(view=View(size=data.size, tile=tile, overlap=data.overlap))
    if not folder.presentation.exists():
        return Presentations(default=default)
    content = read_json_file(folder.presentation, "presentation of a run", MAX_BYTES, TRAIN_AGAIN)
    if not content:  # all categories of the run are presented alike
        return Presentations(default=default)
    try:
        return Presentations.from_json(content, data.size)
    except BadInput as error:
        raise BadInput(f"{folder.presentation}: {error}{TRAIN_AGAIN}") from error
