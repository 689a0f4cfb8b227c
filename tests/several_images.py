"""Files of several images, files that only list what belongs to their one image, and TIFF files written tag by tag."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence

from PIL import Image

from tests.factory_images import picture

BYTE, SHORT, LONG = 1, 3, 4
Tag = tuple[int, int, int]
"""(tag, type, value)"""
DATA = 16
"""Where the pixels of `tiff_file` begin."""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey_tags(side: int = 16, *more: Tag) -> list[Tag]:
    """One 8-bit image in one strip at the beginning of the pixels."""
    tags = [(256, LONG, side), (257, LONG, side), (258, SHORT, 8), (259, SHORT, 1), (262, SHORT, 1), (273, LONG, DATA)]
    return sorted([*tags, (277, SHORT, 1), (278, LONG, side), (279, LONG, side * side), *more])


def tile_tags(side: int, tile: tuple[int, int], size: int) -> list[Tag]:
    """One 8-bit image in one deflated tile."""
    tags = [(256, LONG, side), (257, LONG, side), (258, SHORT, 8), (259, SHORT, 8), (262, SHORT, 1), (277, SHORT, 1)]
    return [*tags, (322, LONG, tile[0]), (323, LONG, tile[1]), (324, LONG, DATA), (325, LONG, size)]


def tiff_file(
    *directories: Sequence[Tag], data: bytes = bytes(256), order: str = "<", big: bool = False, next: int = 0
) -> bytes:
    """The pixels, then a directory an image; `next` is what the last one names as its follower."""
    forms = ("Q", "Q", 20) if big else ("H", "L", 12)
    count_form, place_form, entry_size = (f"{order}{form}" if isinstance(form, str) else form for form in forms)
    assert isinstance(entry_size, int)
    start = DATA + len(data)
    body, at = b"", start
    for number, tags in enumerate(directories):
        at += struct.calcsize(count_form) + entry_size * len(tags) + struct.calcsize(place_form)
        body += struct.pack(count_form, len(tags))
        for tag, kind, value in tags:
            inline = struct.pack(f"{order}{ {BYTE: 'B', SHORT: 'H', LONG: 'L'}[kind] }", value)
            body += struct.pack(f"{order}HH{place_form[1]}", tag, kind, 1) + inline.ljust(
                struct.calcsize(place_form), b"\0"
            )
        body += struct.pack(place_form, at if number + 1 < len(directories) else next)
    mark = b"MM" if order == ">" else b"II"
    header = mark + struct.pack(f"{order}H", 43 if big else 42)
    header += struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}L", start)
    return header.ljust(DATA, b"\0") + data + body


def jpeg_with(segment: bytes, marker: int = 0xE2, *, content: bytes | None = None) -> bytes:
    """A sound JPEG with one segment more after its start."""
    content = content or saved(picture(), "JPEG")
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment + content[2:]


def jpeg_that_lists(*others: tuple[int, bytes], order: str = ">", content: bytes | None = None) -> bytes:
    """A JPEG with a multi-picture index: (type, content) of each further picture, which follow behind its end."""
    entries = b"".join(
        struct.pack(f"{order}LLLHH", *entry) for entry in [(0x030000, 0, 0, 0, 0)] + [(0,) * 5] * len(others)
    )
    first = jpeg_with(_index(entries, order), content=content)
    base, at, entries = 10, len(first), entries[:16]
    for kind, other in others:
        entries += struct.pack(f"{order}LLLHH", kind, len(other), at - base, 0, 0)
        at += len(other)
    return jpeg_with(_index(entries, order), content=content) + b"".join(other for _, other in others)


def _index(entries: bytes, order: str) -> bytes:
    tags = ((0xB000, 7, 4, 0x30313030), (0xB001, 4, 1, len(entries) // 16), (0xB002, 7, len(entries), 8 + 2 + 36 + 4))
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}LH", 8, 3)
    return b"MPF\0" + head + b"".join(struct.pack(f"{order}HHLL", *tag) for tag in tags) + bytes(4) + entries


def several_scans(content: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def small(side: int = 24) -> bytes:
    return saved(picture(size=(side, side)), "JPEG")


SEVERAL: dict[str, Callable[[], bytes]] = {
    "pages.tiff": lambda: saved(picture(), "TIFF", save_all=True, append_images=[picture("L")]),
    "pages_big.tiff": lambda: saved(picture(), "TIFF", save_all=True, append_images=[picture()], big_tiff=True),
    "pages_motorola.tiff": lambda: tiff_file(grey_tags(), grey_tags(), order=">"),
    "page_after_preview.tiff": lambda: tiff_file(grey_tags(), grey_tags(8, (254, LONG, 1)), grey_tags()),
    "animation.webp": lambda: saved(picture(), "WEBP", save_all=True, append_images=[picture("L")]),
    "animation.png": lambda: saved(picture(), "PNG", save_all=True, append_images=[picture().rotate(180)]),
    "behind_default.png": lambda: saved(
        picture(), "PNG", save_all=True, default_image=True, append_images=[picture().rotate(180)]
    ),
    "two.mpo": lambda: saved(picture(), "MPO", save_all=True, append_images=[picture().rotate(180)]),
    "stereo.jpg": lambda: jpeg_that_lists((0x020002, small()), order="<"),
    "same_size.jpg": lambda: jpeg_that_lists((0, saved(picture().rotate(180), "JPEG"))),
    "odd_length.jpg": lambda: jpeg_that_lists((0, saved(picture(), "JPEG"))).replace(
        struct.pack(">HHL", 0xB002, 7, 32), struct.pack(">HHL", 0xB002, 7, 37)
    ),
    "called_preview.jpg": lambda: jpeg_that_lists((0x010002, small()), (0x010001, saved(picture(), "JPEG"))),
}
"""Of which a program that reads the first image passes over the others."""

ONE: dict[str, Callable[[], bytes]] = {
    "preview.jpg": lambda: jpeg_that_lists((0x010001, small())),
    "gain_map.jpg": lambda: jpeg_that_lists((0, small()), (0, small(30)), order="<"),
    "cut_off.jpg": lambda: jpeg_that_lists((0, saved(picture(), "JPEG")))[: -len(saved(picture(), "JPEG"))],
    "lost_index.jpg": lambda: jpeg_with(b"MPF\0MM\0*\0\0\xff\xff"),
    "empty_index.jpg": lambda: jpeg_with(b"MPF\0II*\0" + bytes(4)),
    "no_index.jpg": lambda: jpeg_with(b"MPF\0"),
    "preview.tiff": lambda: tiff_file(grey_tags(), grey_tags(8, (254, LONG, 1))),
    "mask.tiff": lambda: tiff_file(grey_tags(), grey_tags(16, (254, LONG, 4))),
    "pyramid.tiff": lambda: tiff_file(
        grey_tags(16, (254, LONG, 0)), grey_tags(8, (254, LONG, 1)), grey_tags(4, (254, LONG, 1)), big=True
    ),
    "preview_below.tiff": lambda: tiff_file(grey_tags(16, (330, LONG, DATA))),
    "said_to_be_small.tiff": lambda: tiff_file(grey_tags(16, (254, LONG, 1))),
    "circle.tiff": lambda: tiff_file(grey_tags(), next=DATA + 256),
    "one_frame.webp": lambda: saved(picture(), "WEBP", save_all=True),
    "one_frame.png": lambda: saved(picture(), "PNG", save_all=True),
}
"""Of one image, whatever else lies in the file."""
