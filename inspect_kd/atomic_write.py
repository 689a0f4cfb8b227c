"""Write a file whole or not at all: readers see the former content or the new one, and a failed write leaves nothing behind.

The content goes into a partial file beside the target; then the partial file is renamed. Its name is random, and it is opened
once, with O_EXCL and O_NOFOLLOW, so nothing is written through a link that someone else has made.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from inspect_kd.errors import name_file_in_errors

SUFFIX = ".partial"
PARTIAL_NAME = re.compile(r"\..+\.[0-9a-f]{16}\.partial", re.DOTALL)
"""Names of this program's partial files; the suffix alone would also match other programs' files."""
ABANDONED_AFTER_S = 3600
"""Age from which a partial file counts as left behind by a killed process."""
MAX_NAME_LENGTH = 50
"""Characters of the target's name in its partial file's name, so that it stays below a file system's 255 bytes."""


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a text as UTF-8, with unchanged line ends.

    A lone surrogate (from a file name that is not UTF-8) is written as `\\udcXX`, from which JSON readers restore it.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), mode=mode)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write bytes. `mode`: permissions before the umask; `durable=False` skips the fsync, for files that can be rebuilt."""
    with partial_file(path, mode=mode, durable=durable) as partial:
        partial.write(content)


@contextlib.contextmanager
def partial_file(path: Path, *, mode: int = 0o666, durable: bool = True) -> Iterator[BinaryIO]:
    """Create an empty file beside `path`, open for writing; it replaces `path` at the end of the block."""
    partial = path.with_name(f".{path.name[:MAX_NAME_LENGTH]}.{secrets.token_hex(8)}{SUFFIX}")
    handle = _create(partial, mode)
    try:
        with name_file_in_errors(path):
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(handle)
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def move_into_place(file: Path, path: Path) -> None:
    """Replace `path` by a finished file of the same file system, once its content is on the disk."""
    with name_file_in_errors(path):
        _flush(file)
        file.replace(path)


def write_new(path: Path, content: bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Write a file that must not exist yet (FileExistsError); a failed write removes it, so that it can be tried again.

    `durable=False` skips the fsync, for files that can be rebuilt.
    """
    handle = _create(path, mode)
    try:
        with name_file_in_errors(path), os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def remove_abandoned(folder: Path) -> None:
    """Remove partial files of killed processes."""
    for partial in folder.glob(f"*{SUFFIX}"):
        # Another process may be cleaning up as well, and a folder of that name cannot be unlinked.
        with contextlib.suppress(OSError):
            if PARTIAL_NAME.fullmatch(partial.name) and time.time() - partial.lstat().st_mtime > ABANDONED_AFTER_S:
                partial.unlink()


def _create(path: Path, mode: int) -> int:
    # O_NOFOLLOW and O_BINARY each exist on some systems only.
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, mode)


def _flush(path: Path) -> None:
    """Wait until the content is on the disk; otherwise a power cut can leave an empty file under the new name."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
