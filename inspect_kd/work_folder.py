"""A temporary folder beside a result, from which the finished file or folder is moved into place in one step.

Folders of killed processes are removed later. Unusual here: a folder is removed only if it holds this program's marker file,
because a user's own folder may have a matching name.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

PREFIX, MARKER = ".inspect-kd-", ".temporary-folder-of-inspect-kd"
DAY_S = 24 * 3600


@contextlib.contextmanager
def work_folder(parent: Path, purpose: str, *, abandoned_after_s: float = DAY_S) -> Iterator[Path]:
    """Create a folder that only this user can enter, and remove it at the end of the block.

    Folders of the same purpose that are older than `abandoned_after_s` count as left behind by killed processes.
    """
    prefix = f"{PREFIX}{purpose}-"
    _remove_abandoned(parent, prefix, abandoned_after_s)
    with TemporaryDirectory(prefix=prefix, dir=parent) as folder:
        (Path(folder) / MARKER).touch()
        yield Path(folder)


def _remove_abandoned(parent: Path, prefix: str, age_s: float) -> None:
    for folder in parent.glob(f"{prefix}*"):
        # Another process may be removing it at the same time.
        with contextlib.suppress(OSError):
            is_old = time.time() - folder.lstat().st_mtime > age_s
            if is_old and _has_marker(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _has_marker(folder: Path) -> bool:
    """True for a folder with the marker in it, but not for a link to one."""
    return stat.S_ISDIR(folder.lstat().st_mode) and stat.S_ISREG((folder / MARKER).lstat().st_mode)
