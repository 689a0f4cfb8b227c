"""Check the segments of a JPEG file without decoding it: its scans, its end, and further images in the file.

Unusual here: the end-of-image marker is required, because libjpeg reports no error for a file that was cut and filled with
zeros. Bytes after the first such marker are ignored, unless a multi-picture index lists a second image in them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from inspect_kd.datasets.tiff_structure import EXIF_MARK, Tiff, check_values
from inspect_kd.errors import BadInput

MAX_SCANS = 64
"""Progressive JPEGs have about ten scans; each may be a few bytes long and still costs a pass over all pixels."""
MAX_SEGMENTS, MAX_IMAGES = 10_000, 16
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A marker with a segment: neither a stuffed byte in the compressed pixels nor a marker without content."""
_END, _SCAN, _APP1, _APP2 = 0xD9, 0xDA, 0xE1, 0xE2
_FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers, whose segments hold the image's size."""
_MP_ENTRIES = 0xB002
"""The tag of a multi-picture index (CIPA DC-007) that lists the file's images, 16 bytes each."""
_VIEW_OF_SEVERAL = 2
"""The type of a listed image that is one of several views: a panorama, a stereo pair, another angle."""


def check_jpeg(data: bytes, name: str) -> None:
    """Refuse a JPEG without an end marker, with very many scans, with hostile tags, or with several images."""
    scans, index_start, exif = 0, 0, []
    for marker, start in segments(data):
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise BadInput(f"{name}: a JPEG of more than {MAX_SCANS} scans; refused before decoding")
        if marker == _APP2 and data.startswith(b"MPF\0", start):
            index_start = start + 4
        if marker == _APP1 and data.startswith(EXIF_MARK, start):
            # Pillow joins the Exif data of all segments. The two bytes before the content are the length of both together.
            exif.append(data[start + len(EXIF_MARK) : start - 2 + int.from_bytes(data[start - 2 : start])])
        if marker == _END:
            break
    else:
        raise BadInput(f"{name}: broken or truncated (a JPEG without its end-of-image marker)")
    if not scans:
        raise BadInput(f"{name}: broken or truncated (a JPEG that ends before its pixels)")
    check_values(b"".join(exif), name)
    if index_start:
        check_values(data[index_start : index_start + 2**16], name)
    if index_start and _lists_another_picture(data, index_start):
        raise BadInput(f"{name}: a JPEG of several images, of which only one would be inspected; save each one alone")


def segments(data: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (marker, start of its content) up to the end-of-image marker of the image that begins at `at`."""
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, at)
        if match is None:
            return
        marker, at = data[match.start() + 1], match.end()
        yield marker, at + 2
        if marker == _END:
            return
        at += int.from_bytes(data[at : at + 2])


def describe_frame(data: bytes) -> tuple[int, int, int] | None:
    """Return (width, height, channels) of a JPEG; None without an end marker, with no or several frames, or with too many scans."""
    frames, scans, marker = [], 0, 0
    for marker, start in segments(data) if data.startswith(b"\xff\xd8") else ():
        scans += marker == _SCAN
        if marker in _FRAME_STARTS and start + 6 <= len(data):
            height, width = int.from_bytes(data[start + 1 : start + 3]), int.from_bytes(data[start + 3 : start + 5])
            frames.append((width, height, data[start + 5]))
    return frames[0] if marker == _END and len(frames) == 1 and 1 <= scans <= MAX_SCANS else None


def _lists_another_picture(data: bytes, index_start: int) -> bool:
    """True if the multi-picture index at this position lists a second image of the same kind.

    Phones and cameras also list previews, gain maps for HDR displays and depth maps, which have fewer pixels than the image
    itself. A listed image with at least as many pixels, or marked as one of several views, is a second image.
    """
    try:
        tiff = Tiff(data[index_start : index_start + 2**16])
        first, *_ = tiff.directories()
        entry = first.entries[_MP_ENTRIES]
        listed = tiff.data[entry.offset : entry.offset + entry.value_count // 16 * 16]
        images = list(struct.iter_unpack(f"{tiff.order}LLLHH", listed))
    except (struct.error, LookupError, ValueError):
        return False  # not a readable index
    main_pixels = max(1, _count_pixels(data, 0))
    return len(images) > MAX_IMAGES or any(
        (kind >> 16) & 0xFF == _VIEW_OF_SEVERAL or _count_pixels(data, index_start + offset) >= main_pixels
        for kind, _, offset, *_ in images[1:]
    )


def _count_pixels(data: bytes, at: int) -> int:
    """Return the pixels of the image that begins at this position; 0 if none does: editing programs may have removed it."""
    if not data.startswith(b"\xff\xd8", at):
        return 0
    for marker, start in segments(data, at):
        if marker in _FRAME_STARTS:
            return int.from_bytes(data[start + 1 : start + 3]) * int.from_bytes(data[start + 3 : start + 5])
    return 0
