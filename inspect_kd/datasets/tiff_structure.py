"""Parse the directories of a TIFF file without decoding it. Exif data and multi-picture JPEG indexes have this format too."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from inspect_kd.errors import BadInput

EXIF_MARK = b"Exif\0\0"
"""Marks the beginning of Exif data in a JPEG. Pillow skips any number of these marks, copying the remaining data each time."""
MAX_EXIF_MARKS = 8
ALWAYS_ACCEPTED_BYTES = 2**20
"""Bytes of all values together that are accepted however small the file is, since some writers let tags share a value."""
MAX_DIRECTORIES, MAX_TAGS, MAX_NUMBERS = 64, 4096, 64
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type; 1 for other types."""
_NUMBERS = {3: "H", 4: "L", 16: "Q"}
"""Struct formats of the types that hold a size: SHORT, LONG, LONG8."""

_OFFSETS = {**_NUMBERS, 8: "H", 9: "L", 13: "L"}
"""Struct formats of the types that Pillow accepts for the offset of a directory: also SSHORT, SLONG and IFD."""
_LINKS = {330, 34665, 34853, 40965}
"""Tags that hold the offset of another directory: SubIFDs, Exif, GPS and Interoperability."""


class DirectoryEntry(NamedTuple):
    """One tag of a directory: the type, count and file offset of its values."""

    kind: int
    value_count: int
    offset: int


class Directory(NamedTuple):
    """The tags of one image in the file."""

    entries: dict[int, DirectoryEntry]
    has_duplicate_tag: bool
    next: int
    """Offset of the next directory; 0 for the last one."""


class Tiff:
    """Reader of a TIFF file's header and directories; an offset beyond the file raises struct.error."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = ">" if data[:2] == b"MM" else "<"
        if data[:4] == b"MM\0\x2b":
            raise ValueError("big-endian BigTIFF is not read")  # Pillow and libtiff interpret it differently
        self.is_big = data[2] == 43
        self._layout = ("Q", "Q", 8) if self.is_big else ("H", "L", 4)
        """Struct formats of the tag count and of an offset, and the number of bytes of values that an entry can hold itself."""
        self.first_offset = self.read("Q", 8) if self.is_big else self.read("L", 4)

    def read(self, form: str, offset: int) -> int:
        """Read one integer in the file's byte order."""
        if offset > len(self.data):
            # Without this check struct would raise another error for huge offsets.
            raise struct.error(f"an offset beyond the end of the file: {offset}")
        value: int = struct.unpack_from(self.order + form, self.data, offset)[0]
        return value

    def number(self, directory: Directory, tag: int, default: int) -> int:
        """Return the single integer of a tag, or the default if the tag is missing."""
        numbers = self.numbers(directory, tag, (default,))
        if len(numbers) != 1:
            raise ValueError(f"tag {tag} is not a single number")
        return numbers[0]

    def numbers(self, directory: Directory, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return all integers of a tag, at most MAX_NUMBERS, or the default if the tag is missing."""
        entry = directory.entries.get(tag)
        if entry is None:
            return default
        if entry.kind not in _NUMBERS or not 1 <= entry.value_count <= MAX_NUMBERS:
            raise ValueError(
                f"tag {tag} is not an integer of type SHORT, LONG or LONG8"
                if entry.value_count == 1
                else f"tag {tag} is not a short list"
            )
        form = _NUMBERS[entry.kind]
        step = struct.calcsize(f"={form}")
        return tuple(self.read(form, entry.offset + step * index) for index in range(entry.value_count))

    def all_numbers(self, directory: Directory, tag: int, count: int) -> tuple[int, ...]:
        """Return the integers of a tag that must have exactly `count` of them, without the limit of `numbers`."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS or entry.value_count != count:
            raise ValueError(f"tag {tag} has {entry.value_count if entry else 0} values, expected {count}")
        if entry.offset > len(self.data):
            raise struct.error(f"an offset beyond the end of the file: {entry.offset}")
        return struct.unpack_from(f"{self.order}{count}{_NUMBERS[entry.kind]}", self.data, entry.offset)

    def directories(self) -> Iterator[Directory]:
        """Yield the directory of each image, in the file's order."""
        visited: set[int] = set()
        at = self.first_offset
        while at and at not in visited:
            if len(visited) == MAX_DIRECTORIES:
                raise ValueError(f"more than {MAX_DIRECTORIES} directories")
            visited.add(at)
            directory = self._directory(at)
            yield directory
            at = directory.next

    def value_bytes(self) -> int:
        """Count the bytes that a reader allocates when it copies all values of all directories.

        Many tags may refer to the same bytes, so a small file can need gigabytes. A broken directory counts as far as it can
        be read.
        """
        total, visited, pending = 0, set[int](), [self.first_offset]
        while pending:
            at = pending.pop()
            if not at or at in visited:
                continue
            if len(visited) == MAX_DIRECTORIES:
                raise ValueError(f"more than {MAX_DIRECTORIES} directories")
            visited.add(at)
            try:
                for tag, entry in self._entries(at):
                    size = _BYTES.get(entry.kind, 1) * entry.value_count
                    total += min(size, max(0, len(self.data) - entry.offset))
                    if tag in _LINKS and entry.kind in _OFFSETS and entry.value_count == 1:
                        pending.append(self.read(_OFFSETS[entry.kind], entry.offset))
            except struct.error:
                continue
        return total

    def _directory(self, at: int) -> Directory:
        listed = list(self._entries(at))
        entries = dict(listed)
        count_form, offset_form, inline_size = self._layout
        end = at + struct.calcsize(f"={count_form}") + len(listed) * (4 + 2 * inline_size)
        # Some writers end the file before the offset of the next directory.
        following = self.read(offset_form, end) if end + inline_size <= len(self.data) else 0
        return Directory(entries, len(entries) < len(listed), following)

    def _entries(self, at: int) -> Iterator[tuple[int, DirectoryEntry]]:
        """Yield (tag, entry) for each tag of the directory at this offset."""
        count_form, offset_form, inline_size = self._layout
        count = self.read(count_form, at)
        if count > MAX_TAGS:
            raise ValueError(f"a directory of {count} tags")
        at += struct.calcsize(f"={count_form}")
        head = struct.Struct(f"{self.order}HH{offset_form}")
        for _ in range(count):
            tag, kind, value_count = head.unpack_from(self.data, at)
            offset = at + head.size
            if _BYTES.get(kind, 1) * value_count > inline_size:
                offset = self.read(offset_form, offset)
            yield tag, DirectoryEntry(kind, value_count, offset)
            at += head.size + inline_size


def check_values(data: bytes, name: str) -> None:
    """Refuse TIFF directories whose values are far larger than the data itself, because Pillow copies each value."""
    if data.startswith(EXIF_MARK * MAX_EXIF_MARKS):
        raise BadInput(f"{name}: Exif data that begins with {MAX_EXIF_MARKS} marks or more; refused before decoding")
    while data.startswith(EXIF_MARK):
        data = data[len(EXIF_MARK) :]
    try:
        total = Tiff(data).value_bytes()
    except (struct.error, LookupError):
        return  # not a readable directory
    except ValueError as error:
        raise BadInput(f"{name}: broken or truncated (its TIFF or Exif directory: {error})") from error
    if total > max(ALWAYS_ACCEPTED_BYTES, 2 * len(data)):
        raise BadInput(
            f"{name}: TIFF or Exif tags of {total} bytes in {len(data)}, because many refer to the same bytes; "
            "refused before decoding"
        )
