"""Where engines lie that this machine has built from an artifact, and how they are found again.

A plan fits one artifact, one GPU, one driver and one version of TensorRT: all are in its name. Unusual here: a plan is native
code, so the folder must be this user's alone, and a file whose digest does not lie beside it is built anew, not loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from inspect_kd import atomic_write, zoo
from inspect_kd.file_owner import make_own_folder, refuse_writable_by_others

MOST = 16
"""Engines that are kept; the ones used longest ago go first."""
REASON = "an engine is native code"
SETTING = "$INSPECT_KD_CACHE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fits:
    """What an engine was built for; where any of it differs it is another engine."""

    artifact: str
    """sha256 of the file."""
    size: int
    batch: int
    """The largest."""
    gpu: str
    """Name and compute capability."""
    driver: str
    tensorrt: str

    def name(self) -> str:
        told = "\n".join(f"{key}={value}" for key, value in sorted(asdict(self).items()))
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def engine_folder(named: str | None = None) -> Path:
    """The named one, else below $INSPECT_KD_CACHE or the user's cache; made, and checked to be nobody else's."""
    folder = Path(named) if named else zoo.cache_home() / "engines"
    make_own_folder(folder)
    refuse_writable_by_others(folder, REASON, SETTING)
    return folder


def kept_or_built(folder: Path, fits: Fits, build: Callable[[], bytes]) -> bytes:
    """The engine, from disk where it lies there whole, else built and put there."""
    path = folder / f"{fits.name()}.plan"
    found = _whole(path)
    if found is not None:
        os.utime(path)
        return found
    plan = build()
    atomic_write.write_bytes(path, plan, mode=0o600)
    atomic_write.write_text(_digest_of(path), hashlib.sha256(plan).hexdigest(), mode=0o600)
    _forget_oldest(folder)
    return plan


def _whole(path: Path) -> bytes | None:
    if not (path.is_file() and _digest_of(path).is_file()) or path.is_symlink():
        return None
    refuse_writable_by_others(path, REASON, SETTING)
    plan = path.read_bytes()
    return plan if hashlib.sha256(plan).hexdigest().encode() == _digest_of(path).read_bytes() else None


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _forget_oldest(folder: Path) -> None:
    plans = sorted(folder.glob("*.plan"), key=lambda path: path.stat().st_mtime)
    for path in plans[: max(0, len(plans) - MOST)]:
        path.unlink(missing_ok=True)
        _digest_of(path).unlink(missing_ok=True)
