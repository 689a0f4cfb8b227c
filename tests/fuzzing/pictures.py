"""Small images in every format that the program reads, and mutations of their headers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random

import cv2
import numpy as np
from PIL import Image

from tests.fuzzing.mutate import BOUNDARY_NUMBERS, mutate_bytes

PNG = b"\x89PNG\r\n\x1a\n"
SIDES = (0, 1, 2, 3, 31, 255, 5000, 13_000, 14_100, 16_383, 30_000, 65_535, 2**31 - 1, 2**32 - 1)


def seeds() -> list[bytes]:
    """Make one image of each format, depth, colour mode and compression."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey, binary = rgba.convert("RGB"), rgba.convert("L"), rgba.convert("1")
    palette, cmyk, grey_alpha = rgb.quantize(17), rgb.convert("CMYK"), rgba.convert("LA")
    grey16 = Image.fromarray((noise[:, :, 0].astype(np.uint16) << 8) + 7)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8769] = 6, "about", {0x9000: b"0220"}
    images = [_encode(image, "PNG") for image in (rgb, rgba, grey, binary, palette, grey_alpha, grey16)]
    images += [_encode(palette, "PNG", transparency=3), _encode(rgb, "PNG", exif=exif.tobytes())]
    images += [_encode(image, "JPEG") for image in (rgb, grey, cmyk)]
    images += [_encode(rgb, "JPEG", exif=exif.tobytes()), _encode(rgb, "JPEG", progressive=True, quality=30)]
    images += [_encode(image, "BMP") for image in (rgb, grey, binary, palette, rgba)]
    images += [_encode(image, "TIFF") for image in (rgb, rgba, grey, binary, palette, cmyk, grey16, grey.convert("F"))]
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    images += [_encode(rgb, "TIFF", compression=compression) for compression in compressions]
    images += [_encode(binary, "TIFF", compression=compression) for compression in ("group3", "group4")]
    images += [_encode(rgb, "TIFF", save_all=True, append_images=[grey, rgb] * 3)]
    images += [_encode(rgba, "WEBP"), _encode(rgb, "WEBP", lossless=True), _encode(rgb, "WEBP", exif=exif.tobytes())]
    images += [_encode(rgb, kind, save_all=True, append_images=[rgb.rotate(180)]) for kind in ("WEBP", "PNG", "MPO")]
    images += [
        _encode(grey, "TIFF", compression="tiff_adobe_deflate", tile=(16, 16)),
        _encode(rgb, "TIFF", big_tiff=True),
    ]
    rgba16 = noise.astype(np.uint16) * 257
    images += [cv2.imencode(suffix, rgba16[:, :, :3])[1].tobytes() for suffix in (".png", ".tiff")]
    # RGBA of 16 bits is missing in TIFF, because OpenCV does not declare its fourth channel as alpha.
    return [*images, cv2.imencode(".png", rgba16)[1].tobytes()]


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mutate_image(rng: Random, seeds: list[bytes]) -> bytes:
    """Mutate one of the seeds anywhere or in its header; rarely return a decompression bomb instead."""
    data = rng.choice(seeds)
    if rng.random() < 0.0005:
        return bomb(rng.choice(BOMB_SIDES), rng.choice((1, 8, 16)), rng.choice((0, 2, 6)))
    mutate_header = next((mutate for start, mutate in HEADER_MUTATIONS.items() if data.startswith(start)), None)
    if mutate_header is None or rng.random() < 0.4:
        return mutate_bytes(rng, data, rng.choice(seeds))
    return mutate_header(rng, data)


def _mutate_png(rng: Random, data: bytes) -> bytes:
    """Change, move or repeat chunks, with correct checksums so that reading continues."""
    chunks = _split_chunks(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        match rng.randrange(6):
            case 0 | 1 if kind == b"IHDR" and len(body) > 12:
                body = bytearray(body)
                offset = rng.choice((0, 4, 8, 9, 10, 11, 12))
                if offset < 8:
                    body[offset : offset + 4] = struct.pack(">I", rng.choice(SIDES))
                else:
                    body[offset] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
                chunks[place] = kind, bytes(body)
            case 2:
                chunks.insert(place, rng.choice(chunks))
            case 3 if len(chunks) > 1:
                chunks.pop(place)
            case 4:
                extra = rng.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"gAMA"))
                packed = zlib.compress(bytes(rng.choice((10, 10**6)))) if rng.random() < 0.3 else rng.randbytes(30)
                chunks.insert(place, (extra, b"x\0\0" + packed))
            case _:
                chunks[place] = kind, mutate_bytes(rng, body, rounds=2)
    return PNG + b"".join(_join_chunk(kind, body) for kind, body in chunks)


def _split_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(PNG)
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _join_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _mutate_jpeg(rng: Random, data: bytes) -> bytes:
    """Change the frame's size and components, or the length of a segment."""
    out = bytearray(data)
    segments = [place for place in range(len(out) - 12) if out[place] == 0xFF and 0xC0 <= out[place + 1] <= 0xFE]
    place = rng.choice(segments)
    if 0xC0 <= out[place + 1] <= 0xCF and rng.random() < 0.7:
        side_offset = place + rng.choice((5, 7))
        out[side_offset : side_offset + 2] = struct.pack(">H", rng.choice(SIDES) & 0xFFFF)
        out[place + 9] = rng.choice((0, 1, 3, 3, 3, 4, 255))
    elif rng.random() < 0.7:
        out[place + 2 : place + 4] = struct.pack(">H", rng.choice(BOUNDARY_NUMBERS) & 0xFFFF)
    else:
        out[place + 1] = rng.randrange(256)
    return bytes(out)


def _mutate_tiff(rng: Random, data: bytes) -> bytes:
    """Change entries of the directory: tag, type, count or value."""
    out, order = bytearray(data), "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", out, 4)
    if directory + 2 > len(out):
        return mutate_bytes(rng, data)
    (entries,) = struct.unpack_from(f"{order}H", out, directory)
    for _ in range(rng.randint(1, 3)):
        entry = directory + 2 + 12 * rng.randrange(max(1, entries))
        if entry + 16 > len(out):
            continue
        match rng.randrange(5):
            case 0:
                tags = (254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 322, 323, 324, 325, 339, 347, 34665, 700)
                struct.pack_into(f"{order}H", out, entry, rng.choice(tags))
            case 1:
                struct.pack_into(f"{order}H", out, entry + 2, rng.randrange(20))
            case 2:
                struct.pack_into(f"{order}I", out, entry + 4, rng.choice(BOUNDARY_NUMBERS))
            case 3 if rng.random() < 0.2:
                # The next directory is this one: an endless loop.
                struct.pack_into(f"{order}I", out, min(len(out) - 4, directory + 2 + 12 * entries), directory)
            case _:
                struct.pack_into(f"{order}I", out, entry + 8, rng.choice((*BOUNDARY_NUMBERS, *SIDES)))
    return bytes(out)


def _mutate_bmp(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        place = rng.choice((10, 14, 18, 22, 26, 28, 30, 34, 46, 50))
        value = rng.choice((*BOUNDARY_NUMBERS, *SIDES, 3, 4, 8, 16, 24, 32)) & 0xFFFFFFFF
        out[place : place + 4] = struct.pack("<I", value)
    return bytes(out)


def _mutate_webp(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    # Frame header, extended header and chunk lengths all lie in the first forty bytes.
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(4, 44)
        size = rng.choice((1, 2, 3, 4))
        out[place : place + size] = (rng.choice(BOUNDARY_NUMBERS) & (256**size - 1)).to_bytes(size, "little")
    return bytes(out)


HEADER_MUTATIONS: dict[bytes, Callable[[Random, bytes], bytes]] = {
    PNG: _mutate_png,
    b"\xff\xd8": _mutate_jpeg,
    b"II": _mutate_tiff,
    b"MM": _mutate_tiff,
    b"BM": _mutate_bmp,
    b"RIFF": _mutate_webp,
}


BOMB_SIDES = (4000, 9000, 13_000, 14_100, 15_000, 30_000)


@cache
def bomb(side: int, depth: int, colour: int) -> bytes:
    """Make a PNG of white pixels that decoding makes a thousand times larger. `colour`: PNG's type 0 grey, 2 RGB or 6 RGBA."""
    depth = 8 if depth == 1 and colour else depth
    row = b"\0" + b"\xff" * ((side * depth * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8)
    # Huge images get a tenth of their rows, to save time: truncated images are refused, too.
    rows = side if side * len(row) < 2e9 else side // 10
    compressor = zlib.compressobj(1)
    packed = b"".join(compressor.compress(row) for _ in range(rows)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return PNG + _join_chunk(b"IHDR", header) + _join_chunk(b"IDAT", packed) + _join_chunk(b"IEND", b"")
