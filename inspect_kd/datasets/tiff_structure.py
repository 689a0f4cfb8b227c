"""The directories of a TIFF file, read without decoding a pixel: how many images it holds, and how large their tiles are.

Unusual here: a tag that stands twice is refused. Pillow takes the last one and libtiff the first, so a check of one of them
would prove nothing of the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from inspect_kd.errors import BadInput

SUBFILE_TYPE, TILE_WIDTH, TILE_LENGTH, SUB_DIRECTORIES = 254, 322, 323, 330
REDUCED, MASK = 1, 4
"""Bits of SUBFILE_TYPE: a smaller copy of another image in the file, or the transparency of one."""
MOST_DIRECTORIES, MOST_TAGS = 64, 4096
SMALL_TILE = 2**24
"""Pixels of a tile that are accepted whatever the image's size is: writers pad small images to whole tiles."""
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value, by the number of its type; of all others one."""
_NUMBERS = {3: "H", 4: "L", 16: "Q"}
"""The types that hold a size: SHORT, LONG, LONG8."""


class Entry(NamedTuple):
    """One tag of a directory: the type and number of its values, and where they begin in the file."""

    kind: int
    length: int
    place: int


class Directory(NamedTuple):
    """One image of the file."""

    entries: dict[int, Entry]
    has_duplicate_tag: bool
    next: int
    """Where the next directory begins; 0: this is the last one."""


class Tiff:
    """A TIFF file's header and directories; a place outside of the file raises struct.error."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = ">" if data[:2] == b"MM" else "<"
        if data[:4] == b"MM\0\x2b":
            raise ValueError("big-endian BigTIFF is not read")  # Pillow and libtiff disagree on it
        self.is_big = data[2] == 43
        self.first = self.read("Q", 8) if self.is_big else self.read("L", 4)

    def read(self, form: str, place: int) -> int:
        """One whole number of the file, in the file's byte order."""
        if place > len(self.data):
            raise struct.error(f"a place beyond the end of the file: {place}")  # it may not even fit into Python's own
        value: int = struct.unpack_from(self.order + form, self.data, place)[0]
        return value

    def number(self, directory: Directory, tag: int, otherwise: int) -> int:
        """The single whole number of a tag."""
        entry = directory.entries.get(tag)
        if entry is None:
            return otherwise
        if entry.kind not in _NUMBERS or entry.length != 1:
            raise ValueError(f"tag {tag} is no single number")
        return self.read(_NUMBERS[entry.kind], entry.place)

    def directories(self) -> Iterator[Directory]:
        """One for each image, in the order of the file."""
        seen: set[int] = set()
        at = self.first
        while at and at not in seen:
            if len(seen) == MOST_DIRECTORIES:
                raise ValueError(f"more than {MOST_DIRECTORIES} directories")
            seen.add(at)
            directory = self._directory(at)
            yield directory
            at = directory.next

    def _directory(self, at: int) -> Directory:
        count_form, place_form, room = ("Q", "Q", 8) if self.is_big else ("H", "L", 4)
        count = self.read(count_form, at)
        if count > MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        at += struct.calcsize(f"={count_form}")
        head = struct.Struct(f"{self.order}HH{place_form}")
        entries: dict[int, Entry] = {}
        for _ in range(count):
            tag, kind, number = head.unpack_from(self.data, at)
            place = at + head.size
            if _BYTES.get(kind, 1) * number > room:
                place = self.read(place_form, place)
            entries[tag] = Entry(kind, number, place)
            at += head.size + room
        # Some writers end the file before the place of the next directory.
        following = self.read(place_form, at) if at + room <= len(self.data) else 0
        return Directory(entries, len(entries) < count, following)


def check_tiff(data: bytes, size: tuple[int, int], name: str) -> None:
    """Refuse several images, tiles that are larger than the image, and tags that two readers would read differently."""
    try:
        tiff = Tiff(data)
        first, *others = tiff.directories()
        if first.has_duplicate_tag:
            raise ValueError("a tag stands twice")
        tile = tiff.number(first, TILE_WIDTH, 0), tiff.number(first, TILE_LENGTH, 0)
        kinds = [tiff.number(each, SUBFILE_TYPE, 0) for each in (first, *others)]
    except (struct.error, ValueError) as error:
        raise BadInput(f"{name}: broken or truncated (its TIFF directory: {error})") from error
    # A tile's sides are multiples of 16: a single one may reach beyond its image by that much.
    padded = -(-size[0] // 16) * 16 * -(-size[1] // 16) * 16
    if tile[0] * tile[1] > max(SMALL_TILE, padded):
        raise BadInput(
            f"{name}: {size[0]}x{size[1]} pixels in TIFF tiles of {tile[0]}x{tile[1]}; refused before decoding"
        )
    if kinds[0] & REDUCED and (others or SUB_DIRECTORIES in first.entries):
        raise BadInput(f"{name}: the first image of this TIFF is only a preview of another; save the full image alone")
    # Previews, the levels of a pyramid and masks belong to the first image; what else follows is a picture of its own.
    if not all(kind & (REDUCED | MASK) for kind in kinds[1:]):
        raise BadInput(f"{name}: a TIFF of several images, only one of which would be inspected; save each one alone")
