"""Read images of many formats: 8 and 16 bit, mono, alpha, CMYK, rotated by EXIF; broken files raise BadInput.

Pillow decodes, because it raises an error on truncated files, where OpenCV silently returns a half-grey image. If the memory runs
out, the image is not called broken: that is a fault of the machine (EnvironmentFault). No torch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from inspect_kd.datasets.image_headers import (
    EXIF_ORIENTATION,
    MAX_PIXELS,
    WIDE_MODES,
    check_exif,
    check_xmp,
    is_16_bit_colour,
    open_image,
)
from inspect_kd.datasets.png_structure import check_pixels_complete, read_header
from inspect_kd.datasets.tiff_layout import EXTRA_SAMPLES
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.plain_file import MissingFile, read_plain_file
from inspect_kd.types import ImageU8, Mask

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp"})
MAX_FILE_BYTES = 2**31
STRIP_PIXELS = 2**22
"""Pixels that are converted at once, which bounds the temporary memory of a conversion."""
FILL_VALUE = 165
"""Value with which all channels of a PNG are filled before decoding; real images hardly end with a row of it."""


def read_image(path: str | Path, *, bits: int | None = None) -> ImageU8:
    """Read an image file as (H, W, 3) RGB bytes; `bits`: significant bits of a 16-bit file (None: all)."""
    path = Path(path)
    with _name_file_if_memory_ends(str(path)):
        return as_rgb8(_decode(_read_bytes(path), str(path)), bits=bits, name=str(path))


def decode_image(data: bytes, name: str, *, bits: int | None = None) -> ImageU8:
    """Decode a file's content like `read_image`; `name` is used in errors."""
    with _name_file_if_memory_ends(name):
        return as_rgb8(_decode(data, name), bits=bits, name=name)


def read_mask(path: str | Path, *, size: tuple[int, int]) -> Mask:
    """Read a mask at (width, height): any value above zero is defective, and the smallest defect keeps at least one pixel."""
    path = Path(path)
    with _name_file_if_memory_ends(str(path)):
        return shrink_mask(_read_marked(path), size)


def _read_marked(path: Path) -> Mask:
    values = _decode(_read_bytes(path), str(path))
    marked = values.reshape(*values.shape[:2], -1)[:, :, : 3 if values.ndim == 3 else 1].max(axis=2) > 0
    if values.ndim == 3 and values.shape[2] == 4 and not marked.any() and not _is_opaque(values):
        raise BadInput(
            f"{path}: a mask that is black everywhere and partly transparent; mark defects with values above zero instead"
        )
    return np.asarray(marked, np.bool_)


def shrink_mask(marked: Mask, size: tuple[int, int]) -> Mask:
    """Resize a mask to (width, height); the smallest defect keeps at least one pixel."""
    height, width = marked.shape
    if (width, height) == size:
        return np.asarray(marked, np.bool_)
    shrunk = cv2.resize(marked.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    if marked.any() and not shrunk.any():
        rows, columns = np.nonzero(marked)
        shrunk[int(rows.mean() * size[1] / height), int(columns.mean() * size[0] / width)] = True
    return np.asarray(shrunk, np.bool_)


def _is_opaque(values: npt.NDArray[np.generic]) -> bool:
    return bool(np.all(values[:, :, 3] == (65535 if values.dtype == np.uint16 else 255)))


def read_image_header(path: str | Path) -> tuple[int, int, str]:
    """Return (width, height, mode) without decoding pixels."""
    path = Path(path)
    with _name_file_if_memory_ends(str(path)), open_image(_read_bytes(path), str(path)) as image:
        return image.width, image.height, image.mode


def as_rgb8(array: npt.NDArray[np.generic], *, bits: int | None = None, name: str = "array") -> ImageU8:
    """Convert a camera frame to (H, W, 3) RGB bytes: mono, RGB, RGBA (over black); uint8, uint16, bool or floats 0 to 1."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise BadInput(f"{name}: an image of shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise BadInput(f"{name}: {array.shape[1]}x{array.shape[0]} pixels; the limit is {MAX_PIXELS // 10**6} million")
    values = _to_bytes(array, bits, name)
    if values.ndim == 2:
        return np.repeat(values[:, :, None], 3, axis=2)
    if values.shape[2] == 4:
        # Blend over black, since transparent pixels may have any colour.
        if not values[:, :, 3].any():
            raise BadInput(f"{name}: wholly transparent, so that there is nothing to inspect; save it without alpha")
        blended = np.empty((*values.shape[:2], 3), np.uint8)
        for rows in _strips(*values.shape[:2]):
            alpha = values[rows, :, 3:].astype(np.uint16)
            blended[rows] = (values[rows, :, :3] * alpha + 127) // 255
        return blended
    return np.ascontiguousarray(values)


def _strips(height: int, width: int) -> Iterator[slice]:
    step = max(1, STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


@contextlib.contextmanager
def _name_file_if_memory_ends(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise EnvironmentFault(
            f"{name}: not enough memory to read this image; close other programs, or use smaller images"
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise BadInput(f"{path}: a folder, not an image")
        return read_plain_file(path, "image", MAX_FILE_BYTES)
    except MissingFile:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error


def _decode(data: bytes, name: str) -> npt.NDArray[np.generic]:
    """Decode pixels in their own depth: (H, W) or (H, W, 3 or 4); uint8 or uint16."""
    with open_image(data, name) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _read_pixels(data, image, name)
        except (BadInput, MemoryError):
            raise
        except Exception as error:
            if _is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise BadInput(f"{name}: broken or truncated ({' '.join(str(error).split())[:120]})") from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether OpenCV or one of Pillow's decoders got no memory, for which neither raises MemoryError."""
    is_denied_by_opencv = isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    return is_denied_by_opencv or (isinstance(error, OSError) and str(error).startswith("out of memory"))


def _read_pixels(data: bytes, image: Image.Image, name: str) -> npt.NDArray[np.generic]:
    check_xmp(image, name)  # before loading, which rotates a TIFF and drops its orientation
    # Loading raises an error on a truncated file, unlike OpenCV. It also reads Exif data that follows a PNG's pixels.
    if image.format == "PNG":
        _load_png(data, image, name)
    else:
        image.load()
    check_exif(image, name)
    check_xmp(image, name)
    if is_16_bit_colour(data, image):
        return _read_colour16(data, image, name)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in WIDE_MODES:
        return _read_mono16(image, name)
    if image.mode in {"1", "L"} and "transparency" not in image.info:
        return _convert(image, "L")
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    return _convert(image, "RGBA" if has_alpha else "RGB")


def _load_png(data: bytes, image: Image.Image, name: str) -> None:
    """Decode a PNG's pixels, and refuse a file with fewer pixels than its header says: Pillow does not write the missing rows.

    The image is filled with FILL_VALUE beforehand. If its last row still has that value, or if the check is not possible, the
    pixels are inflated again and counted, which takes half as long as decoding.
    """
    bands = len(image.getbands())
    filled = Image.new(image.mode, image.size, FILL_VALUE if bands == 1 else (FILL_VALUE,) * bands)
    last_row = (0, image.height - 1, image.width, image.height)
    fill_extrema, memory = filled.crop(last_row).getextrema(), filled.im
    image.im = memory
    image.load()
    can_check_fill = image.im is memory and not read_header(data).is_interlaced
    if not can_check_fill or image.crop(last_row).getextrema() == fill_extrema:
        check_pixels_complete(data, name)


def _convert(image: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """Convert an image strip by strip, because Pillow would make three copies of a whole image."""
    channels = () if mode == "L" else (len(mode),)
    out = np.empty((image.height, image.width, *channels), np.uint8)
    for rows in _strips(image.height, image.width):
        out[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert(mode))
    return out


def _read_mono16(image: Image.Image, name: str) -> npt.NDArray[np.generic]:
    values = np.asarray(image)
    if image.mode == "F":
        raise BadInput(f"{name}: floating-point pixels have no defined range; save as 16-bit integers")
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise BadInput(f"{name}: pixels beyond 16 bit; save as 16-bit integers")
    return values.astype(np.uint16)


def _read_colour16(data: bytes, image: Image.Image, name: str) -> npt.NDArray[np.generic]:
    """Decode 16-bit colour with OpenCV."""
    orientation, size = image.getexif().get(EXIF_ORIENTATION, 1), image.size
    is_premultiplied = getattr(image, "tag_v2", {}).get(EXTRA_SAMPLES) == (1,)
    image.im = None  # type: ignore[assignment]  # free the copy that Pillow decoded
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or sorted(values.shape[:2]) != sorted(size):
        raise BadInput(f"{name}: OpenCV cannot read this 16-bit colour; save it as 16-bit RGB")
    if values.ndim == 3 and values.shape[2] >= 3:
        code = cv2.COLOR_BGRA2RGBA if values.shape[2] == 4 else cv2.COLOR_BGR2RGB
        cv2.cvtColor(values, code, dst=values)
    if is_premultiplied:
        values = values[:, :, :3]  # the file holds colours that are blended over black
    return _apply_orientation(values, orientation)


def _apply_orientation(values: npt.NDArray[np.generic], orientation: object) -> npt.NDArray[np.generic]:
    """Apply the Exif orientation, which OpenCV ignores for 16-bit colour."""
    mirrored = orientation in (2, 4, 5, 7)
    upright = values[:, ::-1] if mirrored else values
    # Counter-clockwise quarter turns after the mirroring.
    turns = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0) if isinstance(orientation, int) else 0
    return np.ascontiguousarray(np.rot90(upright, turns))


def _to_bytes(array: npt.NDArray[np.generic], bits: int | None, name: str) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        full = np.float32(2 ** (bits or 16) - 1)
        colour = array if array.ndim == 2 else array[:, :, :3]  # alpha always has 16 bits
        if bits is not None and colour.max() > full:
            raise BadInput(f"{name}: pixels of up to {colour.max()} exceed {bits} significant bits; check `bits`")
        converted = np.empty(array.shape, np.uint8)
        for rows in _strips(*array.shape[:2]):
            converted[rows] = np.clip(np.rint(array[rows].astype(np.float32) * (255 / full)), 0, 255)
        return converted
    if np.issubdtype(array.dtype, np.floating):
        values = array.astype(np.float32)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise BadInput(f"{name}: floating-point images must lie between 0 and 1")
        return np.asarray(np.rint(values * 255), np.uint8)
    raise BadInput(f"{name}: pixels of type {array.dtype}; expected uint8, uint16, bool or floats from 0 to 1")
