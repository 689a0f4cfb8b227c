"""TIFF layouts are decoded exactly or refused; strips or tiles must cover the image.

tests/test_tiff_channels.py lists the tags' numbers.
"""

from __future__ import annotations

import struct
import zlib
from itertools import product

import numpy as np
import pytest

from inspect_kd.datasets.images import decode_image
from inspect_kd.errors import BadInput
from tests.tiff_files import encode_tiff, expected_rgb, pixels

REVERSED_BITS = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], np.uint8)
"""Each byte with its bits in reverse order, for fill order 2."""
PALETTE = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
COLOUR_MAP = tuple(int(value) * 257 for value in PALETTE.T.ravel())


def encode_segmented_tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    compression: int = 1,
    planar: int = 1,
    fill_order: int = 1,
    tile: tuple[int, int] | None = None,
    more_tags: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """Encode (H, W, C) pixels as a TIFF in strips of 16 rows, or in tiles of (width, height); `order` is the byte order."""
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
        segments.append(REVERSED_BITS[np.frombuffer(content, np.uint8)].tobytes() if fill_order == 2 else content)
    data = b"".join(segments)
    offsets = tuple(8 + sum(map(len, segments[:index])) for index in range(len(segments)))
    tags = {256: (width,), 257: (height,), 258: (values.dtype.itemsize * 8,) * channels, 259: (compression,)}
    tags |= {262: (2 if channels >= 3 else 1,), 266: (fill_order,), 277: (channels,), 284: (planar,)}
    segment_tags = {322: (across,), 323: (down,), 324: offsets} if tile else {273: offsets, 278: (down,)}
    segment_tags[325 if tile else 279] = tuple(map(len, segments))
    return encode_tiff(tags | segment_tags | (more_tags or {}), data + bytes(len(data) % 2), order)


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
    """Some libraries decode planar grey+alpha as black, and planar data with fill order 2 as garbage."""
    values = pixels(bits, channels).reshape(48, 32, channels)
    more_tags: dict[int, tuple[int, ...]] = {}
    if channels in {2, 4}:
        values[:, :, -1], more_tags = np.iinfo(values.dtype).max, {338: (2,)}
    colour = expected_rgb(values)[:, :, : 1 if channels < 3 else 3]
    read_count = 0
    for order, compression, planar, fill_order in product("<>", (1, 8), (1, 2), (1, 2)):
        options = {"order": order, "compression": compression, "planar": planar, "fill_order": fill_order, "tile": tile}
        image = read_or_none(encode_segmented_tiff(values, **options, more_tags=more_tags))
        if planar == fill_order == 1 and (bits, channels) != (16, 2):
            assert image is not None, options
        if image is not None:
            read_count += 1
            assert np.array_equal(image, np.broadcast_to(colour, (48, 32, 3))), options
    assert read_count or (bits, channels) == (16, 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", [0, 1, 3], ids=["white is zero", "black is zero", "palette"])
@pytest.mark.parametrize(("compression", "fill_order"), [(1, 1), (8, 1), (8, 2)])
def test_grey_and_palette_of_few_bits_are_read(bits: int, photometric: int, compression: int, fill_order: int) -> None:
    values = np.random.default_rng(2).integers(0, 2**bits, (48, 37)).astype(np.uint8)
    packed = np.packbits((values[:, :, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(48, -1), axis=1)
    content = zlib.compress(packed.tobytes()) if compression == 8 else packed.tobytes()
    content = REVERSED_BITS[np.frombuffer(content, np.uint8)].tobytes() if fill_order == 2 else content
    tags = {256: (37,), 257: (48,), 258: (bits,), 259: (compression,), 262: (photometric,), 266: (fill_order,)}
    tags |= {273: (8,), 277: (1,), 278: (48,), 279: (len(content),)}
    if photometric == 3:
        tags[320] = tuple(int(value) * 257 for value in PALETTE[: 2**bits].T.ravel())
    grey = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    colour = PALETTE[values] if photometric == 3 else np.repeat((grey if photometric else 255 - grey)[:, :, None], 3, 2)
    assert np.array_equal(decode_image(encode_tiff(tags, content + bytes(len(content) % 2), "<"), "a.tif"), colour)


@pytest.mark.parametrize(("dtype", "sample_format"), [("i2", 2), ("i4", 2), ("u4", 1)])
@pytest.mark.parametrize(("order", "compression"), list(product("<>", (1, 8))))
def test_signed_and_32_bit_grey_are_read_exactly_or_refused(
    dtype: str, sample_format: int, order: str, compression: int
) -> None:
    """Pillow swaps bytes that libtiff has swapped already, which gives other, plausible pixels."""
    grey = np.random.default_rng(1).integers(0, 127, (48, 32, 1))
    image = read_or_none(
        encode_segmented_tiff(
            (grey * 257).astype(dtype), order=order, compression=compression, more_tags={339: (sample_format,)}
        )
    )
    assert image is None if order == ">" and (dtype == "u4" or compression == 8) else image is not None
    if image is not None:
        assert np.array_equal(image, np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(
    ("photometric", "channels", "more_tags", "reason"),
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
def test_unsupported_layout_is_refused_with_its_reason(
    photometric: int, channels: int, more_tags: dict[int, tuple[int, ...]], reason: str
) -> None:
    """Libraries read most of these as black or as garbage without an error."""
    values = pixels(8, channels).reshape(48, 32, channels)
    with pytest.raises(BadInput, match=reason):
        decode_image(encode_segmented_tiff(values, more_tags={262: (photometric,), **more_tags}), "a.tif")


def test_tiff_without_photometric_interpretation_is_refused() -> None:
    """Pillow would take 0 for white; libtiff reads nothing."""
    tags = {256: (32,), 257: (48,), 258: (8,), 259: (1,), 273: (8,), 277: (1,), 278: (48,), 279: (32 * 48,)}
    with pytest.raises(BadInput, match="no PhotometricInterpretation"):
        decode_image(encode_tiff(tags, bytes(32 * 48), "<"), "a.tif")


GREY = {256: (32,), 257: (48,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
IMAGE_BYTES, THIRD_BYTES = 32 * 48, 32 * 16


@pytest.mark.parametrize(
    "segment_tags",
    [
        {273: (8, 8 + IMAGE_BYTES), 278: (48,), 279: (IMAGE_BYTES, IMAGE_BYTES)},
        {273: (8, 8 + IMAGE_BYTES), 279: (IMAGE_BYTES, IMAGE_BYTES)},
        {273: (8, 8 + IMAGE_BYTES), 278: (47,), 279: (IMAGE_BYTES,)},
        {273: (8, 8 + THIRD_BYTES, 8 + 2 * THIRD_BYTES, 8 + IMAGE_BYTES), 278: (16,), 279: (THIRD_BYTES,) * 4},
        {273: (8, 8 + THIRD_BYTES), 278: (16,), 279: (THIRD_BYTES,) * 2},
        {273: (8, 8 + THIRD_BYTES, 0), 278: (16,), 279: (THIRD_BYTES, THIRD_BYTES, 0)},
        {273: (8,), 278: (48,), 279: (IMAGE_BYTES // 2,)},
        {273: (8,), 278: (0,), 279: (IMAGE_BYTES,)},
        {273: (8,), 279: (IMAGE_BYTES,), 324: (8 + IMAGE_BYTES,), 325: (IMAGE_BYTES,)},
        {273: (8,), 279: (IMAGE_BYTES,), 322: (32,), 323: (48,), 324: (8 + IMAGE_BYTES,), 325: (IMAGE_BYTES,)},
        {322: (32,), 323: (16,), 324: (8, 8 + THIRD_BYTES), 325: (THIRD_BYTES,) * 2},
        {322: (32,), 323: (16,), 324: (8, 8 + THIRD_BYTES, 8, 8), 325: (THIRD_BYTES,) * 4},
        {322: (32,), 323: (16,), 324: (8,) * 3, 325: (THIRD_BYTES, THIRD_BYTES, THIRD_BYTES - 1)},
    ],
    ids=[
        "two offsets of one strip",
        "two offsets without rows per strip",
        "more offsets than sizes",
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
def test_strips_or_tiles_that_do_not_cover_the_image_exactly_are_refused(
    segment_tags: dict[int, tuple[int, ...]],
) -> None:
    """Of two strips in one place Pillow shows the last, libtiff the first: a defect can vanish. Missing strips are black."""
    data = bytes([200]) * IMAGE_BYTES + bytes([50]) * IMAGE_BYTES
    with pytest.raises(BadInput, match=r"a\.tif: broken or truncated"):
        decode_image(encode_tiff(GREY | segment_tags, data, "<"), "a.tif")


def test_16_bit_grey_with_two_offsets_of_one_strip_is_refused() -> None:
    tags = GREY | {258: (16,), 273: (8, 8 + 2 * IMAGE_BYTES), 278: (48,), 279: (2 * IMAGE_BYTES, 2 * IMAGE_BYTES)}
    with pytest.raises(BadInput, match=r"a\.tif: broken or truncated"):
        decode_image(encode_tiff(tags, bytes([200]) * 2 * IMAGE_BYTES + bytes([50]) * 2 * IMAGE_BYTES, "<"), "a.tif")


@pytest.mark.timeout(30)
def test_millions_of_offsets_are_refused_without_decoding() -> None:
    """Each of 2.7 million strips of 999 rows would be decoded."""
    side, count = 1000, 2_700_000
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 277: 1, 278: side - 1}
    start = 8 + side * side
    offsets_start = start + 6 + 12 * (len(tags) + 1)
    entries = b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags.items() if tag < 273)
    entries += struct.pack("<HHLL", 273, 4, count, offsets_start)
    entries += b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags.items() if tag > 273)
    head = b"II*\0" + struct.pack("<L", start) + bytes(side * side)
    offsets = struct.pack("<L", 8) * count
    with pytest.raises(BadInput, match="tag 273 has 2700000 values, expected 2"):
        decode_image(head + struct.pack("<H", len(tags) + 1) + entries + bytes(4) + offsets, "a.tif")


def test_image_of_too_many_strips_is_refused() -> None:
    """The image has 70,000 strips of one row, and each strip is decoded in a call of its own."""
    tags = GREY | {256: (1,), 273: (8,), 278: (1,), 279: (1,)}
    data = bytearray(encode_tiff(tags, bytes(8), "<"))
    position = data.index(struct.pack("<HHLHH", 257, 3, 1, 48, 0))
    data[position : position + 12] = struct.pack("<HHLL", 257, 4, 1, 70_000)
    with pytest.raises(BadInput, match="70000 strips or tiles; at most 65536 are read"):
        decode_image(bytes(data), "a.tif")
