"""Check an image's header before decoding; refuse files that would need too much memory or hold hidden images.

All limits are checked on the header: a file of a few kilobytes may decode to gigabytes.
"""

from __future__ import annotations

import io
import re
import warnings

from PIL import Image

from inspect_kd.datasets.jpeg_structure import check_jpeg
from inspect_kd.datasets.png_structure import SIGNATURE, check_png, read_header
from inspect_kd.datasets.tiff_checks import check_tiff
from inspect_kd.datasets.tiff_layout import BITS
from inspect_kd.datasets.tiff_structure import check_values
from inspect_kd.errors import BadInput

MAX_PIXELS = 200_000_000
MAX_BYTES = 3 * MAX_PIXELS
"""Limit for the decoded pixels at the file's own depth (16-bit RGBA: 8 bytes a pixel). Some steps hold two copies of them."""
WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
# Pillow raises an error above twice this number; its default is lower than our limit.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
_TIFF_MARKS = tuple(order + mark for order in (b"II", b"MM") for mark in (b"*\0", b"\0*", b"+\0", b"\0+"))
EXIF_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([0-9]+)""")
_OS2_HEADER_BYTES, _BITS_AT_IN_OS2_BMP, _BITS_AT_IN_BMP = 12, 24, 28
"""Header size of an OS/2 BMP, and the offset of the bits per pixel in an OS/2 BMP and in any other."""
_BITS_OF_GREY_MODE = {"1": 1, "L": 8}
"""Bits per pixel that Pillow assumes for a BMP of each grey mode."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


def open_image(data: bytes, name: str) -> Image.Image:
    """Open an image and check its header; pixels are decoded later, when Pillow loads them."""
    if not data:
        raise BadInput(f"{name}: the file is empty")
    if data.startswith(_TIFF_MARKS):
        check_tiff(data, name)
    elif data.startswith(b"\xff\xd8\xff"):
        check_jpeg(data, name)
    elif data.startswith(SIGNATURE):
        check_png(data, name)
    try:
        with warnings.catch_warnings():
            # Pillow's limit only warns; ours below raises.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name}: refused before decoding: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's plugins raise all kinds of errors for hostile headers.
        raise BadInput(f"{name}: not a readable image; supported are PNG, JPEG, BMP, TIFF and WebP") from error
    pixels, pixel_bytes = image.width * image.height, max(3, len(image.getbands()) * _bytes_per_channel(data, image))
    if pixels > MAX_PIXELS or pixels * pixel_bytes > MAX_BYTES:
        raise BadInput(
            f"{name}: {image.width}x{image.height} pixels of {pixel_bytes} bytes; the limit is "
            f"{MAX_BYTES // pixel_bytes // 10**6} million such pixels"
        )
    _check_structure(data, image, name)
    return image


def _check_structure(data: bytes, image: Image.Image, name: str) -> None:
    """Refuse run-length coded BMPs, those that Pillow decodes at another depth than their own, and files of several images."""
    if image.format == "BMP":
        bits = data[_BITS_AT_IN_OS2_BMP if data[14] == _OS2_HEADER_BYTES else _BITS_AT_IN_BMP]
        # Pillow drops a palette of grey values, and then takes the pixels for 1 bit (two values) or 8 bits each.
        if image.mode in _BITS_OF_GREY_MODE and bits != _BITS_OF_GREY_MODE[image.mode]:
            raise BadInput(f"{name}: a BMP of {bits} bits with a palette of grey values; save it as PNG")
    if image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise BadInput(f"{name}: truncated, or with bytes after the end of the WebP, which may be another image")
    if any(tile.codec_name == "bmp_rle" for tile in getattr(image, "tile", ())):
        # Four bytes of it may expand to 255 images of zeros, which Pillow allocates before it checks the size.
        raise BadInput(f"{name}: a BMP with run-length compression; save it uncompressed or as PNG")
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):
        raise BadInput(
            f"{name}: an animation of several images, only one of which would be inspected; save each one alone"
        )


def _bytes_per_channel(data: bytes, image: Image.Image) -> int:
    """Return how many bytes one channel of a pixel has at the file's own depth."""
    if image.mode in {"I", "F"}:
        return 4
    return 2 if image.mode in WIDE_MODES or is_16_bit_colour(data, image) else 1


def is_16_bit_colour(data: bytes, image: Image.Image) -> bool:
    """True for 16-bit colour, which Pillow would reduce to 8 bits."""
    if image.format == "PNG":
        header = read_header(data)
        return header.depth == 16 and header.colour_type in (2, 4, 6)  # RGB, grey with alpha, RGBA
    return image.format == "TIFF" and _tiff_bits_per_channel(image) == 16 and len(image.getbands()) >= 3


def _tiff_bits_per_channel(image: Image.Image) -> int:
    bits_per_sample: object = getattr(image, "tag_v2", {}).get(BITS, (8,))
    return max(bits_per_sample) if isinstance(bits_per_sample, tuple) else 8


def check_exif(image: Image.Image, name: str) -> None:
    """Refuse hostile Exif data of a PNG or WebP, which Pillow parses to find the orientation."""
    check_values(_exif(image), name)


def check_xmp(image: Image.Image, name: str) -> None:
    """Refuse an image whose orientation is set in XMP alone: Pillow applies it, OpenCV and browsers do not."""
    texts = [image.info.get(key, b"") for key in ("xmp", "XML:com.adobe.xmp")]
    xmp = b"".join(text.encode() if isinstance(text, str) else bytes(text) for text in texts)
    if all(int(orientation) == 1 for orientation in _XMP_ORIENTATION.findall(xmp)):
        return
    tags: object = getattr(image, "tag_v2", None)
    if tags is None:
        tags = Image.Exif()
        tags.load(_exif(image))
    if EXIF_ORIENTATION not in tags:  # type: ignore[operator]
        raise BadInput(
            f"{name}: its orientation is set only in XMP, which some readers ignore; save it upright, or set it in Exif"
        )


def _exif(image: Image.Image) -> bytes:
    """Return an image's Exif data; empty if it has none."""
    exif: bytes = image.info.get("exif", b"")
    if (profile := image.info.get("Raw profile type exif")) is not None and not exif:
        exif = bytes.fromhex("".join(profile.split("\n")[3:]))  # as ImageMagick writes it
    return exif
