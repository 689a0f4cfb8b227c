"""Find images below a folder or by a pattern; a folder that cannot be read is an error.

`Path.rglob` and `glob.glob` silently skip such a folder, and its parts would seem to have been inspected.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from inspect_kd.datasets.images import IMAGE_SUFFIXES
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import MISSING


def find_in_folder(root: Path) -> list[Path]:
    """List all images below a folder, sorted."""
    return sorted(path for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES)


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, and links to files. A link to a folder elsewhere is an error."""
    for folder, folders, names in os.walk(root, onerror=_raise):
        for name in folders:
            _check_link(Path(folder, name), root)
        for path in (Path(folder, name) for name in names):
            if path.is_symlink():
                _stat(path)  # an error where it leads into a closed folder, and may be a folder itself
            yield path


def find_by_pattern(pattern: str) -> list[Path]:
    """Whatever a pattern with `*`, `?`, `[…]` or `**` matches, sorted."""
    path = Path(pattern)
    return sorted(set(_matches(Path(path.anchor), path.parts[bool(path.anchor) :])))


def _matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """What the parts of a pattern match in a folder; names that begin with a dot only where the pattern's part does."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches_at_any_depth(folder, rest)
    elif not glob.has_magic(part):
        found = folder / part
        if rest:
            yield from _matches(found, rest) if _is_folder(found) else ()
        elif _stat(found, follow_symlinks=False) is not None:
            yield found
    else:
        is_match = re.compile(fnmatch.translate(os.path.normcase(part))).match
        for name in os.listdir(folder):  # noqa: PTH208  (the current folder has no name to put before its files)
            if is_match(os.path.normcase(name)) and (part.startswith(".") or not name.startswith(".")):
                found = folder / name
                if not rest:
                    yield found
                elif _is_folder(found):
                    yield from _matches(found, rest)


def _matches_at_any_depth(root: Path, rest: tuple[str, ...]) -> Iterator[Path]:
    """What `**/rest` matches below a folder: `rest` in it and in every folder below it, or all their files without a rest."""
    for folder, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            _check_link(Path(folder, name), root)
        if rest:
            yield from _matches(Path(folder), rest)
        else:
            yield from (Path(folder, name) for name in names if not name.startswith("."))


def _check_link(folder: Path, root: Path) -> None:
    """Refuse a link that leads out of the folder that is searched: what is in it would be left out, or searched without end."""
    if folder.is_symlink() and not folder.resolve().is_relative_to(root.resolve()):
        raise BadInput(
            f"{folder}: a link to the folder {folder.resolve()}, which is not searched; name that folder itself"
        )


def _is_folder(path: Path) -> bool:
    about = _stat(path)
    return about is not None and stat.S_ISDIR(about.st_mode)


def _stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result | None:
    """None where nothing is; an error where nobody can tell: `Path.is_dir` calls what is in a closed folder missing."""
    try:
        return path.stat(follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in MISSING | {errno.ELOOP}:
            return None
        raise


def _raise(error: OSError) -> None:
    raise error
