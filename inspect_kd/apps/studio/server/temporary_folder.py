"""Temporary folders that the next start removes if their process was killed.

Each folder is locked as long as its process runs; the operating system releases the lock when the process ends, however
it ends. A process id in the name would not identify it: ids are used again, and containers on one disk use the same ids.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

LOCK = ".lock"


class TemporaryFolder:
    """A new folder of this process; abandoned folders with the same prefix are removed first."""

    def __init__(self, prefix: str) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            with suppress(OSError):  # it belongs to another user, or has just been removed
                remove_if_abandoned(folder)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        descriptor = os.open(self.path / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        lock_file(descriptor)
        self.close = weakref.finalize(self, remove_folder, self.path, descriptor)
        """Also called when the program ends, so that a failed start leaves no folder."""


def remove_folder(folder: Path, descriptor: int) -> None:
    """Remove a folder, then release its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of this user that no process has locked; OSError if it has no lock file yet."""
    if not hasattr(os, "geteuid") or folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
        return
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        lock_file(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def lock_file(descriptor: int) -> None:
    """Lock an open file for this process; OSError if another process has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows, where `remove_if_abandoned` removes nothing
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
