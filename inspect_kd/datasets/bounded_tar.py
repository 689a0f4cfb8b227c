"""Open an untrusted tar archive with a limit on how many bytes of headers are read into memory.

Unusual here: the bytes read are limited, not the kinds of headers. `tarfile` reads a long name, a PAX header or the
map of a sparse file into memory as a whole, and 700 MB of them compress to a few hundred kilobytes.
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

OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""Functions that open a compressed archive, by its first bytes."""
MAX_BUDGET, BUDGET_PER_MEMBER = 2**20, 2**12
"""Bytes of headers that may be read: an archive begins with the maximum, and each member adds to what is left of it."""
MAX_HEADER_BYTES = 2**14
"""Most bytes of one long name or PAX header."""
MAX_GLOBAL_KEYS = 100
"""Most keys of global PAX headers; `tarfile` copies them into each member."""
MAX_SPARSE_BLOCKS = 100_000
"""Most blocks of sparse files in an archive; a block takes a hundred times more memory than space in the archive."""
_MANY_DIGITS = re.compile(rb"[0-9]{65}")
"""`tarfile` takes quadratic time for a long run of digits (CVE-2024-6232)."""


@contextmanager
def open_tar(packed: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, compressed or not."""
    with packed.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
        with opener(file) if opener else file as content, BoundedTar(content, packed) as tar:
            yield tar


class BoundedTar(tarfile.TarFile):
    """A tar file whose headers are read through a `HeaderReader`."""

    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.headers, self.sparse_blocks = HeaderReader(content, packed), 0
        fileobj: Any = self.headers  # without `write`, which is not called when reading
        super().__init__(fileobj=fileobj)

    def next(self) -> tarfile.TarInfo | None:
        """Read the headers of the next member."""
        self.headers.budget = min(self.headers.budget + BUDGET_PER_MEMBER, MAX_BUDGET)
        self.headers.is_bounded = True
        try:
            member = super().next()
        finally:
            self.headers.is_bounded = False
        self._limit_memory(member)
        return member

    def _limit_memory(self, member: tarfile.TarInfo | None) -> None:
        """Drop a member's PAX headers, which are not needed, and limit the data that must be kept."""
        if len(self.pax_headers) > MAX_GLOBAL_KEYS:
            raise BadInput(
                f"{self.headers.packed}: global headers of more than {MAX_GLOBAL_KEYS} keys: an archive bomb; refused"
            )
        if member is None:
            return
        member.pax_headers = {}
        self.sparse_blocks += len(getattr(member, "sparse", None) or ())
        if self.sparse_blocks > MAX_SPARSE_BLOCKS:
            raise BadInput(
                f"{self.headers.packed}: more than {MAX_SPARSE_BLOCKS} blocks of sparse files: an archive bomb; refused"
            )


class HeaderReader:
    """The file object of a tar archive; while headers are read, at most `budget` bytes are returned."""

    def __init__(self, content: IO[bytes], packed: Path) -> None:
        self.content, self.packed = content, packed
        self.budget, self.is_bounded = MAX_BUDGET, False
        self.seek, self.tell = content.seek, content.tell

    def read(self, size: int = -1) -> bytes:
        if self.is_bounded:
            if not 0 <= size <= min(self.budget, MAX_HEADER_BYTES):
                limit = MAX_BUDGET if size > self.budget else MAX_HEADER_BYTES
                raise BadInput(f"{self.packed}: headers of more than {limit} bytes: an archive bomb; refused")
            self.budget -= size
        content = self.content.read(size)
        if self.is_bounded and _MANY_DIGITS.search(content):
            raise BadInput(f"{self.packed}: a header with more than 64 digits in a row: an archive bomb; refused")
        return content
