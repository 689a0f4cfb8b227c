"""Read the file of zones that a recipe names: a YAML with polygons, or a label picture.

The file is written once for all categories of a data set; the size of each category's frame is known only when its images'
presentation is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspect_kd import config
from inspect_kd.datasets.alignment.pose import Grey, size_of
from inspect_kd.datasets.images import read_image_header
from inspect_kd.datasets.zones import MAX_LABEL_TEXT, Zones, check_zones, parse_zone
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file
from inspect_kd.types import ImageU8

EXPECTED = "expected `zones:` with a list of name, polygon, and `ignore: true` or `tolerance: NUMBER`"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ZonesFile:
    """A file of zones that was read, but not yet checked against the size of a frame."""

    path: Path
    zones: Sequence[Mapping[str, Any]] = ()
    """As the YAML lists them."""
    labels: Grey | None = None

    def for_category(
        self, category: str, sizes: AbstractSet[tuple[int, int]], pictures: Iterable[ImageU8], *, aligned: bool
    ) -> Zones | None:
        """Return a category's zones, fitted to some of its sound pictures; None where the file has none for it.

        `sizes`: (width, height) of these pictures.
        """
        zones = self.draw(category, sizes, aligned=aligned)
        return None if zones is None else zones.fit_fill(pictures)

    def draw(self, category: str, sizes: AbstractSet[tuple[int, int]], *, aligned: bool) -> Zones | None:
        """Check a category's zones against the (width, height) of its pictures; None where the file has none for it."""
        own = [zone for zone in self.zones if zone.get("category", category) == category]
        if self.labels is None and not own:
            return None
        if len(sizes) > 1:
            raise BadInput(
                f"{self.path}: the images of '{category}' have different sizes ({_write_sizes(sizes)}), so zones have no fixed place "
                "in them; align the parts (data.align) or use images of one size"
            )
        (frame,) = sizes
        try:
            return check_zones(self._draw(own, frame, aligned=aligned))
        except BadInput as error:
            raise BadInput(f"{self.path}: {error}") from error

    def _draw(self, own: Sequence[Mapping[str, Any]], frame: tuple[int, int], *, aligned: bool) -> Zones:
        if self.labels is not None:
            if size_of(self.labels) != frame:
                what = "aligned parts" if aligned else "images"
                raise BadInput(
                    f"a label picture of {_write_sizes({size_of(self.labels)})} pixels; the {what} have {_write_sizes({frame})}"
                )
            return Zones(frame=frame, labels=self.labels)
        without_category = [{key: value for key, value in zone.items() if key != "category"} for zone in own]
        return Zones(frame=frame, zones=tuple(parse_zone(zone, frame) for zone in without_category))


def read_zones_file(path: str | Path, categories: Sequence[str]) -> ZonesFile:
    """Read a file of zones, and refuse what is wrong in it for every size of frame."""
    path = Path(path)
    if path.suffix.lower() == ".png":
        return ZonesFile(path=path, labels=_read_labels(path))
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise BadInput(f"{path}: zones are a .yaml file with polygons, or a label picture as .png")
    content = config.read_yaml(path)
    zones = content.get("zones")
    if content.keys() != {"zones"} or not isinstance(zones, list) or not zones:
        unknown = sorted(content.keys() - {"zones"})
        fault = f"unknown key '{unknown[0]}'" if unknown else "no zones"
        raise BadInput(f"{path}: {fault}; {EXPECTED}")
    for zone in zones:
        if not isinstance(zone, dict):
            raise BadInput(f"{path}: a zone is {zone!r:.60}; {EXPECTED}")
        category = zone.get("category")
        if "category" in zone and category not in categories:
            raise BadInput(
                f"{path}: zone '{zone.get('name')}': no category '{category}' in the data; there are: {', '.join(categories)}"
            )
    return ZonesFile(path=path, zones=zones)


def _read_labels(path: Path) -> Grey:
    width, height, mode = read_image_header(path)
    if mode != "L":
        raise BadInput(f"{path}: a label picture of mode {mode}; save it in 8-bit grey")
    content = read_plain_file(path, "label picture", MAX_LABEL_TEXT // 4 * 3)
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.dtype != np.uint8 or labels.shape != (height, width):
        raise BadInput(f"{path}: not a label picture in 8-bit grey")
    return np.asarray(labels, np.uint8)


def _write_sizes(sizes: AbstractSet[tuple[int, int]]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
