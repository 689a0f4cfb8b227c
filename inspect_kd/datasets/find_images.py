"""Find images below a folder or by a pattern; a folder that cannot be read is an error.

`Path.rglob` and `glob.glob` silently skip such a folder, so its parts would go uninspected without notice.
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
    """Yield all files below a folder, and links to files. A link to a folder elsewhere is an error."""
    for folder, folders, names in os.walk(root, onerror=_raise_error):
        for name in folders:
            _check_link(Path(folder, name), root)
        for path in (Path(folder, name) for name in names):
            if path.is_symlink():
                _stat(
                    path
                )  # raises if the target cannot be checked: it may be a folder, whose images would be left out
            yield path


def find_by_pattern(pattern: str) -> list[Path]:
    """List the paths that match a pattern with `*`, `?`, `[…]` or `**`, sorted."""
    path = Path(pattern)
    components = path.parts[1:] if path.anchor else path.parts
    return sorted(set(_matches(Path(path.anchor), components)))


def _matches(folder: Path, components: tuple[str, ...]) -> Iterator[Path]:
    """Yield the paths in a folder that match the components of a pattern. As in shells, `*` matches no leading dot."""
    component, rest = components[0], components[1:]
    if component == "**":
        yield from _matches_at_any_depth(folder, rest)
    elif not glob.has_magic(component):
        found = folder / component
        if rest:
            yield from _matches(found, rest) if _is_folder(found) else ()
        elif _stat(found, follow_symlinks=False) is not None:
            yield found
    else:
        is_match = re.compile(fnmatch.translate(os.path.normcase(component))).match
        for name in os.listdir(folder):  # noqa: PTH208  (keeps names in the current folder without a prefix)
            if is_match(os.path.normcase(name)) and (component.startswith(".") or not name.startswith(".")):
                found = folder / name
                if not rest:
                    yield found
                elif _is_folder(found):
                    yield from _matches(found, rest)


def _matches_at_any_depth(root: Path, rest: tuple[str, ...]) -> Iterator[Path]:
    """Yield the matches of `**/rest`: those of `rest` in this folder and every folder below it, or all files if `rest` is empty."""
    for folder, folders, names in os.walk(root, onerror=_raise_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            _check_link(Path(folder, name), root)
        if rest:
            yield from _matches(Path(folder), rest)
        else:
            yield from (Path(folder, name) for name in names if not name.startswith("."))


def _check_link(folder: Path, root: Path) -> None:
    """Refuse a link to a folder outside of `root`: following it might never end, and skipping it would leave images out."""
    if folder.is_symlink() and not folder.resolve().is_relative_to(root.resolve()):
        raise BadInput(
            f"{folder}: a link to the folder {folder.resolve()}, which is not searched; name that folder itself"
        )


def _is_folder(path: Path) -> bool:
    status = _stat(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result | None:
    """Return a path's status, None if it is missing; raise if a folder on it cannot be read, where `Path.is_dir` returns False."""
    try:
        return path.stat(follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in MISSING | {errno.ELOOP}:
            return None
        raise


def _raise_error(error: OSError) -> None:
    raise error
