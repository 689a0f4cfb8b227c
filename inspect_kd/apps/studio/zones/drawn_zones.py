"""Zones as the page sends them, as YAML and back; checked by the code that reads `--zones`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from inspect_kd.apps.studio.zones import texts
from inspect_kd.datasets.zones import Zones
from inspect_kd.datasets.zones_file import ZonesFile, read_zones_file
from inspect_kd.errors import BadInput, InspectKDError, UsageError

FILE_NAME = "zones.yaml"
MAX_TEXT = 400_000
"""Characters of a file of zones, or of a drawing."""
MAX_FRAME_PIXELS = 64_000_000
"""Largest picture on which the Studio draws zones: it draws in its own process."""
Frames = Mapping[str, Mapping[str, Any]]
"""Category -> `frame`, the (width, height) of its presented picture, and whether its parts are `aligned`."""
T = TypeVar("T")


class DrawnZone(BaseModel):
    """A zone of the page. Its values are checked by `read_zones_file`; here only their types are."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    polygon: list[tuple[float, float]]
    ignore: bool = False
    tolerance: float | None = None
    category: str | None = None

    def to_yaml(self) -> dict[str, Any]:
        """As a file lists it; whole pixels are written without a point."""
        rule: dict[str, Any] = {"ignore": True} if self.ignore else {"tolerance": self.tolerance}
        scope = {} if self.category is None else {"category": self.category}
        return {"name": self.name, **rule, **scope, "polygon": [[_short(x), _short(y)] for x, y in self.polygon]}


def _short(value: float) -> float:
    return int(value) if value.is_integer() else value


def parse_drawing(text: str) -> list[DrawnZone]:
    """Read the JSON that the page sends; a client may send anything."""
    if len(text) > MAX_TEXT:
        raise UsageError(texts.FILE_TOO_LONG.format(maximum=MAX_TEXT))
    try:
        return TypeAdapter(list[DrawnZone]).validate_json(text)
    except ValidationError:
        raise UsageError(texts.NOT_DRAWN) from None


def write_yaml(zones: Sequence[DrawnZone]) -> str:
    """Write zones as a file for `--zones`, a line each."""
    lines = (
        yaml.safe_dump(zone.to_yaml(), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
        for zone in zones
    )
    return "zones:\n" + "".join(f"  - {line.strip()}\n" for line in lines)


def check_yaml(text: str, frames: Frames, only: str | None = None) -> dict[str, Zones]:
    """Check a file's text against the frames of all categories, or of one; return the zones of each that has some."""

    def check(file: ZonesFile) -> dict[str, Zones]:
        drawn = {}
        for category in [only] if only else frames:
            frame = frames[category]
            width, height = frame["frame"]
            has_zones = any(zone.get("category", category) == category for zone in file.zones)
            if has_zones and width * height > MAX_FRAME_PIXELS:
                raise BadInput(
                    texts.FRAME_TOO_LARGE.format(width=width, height=height, maximum=MAX_FRAME_PIXELS // 10**6)
                )
            zones = file.draw(category, {tuple(frame["frame"])}, aligned=frame["aligned"])
            if zones is not None:
                drawn[category] = zones
        return drawn

    return _read(text, list(frames), check)


def read_yaml(text: str, frames: Frames) -> list[dict[str, Any]]:
    """Read a file's text as zones for the page, after the check against all frames."""
    check_yaml(text, frames)
    zones = _read(text, list(frames), lambda file: [dict(zone) for zone in file.zones])
    try:
        return [zone.model_dump() for zone in TypeAdapter(list[DrawnZone]).validate_python(zones, strict=False)]
    except ValidationError as error:  # only zones of no category of this run, which nothing else has checked
        raise BadInput(f"{FILE_NAME}: {error.errors()[0]['msg']}") from None


def _read(text: str, categories: Sequence[str], use: Callable[[ZonesFile], T]) -> T:
    """Read the text as `--zones` reads a file, and name that file in errors."""
    if len(text) > MAX_TEXT:
        raise UsageError(texts.FILE_TOO_LONG.format(maximum=MAX_TEXT))
    with TemporaryDirectory(prefix="inspect-kd-zones-") as folder:
        path = Path(folder) / FILE_NAME
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            return use(read_zones_file(path, categories))
        except InspectKDError as error:
            raise BadInput(str(error).replace(str(path), FILE_NAME)) from None
