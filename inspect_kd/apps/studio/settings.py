"""Settings of a Studio, chosen at its start; browsers cannot change them."""

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
    """Limit of one file."""
    max_parts: int = 500
    """Limit of one session."""
    max_kept_mb: int = 4096
    """Limit of the files of all sessions and the unread uploads together."""
    max_sessions: int = 16
    """Limit of open sessions; an empty or long idle one is closed for a new one."""
    threads: int = 1
    """Threads that the model uses."""
    trust: Path | None = None
    """Folder of public keys: only artifacts signed by one of them are opened."""
