"""Refuse TIFF files that would need too much memory or be decoded wrongly, before any pixel is decoded.

Unusual here: a tag that appears twice is refused, because Pillow uses the last one and libtiff the first.
"""

from __future__ import annotations

import struct

from inspect_kd.datasets.tiff_layout import LENGTH, TILE_LENGTH, TILE_WIDTH, WIDTH, check_layout
from inspect_kd.datasets.tiff_structure import Tiff, check_values
from inspect_kd.errors import BadInput

SUBFILE_TYPE, SUB_DIRECTORIES = 254, 330
REDUCED, MASK = 1, 4
"""Bits of SUBFILE_TYPE: a reduced copy of another image in the file, or a transparency mask."""
SMALL_TILE = 2**24
"""Pixels of a tile that are accepted for any image, since writers pad small images to whole tiles."""


def check_tiff(data: bytes, name: str) -> None:
    """Refuse files of several images, oversized tiles, and tags that libraries interpret differently."""
    check_values(data, name)
    try:
        tiff = Tiff(data)
        first, *others = tiff.directories()
        if first.has_duplicate_tag:
            raise ValueError("a tag appears twice")
        check_layout(tiff, first, name)
        size = tiff.number(first, WIDTH, 0), tiff.number(first, LENGTH, 0)
        tile = tiff.number(first, TILE_WIDTH, 0), tiff.number(first, TILE_LENGTH, 0)
        kinds = [tiff.number(directory, SUBFILE_TYPE, 0) for directory in (first, *others)]
    except (struct.error, ValueError) as error:
        raise BadInput(f"{name}: broken or truncated (its TIFF directory: {error})") from error
    # A tile's sides are multiples of 16, so a single tile may be larger than its image.
    padded = -(-size[0] // 16) * 16 * -(-size[1] // 16) * 16
    if tile[0] * tile[1] > max(SMALL_TILE, padded):
        raise BadInput(
            f"{name}: {size[0]}x{size[1]} pixels in TIFF tiles of {tile[0]}x{tile[1]}; refused before decoding"
        )
    if kinds[0] & REDUCED and (others or SUB_DIRECTORIES in first.entries):
        raise BadInput(f"{name}: the first image of this TIFF is a preview of another; save the full image alone")
    # Previews, pyramid levels and masks belong to the first image; any other is a separate image.
    if not all(kind & (REDUCED | MASK) for kind in kinds[1:]):
        raise BadInput(f"{name}: a TIFF of several images, only one of which would be inspected; save each one alone")
