"""Cache of TensorRT engines that this machine has built from artifacts.

An engine fits one artifact, one GPU, one driver and one version of TensorRT: its file name is a digest of all of them. Unusual here:
an engine is native code, so only this user may write the folder, and a file without a matching digest beside it is built anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from inspect_kd import atomic_write, zoo
from inspect_kd.file_owner import make_own_folder, refuse_writable_by_others

MAX_ENGINES = 16
"""Number of engines that are kept; the least recently used ones are deleted."""
REFUSAL_REASON = "an engine is native code"
FOLDER_SETTING = "$INSPECT_KD_CACHE"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKey:
    """All that an engine depends on."""

    artifact: str
    """sha256 of the artifact's file."""
    size: int
    """Side of its square input in pixels."""
    batch: int
    """Largest batch size."""
    gpu: str
    """Name and compute capability."""
    driver: str
    tensorrt: str

    def name(self) -> str:
        """Return the engine's file name without its suffix: a digest of all fields."""
        text = "\n".join(f"{key}={value}" for key, value in sorted(asdict(self).items()))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def engine_folder(folder_name: str | None = None) -> Path:
    """Return the folder of engines (by default in the user's cache), created if needed; refuse one that other users may write."""
    folder = Path(folder_name) if folder_name else zoo.cache_home() / "engines"
    make_own_folder(folder)
    refuse_writable_by_others(folder, REFUSAL_REASON, FOLDER_SETTING)
    return folder


def load_or_build(folder: Path, key: EngineKey, build: Callable[[], bytes]) -> bytes:
    """Load the engine if an intact one is cached, otherwise build and cache it."""
    path = folder / f"{key.name()}.plan"
    cached = _load_intact(path)
    if cached is not None:
        os.utime(path)  # last use
        return cached
    plan = build()
    atomic_write.write_bytes(path, plan, mode=0o600)
    atomic_write.write_text(_digest_path(path), hashlib.sha256(plan).hexdigest(), mode=0o600)
    _delete_least_recently_used(folder)
    return plan


def _load_intact(path: Path) -> bytes | None:
    if not (path.is_file() and _digest_path(path).is_file()) or path.is_symlink():
        return None
    refuse_writable_by_others(path, REFUSAL_REASON, FOLDER_SETTING)
    plan = path.read_bytes()
    return plan if hashlib.sha256(plan).hexdigest().encode() == _digest_path(path).read_bytes() else None


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _delete_least_recently_used(folder: Path) -> None:
    plans = sorted(folder.glob("*.plan"), key=lambda path: path.stat().st_mtime)
    for path in plans[: max(0, len(plans) - MAX_ENGINES)]:
        path.unlink(missing_ok=True)
        _digest_path(path).unlink(missing_ok=True)
