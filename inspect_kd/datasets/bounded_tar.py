"""Open an untrusted tar archive with a limit on how many bytes of headers are read into memory.

Unusual here: reads are limited, not kinds of headers. `tarfile` reads a long name, a PAX header or the map of a sparse file
into memory whole, and 700 MB of them compress to a few hundred kilobytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from inspect_kd.errors import BadInput

PACKINGS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""Functions that open a compressed archive, by its first bytes."""
RESERVE, PER_MEMBER = 2**20, 2**12
"""Bytes of headers that an archive may have: a fixed amount, and more for each member."""


@contextmanager
def open_tar(packed: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed or not."""
    with packed.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        opener = next((opener for magic, opener in PACKINGS.items() if head.startswith(magic)), None)
        with opener(file) if opener else file as content, BoundedTar(content, packed) as tar:
            yield tar


class BoundedTar(tarfile.TarFile):
    """A tar file whose headers are read through a `HeaderReader`."""

    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.headers = HeaderReader(content, packed)
        fileobj: Any = self.headers  # opened for reading, so the missing `write` is not used
        super().__init__(fileobj=fileobj)

    def next(self) -> tarfile.TarInfo | None:
        """Read the headers of the next member."""
        self.headers.left += PER_MEMBER
        self.headers.is_bounded = True
        try:
            return super().next()
        finally:
            self.headers.is_bounded = False


class HeaderReader:
    """The file object of a tar archive; while headers are read, at most `left` bytes are returned."""

    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.content, self.packed = content, packed
        self.left, self.is_bounded = RESERVE, False
        self.seek, self.tell = content.seek, content.tell

    def read(self, size: int = -1) -> bytes:
        if self.is_bounded:
            if not 0 <= size <= self.left:
                raise BadInput(f"{self.packed}: headers of more than {RESERVE} bytes: an archive bomb; refused")
            self.left -= size
        return self.content.read(size)
