"""Images with an ambiguous orientation, with pixels beyond the significant bits, or wholly transparent are refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets.images import as_rgb8, decode_image, read_image
from inspect_kd.errors import BadInput
from tests.factory_images import chunk, picture
from tests.several_images import encode


def xmp(orientation: int, form: str = '="{}"') -> bytes:
    return f"<x tiff:Orientation{form.format(orientation)}/>".encode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("form", ['="{}"', ">{}<", "='{}'"])
def test_orientation_set_only_in_xmp_is_refused(kind: str, form: str) -> None:
    """Pillow turns such an image, but OpenCV and browsers do not."""
    with pytest.raises(BadInput, match="a: its orientation is set only in XMP"):
        decode_image(xmp_image(kind, xmp(6, form)), "a")
    upright = decode_image(encode(picture(), kind), "a")
    assert np.array_equal(decode_image(xmp_image(kind, xmp(1, form)), "a"), upright)


def xmp_image(kind: str, text: bytes, **options: object) -> bytes:
    if kind == "TIFF":
        return encode(picture(), kind, tiffinfo={700: text}, **options)
    if kind == "PNG":  # after the pixels, where it is also allowed
        data = encode(picture(), kind, **options)
        return data[:-12] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text) + data[-12:]
    return encode(picture(), kind, xmp=text, **options)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_overrides_xmp(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(encode(picture(), kind, exif=exif), "a")
    assert turned.shape == (97, 61, 3)
    for orientation in (1, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = 6
        if kind == "TIFF":
            exif[700] = xmp(orientation)
            data = encode(picture(), kind, exif=exif)
        else:
            data = xmp_image(kind, xmp(orientation), exif=exif)
        assert np.array_equal(decode_image(data, "a"), turned)


def test_pixels_beyond_the_significant_bits_are_refused() -> None:
    """Clipping would make a glare of 60000 look like one of 4095."""
    values = np.full((8, 8), 4095, np.uint16)
    assert as_rgb8(values, bits=12).max() == 255
    values[2, 3] = 4096
    with pytest.raises(BadInput, match="pixels of up to 4096 exceed 12 significant bits"):
        as_rgb8(values, bits=12, name="a")
    with pytest.raises(BadInput, match="12 significant bits"):
        decode_image(encode(Image.fromarray(values), "PNG"), "a.png", bits=12)


def test_alpha_has_16_bits_for_any_number_of_significant_bits() -> None:
    values = np.full((8, 8, 4), 4095, np.uint16)
    values[:, :, 3] = 65535
    assert as_rgb8(values, bits=12).min() == 255


def bmp_with_alpha(alpha: int) -> bytes:
    pixels = np.full((8, 8, 4), 90, np.uint8)
    pixels[:, :, 3] = alpha
    header = struct.pack("<LllHHLLllLL", 108, 8, 8, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0)
    header += struct.pack("<LLLL", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return b"BM" + struct.pack("<LHHL", 122 + pixels.nbytes, 0, 0, 122) + header + pixels.tobytes()


def test_wholly_transparent_image_is_refused() -> None:
    """It would be inspected as black. Some programs write BMP files whose alpha is 0 everywhere."""
    assert decode_image(bmp_with_alpha(255), "a.bmp").min() == 90
    with pytest.raises(BadInput, match=r"a\.bmp: wholly transparent"):
        decode_image(bmp_with_alpha(0), "a.bmp")
    image = Image.new("RGBA", (8, 8))
    with pytest.raises(BadInput, match=r"a\.png: wholly transparent"):
        decode_image(encode(image, "PNG"), "a.png")
    image.putpixel((3, 2), (200, 100, 50, 255))
    assert decode_image(encode(image, "PNG"), "a.png")[2, 3].tolist() == [200, 100, 50]


def test_jfif_is_a_jpeg(tmp_path: Path) -> None:
    from inspect_kd.datasets.find_images import find_in_folder

    file = io.BytesIO()
    picture().save(file, "JPEG")
    (tmp_path / "a.JFIF").write_bytes(file.getvalue())
    assert find_in_folder(tmp_path) == [tmp_path / "a.JFIF"]
    assert read_image(tmp_path / "a.JFIF").shape == (61, 97, 3)


@pytest.mark.timeout(20)
def test_endless_file_without_a_size_is_not_read(tmp_path: Path) -> None:
    """Files below /proc are regular files with a size of 0, but not empty."""
    (tmp_path / "a.png").symlink_to("/proc/self/mountinfo")
    with pytest.raises(BadInput, match=r"a\.png: the file is empty"):
        read_image(tmp_path / "a.png")
