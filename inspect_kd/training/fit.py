"""fit(): train a student to rebuild sound parts (stage S0).

Unusual here: every step's randomness follows from the seed and the step's number alone, so an interrupted training resumes
to the same numbers.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from inspect_kd.config import Fit
from inspect_kd.datasets.batches import ImagePair, StepSampler, TrainingImages, batches
from inspect_kd.errors import BadInput
from inspect_kd.training import checkpoint
from inspect_kd.training.early_stop import SyntheticPairs, record_gap, should_stop
from inspect_kd.training.job import Job
from inspect_kd.training.metrics_log import open_log
from inspect_kd.training.schedule import learning_rate
from inspect_kd.training.start import StudentTraining
from inspect_kd.types import Split


def fit(job: Job, training: StudentTraining, images: TrainingImages, fabric: Fabric) -> None:
    """Run the remaining steps, of which a warm start has none, and keep the best weights."""
    student, state, settings = training.student.to(fabric.device), training.state, job.recipe.fit
    model, optimizer = fabric.setup(student, training.optimizer)
    if state.stage != checkpoint.FIT:
        return

    # ── prepare the remaining steps ──────────────────────────────────────────────────────────────────────────────────
    model.mark_forward_method("losses")
    pairs = SyntheticPairs(job.open_images(Split.VALIDATION), settings.seed)
    steps = range(state.step, settings.steps)
    sampler = StepSampler(
        images.store.samples,
        steps=steps,
        batch=settings.batch,
        synthetic=settings.denoise,
        seed=settings.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    if steps:
        job.progress.phase("train", settings.steps, state.step)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────
    model.train()
    with open_log(job.folder.metrics) as log:
        for pair in batches(images, sampler, workers=job.hardware.workers):
            if should_stop(state, settings):
                break
            torch.manual_seed(_step_seed(settings.seed, state.step, fabric.global_rank))
            rate = _set_learning_rate(optimizer, settings, state.step)
            loss = _loss(model, pair, fabric, settings)
            if not torch.isfinite(loss):
                raise BadInput(f"the loss became {loss.item()} at step {state.step}: lower fit.learning_rate")
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=settings.clip)
            optimizer.step()
            state.step += 1
            line: dict[str, float] = {"step": state.step, "loss": round(loss.item(), 6), "learning_rate": rate}

            if state.step % settings.evaluate_every == 0 or state.step == settings.steps:
                line["gap"] = round(pairs.measure_gap(student), 6)
                if record_gap(state, line["gap"]):
                    training.best = _copy(checkpoint.trained_state(student))
            if fabric.is_global_zero:
                log.write(json.dumps(line) + "\n")
                if state.step % settings.checkpoint_every == 0:
                    log.flush()
                    checkpoint.save(job.folder.checkpoint, student, training.best, optimizer, state)
            job.progress.advance(1, **{key: line[key] for key in ("loss", "gap") if key in line})

    # ── the best weights ─────────────────────────────────────────────────────────────────────────────────────────────
    student.load_state_dict(training.best, strict=False)
    job.progress.note(f"widest synthetic gap {state.best_gap:.3f} at step {state.best_step} of {state.step}")
    state.stage = checkpoint.FITTED


def _loss(model: Any, pair: ImagePair, fabric: Fabric, settings: Fit) -> Tensor:
    inputs, clean = fabric.to_device(pair.inputs_B3HW), fabric.to_device(pair.clean_B3HW)
    # Where no batch has synthetic defects, one tensor is passed twice: the student then computes its features once.
    targets = inputs if settings.denoise == 0 else clean
    weights = () if pair.weights_B1HW is None else (fabric.to_device(pair.weights_B1HW),)
    terms: dict[str, Tensor] = model.losses(inputs, targets, *weights)
    return torch.stack(list(terms.values())).sum()


def _set_learning_rate(optimizer: Any, settings: Fit, step: int) -> float:
    rate = learning_rate(
        step, settings.steps, peak=settings.learning_rate, warm_up=settings.warm_up, schedule=settings.schedule
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 97 + rank) % 2**63


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
