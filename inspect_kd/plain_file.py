"""Open or read a file that somebody else may have placed: a regular file of a bounded size, never a pipe or a device.

The checks are made on the opened file, so that it cannot be exchanged between a check and the reading.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from inspect_kd.errors import BadInput

MISSING = {errno.ENOENT, errno.ENOTDIR}


class MissingFile(BadInput):
    """There is no such file."""


def open_plain_file(path: Path, what: str, *, follow_links: bool = True) -> BinaryIO:
    """Open for reading; BadInput where it is no regular file. `what` names the kind of file in messages.

    `follow_links=False` refuses a symbolic link in the place of the file itself; links to its folder are followed.
    """
    # Without O_NONBLOCK the opening of a named pipe waits for a writer.
    extra = getattr(os, "O_NONBLOCK", 0) | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0))
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | extra))  # noqa: SIM115
    except IsADirectoryError:
        raise _not_regular(path, what) from None
    except ValueError:
        # A zero byte in the name.
        raise MissingFile(f"{path}: no such {what}") from None
    except OSError as error:
        if error.errno in MISSING:
            raise MissingFile(f"{path}: no such {what}") from None
        if error.errno == errno.ELOOP:
            raise BadInput(
                f"{path}: is a symbolic link, which is not followed here; put the {what} itself there"
            ) from None
        if error.errno == errno.ENXIO:
            raise _not_regular(path, what) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(path, what)
    return file


def read_plain_file(path: Path, what: str, largest: int, *, follow_links: bool = True) -> bytes:
    """The bytes of a regular file of at most `largest` bytes; of a file that grows, those it had when it was opened."""
    with open_plain_file(path, what, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise BadInput(f"{path}: {size} bytes is no {what}; at most {largest} are read")
        return file.read(size)


def _not_regular(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: no such {what}: not a regular file")


def open_to_append(path: Path, what: str) -> BinaryIO:
    """Open for further lines, made where it is missing. BadInput where they would go elsewhere: a link of either kind, a pipe."""
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = open(path, "ab", opener=lambda name, flags: os.open(name, flags | extra, 0o666))  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _leads_elsewhere(path, what) from None
        raise
    facts = os.fstat(file.fileno())
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        file.close()
        raise _leads_elsewhere(path, what)
    return file


def _leads_elsewhere(path: Path, what: str) -> BadInput:
    return BadInput(f"{path}: a link, a pipe or a device in the place of the {what}; remove it")
