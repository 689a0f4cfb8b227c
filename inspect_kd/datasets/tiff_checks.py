"""Refuse TIFF files that would need too much memory or be decoded wrongly, before any pixel is decoded.

Unusual here: a tag that appears twice is refused. Pillow uses the last one and libtiff the first, so checking one of them says
nothing about the other.
"""

from __future__ import annotations

import struct

from inspect_kd.datasets.tiff_structure import Directory, Tiff, check_values
from inspect_kd.errors import BadInput

SUBFILE_TYPE, WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, SUB_DIRECTORIES = 254, 256, 257, 322, 323, 330
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 277, 284, 338, 339
REDUCED, MASK = 1, 4
"""Bits of SUBFILE_TYPE: a reduced copy of another image in the file, or a transparency mask."""
SMALL_TILE = 2**24
"""Pixels of a tile that are accepted for any image, because writers pad small images to whole tiles."""
PREDICTOR, PACKBITS = 317, 32773
WHITE_IS_ZERO, RGB = 0, 2
_COLOURS = {RGB: 3, 5: 4, 6: 3, 8: 3}
"""Number of colour channels by PHOTOMETRIC (RGB, CMYK, YCbCr, Lab); otherwise one."""
_DEEP_COMPRESSIONS = {1, 5, 8, PACKBITS, 32946}
"""Compressions of 16-bit colour that OpenCV reads: none, LZW, Deflate, PackBits."""


def check_tiff(data: bytes, name: str) -> None:
    """Refuse files of several images, oversized tiles, and tags that libraries interpret differently."""
    check_values(data, name)
    try:
        tiff = Tiff(data)
        first, *others = tiff.directories()
        if first.has_duplicate_tag:
            raise ValueError("a tag appears twice")
        _check_channels(tiff, first, name)
        size = tiff.number(first, WIDTH, 0), tiff.number(first, LENGTH, 0)
        tile = tiff.number(first, TILE_WIDTH, 0), tiff.number(first, TILE_LENGTH, 0)
        kinds = [tiff.number(each, SUBFILE_TYPE, 0) for each in (first, *others)]
    except (struct.error, ValueError) as error:
        raise BadInput(f"{name}: broken or truncated (its TIFF directory: {error})") from error
    # A tile's sides are multiples of 16, so a single tile may be that much larger than its image.
    padded = -(-size[0] // 16) * 16 * -(-size[1] // 16) * 16
    if tile[0] * tile[1] > max(SMALL_TILE, padded):
        raise BadInput(
            f"{name}: {size[0]}x{size[1]} pixels in TIFF tiles of {tile[0]}x{tile[1]}; refused before decoding"
        )
    if kinds[0] & REDUCED and (others or SUB_DIRECTORIES in first.entries):
        raise BadInput(f"{name}: the first image of this TIFF is a preview of another; save the full image alone")
    # Previews, pyramid levels and masks belong to the first image; any other is a separate image.
    if not all(kind & (REDUCED | MASK) for kind in kinds[1:]):
        raise BadInput(f"{name}: a TIFF of several images, of which only one would be inspected; save each one alone")


def _check_channels(tiff: Tiff, first: Directory, name: str) -> None:
    """Refuse channels that would be dropped or misinterpreted."""
    bits = tiff.numbers(first, BITS, (1,))
    samples = tiff.number(first, SAMPLES, len(bits))
    photometric = tiff.number(first, PHOTOMETRIC, WHITE_IS_ZERO)
    extra = samples - _COLOURS.get(photometric, 1)
    # Without EXTRA_SAMPLES a fourth channel may be alpha or, for example, infrared.
    if extra > 1 or (extra == 1 and tiff.numbers(first, EXTRA_SAMPLES, ()) not in {(1,), (2,)}):
        raise BadInput(
            f"{name}: a TIFF of {samples} channels, some neither colour nor declared as alpha (ExtraSamples 1 or 2); "
            "save its colour alone"
        )
    if tiff.number(first, PREDICTOR, 1) != 1 and tiff.number(first, COMPRESSION, 1) == PACKBITS:
        # Some writers then store differences, which libtiff reads as pixels.
        raise BadInput(f"{name}: a PackBits TIFF with a predictor, which readers ignore; save it with LZW or Deflate")
    if max(bits) == 16 and photometric == WHITE_IS_ZERO:
        raise BadInput(f"{name}: a 16-bit TIFF in which 0 is white (WhiteIsZero); save it with 0 as black")
    if max(bits) == 16 and tiff.number(first, PLANAR, 1) != 1:
        # OpenCV fills the first plane and leaves the others undefined.
        raise BadInput(f"{name}: a 16-bit TIFF whose channels lie in separate planes; save it interleaved")
    if max(bits) == 16 and samples > 1:
        _check_deep_colour(tiff, first, name)


def _check_deep_colour(tiff: Tiff, first: Directory, name: str) -> None:
    """Refuse 16-bit colour that OpenCV is not known to read exactly."""
    bits, formats = tiff.numbers(first, BITS, (1,)), tiff.numbers(first, SAMPLE_FORMAT, (1,))
    compression = tiff.number(first, COMPRESSION, 1)
    if tiff.number(first, PHOTOMETRIC, WHITE_IS_ZERO) != RGB or set(bits) != {16} or set(formats) != {1}:
        raise BadInput(f"{name}: a 16-bit TIFF of several channels that is not unsigned RGB; save it as RGB")
    if compression not in _DEEP_COMPRESSIONS:
        raise BadInput(
            f"{name}: 16-bit colour in TIFF compression {compression}; save it uncompressed or with LZW or Deflate"
        )
