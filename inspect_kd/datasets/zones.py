"""Zones of a part: places that are not inspected, and places where more or less heat is tolerated than elsewhere.

Zones are drawn in the pixels of a presentation's picture: the reference frame of aligned parts, otherwise the image itself.
Unusual here: ignored places are painted over before a model gets the picture. A network's receptive field reaches into them from
outside, so weighting its heatmap alone would let an ignored place change the heat beside it. No torch.

Shapes: H W picture, N frames, h w places of a model's heatmap at the grid on which its score is pooled.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.alignment.pose import Grey, Matrix, size_of
from inspect_kd.datasets.png_structure import SIGNATURE, check_pixels_complete, check_png
from inspect_kd.datasets.polygons import crosses_itself, inside_polygon, polygon_area
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput
from inspect_kd.types import ImageU8, Mask

Weights = npt.NDArray[np.float32]
"""Factor of the heat at each place: 0 where nothing is inspected, 1 / tolerance elsewhere."""
TOLERANCE = (0.05, 4.0)
"""Smallest and largest tolerance."""
MIN_INSPECTED = 0.01
"""Least share of the frame that zones must leave to be inspected."""
MAX_ZONES, MAX_POINTS = 200, 500
"""Most zones of a category, and most points of a polygon."""
MAX_SIDE, MAX_PIXELS = 2**15, 200_000_000
"""Largest frame in which zones can be drawn."""
MAX_LABEL_TEXT = 2**21
"""Longest label picture in an artifact's card, in base 64."""
LABEL_IGNORED = 255
"""Value of ignored pixels in a label picture; 0 is inspected as usual, 1 to 254 are a tolerance in hundredths."""
FILL = (124, 116, 104)
"""Colour of ignored places until `fit_fill` chooses one: the mean of natural images, which encoders normalise to about 0."""
RING = 0.02
"""Width of the ring around ignored places from which their colour is taken, as a share of the frame's longer side."""
ZONES = "zones: "
"""Beginning of the line that describes zones."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon and what holds inside it."""

    name: str
    polygon: tuple[Point, ...]
    """Corners (x, y); x from 0 to the frame's width, y from 0 to its height."""
    tolerance: float | None = None
    """The heat is divided by it, so 2 tolerates twice the heat and 0.5 half of it. None: the place is ignored."""

    def to_json(self) -> dict[str, Any]:
        rule = {"ignore": True} if self.tolerance is None else {"tolerance": self.tolerance}
        return {"name": self.name, **rule, "polygon": [list(point) for point in self.polygon]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Zones:
    """The zones of one category, in a frame of known size."""

    frame: tuple[int, int]
    """(width, height) in pixels."""
    zones: tuple[Zone, ...] = ()
    labels: Grey | None = None
    """A label picture in the place of polygons (see LABEL_IGNORED)."""
    fill: tuple[int, int, int] = FILL
    """Colour that ignored places get before a model sees the picture."""
    _scaled: dict[View, Weights] = field(default_factory=dict, init=False, repr=False)
    """Weights at the frames' scale, by view."""
    _by_frame: dict[tuple[View, int], list[Weights]] = field(default_factory=dict, init=False, repr=False)
    """Weights of each frame, by view and side."""

    def weights(self) -> Weights:
        """Draw the weight of each pixel: (H, W). Ignoring wins over a tolerance; of two tolerances the smaller counts."""
        if self.labels is not None:
            tolerances = np.where(self.labels == 0, 100, self.labels).astype(np.float32) / 100
            return np.where(self.labels == LABEL_IGNORED, np.float32(0), 1 / tolerances).astype(np.float32)
        weights = np.ones(self.frame[::-1], np.float32)
        lenient_first = sorted(self.zones, key=lambda zone: -1.0 if zone.tolerance is None else zone.tolerance)[::-1]
        for zone in lenient_first:
            inside = inside_polygon(np.array(zone.polygon, np.float64), self.frame)
            weights[inside] = 0.0 if zone.tolerance is None else 1 / zone.tolerance
        return weights

    @cached_property
    def ignored(self) -> Mask:
        """The pixels that are not inspected: (H, W)."""
        return np.asarray(self.weights() == 0, np.bool_)

    def blank(self, picture: ImageU8) -> ImageU8:
        """Paint ignored places over; the result does not depend on what they show."""
        if not self.ignored.any():
            return picture
        picture = picture.copy()
        picture[self.ignored] = self.fill
        return picture

    def scaled(self, view: View) -> Weights:
        """Return the weights at the frames' scale, resized and padded like the picture."""
        if view not in self._scaled:
            self._scaled[view] = view.scaled_map(self.weights())
        return self._scaled[view]

    def frame_weights(self, view: View, side: int) -> list[Weights]:
        """Return each frame's weights (h, w), averaged to `side` places along each axis, in the order of the view's frames."""
        if (view, side) not in self._by_frame:
            self._by_frame[view, side] = [average_places(cut, side) for cut in view.cut(self.scaled(view))]
        return self._by_frame[view, side]

    def ignored_in_image(self, matrix: Matrix | None, image: tuple[int, int], size: tuple[int, int]) -> Mask:
        """Return the ignored places of an original image as a mask of `size`; `matrix` maps the image, of size `image`, to the frame."""
        ignored = self.ignored.astype(np.float32)
        if matrix is not None:
            inverse = cv2.WARP_INVERSE_MAP
            ignored = np.asarray(cv2.warpAffine(ignored, matrix, image, flags=cv2.INTER_LINEAR | inverse), np.float32)
        if size_of(ignored) != size:
            ignored = np.asarray(cv2.resize(ignored, size, interpolation=cv2.INTER_AREA), np.float32)
        return np.asarray(ignored >= 0.5, np.bool_)

    def fit_fill(self, pictures: Iterable[ImageU8]) -> Zones:
        """Choose the colour of ignored places from sound pictures: the median of the inspected pixels right beside them."""
        if not self.ignored.any():
            return self
        width = max(2, round(RING * max(self.frame)))
        grown = cv2.dilate(self.ignored.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8)) > 0
        ring = grown & ~self.ignored
        # Counts of each value, since all pixels beside the places of many large pictures would fill the memory.
        counts_3V = np.zeros((3, 256), np.int64)
        for picture in pictures:
            counts_3V += [np.bincount(values, minlength=256) for values in picture[ring].T]
        red, green, blue = map(_median_value, counts_3V)
        return replace(self, fill=(red, green, blue))

    def describe(self) -> str:
        """Describe the zones in one line."""
        if self.labels is not None:
            names = "label picture"
        else:
            names = ", ".join(
                f"{zone.name} {'ignored' if zone.tolerance is None else f'tolerance {zone.tolerance:g}'}"
                for zone in self.zones
            )
        return f"{ZONES}{names}; {100 * (1 - self.ignored.mean()):.0f} % of the frame is inspected"

    def to_json(self) -> dict[str, Any]:
        """Return the zones as JSON; a label picture is a PNG file in base 64."""
        content: dict[str, Any] = {"frame": list(self.frame), "fill": list(self.fill)}
        if self.labels is None:
            return content | {"zones": [zone.to_json() for zone in self.zones]}
        _, png = cv2.imencode(".png", self.labels)
        return content | {"labels": base64.b64encode(png.tobytes()).decode()}

    @staticmethod
    def from_json(content: object) -> Zones:
        """Read zones; every value is checked, since it may come from a hostile artifact."""
        if not isinstance(content, Mapping) or content.keys() - {"labels", "zones"} != {"frame", "fill"}:
            raise BadInput("the zones are damaged")
        frame, fill = content["frame"], content["fill"]
        if not _are_integers(frame, 2, 1, MAX_SIDE) or frame[0] * frame[1] > MAX_PIXELS:
            raise BadInput(f"the zones have an impossible frame {frame!r:.60}")
        if not _are_integers(fill, 3, 0, 255):
            raise BadInput(f"the zones have an impossible colour {fill!r:.60}")
        size, colour = (frame[0], frame[1]), (fill[0], fill[1], fill[2])
        if ("labels" in content) == ("zones" in content):
            raise BadInput("the zones are damaged")
        if "labels" in content:
            return check_zones(Zones(frame=size, labels=_decode_labels(content["labels"], size), fill=colour))
        zones = [parse_zone(zone, size) for zone in _as_list(content["zones"])]
        return check_zones(Zones(frame=size, zones=tuple(zones), fill=colour))


def are_same(one: Zones | None, other: Zones | None) -> bool:
    """Whether pictures are painted and weighted alike, for example because categories share a label picture."""
    if one is None or other is None or one is other:
        return one is other
    if (one.frame, one.fill, one.zones) != (other.frame, other.fill, other.zones):
        return False
    if one.labels is None or other.labels is None:
        return one.labels is other.labels
    return np.array_equal(one.labels, other.labels)


def _median_value(counts: npt.NDArray[np.int64]) -> int:
    """Return the median, rounded down, of values of which each occurs so many times."""
    ends, total = counts.cumsum(), int(counts.sum())
    lower, upper = np.searchsorted(ends, [(total - 1) // 2, total // 2], side="right")
    return int(lower + upper) // 2


def average_places(weights: Weights, side: int) -> Weights:
    """Average the weights of a square frame over `side` places along each axis."""
    step = weights.shape[0] // side
    # In double precision, so that the order of summation does not matter: the C++ caller sums in another order.
    means = weights.reshape(side, step, side, step).mean(axis=(1, 3), dtype=np.float64)
    return np.ascontiguousarray(means, np.float32)


def parse_zone(content: object, frame: tuple[int, int]) -> Zone:
    """Read one zone, and refuse a polygon that encloses no part of the frame."""
    if not isinstance(content, Mapping):
        raise BadInput(f"a zone is {content!r:.60}; expected `name`, `polygon` and `ignore: true` or `tolerance`")
    name = content.get("name")
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 100:
        raise BadInput(f"a zone is called {name!r:.60}; give each zone a `name` of at most 100 printable characters")
    unknown = content.keys() - {"name", "ignore", "tolerance", "polygon"}
    if unknown:
        raise BadInput(
            f"zone '{name}': unknown key '{min(unknown)}'; a zone has name, polygon, ignore, tolerance and category"
        )
    return Zone(name, _parse_polygon(content.get("polygon"), frame, name), _parse_tolerance(content, name))


def _parse_tolerance(content: Mapping[str, Any], name: str) -> float | None:
    ignore, tolerance = content.get("ignore", False), content.get("tolerance")
    if type(ignore) is not bool:
        raise BadInput(f"zone '{name}': ignore is {ignore!r:.40}; write true or false")
    if ignore == (tolerance is not None):
        raise BadInput(f"zone '{name}': give it either `ignore: true` or a `tolerance`")
    if ignore:
        return None
    low, high = TOLERANCE
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not low <= tolerance <= high:
        raise BadInput(f"zone '{name}': tolerance {tolerance!r:.40} is not a number from {low:g} to {high:g}")
    return float(tolerance)


def _parse_polygon(content: object, frame: tuple[int, int], name: str) -> tuple[Point, ...]:
    if not isinstance(content, list) or not 3 <= len(content) <= MAX_POINTS:
        count = len(content) if isinstance(content, list) else 0
        raise BadInput(f"zone '{name}': a polygon of {count} points; it needs 3 to {MAX_POINTS}, as [[x, y], …]")
    width, height = frame
    for point in content:
        if not (isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)):
            raise BadInput(f"zone '{name}': the point {point!r:.60} is not [x, y]")
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            raise BadInput(f"zone '{name}': the point {point!r:.60} lies outside the frame of {width}x{height} pixels")
    points = np.array(content, np.float64)
    if crosses_itself(points):
        raise BadInput(f"zone '{name}': its outline crosses itself; list the corners in their order around the zone")
    if not polygon_area(points) >= 1:
        raise BadInput(f"zone '{name}': its polygon has no area")
    return tuple((float(x), float(y)) for x, y in content)


def check_zones(zones: Zones) -> Zones:
    """Refuse zones that contradict each other, or that leave nothing to inspect."""
    names = [zone.name for zone in zones.zones]
    if len(names) > MAX_ZONES:
        raise BadInput(f"{len(names)} zones; at most {MAX_ZONES}")
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two zones are called '{name}'; give each its own name")
    inspected = 1 - zones.ignored.mean()
    if inspected < MIN_INSPECTED:
        raise BadInput(f"the zones ignore the whole frame: {100 * inspected:.1f} % of it would be inspected")
    if zones.labels is not None:
        tolerances = zones.labels[(zones.labels > 0) & (zones.labels < LABEL_IGNORED)]
        if tolerances.size and tolerances.min() < 100 * TOLERANCE[0]:
            raise BadInput(
                f"the label picture has the value {tolerances.min()}; 0 is inspected as usual, {LABEL_IGNORED} is ignored, and "
                f"{100 * TOLERANCE[0]:.0f} to {LABEL_IGNORED - 1} are a tolerance in hundredths"
            )
    return zones


def _are_integers(values: object, count: int, low: int, high: int) -> bool:
    is_list = isinstance(values, list) and len(values) == count
    return is_list and all(type(value) is int and low <= value <= high for value in values)  # type: ignore[attr-defined]


def _as_list(content: object) -> list[Any]:
    if not isinstance(content, list) or len(content) > MAX_ZONES:
        raise BadInput("the zones are damaged")
    return content


def _decode_labels(text: object, frame: tuple[int, int]) -> Grey:
    """Read a stored label picture; its size is checked before it is decompressed."""
    if not isinstance(text, str) or len(text) > MAX_LABEL_TEXT:
        raise BadInput("the zones' label picture is damaged")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput("the zones' label picture is not in base 64") from error
    size = tuple(int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    is_grey = content[:8] == SIGNATURE and content[12:16] == b"IHDR" and content[24:26] == b"\x08\x00"
    if not is_grey or size != frame:
        raise BadInput(f"the zones' label picture is no grey PNG of {frame[0]}x{frame[1]} pixels")
    check_png(content, "the zones' label picture")
    check_pixels_complete(content, "the zones' label picture")
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if labels is None or labels.shape != frame[::-1]:
        raise BadInput("the zones' label picture is damaged")
    return np.asarray(labels, np.uint8)
