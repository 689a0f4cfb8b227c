"""What follows a training: artifacts that are proved, and the report.

A run whose artifact fails its proof is complete all the same: it says so, and `inspect-kd export` tries again.
"""

from __future__ import annotations

import json
import time
from itertools import chain
from typing import Any

from inspect_kd.calibrate import Calibration, calibrate
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.evaluate import Evaluation, common_root, evaluate
from inspect_kd.inspector import Inspector
from inspect_kd.models.base import Student, Teacher
from inspect_kd.report import Report, write_report
from inspect_kd.report.page import report_json
from inspect_kd.report.pictures import choose, make_example
from inspect_kd.train.artifacts import as_model, export_all, scores_of
from inspect_kd.train.environment_file import read_environment
from inspect_kd.train.run import RunFolder, now, save_model, view_of, write_json, write_manifest
from inspect_kd.types import Model, Progress, Split


def finish_run(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    model: Student | Teacher,
    facts: dict[str, Any],
    began: float,
    progress: Progress,
) -> None:
    """From a trained model to a complete run: thresholds, figures, artifact, report, and last the manifest."""
    model = model.eval()
    # ── thresholds, from sound parts that the optimiser never saw ────────────────────────────────────────────────────
    raw = scores_of(as_model(model, 1.0, recipe), recipe, data.select(Split.CALIBRATION), progress)
    calibration = calibrate(raw, **recipe.calibration.model_dump())
    write_json(folder.calibration, calibration.to_json())
    for category in data.categories:
        progress.note(f"{category}: {calibration.limits_for(category).sentence()}")

    # ── what it is worth on the test split ───────────────────────────────────────────────────────────────────────────
    test, reference = data.select(Split.TEST), as_model(model, calibration.scale, recipe)
    view, bits = view_of(recipe), recipe.data.bits
    evaluation = evaluate(reference, test, calibration, progress, view=view, bits=bits) if test else None

    # ── the artifact, the report, and last the manifest ──────────────────────────────────────────────────────────────
    model = model.cpu()
    save_model(folder, model)
    parities, refused = export_all(
        recipe, data, folder, model, calibration, progress, taught_by=facts.get("taught_by", {})
    )
    facts = {
        "name": folder.path.name,
        "data": {"name": data.name, "source": data.source, "digest": data.digest, "categories": data.categories},
        "recipe": recipe.digest(),
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
    trained = as_model(model, calibration.scale, recipe)
    make_report(folder, recipe, data, calibration, evaluation, trained, facts, progress)
    write_manifest(folder, model, facts)
    # Only now: until the run is complete, the checkpoint is what a resume begins with.
    folder.checkpoint.unlink(missing_ok=True)


def make_report(
    folder: RunFolder,
    recipe: Recipe,
    data: DataSet,
    calibration: Calibration,
    evaluation: Evaluation | None,
    trained: Model,
    facts: dict[str, Any],
    progress: Progress,
) -> None:
    """report.html and report.json, with pictures made by the artifact itself; by the trained model where there is none."""
    artifact = folder.artifact() if "onnx" in facts["parity"] else None
    examples = {}
    if evaluation:
        chosen = choose(evaluation, calibration)
        progress.phase("report", sum(map(len, chosen.values())))
        # Made and proved by this very process: nothing in it is a stranger's.
        model = Inspector(artifact, threads=2, quarantine=False) if artifact else trained
        root = common_root([verdict.sample for verdict in chain(*chosen.values())])
        for heading, verdicts in chosen.items():
            examples[heading] = [
                make_example(verdict, model, view_of(recipe), root, recipe.data.bits) for verdict in verdicts
            ]
            progress.advance(len(verdicts))
    report = Report(
        title=folder.path.name,
        artifact=artifact.name if artifact else None,
        data={
            "name": data.name,
            "layout": data.layout,
            "licence": data.manifest.licence.name if data.manifest else None,
            "counts": {category: _counts(data, category) for category in data.categories},
        },
        calibration=calibration,
        evaluation=evaluation,
        examples=examples,
        history=[json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()],
        recipe=recipe.to_yaml(),
        environment=read_environment(folder.environment),
        facts=facts,
    )
    write_json(folder.report_data, report_json(report))
    write_report(report, folder.report)


def _counts(data: DataSet, category: str) -> dict[str, int]:
    counts = {str(split): len(data.select(split, category)) for split in Split}
    return counts | {"defective": sum(sample.defective for sample in data.select(Split.TEST, category))}
