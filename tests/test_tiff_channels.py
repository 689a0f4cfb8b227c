"""TIFF variants are read exactly or refused with a reason.

TIFF's tags: 256 width, 257 height, 258 bits per sample, 259 compression, 262 photometric, 266 fill order, 273 strip
offsets, 277 samples per pixel, 278 rows per strip, 279 strip sizes, 284 planar configuration, 317 predictor,
320 colour map, 322 and 323 tile width and height, 324 tile offsets, 325 tile sizes, 332 ink set, 338 extra samples,
339 sample format.
"""

from __future__ import annotations

import io
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets.images import decode_image
from inspect_kd.errors import BadInput
from tests.tiff_files import encode_tiff, expected_rgb, pixels


def tiff(
    values: np.ndarray,
    *,
    photometric: int | None = None,
    planar: int = 1,
    extra_samples: tuple[int, ...] = (),
    order: str = "<",
    compression: int = 1,
    predictor: int = 1,
    rows: int | None = None,
) -> bytes:
    """Encode (H, W) or (H, W, C) pixels as a TIFF in strips of `rows` rows, by default in one strip; `order` is the byte order."""
    height, width = values.shape[:2]
    values = values.reshape(height, width, -1).astype(values.dtype.newbyteorder(order))
    channels, rows = values.shape[2], rows or height
    planes = [values[:, :, index] for index in range(channels)] if planar == 2 else [values]
    pack = zlib.compress if compression == 8 else bytes
    strips = [pack(plane[top : top + rows].tobytes()) for plane in planes for top in range(0, height, rows)]
    offsets = tuple(8 + sum(map(len, strips[:index])) for index in range(len(strips)))
    tags = {256: (width,), 257: (height,), 258: (values.dtype.itemsize * 8,) * channels, 259: (compression,)}
    tags |= {262: ((2 if channels > 1 else 1) if photometric is None else photometric,), 273: offsets, 277: (channels,)}
    tags |= {278: (rows,), 279: tuple(map(len, strips)), 284: (planar,), 317: (predictor,)} | (
        {338: extra_samples} if extra_samples else {}
    )
    return encode_tiff(tags, b"".join(strips), order)


@pytest.mark.parametrize(
    ("bits", "channels", "planar", "order", "compression"), list(product((8, 16), (1, 3), (1, 2), "<>", (1, 8)))
)
def test_tiff_variant_is_read_exactly_or_refused(
    bits: int, channels: int, planar: int, order: str, compression: int
) -> None:
    """Each file is read twice, because OpenCV fills only the first of 16-bit planes and leaves old memory in the others."""
    values = pixels(bits, channels)
    for rows in (48, 16):
        data = tiff(values, planar=planar, order=order, compression=compression, rows=rows)
        if bits == 16 and planar == 2:
            with pytest.raises(BadInput, match=r"a\.tif: a TIFF of (grey|RGB) with channels in separate planes"):
                decode_image(data, "a.tif")
            continue
        for _ in range(2):
            assert np.array_equal(decode_image(data, "a.tif"), expected_rgb(values))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [1, 2], ids=["premultiplied", "alpha"])
def test_declared_alpha_is_blended(bits: int, kind: int) -> None:
    values = pixels(bits, 4)
    values[:, :, 3] = 128 * (257 if bits == 16 else 1)
    if kind == 1:
        values[:, :, :3] //= 2
    colour = expected_rgb(values)[:, :, :3] * (1 if kind == 1 else 128 / 255)
    image = decode_image(tiff(values, extra_samples=(kind,)), "a.tif")
    assert np.abs(image - colour).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra_samples", [(), (0,), (2, 0)], ids=str)
def test_channel_not_declared_as_alpha_is_refused(bits: int, extra_samples: tuple[int, ...]) -> None:
    channels = 3 + max(1, len(extra_samples))
    with pytest.raises(BadInput, match=rf"a\.tif: a TIFF of RGB with {channels} channels, .*ExtraSamples 1 or 2"):
        decode_image(tiff(pixels(bits, channels), extra_samples=extra_samples), "a.tif")


def test_white_is_zero_is_inverted_at_8_bit_and_refused_at_16() -> None:
    values = pixels(8, 1)
    image = decode_image(tiff(values, photometric=0), "a.tif")
    assert np.array_equal(image, 255 - expected_rgb(values))
    with pytest.raises(BadInput, match=r"a\.tif: a TIFF of grey in which 0 is white with 16 bits a channel"):
        decode_image(tiff(pixels(16, 1), photometric=0), "a.tif")


def test_16_bit_cmyk_is_refused_with_its_reason() -> None:
    with pytest.raises(BadInput, match=r"a\.tif: a TIFF of CMYK with 16 bits a channel"):
        decode_image(tiff(pixels(16, 4), photometric=5), "a.tif")


def test_16_bit_colour_in_a_compression_opencv_lacks_is_refused_with_its_reason() -> None:
    with pytest.raises(BadInput, match=r"a\.tif: a TIFF of RGB with Compression 50000 is not read; save it"):
        decode_image(tiff(pixels(16, 3), compression=50000), "a.tif")


@pytest.mark.parametrize("bits", [8, 16])
def test_packbits_with_a_predictor_is_refused(bits: int) -> None:
    """Some writers store differences here, which libtiff reads as pixels."""
    with pytest.raises(BadInput, match=r"a\.tif: a TIFF of RGB with Predictor 2 in Compression 32773"):
        decode_image(tiff(pixels(bits, 3), compression=32773, predictor=2), "a.tif")


@pytest.mark.parametrize("packing", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "jpeg"])
def test_8_bit_colour_in_each_compression_pillow_writes_is_read(packing: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(file, "TIFF", compression=packing)
    assert np.abs(decode_image(file.getvalue(), "a.tif").astype(int) - 90).max() <= 2


def packed(values: np.ndarray, packing: str) -> tuple[int, bytes]:
    """The compression's number and the bytes of one strip, as Pillow packs them."""
    file = io.BytesIO()
    if packing == "jpeg":  # with its tables, which Pillow stores apart in a TIFF
        Image.fromarray(values).save(file, "JPEG", subsampling=0)
        return 7, file.getvalue()
    Image.fromarray(values).save(file, "TIFF", compression=packing, tiffinfo={278: values.shape[0]})
    tags = Image.open(io.BytesIO(file.getvalue())).tag_v2  # type: ignore[attr-defined]
    return tags[259], file.getvalue()[tags[273][0] : tags[273][0] + tags[279][0]]


def one_strip(values: np.ndarray, compression: int, strip: bytes) -> bytes:
    """A TIFF of this size and depth whose only strip holds these bytes, whatever they decode to."""
    channels, bits = (1 if values.ndim == 2 else 3), (1 if values.dtype == np.bool_ else 8)
    photometric = {(1, 7): 1, (3, 7): 6}.get((channels, compression), 1 if channels == 1 else 2)
    tags = {256: (values.shape[1],), 257: (values.shape[0],), 258: (bits,) * channels, 259: (compression,)}
    tags |= {262: (photometric,), 273: (8,), 277: (channels,), 278: (values.shape[0],), 279: (len(strip),)}
    return encode_tiff(tags, strip + bytes(len(strip) % 2), "<")


def read_or_reason(data: bytes) -> np.ndarray | str:
    try:
        return decode_image(data, "a.tif")
    except BadInput as error:
        return str(error)


@pytest.mark.parametrize("packing", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rows", [8, 24, 96])
def test_pixels_do_not_depend_on_the_file_that_was_read_before(packing: str, channels: int, rows: int) -> None:
    """A strip with fewer or more rows than the image is refused, or its pixels do not depend on the file read before."""
    shape = (64, 512, 3) if channels == 3 else (64, 512)
    before = [np.full(shape, grey, np.uint8) for grey in (60, 200)]
    part = np.full((rows, *shape[1:]), 120, np.uint8)
    compression, strip = packed(part, packing)
    results = []
    for other in before:
        assert (
            np.abs(decode_image(one_strip(other, *packed(other, packing)), "b.tif").astype(int) - other.flat[0]).max()
            <= 3
        )
        results.append(read_or_reason(one_strip(before[0], compression, strip)))
    assert np.array_equal(results[0], results[1])
    if packing == "jpeg":
        assert (
            isinstance(results[0], str) and f"has 512x{rows}x{channels} values" in results[0] and "512x64" in results[0]
        )


def test_jpeg_segments_must_be_complete_and_must_not_overlap() -> None:
    values = np.full((64, 512), 90, np.uint8)
    compression, strip = packed(values, "jpeg")
    assert isinstance(read_or_reason(one_strip(values, compression, strip)), np.ndarray)
    assert "not one complete JPEG" in read_or_reason(one_strip(values, compression, strip[:-2]))
    assert "not one complete JPEG" in read_or_reason(one_strip(values, compression, strip[:200]))
    two = encode_tiff(
        {256: (512,), 257: (128,), 258: (8,), 259: (7,), 262: (1,), 273: (8, 8), 277: (1,), 278: (64,)}
        | {279: (len(strip),) * 2},
        strip + bytes(len(strip) % 2),
        "<",
    )
    assert "strips or tiles overlap" in read_or_reason(two)


@pytest.mark.parametrize("packing", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressions_are_refused(packing: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(bool)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", compression=packing)
    with pytest.raises(BadInput, match=r"a\.tif: a TIFF of grey.* with Compression [234] is not read; save it as"):
        decode_image(file.getvalue(), "a.tif")
