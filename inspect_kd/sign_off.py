"""Thresholds that a person has moved, and stands for by name: a file beside the artifact, never a change of it.

Unusual here: the file names the artifact by its digest. On any other artifact the same numbers mean something else, hence
it is refused there. No torch; on the line-side path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_kd import atomic_write, strict_json
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.plain_file import read_plain_file
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
        self._refuse_unprintable_text()
        low, high = self.thresholds.reinspect, self.thresholds.reject
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
            raise BadInput(f"impossible thresholds ({low}, {high}): re-inspect must not lie above reject")
        self._refuse_unreachable(self.was)

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

    def for_artifact(self, digest: str, category: str | None, own: Thresholds, categories: Sequence[str]) -> Thresholds:
        """The limits, if they were signed off for just this; `own` and `categories` are those of the artifact itself.

        `category` is the one that was asked for. It may be left out where the artifact has no other one.
        """
        if digest != self.sha256:
            raise BadInput(
                f"this calibration was signed off by {self.by} for another artifact ({self.artifact}, sha256 {self.sha256[:12]}…), not "
                f"for this one ({digest[:12]}…)"
            )
        if category is not None and category != self.category:
            raise UsageError(
                f"this calibration is for {self.category or 'all categories together'}, not for {category}"
            )
        if category is None and self.category is not None and list(categories) != [self.category]:
            raise UsageError(
                f"this calibration is for {self.category} alone, and the artifact has {len(categories)} categories: if these parts are "
                f"{self.category}, say so with --category {self.category}"
            )
        self._refuse_unreachable(own)
        return self.thresholds

    def _refuse_unprintable_text(self) -> None:
        """What is shown to a signer must be what the file says: text steers no terminal."""
        texts = (self.artifact, self.date, self.sha256, "" if self.category is None else self.category)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise BadInput("artifact, category, date and sha256 of a calibration must be printable text")

    def _refuse_unreachable(self, own: Thresholds) -> None:
        most = own.highest_choice
        if self.thresholds.reject > most:
            raise BadInput(
                f"the limit {self.thresholds.reject:g} lies beyond what scores of this artifact reach: its own is {own.reject:g}, and "
                f"nobody may choose more than {most:g}"
            )


def read_sign_off(path: Path) -> SignOff:
    """From a file."""
    return parse_sign_off(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Of a file that may be a sign-off."""
    return read_plain_file(path, "calibration", LARGEST)


def parse_sign_off(data: bytes, path: Path) -> SignOff:
    """Refuses whatever could turn a defect into an OK unseen."""
    try:
        content = strict_json.loads(data)
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
    low, high = content["reinspect"], content["reject"]
    if not {type(low), type(high)} <= {int, float}:
        raise BadInput(f"impossible thresholds ({low!r}, {high!r}): both must be numbers")
    return Thresholds(reinspect=float(low), reject=float(high))
