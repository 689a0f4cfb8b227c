"""The TIFF layouts that are decoded, as one table, and the check that a file's strips or tiles cover its image exactly.

Unusual here: what the table does not list is refused, although Pillow would decode much of it. Where Pillow and libtiff decode
different pixels from one file, or where a picture's missing parts come out black, a defect may pass as sound.
"""

from __future__ import annotations

from typing import NamedTuple

from inspect_kd.datasets.jpeg_structure import describe_frame
from inspect_kd.datasets.tiff_structure import Directory, Tiff
from inspect_kd.errors import BadInput

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
COLOUR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 320, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 332, 338, 339

_KIND_NAMES = {0: "grey in which 0 is white", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
"""Names of the kinds of pixels, by the value of PHOTOMETRIC."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
_LOSSLESS = frozenset({_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE, _LZMA, _ZSTD})
"""The fax compressions (CCITT) are left out: where their data ends early, the decoder leaves old memory in the remaining rows."""
_READ_BY_OPENCV = frozenset({_NONE, _LZW, _DEFLATE, _PACKBITS, _OLD_DEFLATE})
"""Compressions of 16-bit colour that OpenCV decodes."""
_WITH_PREDICTOR = frozenset({_LZW, _DEFLATE, _OLD_DEFLATE, _LZMA, _ZSTD})
"""Compressions in which libtiff applies the predictor; in others it takes stored differences for pixels."""
_UNSIGNED, _SIGNED, _FLOATING = 1, 2, 3
_INTEGER = frozenset({_UNSIGNED, _SIGNED})
_INTERLEAVED, _SEPARATE = 1, 2
MAX_SEGMENTS = 2**16
"""Strips or tiles: Pillow decodes each in a call of its own."""
ALL_ROWS = 2**32 - 1
"""ROWS_PER_STRIP of a single strip."""


class PixelLayout(NamedTuple):
    """One row of the table: a combination of tag values that is accepted."""

    photometrics: frozenset[int]
    bits: frozenset[int]
    compressions: frozenset[int]
    colours: int = 1
    """Number of channels besides alpha."""
    may_have_alpha: bool = False
    may_be_separate: bool = False
    """Whether each channel may lie in a plane of its own."""
    formats: frozenset[int] = frozenset({_UNSIGNED})
    """Accepted values of SAMPLE_FORMAT."""
    orders: str = "<>"
    """Accepted byte orders, in the notation of `struct`: `<` is little-endian, `>` big-endian."""


_GREY = frozenset({WHITE_IS_ZERO, BLACK_IS_ZERO})
LAYOUTS = (
    PixelLayout(_GREY, frozenset({1}), _LOSSLESS),
    PixelLayout(_GREY, frozenset({2, 4}), _LOSSLESS),
    PixelLayout(_GREY, frozenset({8}), _LOSSLESS | {_JPEG}, may_be_separate=True),
    PixelLayout(frozenset({BLACK_IS_ZERO}), frozenset({8}), _LOSSLESS, may_have_alpha=True),
    PixelLayout(frozenset({BLACK_IS_ZERO}), frozenset({16}), _LOSSLESS),
    PixelLayout(frozenset({BLACK_IS_ZERO}), frozenset({16}), frozenset({_NONE}), formats=frozenset({_SIGNED})),
    PixelLayout(frozenset({BLACK_IS_ZERO}), frozenset({32}), frozenset({_NONE}), formats=_INTEGER),
    # Compressed signed or 32-bit pixels: little-endian only. In big-endian ones Pillow swaps bytes that libtiff has already swapped.
    PixelLayout(frozenset({BLACK_IS_ZERO}), frozenset({16, 32}), _LOSSLESS, formats=_INTEGER, orders="<"),
    PixelLayout(frozenset({PALETTE}), frozenset({1, 2, 4, 8}), _LOSSLESS),
    PixelLayout(frozenset({PALETTE}), frozenset({8}), _LOSSLESS, may_have_alpha=True),
    PixelLayout(frozenset({RGB}), frozenset({8}), _LOSSLESS | {_JPEG}, 3, may_have_alpha=True, may_be_separate=True),
    PixelLayout(frozenset({RGB}), frozenset({16}), _READ_BY_OPENCV, 3, may_have_alpha=True),
    PixelLayout(frozenset({CMYK}), frozenset({8}), _LOSSLESS | {_JPEG}, 4, may_be_separate=True),
    PixelLayout(frozenset({YCBCR}), frozenset({8}), frozenset({_JPEG}), 3),
)
"""Each is decoded exactly, in every byte order that it allows (tests/test_tiff_channels.py)."""


class PixelTags(NamedTuple):
    """The tags of a file that describe its pixels."""

    photometric: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    samples: int
    extra: tuple[int, ...]
    compression: int
    predictor: int
    planar: int
    fill_order: int
    ink_set: int
    order: str


def check_layout(tiff: Tiff, first: Directory, name: str) -> None:
    """Refuse pixels that the table does not list, and strips or tiles that do not cover the image exactly."""
    tags = _read_tags(tiff, first)
    kind = _KIND_NAMES.get(tags.photometric, f"PhotometricInterpretation {tags.photometric}")
    layouts = [layout for layout in LAYOUTS if tags.photometric in layout.photometrics]
    # Report the differences from the most similar layout: matching depth first, then the fewest differences.
    differences = min((_differences(layout, tags) for layout in layouts), key=_distance, default=("",))
    reasons = " and ".join(filter(None, differences))
    if reasons or not layouts:
        raise BadInput(
            f"{name}: a TIFF of {kind}{' with ' if reasons else ''}{reasons} is not read; save it as grey or RGB of 8 or 16 bits "
            "a channel, interleaved, uncompressed or with LZW or Deflate"
        )
    if tags.photometric == PALETTE:
        _check_colour_map(tiff, first, tags.bits[0])
    _check_segments(tiff, first, tags)


def _read_tags(tiff: Tiff, first: Directory) -> PixelTags:
    bits = tiff.numbers(first, BITS, (1,))
    if PHOTOMETRIC not in first.entries:
        raise ValueError("no PhotometricInterpretation")
    return PixelTags(
        photometric=tiff.number(first, PHOTOMETRIC, 0),
        bits=bits,
        formats=tiff.numbers(first, SAMPLE_FORMAT, (_UNSIGNED,)),
        samples=tiff.number(first, SAMPLES, len(bits)),
        extra=tiff.numbers(first, EXTRA_SAMPLES, ()),
        compression=tiff.number(first, COMPRESSION, _NONE),
        predictor=tiff.number(first, PREDICTOR, 1),
        planar=tiff.number(first, PLANAR, _INTERLEAVED),
        fill_order=tiff.number(first, FILL_ORDER, 1),
        ink_set=tiff.number(first, INK_SET, 1),
        order=tiff.order,
    )


def _differences(layout: PixelLayout, tags: PixelTags) -> tuple[str, ...]:
    """Describe where the tags differ from the layout, the depth first; an empty text means no difference."""
    alpha = layout.may_have_alpha and tags.samples == layout.colours + 1 and tags.extra in {(1,), (2,)}
    are_channels_known = alpha or (tags.samples == layout.colours and not tags.extra)
    is_separate = tags.planar != _INTERLEAVED
    has_odd_predictor = tags.predictor != 1 and (tags.predictor != 2 or tags.compression not in _WITH_PREDICTOR)
    return (
        f"{max(tags.bits)} bits a channel" if len({*tags.bits}) > 1 or tags.bits[0] not in layout.bits else "",
        ""
        if are_channels_known
        else f"{tags.samples} channels, some neither colour nor declared as alpha (ExtraSamples 1 or 2)",
        "" if len({*tags.formats}) == 1 and tags.formats[0] in layout.formats else _describe_format(tags.formats),
        f"Compression {tags.compression}" if tags.compression not in layout.compressions else "",
        f"Predictor {tags.predictor} in Compression {tags.compression}" if has_odd_predictor else "",
        "channels in separate planes" if tags.planar not in ({1, 2} if layout.may_be_separate else {1}) else "",
        f"FillOrder {tags.fill_order}" if tags.fill_order not in ({1} if is_separate else {1, 2}) else "",
        f"InkSet {tags.ink_set}" if tags.ink_set != 1 and tags.photometric == CMYK else "",
        "" if tags.order in layout.orders else "signed or 32-bit pixels in big-endian order",
    )


def _describe_format(formats: tuple[int, ...]) -> str:
    return "floating-point pixels" if _FLOATING in formats else f"SampleFormat {', '.join(map(str, formats))}"


def _distance(differences: tuple[str, ...]) -> tuple[bool, int]:
    """Return how far tags are from a layout, as a sort key: whether the depth differs, then the number of differences."""
    return bool(differences[0]), sum(map(bool, differences))


def _check_colour_map(tiff: Tiff, first: Directory, bits: int) -> None:
    """Refuse a palette with 8-bit values: a TIFF palette holds 16-bit values, of which Pillow takes the upper 8 bits."""
    colours = tiff.all_numbers(first, COLOUR_MAP, 3 * 2**bits)
    if max(colours) < 2**8:
        raise ValueError("the palette holds 8-bit values where 16-bit ones are required, or it is all black")


def _check_segments(tiff: Tiff, first: Directory, tags: PixelTags) -> None:
    """Refuse missing strips or tiles, which Pillow leaves black, and surplus ones, among which readers choose differently."""
    width, length = tiff.number(first, WIDTH, 0), tiff.number(first, LENGTH, 0)
    has_tiles = bool({TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES} & first.entries.keys())
    if has_tiles and {STRIP_OFFSETS, STRIP_BYTES} & first.entries.keys():
        raise ValueError("strips and tiles at once")
    if has_tiles:
        across, down = tiff.number(first, TILE_WIDTH, 0), tiff.number(first, TILE_LENGTH, 0)
    else:
        across, down = width, min(length, tiff.number(first, ROWS_PER_STRIP, ALL_ROWS))
    if 0 in (width, length, across, down):
        raise ValueError("a picture, strip or tile without pixels")
    planes = tags.samples if tags.planar == _SEPARATE else 1
    rows_of_segments, columns = -(-length // down), -(-width // across)
    count = rows_of_segments * columns * planes
    if count > MAX_SEGMENTS:
        raise ValueError(f"{count} strips or tiles; at most {MAX_SEGMENTS} are read")
    offsets_tag, bytes_tag = (TILE_OFFSETS, TILE_BYTES) if has_tiles else (STRIP_OFFSETS, STRIP_BYTES)
    offsets, sizes = tiff.all_numbers(first, offsets_tag, count), tiff.all_numbers(first, bytes_tag, count)
    if 0 in offsets or 0 in sizes:
        raise ValueError("a strip or tile without content")
    channels = tags.samples // planes
    row_bytes = -(-across * tags.bits[0] * channels // 8)
    last_rows = down if has_tiles else length - down * (rows_of_segments - 1)
    if tags.compression == _JPEG and sum(sizes) > len(tiff.data):
        raise ValueError("its strips or tiles overlap")  # reading the same bytes again and again would take hours
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        is_last = number // columns % rows_of_segments == rows_of_segments - 1
        rows = last_rows if is_last else down
        if tags.compression == _JPEG:
            _check_jpeg_segment(tiff.data[offset : offset + size], (across, rows, channels), offset)
        elif tags.compression == _NONE and (size < row_bytes * rows or offset + row_bytes * rows > len(tiff.data)):
            left = max(0, len(tiff.data) - offset)
            raise ValueError(
                f"the strip or tile at byte {offset} needs {row_bytes * rows} bytes: {size} are declared, {left} left"
            )


def _check_jpeg_segment(data: bytes, expected: tuple[int, int, int], offset: int) -> None:
    """Refuse a JPEG that is not exactly its strip or tile: libtiff leaves old memory in missing pixels and crops surplus ones."""
    frame = describe_frame(data)
    if frame is None:
        raise ValueError(f"the strip or tile at byte {offset} is not one complete JPEG")
    if frame != expected:
        found, needed = ("x".join(map(str, size)) for size in (frame, expected))
        raise ValueError(
            f"the JPEG at byte {offset} has {found} values (width, height, channels), its strip or tile {needed}"
        )
