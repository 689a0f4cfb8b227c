"""fit(): from a recipe and a data set to a run with student, thresholds, metrics, artifact and report. One linear page.

Unusual here: every step's randomness follows from the seed and the step's number alone, so a training that was killed
goes on to the very numbers that it would have reached.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

from inspect_kd.calibrate import calibrate
from inspect_kd.config import Fit, Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.batches import ImageStore, StepSampler, Sweep, TrainingImages, as_input, batches
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.evaluate import evaluate, look_at
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.models.base import Student
from inspect_kd.train import checkpoint
from inspect_kd.train.conclude import export_all, make_report
from inspect_kd.train.gap import SyntheticGap
from inspect_kd.train.run import (
    RunFolder,
    build_student,
    environment,
    now,
    resolved,
    view_of,
    write_json,
    write_manifest,
)
from inspect_kd.types import Model, Nobody, Sample, Split, Watch

MOST_ADAPTED = 1536
"""Images from which a student takes what it needs to know of sound features before the first step: all of them, as a rule.
Prototypes from a part of the tile's images alone know its texture less well."""
NARROWER = 0.97
"""A gap below this share of the widest has narrowed. Above it the later weights are kept: their learning rate was lower, and
the gap itself is only measured on a few dozen parts."""
SURELY_TRAINED = 0.5
"""Share of the steps before which the early stop never strikes: the gap is still ragged there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Where to train. `auto` takes a GPU where there is one."""

    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    workers: int = 0

    def fabric(self) -> Fabric:
        if self.device in {"cuda", "gpu"} and not torch.cuda.is_available():
            raise EnvironmentFault(
                "asked to train on a GPU, but torch finds none; `inspect-kd doctor` shows what is missing"
            )
        try:
            precision: Any = self.precision  # Fabric itself refuses what it does not know
            accelerator = "gpu" if self.device == "cuda" else self.device
            return Fabric(accelerator=accelerator, devices=self.devices, precision=precision)
        except ValueError as error:
            raise UsageError(f"this hardware cannot be used as asked: {error}") from error


def fit(
    recipe: Recipe, data: DataSet, folder: RunFolder, *, hardware: Hardware, watch: Watch, resume: bool = False
) -> RunFolder:
    # ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────
    fabric = hardware.fabric()
    fabric.launch()
    if not fabric.is_global_zero:
        watch = Nobody()
    began = time.monotonic()
    recipe = resolved(recipe)
    settings = recipe.fit

    # ── the student ──────────────────────────────────────────────────────────────────────────────────────────────────
    torch.manual_seed(settings.seed)
    student = build_student(recipe).to(memory_format=torch.channels_last)
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    # ── its data ─────────────────────────────────────────────────────────────────────────────────────────────────────
    sound = data.select(Split.TRAIN)
    images = TrainingImages(_store(recipe, sound), recipe.data.flip)
    gap = SyntheticGap(_store(recipe, data.select(Split.VALIDATION)), settings.seed)

    # ── a fresh start, or where the last one stopped ─────────────────────────────────────────────────────────────────
    if resume and folder.checkpoint.is_file():
        progress, best = checkpoint.load(folder.checkpoint, student, optimizer)
        _same_work(progress, recipe, data, folder)
        watch.say(f"resuming at step {progress.step} of {settings.steps}")
    else:
        again = recipe.data.tile is not None
        first = Sweep(sound, most=MOST_ADAPTED, again=again, batch=settings.batch, seed=settings.seed)
        student.adapt(pair.clean_B3HW for pair in batches(images, first, workers=0))
        progress, best = checkpoint.Progress(recipe=recipe.digest(), data=data.digest), {}
        if fabric.is_global_zero:
            _open(folder, recipe, str(fabric.device))
    if fabric.is_global_zero:
        _keep_lines(folder, progress.step)
    fabric.barrier()
    student = student.to(fabric.device)
    model, optimizer = fabric.setup(student, optimizer)
    model.mark_forward_method("losses")

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────
    watch.phase("train", settings.steps)
    watch.advance(progress.step)
    sampler = StepSampler(
        sound,
        steps=range(progress.step, settings.steps),
        batch=settings.batch,
        damaged=settings.denoise,
        seed=settings.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    model.train()
    with folder.metrics.open("a", encoding="utf-8") as log:
        for pair in batches(images, sampler, workers=hardware.workers):
            if _finished(progress, settings):
                break
            torch.manual_seed(_step_seed(settings.seed, progress.step, fabric.global_rank))
            rate = learning_rate(progress.step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            seen, clean = fabric.to_device(pair.seen_B3HW), fabric.to_device(pair.clean_B3HW)
            terms = model.losses(seen, seen if settings.denoise == 0 else clean)
            loss: Tensor = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise BadInput(f"the loss became {loss.item()} at step {progress.step}: lower fit.learning_rate")
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=settings.clip)
            optimizer.step()
            progress.step += 1
            line: dict[str, float] = {"step": progress.step, "loss": round(loss.item(), 6), "learning_rate": rate}

            if progress.step % settings.evaluate_every == 0 or progress.step == settings.steps:
                line["gap"] = round(_measure(gap, student), 6)
                if line["gap"] >= NARROWER * progress.best_gap:
                    progress.best_gap = max(progress.best_gap, line["gap"])
                    progress.best_step, progress.stale = progress.step, 0
                    best = {key: value.detach().clone() for key, value in checkpoint.trained_state(student).items()}
                else:
                    progress.stale += 1
            if fabric.is_global_zero:
                log.write(json.dumps(line) + "\n")
                if progress.step % settings.checkpoint_every == 0:
                    log.flush()
                    checkpoint.save(folder.checkpoint, student, best, optimizer, progress)
            watch.advance(1, **{str(key): line[key] for key in ("loss", "gap") if key in line})
    student.load_state_dict(best, strict=False)
    watch.say(f"widest synthetic gap {progress.best_gap:.3f} at step {progress.best_step} of {progress.step}")
    if not fabric.is_global_zero:
        fabric.barrier()  # the first process concludes alone; leaving early would end it
        return folder

    # ── thresholds, from sound parts that the optimiser never saw ────────────────────────────────────────────────────
    student = student.eval()
    held_out = data.select(Split.CALIBRATION)
    raw = _scores(_as_model(student, 1.0, recipe), recipe, held_out, watch)
    calibration = calibrate(raw, **recipe.calibration.model_dump())
    write_json(folder.calibration, calibration.to_json())
    for category in data.categories:
        watch.say(f"{category}: {calibration.limits_for(category).sentence()}")

    # ── what it is worth on the test split ───────────────────────────────────────────────────────────────────────────
    test = data.select(Split.TEST)
    reference = _as_model(student, calibration.scale, recipe)
    evaluation = (
        evaluate(reference, test, calibration, watch, view=view_of(recipe), bits=recipe.data.bits) if test else None
    )

    # ── the artifact, the report, and last the manifest ──────────────────────────────────────────────────────────────
    student = student.cpu()
    save_file({key: value.contiguous() for key, value in student.state_dict().items()}, folder.student)
    parities = export_all(recipe, data, folder, student, calibration, watch)
    facts = {
        "name": folder.path.name,
        "data": {"name": data.name, "source": data.source, "digest": data.digest, "categories": data.categories},
        "recipe": recipe.digest(),
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_gap": progress.best_gap,
        "train_seconds": round(time.monotonic() - began, 1),
        "finished": now(),
        "parity": parities,
        "promises": {
            name: {"n": limits.n, "reject": limits.reject_promise, "reinspect": limits.reinspect_promise}
            for name, limits in calibration.limits.items()
        },
        **(evaluation.to_json() if evaluation else {}),
    }
    make_report(folder, recipe, data, calibration, evaluation, facts, watch)
    folder.checkpoint.unlink(missing_ok=True)
    write_manifest(folder, student, facts)
    fabric.barrier()
    return folder


def learning_rate(step: int, settings: Fit) -> float:
    """Linear rise, then a cosine to one hundredth."""
    rise = max(1, round(settings.warm_up * settings.steps))
    if step < rise:
        return settings.learning_rate * (step + 1) / rise
    along = (step - rise) / max(1, settings.steps - rise)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


def _finished(progress: checkpoint.Progress, settings: Fit) -> bool:
    return progress.stale >= settings.patience and progress.step >= SURELY_TRAINED * settings.steps


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 97 + rank) % 2**63


def _store(recipe: Recipe, samples: Sequence[Sample]) -> ImageStore:
    return ImageStore(samples, view_of(recipe), bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)


def _as_model(student: Student, scale: float, recipe: Recipe) -> TorchModel:
    return TorchModel(ArtifactGraph(student, scale), recipe.data.size)


def _measure(gap: SyntheticGap, student: Student) -> float:
    student.eval()
    device = next(student.parameters()).device
    with torch.inference_mode():
        heatmaps = [student(as_input(batch).to(device)).heatmap_B1HW[:, 0].float().cpu() for batch in gap.batches()]
    student.train()
    return gap.measure(list(torch.cat(heatmaps).numpy()))


def _scores(model: Model, recipe: Recipe, samples: Sequence[Sample], watch: Watch) -> dict[str, list[float]]:
    """Scores of held-out parts by category."""
    watch.phase("calibrate", len(samples))
    scores: dict[str, list[float]] = {}
    for seen in look_at(model, samples, view_of(recipe), bits=recipe.data.bits):
        scores.setdefault(seen.sample.category, []).append(seen.score)
        watch.advance()
    return scores


def _same_work(progress: checkpoint.Progress, recipe: Recipe, data: DataSet, folder: RunFolder) -> None:
    if progress.recipe != recipe.digest():
        raise UsageError(f"{folder.path}: begun with another recipe; resume without --set, or choose another --name")
    if progress.data != data.digest:
        raise BadInput(f"{folder.path}: the data set has changed since the training began; choose another --name")


def _open(folder: RunFolder, recipe: Recipe, device: str) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.recipe.write_text(
        f"# inspect-kd train --model {folder.recipe} --data …\n{recipe.to_yaml()}", encoding="utf-8"
    )
    write_json(folder.environment, environment(device))


def _keep_lines(folder: RunFolder, steps: int) -> None:
    """Drop what was logged after the checkpoint: those steps are done again."""
    if folder.metrics.is_file():
        lines = folder.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= steps]
        folder.metrics.write_text("".join(kept), encoding="utf-8")
