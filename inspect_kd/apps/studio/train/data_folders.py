"""Folders that a client may train on: those below one configured root, and no others.

A name from a browser is not trusted: its links are resolved before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from inspect_kd import overlay
from inspect_kd.datasets import layouts
from inspect_kd.datasets.images import read_image, read_image_header
from inspect_kd.datasets.layouts._walk import folders
from inspect_kd.errors import BadInput, InspectKDError, printable
from inspect_kd.report.pictures import data_uri
from inspect_kd.types import Sample

MAX_DEPTH, MAX_VISITED, MAX_LISTED = 4, 1500, 200
"""Limits of the search for data sets, in folders."""
MAX_PICTURES, PICTURE_SIDE = 8, 192
MAX_TRIED, MAX_PICTURE_PIXELS, MAX_PICTURE_BYTES = 32, 25 * 10**6, 2**25
"""Limits of the images for small pictures, since the Studio's own process decodes them: their number, and the size of each."""


def folder_below(root: Path, name: str) -> Path:
    """Resolve a folder's name, with all links. The error does not reveal what exists outside of the root."""
    home = root.resolve()
    refusal = BadInput(f"{name!r} is not a folder below the Studio's data folder")
    try:
        path = (home / name).resolve()
        # The page shows names as text, which cannot contain one that is not printable.
        if not name.isprintable() or not name or not path.is_relative_to(home) or not path.is_dir():
            raise refusal
    except (OSError, ValueError, RuntimeError):  # the name is too long or has a zero byte, or links form a circle
        raise refusal from None
    return path


def display_path(root: Path, path: Path) -> str:
    """The name of a folder or file below the root, for clients; escaped where it is not printable."""
    home, resolved = root.resolve(), path.resolve()
    return printable(str(resolved.relative_to(home)) if resolved.is_relative_to(home) else resolved.name)


def data_folders(root: Path) -> list[str]:
    """Names of folders below the root that look like data sets; names that are not printable are left out."""
    home = root.resolve()
    printable_paths = (path for path in _search(home) if str(path.relative_to(home)).isprintable())
    found = [path for path, _ in zip(printable_paths, range(MAX_LISTED), strict=False)]
    return [display_path(home, path) for path in sorted(found)]


def _search(home: Path) -> Iterator[Path]:
    """Find data sets, breadth first and within limits, since the root may be a whole disk."""
    level, visited = [(home, "")], 0
    for _ in range(MAX_DEPTH):
        next_level: list[tuple[Path, str]] = []
        for folder, parent_layout in level:
            visited += 1
            if visited > MAX_VISITED:
                return
            layout = _layout(folder)
            # Inside a data set only its categories are data sets themselves: `train/` and `good/` would be misread.
            if layout and parent_layout in ("", layout):
                yield folder
            if not parent_layout:
                next_level += [(path, layout) for path in _subfolders(folder) if path.resolve().is_relative_to(home)]
        level = next_level


def _layout(folder: Path) -> str:
    try:
        return layouts.recognise(folder)
    except (InspectKDError, OSError):
        return ""


def _subfolders(folder: Path) -> list[Path]:
    try:
        return folders(folder)
    except OSError:  # no permission
        return []


def first_sound_parts(folder: Path, max_pictures: int = MAX_PICTURES) -> list[tuple[str, str]]:
    """(name, picture as a data URI) of the first sound parts, taking the categories in turn."""
    _, samples = layouts.scan(folder)
    pictures: list[tuple[str, str]] = []
    sound_samples = _categories_in_turn([sample for sample in samples if not sample.defective])
    for sample in islice(sound_samples, MAX_TRIED):
        try:
            if not _is_small(sample.image):
                continue
            picture = data_uri(overlay.thumbnail(read_image(sample.image), PICTURE_SIDE))
        except (BadInput, OSError):
            continue  # the data check reports it
        name = printable(sample.image.name)
        pictures.append((f"{sample.category}: {name}" if sample.category else name, picture))
        if len(pictures) == max_pictures:
            break
    return pictures


def _is_small(image: Path) -> bool:
    if image.stat().st_size > MAX_PICTURE_BYTES:
        return False
    width, height, _ = read_image_header(image)
    return width * height <= MAX_PICTURE_PIXELS


def _categories_in_turn(samples: list[Sample]) -> Iterator[Sample]:
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    for i in range(max(map(len, by_category.values()), default=0)):
        yield from (samples[i] for samples in by_category.values() if i < len(samples))
