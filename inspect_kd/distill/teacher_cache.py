"""Cached teachers: each image is predicted once, and kept on disk for this training and later ones.

Shapes: B batch, C channels, P class vectors, h w token grid, m m grid of the student's heads.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inspect_kd.chunks import chunks
from inspect_kd.models.base import Teacher
from inspect_kd.resize import RESIZE
from inspect_kd.tensor_cache import TensorCache
from inspect_kd.types import ImageU8
from inspect_kd.zoo import cache_home

MAX_TOKEN_SIDE = 14
"""Largest grid of cached tokens: relations need no more, and the full grid of a large teacher takes a megabyte per image."""
BATCH = 8
"""Images per prediction."""


class PooledTeacherOutput(NamedTuple):
    """A teacher's output for a batch, pooled to the grid of the student's heads."""

    heat_B1mm: Tensor
    confidence_B1mm: Tensor
    tokens_BChw: Tensor


class CachedTeacher:
    """A trained teacher and its cached outputs."""

    def __init__(self, name: str, teacher: Teacher, *, grid: int) -> None:
        self.name, self.teacher, self.grid = name, teacher.eval(), grid
        self.predict_seconds = 0.0
        self.cache: TensorCache | None = None
        """None if weights of the teacher have no digest: its outputs are then not cached."""
        if all(source.sha256 for source in teacher.sources):
            self.cache = TensorCache(
                cache_home() / "teacher-outputs", identity(teacher), f"{RESIZE}/{grid}/{MAX_TOKEN_SIDE}"
            )

    def ensure_cached(self, images: Sequence[ImageU8]) -> int:
        """Predict the images that are not cached; returns their number."""
        if self.cache is None:
            return 0
        missing = [image for image in images if self.cache.find(image) is None]
        for batch in chunks(missing, BATCH):
            self._predict(batch)
        return len(missing)

    def predict(self, images: Sequence[ImageU8], device: torch.device) -> PooledTeacherOutput:
        cached = [None if self.cache is None else self.cache.find(image) for image in images]
        missing = [image for image, output in zip(images, cached, strict=True) if output is None]
        predicted = iter(self._predict(missing))
        outputs = [next(predicted) if output is None else output for output in cached]
        return PooledTeacherOutput(
            *(torch.stack([output[key] for output in outputs]).float().to(device) for key in ("heat", "sure", "tokens"))
        )

    def class_vectors(self) -> Tensor | None:
        """The teacher's class vectors, if it has any: (P, C)."""
        return self.teacher.class_vectors()

    def _predict(self, images: Sequence[ImageU8]) -> list[dict[str, Tensor]]:
        """Predict, pool and cache. Fresh outputs are in half precision too, so that they equal cached ones."""
        if not images:
            return []
        start_time = time.perf_counter()
        with torch.no_grad():
            output = self.teacher.predict(images)
            side = min(MAX_TOKEN_SIDE, output.tokens_BChw.shape[-1])
            heat = F.adaptive_avg_pool2d(output.heatmap_B1HW, self.grid)
            confidence = F.adaptive_avg_pool2d(output.confidence_B1HW, self.grid)
            tokens = F.adaptive_avg_pool2d(output.tokens_BChw, side)
        self.predict_seconds += time.perf_counter() - start_time
        halves = (tensor.half().cpu() for tensor in (heat, confidence, tokens))
        outputs = [{"heat": h, "sure": c, "tokens": t} for h, c, t in zip(*halves, strict=True)]
        if self.cache is not None:
            for image, tensors in zip(images, outputs, strict=True):
                self.cache.put(image, tensors)
        return outputs


def identity(teacher: Teacher) -> str:
    """Digest of everything that a teacher's outputs depend on: settings, pretrained weights, learned weights."""
    digest = hashlib.sha256(repr((teacher.settings, [source.sha256 for source in teacher.sources])).encode())
    for name, value in sorted(teacher.adapted_state().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
