"""Files with several images, files with one image and its previews or masks, and TIFF files written tag by tag."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence

from PIL import Image

from tests.factory_images import picture

BYTE, SHORT, LONG = 1, 3, 4
Tag = tuple[int, int, int]
"""(tag, type, value)"""
PIXELS_OFFSET = 16
"""Offset at which `tiff_file` puts the pixels."""


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey_tags(side: int = 16, *more: Tag) -> list[Tag]:
    """Tags of an 8-bit image in one strip at the beginning of the pixels."""
    tags = [
        (256, LONG, side),
        (257, LONG, side),
        (258, SHORT, 8),
        (259, SHORT, 1),
        (262, SHORT, 1),
        (273, LONG, PIXELS_OFFSET),
    ]
    return sorted([*tags, (277, SHORT, 1), (278, LONG, side), (279, LONG, side * side), *more])


def tile_tags(side: int, tile: tuple[int, int], byte_count: int) -> list[Tag]:
    """Tags of an 8-bit image in one deflated tile of `byte_count` bytes."""
    tags = [(256, LONG, side), (257, LONG, side), (258, SHORT, 8), (259, SHORT, 8), (262, SHORT, 1), (277, SHORT, 1)]
    return [*tags, (322, LONG, tile[0]), (323, LONG, tile[1]), (324, LONG, PIXELS_OFFSET), (325, LONG, byte_count)]


def tiff_file(
    *directories: Sequence[Tag], data: bytes = bytes(256), order: str = "<", big: bool = False, next_offset: int = 0
) -> bytes:
    """A TIFF file: the pixels, then one directory per image. `next_offset` is what the last directory gives as the next one's offset."""
    count_format, offset_format, entry_size = (order + "Q", order + "Q", 20) if big else (order + "H", order + "L", 12)
    start = PIXELS_OFFSET + len(data)
    body, at = b"", start
    for number, tags in enumerate(directories):
        at += struct.calcsize(count_format) + entry_size * len(tags) + struct.calcsize(offset_format)
        body += struct.pack(count_format, len(tags))
        for tag, kind, value in tags:
            inline = struct.pack(f"{order}{ {BYTE: 'B', SHORT: 'H', LONG: 'L'}[kind] }", value)
            body += struct.pack(f"{order}HH{offset_format[1]}", tag, kind, 1) + inline.ljust(
                struct.calcsize(offset_format), b"\0"
            )
        body += struct.pack(offset_format, at if number + 1 < len(directories) else next_offset)
    mark = b"MM" if order == ">" else b"II"
    header = mark + struct.pack(f"{order}H", 43 if big else 42)
    header += struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}L", start)
    return header.ljust(PIXELS_OFFSET, b"\0") + data + body


def jpeg_with(segment: bytes, marker: int = 0xE2, *, content: bytes | None = None) -> bytes:
    """A valid JPEG with an additional segment after its start."""
    content = content or encode(picture(), "JPEG")
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment + content[2:]


def multi_picture_jpeg(*others: tuple[int, bytes], order: str = ">", content: bytes | None = None) -> bytes:
    """A JPEG with a multi-picture index, followed by the other pictures, each given as (type, content)."""
    # The offsets of the other pictures depend on the length of the first one, which an index of zeros gives.
    entries = b"".join(
        struct.pack(f"{order}LLLHH", *entry) for entry in [(0x030000, 0, 0, 0, 0)] + [(0,) * 5] * len(others)
    )
    first = jpeg_with(_multi_picture_segment(entries, order), content=content)
    # Offsets are counted from the index's byte order mark, which is at offset 10 of the file.
    base, at, entries = 10, len(first), entries[:16]
    for kind, other in others:
        entries += struct.pack(f"{order}LLLHH", kind, len(other), at - base, 0, 0)
        at += len(other)
    return jpeg_with(_multi_picture_segment(entries, order), content=content) + b"".join(other for _, other in others)


def _multi_picture_segment(entries: bytes, order: str) -> bytes:
    tags = ((0xB000, 7, 4, 0x30313030), (0xB001, 4, 1, len(entries) // 16), (0xB002, 7, len(entries), 8 + 2 + 36 + 4))
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}LH", 8, 3)
    return b"MPF\0" + head + b"".join(struct.pack(f"{order}HHLL", *tag) for tag in tags) + bytes(4) + entries


def repeat_last_scan(content: bytes, count: int) -> bytes:
    """Return the progressive JPEG `content` with its last scan repeated `count` times."""
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def small_jpeg(side: int = 24) -> bytes:
    return encode(picture(size=(side, side)), "JPEG")


MULTI_IMAGE_FILES: dict[str, Callable[[], bytes]] = {
    "pages.tiff": lambda: encode(picture(), "TIFF", save_all=True, append_images=[picture("L")]),
    "pages_big.tiff": lambda: encode(picture(), "TIFF", save_all=True, append_images=[picture()], big_tiff=True),
    "pages_motorola.tiff": lambda: tiff_file(grey_tags(), grey_tags(), order=">"),
    "page_after_preview.tiff": lambda: tiff_file(grey_tags(), grey_tags(8, (254, LONG, 1)), grey_tags()),
    "animation.webp": lambda: encode(picture(), "WEBP", save_all=True, append_images=[picture("L")]),
    "animation.png": lambda: encode(picture(), "PNG", save_all=True, append_images=[picture().rotate(180)]),
    "after_default_image.png": lambda: encode(
        picture(), "PNG", save_all=True, default_image=True, append_images=[picture().rotate(180)]
    ),
    "two.mpo": lambda: encode(picture(), "MPO", save_all=True, append_images=[picture().rotate(180)]),
    "stereo.jpg": lambda: multi_picture_jpeg((0x020002, small_jpeg()), order="<"),
    "same_size.jpg": lambda: multi_picture_jpeg((0, encode(picture().rotate(180), "JPEG"))),
    "odd_length.jpg": lambda: multi_picture_jpeg((0, encode(picture(), "JPEG"))).replace(
        struct.pack(">HHL", 0xB002, 7, 32), struct.pack(">HHL", 0xB002, 7, 37)
    ),
    "one_marked_as_preview.jpg": lambda: multi_picture_jpeg(
        (0x010002, small_jpeg()), (0x010001, encode(picture(), "JPEG"))
    ),
}
"""Files in which a program that reads only the first image misses others."""

SINGLE_IMAGE_FILES: dict[str, Callable[[], bytes]] = {
    "preview.jpg": lambda: multi_picture_jpeg((0x010001, small_jpeg())),
    "gain_map.jpg": lambda: multi_picture_jpeg((0, small_jpeg()), (0, small_jpeg(30)), order="<"),
    "cut_off.jpg": lambda: multi_picture_jpeg((0, encode(picture(), "JPEG")))[: -len(encode(picture(), "JPEG"))],
    "lost_index.jpg": lambda: jpeg_with(b"MPF\0MM\0*\0\0\xff\xff"),
    "empty_index.jpg": lambda: jpeg_with(b"MPF\0II*\0" + bytes(4)),
    "no_index.jpg": lambda: jpeg_with(b"MPF\0"),
    "preview.tiff": lambda: tiff_file(grey_tags(), grey_tags(8, (254, LONG, 1))),
    "mask.tiff": lambda: tiff_file(grey_tags(), grey_tags(16, (254, LONG, 4))),
    "pyramid.tiff": lambda: tiff_file(
        grey_tags(16, (254, LONG, 0)), grey_tags(8, (254, LONG, 1)), grey_tags(4, (254, LONG, 1)), big=True
    ),
    "preview_below.tiff": lambda: tiff_file(grey_tags(16, (330, LONG, PIXELS_OFFSET))),
    "marked_as_preview.tiff": lambda: tiff_file(grey_tags(16, (254, LONG, 1))),
    "cyclic.tiff": lambda: tiff_file(grey_tags(), next_offset=PIXELS_OFFSET + 256),
    "one_frame.webp": lambda: encode(picture(), "WEBP", save_all=True),
    "one_frame.png": lambda: encode(picture(), "PNG", save_all=True),
}
"""Files with one image, and perhaps its previews or masks."""
