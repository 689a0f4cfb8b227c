"""What whoever starts the Studio decides; nothing of it can be changed from a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    artifacts: tuple[Path, ...]
    store: Path
    """Folder for marks and calibrations: what outlives a session."""
    runs: Path = Path("runs")
    train_on: Path | None = None
    """Folder below which data sets may be chosen for training; None: this Studio does not train."""
    examples: Path | None = None
    """Folder of parts that the empty page offers."""
    max_upload_mb: int = 100
    """A file."""
    max_parts: int = 500
    """On one desk."""
    max_kept_mb: int = 4096
    """Originals and heatmaps of all desks together."""
    max_desks: int = 16
    """Browser tabs whose parts are kept; one that is empty, or long silent, gives way."""
    threads: int = 1
    """Of the model."""
    trust: Path | None = None
    """Public keys: artifacts that none of them has signed are not opened."""
