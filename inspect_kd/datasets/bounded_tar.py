"""Open a tar archive whose headers may be hostile: how much of them is read into memory is bounded.

Unusual here: reads are bounded, not kinds of headers. `tarfile` reads a long name, a PAX header or the map of a sparse file
into memory whole, whatever length the archive gives, and 700 MB of them are packed into a few hundred kilobytes.
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
"""How a packed archive is opened, by its first bytes."""
RESERVE, PER_MEMBER = 2**20, 2**12
"""Bytes that all headers of an archive may have: once, and again for each member."""


@contextmanager
def open_tar(packed: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive, packed or not."""
    with packed.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        opener = next((opener for magic, opener in PACKINGS.items() if head.startswith(magic)), None)
        with opener(file) if opener else file as content, BoundedTar(content, packed) as tar:
            yield tar


class BoundedTar(tarfile.TarFile):
    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.headers = HeaderReader(content, packed)
        fileobj: Any = self.headers  # a file that is only read is never asked to write
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
    """What a tar archive is read from. While headers are read, no more than `left` bytes are."""

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
