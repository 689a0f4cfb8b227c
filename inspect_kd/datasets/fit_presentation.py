"""Choose how each category's images are presented, from its sound training images: alignment first, then tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from inspect_kd.chunks import evenly_spread
from inspect_kd.config import Data
from inspect_kd.datasets.alignment import choose_alignment
from inspect_kd.datasets.alignment.fit import MAX_PARTS
from inspect_kd.datasets.alignment.pose import size_of
from inspect_kd.datasets.cached_images import OriginalImages
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.tile_choice import choose_tile
from inspect_kd.datasets.view import View
from inspect_kd.datasets.zones import ZONES
from inspect_kd.datasets.zones_file import ZonesFile, read_zones_file
from inspect_kd.errors import BadInput
from inspect_kd.types import ImageU8, Progress, Sample

FOREIGN_PARTS = 20
"""Sound images of each category without alignment that are compared with the references of the others."""
FOREIGN_MARGIN = 0.05
"""Added to the highest quality of foreign parts, as a share of the least quality of a found part."""


def fit_presentations(
    sound: Mapping[str, Sequence[Sample]], settings: Data, progress: Progress, *, whole_images: bool
) -> Presentations:
    """Choose the presentation of each category from its sound images. `whole_images`: tiles are not allowed."""
    zones = read_zones_file(settings.zones, list(sound)) if settings.zones else None
    if settings.align == "none" and settings.tile != "auto" and zones is None:
        view = View(size=settings.size, tile=settings.tile, overlap=settings.overlap)
        return Presentations(by_category={category: Presentation(view=view) for category in sound})
    progress.phase("presentation", len(sound))
    by_category = {}
    for category, samples in sound.items():
        images = _choose_images(samples, settings.bits)
        try:
            chosen = choose_presentation(images, settings, whole_images=whole_images)
        except BadInput as error:
            raise BadInput(f"{category}: {error}") from error
        by_category[category] = chosen if zones is None else add_zones(chosen, zones, category, images)
        for line in by_category[category].reasons:
            progress.note(f"{category}: {line}")
        progress.advance()
    return Presentations(by_category=add_foreign_qualities(by_category, sound, settings.bits))


def add_foreign_qualities(
    by_category: Mapping[str, Presentation], sound: Mapping[str, Sequence[Sample]], bits: int | None
) -> dict[str, Presentation]:
    """Measure how much the parts of categories without alignment are like the reference of each category that has one."""
    highest = {name: 0.0 for name, each in by_category.items() if each.alignment is not None}
    for name, samples in sound.items():
        if not highest or name in highest:
            continue
        for i in evenly_spread(len(samples), FOREIGN_PARTS):
            image = read_image(samples[i].image, bits=bits)
            highest = {of: max(most, by_category[of].prepare(image).quality) for of, most in highest.items()}
    # Without foreign parts, and where none of them has a pose, every pose is one of this category.
    limits = {of: min(1.0, most + FOREIGN_MARGIN) if most > 0 else 0.0 for of, most in highest.items()}
    return {name: replace(each, foreign_quality=limits.get(name, 0.0)) for name, each in by_category.items()}


def choose_presentation(images: Sequence[ImageU8], settings: Data, *, whole_images: bool) -> Presentation:
    """Choose the presentation of one category; its reasons say what was chosen, why, and what it costs."""
    alignment, tile, reasons, sizes = None, None, [], None
    if settings.align != "none":
        choice = choose_alignment(images, settings.align)
        alignment, sizes = choice.chosen.alignment, choice.sizes
        reasons.append(choice.describe())
    if settings.tile != "auto":
        tile = settings.tile
    elif whole_images:
        reasons.append("tile: none; teachers and labelled parts are compared image by image")
    else:
        picture = alignment.frame if alignment else _median_size(sizes or [size_of(image) for image in images])
        tiles = choose_tile(picture, settings.size, settings.overlap, settings.smallest_defect)
        tile = tiles.tile
        reasons.append(tiles.describe())
    view = View(size=settings.size, tile=tile, overlap=settings.overlap)
    return Presentation(view=view, alignment=alignment, reasons=tuple(reasons))


def add_zones(presentation: Presentation, file: ZonesFile, category: str, images: Sequence[ImageU8]) -> Presentation:
    """Give a category the zones of a file instead of those that it has; `images` are some of its sound images."""
    plain = replace(presentation, zones=None, reasons=tuple(r for r in presentation.reasons if not r.startswith(ZONES)))
    # Twice over the images, each of which is dropped before the next one: all at once would fill the memory.
    sizes = {each.picture_size for each in map(plain.prepare, images) if each.fault is None}
    if not sizes:
        raise BadInput(f"{file.path}: none of the sound parts of '{category}' was found, so zones have no place")
    pictures = (each.picture for each in map(plain.prepare, images) if each.fault is None)
    zones = file.for_category(category, sizes, pictures, aligned=presentation.alignment is not None)
    return plain if zones is None else replace(plain, zones=zones, reasons=(*plain.reasons, zones.describe()))


def replace_zones(
    presentations: Presentations, path: str, sound: Mapping[str, Sequence[Sample]], bits: int | None
) -> Presentations:
    """Give all categories the zones of another file, and leave their alignment and tiles as they are."""
    file = read_zones_file(path, list(sound))
    return Presentations(
        by_category={
            category: add_zones(presentations.of(category), file, category, _choose_images(samples, bits))
            for category, samples in sound.items()
        }
    )


def _choose_images(samples: Sequence[Sample], bits: int | None) -> Sequence[ImageU8]:
    """Choose at most MAX_PARTS images, evenly spread over the samples; each is read when it is needed."""
    return OriginalImages([samples[i] for i in evenly_spread(len(samples), MAX_PARTS)], bits)


def _median_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    width, height = np.median(sizes, axis=0)
    return int(width), int(height)
