"""Settings of a Studio, chosen where it is started; none can be changed from a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Artifacts, folders and limits of one Studio."""

    artifacts: tuple[Path, ...]
    store: Path
    """Folder for marks and calibrations, which outlive a session."""
    runs: Path = Path("runs")
    train_on: Path | None = None
    """Folder below which data sets may be chosen for training; None leaves the Train tab out."""
    examples: Path | None = None
    """Folder of example parts that the page offers."""
    max_upload_mb: int = 100
    """For one file."""
    max_parts: int = 500
    """In one session."""
    max_kept_mb: int = 4096
    """For the files of all sessions and the waiting uploads together."""
    max_sessions: int = 16
    """Sessions whose parts are kept; one that is empty, or long idle, is closed for a new one."""
    threads: int = 1
    """For the model."""
    trust: Path | None = None
    """Folder of public keys: artifacts that none of them has signed are not opened."""
