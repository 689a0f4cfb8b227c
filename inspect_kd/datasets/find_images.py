"""Find images below a folder or by a pattern; a folder that cannot be read is an error.

`Path.rglob` and `glob.glob` silently skip such a folder, and its parts would seem to have been inspected.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from inspect_kd.datasets.images import IMAGE_SUFFIXES


def find_in_folder(root: Path) -> list[Path]:
    """List all images below a folder, sorted."""
    return sorted(path for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES)


def files_below(root: Path) -> Iterator[Path]:
    """Yield all files below a folder, and links to files; links to folders are not followed."""
    for folder, _, names in os.walk(root, onerror=_raise):
        yield from (Path(folder, name) for name in names)


def find_by_pattern(pattern: str) -> list[Path]:
    """List the paths that a pattern with `*`, `?`, `[…]` or `**` matches, sorted."""
    for folder in _searched_folders(pattern):
        os.scandir(folder).close()  # raises if the folder cannot be read
    return sorted(map(Path, _expand(pattern)))


def _searched_folders(pattern: str) -> Iterator[str]:
    """Yield every folder whose entries are compared with the pattern."""
    path = Path(pattern)
    for part in (path, *path.parents):
        if glob.has_magic(part.name):
            yield from [folder for folder in _expand(str(part.parent)) if os.path.isdir(folder)]  # noqa: PTH112


def _expand(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute patterns)


def _raise(error: OSError) -> None:
    raise error
