"""The chunks of a PNG file, read without decoding a pixel, and the check that its compressed pixels are as many as its header says.

Unusual here: a file is checked before Pillow decodes it. Pillow accepts a PNG whose pixels end early and leaves the rest black;
it stops at the first image's end, so a second image in the file would not be inspected.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from inspect_kd.errors import BadInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 2**20
INFLATE_STEP = 2**18
"""Bytes that are given to the decompressor at once, and that it may return at once."""
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels per pixel, by colour type."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced image: first column, first row, column step, row step."""


class Header(NamedTuple):
    """The content of a PNG's first chunk."""

    width: int
    height: int
    depth: int
    colour_type: int
    is_interlaced: bool

    def inflated_size(self) -> int:
        """Return the size in bytes of the inflated pixels; each row has one more byte, which names its filter."""
        bits = self.depth * _CHANNELS.get(self.colour_type, 1)
        passes = _PASSES if self.is_interlaced else ((0, 0, 1, 1),)
        sizes = ((-(-(self.width - x) // across), -(-(self.height - y) // down)) for x, y, across, down in passes)
        return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def check_png(data: bytes, name: str) -> None:
    """Refuse a broken or truncated PNG, an animation, and data after the image's end."""
    previous, seen = b"", set[bytes]()
    header = read_header(data) if len(data) > 28 else None
    for kind, _, end in _chunks(data, name):
        if kind in _ANIMATION:
            raise BadInput(
                f"{name}: an animation of several images, only one of which would be inspected; save each one alone"
            )
        # IHDR is the first chunk and occurs once; IDAT chunks follow each other without others between them.
        if (kind == b"IHDR") == bool(seen) or (kind == b"IDAT" and kind in seen and kind != previous):
            raise BadInput(f"{name}: broken or truncated (PNG chunks out of order)")
        if kind == b"PLTE" and kind in seen:
            raise BadInput(f"{name}: a PNG with two palettes, among which readers choose differently; save it again")
        if kind == b"IDAT" and header and header.colour_type == _PALETTE and b"PLTE" not in seen:
            raise BadInput(f"{name}: broken or truncated (a PNG without its palette)")
        if kind == b"tRNS" and header and header.colour_type == 0 and header.depth not in (1, 8):
            # Pillow compares the transparent value with pixels that it has already converted to 8 bits, or does not apply it.
            raise BadInput(
                f"{name}: a {header.depth}-bit grey PNG with a transparent value (tRNS); save it with an alpha channel, or opaque"
            )
        if kind == b"IEND" and end != len(data):
            raise BadInput(f"{name}: {len(data) - end} bytes after the end of the PNG, which may be another image")
        previous = kind
        seen.add(kind)


def check_pixels_complete(data: bytes, name: str) -> None:
    """Inflate all pixels of a PNG that has passed `check_png`, and refuse one that has fewer than its header says."""
    needed = read_header(data).inflated_size()
    unpacker = zlib.decompressobj()
    for kind, start, end in _chunks(data, name):
        if kind != b"IDAT":
            continue
        for at in range(start, end - 4, INFLATE_STEP):
            packed = data[at : min(at + INFLATE_STEP, end - 4)]
            while packed and needed > 0:
                needed -= len(unpacker.decompress(packed, INFLATE_STEP))
                packed = unpacker.unconsumed_tail
    if needed > 0:
        raise BadInput(f"{name}: broken or truncated (the PNG's pixels end {needed} bytes early)")


def read_header(data: bytes) -> Header:
    """Read a PNG's header, from the place where `check_png` demands it."""
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    return Header(width, height, data[24], data[25], is_interlaced=data[28] != 0)


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of its content, end) of each chunk, up to the end of the image."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        start, end = at + 8, at + 12 + length
        if end > len(data) or (at == len(SIGNATURE) and (kind, length) != (b"IHDR", 13)):
            raise BadInput(f"{name}: broken or truncated (a PNG chunk at {at})")
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end
    raise BadInput(f"{name}: a PNG of more than {MAX_CHUNKS} chunks; refused before decoding")
