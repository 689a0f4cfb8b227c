"""Embeddings on disk, because a SAM looks at an image for seconds: bounded, safe against two writers and a kill.

A file's name is the digest of what the embedding follows from: the weights, the image and the transform.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from inspect_kd.types import ImageU8

LIMIT = 20 * 2**30
"""Bytes that all embeddings together may take; the longest unused go first."""


PARTIAL, FORGOTTEN = ".partial", 3600
"""Ending of a file that is being written, and seconds after which nobody is writing it any more."""


def cache_home() -> Path:
    """$INSPECT_KD_CACHE, else a cache folder of the user's."""
    return Path(os.environ.get("INSPECT_KD_CACHE") or Path.home() / ".cache" / "inspect-kd" / "embeddings")


class EmbeddingCache:
    def __init__(self, folder: Path, weights: str, transform: str, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self.of = f"{weights}/{transform}"
        self.hits = self.misses = 0
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > FORGOTTEN:
                    left.unlink()  # of a process that was killed
        self.taken = sum(size for _, size, _ in _files(folder))

    def get(self, image: ImageU8, make: Callable[[], Tensor]) -> Tensor:
        """The image's embedding (C, h, w) in half precision, made where it is not at hand."""
        path = self.folder / f"{self._key(image)}.safetensors"
        try:
            embedding_Chw = load_file(path)["embedding"]
            os.utime(path)
            self.hits += 1
        except (OSError, SafetensorError, KeyError):
            # Not there, taken away by another process just now, or torn by a full disk: make it anew.
            embedding_Chw = make().half().cpu()
            self._put(path, embedding_Chw)
            self.misses += 1
        return embedding_Chw

    def _key(self, image: ImageU8) -> str:
        digest = hashlib.sha256(f"{self.of}/{image.shape}/".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()[:40]

    def _put(self, path: Path, embedding_Chw: Tensor) -> None:
        content = save({"embedding": embedding_Chw.contiguous()})
        self._make_room(len(content))
        # Whole or not at all: a reader never sees half a file, and of two writers the last wins with the same bytes.
        handle, partial = tempfile.mkstemp(dir=self.folder, suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(partial).replace(path)
            self.taken += len(content)
        except OSError:
            # A full disk costs time later, not the study now.
            Path(partial).unlink(missing_ok=True)

    def _make_room(self, wanted: int) -> None:
        if self.taken + wanted <= self.limit:
            return
        files = sorted(_files(self.folder))
        self.taken = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self.taken + wanted <= 0.9 * self.limit:
                break
            self.taken -= size
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When last used, how large, where. Another process may take files away meanwhile."""
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            yield about.st_mtime, about.st_size, path


def as_batch(embeddings: list[Tensor], device: torch.device) -> Tensor:
    return torch.stack(embeddings).float().to(device)
