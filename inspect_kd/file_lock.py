"""One process at a time: a lock that the system releases when its process ends, however it ends.

The lock is `flock` on a file; what is written into the file only says to others who holds it. Where the system has no `flock`
(Windows) nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from inspect_kd import strict_json
from inspect_kd.errors import EnvironmentFault, file_named

TRIES = 100
"""For a file that its former holder removes between our opening and our locking it."""
LARGEST = 4096
"""Bytes of such a file that are read."""
UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}
"""What `flock` says on a file system that has no locks."""


@contextlib.contextmanager
def hold_lock(file: Path, subject: str, way_out: str) -> Iterator[None]:
    """Hold a lock for the time of a block; where another process holds it, raise `<subject> is in use by …: <way_out>`."""
    if sys.platform == "win32":
        yield
        return
    made_folder = not file.parent.exists()
    try:
        handle = _locked(file)
    except BlockingIOError:
        raise EnvironmentFault(f"{subject} is in use by {_holder(file)}: {way_out}") from None
    except OSError as error:
        if error.errno in UNSUPPORTED:
            way_out = "its file system has no locks, choose a folder on another one"
        raise EnvironmentFault(f"{file}: no lock could be taken ({error.strerror}): {way_out}") from error
    try:
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with file_named(file):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(about).encode())
        yield
    finally:
        _release(handle, file, remove_folder=made_folder)


def _locked(file: Path) -> int:
    """A handle of the file that lies there now, locked. It is closed in programs that this process starts."""
    import fcntl

    for _ in range(TRIES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Never through a link: the file is emptied. For writing: network file systems want it so. No wait for a pipe.
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except FileNotFoundError:
            continue  # the former holder has removed the empty folder
        try:
            _refuse_other_kinds(handle, file)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        if _lies_at(handle, file):
            return handle
        os.close(handle)
    raise EnvironmentFault(f"{file}: other processes keep removing it; try again")


def _refuse_other_kinds(handle: int, file: Path) -> None:
    """The file is emptied: one that has a second name holds something else, and a pipe or a device is no file."""
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        raise EnvironmentFault(f"{file}: not a lock's file: a pipe, a device or a hard link; remove it")


def _release(handle: int, file: Path, *, remove_folder: bool) -> None:
    """Remove the file while it is still locked; of a folder that was made for it, nothing stays behind either."""
    with contextlib.suppress(OSError):
        if _lies_at(handle, file):
            file.unlink()
    os.close(handle)
    if remove_folder:
        with contextlib.suppress(OSError):
            file.parent.rmdir()


def _lies_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    """Who holds it, as the file says."""
    try:
        with file.open("rb") as opened:
            about = strict_json.loads(opened.read(LARGEST))
        return f"process {int(about['pid'])} on {str(about['host'])[:80]} since {str(about['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
