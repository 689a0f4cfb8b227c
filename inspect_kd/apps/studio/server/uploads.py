"""Uploaded files that no session has read yet: each in its own folder, removed when it is read.

Gradio names an upload after its content. Two browsers that send the same picture would share one file, and the first session
that reads it would remove it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FILE_OVERHEAD_BYTES = 4096
"""Disk space of a file in addition to its content, so that many empty files count too."""
MAX_AGE_S = 3600
"""An unread upload of this age is removed."""


@dataclass(eq=False, slots=True)
class IncomingUpload:
    """An upload in progress."""

    reserved_bytes: int = 0
    arrived_bytes: int = 0


class Uploads:
    """The files that clients have sent."""

    def __init__(self, gradio_folder: Path) -> None:
        """`gradio_folder`: Gradio's temporary folder, the only one where Gradio opens files for a client."""
        self.gradio_folder, self.folder = gradio_folder, gradio_folder / "uploads"
        self.incoming: set[IncomingUpload] = set()

    def bytes_used(self) -> int:
        """Disk space of all uploads, with the room reserved for those in progress."""
        expected = sum(max(0, upload.reserved_bytes - upload.arrived_bytes) for upload in list(self.incoming))
        return expected + bytes_below(self.gradio_folder) + bytes_below(self.folder, 1)

    def unfinished_files(self) -> list[Path]:
        """Files of uploads that are in progress or were aborted."""
        return [path for path in self.gradio_folder.glob("[!.]*") if path.is_file()]

    def add(self, paths: Sequence[str]) -> list[Path]:
        """Move each received file into its own folder; copy a file that is listed twice."""
        added: list[Path] = []
        moved: dict[str, Path] = {}
        for path in paths:
            folder = self.folder / secrets.token_urlsafe(18)
            folder.mkdir(parents=True)
            name = Path(path).name
            # Gradio refuses to pass on hidden files, such as the "._a.png" of macOS, and with them the whole event.
            target = folder / (f"_{name}" if name.startswith(".") else name)
            moved[path] = Path(shutil.copyfile(moved[path], target)) if path in moved else Path(path).rename(target)
            with suppress(OSError):  # not empty, or already removed
                Path(path).parent.rmdir()
            added.append(target)
        return added

    def read(self, files: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield each file's name and content (None if it is not an upload). Remove all of them, even if the caller stops early."""
        paths = [Path(file) for file in files]
        try:
            for path in paths:
                yield path.name, self.take(path)
        finally:
            for path in paths:
                self.remove(path)

    def is_upload_path(self, path: Path) -> bool:
        """Whether this could be the path of an upload."""
        return path.parent.parent == self.folder and ".." not in path.parts

    def take(self, path: Path) -> bytes | None:
        """Read and remove an upload; None if it does not exist."""
        if not self.is_upload_path(path) or path.is_symlink():
            return None
        try:
            return path.read_bytes()
        except OSError:  # missing, or already read
            return None
        finally:
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Remove an upload with its folder."""
        if self.is_upload_path(path):
            shutil.rmtree(path.parent, ignore_errors=True)

    def remove_old(self) -> None:
        """Remove uploads that no session has read in an hour."""
        oldest_kept = time.time() - MAX_AGE_S
        for folder in self.folder.glob("*"):
            with suppress(OSError):  # read and removed meanwhile
                if folder.stat().st_mtime < oldest_kept:
                    shutil.rmtree(folder, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Remove the files of aborted uploads; call this only while no upload is in progress."""
        for path in self.unfinished_files():
            path.unlink(missing_ok=True)


def bytes_below(folder: Path, depth: int = 0) -> int:
    """Disk space of the files `depth` folders below a folder: content and a fixed overhead each.

    Files and folders that are removed meanwhile are not counted (`Path.glob` raises an error for such a folder).
    """
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if depth and entry.is_dir(follow_symlinks=False):
                    total += bytes_below(Path(entry.path), depth - 1)
                elif not depth and entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size + FILE_OVERHEAD_BYTES
    return total
