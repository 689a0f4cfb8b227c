"""Students, batches, teachers and commands for the tests of the distillation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inspect_kd.config import Distill
from inspect_kd.datasets import DataSet
from inspect_kd.distill.reliability import Reliability
from inspect_kd.distill.stages import BatchLabels, CachedBatch, LiveBatch, TeacherInfo, TeacherOutputs
from inspect_kd.distill.teacher_cache import PooledTeacherOutput
from inspect_kd.models.base import TeacherSample
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.students import omni_ad
from inspect_kd.models.teachers import memory
from inspect_kd.types import NoProgress, Sample, Split
from tests.small_models import images, small
from tests.tiny import command

MEMORY_RECIPE: dict[str, Any] = {
    "name": "tiny_memory",
    "teacher": {"build": "memory", "encoder": "embedded", "rows": 256},
    "data": {"size": 64},
    "teach": {"variants": 2, "epochs": 0},
}
STEPS = 4
"""Steps of each stage."""
EVERY_STAGE = [
    "student.head_width=8",
    "distill.variants=2",
    "distill.batch=4",
    f"distill.align.steps={STEPS}",
    f"distill.supervise.steps={STEPS}",
    f"distill.refine.steps={STEPS}",
    "distill.tune_decoder=true",
    "distill.contrast_weight=1",
    "distill.denoising_weight=0.5",
    "distill.blend=[1, 1.5, 1.5]",
]
EVERYTHING_ON = Distill(denoising_weight=0.5, tune_decoder=True, contrast_weight=1)
"""Settings with every optional loss, and with a decoder that refine trains."""


# ── students, batches, teachers in memory ────────────────────────────────────────────────────────────────────────────


def student_with_heads() -> omni_ad.OmniAdStudent:
    student = small(head_width=8)
    student.fit_statistics([images(8)])
    return student


def head_inputs(student: RebuildStudent) -> torch.Tensor:
    inputs_BChw = student.compute_maps(images(4, seed=2)).head_inputs_BChw
    assert inputs_BChw is not None
    return inputs_BChw


def labels() -> BatchLabels:
    """Four parts, two of them with a synthetic defect."""
    mask = torch.zeros(4, 1, 16, 16)
    mask[:2, :, 4:9, 4:9] = 1
    all_true = torch.ones(4, dtype=torch.bool)
    defective = mask.flatten(1).any(dim=1)
    return BatchLabels(
        mask_B1mm=mask, has_mask_B=all_true, defective_B=defective, has_label_B=all_true, has_sound_twin_B=all_true
    )


def teacher_outputs(teachers: int = 1, channels: int = 6) -> TeacherOutputs:
    """Outputs of teachers whose heat is 0.9 on the defects and 0.1 elsewhere."""
    generator, mask = torch.Generator().manual_seed(1), labels().mask_B1mm
    return {
        f"t{number}": PooledTeacherOutput(
            mask * 0.8 + 0.1, torch.ones_like(mask), torch.randn(4, channels, 4, 4, generator=generator)
        )
        for number in range(teachers)
    }


def cached_batch(student: RebuildStudent, teachers: int = 1) -> CachedBatch:
    with torch.no_grad():
        inputs = head_inputs(student)
    return CachedBatch(labels=labels(), head_inputs_BChw=inputs, teacher_outputs=teacher_outputs(teachers))


def live_batch(teachers: int = 1) -> LiveBatch:
    outputs = teacher_outputs(teachers)
    return LiveBatch(
        labels=labels(),
        images_B3HW=images(4, seed=2),
        sound_B3HW=images(4, seed=3),
        teacher_outputs=outputs,
        sound_teacher_outputs=outputs,
    )


def teacher_infos(count: int = 1, channels: int = 6) -> dict[str, TeacherInfo]:
    """Infos of teachers, from the most to the least reliable one."""
    vectors = torch.nn.functional.normalize(torch.randn(2, channels, generator=torch.Generator().manual_seed(4)), dim=1)
    infos = {}
    for number in range(count):
        reliability, mask = Reliability(), torch.zeros(1, 1, 32, 32)
        mask[..., :16, :] = 1
        reliability.add((mask * 0.8 + 0.1).roll(4 * number, dims=2), mask)
        infos[f"t{number}"] = TeacherInfo(channels=channels, class_vectors_PC=vectors, reliability=reliability)
    return infos


def memory_teacher(parts: int = 6, **changes: Any) -> memory.MemoryTeacher:
    """A memory teacher fitted to noisy grey parts."""
    torch.manual_seed(0)
    teacher = memory.build(memory.Config(encoder="embedded", **({"rows": 128} | changes)), 64)
    rng = np.random.default_rng(0)
    base = rng.integers(90, 130, (64, 64, 3), dtype=np.uint8)
    samples = [
        TeacherSample(
            image=np.clip(base + rng.integers(-5, 5, base.shape), 0, 255).astype(np.uint8), mask=None, part=part
        )
        for part in range(parts)
    ]
    steps = list(teacher.fit(samples, epochs=0, batch=4, learning_rate=1e-3, seed=0))
    assert len(steps) == teacher.count_steps(parts, epochs=0, batch=4)
    return teacher.eval()


# ── trainings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def distill_command(parts: Path, out: Path, *more: str) -> list[str]:
    """`inspect-kd train` with a memory teacher and every stage."""
    recipe = out / "tiny_memory.yaml"
    recipe.write_text(json.dumps(MEMORY_RECIPE))
    settings = [argument for setting in EVERY_STAGE for argument in ("--set", setting)]
    return [*command(parts, out, "--teachers", str(recipe)), *settings, *more]


def environment_with_own_cache(home: Path) -> dict[str, str]:
    """An environment in which no other test has cached anything."""
    return os.environ | {"INSPECT_KD_CACHE": str(home / "cache")}


def masked_defects(data: DataSet) -> list[Sample]:
    return [sample for sample in data.select(Split.TEST) if sample.mask is not None]


class RecordingProgress(NoProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
