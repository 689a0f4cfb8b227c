"""Images of all kinds are read, and broken ones are refused."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets.images import as_rgb8, decode_image, read_image, read_mask
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.resize import resize
from tests.factory_images import chunk


def test_sixteen_bit_mono_keeps_its_ramp(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, axis=0)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    cv2.imwrite(str(tmp_path / "ramp.tiff"), ramp)
    for name in ("ramp.png", "ramp.tiff"):
        image = read_image(tmp_path / name)
        assert image.shape == (8, 256, 3)
        assert np.array_equal(image[0, :, 0], np.arange(256))


def test_significant_bits_scale_to_the_full_range(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 4095, np.uint16))
    assert read_image(tmp_path / "a.png", bits=12).max() == 255
    assert read_image(tmp_path / "a.png").max() == 16


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_colour_keeps_its_channels(tmp_path: Path, suffix: str) -> None:
    rgb = np.zeros((4, 4, 3), np.uint16)
    rgb[..., 0], rgb[..., 1] = 65535, 257 * 100
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), rgb[..., ::-1])
    assert read_image(tmp_path / f"a.{suffix}")[0, 0].tolist() == [255, 100, 0]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([np.full((10, 20), 200, np.uint8)] * 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (20, 10, 3)


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[0, 0, 3] = 0
    rgba[1, 1, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[1, 1].tolist() == [200, 200, 200]


def test_cmyk_palette_and_one_bit_images_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red = read_image(tmp_path / "a.jpg")[4, 4]
    assert red[0] > 200 and red[1] < 60
    Image.new("RGB", (8, 8), (10, 200, 30)).convert("P").save(tmp_path / "p.png")
    assert abs(int(read_image(tmp_path / "p.png")[0, 0, 1]) - 200) < 20
    Image.new("1", (8, 8), 1).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").min() == 255


def test_long_strip_is_resized_without_cropping(tmp_path: Path) -> None:
    strip = np.zeros((400, 6000, 3), np.uint8)
    strip[:, -60:] = 255
    cv2.imwrite(str(tmp_path / "strip.png"), strip)
    resized = resize(read_image(tmp_path / "strip.png"), 256, 256)
    assert resized.shape == (256, 256, 3)
    assert resized[:, -2:].min() > 250 and resized[:, :250].max() == 0


def test_resize_averages_without_aliasing() -> None:
    checker = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    assert np.abs(resize(checker, 256, 256).astype(int) - 128).max() <= 1
    # One axis shrinks, the other grows.
    assert resize(checker[:64], 128, 128).shape == (128, 128, 3)


def _truncate(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.bmp"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    with pytest.raises(BadInput, match=name):
        read_image(_truncate(tmp_path / name, 0.6))


def test_oversized_transparency_chunk_is_refused() -> None:
    """Its palette indices can be decoded, but not mapped to colours."""
    file = io.BytesIO()
    Image.fromarray(np.full((20, 24), 7, np.uint8)).convert("P").save(file, "PNG")
    data = file.getvalue()
    pixels = data.index(b"IDAT") - 4
    with pytest.raises(BadInput, match=r"a\.png: broken or truncated \(palette index out of range\)"):
        decode_image(data[:pixels] + chunk(b"tRNS", bytes(300)) + data[pixels:], "a.png")


def test_files_that_are_not_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, reason in (
        ("text.png", "not a readable image"),
        ("empty.png", "file is empty"),
        ("none.png", "no such file"),
        (".", "a folder"),
    ):
        with pytest.raises(BadInput, match=reason):
            read_image(tmp_path / name)


def _write_bomb(path: Path, side: int) -> None:
    """Write a PNG of side x side black pixels in well under a megabyte."""
    compressor = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 1)
    compressed = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [15_000, 30_000])
def test_decompression_bomb_is_refused_in_little_memory(tmp_path: Path, side: int) -> None:
    _write_bomb(tmp_path / "bomb.png", side)
    assert (tmp_path / "bomb.png").stat().st_size < 1e6
    program = (
        "import resource, sys\nfrom inspect_kd.datasets.images import read_image\nfrom inspect_kd.errors import BadInput\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_image(sys.argv[1])\nexcept BadInput as error:\n    print(error)\n"
        "print('grew', (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.png")], capture_output=True, text=True, check=True
    )
    assert "bomb.png" in result.stdout and ("pixels" in result.stdout or "exceeds" in result.stdout)
    assert int(result.stdout.split("grew")[1]) < 200


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((4, 5), 7, np.uint8), 7),
        (np.full((4, 5, 1), 7, np.uint8), 7),
        (np.full((4, 5), 0.5, np.float64), 128),
        (np.ones((4, 5), bool), 255),
        (np.full((4, 5, 3), 65535, np.uint16), 255),
    ],
)
def test_arrays_are_converted_to_rgb(array: np.ndarray, expected: int) -> None:
    image = as_rgb8(array)
    assert image.shape == (4, 5, 3) and image.dtype == np.uint8
    assert image.max() == expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3,)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.full((4, 4), 3.0),
        np.zeros((4, 4), np.int64),
    ],
)
def test_arrays_of_other_shapes_or_types_are_refused(array: np.ndarray) -> None:
    with pytest.raises(BadInput):
        as_rgb8(array)


def test_tiny_defect_survives_shrinking_the_mask(tmp_path: Path) -> None:
    mask = np.zeros((2048, 2048), np.uint8)
    mask[1000:1003, 500:503] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    small = read_mask(tmp_path / "m.png", size=(256, 256))
    assert small.sum() == 1 and small[125, 62]


def test_real_images_are_read(real_data: Path) -> None:
    image = read_image(next((real_data / "magnetic_tile" / "tile" / "train" / "good").glob("*.jpg")))
    assert image.ndim == 3 and image.std() > 1


def _turn(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """Apply one of the eight Exif orientations."""
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    return turns[orientation](rgb)


def _encode_png_16_bit(rgb: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes()
    return content[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + content[33:]


def _encode_tiff_16_bit(rgb: np.ndarray, orientation: int) -> bytes:
    height, width = rgb.shape[:2]
    data = rgb.astype("<u2").tobytes()
    bits_offset = 8 + 2 + 12 * 11 + 4
    long, short = 4, 3
    tags = [
        *(
            (256, long, 1, width),
            (257, long, 1, height),
            (258, short, 3, bits_offset),
            (259, short, 1, 1),
            (262, short, 1, 2),
        ),
        *((273, long, 1, bits_offset + 6), (274, short, 1, orientation), (277, short, 1, 3), (278, long, 1, height)),
        *((279, long, 1, len(data)), (284, short, 1, 1)),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + struct.pack("<HHH", 16, 16, 16) + data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encode", [_encode_png_16_bit, _encode_tiff_16_bit])
def test_16_bit_colour_is_rotated_by_exif(tmp_path: Path, orientation: int, encode: Any) -> None:
    rgb = np.random.default_rng(0).integers(0, 65536, (12, 20, 3)).astype(np.uint16)
    file = tmp_path / "a.img"
    file.write_bytes(encode(rgb, orientation))
    expected = np.rint(rgb.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    assert np.array_equal(read_image(file), _turn(expected, orientation))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the address space")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "sixteen_bits.png"])
def test_image_for_which_the_memory_is_too_small_is_not_called_broken(tmp_path: Path, name: str) -> None:
    values = np.full((4000, 4000, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / name), values.astype(np.uint16) * 257 if "sixteen" in name else values)
    del values
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 20 * 2**20, unlimited[1]))
    try:
        with pytest.raises(
            EnvironmentFault, match=rf"{name}: not enough memory to read this image; close other programs"
        ):
            read_image(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
    assert read_image(tmp_path / name).shape == (4000, 4000, 3)
