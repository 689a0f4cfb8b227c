"""`inspect-kd predict`: inspect images with an artifact; needs no torch."""

from __future__ import annotations

import errno
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    from inspect_kd.errors import InspectKDError
    from inspect_kd.types import Inspection

MAX_LINE_BYTES = 2**16
"""Limit of a line of stdin; no system has longer paths."""


def predict(
    artifact: Annotated[Path, typer.Argument(help="An artifact (.onnx), or a run's folder.")],
    images: Annotated[list[str], typer.Argument(help="Files, folders, globs; `-` reads paths from stdin.")],
    category: Annotated[
        str | None,
        typer.Option(
            help="Use this category's thresholds, alignment and tiles; default: the thresholds for all categories together."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Thresholds that were signed off in the Studio for this artifact (JSON)."),
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option(help="Write each image with heatmap, regions and decision into this folder."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or tensorrt.")] = "cpu",
    threads: Threads = 1,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Use the CPU if the requested GPU is missing.")
    ] = False,
    trusted: Annotated[
        bool,
        typer.Option(
            "--trusted", help="Refuse an artifact or a calibration that no key in the trust store has signed."
        ),
    ] = False,
    fail_on_ng: Annotated[bool, typer.Option("--fail-on-ng", help="Exit 1 if any part is not OK.")] = False,
) -> None:
    """Inspect images: one JSON line each on stdout, a summary on stderr.

    An unreadable image gives a line with its `error` and the decision NG; the others are still
    inspected, and the exit code is 3.

    Examples:

        inspect-kd predict part.onnx line3/*.png --overlays out/

        find archive -name '*.jpg' | inspect-kd predict part.onnx -
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.errors import BadInput, GateFailed
    from inspect_kd.inspector import Inspector
    from inspect_kd.signing import trust_store
    from inspect_kd.types import Decision, Inspection

    inspector = Inspector(
        artifact_of(artifact),
        category=category,
        calibration=calibration,
        device=device,
        threads=threads,
        allow_cpu=allow_cpu,
        trust=trust_store() if trusted else None,
    )
    counts: Counter[str] = Counter()
    overlay_folder = OverlayFolder(overlays, inspector.card.bits) if overlays is not None else None
    try:
        for path in find_images(images):
            result = next(inspector.each([path]))
            if isinstance(result, Inspection):
                counts[result.decision] += 1
                typer.echo(json.dumps(result.to_json()))
                if overlay_folder is not None:
                    overlay_folder.save(path, result)
            else:
                counts["unreadable"] += 1
                typer.echo(json.dumps({"image": str(path), "decision": str(Decision.NG), "error": str(result)}))
    finally:
        # Print the summary also after Ctrl-C or a closed pipe.
        echo(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no images", err=True)
    if overlay_folder is not None and overlay_folder.first_error is not None:
        raise overlay_folder.first_error
    if counts["unreadable"] or not counts:
        raise BadInput("some images could not be read" if counts else f"no images in: {' '.join(images)}")
    if fail_on_ng and counts[Decision.OK] < sum(counts.values()):
        raise GateFailed("not every part is OK")


def find_images(patterns: list[str]) -> Iterator[Path]:
    """Yield files as given, the images below folders, and the matches of globs (for shells that do not expand them)."""
    from inspect_kd.datasets.find_images import find_by_pattern, find_in_folder

    for pattern in patterns:
        if pattern == "-":
            yield from paths_from(bounded_lines(sys.stdin.buffer))
        # `os.path` returns False for impossible names, where `Path` may raise; reading the file then reports the reason.
        elif os.path.isdir(pattern):  # noqa: PTH112
            yield from find_in_folder(Path(pattern))
        elif glob.has_magic(pattern) and not os.path.exists(pattern):  # noqa: PTH110
            yield from find_by_pattern(pattern)
        else:
            yield Path(pattern)


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream; a line longer than any path is an error, because it could fill the memory."""
    from inspect_kd.errors import BadInput

    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise BadInput(f"stdin: a line of more than {MAX_LINE_BYTES} bytes; give one path per line")
        yield line


def paths_from(lines: Iterable[bytes]) -> Iterator[Path]:
    """Read one path from each line, byte for byte: names may begin or end with a space and need not be UTF-8."""
    for line in lines:
        name = line.removesuffix(b"\n")
        without_cr = name.removesuffix(b"\r")
        # Lists from Windows end their lines with \r\n; on Linux a name may end with \r.
        if without_cr != name and (os.name == "nt" or (os.path.exists(without_cr) and not os.path.exists(name))):  # noqa: PTH110
            name = without_cr
        if name:
            yield Path(os.fsdecode(name))


class OverlayFolder:
    """Writes overlays. After an error the inspection continues; `first_error` is raised at its end."""

    def __init__(self, folder: Path, bits: int | None) -> None:
        self.folder, self.bits = folder, bits
        self.first_error: InspectKDError | None = None
        self.is_writable = True
        self.numbers: Counter[str] = Counter()
        """The latest number by name, so that ten thousand images called `image.png` do not search from 1 each time."""

    def save(self, path: Path, inspection: Inspection) -> None:
        from inspect_kd.errors import BadInput, EnvironmentFault, describe_os_error

        if not self.is_writable:
            return
        try:
            number = self.numbers[path.stem] + 1
            self.numbers[path.stem] = save_overlay(path, inspection, self.folder, self.bits, number)
        except BadInput as error:  # the image is too large for a JPEG, or was moved after its inspection
            self.first_error = self.first_error or BadInput(f"no overlay of {path} was written: {error}")
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # concerns this image only
                text = f"no overlay of {path} was written: {describe_os_error(error)}"
                self.first_error = self.first_error or BadInput(text)
                return
            self.is_writable = False
            self.first_error = EnvironmentFault(
                f"no overlays were written from this one on: {describe_os_error(error)}"
            )


def save_overlay(path: Path, inspection: Inspection, folder: Path, bits: int | None, number: int = 1) -> int:
    """Write `<stem>.jpg` or, if it exists, `<stem>-<number>.jpg` with the first free number; return the number, 1 for `<stem>.jpg`.

    Another process may write into the same folder: no file that exists is replaced.
    """
    import cv2

    from inspect_kd import atomic_write, overlay
    from inspect_kd.datasets.image_writer import encode_image
    from inspect_kd.datasets.images import read_image

    folder.mkdir(parents=True, exist_ok=True)
    picture = overlay.draw(read_image(path, bits=bits), inspection)
    content = encode_image(picture, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 92], name=str(folder / f"{path.stem}.jpg"))
    while True:
        to = folder / (f"{path.stem}.jpg" if number == 1 else f"{path.stem}-{number}.jpg")
        try:
            atomic_write.write_new(to, content, durable=False)
        except FileExistsError:
            number += 1
        else:
            return number
