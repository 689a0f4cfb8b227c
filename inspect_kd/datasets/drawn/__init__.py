"""The embedded data set `sample`: four kinds of drawn parts, with defects whose masks are exact.

Unusual here: each defective part is drawn twice, with and without its defect, from the same seeds; the mask is where the two
pictures differ before the camera adds its noise.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd import atomic_write, strict_json
from inspect_kd.datasets.drawn import board, bottle, fabric, metal
from inspect_kd.datasets.drawn.sheet import contact_sheet
from inspect_kd.datasets.drawn.surface import Light, expose, to_bytes
from inspect_kd.datasets.find_images import files_below
from inspect_kd.datasets.image_writer import write_image
from inspect_kd.errors import BadInput
from inspect_kd.file_lock import hold_lock
from inspect_kd.types import ImageU8, Mask, NoProgress, Progress

CATEGORIES: dict[str, ModuleType] = {"board": board, "bottle": bottle, "fabric": fabric, "metal": metal}
VERSION = 1
"""Raised whenever another picture is drawn for the same seed."""
VISIBLE = 9
"""Grey levels by which a defect's pixel differs from the sound part's."""
MARKER = ".drawn.json"
"""The file that says what a folder was drawn by."""
KEYS = {"version", "seed", "size", "train", "test_good", "per_kind"}
LARGEST_MARKER = 4096
MOST_PARTS = 10_000
"""Of a kind, that a marker is believed to name."""
AFTER_ANOTHER = "wait until it has been drawn there, then run the command again"
# How far a part lies from its place in front of the camera: share of the side, degrees.
POSE = {"board": (0.0025, 0.35), "bottle": (0.012, 180.0), "fabric": (0.02, 1.5), "metal": (0.006, 1.2)}


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnPart:
    image: ImageU8
    mask: Mask | None
    sound: ImageU8
    """The same part without its defect, under the same light and noise."""


def draw_part(category: str, seed: tuple[int, ...], kind: str | None = None, size: int = 256) -> DrawnPart:
    """One photograph; everything about it follows from category, seed and kind."""
    name = zlib.crc32(category.encode())
    for attempt in range(8):
        sound = _photograph(category, (name, *seed), None, attempt, size)
        if kind is None:
            return DrawnPart(image=to_bytes(sound[0] + sound[1]), mask=None, sound=to_bytes(sound[0] + sound[1]))
        damaged = _photograph(category, (name, *seed), kind, attempt, size)
        change = np.abs(to_bytes(damaged[0]).astype(np.int16) - to_bytes(sound[0])).max(axis=2) > VISIBLE
        mask = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        if mask.sum() >= 0.0006 * mask.size:
            return DrawnPart(image=to_bytes(damaged[0] + damaged[1]), mask=mask, sound=to_bytes(sound[0] + sound[1]))
    raise RuntimeError(f"eight defects of kind '{kind}' on '{category}' could not be seen")


def _photograph(
    category: str, seed: tuple[int, ...], kind: str | None, attempt: int, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The picture without noise, and its noise; the defect has random numbers of its own, so that all else stays."""
    rng = np.random.default_rng([*seed, 1])
    harm = np.random.default_rng([*seed, 2, attempt])
    camera = np.random.default_rng([*seed, 3])
    surface = CATEGORIES[category].draw(rng, kind, harm)
    shift, turn = POSE[category]
    dx, dy = camera.normal(0, shift, 2).clip(-2 * shift, 2 * shift)
    turned = float(camera.uniform(-turn, turn))
    return expose(
        surface.shade(Light.draw(camera)), camera, size, shift=(dx, dy), turn=turned, endless=category == "fabric"
    )


def draw_sample(
    root: Path,
    seed: int = 0,
    *,
    size: int = 256,
    train: int = 60,
    test_good: int = 10,
    per_kind: int = 5,
    progress: Progress | None = None,
) -> Path:
    """An MVTec tree below `root`; returns at once where the same one is already there."""
    recipe = {
        "version": VERSION,
        "seed": seed,
        "size": size,
        "train": train,
        "test_good": test_good,
        "per_kind": per_kind,
    }
    if _recipe_of(root) == recipe:
        return root
    place = root.resolve()  # what is written lies beside the folder, and `.` has no name to call it by
    with hold_lock(place.with_name(f".{place.name}.drawing.lock"), str(root), AFTER_ANOTHER):
        if _recipe_of(place) != recipe:  # another process may have finished just now
            _refuse_foreign_files(place)
            _draw(place, recipe, progress or NoProgress())
    return root


def _recipe_of(root: Path) -> dict[str, int] | None:
    """What the folder was drawn by; None where it was not drawn."""
    try:
        with (root / MARKER).open("rb") as file:
            recipe = strict_json.loads(file.read(LARGEST_MARKER))
    except (OSError, ValueError):
        return None
    numbers = isinstance(recipe, dict) and recipe.keys() == KEYS and all(type(n) is int for n in recipe.values())
    return recipe if numbers else None


def _refuse_foreign_files(root: Path) -> None:
    """Drawing replaces the folder as a whole: nothing may be lost that was not drawn."""
    recipe = _recipe_of(root)
    drawn = _files_of(recipe) | {MARKER} if recipe else set()
    for path in files_below(root) if root.is_dir() else ():
        if path.relative_to(root).as_posix() not in drawn:
            raise BadInput(f"{path}: was not drawn, and would be lost; move it, or choose an empty folder")


def _files_of(recipe: dict[str, int]) -> set[str]:
    counts = [min(recipe[key], MOST_PARTS) for key in ("train", "test_good", "per_kind")]
    jobs = [job for category in CATEGORIES for job in _jobs(category, *counts)]
    images = {f"{category}/{split}/{kind}/{index:03}.png" for category, split, kind, index in jobs}
    return images | {f"{category}/ground_truth/{kind}/{index:03}_mask.png" for category, _, kind, index in jobs}


def _draw(root: Path, recipe: dict[str, int], progress: Progress) -> None:
    """Draw beside the folder, then put it in the folder's place."""
    jobs = [
        job
        for category in CATEGORIES
        for job in _jobs(category, recipe["train"], recipe["test_good"], recipe["per_kind"])
    ]
    workshop = root.with_name(f".{root.name}.drawing")
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    progress.phase("draw", len(jobs))
    try:
        # Each picture follows from its own seed: who draws it, and when, changes nothing.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            work = partial(_draw_job, workshop, recipe["seed"], recipe["size"])
            for _ in pool.map(work, enumerate(jobs)):
                progress.advance()
        atomic_write.write_text(workshop / MARKER, json.dumps(recipe))
    except BaseException:
        shutil.rmtree(workshop, ignore_errors=True)
        raise
    shutil.rmtree(root, ignore_errors=True)
    workshop.rename(root)


def _draw_job(root: Path, seed: int, size: int, numbered: tuple[int, tuple[str, str, str, int]]) -> None:
    """Draw one picture, and its mask, into the tree."""
    number, (category, split, kind, index) = numbered
    part = draw_part(category, (seed, number), None if kind == "good" else kind, size)
    _save(part.image, root / category / split / kind / f"{index:03}.png")
    if part.mask is not None:
        _save(part.mask.astype(np.uint8) * 255, root / category / "ground_truth" / kind / f"{index:03}_mask.png")


def _jobs(category: str, train: int, test_good: int, per_kind: int) -> list[tuple[str, str, str, int]]:
    jobs = [(category, "train", "good", i) for i in range(train)] + [
        (category, "test", "good", i) for i in range(test_good)
    ]
    return jobs + [(category, "test", kind, i) for kind in CATEGORIES[category].KINDS for i in range(per_kind)]


def _save(picture: npt.NDArray[np.uint8], to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    write_image(to, picture)


__all__ = ["CATEGORIES", "DrawnPart", "contact_sheet", "draw_part", "draw_sample"]
