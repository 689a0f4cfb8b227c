"""An alignment as it is fitted to one category's sound parts, stored with the run and in the artifact."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from inspect_kd.datasets.alignment.by_silhouette import SilhouetteReference
from inspect_kd.datasets.alignment.by_template import WORKING_SIDE, TemplateReference
from inspect_kd.datasets.alignment.pose import MAX_SIDE, Grey, NotFound, Pose
from inspect_kd.errors import BadInput
from inspect_kd.types import ImageU8

MAX_PIXELS = 200_000_000
"""Most pixels of a frame."""
MAX_PICTURE_BYTES = 2**20
REFERENCES = {"silhouette": SilhouetteReference, "template": TemplateReference}


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """What alignment finds in one image."""

    pose: Pose | None
    """The best pose, also where it is not good enough."""
    fault: NotFound | None
    """Why the part counts as not found; None where it is found."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Alignment:
    """How the parts of one category are found, and how well they must agree with the reference."""

    reference: SilhouetteReference | TemplateReference
    min_quality: float
    """Least agreement with the reference of a part that counts as found."""

    @property
    def frame(self) -> tuple[int, int]:
        """(width, height) of the reference frame, in pixels of the original images."""
        return self.reference.frame

    @property
    def method(self) -> str:
        return next(name for name, kind in REFERENCES.items() if isinstance(self.reference, kind))

    def locate(self, image: ImageU8) -> Aligned:
        """Find the part in an image."""
        pose, fault = self.reference.locate(image)
        if fault is None and pose is not None and not pose.quality >= self.min_quality:
            fault = NotFound(
                f"agrees with the reference by {pose.quality:.2f}, a sound part by at least {self.min_quality:.2f}"
            )
        return Aligned(pose, fault)

    def to_json(self) -> dict[str, Any]:
        """Return the alignment as JSON; pictures are PNG files in base 64."""
        reference: Any = self.reference
        content: dict[str, Any] = {"method": self.method, "frame": list(self.frame), "min_quality": self.min_quality}
        if self.method == "silhouette":
            content |= {"anchor": list(reference.anchor), "axis": reference.axis}
            content |= {"max_border_share": reference.max_border_share, "mask": _encode(reference.mask)}
        return content | {"grey": _encode(reference.grey)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Alignment:
        """Read an alignment; every value is checked, since it may come from a hostile artifact."""
        try:
            return _parse(dict(content))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(f"the alignment is damaged ({type(error).__name__}: {error})") from error


def is_within_limits(frame: tuple[int, int]) -> bool:
    """Whether parts can be cut into a frame of (width, height)."""
    return max(frame) <= MAX_SIDE and frame[0] * frame[1] <= MAX_PIXELS


def _parse(content: dict[str, Any]) -> Alignment:
    method = content.pop("method")
    if method not in REFERENCES:
        raise BadInput(f"alignment by '{method}' is unknown to this program: update inspect-kd")
    width, height = content.pop("frame")
    if not all(type(side) is int and side >= 1 for side in (width, height)) or not is_within_limits((width, height)):
        raise BadInput(f"the alignment has an impossible frame of {width!r}x{height!r} pixels")
    min_quality = _number(content.pop("min_quality"), 0, 1)
    fields: dict[str, Any] = {"frame": (width, height), "grey": _decode(content.pop("grey"))}
    if method == "silhouette":
        x, y = content.pop("anchor")
        axis = content.pop("axis")
        fields |= {
            "anchor": (_number(x, -MAX_SIDE, 2 * MAX_SIDE), _number(y, -MAX_SIDE, 2 * MAX_SIDE)),
            "axis": None if axis is None else _number(axis, -math.tau, math.tau),
            "max_border_share": _number(content.pop("max_border_share"), 0, 2),
            "mask": _decode(content.pop("mask")),
        }
        if fields["mask"].shape != fields["grey"].shape:
            raise BadInput("the alignment's pictures differ in size")
    if content:
        raise BadInput(f"the alignment has unknown fields: {', '.join(map(str, content))}")
    return Alignment(reference=REFERENCES[method](**fields), min_quality=min_quality)


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{value!r} is no number from {low:g} to {high:g}")
    return float(value)


def _encode(picture: Grey) -> str:
    _, content = cv2.imencode(".png", picture)
    return base64.b64encode(content.tobytes()).decode()


def _decode(text: str) -> Grey:
    """Read a picture; its size is checked before it is decompressed."""
    if len(text) > MAX_PICTURE_BYTES:
        raise BadInput(f"a picture of the alignment has {len(text)} bytes; the limit is {MAX_PICTURE_BYTES}")
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadInput("a picture of the alignment is not in base 64") from error
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    is_png = content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR" and content[24:26] == b"\x08\x00"
    if not is_png or not (1 <= width <= WORKING_SIDE and 1 <= height <= WORKING_SIDE):
        raise BadInput(f"a picture of the alignment is no grey PNG of at most {WORKING_SIDE} pixels")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None or picture.shape != (height, width):
        raise BadInput("a picture of the alignment is damaged")
    return np.asarray(picture, np.uint8)
