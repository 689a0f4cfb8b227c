"""Prepare a student's teachers: predict all parts once, and measure how reliable each teacher is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from inspect_kd.chunks import chunks
from inspect_kd.config import Teach
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.distill.reliability import Reliability
from inspect_kd.distill.stages import TeacherInfo
from inspect_kd.distill.teacher_cache import BATCH, CachedTeacher
from inspect_kd.training.distill_data import DistillDataset, pool_mask
from inspect_kd.training.job import Job
from inspect_kd.training.teacher_data import TeacherDataset
from inspect_kd.types import Progress, Split

RELIABILITY_SAMPLES = 256
RELIABILITY_SEED = 1
"""Seed of the samples for the reliability; it differs from the default seed of the teachers' training."""


def cache_outputs(
    teacher: CachedTeacher, dataset: DistillDataset, progress: Progress, *, sound_twins: bool
) -> dict[str, Any]:
    """Predict every part that is not cached. Returns what the run's manifest records of the teacher."""
    progress.phase(f"look: {teacher.name}", len(dataset))
    predicted = total = 0
    for numbers in chunks(range(len(dataset)), BATCH):
        samples = [dataset[number] for number in numbers]
        images = [sample.image for sample in samples]
        if sound_twins:
            images += [sample.sound for sample in samples if sample.sound is not sample.image]
        predicted, total = predicted + teacher.ensure_cached(images), total + len(images)
        progress.advance(len(numbers))
    rate = predicted / teacher.predict_seconds if teacher.predict_seconds else 0.0
    cache_mb = teacher.cache.used_bytes / 1e6 if teacher.cache else 0.0
    if teacher.cache is None:
        progress.note(f"{teacher.name}: no digest of its weights, so nothing is cached: it predicts anew at every step")
    else:
        speed = f", {rate:.1f} a second" if predicted else "; all were cached"
        progress.note(f"{teacher.name}: predicted {predicted} of {total} images{speed}; {cache_mb:.0f} MB on disk")
    return {
        "looked_at": predicted,
        "images": total,
        "images_a_second": round(rate, 2),
        "cache_mb": round(cache_mb, 1),
        "licences": {source.name: source.licence for source in teacher.teacher.sources},
    }


def measure_reliability(
    job: Job, teachers: Mapping[str, CachedTeacher], dataset: DistillDataset
) -> dict[str, TeacherInfo]:
    """Measure each teacher's reliability on synthetic defects on held-out sound parts."""
    if not teachers:
        return {}
    validation = job.data.select(Split.VALIDATION)
    store = ImageStore(validation, dataset.presentations, bits=job.recipe.data.bits)
    samples = TeacherDataset(store, Teach(variants=4), "none", RELIABILITY_SEED)
    reliabilities = {name: Reliability() for name in teachers}
    channels: dict[str, int] = {}
    for numbers in chunks(reliability_samples(len(samples)), BATCH):
        batch = [samples[number] for number in numbers]
        masks = torch.stack([pool_mask(sample.mask, dataset.grid) for sample in batch])
        for name, teacher in teachers.items():
            output = teacher.predict([sample.image for sample in batch], torch.device("cpu"))
            reliabilities[name].add(output.heat_B1mm, masks)
            channels[name] = output.tokens_BChw.shape[1]
    return {
        name: TeacherInfo(
            channels=channels[name], class_vectors_PC=teacher.class_vectors(), reliability=reliabilities[name]
        )
        for name, teacher in teachers.items()
    }


def reliability_samples(count: int) -> list[int]:
    """Random sample numbers. Evenly spaced ones could all be sound, because sound and synthetic samples alternate."""
    return [int(n) for n in np.random.default_rng(RELIABILITY_SEED).permutation(count)[:RELIABILITY_SAMPLES]]
