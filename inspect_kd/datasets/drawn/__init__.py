"""The built-in data set `sample`: five categories of drawn parts, with defects and exact masks.

Unusual here: each defective part is drawn twice from the same seeds, with and without its defect; the mask is where the two
images differ before camera noise is added.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd import atomic_write, strict_json
from inspect_kd.datasets.drawn import board, bottle, bracket, fabric, metal
from inspect_kd.datasets.drawn.sheet import write_contact_sheet
from inspect_kd.datasets.drawn.surface import Light, expose, to_bytes
from inspect_kd.datasets.find_images import files_below
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.file_lock import hold_lock
from inspect_kd.plain_file import read_plain_file
from inspect_kd.types import ImageU8, Mask, NoProgress, Progress
from inspect_kd.work_folder import work_folder

CATEGORIES: dict[str, ModuleType] = {
    "board": board,
    "bottle": bottle,
    "fabric": fabric,
    "metal": metal,
    "bracket": bracket,
}
"""New ones are added at the end: an image's seed depends on its number among the images of all categories."""
FIRST_CATEGORIES = ("board", "bottle", "fabric", "metal")
"""The categories of folders whose marker file names none; earlier versions drew only these."""
VERSION = 1
"""Increased whenever the same seed gives another image."""
MIN_DIFFERENCE = 9
"""A pixel that differs by more than this many grey levels from the sound part is defective."""
DrawSettings = dict[str, Any]
"""The settings that a folder is drawn with."""
ImageKey = tuple[str, str, str, int]
"""Category, split, kind of defect or `good`, and index of an image."""
MARKER = ".drawn.json"
"""File with the settings that a folder was drawn with."""
INTEGER_KEYS = {"version", "seed", "size", "train", "test_good", "per_kind"}
MAX_MARKER_BYTES = 4096
MAX_PARTS = 10_000
"""Most parts of a kind that a marker file may name."""
WAIT_ADVICE = "wait until that process has drawn it, then run the command again"
# Standard deviation of the shift (share of the side) and largest rotation (degrees) of the whole scene in front of the camera.
# The bracket's scene keeps still; `bracket` turns the part.
POSE = {
    "board": (0.0025, 0.35),
    "bottle": (0.012, 180.0),
    "fabric": (0.02, 1.5),
    "metal": (0.006, 1.2),
    "bracket": (0.0, 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnPart:
    """An image of a part, and its mask if it is defective."""

    image: ImageU8
    mask: Mask | None
    sound: ImageU8
    """The same part without its defect, under the same light and noise."""


def draw_part(category: str, seed: tuple[int, ...], kind: str | None = None, size: int = 256) -> DrawnPart:
    """Draw one image of a part, determined by category, seed and kind of defect."""
    category_seed = zlib.crc32(category.encode())
    for attempt in range(8):
        sound, sound_noise = _render(category, (category_seed, *seed), None, attempt, size)
        sound_image = to_bytes(sound + sound_noise)
        if kind is None:
            return DrawnPart(image=sound_image, mask=None, sound=sound_image)
        defective, noise = _render(category, (category_seed, *seed), kind, attempt, size)
        change = np.abs(to_bytes(defective).astype(np.int16) - to_bytes(sound)).max(axis=2) > MIN_DIFFERENCE
        mask = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        if mask.sum() >= 0.0006 * mask.size:
            return DrawnPart(image=to_bytes(defective + noise), mask=mask, sound=sound_image)
    raise RuntimeError(f"eight attempts at '{kind}' on '{category}' left no visible defect")


def _render(
    category: str, seed: tuple[int, ...], kind: str | None, attempt: int, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return an image and its noise, separately. The defect has its own random numbers, so that it changes nothing else."""
    rng = np.random.default_rng([*seed, 1])
    defect_rng = np.random.default_rng([*seed, 2, attempt])
    camera_rng = np.random.default_rng([*seed, 3])
    surface = CATEGORIES[category].draw(rng, kind, defect_rng)
    shift, max_turn = POSE[category]
    dx, dy = camera_rng.normal(0, shift, 2).clip(-2 * shift, 2 * shift)
    turn = float(camera_rng.uniform(-max_turn, max_turn))
    return expose(
        surface.shade(Light.sample(camera_rng)),
        camera_rng,
        size,
        shift=(dx, dy),
        turn=turn,
        endless=category == "fabric",
    )


def draw_sample(
    root: Path,
    seed: int = 0,
    *,
    size: int = 256,
    train: int = 60,
    test_good: int = 10,
    per_kind: int = 5,
    categories: Collection[str] = tuple(CATEGORIES),
    progress: Progress | None = None,
) -> Path:
    """Draw the data set as an MVTec tree below `root`, unless it was drawn there with the same settings.

    `categories` does not change the images of those that are drawn.
    """
    if not set(categories) or not set(categories) <= CATEGORIES.keys():
        unknown = ", ".join(sorted(set(categories) - CATEGORIES.keys())) or "none"
        raise UsageError(f"categories to draw: {unknown}; choose from {', '.join(CATEGORIES)}")
    settings: DrawSettings = {
        "version": VERSION,
        "seed": seed,
        "size": size,
        "train": train,
        "test_good": test_good,
        "per_kind": per_kind,
        "categories": [name for name in CATEGORIES if name in categories],
    }
    if _read_settings(root) == settings:
        return root
    root_path = root.resolve()  # the lock lies beside the folder, and `.` has no name
    with hold_lock(root_path.with_name(f".{root_path.name}.drawing.lock"), str(root), WAIT_ADVICE):
        if _read_settings(root_path) != settings:  # another process may have just finished
            refuse_foreign_files(root_path)
            _draw(root_path, settings, progress or NoProgress())
    return root


def _read_settings(root: Path) -> DrawSettings | None:
    """Read the settings that a folder was drawn with; None if it was not drawn."""
    try:
        settings = strict_json.loads(read_plain_file(root / MARKER, "settings of a drawn data set", MAX_MARKER_BYTES))
    except (OSError, ValueError, BadInput):
        return None
    if not isinstance(settings, dict):
        return None
    settings.setdefault("categories", list(FIRST_CATEGORIES))
    categories = settings["categories"]
    is_valid = (
        settings.keys() == INTEGER_KEYS | {"categories"}
        and all(type(settings[key]) is int for key in INTEGER_KEYS)
        and isinstance(categories, list)
        and categories == [name for name in CATEGORIES if name in categories]
    )
    return settings if is_valid else None


def refuse_foreign_files(root: Path) -> None:
    """Raise BadInput if a folder holds files that were not drawn: drawing again replaces the whole folder."""
    settings = _read_settings(root)
    expected = _expected_files(settings) | {MARKER} if settings else set()
    for path in files_below(root) if root.is_dir() else ():
        if path.relative_to(root).as_posix() not in expected:
            raise BadInput(
                f"{path}: was not drawn by this program and would be deleted; move it, or choose an empty folder"
            )


def _expected_files(settings: DrawSettings) -> set[str]:
    counts = {key: min(settings[key], MAX_PARTS) for key in ("train", "test_good", "per_kind")}
    keys = [key for _, key in _list_images(settings | counts)]
    images = {f"{category}/{split}/{kind}/{index:03}.png" for category, split, kind, index in keys}
    return images | {f"{category}/ground_truth/{kind}/{index:03}_mask.png" for category, _, kind, index in keys}


def _draw(root: Path, settings: DrawSettings, progress: Progress) -> None:
    """Draw into a new folder, then replace the old one with it."""
    images = _list_images(settings)
    progress.phase("draw", len(images))
    with work_folder(root.parent, "draw") as folder:
        staging = folder / root.name
        # Each image has its own seed, so the result does not depend on the order of the threads.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            draw_one = partial(_draw_image, staging, settings["seed"], settings["size"])
            for _ in pool.map(draw_one, images):
                progress.advance()
        atomic_write.write_text(staging / MARKER, json.dumps(settings))
        shutil.rmtree(root, ignore_errors=True)
        staging.rename(root)


def _draw_image(root: Path, seed: int, size: int, numbered: tuple[int, ImageKey]) -> None:
    """Write one image, and its mask, into the tree."""
    number, (category, split, kind, index) = numbered
    part = draw_part(category, (seed, number), None if kind == "good" else kind, size)
    _save(part.image, root / category / split / kind / f"{index:03}.png")
    if part.mask is not None:
        _save(part.mask.astype(np.uint8) * 255, root / category / "ground_truth" / kind / f"{index:03}_mask.png")


def _list_images(settings: DrawSettings) -> list[tuple[int, ImageKey]]:
    """List the images to draw, each with its number among those of all categories."""
    train, test_good, per_kind = (settings[key] for key in ("train", "test_good", "per_kind"))
    keys: list[ImageKey] = []
    for category, module in CATEGORIES.items():
        keys += [(category, "train", "good", i) for i in range(train)]
        keys += [(category, "test", "good", i) for i in range(test_good)]
        keys += [(category, "test", kind, i) for kind in module.KINDS for i in range(per_kind)]
    return [(number, key) for number, key in enumerate(keys) if key[0] in settings["categories"]]


def _save(picture: npt.NDArray[np.uint8], to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    write_image(to, picture)


__all__ = ["CATEGORIES", "DrawnPart", "draw_part", "draw_sample", "refuse_foreign_files", "write_contact_sheet"]
