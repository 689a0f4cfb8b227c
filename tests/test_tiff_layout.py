"""The table of TIFF layouts: each listed one is decoded exactly, each other one refused; strips and tiles are exactly the picture."""

from __future__ import annotations

import struct
import zlib
from itertools import product

import numpy as np
import pytest

from inspect_kd.datasets.images import decode_image
from inspect_kd.errors import BadInput
from tests.test_tiff_channels import expected, pixels, tiff_of

REVERSED = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], np.uint8)
PALETTE = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
COLOUR_MAP = tuple(int(value) * 257 for value in PALETTE.T.ravel())


def tiff_of_segments(
    values: np.ndarray,
    *,
    order: str = "<",
    compression: int = 1,
    planar: int = 1,
    fill_order: int = 1,
    tile: tuple[int, int] | None = None,
    more: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """A TIFF of these (H, W, C) pixels in strips of 16 rows, or in tiles of (width, height)."""
    height, width, channels = values.shape
    planes = [values[:, :, index : index + 1] for index in range(channels)] if planar == 2 else [values]
    across, down = tile or (width, 16)
    segments = []
    for plane, top, left in product(planes, range(0, height, down), range(0, width, across)):
        block = plane[top : top + down, left : left + across]
        if tile:
            block = np.pad(block, ((0, down - block.shape[0]), (0, across - block.shape[1]), (0, 0)))
        content = block.astype(values.dtype.newbyteorder(order)).tobytes()
        content = zlib.compress(content) if compression == 8 else content
        segments.append(REVERSED[np.frombuffer(content, np.uint8)].tobytes() if fill_order == 2 else content)
    data = b"".join(segments)
    places = tuple(8 + sum(map(len, segments[:index])) for index in range(len(segments)))
    tags = {256: (width,), 257: (height,), 258: (values.dtype.itemsize * 8,) * channels, 259: (compression,)}
    tags |= {262: (2 if channels >= 3 else 1,), 266: (fill_order,), 277: (channels,), 284: (planar,)}
    parts = {322: (across,), 323: (down,), 324: places} if tile else {273: places, 278: (down,)}
    parts[325 if tile else 279] = tuple(map(len, segments))
    return tiff_of(tags | parts | (more or {}), data + bytes(len(data) % 2), order)


def read_or_none(data: bytes) -> np.ndarray | None:
    """The pixels, or None where the file is refused with a reason."""
    try:
        return decode_image(data, "a.tif")
    except BadInput as error:
        assert str(error).startswith("a.tif: ")
        return None


@pytest.mark.parametrize(("bits", "channels"), list(product((8, 16), (1, 2, 3, 4))))
@pytest.mark.parametrize("tile", [None, (16, 16), (48, 32)], ids=str)
def test_layout_is_read_exactly_or_refused(bits: int, channels: int, tile: tuple[int, int] | None) -> None:
    """Grey with alpha in planes read as black, and planes with the lower bit first as garbage."""
    values = pixels(bits, channels).reshape(48, 32, channels)
    more: dict[int, tuple[int, ...]] = {}
    if channels in {2, 4}:
        values[:, :, -1], more = np.iinfo(values.dtype).max, {338: (2,)}
    colour = expected(values)[:, :, : 1 if channels < 3 else 3]
    read = 0
    for order, compression, planar, fill_order in product("<>", (1, 8), (1, 2), (1, 2)):
        options = {"order": order, "compression": compression, "planar": planar, "fill_order": fill_order, "tile": tile}
        image = read_or_none(tiff_of_segments(values, **options, more=more))
        if planar == fill_order == 1 and (bits, channels) != (16, 2):
            assert image is not None, options
        if image is not None:
            read += 1
            assert np.array_equal(image, np.broadcast_to(colour, (48, 32, 3))), options
    assert read or (bits, channels) == (16, 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", [0, 1, 3], ids=["white is zero", "black is zero", "palette"])
@pytest.mark.parametrize(("compression", "fill_order"), [(1, 1), (8, 1), (8, 2)])
def test_grey_and_palette_of_few_bits_are_read(bits: int, photometric: int, compression: int, fill_order: int) -> None:
    values = np.random.default_rng(2).integers(0, 2**bits, (48, 37)).astype(np.uint8)
    packed = np.packbits((values[:, :, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(48, -1), axis=1)
    content = zlib.compress(packed.tobytes()) if compression == 8 else packed.tobytes()
    content = REVERSED[np.frombuffer(content, np.uint8)].tobytes() if fill_order == 2 else content
    tags = {256: (37,), 257: (48,), 258: (bits,), 259: (compression,), 262: (photometric,), 266: (fill_order,)}
    tags |= {273: (8,), 277: (1,), 278: (48,), 279: (len(content),)}
    if photometric == 3:
        tags[320] = tuple(int(value) * 257 for value in PALETTE[: 2**bits].T.ravel())
    grey = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    colour = PALETTE[values] if photometric == 3 else np.repeat((grey if photometric else 255 - grey)[:, :, None], 3, 2)
    assert np.array_equal(decode_image(tiff_of(tags, content + bytes(len(content) % 2), "<"), "a.tif"), colour)


@pytest.mark.parametrize(("kind", "format"), [("i2", 2), ("i4", 2), ("u4", 1)])
@pytest.mark.parametrize(("order", "compression"), list(product("<>", (1, 8))))
def test_signed_and_32_bit_grey_are_read_exactly_or_refused(
    kind: str, format: int, order: str, compression: int
) -> None:
    """Pillow swapped bytes that libtiff had swapped: the pixels read as others that are no less valid."""
    eight = np.random.default_rng(1).integers(0, 127, (48, 32, 1))
    image = read_or_none(
        tiff_of_segments((eight * 257).astype(kind), order=order, compression=compression, more={339: (format,)})
    )
    assert image is None if order == ">" and (kind == "u4" or compression == 8) else image is not None
    if image is not None:
        assert np.array_equal(image, np.repeat(eight, 3, axis=2))


@pytest.mark.parametrize(
    ("photometric", "channels", "more", "reason"),
    [
        (6, 3, {}, "a TIFF of YCbCr with Compression 1"),
        (6, 3, {259: (5,)}, "a TIFF of YCbCr with Compression 5"),
        (8, 3, {}, "a TIFF of Lab is not read"),
        (8, 3, {284: (2,)}, "a TIFF of Lab is not read"),
        (32844, 1, {}, "a TIFF of PhotometricInterpretation 32844 is not read"),
        (5, 4, {332: (2,)}, "a TIFF of CMYK with InkSet 2"),
        (1, 1, {258: (12,)}, "a TIFF of grey with 12 bits a channel"),
        (2, 3, {258: (8, 8, 4)}, "a TIFF of RGB with 8 bits a channel"),
        (1, 1, {339: (2,)}, "a TIFF of grey with SampleFormat 2"),
        (1, 1, {258: (32,), 339: (3,)}, "a TIFF of grey with floating-point pixels"),
        (1, 1, {317: (2,)}, "a TIFF of grey with Predictor 2 in Compression 1"),
        (2, 3, {259: (50001,)}, "a TIFF of RGB with Compression 50001"),
        (3, 1, {320: tuple(range(256)) * 3}, "the palette holds 8-bit values"),
        (3, 1, {320: COLOUR_MAP[:-3]}, "tag 320 has 765 values, expected 768"),
        (3, 1, {}, "tag 320 has 0 values, expected 768"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_layout_outside_of_the_table_is_refused(
    photometric: int, channels: int, more: dict[int, tuple[int, ...]], reason: str
) -> None:
    """Most of these read as black or as garbage without an error."""
    values = pixels(8, channels).reshape(48, 32, channels)
    with pytest.raises(BadInput, match=reason):
        decode_image(tiff_of_segments(values, more={262: (photometric,), **more}), "a.tif")


def test_tiff_that_names_no_kind_of_pixels_is_refused() -> None:
    """Pillow takes 0 for white then; libtiff reads nothing."""
    tags = {256: (32,), 257: (48,), 258: (8,), 259: (1,), 273: (8,), 277: (1,), 278: (48,), 279: (32 * 48,)}
    with pytest.raises(BadInput, match="no PhotometricInterpretation"):
        decode_image(tiff_of(tags, bytes(32 * 48), "<"), "a.tif")


GREY = {256: (32,), 257: (48,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
ALL, THIRD = 32 * 48, 32 * 16


@pytest.mark.parametrize(
    "parts",
    [
        {273: (8, 8 + ALL), 278: (48,), 279: (ALL, ALL)},
        {273: (8, 8 + ALL), 279: (ALL, ALL)},
        {273: (8, 8 + ALL), 278: (47,), 279: (ALL,)},
        {273: (8, 8 + THIRD, 8 + 2 * THIRD, 8 + ALL), 278: (16,), 279: (THIRD,) * 4},
        {273: (8, 8 + THIRD), 278: (16,), 279: (THIRD,) * 2},
        {273: (8, 8 + THIRD, 0), 278: (16,), 279: (THIRD, THIRD, 0)},
        {273: (8,), 278: (48,), 279: (ALL // 2,)},
        {273: (8,), 278: (0,), 279: (ALL,)},
        {273: (8,), 279: (ALL,), 324: (8 + ALL,), 325: (ALL,)},
        {273: (8,), 279: (ALL,), 322: (32,), 323: (48,), 324: (8 + ALL,), 325: (ALL,)},
        {322: (32,), 323: (16,), 324: (8, 8 + THIRD), 325: (THIRD,) * 2},
        {322: (32,), 323: (16,), 324: (8, 8 + THIRD, 8, 8), 325: (THIRD,) * 4},
        {322: (32,), 323: (16,), 324: (8,) * 3, 325: (THIRD, THIRD, THIRD - 1)},
    ],
    ids=[
        "two offsets of one strip",
        "two offsets without rows per strip",
        "an offset more than sizes",
        "four offsets of three strips",
        "two of three strips",
        "strip without content",
        "strip too short",
        "strips without rows",
        "tile offsets beside strips",
        "tiles beside strips",
        "two of three tiles",
        "four tiles of three",
        "tile too short",
    ],
)
def test_strips_or_tiles_that_are_not_exactly_the_picture_are_refused(parts: dict[int, tuple[int, ...]]) -> None:
    """Of two strips in one place Pillow showed the last and libtiff the first: a defect passed as sound. Missing ones were black."""
    data = bytes([200]) * ALL + bytes([50]) * ALL
    with pytest.raises(BadInput, match=r"a\.tif: broken or truncated"):
        decode_image(tiff_of(GREY | parts, data, "<"), "a.tif")


def test_16_bit_grey_of_two_pictures_in_one_strip_is_refused() -> None:
    deep = GREY | {258: (16,), 273: (8, 8 + 2 * ALL), 278: (48,), 279: (2 * ALL, 2 * ALL)}
    with pytest.raises(BadInput, match=r"a\.tif: broken or truncated"):
        decode_image(tiff_of(deep, bytes([200]) * 2 * ALL + bytes([50]) * 2 * ALL, "<"), "a.tif")


@pytest.mark.timeout(30)
def test_very_many_offsets_are_refused_unread() -> None:
    """2.7 million strips of 2999 rows, each decoded in turn."""
    side, count = 1000, 2_700_000
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 277: 1, 278: side - 1}
    start = 8 + side * side
    after = start + 6 + 12 * (len(tags) + 1)
    entries = b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags.items() if tag < 273)
    entries += struct.pack("<HHLL", 273, 4, count, after)
    entries += b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags.items() if tag > 273)
    head = b"II*\0" + struct.pack("<L", start) + bytes(side * side)
    offsets = struct.pack("<L", 8) * count
    with pytest.raises(BadInput, match="tag 273 has 2700000 values, expected 2"):
        decode_image(head + struct.pack("<H", len(tags) + 1) + entries + bytes(4) + offsets, "a.tif")


def test_picture_in_far_too_many_strips_is_refused() -> None:
    """One row a strip, of 2 million rows: the directory alone would be gigabytes in Pillow's memory."""
    strips = GREY | {256: (1,), 273: (8,), 278: (1,), 279: (1,)}
    data = bytearray(tiff_of(strips, bytes(8), "<"))
    place = data.index(struct.pack("<HHLHH", 257, 3, 1, 48, 0))
    data[place : place + 12] = struct.pack("<HHLL", 257, 4, 1, 2_000_000)
    with pytest.raises(BadInput, match="2000000 strips or tiles; at most 1048576 are read"):
        decode_image(bytes(data), "a.tif")
