"""Write images: OpenCV encodes in memory, Python writes the file.

OpenCV ends the process on a file name that is not UTF-8, and reports no error on a full disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput


def write_image(to: Path, image: npt.NDArray[np.uint8], options: Sequence[int] = ()) -> None:
    """Write an image in the format of the file's suffix, whole or not at all; raises OSError."""
    atomic_write.write_bytes(to, encode_image(image, to.suffix, options, name=str(to)), durable=False)


def encode_image(
    image: npt.NDArray[np.uint8], suffix: str, options: Sequence[int] = (), *, name: str = "image"
) -> bytes:
    """Encode a (H, W), RGB or RGBA image; `options` are OpenCV's, such as the quality of a JPEG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR).astype(
            np.uint8, copy=False
        )
    try:
        is_encoded, content = cv2.imencode(suffix, image, options)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise BadInput(
            f"{name}: {size} cannot be written as '{suffix}'; use .png, .jpg or .webp, within the format's limits"
        )
    return content.tobytes()
