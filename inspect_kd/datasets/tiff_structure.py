"""The directories of a TIFF file, read without decoding a pixel. Exif data and the index of a multi-picture JPEG are TIFF too."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from inspect_kd.errors import BadInput

EXIF_MARK = b"Exif\0\0"
"""Before Exif data in a JPEG; Pillow passes over it however often it stands there, with a copy of the rest each time."""
MOST_MARKS = 8
SMALL_VALUES = 2**20
"""Bytes of all values that are accepted whatever holds them: some writers let tags share a value."""
MOST_DIRECTORIES, MOST_TAGS, MOST_NUMBERS = 64, 4096, 64
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a value, by the number of its type; of all others one."""
_NUMBERS = {3: "H", 4: "L", 16: "Q"}
"""The types that hold a size: SHORT, LONG, LONG8."""

_PLACES = {**_NUMBERS, 8: "H", 9: "L", 13: "L"}
"""The types that Pillow takes for the place of a directory: those, the signed ones, and IFD."""
_LINKS = {330, 34665, 34853, 40965}
"""The tags that name a further directory: of another size of the image, of Exif, GPS, and Interoperability."""


class DirectoryEntry(NamedTuple):
    """One tag of a directory: the type and number of its values, and where they begin in the file."""

    kind: int
    length: int
    place: int


class Directory(NamedTuple):
    """One image of the file."""

    entries: dict[int, DirectoryEntry]
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
        self._layout = ("Q", "Q", 8) if self.is_big else ("H", "L", 4)
        """Of a directory: how its length and a place are written, and the bytes of a value that stands in its entry."""
        self.first = self.read("Q", 8) if self.is_big else self.read("L", 4)

    def read(self, form: str, place: int) -> int:
        """One whole number of the file, in the file's byte order."""
        if place > len(self.data):
            raise struct.error(f"a place beyond the end of the file: {place}")  # it may not even fit into Python's own
        value: int = struct.unpack_from(self.order + form, self.data, place)[0]
        return value

    def number(self, directory: Directory, tag: int, otherwise: int) -> int:
        """The single whole number of a tag."""
        numbers = self.numbers(directory, tag, (otherwise,))
        if len(numbers) != 1:
            raise ValueError(f"tag {tag} is no single number")
        return numbers[0]

    def numbers(self, directory: Directory, tag: int, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """All whole numbers of a tag; of a few only, as those of each channel are."""
        entry = directory.entries.get(tag)
        if entry is None:
            return otherwise
        if entry.kind not in _NUMBERS or not 1 <= entry.length <= MOST_NUMBERS:
            raise ValueError(f"tag {tag} is no single number" if entry.length == 1 else f"tag {tag} is no short list")
        form = _NUMBERS[entry.kind]
        step = struct.calcsize(f"={form}")
        return tuple(self.read(form, entry.place + step * index) for index in range(entry.length))

    def all_numbers(self, directory: Directory, tag: int, count: int) -> tuple[int, ...]:
        """The whole numbers of a tag that must have exactly so many; however many they are."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _NUMBERS or entry.length != count:
            raise ValueError(f"tag {tag} has {entry.length if entry else 0} values, where {count} belong")
        if entry.place > len(self.data):
            raise struct.error(f"a place beyond the end of the file: {entry.place}")
        return struct.unpack_from(f"{self.order}{count}{_NUMBERS[entry.kind]}", self.data, entry.place)

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

    def value_bytes(self) -> int:
        """How many bytes a reader takes that copies all values of all directories.

        Directories may point many tags at one place: a small file then takes gigabytes. A damaged directory counts as far as
        it can be read.
        """
        total, seen, waiting = 0, set[int](), [self.first]
        while waiting:
            at = waiting.pop()
            if not at or at in seen:
                continue
            if len(seen) == MOST_DIRECTORIES:
                raise ValueError(f"more than {MOST_DIRECTORIES} directories")
            seen.add(at)
            try:
                for tag, entry in self._entries(at):
                    size = _BYTES.get(entry.kind, 1) * entry.length
                    total += min(size, max(0, len(self.data) - entry.place))
                    if tag in _LINKS and entry.kind in _PLACES and entry.length == 1:
                        waiting.append(self.read(_PLACES[entry.kind], entry.place))
            except struct.error:
                continue
        return total

    def _directory(self, at: int) -> Directory:
        listed = list(self._entries(at))
        entries = dict(listed)
        count_form, place_form, room = self._layout
        end = at + struct.calcsize(f"={count_form}") + len(listed) * (4 + 2 * room)
        # Some writers end the file before the place of the next directory.
        following = self.read(place_form, end) if end + room <= len(self.data) else 0
        return Directory(entries, len(entries) < len(listed), following)

    def _entries(self, at: int) -> Iterator[tuple[int, DirectoryEntry]]:
        """(tag, entry) of the directory at this place."""
        count_form, place_form, room = self._layout
        count = self.read(count_form, at)
        if count > MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        at += struct.calcsize(f"={count_form}")
        head = struct.Struct(f"{self.order}HH{place_form}")
        for _ in range(count):
            tag, kind, number = head.unpack_from(self.data, at)
            place = at + head.size
            if _BYTES.get(kind, 1) * number > room:
                place = self.read(place_form, place)
            yield tag, DirectoryEntry(kind, number, place)
            at += head.size + room


def check_values(data: bytes, name: str) -> None:
    """Refuse TIFF directories whose values are far more bytes than what holds them: Pillow copies each one."""
    if data.startswith(EXIF_MARK * MOST_MARKS):
        raise BadInput(f"{name}: Exif data that begins with {MOST_MARKS} marks or more; refused before decoding")
    while data.startswith(EXIF_MARK):
        data = data[len(EXIF_MARK) :]
    try:
        total = Tiff(data).value_bytes()
    except (struct.error, LookupError):
        return  # no directory that any reader could follow
    except ValueError as error:
        raise BadInput(f"{name}: broken or truncated (its TIFF or Exif directory: {error})") from error
    if total > max(SMALL_VALUES, 2 * len(data)):
        raise BadInput(
            f"{name}: TIFF or Exif tags of {total} bytes in {len(data)}, since many name the same bytes; "
            "refused before decoding"
        )
