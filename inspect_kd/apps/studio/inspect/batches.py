"""Run batches of parts with progress on the page; render the page's panels; write exports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect import gallery, viewer
from inspect_kd.apps.studio.inspect.exports import export
from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.apps.studio.session import RefusedFile, Session, display_name
from inspect_kd.apps.studio.studio import Studio, address
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file

UPDATE_INTERVAL_S = 0.5
"""Time between updates of the page while a batch runs."""
MAX_NAME_BYTES = 200
"""An export's file name contains at most this many bytes of the artifact's name; file systems allow 255 for the whole name."""


def render_panels(session: Session, progress: str = "") -> tuple[str, ...]:
    """Render everything that an event may have changed, in the order of `Panels.all`."""
    with session.lock:  # no other event may change parts or artifact meanwhile
        part = session.gallery.selected_part()
        inspection = session.inspection(part) if part else None
        return (
            progress,
            viewer.viewer(part, inspection, address),
            viewer.regions_table(inspection),
            gallery.gallery(session, address),
            gallery.scores_panel(session),
        )


def run_batch(session: Session, steps: Iterator[Any], total: int) -> Iterator[tuple[str, ...]]:
    """Run the steps; yield the rendered panels before the first step, at intervals, and at the end."""
    started_at = updated_at = time.monotonic()
    yield render_panels(session, gallery.progress(0, total, 0.0))
    for done, _ in enumerate(steps, 1):
        now = time.monotonic()
        if now - updated_at > UPDATE_INTERVAL_S and done < total:
            updated_at = now
            yield render_panels(session, gallery.progress(done, total, now - started_at))
    yield render_panels(session)


def inspect_files(studio: Studio, session: Session, files: list[str]) -> Iterator[Part | RefusedFile]:
    """Inspect uploaded files one after the other; a file that is not an image is refused."""
    for name, content in studio.uploads.read(files):
        if content is None:
            yield session.refuse(display_name(name), texts.NOT_RECEIVED)
        else:
            yield session.add(content, name)


def inspect_examples(session: Session, images: Sequence[Path], max_bytes: int) -> Iterator[Part | RefusedFile]:
    """Inspect the example parts one after the other; anything but a regular file is refused."""
    for image in images:
        name = f"{image.parent.name}-{image.name}"
        try:
            content = read_plain_file(image, "example", max_bytes, follow_links=False)
        except (BadInput, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{image}: ")
            yield session.refuse(display_name(name), texts.EXAMPLE_UNREADABLE.format(reason=reason))
        else:
            yield session.add(content, name)


def select_inspected(session: Session, steps: Iterator[Part | RefusedFile]) -> Iterator[Part | RefusedFile]:
    """Select each inspected part, so that the page shows the picture that was just taken."""
    for step in steps:
        if not isinstance(step, RefusedFile):
            session.gallery.select(step.number)
        yield step


def write_export(studio: Studio, session: Session, format_name: str) -> Path:
    """Write an export (csv, json or html) into the folder that the browser may fetch from; it replaces the last one of this format."""
    with session.lock:
        artifact = session.artifact.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
        path = session.folders.served / f"inspect-kd-{artifact}.{format_name}".replace(" ", "_")
        content = export(session, format_name).encode()
        if session.free_bytes() < len(content):
            raise BadInput(texts.DISK_FULL.format(mb=studio.settings.max_kept_mb))
        path.write_bytes(content)
    return path
