"""What every layout asks of a folder."""

from __future__ import annotations

from pathlib import Path

from inspect_kd.datasets.images import IMAGE_SUFFIXES

SOUND_NAMES = frozenset({"good", "ok", "sound", "normal", "goods", "io", "pass", "accepted"})
MASK_ENDS = ("_mask", "_gt", "_label", "_seg", "-mask")
_HIDDEN = (".", "_")


def folders(root: Path) -> list[Path]:
    """Visible folders in a folder, by name."""
    return (
        sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(_HIDDEN))
        if root.is_dir()
        else []
    )


def images_in(root: Path) -> list[Path]:
    """Images directly in a folder, by name."""
    if not root.is_dir():
        return []
    return sorted(
        p for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def is_mask(path: Path) -> bool:
    return path.stem.lower().endswith(MASK_ENDS)


def mask_in(folder: Path, stem: str) -> Path | None:
    """The mask of an image: `<stem>_mask.png`, `<stem>.png`, with any image suffix."""
    for end in ("_mask", "", "_gt", "_label"):
        for suffix in (".png", *sorted(IMAGE_SUFFIXES - {".png"})):
            path = folder / f"{stem}{end}{suffix}"
            if path.is_file():
                return path
    return None


def is_sound_name(name: str) -> bool:
    return name.lower() in SOUND_NAMES
