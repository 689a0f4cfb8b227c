"""Parts one after the other, shown while they run; and the desk as the page's panels show it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio import gallery, texts, viewer
from inspect_kd.apps.studio.desk import Desk, Refusal, shown_name
from inspect_kd.apps.studio.exports import export
from inspect_kd.apps.studio.parts import Part
from inspect_kd.apps.studio.studio import Studio, address
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file

EVERY = 0.5
"""Seconds between two looks at a running batch."""
DEVICE = "device"
"""One model run at a time, whoever asks."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Clicks of this page are no API; the named endpoints are in `api`."""


def page_of(desk: Desk, progress: str = "") -> tuple[str, ...]:
    """Everything that a change may have changed, in the order of `Panels.all`."""
    with desk.lock:  # parts and artifact of one moment
        part = desk.chosen()
        answer = desk.inspection(part) if part else None
        return (
            progress,
            viewer.viewer(part, answer, address),
            viewer.regions_table(answer),
            gallery.gallery(desk, address),
            gallery.scores_panel(desk),
        )


def follow(desk: Desk, steps: Iterator[Any], total: int) -> Iterator[tuple[str, ...]]:
    """Show a running batch now and then, and once when it is done."""
    began = told = time.monotonic()
    yield page_of(desk, gallery.progress(0, total, 0.0))
    for done, _ in enumerate(steps, 1):
        now = time.monotonic()
        if now - told > EVERY and done < total:
            told = now
            yield page_of(desk, gallery.progress(done, total, now - began))
    yield page_of(desk)


def inspect_files(studio: Studio, desk: Desk, files: list[str]) -> Iterator[Part | Refusal]:
    """What was sent, one after the other; whatever is no image is refused in a line."""
    for name, content in studio.uploads.read(files):
        if content is None:
            yield desk.refuse(shown_name(name), texts.NOT_RECEIVED)
        else:
            yield desk.add(content, name)


def inspect_examples(desk: Desk, images: Sequence[Path], max_bytes: int) -> Iterator[Part | Refusal]:
    """The offered parts one after the other; whatever is no plain file is refused in a line."""
    for image in images:
        name = f"{image.parent.name}-{image.name}"
        try:
            content = read_plain_file(image, "example", max_bytes, follow_links=False)
        except (BadInput, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{image}: ")
            yield desk.refuse(shown_name(name), texts.EXAMPLE_UNREADABLE.format(reason=reason))
        else:
            yield desk.add(content, name)


def select_last(desk: Desk, steps: Iterator[Part | Refusal]) -> Iterator[Part | Refusal]:
    """A picture that was just taken is the one to look at."""
    for step in steps:
        if not isinstance(step, Refusal):
            desk.select(step.number)
        yield step


def write_export(studio: Studio, desk: Desk, form: str) -> Path:
    """Into the folder that the browser may fetch from; one of a kind, the newest."""
    with desk.lock:
        path = desk.places.shown / f"inspect-kd-{desk.artifact}.{form}".replace(" ", "_")
        content = export(desk, form).encode()
        if desk.free_bytes() < len(content):
            raise BadInput(texts.DISK_FULL.format(mb=studio.settings.max_kept_mb))
        path.write_bytes(content)
    return path
