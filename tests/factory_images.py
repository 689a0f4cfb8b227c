"""Image files as they occur in factories, and files that the C++ program refuses, each with the reason it gives."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image


def picture(mode: str = "RGB", size: tuple[int, int] = (97, 61)) -> Image.Image:
    """Noise without black pixels that differs from its turned and mirrored copies."""
    width, height = size
    rng = np.random.default_rng(1)
    pixels = rng.integers(60, 200, (height, width, 4), dtype=np.uint8)
    pixels[: height // 3, : width // 2] //= 3
    pixels[:, -width // 4 :, 1] = 255
    return (
        Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode)
        if "A" not in mode
        else Image.fromarray(pixels).convert(mode)
    )


def write_turned(to: Path, orientation: int) -> None:
    """Write a JPEG whose EXIF orientation tells viewers to turn or mirror it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture().save(to, exif=exif, quality=95)


def random_16_bit(channels: int) -> np.ndarray:
    values = np.random.default_rng(2).integers(0, 65536, (61, 97, channels)).astype(np.uint16)
    values[:20, :40] //= 5
    return values if channels > 1 else values[:, :, 0]


def write_palette_with_alpha(to: Path) -> None:
    picture("P").save(to, transparency=bytes(range(256)))


IMAGES: dict[str, Callable[[Path], Any]] = {
    "rgb.png": lambda to: picture().save(to),
    "grey.png": lambda to: picture("L").save(to),
    "bit.png": lambda to: picture("1").save(to),
    "palette.png": lambda to: picture("P").save(to),
    "palette4.png": lambda to: picture().quantize(11).save(to, bits=4),
    "palette_alpha.png": write_palette_with_alpha,
    "rgba.png": lambda to: picture("RGBA").save(to),
    "la.png": lambda to: picture("LA").save(to),
    "mono16.png": lambda to: cv2.imwrite(str(to), random_16_bit(1)),
    "rgb16.png": lambda to: cv2.imwrite(str(to), random_16_bit(3)),
    "rgba16.png": lambda to: cv2.imwrite(str(to), random_16_bit(4)),
    "rgb.jpg": lambda to: picture().save(to, quality=90),
    "rgb444.jpg": lambda to: picture().save(to, quality=90, subsampling=0),
    "progressive.jpg": lambda to: picture().save(to, progressive=True),
    "restart.jpg": lambda to: picture().save(to, restart_marker_blocks=2),
    "grey.jpg": lambda to: picture("L").save(to),
    # Bytes after the end of the image.
    "after.jpg": lambda to: (picture().save(to), to.write_bytes(to.read_bytes() + b"\0" * 99)),
    "rgb.bmp": lambda to: picture().save(to),
    "grey.bmp": lambda to: picture("L").save(to),
    "palette.bmp": lambda to: picture("P").save(to),
    "large.png": lambda to: picture(size=(401, 333)).save(to),
    "small.png": lambda to: picture(size=(31, 17)).save(to),
    "strip.png": lambda to: picture(size=(900, 20)).save(to),
    "exact.png": lambda to: picture(size=(64, 64)).save(to),
    "one.png": lambda to: picture(size=(1, 1)).save(to),
    **{f"turned{turn}.jpg": lambda to, turn=turn: write_turned(to, turn) for turn in range(1, 9)},
}
"""File name → a function that writes the file."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(to: Path, more: bytes, header: bytes | None = None) -> None:
    """Write a valid PNG with more chunks after its header, or with another header."""
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    content = buffer.getvalue()
    to.write_bytes(content[:8] + (chunk(b"IHDR", header) if header else content[8:33]) + more + content[33:])


def write_turned_by_xmp(to: Path, orientation: int) -> None:
    picture().save(to, xmp=f'<x tiff:Orientation="{orientation}"/>'.encode())


REFUSED_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a.webp": (lambda to: picture().save(to), "not an image that this program reads"),
    "a.tiff": (lambda to: picture().save(to), "not an image that this program reads"),
    "text.png": (lambda to: to.write_text("hello"), "not an image"),
    "empty.png": (lambda to: to.write_bytes(b""), "empty file"),
    "cmyk.jpg": (lambda to: picture("CMYK").save(to), "CMYK"),
    "xmp.jpg": (lambda to: write_turned_by_xmp(to, 6), "XMP"),
    "exif.png": (lambda to: write_png(to, chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0")), "Exif"),
    "key.png": (lambda to: picture().save(to, transparency=(1, 2, 3)), "transparent colour"),
    "grey_key.png": (lambda to: picture("L").save(to, transparency=90), "transparent colour"),
    "twice.png": (lambda to: (picture().save(to), to.write_bytes(2 * to.read_bytes())), "after the end of the PNG"),
    "frame.png": (lambda to: write_png(to, chunk(b"fcTL", bytes(26))), "animation of several images"),
    "two_headers.png": (lambda to: write_png(to, chunk(b"IHDR", bytes(13))), "broken or truncated"),
    "alpha.bmp": (lambda to: picture("RGBA").save(to), "BMP of this kind"),
    "huge.png": (
        lambda to: write_png(to, b"", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)),
        "30000x30000 pixels",
    ),
    # Its number of pixels overflows a signed 64-bit integer.
    "vast.png": (
        lambda to: write_png(to, b"", struct.pack(">IIBBBBB", 3724542049, 3892314173, 8, 2, 0, 0, 0)),
        "3724542049x3892314173 pixels",
    ),
    "none.png": (lambda to: write_png(to, b"", struct.pack(">IIBBBBB", 0, 9, 8, 2, 0, 0, 0)), "0x9 pixels"),
    "folder.png": (lambda to: to.mkdir(), "not a file"),
    "missing.png": (lambda to: None, "no such file"),
}
"""File name → a function that writes the file, and a part of the message with which the C++ program refuses it."""


def write_jpeg_with_thumbnail(to: Path) -> None:
    """Write a JPEG whose thumbnail has its own end-of-image marker."""
    thumbnail = io.BytesIO()
    picture(size=(32, 32)).save(thumbnail, "JPEG")
    segment = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail.getvalue()
    buffer = io.BytesIO()
    picture(size=(200, 160)).save(buffer, "JPEG")
    content = buffer.getvalue()
    to.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:])
