"""Thresholds that a person changed and signed off by name, in a file beside the artifact, which stays unchanged.

Unusual here: the file holds the artifact's digest and is refused for every other artifact, where the same thresholds would mean
something else. No torch; it runs on the line.
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
"""Key of the schema's number, which marks a JSON file as a sign-off."""
JSON_KEYS = {"default_thresholds": "was", "expected_effect": "seen"}
"""Fields of a sign-off whose keys in its file are older than their names."""
MAX_BYTES = 64 * 2**10
MAX_NAME_LENGTH = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class SignOff:
    """Both thresholds, the artifact that they are for, and the person who signed them off."""

    by: str
    """The person's name."""
    thresholds: Thresholds
    default_thresholds: Thresholds
    """The thresholds of the artifact's own calibration."""
    artifact: str
    """The artifact's name, for display only."""
    sha256: str
    """Digest of the artifact's file, which identifies it."""
    category: str | None = None
    """None: all categories together."""
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    expected_effect: Mapping[str, Any] = field(default_factory=dict)
    """The decisions that these thresholds gave on the parts of the session in which they were chosen."""

    def __post_init__(self) -> None:
        if not self.by.strip() or len(self.by) > MAX_NAME_LENGTH or not self.by.isprintable():
            raise UsageError(
                f"thresholds are signed off with a person's name: printable text of 1 to {MAX_NAME_LENGTH} characters"
            )
        self._refuse_unprintable_text()
        low, high = self.thresholds.reinspect, self.thresholds.reject
        if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
            raise BadInput(f"impossible thresholds ({low}, {high}): re-inspect must not lie above reject")
        self._refuse_high_threshold(self.default_thresholds)

    def write(self, folder: Path) -> Path:
        """Write a new file; existing ones are never overwritten."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{self.artifact}-{self.category or 'all'}-{self.date[:10]}")
        fields = {JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}
        content = json.dumps({KEY: SCHEMA, **fields}, indent=1, ensure_ascii=False) + "\n"
        for number in range(1, 10_000):
            path = folder / f"{stem}-{number}.json"
            try:
                atomic_write.write_new(path, content.encode())
            except FileExistsError:
                continue
            return path
        raise UsageError(
            f"{folder}: holds ten thousand calibrations of {self.date[:10]}; remove some, or choose another folder"
        )

    def thresholds_for(
        self, digest: str, category: str | None, artifact_thresholds: Thresholds, categories: Sequence[str]
    ) -> Thresholds:
        """Return the thresholds if they were signed off for this artifact and category; otherwise raise.

        `digest`, `artifact_thresholds` and `categories` belong to the artifact. `category` may be None if the artifact has only one.
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
                f"this calibration is for {self.category} only, and the artifact has {len(categories)} categories: if these parts are "
                f"{self.category}, add --category {self.category}"
            )
        self._refuse_high_threshold(artifact_thresholds)
        return self.thresholds

    def _refuse_unprintable_text(self) -> None:
        """Refuse text with control characters: it could show the signer something other than the file's content."""
        texts = (self.artifact, self.date, self.sha256, "" if self.category is None else self.category)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise BadInput("artifact, category, date and sha256 of a calibration must be printable text")

    def _refuse_high_threshold(self, artifact_thresholds: Thresholds) -> None:
        """Refuse a reject threshold so far above the artifact's own that clear defects would pass."""
        highest = artifact_thresholds.highest_allowed
        if self.thresholds.reject > highest:
            raise BadInput(
                f"the reject threshold {self.thresholds.reject:g} is too high: clear defects may score below it. The artifact's own is "
                f"{artifact_thresholds.reject:g}; choose at most {highest:g}"
            )


def read_sign_off(path: Path) -> SignOff:
    """Read a sign-off from a file."""
    return parse_sign_off(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Read a sign-off's file without parsing it."""
    return read_plain_file(path, "calibration", MAX_BYTES)


def parse_sign_off(data: bytes, path: Path) -> SignOff:
    """Parse a sign-off; refuse anything that could silently turn a defect into an OK."""
    try:
        content = strict_json.loads(data)
        schema = content.pop(KEY)
        if schema != SCHEMA:
            raise BadInput(
                f"{path}: a calibration of schema {schema!r}; this program reads schema {SCHEMA}: update inspect-kd"
            )
        thresholds, default_thresholds = (_parse_thresholds(content.pop(key)) for key in ("thresholds", "was"))
        effect = content.pop("seen", {})
        return SignOff(thresholds=thresholds, default_thresholds=default_thresholds, expected_effect=effect, **content)
    except BadInput as error:
        raise BadInput(f"{path}: {error}" if not str(error).startswith(str(path)) else str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: not a signed-off calibration ({type(error).__name__})") from error


def _parse_thresholds(content: Mapping[str, Any]) -> Thresholds:
    low, high = content["reinspect"], content["reject"]
    if not {type(low), type(high)} <= {int, float}:
        raise BadInput(f"impossible thresholds ({low!r}, {high!r}): both must be numbers")
    return Thresholds(reinspect=float(low), reject=float(high))
