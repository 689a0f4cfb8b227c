"""A lock that one process holds at a time; the system releases it when the process ends, even by a crash.

The lock is `flock` on a file. The file's content names the holder, for error messages only. Where the system has no `flock`
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
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from inspect_kd import strict_json
from inspect_kd.errors import EnvironmentFault, name_file_in_errors

MAX_TRIES = 100
"""Attempts to lock the file: its former holder may remove it after we opened it."""
MAX_BYTES = 4096
"""Limit for reading a lock file."""
MAX_HOLDER_WAIT_S = 2.0
"""Time that a holder gets to write its name into the file after locking it."""
NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}
"""Errors of `flock` on a file system that has no locks."""


@contextlib.contextmanager
def hold_lock(file: Path, subject: str, advice: str) -> Iterator[None]:
    """Hold a lock during a block; if another process holds it, raise an error: `<subject> is in use by <holder>: <advice>`."""
    if sys.platform == "win32":
        yield
        return
    is_new_folder = not file.parent.exists()
    try:
        handle = _open_locked(file)
    except BlockingIOError:
        raise EnvironmentFault(f"{subject} is in use by {_describe_holder(file)}: {advice}") from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            advice = "its file system has no locks, choose a folder on another one"
        raise EnvironmentFault(f"{file}: no lock could be taken ({error.strerror}): {advice}") from error
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with name_file_in_errors(file):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(holder).encode())
        yield
    finally:
        _release(handle, file, remove_folder=is_new_folder)


def _open_locked(file: Path) -> int:
    """Open and lock the file at this path; programs that this process starts do not inherit the handle."""
    import fcntl

    for _ in range(MAX_TRIES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # O_NOFOLLOW: the file will be truncated, so it must not be a link. O_RDWR: network file systems need it.
            # O_NONBLOCK: do not wait for a pipe.
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except FileNotFoundError:
            continue  # the former holder has removed the folder
        try:
            _refuse_special_files(handle, file)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        if _is_still_at(handle, file):
            return handle
        os.close(handle)
    raise EnvironmentFault(f"{file}: other processes keep removing it; try again")


def _refuse_special_files(handle: int, file: Path) -> None:
    """Refuse pipes, devices and hard links: the file is about to be truncated."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise EnvironmentFault(f"{file}: a pipe, a device or a hard link in the place of the lock file; remove it")


def _release(handle: int, file: Path, *, remove_folder: bool) -> None:
    """Remove the file while it is still locked, and the folder if it was made for the lock and is empty."""
    with contextlib.suppress(OSError):
        if _is_still_at(handle, file):
            file.unlink()
    os.close(handle)
    if remove_folder:
        with contextlib.suppress(OSError):
            file.parent.rmdir()


def _is_still_at(handle: int, file: Path) -> bool:
    """Whether the open file still lies at this path, and was neither removed nor replaced."""
    try:
        return os.path.samestat(os.fstat(handle), file.lstat())
    except FileNotFoundError:
        return False


def _describe_holder(file: Path) -> str:
    """Describe the process that the file names as the holder."""
    deadline = time.monotonic() + MAX_HOLDER_WAIT_S
    while True:
        try:
            with file.open("rb") as opened:
                holder = strict_json.loads(opened.read(MAX_BYTES))
            return f"process {int(holder['pid'])} on {str(holder['host'])[:80]} since {str(holder['since'])[:40]}"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return "another process"
        time.sleep(0.02)
