"""Cached teachers: an image is predicted once, and teachers do not share outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inspect_kd.distill.teacher_cache import CachedTeacher, identity
from tests.distill.builders import memory_teacher


def test_cached_images_are_not_predicted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECT_KD_CACHE", str(tmp_path))
    teacher, rng = memory_teacher(), np.random.default_rng(1)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    first = CachedTeacher("m", teacher, grid=16)
    assert first.ensure_cached(images) == 3
    output = first.predict(images, torch.device("cpu"))
    second = CachedTeacher("m", teacher, grid=16)
    monkeypatch.setattr(teacher, "predict", lambda images: pytest.fail("predicted again"))
    assert second.ensure_cached(images) == 0
    again = second.predict(images, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(output, again, strict=True))
    assert output.heat_B1mm.shape == (3, 1, 16, 16) and output.tokens_BChw.shape[-1] <= 14


def test_identity_changes_with_learned_weights() -> None:
    teacher, other = memory_teacher(), memory_teacher(parts=7)
    assert identity(teacher) == identity(teacher) != identity(other)
