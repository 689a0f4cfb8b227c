"""Open an untrusted tar archive with a limit on how many bytes of headers are read into memory.

Unusual here: reads are limited, not kinds of headers. `tarfile` reads a long name, a PAX header or the map of a sparse file
into memory whole, and 700 MB of them compress to a few hundred kilobytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from inspect_kd.errors import BadInput

PACKINGS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""Functions that open a compressed archive, by its first bytes."""
RESERVE, PER_MEMBER = 2**20, 2**12
"""Bytes that all headers of an archive may have: once, and again for each member, but never more than the former at once."""
MAX_HEADER_BYTES = 2**14
"""Bytes of a single one: of a long name or of a PAX header."""
MAX_GLOBAL_KEYS = 100
"""Of PAX headers that hold for all members: `tarfile` copies them into each."""
MAX_SPARSE_PARTS = 100_000
"""Of all members together: a part takes a hundred times as much memory as space in the archive."""
_MANY_DIGITS = re.compile(rb"[0-9]{65}")
"""In a run of digits `tarfile` searches for the end of a number from each of them anew (CVE-2024-6232)."""


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
        self.headers, self.sparse_parts = HeaderReader(content, packed), 0
        fileobj: Any = self.headers  # a file that is only read is never asked to write
        super().__init__(fileobj=fileobj)

    def next(self) -> tarfile.TarInfo | None:
        """Read the headers of the next member."""
        self.headers.left = min(self.headers.left + PER_MEMBER, RESERVE)
        self.headers.is_bounded = True
        try:
            member = super().next()
        finally:
            self.headers.is_bounded = False
        self._bound_memory(member)
        return member

    def _bound_memory(self, member: tarfile.TarInfo | None) -> None:
        """Drop what a member keeps of its headers once they are read, and bound what cannot be dropped."""
        if len(self.pax_headers) > MAX_GLOBAL_KEYS:
            raise BadInput(
                f"{self.headers.packed}: global headers of more than {MAX_GLOBAL_KEYS} keys: an archive bomb; refused"
            )
        if member is None:
            return
        member.pax_headers = {}
        self.sparse_parts += len(getattr(member, "sparse", None) or ())
        if self.sparse_parts > MAX_SPARSE_PARTS:
            raise BadInput(
                f"{self.headers.packed}: more than {MAX_SPARSE_PARTS} parts of sparse files: an archive bomb; refused"
            )


class HeaderReader:
    """The file object of a tar archive; while headers are read, at most `left` bytes are returned."""

    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.content, self.packed = content, packed
        self.left, self.is_bounded = RESERVE, False
        self.seek, self.tell = content.seek, content.tell

    def read(self, size: int = -1) -> bytes:
        if self.is_bounded:
            if not 0 <= size <= min(self.left, MAX_HEADER_BYTES):
                most = RESERVE if size > self.left else MAX_HEADER_BYTES
                raise BadInput(f"{self.packed}: headers of more than {most} bytes: an archive bomb; refused")
            self.left -= size
        content = self.content.read(size)
        if self.is_bounded and _MANY_DIGITS.search(content):
            raise BadInput(f"{self.packed}: a header with more than 64 digits in a row: an archive bomb; refused")
        return content
