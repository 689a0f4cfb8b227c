"""Uploaded files that no session has read yet: each in a folder of its own, removed as it is read.

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
"""What a file takes on disk beside its content: a thousand empty ones must not count as nothing."""
KEPT_SECONDS = 3600
"""An upload that no session has read by then is removed: its page was closed."""


@dataclass(eq=False, slots=True)
class Arrival:
    """A request under way that brings files: what was reserved for it, and what of it is here."""

    reserved: int = 0
    arrived: int = 0


class Uploads:
    def __init__(self, received: Path) -> None:
        """`received`: Gradio's temporary folder; Gradio opens nothing outside of it for a client."""
        self.received, self.folder = received, received / "uploads"
        self.arrivals: set[Arrival] = set()

    def bytes_used(self) -> int:
        expected = sum(max(0, arrival.reserved - arrival.arrived) for arrival in list(self.arrivals))
        return expected + bytes_of(self.unfinished()) + bytes_of(self.folder.glob("*/*"))

    def unfinished(self) -> list[Path]:
        """Files that Gradio receives at this moment, or that a broken-off upload has left."""
        return [path for path in self.received.glob("[!.]*") if path.is_file()]

    def add(self, paths: Sequence[str]) -> list[Path]:
        """Move files that Gradio has received into folders of their own; a file that is named twice becomes two."""
        added: list[Path] = []
        seen: dict[str, Path] = {}
        for path in paths:
            folder = self.folder / secrets.token_urlsafe(18)
            folder.mkdir(parents=True)
            to = folder / Path(path).name
            seen[path] = Path(shutil.copyfile(seen[path], to)) if path in seen else Path(path).rename(to)
            with suppress(OSError):  # not empty, or removed already
                Path(path).parent.rmdir()
            added.append(to)
        return added

    def read(self, files: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Name and content of each file, None where it is no upload; all are removed, also where reading stops early."""
        paths = [Path(file) for file in files]
        try:
            for path in paths:
                yield path.name, self.take(path)
        finally:
            for path in paths:
                self.remove(path)

    def covers(self, path: Path) -> bool:
        """Whether an upload could lie here."""
        return path.parent.parent == self.folder and ".." not in path.parts

    def take(self, path: Path) -> bytes | None:
        """An upload's content, which is no longer on disk then; None where there is none."""
        if not self.covers(path) or path.is_symlink():
            return None
        try:
            return path.read_bytes()
        except OSError:  # not there, or read already
            return None
        finally:
            self.remove(path)

    def remove(self, path: Path) -> None:
        if self.covers(path):
            shutil.rmtree(path.parent, ignore_errors=True)

    def remove_old(self) -> None:
        oldest = time.time() - KEPT_SECONDS
        for folder in self.folder.glob("*"):
            with suppress(OSError):  # read and removed meanwhile
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove what broken-off uploads have left; only while no upload is under way."""
        for path in self.unfinished():
            path.unlink(missing_ok=True)


def bytes_of(files: Iterable[Path]) -> int:
    """Sizes together, with what an empty file takes, too; a file that is removed meanwhile has none."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size + FILE_BYTES
    return total
