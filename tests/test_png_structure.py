"""PNG files that Pillow reads without an error although they are truncated, animated, or hold several images."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets import images
from inspect_kd.datasets.images import decode_image, read_image_header
from inspect_kd.errors import BadInput
from tests.factory_images import chunk

GREY, RGB, PALETTE = 0, 2, 3
WIDTH, HEIGHT = 33, 48
ADAM7_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Left, top, and steps across and down of each pass of an interlaced PNG."""
END_CHUNK = chunk(b"IEND", b"")
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def header(depth: int = 8, colour: int = RGB, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">LLBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced))


def encode_rows(pixels: np.ndarray, *, interlaced: bool = False) -> bytes:
    passes = [pixels[y::down, x::across] for x, y, across, down in ADAM7_PASSES] if interlaced else [pixels]
    return b"".join(b"\0" + row.tobytes() for rows in passes for row in rows)


def pixel_chunk(rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


VALID = png(header(), pixel_chunk(encode_rows(PIXELS)), END_CHUNK)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_whose_pixels_end_early_is_refused(depth: int, interlaced: bool) -> None:
    """The compressed stream is complete but holds too few rows; Pillow fills in black ones."""
    values = PIXELS if depth == 8 else (PIXELS.astype(np.uint16) * 257).astype(">u2")
    rows = encode_rows(values, interlaced=interlaced)
    complete = png(header(depth, interlaced=interlaced), pixel_chunk(rows), END_CHUNK)
    assert np.array_equal(decode_image(complete, "a.png"), PIXELS)
    size = len(rows)
    for length in (0, 1, size // 3, size // 2, size - size // HEIGHT, size - 1):
        with pytest.raises(BadInput, match=r"a\.png: broken or truncated"):
            decode_image(png(header(depth, interlaced=interlaced), pixel_chunk(rows[:length]), END_CHUNK), "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_each_mode_is_read_and_refused_if_a_row_is_missing(mode: str) -> None:
    picture = (
        Image.fromarray(PIXELS).convert(mode) if mode != "I;16" else Image.fromarray(PIXELS[:, :, 0] * np.uint16(99))
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = file.getvalue()
    assert decode_image(data, "a.png").shape == (HEIGHT, WIDTH, 3)
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start])
    rows = zlib.decompress(data[start + 4 : start + 4 + size])
    truncated = data[: start - 4] + pixel_chunk(rows[: -(len(rows) // HEIGHT)]) + END_CHUNK
    with pytest.raises(BadInput, match=r"a\.png: broken or truncated \(the PNG's pixels end \d+ bytes early\)"):
        decode_image(truncated, "a.png")


@pytest.mark.parametrize("value", [images.FILL_VALUE, 0, 255])
def test_png_whose_last_rows_equal_the_fill_value_is_read(value: int) -> None:
    """The reader fills the image with FILL_VALUE first; a last row of that value may mean that rows are missing."""
    pixels = PIXELS.copy()
    pixels[HEIGHT // 2 :] = value
    assert np.array_equal(decode_image(png(header(), pixel_chunk(encode_rows(pixels)), END_CHUNK), "a.png"), pixels)


def animation_chunk(frames: int) -> bytes:
    return chunk(b"acTL", struct.pack(">LL", frames, 0))


def frame_chunk(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">LLLLLHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))


SECOND_FRAME = chunk(b"fdAT", struct.pack(">L", 2) + zlib.compress(encode_rows(255 - PIXELS)))


@pytest.mark.parametrize(
    "chunks",
    [
        [animation_chunk(1), animation_chunk(1), pixel_chunk(encode_rows(PIXELS)), frame_chunk(0), SECOND_FRAME],
        [animation_chunk(0), pixel_chunk(encode_rows(PIXELS)), frame_chunk(0), SECOND_FRAME],
        [animation_chunk(1), frame_chunk(0), pixel_chunk(encode_rows(PIXELS)), frame_chunk(1), SECOND_FRAME],
        [pixel_chunk(encode_rows(PIXELS)), frame_chunk(0), SECOND_FRAME],
    ],
    ids=["declared twice", "no frame declared", "one frame declared", "not declared"],
)
def test_animation_is_refused_whatever_frame_count_it_declares(chunks: list[bytes]) -> None:
    """Browsers show the later frames, Pillow shows the first one."""
    with pytest.raises(BadInput, match=r"a\.png: an animation of several images"):
        decode_image(png(header(), *chunks, END_CHUNK), "a.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (VALID + VALID, "bytes after the end of the PNG"),
        (VALID + b"\0", "1 bytes after the end of the PNG"),
        (VALID[: -len(END_CHUNK)], "broken or truncated"),
        (png(header(), header(), pixel_chunk(encode_rows(PIXELS)), END_CHUNK), "chunks out of order"),
        (png(chunk(b"tEXt", b"a\0b"), header(), pixel_chunk(encode_rows(PIXELS)), END_CHUNK), "broken or truncated"),
        (
            png(header(), pixel_chunk(b""), chunk(b"tEXt", b"a\0b"), pixel_chunk(encode_rows(PIXELS)), END_CHUNK),
            "chunks out of order",
        ),
        (png(header(8, PALETTE), pixel_chunk(encode_rows(PIXELS[:, :, 0])), END_CHUNK), "without its palette"),
        (png(header()[:-4], bytes(4), END_CHUNK), "broken or truncated|not a readable image"),
    ],
    ids=[
        "two images",
        "trailing byte",
        "no end",
        "two headers",
        "header second",
        "split pixels",
        "no palette",
        "checksum",
    ],
)
def test_png_with_an_invalid_structure_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.png: .*({reason})"):
        decode_image(data, "a.png")


def test_reading_the_header_alone_checks_the_structure(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(VALID + VALID)
    with pytest.raises(BadInput, match="after the end of the PNG"):
        read_image_header(tmp_path / "a.png")


def test_inflating_stops_at_the_size_in_the_header() -> None:
    """A few megabytes of excess pixels could inflate to gigabytes."""
    rows = encode_rows(PIXELS[:, :, 0])
    rows = rows[: -WIDTH - 1] + b"\0" + bytes([images.FILL_VALUE]) * WIDTH
    compressor = zlib.compressobj(9)
    compressed = (
        compressor.compress(rows) + b"".join(compressor.compress(bytes(2**22)) for _ in range(64)) + compressor.flush()
    )
    image = decode_image(png(header(8, GREY), chunk(b"IDAT", compressed), END_CHUNK), "a.png")
    assert image[-1].tolist() == [[images.FILL_VALUE] * 3] * WIDTH


@pytest.mark.parametrize(("depth", "is_readable"), [(1, True), (2, False), (4, False), (8, True), (16, False)])
def test_transparent_grey_of_a_png_is_black_or_refused(depth: int, is_readable: bool) -> None:
    values = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 7 % 2**depth
    if depth == 16:
        rows = encode_rows(values.astype(">u2"))
    else:
        bits = (values[:, :, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8).reshape(HEIGHT, -1)
        rows = encode_rows(np.packbits(bits, axis=1))
    transparent_value = int(values[2, 3])
    data = png(header(depth, GREY), chunk(b"tRNS", struct.pack(">H", transparent_value)), pixel_chunk(rows), END_CHUNK)
    if not is_readable:
        with pytest.raises(BadInput, match=rf"a\.png: a {depth}-bit grey PNG with a transparent value"):
            decode_image(data, "a.png")
        return
    expected = np.where(values == transparent_value, 0, values * (255 // (2**depth - 1)))
    assert np.array_equal(decode_image(data, "a.png")[:, :, 0], expected)


def test_second_palette_is_refused() -> None:
    """Libraries differ in which of two palettes they use."""
    rows = encode_rows(np.zeros((HEIGHT, WIDTH), np.uint8))
    palettes = [chunk(b"PLTE", bytes([grey] * 3)) for grey in (10, 200)]
    start, pixels = header(colour=PALETTE), pixel_chunk(rows)
    assert decode_image(png(start, palettes[0], pixels, END_CHUNK), "a.png").max() == 10
    with pytest.raises(BadInput, match=r"a\.png: a PNG with two palettes"):
        decode_image(png(start, *palettes, pixels, END_CHUNK), "a.png")
