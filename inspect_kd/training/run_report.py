"""Write a run's report: report.html for people, report.json for programs."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from inspect_kd.calibrate import Calibration
from inspect_kd.datasets import DataSet
from inspect_kd.evaluate import Evaluation, common_root
from inspect_kd.inspector import Inspector
from inspect_kd.report import Report, write_report
from inspect_kd.report.page import report_json
from inspect_kd.report.pictures import Example, choose_examples, make_example
from inspect_kd.report.presented_parts import MAX_CATEGORIES, PresentedPart, present_parts
from inspect_kd.training.job import Job
from inspect_kd.training.run import read_environment, write_json
from inspect_kd.types import Model, Split


def write_run_report(
    job: Job, calibration: Calibration, evaluation: Evaluation | None, trained_model: Model, facts: dict[str, Any]
) -> None:
    """Write both files. Their pictures are made by the artifact, or by the trained model where there is none."""
    folder, data = job.folder, job.data
    artifact = folder.artifact() if "onnx" in facts["parity"] else None
    # This process has made and verified the artifact: nothing in it is foreign.
    model = Inspector(artifact, threads=2, quarantine=False) if artifact and evaluation else trained_model
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
        examples=_examples(job, calibration, evaluation, model) if evaluation else {},
        presented=_presented(job),
        history=[json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()],
        recipe=job.recipe.to_yaml(),
        environment=read_environment(folder.environment),
        facts=facts,
        advice=job.advice,
    )
    write_json(folder.report_data, report_json(report))
    write_report(report, folder.report)


def _examples(
    job: Job, calibration: Calibration, evaluation: Evaluation, model: Model | Inspector
) -> dict[str, list[Example]]:
    """Heading -> pictures of test parts."""
    chosen = choose_examples(evaluation, calibration)
    job.progress.phase("report", sum(map(len, chosen.values())))
    root = common_root([verdict.sample for verdict in chain(*chosen.values())])
    examples: dict[str, list[Example]] = {}
    for heading, verdicts in chosen.items():
        examples[heading] = [
            make_example(verdict, model, job.presentations, root, job.recipe.data.bits) for verdict in verdicts
        ]
        job.progress.advance(len(verdicts))
    return examples


def _presented(job: Job) -> dict[str, list[PresentedPart]]:
    """Category -> sound training parts as photographed and as the model sees them."""
    bits, chosen = job.recipe.data.bits, list(job.presentations.by_category.items())[:MAX_CATEGORIES]
    return {name: present_parts(job.data.select(Split.TRAIN, name), each, bits) for name, each in chosen}


def _counts(data: DataSet, category: str) -> dict[str, int]:
    counts = {str(split): len(data.select(split, category)) for split in Split}
    return counts | {"defective": sum(sample.defective for sample in data.select(Split.TEST, category))}
