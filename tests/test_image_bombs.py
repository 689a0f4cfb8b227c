"""Small files that would need gigabytes of memory are refused before decoding."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from inspect_kd.datasets.images import decode_image, read_image_header
from inspect_kd.errors import BadInput
from tests.factory_images import chunk, picture
from tests.several_images import encode, grey_tags, jpeg_with, tiff_file

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from inspect_kd.datasets.images import read_image_header, read_image
from inspect_kd.errors import BadInput
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in read_image_header, read_image:
    try:
        print("read", read(sys.argv[1]))
    except BadInput as error:
        print(error)
print("grew", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
VALUE_BYTES, TAG_COUNT = 2_000_000, 3000
"""Size of the value that a bomb's tags share, and the number of tags."""


def exif_with_shared_values(size: int = VALUE_BYTES, tags: int = TAG_COUNT, kind: int = 7) -> bytes:
    """Exif data with many tags that refer to the same bytes."""
    entries = b"".join(struct.pack("<HHLL", 40_000 + tag, kind, size, 16) for tag in range(tags))
    head = b"II*\0" + struct.pack("<L", 16 + size) + bytes(8 + size)
    return head + struct.pack("<H", tags) + entries + bytes(4)


def png_with(before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG with additional chunks before and after its pixels."""
    content = encode(picture(), "PNG")
    return content[:33] + before + content[33:-12] + after + content[-12:]


def raw_profile_chunk(exif: bytes) -> bytes:
    """Exif data as ImageMagick wrote it before PNG had an Exif chunk."""
    text = b"\nexif\n%8d\n" % len(exif) + exif.hex().encode()
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def jpeg_of_segments(exif: bytes) -> bytes:
    """A JPEG whose Exif data is divided into several segments."""
    content = encode(picture(), "JPEG")
    for start in reversed(range(0, len(exif), 65_000)):
        content = jpeg_with(b"Exif\0\0" + exif[start : start + 65_000], 0xE1, content=content)
    return content


def tiff_with_shared_values(*, in_exif: bool) -> bytes:
    """A TIFF file with the tags in its main directory, or in its Exif directory, which Pillow reads too."""
    shared = exif_with_shared_values()
    if not in_exif:
        tags = [(tag, kind, 1, value) for tag, kind, value in grey_tags()]
        tags += [(40_000 + tag, 7, VALUE_BYTES, 16) for tag in range(TAG_COUNT)]
        entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
        return shared[: 16 + VALUE_BYTES] + struct.pack("<H", len(tags)) + entries + bytes(4)
    # The values begin at offset 16, where `tiff_file` puts its data.
    return tiff_file(grey_tags(16, (34665, 4, 16 + VALUE_BYTES)), data=shared[16:])


def bmp_of_runs(compression: int) -> bytes:
    """A BMP that claims 170 million pixels, with run-length compression 1 (8 bits) or 2 (4 bits)."""
    bits = {1: 8, 2: 4}[compression]
    body, palette = b"\0\2\0\x2c", bytes(4 * 2**bits)
    header = struct.pack("<LllHHLLllLL", 40, 170_000_000, 1, 1, bits, compression, len(body), 0, 0, 2**bits, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<LHHL", start + len(body), 0, 0, start) + header + palette + body


BOMBS = {
    "rle8.bmp": lambda: bmp_of_runs(1),
    "rle4.bmp": lambda: bmp_of_runs(2),
    "tags.tif": lambda: tiff_with_shared_values(in_exif=False),
    "tags_in_exif.tif": lambda: tiff_with_shared_values(in_exif=True),
    "before_pixels.png": lambda: png_with(before=chunk(b"eXIf", exif_with_shared_values())),
    "after_pixels.png": lambda: png_with(after=chunk(b"eXIf", exif_with_shared_values())),
    "several_marks.png": lambda: png_with(before=chunk(b"eXIf", b"Exif\0\0" * 3 + exif_with_shared_values())),
    "profile.png": lambda: png_with(before=raw_profile_chunk(exif_with_shared_values(450_000, 4000))),
    "exif.webp": lambda: encode(picture(), "WEBP", exif=exif_with_shared_values()),
    "segments.jpg": lambda: jpeg_of_segments(exif_with_shared_values()),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_file_that_takes_gigabytes_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / name)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reason = "run-length compression" if name.endswith("bmp") else r"TIFF or Exif tags of \d+ bytes"
    assert f"{tmp_path / name}: " in output and re.search(reason, output)
    assert int(output.split("grew")[1]) < 100


def test_jpeg_that_ends_before_its_pixels_is_refused() -> None:
    """Pillow reads on after the end-of-image marker, where nothing is checked."""
    valid = encode(picture(), "JPEG")
    with pytest.raises(BadInput, match=r"a\.jpg: broken or truncated \(a JPEG that ends before its pixels\)"):
        decode_image(valid[:2] + b"\xff\xd9" + valid[2:], "a.jpg")


def test_exif_data_after_many_marks_is_refused() -> None:
    content = png_with(before=chunk(b"eXIf", b"Exif\0\0" * 50_000))
    with pytest.raises(BadInput, match=r"a\.png: Exif data that begins with 8 marks or more"):
        decode_image(content, "a.png")


def test_damaged_or_shared_exif_of_ordinary_size_is_accepted() -> None:
    damaged = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHLL", 0x010E, 2, 2**31, 8)
    for exif in (b"", b"II*\0\xff\xff\xff\xff", damaged, exif_with_shared_values(100, 50)):
        for content in (png_with(before=chunk(b"eXIf", exif)), jpeg_of_segments(exif)):
            assert decode_image(content, "a").shape == (61, 97, 3), exif


def test_limit_is_200_megapixels(tmp_path: Path) -> None:
    """Pillow's default limit is lower, 179 million."""
    for height, is_accepted in ((9999, True), (10_001, False)):
        header = struct.pack(">LLBBBBB", 20_000, height, 8, 2, 0, 0, 0)
        content = encode(picture(), "PNG")
        (tmp_path / "a.png").write_bytes(content[:8] + chunk(b"IHDR", header) + content[33:])
        if is_accepted:
            assert read_image_header(tmp_path / "a.png") == (20_000, height, "RGB")
        else:
            with pytest.raises(BadInput, match=r"a\.png: .*200"):
                read_image_header(tmp_path / "a.png")
