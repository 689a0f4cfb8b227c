"""Folders that a client may train on: those below one configured root, and nothing else.

What comes from a browser is a name, never a path to trust: it is resolved, links and all, before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from inspect_kd import overlay
from inspect_kd.datasets import layouts
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.layouts._walk import folders
from inspect_kd.errors import BadInput, InspectKDError, printable
from inspect_kd.report.pictures import data_uri
from inspect_kd.types import Sample

DEPTH, MOST_LOOKED_AT, MOST_LISTED = 4, 1500, 200
SHOWN, SIDE = 8, 192


def inside(root: Path, given: str) -> Path:
    """The folder that is meant, all links followed, or a refusal that does not tell what is outside."""
    home = root.resolve()
    refusal = BadInput(f"{given!r} is not a folder below the Studio's data folder")
    try:
        path = (home / given).resolve()
        # Answers to a browser hold text alone: a folder whose name is none cannot be named in them.
        if not given.isprintable() or not given or not path.is_relative_to(home) or not path.is_dir():
            raise refusal
    except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, links in a circle
        raise refusal from None
    return path


def shown_as(root: Path, path: Path) -> str:
    """The name by which a client knows a folder or file below the root; escaped where it is no text."""
    home, place = root.resolve(), path.resolve()
    return printable(str(place.relative_to(home)) if place.is_relative_to(home) else place.name)


def data_folders(root: Path) -> list[str]:
    """Folders below the root that look like data sets, by their names below it; those that a browser can send back."""
    home = root.resolve()
    nameable = (path for path in _search(home) if str(path.relative_to(home)).isprintable())
    found = [path for path, _ in zip(nameable, range(MOST_LISTED), strict=False)]
    return [shown_as(home, path) for path in sorted(found)]


def _search(home: Path) -> Iterator[Path]:
    """Breadth first, and only so far: a root may be somebody's whole disk."""
    level, looked_at = [(home, "")], 0
    for _ in range(DEPTH):
        below: list[tuple[Path, str]] = []
        for folder, layout_above in level:
            looked_at += 1
            if looked_at > MOST_LOOKED_AT:
                return
            layout = _layout(folder)
            # Inside a data set only its categories are data sets of their own: `train/` and `good/` would be read wrongly.
            if layout and layout_above in ("", layout):
                yield folder
            if not layout_above:
                below += [(each, layout) for each in _folders_of(folder) if each.resolve().is_relative_to(home)]
        level = below


def _layout(folder: Path) -> str:
    try:
        return layouts.recognise(folder)
    except (InspectKDError, OSError):
        return ""


def _folders_of(folder: Path) -> list[Path]:
    try:
        return folders(folder)
    except OSError:  # not ours to read
        return []


def first_sound(folder: Path, most: int = SHOWN) -> list[tuple[str, str]]:
    """(name, picture as a data URI) of the first sound parts, every category in turn."""
    _, samples = layouts.scan(folder)
    pictures: list[tuple[str, str]] = []
    for sample in _in_turn([sample for sample in samples if not sample.defective]):
        try:
            picture = data_uri(overlay.thumbnail(read_image(sample.image), SIDE))
        except BadInput:
            continue  # the check names it
        name = printable(sample.image.name)
        pictures.append((f"{sample.category}: {name}" if sample.category else name, picture))
        if len(pictures) == most:
            break
    return pictures


def _in_turn(samples: list[Sample]) -> Iterator[Sample]:
    queues: dict[str, list[Sample]] = {}
    for sample in samples:
        queues.setdefault(sample.category, []).append(sample)
    for place in range(max(map(len, queues.values()), default=0)):
        yield from (queue[place] for queue in queues.values() if place < len(queue))
