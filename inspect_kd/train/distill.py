"""distill(): the stages after the fit, one loop for all. The student learns heads; what teaches it stays behind.

As in the fit, every step's randomness follows from seed, stage and step alone, so a killed training goes on to the same
numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from inspect_kd.chunks import chunks
from inspect_kd.config import Recipe, StageConfig, Teach
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore, as_input, to_tensor
from inspect_kd.datasets.view import View
from inspect_kd.distill.reliability import Reliability
from inspect_kd.distill.stages import STAGES, Batch, Stage, TeacherInfo
from inspect_kd.distill.teacher_cache import AT_ONCE, CachedTeacher
from inspect_kd.errors import BadInput
from inspect_kd.models.base import Teacher
from inspect_kd.models.layers.heads import FINER
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.train import checkpoint
from inspect_kd.train.distill_data import DistillDataset, cells
from inspect_kd.train.metrics_log import open_log
from inspect_kd.train.real_parts import RealParts
from inspect_kd.train.run import RunFolder, view_of
from inspect_kd.train.schedule import learning_rate
from inspect_kd.train.teacher_data import TeacherDataset
from inspect_kd.types import Progress, Split

RELIABILITY_SAMPLES, RELIABILITY_SEED = 256, 1
"""Drawn parts on which teachers' reliability is learnt, and their seed: none that a teacher has studied."""
WARM_UP = 0.1


@dataclass(kw_only=True)
class Shared:
    """What two distillations of one fit, on the same parts, need not make twice."""

    pool: DistillDataset | None = None
    evidence: Tensor | None = None
    """What the student, its body at rest, knows of each part of the pool: (N, C, h, w), in half precision."""

    def gather(self, student: RebuildStudent, progress: Progress) -> None:
        """Look at every part once, where that is not done yet."""
        assert self.pool is not None
        if self.evidence is not None:
            return
        progress.phase("look: student", len(self.pool))
        device, known = next(student.parameters()).device, torch.empty(0)
        with torch.no_grad():
            for numbers in chunks(range(len(self.pool)), AT_ONCE):
                evidence = student.compute_maps(self.pool.seen(numbers, device)).head_inputs_BChw
                assert evidence is not None
                if not len(known):
                    # Room for all at once: to join parts at the end would take it twice.
                    known = torch.empty(len(self.pool), *evidence.shape[1:], dtype=torch.float16)
                known[numbers] = evidence.half().cpu()
                progress.advance(len(numbers))
        self.evidence = known


@dataclass(kw_only=True)
class Distillation:
    """Everything that the stages share."""

    recipe: Recipe
    folder: RunFolder
    student: RebuildStudent
    pool: DistillDataset
    observers: dict[str, CachedTeacher]
    taught: dict[str, TeacherInfo]
    state: checkpoint.TrainingState
    progress: Progress
    shared: Shared

    def run(self) -> None:
        """All stages that are not done yet."""
        stages = self.recipe.distill.stages
        names = list(stages)
        begun = names.index(self.state.stage) if self.state.stage in names else 0
        fresh = self.state.stage not in names
        left = [
            name for name in names[begun:] if name != self.state.stage or self.state.stage_step < stages[name].steps
        ]
        if fresh or any(STAGES[name].body_is_frozen(self.recipe.distill) for name in left):
            self.shared.gather(self.student, self.progress)
        if fresh:
            assert self.student.heads is not None and self.shared.evidence is not None
            self.student.heads.fit_normalisation(self.shared.evidence)
        with open_log(self.folder.metrics) as log:
            for name in names[begun:]:
                self._stage(name, stages[name], log)

    def _stage(self, name: str, plan: StageConfig, log: TextIO) -> None:
        settings, state = self.recipe.distill, self.state
        stage = STAGES[name](self.student, self.taught, settings)
        stage.auxiliary.to(self._device)
        parameters = stage.freeze_rest()
        optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=self.recipe.fit.weight_decay)
        if state.stage == name:
            checkpoint.load(self.folder.checkpoint, self.student, optimizer, auxiliary=stage.auxiliary)
        else:
            state.stage, state.stage_step = name, 0
        self.progress.phase(name, plan.steps, state.stage_step)
        while state.stage_step < plan.steps:
            step = state.stage_step
            rate = learning_rate(step, plan.steps, peak=plan.learning_rate, warm_up=WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = rate
            figures = self._step(stage, name, step, optimizer, parameters)
            state.step += 1
            state.stage_step += 1
            line: dict[str, float | str] = {"step": state.step, "stage": name, **figures, "learning_rate": rate}
            log.write(json.dumps(line) + "\n")
            if state.stage_step % self.recipe.fit.checkpoint_every == 0 or state.stage_step == plan.steps:
                log.flush()
                checkpoint.save(self.folder.checkpoint, self.student, {}, optimizer, state, auxiliary=stage.auxiliary)
            self.progress.advance(1, loss=figures["loss"])
        stage.finish()

    def _step(
        self, stage: Stage, name: str, step: int, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
    ) -> dict[str, float]:
        settings, seed = self.recipe.distill, self.recipe.fit.seed
        place = list(STAGES).index(name)
        rng = np.random.default_rng([seed, 2**34, place, step])
        torch.manual_seed((seed * 1_000_003 + step * 97 + place * 31) % 2**63)
        asks = name != "supervise"
        numbers = self.pool.draw(settings.batch, rng, taught=asks)
        batch = self._batch(stage, numbers, self.observers if asks else {})
        terms = stage.losses(batch)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise BadInput(
                f"the loss became {loss.item()} at step {step} of {name}: lower distill.{name}.learning_rate"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, self.recipe.fit.clip)
        optimizer.step()
        stage.after_step()
        return {"loss": round(loss.item(), 6), **{key: round(value.item(), 6) for key, value in terms.items()}}

    def _batch(self, stage: Stage, numbers: list[int], observers: dict[str, CachedTeacher]) -> Batch:
        batch = self.pool.batch(numbers, observers, self._device)
        if stage.body_is_frozen(self.recipe.distill):
            assert self.shared.evidence is not None
            return replace(batch, head_inputs_BChw=self.shared.evidence[numbers].float().to(self._device))
        sounds = self.pool.sound(numbers)
        return replace(
            batch,
            seen_B3HW=self.pool.seen(numbers, self._device),
            sound_B3HW=self.pool.as_input(sounds, self._device),
            told_sound={name: observer.predict(sounds, self._device) for name, observer in observers.items()}
            if self.recipe.distill.denoising_weight
            else {},
        )

    @property
    def _device(self) -> torch.device:
        return next(self.student.parameters()).device


def answer_grid(recipe: Recipe, student: RebuildStudent) -> int:
    """Side of the heads' answers."""
    return FINER * recipe.data.size // min(max(group) for group in student.settings.rebuild)


def distill(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    student: RebuildStudent,
    teachers: dict[str, Teacher],
    state: checkpoint.TrainingState,
    progress: Progress,
    real: RealParts,
    shared: Shared | None = None,
) -> dict[str, Any]:
    """All stages, and then what each voice counts. Returns figures for the run's manifest."""
    settings, began = recipe.distill, time.monotonic()
    student.requires_grad_(False).eval()  # no statistics of its body move but where a stage says so
    shared = shared or Shared()
    device = next(student.parameters()).device
    grid = answer_grid(recipe, student)
    side = max([recipe.data.size, *(teacher.size for teacher in teachers.values())])
    if shared.pool is None or shared.pool.side != side:
        shared.pool, shared.evidence = DistillDataset(recipe, data, side=side, grid=grid, real=real), None
    pool = shared.pool
    observers = {name: CachedTeacher(name, teacher.to(device), grid=grid) for name, teacher in teachers.items()}
    looks = {
        name: look(observer, pool, progress, twins=settings.denoising_weight > 0)
        for name, observer in observers.items()
    }
    taught = measure_reliability(observers, recipe, data, grid, side)
    Distillation(
        recipe=recipe,
        folder=folder,
        student=student,
        pool=pool,
        observers=observers,
        taught=taught,
        state=state,
        progress=progress,
        shared=shared,
    ).run()
    fit_blend(student, recipe, data)
    return {
        "stages": {name: plan.steps for name, plan in settings.stages.items()},
        "taught_by": looks,
        "labelled": len(pool.labelled),
        "unlabelled": len(pool.unlabelled),
        "distill_seconds": round(time.monotonic() - began, 1),
    }


def look(observer: CachedTeacher, pool: DistillDataset, progress: Progress, *, twins: bool) -> dict[str, Any]:
    """Let a teacher see every part that it has not seen yet."""
    progress.phase(f"look: {observer.name}", len(pool))
    new = asked = 0
    for numbers in chunks(range(len(pool)), AT_ONCE):
        images = [pool[number].image for number in numbers]
        if twins:
            images += [sound for sound, image in zip(pool.sound(numbers), images, strict=True) if sound is not image]
        new, asked = new + observer.ensure_cached(images), asked + len(images)
        progress.advance(len(numbers))
    rate = new / observer.seconds if observer.seconds else 0.0
    taken = observer.cache.used_bytes / 1e6 if observer.cache else 0.0
    progress.note(
        f"{observer.name}: looked at {new} of {asked} images"
        + (f", {rate:.1f} a second" if new else "; all were known")
        + f"; {taken:.0f} MB on disk"
        if observer.cache
        else f"{observer.name}: its weights have no digest, so nothing is kept and it looks again at every step"
    )
    return {
        "looked_at": new,
        "images": asked,
        "images_a_second": round(rate, 2),
        "cache_mb": round(taken, 1),
        "licences": {source.name: source.licence for source in observer.teacher.sources},
    }


def measure_reliability(
    observers: Mapping[str, CachedTeacher], recipe: Recipe, data: DataSet, grid: int, side: int
) -> dict[str, TeacherInfo]:
    """What is to be known of teachers before they are believed: how they do on drawn defects on parts that they have not studied."""
    if not observers:
        return {}
    store = ImageStore(data.select(Split.VALIDATION), View(size=side), bits=recipe.data.bits)
    lessons = TeacherDataset(store, Teach(variants=4), "none", RELIABILITY_SEED)
    reliabilities = {name: Reliability() for name in observers}
    channels: dict[str, int] = {}
    for part in chunks(reliability_samples(len(lessons)), AT_ONCE):
        judged = [lessons[number] for number in part]
        masks = torch.stack([cells(lesson.mask, grid) for lesson in judged])
        for name, observer in observers.items():
            told = observer.predict([lesson.image for lesson in judged], torch.device("cpu"))
            reliabilities[name].learn(told.heat_B1mm, masks)
            channels[name] = told.tokens_BChw.shape[1]
    return {
        name: TeacherInfo(channels=channels[name], classes_PC=observer.class_vectors(), reliability=reliabilities[name])
        for name, observer in observers.items()
    }


def reliability_samples(lessons: int) -> list[int]:
    """By chance: damaged and untouched ones come by turns, and even steps could find one kind alone."""
    return [int(n) for n in np.random.default_rng(RELIABILITY_SEED).permutation(lessons)[:RELIABILITY_SAMPLES]]


def fit_blend(student: RebuildStudent, recipe: Recipe, data: DataSet) -> None:
    """Bring discrepancy and both heads to one scale on held-out sound parts."""
    store = ImageStore(data.select(Split.VALIDATION), view_of(recipe), bits=recipe.data.bits)
    device = next(student.parameters()).device
    rng = np.random.default_rng(recipe.fit.seed)
    frames = [to_tensor(store.frame(index, rng)) for index in range(len(store))]
    student.eval().fit_blend(
        (as_input(torch.stack(frames[i : i + 8])).to(device) for i in range(0, len(frames), 8)),
        recipe.distill.blend,
        recipe.distill.score_blend,
    )
