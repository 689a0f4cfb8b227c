"""TIFF files written tag by tag, and the pixels that must be read from them."""

from __future__ import annotations

import struct

import numpy as np


def encode_tiff(tags: dict[int, tuple[int, ...]], data: bytes, order: str) -> bytes:
    """A TIFF of one image: `data` from byte 8 on, then the directory; `tags` maps a tag's number to its values."""
    start = 8 + len(data)
    values_start, entries = start + 6 + 12 * len(tags), b""
    long_values = b""
    for tag, values in sorted(tags.items()):
        kind = "L" if tag in {273, 279, 324, 325} else "H"
        body = struct.pack(f"{order}{len(values)}{kind}", *values)
        field = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack(f"{order}L", values_start + len(long_values))
        long_values += body if len(body) > 4 else b""
        entries += struct.pack(f"{order}HHL", tag, 4 if kind == "L" else 3, len(values)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + long_values


def pixels(bits: int, channels: int) -> np.ndarray:
    """Random pixels, the same ones at 8 and 16 bits."""
    shape = (48, 32, channels) if channels > 1 else (48, 32)
    values = np.random.default_rng(channels).integers(0, 256, shape, np.uint8)
    return values if bits == 8 else values.astype(np.uint16) * 257


def expected_rgb(values: np.ndarray) -> np.ndarray:
    rgb = values if values.dtype == np.uint8 else (values // 257).astype(np.uint8)
    return rgb if values.ndim == 3 else np.repeat(rgb[:, :, None], 3, axis=2)
