"""The segments of a JPEG file, read without decoding a pixel: its scans, its end, and the pictures beside the first one.

Unusual here: the end-of-image mark must be there. libjpeg reads a file that was cut and filled with zeros without an error,
since zeros are valid codes; what lies behind the first picture's own mark is not looked at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from inspect_kd.datasets.tiff_structure import EXIF_MARK, Tiff, check_values
from inspect_kd.errors import BadInput

MOST_SCANS = 64
"""Of a progressive JPEG, which has about ten: each costs a look at every pixel and may be a few bytes long."""
MOST_SEGMENTS, MOST_PICTURES = 10_000, 16
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""Neither a stuffed byte of the compressed pixels nor one of the marks that stand alone."""
_END, _SCAN, _APP1, _APP2 = 0xD9, 0xDA, 0xE1, 0xE2
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of frame: the segments that tell the picture's size."""
_MP_ENTRIES = 0xB002
"""The tag of a multi-picture index (CIPA DC-007) that lists the pictures of the file, 16 bytes each."""
_VIEW_OF_SEVERAL = 2
"""The class of a listed picture that is one view of several: of a panorama, a stereo pair, another angle."""


def check_jpeg(data: bytes, name: str) -> None:
    """Refuse a JPEG without end, with very many scans, with a hostile directory of tags, or with several pictures."""
    scans, index, exif = 0, 0, []
    for marker, start in segments(data):
        scans += marker == _SCAN
        if scans > MOST_SCANS:
            raise BadInput(f"{name}: a JPEG of more than {MOST_SCANS} scans; refused before decoding")
        if marker == _APP2 and data.startswith(b"MPF\0", start):
            index = start + 4
        if marker == _APP1 and data.startswith(EXIF_MARK, start):
            # Pillow joins the Exif data of all segments.
            exif.append(data[start + len(EXIF_MARK) : start - 2 + int.from_bytes(data[start - 2 : start])])
        if marker == _END:
            break
    else:
        raise BadInput(f"{name}: broken or truncated (a JPEG without its end-of-image mark)")
    if not scans:
        raise BadInput(f"{name}: broken or truncated (a JPEG that ends before its pixels)")
    check_values(b"".join(exif), name)
    if index:
        check_values(data[index : index + 2**16], name)
    if index and _lists_another_picture(data, index):
        raise BadInput(f"{name}: a JPEG of several pictures, only one of which would be inspected; save each one alone")


def segments(data: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """(marker, where its content begins), to the end-of-image mark of the picture that begins at `at`."""
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        marker, at = data[found.start() + 1], found.end()
        yield marker, at + 2
        if marker == _END:
            return
        at += int.from_bytes(data[at : at + 2])


def _lists_another_picture(data: bytes, index: int) -> bool:
    """Whether the multi-picture index at this place names a second picture of the same kind.

    Phones and cameras also list there what belongs to the one picture: previews, gain maps for HDR displays, depth. Those have
    fewer pixels than the picture itself. A listed picture of as many pixels, or one that is called a view of several, is another.
    """
    try:
        tiff = Tiff(data[index : index + 2**16])
        first, *_ = tiff.directories()
        entry = first.entries[_MP_ENTRIES]
        listed = tiff.data[entry.place : entry.place + entry.length // 16 * 16]
        pictures = list(struct.iter_unpack(f"{tiff.order}LLLHH", listed))
    except (struct.error, LookupError, ValueError):
        return False  # no index that any reader could follow
    own = max(1, _pixels_at(data, 0))
    return len(pictures) > MOST_PICTURES or any(
        kind >> 16 & 0xFF == _VIEW_OF_SEVERAL or _pixels_at(data, index + offset) >= own
        for kind, _, offset, *_ in pictures[1:]
    )


def _pixels_at(data: bytes, at: int) -> int:
    """Of the picture that begins at this place; 0 where none does: programs that edit a picture may cut off the others."""
    if not data.startswith(b"\xff\xd8", at):
        return 0
    for marker, start in segments(data, at):
        if marker in _SIZES:
            return int.from_bytes(data[start + 1 : start + 3]) * int.from_bytes(data[start + 3 : start + 5])
    return 0
