"""Where and with what a run was made: machine, versions, commit, command, time. Kept in `env.json`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_kd import __version__
from inspect_kd.training.checkpoint import TRAIN_AGAIN
from inspect_kd.training.run.json_file import read_json_file
from inspect_kd.versions import installed_versions

PACKAGES = (
    "torch",
    "torchvision",
    "anomalib",
    "timm",
    "lightning",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "numpy",
)
MAX_BYTES = 1 << 20
"""Largest `env.json` that is read."""


def environment(device: str) -> dict[str, Any]:
    """What one needs to know to reproduce the run's numbers."""
    return {
        "inspect_kd": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        "packages": installed_versions(PACKAGES),
        "commit": commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": now(),
    }


def read_environment(path: Path) -> dict[str, Any]:
    """Read a run's environment. A resumed run's folder may come from another person, so the file is checked."""
    return read_json_file(path, "environment of a run", MAX_BYTES, TRAIN_AGAIN)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """The commit of the git checkout that the package runs from; None without a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None  # git is not installed
    return result.stdout.strip() or None
