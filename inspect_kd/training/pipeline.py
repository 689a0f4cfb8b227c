"""train(): one training from start to end. Read this page first; every heading is a phase, every phase a module.

A student passes through all phases: prepare → teachers → fit → distil → calibrate → evaluate → export → report. A teacher
passes through the same ones, without teachers of its own and without distillation.

On several devices all processes run the fit; everything else is done by the first one.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from inspect_kd import licences
from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.batches import TrainingImages
from inspect_kd.errors import UsageError
from inspect_kd.evaluate import evaluate
from inspect_kd.models.base import Student, Teacher
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.training import checkpoint
from inspect_kd.training.artifacts import Exporter
from inspect_kd.training.distill import distill, open_distill_dataset
from inspect_kd.training.fit import fit
from inspect_kd.training.head_inputs import HeadInputs
from inspect_kd.training.job import Job
from inspect_kd.training.prepare_images import prepare_images
from inspect_kd.training.real_parts import RealParts, open_real_parts
from inspect_kd.training.run import (
    RunFolder,
    begin_run,
    build_teacher,
    hold_run,
    now,
    resolve_recipe,
    save_model,
    sources_of,
    write_json,
    write_manifest,
)
from inspect_kd.training.run_report import write_run_report
from inspect_kd.training.scores import build_torch_model, calibration_scores
from inspect_kd.training.start import start_training
from inspect_kd.training.teach import check_teacher_job, fit_teacher, open_teacher_dataset, validate_teacher
from inspect_kd.training.teachers import open_teachers
from inspect_kd.types import NoProgress, Split


def train(job: Job, *, resume: bool = False) -> RunFolder:
    """Train the student or the teacher of a recipe; returns the folder of the complete run.

    `resume` continues an interrupted student. An interrupted teacher is trained again, to the same numbers.
    """
    job = replace(job, recipe=resolve_recipe(job.recipe))
    return train_teacher(job) if job.recipe.teacher else train_student(job, resume=resume)


def train_student(job: Job, *, resume: bool = False) -> RunFolder:
    fabric = job.hardware.fabric()
    with hold_run(job.folder):
        fabric.launch()
        began, is_first = time.monotonic(), fabric.is_global_zero
        if not is_first:
            job = replace(job, progress=NoProgress())

        # ── prepare: find all parts before anything is trained, and decide how their images are presented ────────────
        job = prepare_images(job, resume=resume, write=is_first)
        real = open_real_parts(job) if is_first else RealParts()
        images = TrainingImages(job.open_images(Split.TRAIN), job.recipe.data.flip)

        # ── teachers: load their runs, and train those that have none for this data ──────────────────────────────────
        teachers = open_teachers(job, train, job.folder.path.parent) if is_first else {}
        fabric.barrier()

        # ── fit: rebuild sound parts (S0), from scratch, from another run's fit, or from a checkpoint ────────────────
        training = start_training(job, images, real, fabric, resume=resume)
        fit(job, training, images, fabric)
        student, state = training.student, training.state
        facts: dict[str, Any] = {"best_step": state.best_step, "best_gap": state.best_gap}

        # ── distil: train the student's heads on synthetic defects, labels and teachers' outputs (S1 to S3) ──────────
        if is_first and job.recipe.distill.stages:
            if not isinstance(student, RebuildStudent):
                raise UsageError(f"distill: a {job.recipe.student['build']} has no heads to train")
            if state.stage == checkpoint.FITTED:
                checkpoint.save(job.folder.checkpoint, student, {}, training.optimizer, state)
            dataset = open_distill_dataset(job, student, teachers, real)
            facts |= distill(job, student, teachers, state, HeadInputs(student, dataset, job.progress))

        # ── calibrate, evaluate, export, report ──────────────────────────────────────────────────────────────────────
        if is_first:
            finish_run(job, student, facts | {"steps": state.step}, began)
        fabric.barrier()  # wait for the first process: a process that ends earlier would take it down
    return job.folder


def train_teacher(job: Job) -> RunFolder:
    # ── prepare ──────────────────────────────────────────────────────────────────────────────────────────────────────
    check_teacher_job(job)
    began = time.monotonic()
    torch.manual_seed(job.recipe.fit.seed)
    teacher = build_teacher(job.recipe)
    licences.check(job.recipe.profile, {source.name: source.licence for source in sources_of(teacher)})
    device = job.hardware.fabric().device
    with hold_run(job.folder):
        job = prepare_images(job, resume=False, write=True)
        dataset = open_teacher_dataset(job, teacher)
        begin_run(job.folder, job.recipe, str(device))

        # ── fit: adapt it to sound parts with synthetic defects ──────────────────────────────────────────────────────
        steps = fit_teacher(job, teacher.to(device), dataset)
        teacher.release_training_state()
        facts = {"steps": steps, "examined": validate_teacher(job, teacher)}

        # ── calibrate, evaluate, export, report ──────────────────────────────────────────────────────────────────────
        finish_run(job, teacher, facts, began)
    return job.folder


def finish_run(job: Job, model: Student | Teacher, facts: dict[str, Any], began: float) -> None:
    """Complete the run of a trained model. `facts` go into its manifest; `began` is the start of the training.

    A run whose artifact fails verification is still complete: its manifest says so, and `inspect-kd export` tries again.
    """
    recipe, data, folder, progress = job.recipe, job.data, job.folder, job.progress
    presentations, bits = job.presentations, job.recipe.data.bits
    model = model.eval()

    # ── calibrate: thresholds from sound parts on which nothing was trained ──────────────────────────────────────────
    scores = calibration_scores(build_torch_model(model, recipe), data, presentations, progress, bits=bits)
    calibration = calibrate(scores, **recipe.calibration.model_dump())
    write_json(folder.calibration, calibration.to_json())
    for category in data.categories:
        progress.note(f"{category}: {calibration.describe(category)}")

    # ── evaluate: metrics and decisions on the test split ────────────────────────────────────────────────────────────
    test, torch_model = data.select(Split.TEST), build_torch_model(model, recipe, scale=calibration.scale)
    evaluation = (
        evaluate(torch_model, test, calibration, progress, presentations=presentations, bits=bits) if test else None
    )

    # ── export: write the artifacts and verify them ──────────────────────────────────────────────────────────────────
    model = model.cpu()
    save_model(folder, model)
    exporter = Exporter(
        folder=folder,
        recipe=recipe,
        data=data,
        model=model,
        calibration=calibration,
        presentations=presentations,
        taught_by=facts.get("taught_by", {}),
        progress=progress,
    )
    parities, refused = exporter.export_all()

    # ── report, and last the manifest: from now on the run is complete ───────────────────────────────────────────────
    facts = {
        "name": folder.path.name,
        "data": {"name": data.name, "source": data.source, "digest": data.digest, "categories": data.categories},
        "recipe": recipe.digest(),
        "presentations": presentations.summary(),
        **facts,
        "train_seconds": round(time.monotonic() - began, 1),
        "finished": now(),
        "parity": parities,
        "refused": refused,
        "promises": {
            name: {"n": limits.n, "reject": limits.reject_promise, "reinspect": limits.reinspect_promise}
            for name, limits in calibration.limits.items()
        },
        **(evaluation.to_json() if evaluation else {}),
    }
    write_run_report(job, calibration, evaluation, build_torch_model(model, recipe, scale=calibration.scale), facts)
    write_manifest(folder, model, facts)
    # Not earlier: until the run is complete a resume begins with the checkpoint.
    folder.checkpoint.unlink(missing_ok=True)
