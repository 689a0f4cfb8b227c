"""Writing images: all kinds of pixels and file names, and errors when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from inspect_kd.datasets.image_writer import encode_image, write_image
from inspect_kd.errors import BadInput


@pytest.mark.parametrize("name", ["a.png", os.fsdecode(b"\xfc.png"), " .png", "ü" * 120 + ".png"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (7, 9, 4)])
def test_written_pixels_are_read_back_unchanged(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_image(tmp_path / name, pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / name)), pixels)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_strided_view_is_encoded_like_its_copy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    view = pixels[::-2, ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, 90]
    assert encode_image(view, ".jpg", options) == encode_image(view.copy(), ".jpg", options)


def test_failed_write_raises_and_leaves_no_file(tmp_path: Path) -> None:
    """The disk becomes full in the middle of an image."""
    program = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from inspect_kd.datasets.image_writer import write_image\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)\n"
        "try:\n    write_image(Path(sys.argv[1]), noise)\nexcept OSError as error:\n    print(error.strerror)"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "a.png")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "File too large\n" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "shape"), [("a.xyz", (4, 4)), ("a", (4, 4)), ("a.jpg", (70_000, 4))])
def test_unsupported_format_or_size_is_refused(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"{name}: {shape[1]}x{shape[0]} pixels cannot be written as '"):
        write_image(tmp_path / name, np.zeros(shape, np.uint8))
    assert list(tmp_path.iterdir()) == []
