"""PNG files that Pillow reads without an error, and that are torn, animated or several in one file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets import images
from inspect_kd.datasets.images import decode_image, read_image_header
from inspect_kd.errors import BadInput
from tests.factory_images import chunk

GREY, RGB, PALETTE = 0, 2, 3
WIDTH, HEIGHT = 33, 48
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
END = chunk(b"IEND", b"")
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def header(depth: int = 8, colour: int = RGB, *, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">LLBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced))


def rows_of(pixels: np.ndarray, *, interlaced: bool = False) -> bytes:
    parts = [pixels[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [pixels]
    return b"".join(b"\0" + row.tobytes() for part in parts for row in part)


def pixels_of(rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SOUND = png(header(), pixels_of(rows_of(PIXELS)), END)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_whose_pixels_end_early_is_refused(depth: int, interlaced: bool) -> None:
    """The compressed stream is whole, with fewer rows in it: Pillow left the others black."""
    values = PIXELS if depth == 8 else (PIXELS.astype(np.uint16) * 257).astype(">u2")
    rows = rows_of(values, interlaced=interlaced)
    whole = png(header(depth, interlaced=interlaced), pixels_of(rows), END)
    assert np.array_equal(decode_image(whole, "a.png"), PIXELS)
    size = len(rows)
    for kept in (0, 1, size // 3, size // 2, size - size // HEIGHT, size - 1):
        with pytest.raises(BadInput, match=r"a\.png: broken or truncated"):
            decode_image(png(header(depth, interlaced=interlaced), pixels_of(rows[:kept]), END), "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_each_mode_with_a_row_missing_is_refused_and_with_all_rows_read(mode: str) -> None:
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
    short = data[: start - 4] + pixels_of(rows[: -(len(rows) // HEIGHT)]) + END
    with pytest.raises(BadInput, match=r"a\.png: broken or truncated \(the PNG's pixels end \d+ bytes early\)"):
        decode_image(short, "a.png")


@pytest.mark.parametrize("value", [images.FILL_VALUE, 0, 255])
def test_picture_whose_last_rows_are_as_the_filling_is_read(value: int) -> None:
    pixels = PIXELS.copy()
    pixels[HEIGHT // 2 :] = value
    assert np.array_equal(decode_image(png(header(), pixels_of(rows_of(pixels)), END), "a.png"), pixels)


def animation(frames: int) -> bytes:
    return chunk(b"acTL", struct.pack(">LL", frames, 0))


def frame(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">LLLLLHHBB", number, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0))


SECOND = chunk(b"fdAT", struct.pack(">L", 2) + zlib.compress(rows_of(255 - PIXELS)))


@pytest.mark.parametrize(
    "chunks",
    [
        [animation(1), animation(1), pixels_of(rows_of(PIXELS)), frame(0), SECOND],
        [animation(0), pixels_of(rows_of(PIXELS)), frame(0), SECOND],
        [animation(1), frame(0), pixels_of(rows_of(PIXELS)), frame(1), SECOND],
        [pixels_of(rows_of(PIXELS)), frame(0), SECOND],
    ],
    ids=["announced twice", "none announced", "one announced", "not announced"],
)
def test_animation_is_refused_whatever_it_says_of_its_frames(chunks: list[bytes]) -> None:
    """Browsers show the later frames, and Pillow the first."""
    with pytest.raises(BadInput, match=r"a\.png: an animation of several images"):
        decode_image(png(header(), *chunks, END), "a.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SOUND + SOUND, "bytes after the end of the PNG"),
        (SOUND + b"\0", "1 bytes after the end of the PNG"),
        (SOUND[: -len(END)], "broken or truncated"),
        (png(header(), header(), pixels_of(rows_of(PIXELS)), END), "chunks out of order"),
        (png(chunk(b"tEXt", b"a\0b"), header(), pixels_of(rows_of(PIXELS)), END), "broken or truncated"),
        (
            png(header(), pixels_of(b""), chunk(b"tEXt", b"a\0b"), pixels_of(rows_of(PIXELS)), END),
            "chunks out of order",
        ),
        (png(header(8, PALETTE), pixels_of(rows_of(PIXELS[:, :, 0])), END), "without its palette"),
        (png(header()[:-4], bytes(4), END), "broken or truncated|not a readable image"),
    ],
    ids=["two images", "a byte more", "no end", "two headers", "header second", "two runs", "no palette", "checksum"],
)
def test_png_of_a_wrong_structure_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.png: .*({reason})"):
        decode_image(data, "a.png")


def test_png_structure_is_checked_from_the_header_alone_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a.png").write_bytes(SOUND + SOUND)
    with pytest.raises(BadInput, match="after the end of the PNG"):
        read_image_header(tmp_path / "a.png")


def test_inflating_stops_at_the_size_that_the_header_says() -> None:
    """Pixels in excess are not inflated: a few megabytes of them would be gigabytes."""
    rows = rows_of(PIXELS[:, :, 0])
    rows = rows[: -WIDTH - 1] + b"\0" + bytes([images.FILL_VALUE]) * WIDTH
    packer = zlib.compressobj(9)
    packed = packer.compress(rows) + b"".join(packer.compress(bytes(2**22)) for _ in range(64)) + packer.flush()
    image = decode_image(png(header(8, GREY), chunk(b"IDAT", packed), END), "a.png")
    assert image[-1].tolist() == [[images.FILL_VALUE] * 3] * WIDTH


@pytest.mark.parametrize(("depth", "readable"), [(1, True), (2, False), (4, False), (8, True), (16, False)])
def test_transparent_grey_of_a_png_is_black_or_refused(depth: int, readable: bool) -> None:
    values = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 7 % 2**depth
    if depth == 16:
        rows = rows_of(values.astype(">u2"))
    else:
        bits = (values[:, :, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8).reshape(HEIGHT, -1)
        rows = rows_of(np.packbits(bits, axis=1))
    key = int(values[2, 3])
    data = png(header(depth, GREY), chunk(b"tRNS", struct.pack(">H", key)), pixels_of(rows), END)
    if not readable:
        with pytest.raises(BadInput, match=rf"a\.png: a {depth}-bit grey PNG with a transparent value"):
            decode_image(data, "a.png")
        return
    expected = np.where(values == key, 0, values * (255 // (2**depth - 1)))
    assert np.array_equal(decode_image(data, "a.png")[:, :, 0], expected)
