"""Draw small contact sheets of the pictures that show why advice is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inspect_kd import overlay
from inspect_kd.datasets.advice.sound_picture import SoundPicture
from inspect_kd.types import ImageU8

SIDE = 144
"""Longest side of a picture, in pixels."""
COLUMNS = 6
MAX_NAME = 16
"""Characters of a file's name that fit below a picture; of a longer name the end is shown, because names differ most there."""


def draw_contact_sheet(pictures: Sequence[SoundPicture], columns: int = COLUMNS) -> ImageU8:
    """Draw pictures in rows, each with its file's name."""
    names = [picture.sample.image.name for picture in pictures]
    shown = [name if len(name) <= MAX_NAME else f"...{name[3 - MAX_NAME :]}" for name in names]
    return overlay.contact_sheet(
        [(name, picture.small) for name, picture in zip(shown, pictures, strict=True)], side=SIDE, max_columns=columns
    )


def spread_over(pictures: Sequence[SoundPicture], values: Sequence[float], count: int = COLUMNS) -> list[SoundPicture]:
    """Choose pictures from the lowest value to the highest, evenly by rank."""
    order = np.argsort(values, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
    return [pictures[order[rank]] for rank in ranks]
