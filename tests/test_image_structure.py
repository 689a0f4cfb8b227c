"""Checks of an image file before decoding: its size, its end, and the number of images in it."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets.images import decode_image, read_image, read_image_header, read_mask
from inspect_kd.errors import BadInput
from tests.factory_images import picture, write_jpeg_with_thumbnail
from tests.several_images import (
    LONG,
    MULTI_IMAGE_FILES,
    SINGLE_IMAGE_FILES,
    encode,
    grey_tags,
    jpeg_with,
    multi_picture_jpeg,
    repeat_last_scan,
    small_jpeg,
    tiff_file,
    tile_tags,
)

# --- several images

TILED_TAGS = tile_tags(16, (16, 16), 256)


@pytest.mark.parametrize("name", MULTI_IMAGE_FILES)
def test_file_of_several_images_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MULTI_IMAGE_FILES[name]())
    for read in (read_image, read_image_header, lambda path: read_mask(path, size=(16, 16))):
        with pytest.raises(BadInput, match=rf"{re.escape(name)}: .*several images.*save each one alone"):
            read(tmp_path / name)


def test_gif_is_refused() -> None:
    with pytest.raises(BadInput, match="not a readable image"):
        decode_image(encode(picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(180)]), "a.gif")


@pytest.mark.parametrize("name", SINGLE_IMAGE_FILES)
def test_image_with_previews_or_gain_maps_is_read(name: str) -> None:
    image = decode_image(SINGLE_IMAGE_FILES[name](), name)
    assert image.shape in ((61, 97, 3), (16, 16, 3))
    if name.endswith("jpg"):
        assert np.array_equal(image, decode_image(encode(picture(), "JPEG"), "plain.jpg"))


@pytest.mark.parametrize(
    "data",
    [
        tiff_file(grey_tags(8, (254, LONG, 1)), grey_tags()),
        tiff_file(grey_tags(8, (254, LONG, 1), (330, LONG, 16))),
    ],
    ids=["preview in the first directory", "image in a sub-directory"],
)
def test_tiff_that_begins_with_a_preview_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"a\.tif: the first image .* is a preview"):
        decode_image(data, "a.tif")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff_file(grey_tags(), next_offset=10**6), "an offset beyond the end of the file: 1000000"),
        (
            tiff_file(grey_tags(), next_offset=2**64 - 1, big=True),
            "an offset beyond the end of the file: 18446744073709551615",
        ),
        (tiff_file(grey_tags(), *[grey_tags(8, (254, LONG, 1))] * 100), "more than 64 directories"),
        (tiff_file(grey_tags(), [(tag, LONG, 1) for tag in range(5000, 10_000)]), "a directory of 5000 tags"),
        (tiff_file([(256, LONG, 8), *grey_tags()]), "a tag appears twice"),
        (
            tiff_file([tag if tag[0] != 322 else (322, 1, 16) for tag in TILED_TAGS]),
            "tag 322 is not an integer of type SHORT",
        ),
    ],
    ids=[
        "offset too large",
        "64-bit offset too large",
        "too many directories",
        "too many tags",
        "repeated tag",
        "wrong type",
    ],
)
def test_ambiguous_tiff_directory_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.tif: broken or truncated .*{reason}|a\.tif: {reason}"):
        decode_image(data, "a.tif")


# --- tiles

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import BadInput
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("read", read_image(sys.argv[1]).shape)
except BadInput as error:
    print(error)
print("grew", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def deflate_zeros(size: int) -> bytes:
    compressor = zlib.compressobj(9)
    row = bytes(2**20)
    return (
        b"".join(compressor.compress(row[: min(2**20, size - start)]) for start in range(0, size, 2**20))
        + compressor.flush()
    )


@pytest.mark.parametrize("big", [False, True], ids=["tiff", "bigtiff"])
def test_tile_far_larger_than_its_image_is_refused_before_decoding(big: bool, tmp_path: Path) -> None:
    """A file of 150 KB would take a byte of memory per pixel of its tile, or three for RGB."""
    body = deflate_zeros(13_008**2)
    (tmp_path / "a.tif").write_bytes(tiff_file(tile_tags(16, (13_008, 13_008), len(body)), data=body, big=big))
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "a.tif")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "a.tif: 16x16 pixels in TIFF tiles of 13008x13008; refused before decoding" in output
    assert int(output.split("grew")[1]) < 50


@pytest.mark.parametrize(("side", "tile"), [(16, (1024, 1024)), (300, (304, 304)), (40, (16, 32))])
def test_image_in_padded_or_small_tiles_is_read(side: int, tile: tuple[int, int]) -> None:
    columns, rows = -(-side // tile[0]), -(-side // tile[1])
    body = zlib.compress(bytes([7]) * (tile[0] * tile[1]))
    if columns * rows == 1:
        data = tiff_file(tile_tags(side, tile, len(body)), data=body)
    else:
        data = encode(Image.new("L", (side, side), 7), "TIFF", compression="tiff_adobe_deflate", tile=tile)
    assert decode_image(data, "a.tif").tolist() == np.full((side, side, 3), 7).tolist()


def test_strip_longer_than_its_image_takes_no_memory(tmp_path: Path) -> None:
    tags = [tag for tag in grey_tags() if tag[0] != 278]
    (tmp_path / "a.tif").write_bytes(tiff_file(sorted([*tags, (278, LONG, 2**31)])))
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "a.tif")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "read (16, 16, 3)" in output and int(output.split("grew")[1]) < 50


# --- scans


@pytest.mark.parametrize("order", ["<", ">"])
def test_limit_on_scans_holds_with_a_multi_picture_index(order: str) -> None:
    progressive = encode(picture(), "JPEG", progressive=True)
    valid = multi_picture_jpeg((0x010001, small_jpeg()), order=order, content=progressive)
    assert decode_image(valid, "a.jpg").shape == (61, 97, 3)
    with_many_scans = multi_picture_jpeg(
        (0x010001, small_jpeg()), order=order, content=repeat_last_scan(progressive, 100)
    )
    with pytest.raises(BadInput, match=r"a\.jpg: a JPEG of more than 64 scans; refused before decoding"):
        decode_image(with_many_scans, "a.jpg")


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
    """Phones append videos, which contain all markers by chance."""
    valid = encode(picture(), "JPEG")
    video = np.random.default_rng(0).integers(0, 256, 10**5, dtype=np.uint8).tobytes() + b"\xff\xda" * 100
    assert np.array_equal(decode_image(valid + video, "a.jpg"), decode_image(valid, "a.jpg"))


# --- the end of a file


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_truncated_and_padded_jpeg_is_refused(options: dict[str, object], filling: bytes) -> None:
    """Zeros are valid codes: libjpeg decodes them to grey without an error."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    whole = encode(noise, "JPEG", quality=90, **options)
    assert decode_image(whole, "a.jpg").shape == (128, 128, 3)
    for fraction in (0.3, 0.6, 0.9, 0.99):
        beginning = whole[: int(len(whole) * fraction)]
        with pytest.raises(BadInput, match=r"a\.jpg: broken or truncated"):
            decode_image(beginning + filling * (len(whole) - len(beginning)), "a.jpg")


def test_end_marker_of_a_thumbnail_is_not_that_of_the_image(tmp_path: Path) -> None:
    write_jpeg_with_thumbnail(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    assert whole.count(b"\xff\xd9") == 2 and read_image(tmp_path / "a.jpg").shape == (160, 200, 3)
    with pytest.raises(BadInput, match=r"a\.jpg: broken or truncated \(a JPEG without its end-of-image marker\)"):
        decode_image(whole[:-2] + bytes(2), "a.jpg")


def test_markers_inside_segments_are_ignored() -> None:
    valid = jpeg_with(b"\xff\xd9\xff\xda" * 100, marker=0xFE)
    assert np.array_equal(decode_image(valid, "a.jpg"), decode_image(encode(picture(), "JPEG"), "b.jpg"))


@pytest.mark.timeout(20)
def test_millions_of_empty_segments_are_refused() -> None:
    valid = encode(picture(), "JPEG", progressive=True)
    last_scan = valid.rindex(b"\xff\xda")
    with pytest.raises(BadInput, match="broken or truncated"):
        decode_image(valid[:last_scan] + b"\xff\xfe\0\2" * 5_000_000 + valid[last_scan:], "a.jpg")


def bmp_with_grey_palette(bits: int, greys: tuple[int, ...]) -> bytes:
    """A BMP of 8x8 pixels with a palette of grey values; the pixels are the palette's entries, one after the other."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys)
    row = bytes(np.packbits(np.unpackbits((np.arange(8, dtype=np.uint8) % len(greys))[:, None], axis=1)[:, -bits:]))
    pixels = row.ljust(-(-len(row) // 4) * 4, b"\0") * 8
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 0, len(pixels), 0, 0, len(greys), 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


@pytest.mark.parametrize(
    ("bits", "greys"), [(8, (0, 255)), (4, (0, 255)), (4, tuple(range(16))), (8, (255, 0)), (1, (0, 255)), (4, (9, 70))]
)
def test_bmp_with_a_palette_is_read_exactly_or_refused_with_its_reason(bits: int, greys: tuple[int, ...]) -> None:
    """Pillow takes 8-bit pixels for single bits where the palette is black and white."""
    expected = np.repeat(np.array(greys, np.uint8)[np.arange(8) % len(greys)][None, :], 8, axis=0)
    if bits > 1 and greys in {(0, 255), tuple(range(16))}:
        with pytest.raises(
            BadInput, match=rf"a\.bmp: a BMP of {bits} bits with a palette of grey values; save it as PNG"
        ):
            decode_image(bmp_with_grey_palette(bits, greys), "a.bmp")
    else:
        assert np.array_equal(decode_image(bmp_with_grey_palette(bits, greys), "a.bmp")[:, :, 0], expected)


def test_webp_followed_by_another_is_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(file, "WEBP")
    one = file.getvalue()
    assert decode_image(one, "a.webp").shape == (16, 16, 3)
    for data in (one + one, one[:-1]):
        with pytest.raises(BadInput, match=r"a\.webp: (truncated, or with bytes after the end|not a readable)"):
            decode_image(data, "a.webp")
