"""distill(): run the stages after the fit (S1 to S3), which train the student's heads. One loop serves all stages.

As in the fit, every step's randomness follows from seed, stage and step alone, so an interrupted training resumes to the same
numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from inspect_kd.chunks import chunks
from inspect_kd.config import StageConfig
from inspect_kd.datasets.batches import ImageStore, as_input, to_tensor
from inspect_kd.distill.stages import (
    STAGES,
    CachedBatch,
    HeadStage,
    LiveBatch,
    RefineDecoder,
    TeacherInfo,
    build_stage,
    freezes_body,
)
from inspect_kd.distill.teacher_cache import CachedTeacher
from inspect_kd.errors import BadInput
from inspect_kd.models.base import Teacher
from inspect_kd.models.layers.heads import UPSCALING
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.training import checkpoint
from inspect_kd.training.distill_data import DistillDataset
from inspect_kd.training.head_inputs import HeadInputs
from inspect_kd.training.job import Job
from inspect_kd.training.metrics_log import open_log
from inspect_kd.training.real_parts import RealParts
from inspect_kd.training.schedule import learning_rate
from inspect_kd.training.teacher_outputs import cache_outputs, measure_reliability
from inspect_kd.types import Split

WARM_UP = 0.1
"""Share of a stage's steps over which the learning rate rises."""


def open_distill_dataset(
    job: Job, student: RebuildStudent, teachers: Mapping[str, Teacher], real: RealParts
) -> DistillDataset:
    """Images as large as the largest teacher takes them, masks at the grid of the student's heads."""
    size = job.recipe.data.size
    # A group's grid has the largest of its strides; the heads' inputs have the finest of these grids.
    finest_stride = min(max(group) for group in student.settings.rebuild)
    grid = UPSCALING * size // finest_stride
    side = max([size, *(teacher.size for teacher in teachers.values())])
    return DistillDataset(job, side=side, grid=grid, real=real)


def distill(
    job: Job,
    student: RebuildStudent,
    teachers: Mapping[str, Teacher],
    state: checkpoint.TrainingState,
    inputs: HeadInputs,
) -> dict[str, Any]:
    """Run the remaining stages, then fit the blend weights. Returns what the run's manifest records."""
    settings, dataset, start_time = job.recipe.distill, inputs.dataset, time.monotonic()
    student.requires_grad_(False).eval()  # the body's statistics change only in a stage that trains it
    device = next(student.parameters()).device

    # ── teachers: predict all parts once, measure reliability ────────────────────────────────────────────────────────
    cached = {name: CachedTeacher(name, teacher.to(device), grid=dataset.grid) for name, teacher in teachers.items()}
    needs_sound_twins = settings.denoising_weight > 0
    teacher_records = {
        name: cache_outputs(teacher, dataset, job.progress, sound_twins=needs_sound_twins)
        for name, teacher in cached.items()
    }
    infos = measure_reliability(job, cached, dataset)

    # ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────
    _Distillation(job=job, student=student, inputs=inputs, teachers=cached, infos=infos, state=state).run()

    # ── blend weights: discrepancy and heads in map and score ────────────────────────────────────────────────────────
    fit_blend(job, student)
    return {
        "stages": {name: plan.steps for name, plan in settings.stages.items()},
        "taught_by": teacher_records,
        "labelled": len(dataset.labelled),
        "unlabelled": len(dataset.unlabelled),
        "distill_seconds": round(time.monotonic() - start_time, 1),
    }


@dataclass(frozen=True, kw_only=True)
class _Distillation:
    """The loop over the stages, and what all of them share."""

    job: Job
    student: RebuildStudent
    inputs: HeadInputs
    teachers: Mapping[str, CachedTeacher]
    infos: Mapping[str, TeacherInfo]
    state: checkpoint.TrainingState

    def run(self) -> None:
        """Run all stages that are not complete."""
        settings, state = self.job.recipe.distill, self.state
        plans = settings.stages
        names = list(plans)
        is_fresh = state.stage not in names
        remaining = names if is_fresh else names[names.index(state.stage) :]
        to_train = [name for name in remaining if name != state.stage or state.stage_step < plans[name].steps]
        if is_fresh or any(freezes_body(name, settings) for name in to_train):
            self.inputs.compute_all()  # before a stage changes the decoder
            if is_fresh:
                assert self.student.heads is not None
                self.student.heads.fit_normalisation(self.inputs.all_inputs)
        with open_log(self.job.folder.metrics) as log:
            for name in remaining:
                self._run_stage(name, plans[name], log)

    def _run_stage(self, name: str, plan: StageConfig, log: TextIO) -> None:
        recipe, state, folder = self.job.recipe, self.state, self.job.folder
        stage = build_stage(name, self.student, self.infos, recipe.distill)
        stage.auxiliary.to(self._device)
        parameters = stage.select_trainable()
        optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=recipe.fit.weight_decay)
        if state.stage == name:
            checkpoint.load(folder.checkpoint, self.student, optimizer, auxiliary=stage.auxiliary)
        else:
            state.stage, state.stage_step = name, 0
        self.job.progress.phase(name, plan.steps, state.stage_step)
        while state.stage_step < plan.steps:
            rate = learning_rate(state.stage_step, plan.steps, peak=plan.learning_rate, warm_up=WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = rate
            metrics = self._train_step(stage, name, state.stage_step, optimizer, parameters)
            state.step += 1
            state.stage_step += 1
            line: dict[str, float | str] = {"step": state.step, "stage": name, **metrics, "learning_rate": rate}
            log.write(json.dumps(line) + "\n")
            if state.stage_step % recipe.fit.checkpoint_every == 0 or state.stage_step == plan.steps:
                log.flush()
                checkpoint.save(folder.checkpoint, self.student, {}, optimizer, state, auxiliary=stage.auxiliary)
            self.job.progress.advance(1, loss=metrics["loss"])
        stage.finish()

    def _train_step(
        self,
        stage: HeadStage | RefineDecoder,
        name: str,
        step: int,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
    ) -> dict[str, float]:
        terms = self._losses(stage, name, step)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise BadInput(
                f"the loss became {loss.item()} at step {step} of {name}: lower distill.{name}.learning_rate"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, self.job.recipe.fit.clip)
        optimizer.step()
        stage.after_step()
        return {"loss": round(loss.item(), 6), **{key: round(value.item(), 6) for key, value in terms.items()}}

    def _losses(self, stage: HeadStage | RefineDecoder, name: str, step: int) -> dict[str, Tensor]:
        seed, position = self.job.recipe.fit.seed, STAGES.index(name)
        rng = np.random.default_rng([seed, 2**34, position, step])
        torch.manual_seed((seed * 1_000_003 + step * 97 + position * 31) % 2**63)
        teachers = {} if name == "supervise" else self.teachers
        numbers = self.inputs.dataset.sample_numbers(
            self.job.recipe.distill.batch, rng, with_teachers=name != "supervise"
        )
        if isinstance(stage, RefineDecoder):
            return stage.losses(self._live_batch(numbers, teachers))
        return stage.losses(self._cached_batch(numbers, teachers))

    def _cached_batch(self, numbers: list[int], teachers: Mapping[str, CachedTeacher]) -> CachedBatch:
        dataset, device = self.inputs.dataset, self._device
        images = [dataset[number].image for number in numbers] if teachers else []
        return CachedBatch(
            labels=dataset.labels(numbers, device),
            head_inputs_BChw=self.inputs.select(numbers, device),
            teacher_outputs={name: teacher.predict(images, device) for name, teacher in teachers.items()},
        )

    def _live_batch(self, numbers: list[int], teachers: Mapping[str, CachedTeacher]) -> LiveBatch:
        dataset, device = self.inputs.dataset, self._device
        samples = [dataset[number] for number in numbers]
        images, sound_images = [sample.image for sample in samples], [sample.sound for sample in samples]
        denoising = teachers if self.job.recipe.distill.denoising_weight else {}
        return LiveBatch(
            labels=dataset.labels(numbers, device),
            images_B3HW=dataset.student_input(images, device),
            sound_B3HW=dataset.student_input(sound_images, device),
            teacher_outputs={name: teacher.predict(images, device) for name, teacher in teachers.items()},
            sound_teacher_outputs={name: teacher.predict(sound_images, device) for name, teacher in denoising.items()},
        )

    @property
    def _device(self) -> torch.device:
        return next(self.student.parameters()).device


def fit_blend(job: Job, student: RebuildStudent) -> None:
    """Bring the discrepancy and both heads to one scale, on held-out sound parts."""
    recipe = job.recipe
    store = ImageStore(job.data.select(Split.VALIDATION), job.presentations, bits=recipe.data.bits)
    device = next(student.parameters()).device
    rng = np.random.default_rng(recipe.fit.seed)
    frames = [to_tensor(store.frame(index, rng)) for index in range(len(store))]
    student.eval().fit_blend(
        (as_input(torch.stack(batch)).to(device) for batch in chunks(frames, 8)),
        recipe.distill.blend,
        recipe.distill.score_blend,
    )
