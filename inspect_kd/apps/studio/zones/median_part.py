"""Compute what zones of a run are drawn on: `python -m inspect_kd.apps.studio.zones.median_part RUN CATEGORY ROOT` prints it as JSON.

Runs in a process of its own: it decodes images, which may be hostile, and needs torch, which the Studio does without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd import overlay, zoo
from inspect_kd.apps.studio.zones import texts
from inspect_kd.apps.studio.zones.drawn_zones import MAX_FRAME_PIXELS
from inspect_kd.chunks import evenly_spread
from inspect_kd.datasets import open_for_recipe
from inspect_kd.datasets.alignment.pose import size_of
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.report.pictures import data_uri
from inspect_kd.types import ImageU8, Sample

MAX_PARTS = 25
"""Sound images of which the median is taken."""
PICTURE_SIDE = 1400
"""Longer side of the shown picture; corners are in full pixels all the same."""
STRIP_ROWS = 64
"""Rows of which the median is taken at once, which bounds its memory."""


def describe_run(run: Path, category: str, root: Path) -> dict[str, Any]:
    """Return the categories of a run with their frames and zones, and the median sound part of one ("" for the first)."""
    from inspect_kd.config import read_recipe
    from inspect_kd.training.prepare_images import training_images
    from inspect_kd.training.run import RunFolder, read_presentations
    from inspect_kd.training.run.manifest import read_manifest

    folder = RunFolder(run)
    recipe, manifest = read_recipe(folder.recipe), read_manifest(folder.manifest)
    if not recipe.student:
        raise UsageError(texts.NOT_A_STUDENT)
    source = manifest["data"].get("source") or ""
    refuse_other_folders(source, root)
    data = open_for_recipe(source, recipe)
    presentations = read_presentations(folder, recipe)
    sound = training_images(data)
    chosen = category or next(iter(sound))
    if chosen not in sound:
        raise UsageError(f"no category '{chosen}'; there are: {', '.join(sound)}")
    return {
        "source": source,
        "category": chosen,
        "frames": {
            name: frame_of(presentations.of(name), samples, recipe.data.bits) for name, samples in sound.items()
        },
        "zones": zones_of(presentations, list(sound)),
        "has_labels": any(
            each.zones is not None and each.zones.labels is not None for each in presentations.by_category.values()
        ),
        **_median_or_fault(presentations.of(chosen), sound[chosen], recipe.data.bits, chosen),
    }


def _median_or_fault(
    presentation: Presentation, samples: Sequence[Sample], bits: int | None, category: str
) -> dict[str, Any]:
    """The median part, or why one category has none: the others can still be drawn on."""
    try:
        return {"fault": "", **median_part(presentation, samples, bits, category)}
    except InspectKDError as error:
        return {"fault": str(error), "parts": 0, "picture": ""}


def refuse_other_folders(source: str, root: Path) -> None:
    """Refuse a data set that browsers may not choose; a run, which may come from another person, could name any folder.

    Links that lead out of a data set are refused where it is scanned.
    """
    if source in zoo.names("datasets"):
        return
    if not source or not Path(source).exists():
        raise BadInput(texts.NO_SOURCE)
    if Path(source).suffix.lower() in {".yaml", ".yml"} or not Path(source).resolve().is_relative_to(root.resolve()):
        raise UsageError(texts.OUTSIDE_ROOT)


def frame_of(presentation: Presentation, samples: Sequence[Sample], bits: int | None) -> dict[str, Any]:
    """The size of the picture that a category's model sees, from one image where nothing fixes it."""
    alignment = presentation.alignment
    frame = alignment.frame if alignment else size_of(read_image(samples[0].image, bits=bits))
    return {"aligned": alignment is not None, "frame": list(frame)}


def zones_of(presentations: Presentations, categories: Sequence[str]) -> list[dict[str, Any]]:
    """The run's polygons as a file would list them: a zone that all categories have is written once, without category."""
    lists: Mapping[str, list[dict[str, Any]]] = {
        name: [zone.to_json() for zone in zones.zones] if (zones := presentations.of(name).zones) else []
        for name in categories
    }
    shared = [zone for zone in lists[categories[0]] if all(zone in zones for zones in lists.values())]
    own = [{**zone, "category": name} for name, zones in lists.items() for zone in zones if zone not in shared]
    return shared + own


def median_part(
    presentation: Presentation, samples: Sequence[Sample], bits: int | None, category: str
) -> dict[str, Any]:
    """The median of evenly chosen sound images, presented as the run's model sees them, but with ignored places visible."""
    without_zones = Presentation(view=presentation.view, alignment=presentation.alignment)
    images = (read_image(samples[i].image, bits=bits) for i in evenly_spread(len(samples), MAX_PARTS))
    pictures, sizes = [], set()
    for prepared in map(without_zones.prepare, images):
        if prepared.fault is None:
            sizes.add(size_of(prepared.picture))
            pictures.append(overlay.thumbnail(prepared.picture, PICTURE_SIDE))
    if not pictures:
        raise BadInput(texts.NONE_FOUND.format(category=category))
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise BadInput(texts.SIZES_DIFFER.format(category=category, sizes=listed))
    width, height = sizes.pop()
    if width * height > MAX_FRAME_PIXELS:
        raise BadInput(texts.FRAME_TOO_LARGE.format(width=width, height=height, maximum=MAX_FRAME_PIXELS // 10**6))
    return {"parts": len(pictures), "picture": data_uri(median(pictures))}


def median(pictures: Sequence[ImageU8]) -> ImageU8:
    """The median of each pixel."""
    middle = np.empty_like(pictures[0])
    for top in range(0, len(middle), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        middle[rows] = np.median([picture[rows] for picture in pictures], axis=0)
    return middle


def main(run: str, category: str, root: str) -> None:
    """Print the description, or the reason why there is none."""
    try:
        content = describe_run(Path(run), category, Path(root))
    except (InspectKDError, OSError) as error:
        content = {"error": str(error)}
    sys.stdout.write(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
