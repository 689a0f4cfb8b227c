"""Teachers look at an image once: what they said is kept on disk and found again, by this training or the next.

Shapes: B batch, C channels, h w token grid, m m grid of heat.
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

TOKEN_SIDE = 14
"""Tokens are kept at this grid at most: relations need no more, and a full grid of a large teacher takes a megabyte an image."""
AT_ONCE = 8
"""Images that are looked at together."""


class PooledTeacherOutput(NamedTuple):
    """What one teacher said of a batch."""

    heat_B1mm: Tensor
    confidence_B1mm: Tensor
    tokens_BChw: Tensor


class CachedTeacher:
    """A teacher that has settled, and what it has said so far."""

    def __init__(self, name: str, teacher: Teacher, *, grid: int) -> None:
        self.name, self.teacher, self.grid = name, teacher.eval(), grid
        self.seconds = 0.0
        self.cache: TensorCache | None = None
        if all(source.sha256 for source in teacher.sources):
            self.cache = TensorCache(
                cache_home() / "teacher-outputs", identity(teacher), f"{RESIZE}/{grid}/{TOKEN_SIDE}"
            )

    def ensure_cached(self, images: Sequence[ImageU8]) -> int:
        """See to it that all of them are known; returns how many had to be looked at."""
        if self.cache is None:
            return 0
        new = [image for image in images if self.cache.find(image) is None]
        for part in chunks(new, AT_ONCE):
            self._told(part)
        return len(new)

    def predict(self, images: Sequence[ImageU8], device: torch.device) -> PooledTeacherOutput:
        known = [None if self.cache is None else self.cache.find(image) for image in images]
        missing = [image for image, found in zip(images, known, strict=True) if found is None]
        made = iter(self._told(missing))
        each = [next(made) if found is None else found for found in known]
        return PooledTeacherOutput(
            *(torch.stack([one[key] for one in each]).float().to(device) for key in ("heat", "sure", "tokens"))
        )

    def class_vectors(self) -> Tensor | None:
        """Vectors that its tokens are read against, where it has any: (P, C)."""
        return self.teacher.class_vectors()

    def _told(self, images: Sequence[ImageU8]) -> list[dict[str, Tensor]]:
        """Look, and keep what is said."""
        if not images:
            return []
        began = time.perf_counter()
        with torch.no_grad():
            glance = self.teacher.predict(images)
            side = min(TOKEN_SIDE, glance.tokens_BChw.shape[-1])
            heat = F.adaptive_avg_pool2d(glance.heatmap_B1HW, self.grid)
            sure = F.adaptive_avg_pool2d(glance.confidence_B1HW, self.grid)
            tokens = F.adaptive_avg_pool2d(glance.tokens_BChw, side)
        self.seconds += time.perf_counter() - began
        halves = (each.half().cpu() for each in (heat, sure, tokens))
        said = [{"heat": h, "sure": s, "tokens": t} for h, s, t in zip(*halves, strict=True)]
        if self.cache is not None:
            for image, tensors in zip(images, said, strict=True):
                self.cache.put(image, tensors)
        return said


def identity(teacher: Teacher) -> str:
    """What its answers follow from: its base's weights, its settings, and what it has learnt."""
    digest = hashlib.sha256(repr((teacher.settings, [source.sha256 for source in teacher.sources])).encode())
    for name, value in sorted(teacher.adapted_state().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
