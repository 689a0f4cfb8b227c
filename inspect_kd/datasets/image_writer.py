"""Write images: encoded in memory and written by Python, never by OpenCV.

Given a file name that is not UTF-8, OpenCV ends the process; and of a full disk it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, file_named


def write_image(to: Path, image: npt.NDArray[np.uint8], options: Sequence[int] = ()) -> None:
    """Write the image in the format of the file's suffix; an OSError where it cannot be written whole."""
    content = encode_image(image, to.suffix, options, name=str(to))
    try:
        with file_named(to):
            to.write_bytes(content)
    except OSError:
        if to.is_file():  # not a device
            to.unlink()  # half an image, which many programs show without a word
        raise


def encode_image(
    image: npt.NDArray[np.uint8], suffix: str, options: Sequence[int] = (), *, name: str = "image"
) -> bytes:
    """(H, W), RGB or RGBA as a file's content; `options` are OpenCV's, such as the quality of a JPEG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR).astype(
            np.uint8, copy=False
        )
    try:
        done, content = cv2.imencode(suffix, image, options)
    except cv2.error:
        done = False
    if not done:
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise BadInput(f"{name}: {size} cannot be written as '{suffix}'; .png, .jpg and .webp can, within their limits")
    return content.tobytes()
