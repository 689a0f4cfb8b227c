"""What big models have said of images, on disk, because they look at one for a long time: bounded, safe against two writers
and a kill.

A file's name is the digest of what its tensors follow from: the weights, the image and the transform.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput
from inspect_kd.file_owner import make_own_folder
from inspect_kd.types import ImageU8
from inspect_kd.weights import read_tensors

LIMIT = 20 * 2**30
"""Bytes that all files of a folder together may take; the longest unused go first."""
LOOKS_AGAIN = 64
"""Files after which a writer looks what others have written."""


class TensorCache:
    def __init__(self, folder: Path, weights: str, transform: str, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self.of = f"{weights}/{transform}"
        self.hits = self.misses = self.kept = 0
        make_own_folder(folder)
        atomic_write.remove_abandoned(folder)
        self.taken = sum(size for _, size, _ in _files(folder))

    def find(self, image: ImageU8) -> dict[str, Tensor] | None:
        """What is known of an image, in half precision; None where that must be made (anew)."""
        path = self._path(image)
        try:
            found = read_tensors(path)
            os.utime(path)
        except (OSError, BadInput, SafetensorError):
            # Not there, taken away by another process just now, or torn by a full disk.
            self.misses += 1
            return None
        self.hits += 1
        return found

    def get(self, image: ImageU8, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        found = self.find(image)
        return self.put(image, make()) if found is None else found

    def put(self, image: ImageU8, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keep them; returns them as they will be found."""
        kept = {key: value.detach().half().cpu().contiguous() for key, value in tensors.items()}
        content = save(kept)
        if len(content) <= self.limit:
            # A full disk, or a folder that was taken away, costs time later, not the study now.
            with contextlib.suppress(OSError):
                self._make_room(len(content))
                self._write(self._path(image), content)
        return kept

    def _write(self, path: Path, content: bytes) -> None:
        """Of two writers the last wins with the same bytes."""
        atomic_write.write_bytes(path, content, durable=False)
        self.taken += len(content)
        self.kept += 1

    def _path(self, image: ImageU8) -> Path:
        digest = hashlib.sha256(f"{self.of}/{image.shape}/".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        return self.folder / f"{digest.hexdigest()[:40]}.safetensors"

    def _make_room(self, wanted: int) -> None:
        # Another process may be writing here, too: what it has kept shows in the folder alone.
        if self.taken + wanted <= self.limit and self.kept % LOOKS_AGAIN:
            return
        files = sorted(_files(self.folder))
        self.taken = sum(size for _, size, _ in files)
        room = self.limit if self.taken + wanted <= self.limit else 0.9 * self.limit
        for _, size, path in files:
            if self.taken + wanted <= room:
                break
            self.taken -= size
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When last used, how large, where. Another process may take files away meanwhile."""
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            yield about.st_mtime, about.st_size, path
