"""Thresholds that a person has moved, and stands for by name: a file beside the artifact, never a change of it.

Unusual here: the file names the artifact by its digest. On any other artifact the same numbers mean something else, hence
it is refused there. No torch; on the line-side path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.types import Thresholds

SCHEMA = 1
KEY = "inspect_kd_calibration"
LARGEST = 64 * 2**10
LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class SignOff:
    """Both limits, for which artifact, and who answers for them."""

    by: str
    thresholds: Thresholds
    was: Thresholds
    """What the artifact's own calibration says."""
    artifact: str
    """Its name, for people."""
    sha256: str
    """Its file's digest, for programs."""
    category: str | None = None
    """None: all categories together."""
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seen: Mapping[str, Any] = field(default_factory=dict)
    """What the limits did to the parts that were looked at when they were chosen."""

    def __post_init__(self) -> None:
        if not self.by.strip() or len(self.by) > LONGEST_NAME or not self.by.isprintable():
            raise UsageError("new thresholds need the name of the person who stands for them")
        low, high = self.thresholds.reinspect, self.thresholds.reject
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
            raise BadInput(f"impossible thresholds ({low}, {high}): re-inspect must not lie above reject")

    def write(self, folder: Path) -> Path:
        """A new file each time; no earlier one is ever overwritten."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{self.artifact}-{self.category or 'all'}-{self.date[:10]}")
        content = json.dumps({KEY: SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        for number in range(1, 10_000):
            path = folder / f"{stem}-{number}.json"
            try:
                atomic_write.write_new(path, content.encode())
            except FileExistsError:
                continue
            return path
        raise UsageError(f"{folder}: ten thousand calibrations of one day; tidy up")

    def for_artifact(self, digest: str, category: str | None) -> Thresholds:
        """The limits, if they were signed off for just this."""
        if digest != self.sha256:
            raise BadInput(
                f"this calibration was signed off by {self.by} for another artifact ({self.artifact}, sha256 {self.sha256[:12]}…), not "
                f"for this one ({digest[:12]}…)"
            )
        if category is not None and category != self.category:
            raise UsageError(
                f"this calibration is for {self.category or 'all categories together'}, not for {category}"
            )
        return self.thresholds


def read_sign_off(path: Path) -> SignOff:
    """Refuses whatever could turn a defect into an OK unseen."""
    if not path.is_file():
        raise BadInput(f"{path}: no such calibration")
    if path.stat().st_size > LARGEST:
        raise BadInput(f"{path}: {path.stat().st_size} bytes is no calibration")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content.pop(KEY)
        if schema != SCHEMA:
            raise BadInput(f"{path}: a calibration of schema {schema!r}; this program reads schema {SCHEMA}")
        limits = {name: _thresholds(content[name]) for name in ("thresholds", "was")}
        return SignOff(**{**content, **limits})
    except BadInput as error:
        raise BadInput(f"{path}: {error}" if not str(error).startswith(str(path)) else str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: not a calibration that was signed off ({type(error).__name__})") from error


def _thresholds(content: Mapping[str, Any]) -> Thresholds:
    return Thresholds(reinspect=float(content["reinspect"]), reject=float(content["reject"]))
