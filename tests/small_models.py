"""Small students, images and training samples for tests of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inspect_kd.models.base import TeacherSample
from inspect_kd.models.encoders import build_encoder
from inspect_kd.models.rebuild_config import CompareConfig
from inspect_kd.models.students import omni_ad, ras

FEW_PROTOTYPES = (CompareConfig(strides=(4, 8), prototypes=8), CompareConfig(strides=(16,), prototypes=16, weight=2.0))


def small(**changes: object) -> omni_ad.OmniAdStudent:
    """A small Omni-AD student."""
    torch.manual_seed(0)
    options = {"dims": (32, 24, 16), "neck": 16, "bottleneck": 1, "compare": FEW_PROTOTYPES} | changes
    return omni_ad.build(omni_ad.Config(encoder="embedded", **options), build_encoder("embedded"))


def small_ras(**changes: object) -> ras.RasStudent:
    torch.manual_seed(0)
    options = {"grid": 4, "width": 16, "heads": 2, "inner": 16, "barred": 3, "compare": FEW_PROTOTYPES} | changes
    return ras.build(ras.Config(encoder="embedded", **options), build_encoder("embedded"))


def gated(**changes: object) -> omni_ad.OmniAdStudent:
    return small(gate=True, **changes)


def images(count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 255


def teacher_samples(count: int = 16, size: int = 64) -> list[TeacherSample]:
    """Grey noise; every other image has a bright square as its defect."""
    rng, samples = np.random.default_rng(0), []
    for number in range(count):
        image = rng.integers(90, 140, (size, size, 3), dtype=np.uint8)
        mask = None
        if number % 2:
            row, column = rng.integers(0, size - 20, 2)
            mask = np.zeros((size, size), bool)
            mask[row : row + 20, column : column + 20] = True
            image[mask] = 250
        samples.append(TeacherSample(image=image, mask=mask))
    return samples


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.marker,)  # type: ignore[return-value]
