"""What an image file says of itself before a pixel is decoded, and the refusal of what would cost too much or hide something.

Every limit is held against the header alone: a file of a few kilobytes may decode to gigabytes.
"""

from __future__ import annotations

import io
import re
import warnings

from PIL import Image

from inspect_kd.datasets.jpeg_structure import check_jpeg
from inspect_kd.datasets.png_structure import SIGNATURE, check_png
from inspect_kd.datasets.tiff_checks import check_tiff
from inspect_kd.datasets.tiff_structure import check_values
from inspect_kd.errors import BadInput

LARGEST_PIXELS = 200_000_000
LARGEST_BYTES = 3 * LARGEST_PIXELS
"""Of an image's pixels in their own depth: 16-bit RGBA is 8 bytes each, and some steps hold two copies."""
WIDE_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
# Pillow's own limit, which is an error at twice this number; as it comes it is below ours.
Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS // 2
_TIFF_MARKS = tuple(order + mark for order in (b"II", b"MM") for mark in (b"*\0", b"\0*", b"+\0", b"\0+"))
EXIF_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([0-9]+)""")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


def open_image(data: bytes, name: str) -> Image.Image:
    """Header only: Pillow decodes nothing before it is asked for pixels."""
    if not data:
        raise BadInput(f"{name}: an empty file")
    if data.startswith(_TIFF_MARKS):
        check_tiff(data, name)
    elif data.startswith(b"\xff\xd8\xff"):
        check_jpeg(data, name)
    elif data.startswith(SIGNATURE):
        check_png(data, name)
    try:
        with warnings.catch_warnings():
            # Our own limit below is the one that counts; Pillow's only warns.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name}: refused before decoding: {error}") from error
    except Exception as error:
        # Pillow's plugins raise whatever a hostile header makes them stumble over.
        raise BadInput(f"{name}: not an image that can be read (PNG, JPEG, BMP, TIFF and WebP are)") from error
    pixels, each = image.width * image.height, max(3, len(image.getbands()) * _depth(data, image))
    if pixels > LARGEST_PIXELS or pixels * each > LARGEST_BYTES:
        raise BadInput(
            f"{name}: {image.width}x{image.height} pixels of {each} bytes; at most {LARGEST_BYTES // each // 10**6} million "
            "of them are read"
        )
    _check_structure(image, name)
    return image


def _check_structure(image: Image.Image, name: str) -> None:
    """Only the first image of a file is decoded: a file of several is refused, or a defect in the others would pass unseen."""
    if any(tile.codec_name == "bmp_rle" for tile in getattr(image, "tile", ())):
        # Four bytes of it may stand for 255 whole images of zeros, which Pillow makes before it counts them.
        raise BadInput(f"{name}: a BMP with run-length compression; save it uncompressed or as PNG")
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):
        raise BadInput(
            f"{name}: an animation of several images, only one of which would be inspected; save each one alone"
        )


def _depth(data: bytes, image: Image.Image) -> int:
    """Bytes of a channel."""
    if image.mode in {"I", "F"}:
        return 4
    return 2 if image.mode in WIDE_MODES or is_deep(data, image) else 1


def is_deep(data: bytes, image: Image.Image) -> bool:
    """16-bit colour, which Pillow would cut to 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)
    return image.format == "TIFF" and _tiff_depth(image) == 16 and len(image.getbands()) >= 3


def _tiff_depth(image: Image.Image) -> int:
    bits_per_sample: object = getattr(image, "tag_v2", {}).get(258, (8,))
    return max(bits_per_sample) if isinstance(bits_per_sample, tuple) else 8


def check_exif(image: Image.Image, name: str) -> None:
    """Refuse hostile Exif data of a PNG or WebP, which Pillow reads when it is asked how the camera was held."""
    check_values(_exif(image), name)


def check_xmp(image: Image.Image, name: str) -> None:
    """Refuse a picture that is turned by XMP alone: Pillow would turn it, OpenCV and browsers would not."""
    texts = [image.info.get(key, b"") for key in ("xmp", "XML:com.adobe.xmp")]
    xmp = b"".join(text.encode() if isinstance(text, str) else bytes(text) for text in texts)
    if all(int(orientation) == 1 for orientation in _XMP_ORIENTATION.findall(xmp)):
        return
    tags: object = getattr(image, "tag_v2", None)
    if tags is None:
        tags = Image.Exif()
        tags.load(_exif(image))
    if EXIF_ORIENTATION not in tags:  # type: ignore[operator]
        raise BadInput(f"{name}: turned by XMP, which not every reader follows; save it upright, or turn it by Exif")


def _exif(image: Image.Image) -> bytes:
    exif: bytes = image.info.get("exif", b"")
    if (profile := image.info.get("Raw profile type exif")) is not None and not exif:
        exif = bytes.fromhex("".join(profile.split("\n")[3:]))  # as ImageMagick writes it
    return exif
