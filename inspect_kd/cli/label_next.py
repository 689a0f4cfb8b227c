"""`inspect-kd label-next`: which unlabelled images are worth a person's time; needs no torch."""

from __future__ import annotations

import json
import os
import shutil
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


def label_next(
    artifact: Annotated[Path, typer.Argument(help="An artifact (.onnx), or a run's folder.")],
    images: Annotated[list[str], typer.Argument(help="Unlabelled images: files, folders, globs; `-` reads stdin.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to choose.")] = 10,
    known: Annotated[
        list[str] | None, typer.Option(help="Images that are labelled already: what is like them is not chosen.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Copy the chosen ones into this folder; a contact sheet lies beside it.")
    ] = None,
    threads: Threads = 1,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Refuse an artifact that nobody in the trust store has signed.")
    ] = False,
) -> None:
    """Choose the images whose labels will teach the next training most: a JSON line each, the most telling first.

    The choice covers what the student thinks of the parts, and where; it knows no label. Sort the copies into folders as
    for any data set (good/, scratch/ …, masks beside them if there are any) and hand them to the next training.

    Examples:

        inspect-kd label-next runs/bottle line3/ -n 20 --out to_label/

        inspect-kd train --data bottle --labelled labelled/
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.cli.predict import find_images
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.errors import BadInput
    from inspect_kd.inspector import Inspector
    from inspect_kd.label_next import next_to_label
    from inspect_kd.signing import trust_store

    if out is not None and out.is_dir() and any(out.iterdir()):
        raise BadInput(f"{out}: not empty; choose another folder with --out")
    if out is not None and os.path.lexists(_sheet_of(out)):
        raise BadInput(
            f"{_sheet_of(out)}: exists already, and would be replaced; move it, or choose another folder with --out"
        )
    inspector = Inspector(artifact_of(artifact), threads=threads, trust=trust_store() if trusted else None)
    paths, labelled = list(find_images(images)), list(find_images(known or []))
    with show_progress() as progress:
        progress.phase("look", len(paths) + len(labelled))
        asked = _opinions(inspector, paths, progress)
        before = _opinions(inspector, labelled, progress)
    if not asked:
        raise BadInput(f"no image to choose from in: {' '.join(images)}")
    looked = list(asked)
    chosen = next_to_label(list(asked.values()), list(before.values()), count)
    # Looked at again, not kept: of ten thousand images the heatmaps would fill the memory.
    picked = [(looked[choice.index], inspector(looked[choice.index])) for choice in chosen]
    for (path, answer), choice in zip(picked, chosen, strict=True):
        line = {"image": str(path), "novelty": round(choice.novelty, 4), "score": round(answer.score, 4)}
        typer.echo(json.dumps(line | {"decision": str(answer.decision)}))
    if out is not None:
        sheet = _hand_over(picked, out, inspector.card.bits)
        echo(f"{len(picked)} images are in {out}, all at a glance in {sheet}", err=True)


def _opinions(inspector: Inspector, paths: list[Path], progress: Progress) -> dict[Path, npt.NDArray[np.float32]]:
    """Of each image that can be read; one that cannot is said."""
    from inspect_kd.label_next import opinion
    from inspect_kd.types import Inspection

    found = {}
    for path in paths:
        answer = next(inspector.each([path]))
        if isinstance(answer, Inspection):
            found[path] = opinion(answer.heatmap)
        else:
            progress.note(f"left out: {answer}")
        progress.advance()
    return found


def _sheet_of(out: Path) -> Path:
    """The contact sheet beside the folder of the copies."""
    out = out.resolve()  # `.` has no name to call the sheet by
    return out.with_name(f"{out.name}_sheet.jpg")


def _copy(path: Path, to: Path) -> None:
    from inspect_kd.errors import file_named

    try:
        with file_named(to):
            shutil.copy2(path, to)
    except OSError:
        # The folder was empty before, and has to be empty for the next try.
        shutil.rmtree(to.parent, ignore_errors=True)
        raise


def _hand_over(picked: list[tuple[Path, Inspection]], out: Path, bits: int | None) -> Path:
    """Numbered copies in the order of the choice, and a sheet beside the folder on which a person sees what and where."""
    import cv2

    from inspect_kd import overlay
    from inspect_kd.datasets.image_writer import write_image
    from inspect_kd.datasets.images import read_image

    out = out.resolve()  # the sheet lies beside the folder, and `.` has no name to call it by
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (path, answer) in enumerate(picked, 1):
        _copy(path, out / f"{number:03d}_{path.name}")
        pictures.append((f"{number:03d} {path.name}", overlay.draw(read_image(path, bits=bits), answer)))
    sheet = overlay.contact_sheet(pictures)
    file = _sheet_of(out)
    write_image(file, sheet, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return file
