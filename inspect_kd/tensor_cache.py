"""Cache the outputs of large models on disk: bounded in size, safe against parallel writers and killed processes.

Each file is named by the digest of everything that its tensors depend on: weights, image and transform.
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

MAX_BYTES = 20 * 2**30
"""Size of all files in a folder together; the least recently used files are removed first."""
RECOUNT_EVERY = 64
"""Number of written files after which a writer lists the folder again, to count other processes' files."""


class TensorCache:
    """A folder of one model's outputs, stored by image in half precision."""

    def __init__(self, folder: Path, weights: str, transform: str, limit: int = MAX_BYTES) -> None:
        """Open the cache; `weights` and `transform` identify the model and its input, `limit` is the folder's size in bytes."""
        self.folder, self.limit = folder, limit
        self.key_prefix = f"{weights}/{transform}"
        self.hits = self.misses = self.written = 0
        make_own_folder(folder)
        atomic_write.remove_abandoned(folder)
        self.used_bytes = sum(size for _, size, _ in _files(folder))

    def find(self, image: ImageU8) -> dict[str, Tensor] | None:
        """Return the cached tensors of an image in half precision, or None."""
        path = self._path(image)
        try:
            tensors = read_tensors(path)
            os.utime(path)
        except (OSError, BadInput, SafetensorError):
            # The file is missing, was just removed by another process, or was truncated by a full disk.
            self.misses += 1
            return None
        self.hits += 1
        return tensors

    def get(self, image: ImageU8, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the cached tensors of an image, or make and cache them."""
        tensors = self.find(image)
        return self.put(image, make()) if tensors is None else tensors

    def put(self, image: ImageU8, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cache an image's tensors; return them as `find` will."""
        halved = {key: value.detach().half().cpu().contiguous() for key, value in tensors.items()}
        content = save(halved)
        if len(content) <= self.limit:
            # A full disk or a removed folder must not stop the training; the tensors are computed again next time.
            with contextlib.suppress(OSError):
                self._make_room(len(content))
                self._write(self._path(image), content)
        return halved

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file; a parallel writer writes the same bytes."""
        atomic_write.write_bytes(path, content, durable=False)
        self.used_bytes += len(content)
        self.written += 1

    def _path(self, image: ImageU8) -> Path:
        digest = hashlib.sha256(f"{self.key_prefix}/{image.shape}/".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        return self.folder / f"{digest.hexdigest()[:40]}.safetensors"

    def _make_room(self, new_bytes: int) -> None:
        # Other processes may write here too; their files are counted only when the folder is listed.
        if self.used_bytes + new_bytes <= self.limit and self.written % RECOUNT_EVERY:
            return
        files = sorted(_files(self.folder))
        self.used_bytes = sum(size for _, size, _ in files)
        target = self.limit if self.used_bytes + new_bytes <= self.limit else 0.9 * self.limit
        for _, size, path in files:
            if self.used_bytes + new_bytes <= target:
                break
            self.used_bytes -= size
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield the last use, size and path of each file; other processes may remove files meanwhile."""
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path
