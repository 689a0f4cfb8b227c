"""Uploaded files that no session has read yet: each in a folder of its own, removed when it is read.

Gradio names an upload after its content, so two browsers that send the same picture would share one file, and the session
that reads it first would take it from the other.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FILE_BYTES = 4096
"""Disk space of a file beside its content: a thousand empty files must not count as nothing."""
KEPT_SECONDS = 3600
"""An upload that no session has read by then is removed."""


@dataclass(eq=False, slots=True)
class Arrival:
    """An upload in progress: bytes reserved for it, and bytes that have arrived."""

    reserved: int = 0
    arrived: int = 0


class Uploads:
    """Files that clients have sent."""

    def __init__(self, received: Path) -> None:
        """`received`: Gradio's temporary folder; Gradio opens nothing outside of it for a client."""
        self.received, self.folder = received, received / "uploads"
        self.arrivals: set[Arrival] = set()

    def bytes_used(self) -> int:
        """Disk space of all uploads, with the room reserved for those in progress."""
        expected = sum(max(0, arrival.reserved - arrival.arrived) for arrival in list(self.arrivals))
        return expected + total_bytes(self.unfinished()) + total_bytes(self.folder.glob("*/*"))

    def unfinished(self) -> list[Path]:
        """Files that Gradio is receiving, or that an aborted upload has left."""
        return [path for path in self.received.glob("[!.]*") if path.is_file()]

    def add(self, paths: Sequence[str]) -> list[Path]:
        """Move received files into folders of their own; a file that is named twice is copied."""
        added: list[Path] = []
        moved: dict[str, Path] = {}
        for path in paths:
            folder = self.folder / secrets.token_urlsafe(18)
            folder.mkdir(parents=True)
            to = folder / Path(path).name
            moved[path] = Path(shutil.copyfile(moved[path], to)) if path in moved else Path(path).rename(to)
            with suppress(OSError):  # not empty, or already removed
                Path(path).parent.rmdir()
            added.append(to)
        return added

    def read(self, files: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield name and content of each file, None if it is no upload. All are removed, also when reading stops early."""
        paths = [Path(file) for file in files]
        try:
            for path in paths:
                yield path.name, self.take(path)
        finally:
            for path in paths:
                self.remove(path)

    def covers(self, path: Path) -> bool:
        """Whether this could be the path of an upload."""
        return path.parent.parent == self.folder and ".." not in path.parts

    def take(self, path: Path) -> bytes | None:
        """Read and remove an upload; None if there is none."""
        if not self.covers(path) or path.is_symlink():
            return None
        try:
            return path.read_bytes()
        except OSError:  # missing, or already read
            return None
        finally:
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Remove an upload with its folder."""
        if self.covers(path):
            shutil.rmtree(path.parent, ignore_errors=True)

    def remove_old(self) -> None:
        """Remove uploads that no session has read in an hour."""
        oldest = time.time() - KEPT_SECONDS
        for folder in self.folder.glob("*"):
            with suppress(OSError):  # read and removed meanwhile
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove what aborted uploads have left; to be called only while no upload is in progress."""
        for path in self.unfinished():
            path.unlink(missing_ok=True)


def total_bytes(files: Iterable[Path]) -> int:
    """The files' disk space: content and a fixed amount each; a file that has been removed meanwhile counts as nothing."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size + FILE_BYTES
    return total
