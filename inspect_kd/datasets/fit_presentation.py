"""Choose how each category's images are presented, from its sound training images: alignment first, then tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inspect_kd.chunks import evenly_spread
from inspect_kd.config import Data
from inspect_kd.datasets.alignment import choose_alignment
from inspect_kd.datasets.alignment.fit import MAX_PARTS
from inspect_kd.datasets.alignment.pose import size_of
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.tile_choice import choose_tile
from inspect_kd.datasets.view import View
from inspect_kd.types import ImageU8, Progress, Sample


def fit_presentations(
    sound: Mapping[str, Sequence[Sample]], settings: Data, progress: Progress, *, whole_images: bool
) -> Presentations:
    """Choose the presentation of each category from its sound images. `whole_images`: tiles are not allowed."""
    if settings.align == "none" and settings.tile != "auto":
        view = View(size=settings.size, tile=settings.tile, overlap=settings.overlap)
        return Presentations(by_category={category: Presentation(view=view) for category in sound})
    progress.phase("presentation", len(sound))
    by_category = {}
    for category, samples in sound.items():
        by_category[category] = choose_presentation(
            _read_some(samples, settings.bits), settings, whole_images=whole_images
        )
        for line in by_category[category].reasons:
            progress.note(f"{category}: {line}")
        progress.advance()
    return Presentations(by_category=by_category)


def choose_presentation(images: Sequence[ImageU8], settings: Data, *, whole_images: bool) -> Presentation:
    """Choose the presentation of one category; its reasons say what was chosen, why, and what it costs."""
    alignment, tile, reasons = None, None, []
    if settings.align != "none":
        choice = choose_alignment(images, settings.align)
        alignment = choice.chosen.alignment
        reasons.append(choice.describe())
    if settings.tile != "auto":
        tile = settings.tile
    elif whole_images:
        reasons.append("tile: none; teachers and labelled parts are compared image by image")
    else:
        picture = alignment.frame if alignment else _median_size(images)
        tiles = choose_tile(picture, settings.size, settings.overlap, settings.smallest_defect)
        tile = tiles.tile
        reasons.append(tiles.describe())
    view = View(size=settings.size, tile=tile, overlap=settings.overlap)
    return Presentation(view=view, alignment=alignment, reasons=tuple(reasons))


def _read_some(samples: Sequence[Sample], bits: int | None) -> list[ImageU8]:
    """Read evenly chosen images."""
    return [read_image(samples[i].image, bits=bits) for i in evenly_spread(len(samples), MAX_PARTS)]


def _median_size(images: Sequence[ImageU8]) -> tuple[int, int]:
    width, height = np.median([size_of(image) for image in images], axis=0)
    return int(width), int(height)
