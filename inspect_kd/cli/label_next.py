"""`inspect-kd label-next`: choose the unlabelled images to label next; needs no torch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from inspect_kd.inspector import Inspector
    from inspect_kd.types import Inspection, Progress

SHEET_SIDE = 256
"""Longest side in pixels of a picture of the contact sheet."""
MAX_NAME_BYTES = 255
"""Longest name of a file on common file systems."""


def label_next(
    artifact: Annotated[Path, typer.Argument(help="An artifact (.onnx), or a run's folder.")],
    images: Annotated[
        list[str], typer.Argument(help="Unlabelled images: files, folders, globs; `-` reads paths from stdin.")
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to choose.")] = 10,
    known: Annotated[
        list[str] | None, typer.Option(help="Images that are labelled already; similar ones are not chosen.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="The images' category, where categories are aligned or tiled differently.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Copy the chosen images into this folder and write a contact sheet beside it.")
    ] = None,
    threads: Threads = 1,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Refuse an artifact that no key in the trust store has signed.")
    ] = False,
) -> None:
    """Choose the images whose labels help the next training most: one JSON line each, the most useful first.

    The chosen images cover the student's different predictions at each place; no labels are used.
    Sort the copies into folders as for any data set (good/, scratch/ …, masks beside them if there
    are any) and use them in the next training.

    Examples:

        inspect-kd label-next runs/bottle line3/ -n 20 --out to_label/

        inspect-kd train --data bottle --labelled labelled/
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.cli.predict import find_images
    from inspect_kd.errors import BadInput
    from inspect_kd.inspector import Inspector
    from inspect_kd.label_next import choose_next
    from inspect_kd.progress_display import show_progress
    from inspect_kd.signing import trust_store

    if out is not None and out.is_dir() and any(out.iterdir()):
        raise BadInput(f"{out}: not empty; choose another folder with --out")
    if out is not None and os.path.lexists(_sheet_path(out)):
        raise BadInput(
            f"{_sheet_path(out)}: exists already, and would be replaced; move it, or choose another folder with --out"
        )
    trust = trust_store() if trusted else None
    inspector = Inspector(artifact_of(artifact), category=category, threads=threads, trust=trust)
    paths, known_paths = list(find_images(images)), list(find_images(known or []))
    with show_progress() as progress:
        progress.phase("inspect", len(paths) + len(known_paths))
        candidates = _predict_probabilities(inspector, paths, progress)
        known_probabilities = _predict_probabilities(inspector, known_paths, progress)
    if not candidates:
        raise BadInput(f"no image to choose from in: {' '.join(images)}")
    readable = list(candidates)
    choices = choose_next(list(candidates.values()), list(known_probabilities.values()), count)
    # Inspect the chosen images again, because the heatmaps of ten thousand images would fill the memory.
    chosen = [(readable[choice.index], inspector(readable[choice.index])) for choice in choices]
    for (path, inspection), choice in zip(chosen, choices, strict=True):
        line = {"image": str(path), "novelty": round(choice.novelty, 4), "score": round(inspection.score, 4)}
        typer.echo(json.dumps(line | {"decision": str(inspection.decision)} | inspection.cause_to_json()))
    if out is not None:
        sheet = _copy_chosen(chosen, out, inspector.card.bits)
        echo(f"copied {len(chosen)} images to {out}; their contact sheet is {sheet}", err=True)


def _predict_probabilities(
    inspector: Inspector, paths: list[Path], progress: Progress
) -> dict[Path, npt.NDArray[np.float32]]:
    """Compute the defect probabilities in the cells of each readable image; report unreadable images as notes."""
    from inspect_kd.label_next import defect_probabilities
    from inspect_kd.types import Inspection

    probabilities = {}
    for path in paths:
        result = next(inspector.each([path]))
        if isinstance(result, Inspection):
            probabilities[path] = defect_probabilities(result.heatmap)
        else:
            progress.note(f"left out: {result}")
        progress.advance()
    return probabilities


def _sheet_path(out: Path) -> Path:
    """Return the path of the contact sheet, beside the folder of the copies."""
    out = out.resolve()
    return out.with_name(f"{out.name}_sheet.jpg")


def name_of_copy(number: int, name: str) -> str:
    """Put the number before an image's name, whose end is cut off, before the suffix, where a file system takes no longer name."""
    from inspect_kd.datasets.images import IMAGE_SUFFIXES

    suffix = Path(name).suffix if Path(name).suffix.lower() in IMAGE_SUFFIXES else ""
    stem = f"{number:03d}_{name.removesuffix(suffix)}"
    while len(os.fsencode(stem + suffix)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + suffix


@contextlib.contextmanager
def _copies_in(folder: Path) -> Iterator[list[Path]]:
    """Create the folder and yield a list of the files copied into it; they are removed after an error.

    The next attempt needs an empty folder. A folder that existed before is kept.
    """
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    copies: list[Path] = []
    try:
        yield copies
    except BaseException:
        for copy in copies:
            with contextlib.suppress(OSError):
                copy.unlink()
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _copy(path: Path, to: Path) -> None:
    from inspect_kd.errors import name_file_in_errors

    with name_file_in_errors(to):
        shutil.copy2(path, to)


def _copy_chosen(chosen: list[tuple[Path, Inspection]], out: Path, bits: int | None) -> Path:
    """Copy the images with numbers in the order of choice, and write a contact sheet with overlays beside the folder."""
    import cv2

    from inspect_kd import overlay
    from inspect_kd.datasets.image_writer import write_image
    from inspect_kd.datasets.images import read_image

    out = out.resolve()  # the sheet is named after the folder, and `.` has no name
    file = _sheet_path(out)
    pictures = []
    with _copies_in(out) as copies:
        for number, (path, inspection) in enumerate(chosen, 1):
            copies.append(out / name_of_copy(number, path.name))
            _copy(path, copies[-1])
            picture = overlay.thumbnail(overlay.draw(read_image(path, bits=bits), inspection), SHEET_SIDE)
            pictures.append((f"{number:03d} {path.name}", picture))
        write_image(file, overlay.contact_sheet(pictures, SHEET_SIDE), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return file
