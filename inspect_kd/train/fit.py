"""fit(): from a recipe and a data set to a run with student, thresholds, metrics, artifact and report. One linear page.

Unusual here: every step's randomness follows from the seed and the step's number alone, so a training that was killed
goes on to the very numbers that it would have reached.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from inspect_kd import licences
from inspect_kd.config import Fit, Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore, StepSampler, Sweep, TrainingImages, as_input, batches
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.models.base import Student, Teacher
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.train import checkpoint
from inspect_kd.train.distill import distill
from inspect_kd.train.early_stop import SyntheticGap
from inspect_kd.train.environment_file import read_environment
from inspect_kd.train.finish import finish_run
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.metrics_log import begin_log, open_log
from inspect_kd.train.real_parts import RealParts, real_parts
from inspect_kd.train.run import (
    RunFolder,
    build_student,
    hold_run,
    load_run,
    open_folder,
    resolved,
    sources_of,
    view_of,
)
from inspect_kd.train.schedule import learning_rate
from inspect_kd.train.teachers import ready
from inspect_kd.types import NoProgress, Progress, Sample, Split

MOST_ADAPTED = 1536
"""Images from which a student takes what it needs to know of sound features before the first step: all of them, as a rule.
Prototypes from a part of the tile's images alone know its texture less well."""
NARROWER = 0.97
"""A gap below this share of the widest has narrowed. Above it the later weights are kept: their learning rate was lower, and
the gap itself is only measured on a few dozen parts."""
SURELY_TRAINED = 0.5
"""Share of the steps before which the early stop never strikes: the gap is still ragged there."""


def fit(
    recipe: Recipe, data: DataSet, folder: RunFolder, *, hardware: Hardware, progress: Progress, resume: bool = False
) -> RunFolder:
    fabric = hardware.fabric()
    with hold_run(folder):
        fabric.launch()
        began = time.monotonic()
        recipe = resolved(recipe)
        student, facts = train_student(
            recipe, data, folder, hardware=hardware, fabric=fabric, progress=progress, resume=resume
        )
        if fabric.is_global_zero:
            finish_run(recipe, data, folder, student, facts, began, progress)
        fabric.barrier()  # the first process concludes alone; leaving early would end it
    return folder


def train_student(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    *,
    hardware: Hardware,
    fabric: Fabric,
    progress: Progress,
    resume: bool = False,
) -> tuple[Student, dict[str, Any]]:
    """All steps of a resolved recipe; the student, and what is to be told of its training."""
    if not fabric.is_global_zero:
        progress = NoProgress()
    settings = recipe.fit

    # ── its teachers, where it has any ───────────────────────────────────────────────────────────────────────────────
    teachers, real = {}, RealParts([], [])
    if fabric.is_global_zero:
        real = real_parts(recipe, data, progress)
        alone = replace(hardware, devices=1, workers=0, precision=Hardware().precision)  # as a teacher studies
        teachers = ready(recipe.distill.teachers, recipe, data, folder.path.parent, alone, progress)
    fabric.barrier()

    # ── the student ──────────────────────────────────────────────────────────────────────────────────────────────────
    torch.manual_seed(settings.seed)
    student = build_student(recipe).to(memory_format=torch.channels_last)
    licences.check(recipe.profile, {source.name: source.licence for source in sources_of(student)})
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    # ── its data ─────────────────────────────────────────────────────────────────────────────────────────────────────
    sound = data.select(Split.TRAIN)
    images = TrainingImages(_store(recipe, sound), recipe.data.flip)
    gap = SyntheticGap(_store(recipe, data.select(Split.VALIDATION)), settings.seed)

    # ── a fresh start, or where the last one stopped ─────────────────────────────────────────────────────────────────
    if resume and folder.checkpoint.is_file():
        read_environment(folder.environment)  # what the report could not read is refused now, not after the training
        kept = checkpoint.read_state(folder.checkpoint)
        _same_work(kept, recipe, data, folder)
        fitting = kept.stage == checkpoint.FIT
        state, best = checkpoint.load(folder.checkpoint, student, optimizer if fitting else None)
        if fabric.is_global_zero and state.real != real.digest:
            raise BadInput(
                f"{folder.path}: labelled or unlabelled parts have changed since the training began; choose another --name"
            )
        progress.note(f"resuming at step {state.step}" + (f" of {settings.steps}" if fitting else f", {state.stage}"))
    else:
        state, best = checkpoint.TrainingState(recipe=recipe.digest(), data=data.digest, real=real.digest), {}
        if recipe.distill.start:
            _take_over(student, recipe, data)
            state.stage = checkpoint.FITTED
        else:
            again = recipe.data.tile is not None
            first = Sweep(sound, most=MOST_ADAPTED, again=again, batch=settings.batch, seed=settings.seed)
            student.fit_statistics(pair.clean_B3HW for pair in batches(images, first, workers=0))
        if fabric.is_global_zero:
            open_folder(folder, recipe, str(fabric.device))
    if fabric.is_global_zero:
        begin_log(folder.metrics, state.step)
    fabric.barrier()
    student = student.to(fabric.device)
    model, optimizer = fabric.setup(student, optimizer)
    model.mark_forward_method("losses")

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────
    to_do = range(state.step, settings.steps) if state.stage == checkpoint.FIT else range(0)
    if to_do:
        progress.phase("train", settings.steps, state.step)
    sampler = StepSampler(
        sound,
        steps=to_do,
        batch=settings.batch,
        damaged=settings.denoise,
        seed=settings.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    model.train()
    with open_log(folder.metrics) as log:
        for pair in batches(images, sampler, workers=hardware.workers):
            if _finished(state, settings):
                break
            torch.manual_seed(_step_seed(settings.seed, state.step, fabric.global_rank))
            rate = learning_rate(
                state.step,
                settings.steps,
                peak=settings.learning_rate,
                warm_up=settings.warm_up,
                schedule=settings.schedule,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            seen, clean = fabric.to_device(pair.seen_B3HW), fabric.to_device(pair.clean_B3HW)
            terms = model.losses(seen, seen if settings.denoise == 0 else clean)
            loss: Tensor = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise BadInput(f"the loss became {loss.item()} at step {state.step}: lower fit.learning_rate")
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=settings.clip)
            optimizer.step()
            state.step += 1
            line: dict[str, float] = {"step": state.step, "loss": round(loss.item(), 6), "learning_rate": rate}

            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                line["gap"] = round(_measure(gap, student), 6)
                if line["gap"] >= NARROWER * state.best_gap:
                    state.best_gap = max(state.best_gap, line["gap"])
                    state.best_step, state.stale = state.step, 0
                    best = {key: value.detach().clone() for key, value in checkpoint.trained_state(student).items()}
                else:
                    state.stale += 1
            if fabric.is_global_zero:
                log.write(json.dumps(line) + "\n")
                if state.step % settings.checkpoint_every == 0:
                    log.flush()
                    checkpoint.save(folder.checkpoint, student, best, optimizer, state)
            progress.advance(1, **{str(key): line[key] for key in ("loss", "gap") if key in line})
    if state.stage == checkpoint.FIT:
        student.load_state_dict(best, strict=False)
        progress.note(f"widest synthetic gap {state.best_gap:.3f} at step {state.best_step} of {state.step}")
        state.stage = checkpoint.FITTED
    # ── what labels and teachers say ─────────────────────────────────────────────────────────────────────────────────
    facts: dict[str, Any] = {"best_step": state.best_step, "best_gap": state.best_gap}
    if recipe.distill.stages and fabric.is_global_zero:
        if state.stage == checkpoint.FITTED:
            checkpoint.save(folder.checkpoint, student, {}, optimizer, state)
        if not isinstance(student, RebuildStudent):
            raise UsageError(f"distill: a {recipe.student['build']} has no heads to teach")
        facts |= distill(recipe, data, folder, student, teachers, state, progress, real)
    return student, facts | {"steps": state.step}


def fitted_student(recipe: Recipe, data: DataSet) -> RebuildStudent:
    """The fit of the run that the recipe starts from; heads that it may have stay behind."""
    assert recipe.distill.start is not None
    student = build_student(recipe)
    _take_over(student, recipe, data)
    assert isinstance(student, RebuildStudent)
    return student.eval()


def _take_over(student: Student, recipe: Recipe, data: DataSet) -> None:
    assert recipe.distill.start is not None
    start, finished = recipe.distill.start, load_run(Path(recipe.distill.start))
    manifest, begun = finished.manifest, finished.recipe
    if not begun.student:
        raise UsageError(f"distill.start: {start} is a teacher's run; teachers are named by --teachers")
    if manifest["data"]["digest"] != data.digest:
        raise UsageError(
            f"distill.start: {start} was trained on other parts, or with another split; parts that it learnt could be "
            "calibrated or tested on. Train without --start"
        )
    if begun.distill.tune_decoder and "refine" in manifest.get("stages", {}):
        raise UsageError(
            f"distill.start: teachers have moved the decoder of {start}; start from a run without distill.tune_decoder"
        )
    if _of_the_fit(begun) != _of_the_fit(recipe) or _encoder_of(finished.model) != _encoder_of(student):
        raise UsageError(f"distill.start: {start} is another student or sees otherwise; name its recipe with --model")
    fitted = {key: value for key, value in finished.model.state_dict().items() if not key.startswith("heads.")}
    student.load_state_dict(fitted, strict=False)


def _of_the_fit(recipe: Recipe) -> dict[str, Any]:
    """All of a recipe that a fit's weights mean something with."""
    student = {key: value for key, value in resolved(recipe).student.items() if key != "head_width"}
    data = recipe.data.model_dump(include={"size", "tile", "overlap", "bits"})
    return {"student": student, "data": data}


def _encoder_of(student: Student | Teacher) -> str:
    return sources_of(student)[0].sha256


def _finished(state: checkpoint.TrainingState, settings: Fit) -> bool:
    return state.stale >= settings.patience and state.step >= SURELY_TRAINED * settings.steps


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 97 + rank) % 2**63


def _store(recipe: Recipe, samples: Sequence[Sample]) -> ImageStore:
    return ImageStore(samples, view_of(recipe), bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)


def _measure(gap: SyntheticGap, student: Student) -> float:
    student.eval()
    device = next(student.parameters()).device
    with torch.inference_mode():
        heatmaps = [student(as_input(batch).to(device)).heatmap_B1HW[:, 0].float().cpu() for batch in gap.batches()]
    student.train()
    return gap.measure(list(torch.cat(heatmaps).numpy()))


def _same_work(state: checkpoint.TrainingState, recipe: Recipe, data: DataSet, folder: RunFolder) -> None:
    if state.recipe != recipe.digest():
        raise UsageError(f"{folder.path}: begun with another recipe; resume without --set, or choose another --name")
    if state.data != data.digest:
        raise BadInput(f"{folder.path}: the data set has changed since the training began; choose another --name")
