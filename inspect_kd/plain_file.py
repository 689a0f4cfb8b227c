"""Open or read untrusted files: only regular files of limited size, never pipes or devices.

The opened file is checked, not its path, so that it cannot be replaced between check and read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from inspect_kd.errors import BadInput

MISSING = {errno.ENOENT, errno.ENOTDIR}
"""Error numbers of a path at which nothing exists."""


class MissingFile(BadInput):
    """The file does not exist."""


def open_plain_file(path: Path, what: str, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading; raise BadInput for anything else. `what` is the kind of file, for messages.

    `follow_links=False` refuses a symbolic link in the place of the file; links among its parent folders are followed.
    """
    # Without O_NONBLOCK, opening a named pipe waits for a writer.
    extra_flags = getattr(os, "O_NONBLOCK", 0) | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra_flags))  # noqa: SIM115
    except IsADirectoryError:
        raise _not_regular(path, what) from None
    except ValueError:
        # The name contains a null byte.
        raise MissingFile(f"{path}: no such {what}") from None
    except OSError as error:
        if error.errno in MISSING:
            raise MissingFile(f"{path}: no such {what}") from None
        if error.errno == errno.ELOOP:
            raise BadInput(
                f"{path}: is a symbolic link, which is not followed here; replace it by the {what} itself"
            ) from None
        if error.errno == errno.ENXIO:
            raise _not_regular(path, what) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(path, what)
    return file


def read_plain_file(path: Path, what: str, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file of at most `max_bytes`. Content that is appended after opening is not read."""
    with open_plain_file(path, what, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise BadInput(
                f"{path}: {size} bytes exceeds the limit of {max_bytes} bytes for this kind of file ({what})"
            )
        return file.read(size)


def _not_regular(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: no such {what}: not a regular file")


def open_to_append(path: Path, what: str) -> BinaryIO:
    """Open a file to append to, creating it if needed. Raise BadInput for a symbolic or hard link, a pipe or a device."""
    extra_flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = open(path, "ab", opener=lambda name, flags: os.open(name, flags | extra_flags, 0o666))  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_plain(path, what) from None
        raise
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        file.close()
        raise _not_plain(path, what)
    return file


def _not_plain(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: a link, a pipe or a device in the place of the {what}; remove it")
