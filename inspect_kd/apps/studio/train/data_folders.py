"""Folders that a client may train on: those below one configured root, and no others.

A browser sends names, never trusted paths: each is resolved, with all links, before anything is opened.
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

DEPTH, MAX_VISITED, MAX_LISTED = 4, 1500, 200
PICTURES, SIDE = 8, 192


def folder_below(root: Path, name: str) -> Path:
    """Resolve a folder's name, with all links. A refusal does not tell what exists outside of the root."""
    home = root.resolve()
    refusal = BadInput(f"{name!r} is not a folder below the Studio's data folder")
    try:
        path = (home / name).resolve()
        # Answers to a browser are text: a folder whose name is not printable cannot be named in them.
        if not name.isprintable() or not name or not path.is_relative_to(home) or not path.is_dir():
            raise refusal
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, or a circle of links
        raise refusal from None
    return path


def display_path(root: Path, path: Path) -> str:
    """The name of a folder or file below the root, for clients; escaped where it is not printable."""
    home, resolved = root.resolve(), path.resolve()
    return printable(str(resolved.relative_to(home)) if resolved.is_relative_to(home) else resolved.name)


def data_folders(root: Path) -> list[str]:
    """Names of folders below the root that look like data sets, as far as a browser can send them back."""
    home = root.resolve()
    nameable = (path for path in _search(home) if str(path.relative_to(home)).isprintable())
    found = [path for path, _ in zip(nameable, range(MAX_LISTED), strict=False)]
    return [display_path(home, path) for path in sorted(found)]


def _search(home: Path) -> Iterator[Path]:
    """Search breadth first and within limits, since the root may be a whole disk."""
    level, visited = [(home, "")], 0
    for _ in range(DEPTH):
        below: list[tuple[Path, str]] = []
        for folder, parent_layout in level:
            visited += 1
            if visited > MAX_VISITED:
                return
            layout = _layout(folder)
            # Inside a data set only its categories are data sets themselves: `train/` and `good/` would be misread.
            if layout and parent_layout in ("", layout):
                yield folder
            if not parent_layout:
                below += [(each, layout) for each in _subfolders(folder) if each.resolve().is_relative_to(home)]
        level = below


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


def first_sound_parts(folder: Path, most: int = PICTURES) -> list[tuple[str, str]]:
    """(name, picture as a data URI) of the first sound parts, taking the categories in turn."""
    _, samples = layouts.scan(folder)
    pictures: list[tuple[str, str]] = []
    for sample in _categories_in_turn([sample for sample in samples if not sample.defective]):
        try:
            picture = data_uri(overlay.thumbnail(read_image(sample.image), SIDE))
        except BadInput:
            continue  # the check reports it
        name = printable(sample.image.name)
        pictures.append((f"{sample.category}: {name}" if sample.category else name, picture))
        if len(pictures) == most:
            break
    return pictures


def _categories_in_turn(samples: list[Sample]) -> Iterator[Sample]:
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    for place in range(max(map(len, by_category.values()), default=0)):
        yield from (samples[place] for samples in by_category.values() if place < len(samples))
