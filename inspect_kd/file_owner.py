"""Who may change a file: what decides over trust (keys, engines, what passed the quarantine) must be this user's own.

Systems without owners are left alone.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from inspect_kd.errors import EnvironmentFault

ROOT = 0


def refuse_writable_by_others(path: Path, reason: str) -> None:
    """Raise where somebody else may write a file or folder; `reason` says what they could do with it."""
    if not hasattr(os, "getuid"):
        return
    facts = path.stat()
    # Root may change everything anyway; folders of keys are often its own.
    if facts.st_uid not in (os.getuid(), ROOT) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EnvironmentFault(
            f"{path}: others may write there, and {reason}: make it your own (`chown`, `chmod go-w {path}`), or name another folder"
        )
