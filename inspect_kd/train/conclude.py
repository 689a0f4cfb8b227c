"""What follows a training: artifacts that are proved, and the report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd.calibrate import Calibration, calibrate
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.splits import Holdout
from inspect_kd.errors import UsageError
from inspect_kd.evaluate import Evaluation, common_root, evaluate, look_at
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.verify import Images
from inspect_kd.inspector import Inspector
from inspect_kd.models.base import Student, Teacher
from inspect_kd.report import Report, write_report
from inspect_kd.report.page import report_json
from inspect_kd.report.pictures import choose, make_example
from inspect_kd.resize import RESIZE
from inspect_kd.train.run import (
    PACKAGES,
    RunFolder,
    load_run,
    now,
    save_model,
    sources_of,
    view_of,
    write_json,
    write_manifest,
)
from inspect_kd.types import Model, Sample, Split, Watch
from inspect_kd.versions import installed

PROOF_IMAGES = 200
"""Real images on which an artifact is held against torch; evenly taken from the test and the calibration parts."""
PROOF_BATCH = 8


def conclude(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    model: Student | Teacher,
    facts: dict[str, Any],
    began: float,
    watch: Watch,
) -> None:
    """From a trained model to a complete run: thresholds, figures, artifact, report, and last the manifest."""
    model = model.eval()
    # ── thresholds, from sound parts that the optimiser never saw ────────────────────────────────────────────────────
    raw = _scores(_as_model(model, 1.0, recipe), recipe, data.select(Split.CALIBRATION), watch)
    calibration = calibrate(raw, **recipe.calibration.model_dump())
    write_json(folder.calibration, calibration.to_json())
    for category in data.categories:
        watch.say(f"{category}: {calibration.limits_for(category).sentence()}")

    # ── what it is worth on the test split ───────────────────────────────────────────────────────────────────────────
    test, reference = data.select(Split.TEST), _as_model(model, calibration.scale, recipe)
    view, bits = view_of(recipe), recipe.data.bits
    evaluation = evaluate(reference, test, calibration, watch, view=view, bits=bits) if test else None

    # ── the artifact, the report, and last the manifest ──────────────────────────────────────────────────────────────
    model = model.cpu()
    save_model(folder, model)
    parities = export_all(recipe, data, folder, model, calibration, watch, taught_by=facts.get("taught_by", {}))
    facts = {
        "name": folder.path.name,
        "data": {"name": data.name, "source": data.source, "digest": data.digest, "categories": data.categories},
        "recipe": recipe.digest(),
        **facts,
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
    write_manifest(folder, model, facts)


def export_all(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    model: Student | Teacher,
    calibration: Calibration,
    watch: Watch,
    *,
    taught_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Every deployment that the recipe names; parity figures by name."""
    parities = {}
    for name in recipe.export:
        to = folder.artifact(name)
        parities[name] = _export(recipe, data, model, calibration, name, to, watch, taught_by)
    return parities


def export_run(
    run: Path, deployment: str, *, data: str | None, output: Path | None, watch: Watch
) -> tuple[Path, dict[str, Any]]:
    """Export a complete run again, or for another target."""
    finished = load_run(run)
    source = data or finished.manifest["data"].get("source")
    if not source or (not Path(source).exists() and "/" in source):
        raise UsageError(f"{run}: its data set is not at {source}; name one with --data, the proof needs real images")
    data_set = open_dataset(
        source,
        holdout=holdout_of(finished.recipe),
        categories=finished.recipe.data.categories or None,
        group=finished.recipe.data.group,
    )
    to = output or finished.folder.artifact(load_deployment(deployment).name)
    taught_by = finished.manifest.get("taught_by", {})
    return to, _export(
        finished.recipe, data_set, finished.model, finished.calibration, deployment, to, watch, taught_by
    )


def holdout_of(recipe: Recipe) -> Holdout:
    settings = recipe.data
    return Holdout(
        seed=recipe.fit.seed, calibration=settings.calibration, validation=settings.validation, test=settings.test
    )


def _export(
    recipe: Recipe,
    data: DataSet,
    model: Student | Teacher,
    calibration: Calibration,
    deployment_name: str,
    to: Path,
    watch: Watch,
    taught_by: Mapping[str, Any],
) -> dict[str, Any]:
    deployment = load_deployment(deployment_name)
    card = ArtifactCard(
        name=to.stem,
        target=deployment.target,
        size=recipe.data.size,
        tile=recipe.data.tile,
        overlap=recipe.data.overlap,
        resize=RESIZE,
        bits=recipe.data.bits,
        categories=tuple(data.categories),
        calibration=calibration,
        recipe=_public(recipe),
        recipe_digest=recipe.digest(),
        data={"name": data.name, "digest": data.digest},
        licences={source.name: source.licence for source in sources_of(model)}
        | _teachers_licences(taught_by)
        | _data_licence(data),
        versions=installed(PACKAGES),
        created=now(),
    )
    samples = proof_samples(data)
    watch.phase("export", len(samples))
    to.parent.mkdir(parents=True, exist_ok=True)
    parity = make_artifact(
        ArtifactGraph(model.eval().cpu(), calibration.scale),
        to,
        card=card,
        deployment=deployment,
        real=_told(samples, recipe, watch),
    )
    return parity.to_json()


def _as_model(model: Student | Teacher, scale: float, recipe: Recipe) -> TorchModel:
    return TorchModel(ArtifactGraph(model, scale), recipe.data.size)


def _scores(model: Model, recipe: Recipe, samples: Sequence[Sample], watch: Watch) -> dict[str, list[float]]:
    """Scores of held-out parts by category."""
    watch.phase("calibrate", len(samples))
    scores: dict[str, list[float]] = {}
    for seen in look_at(model, samples, view_of(recipe), bits=recipe.data.bits):
        scores.setdefault(seen.sample.category, []).append(seen.score)
        watch.advance()
    return scores


def proof_samples(data: DataSet, most: int = PROOF_IMAGES) -> list[Sample]:
    """Real parts, sound and defective, every category among them."""
    pool = data.select(Split.TEST) + data.select(Split.CALIBRATION)
    pool.sort(key=lambda s: (s.category, s.kind, s.image.name))
    if len(pool) <= most:
        return pool
    return [pool[i] for i in np.linspace(0, len(pool) - 1, most).round().astype(int)]


def _told(samples: Sequence[Sample], recipe: Recipe, watch: Watch) -> Iterator[tuple[Images, Sequence[bool]]]:
    """Of a tiled image one tile: what is proved is that both runtimes say the same of it."""
    view = view_of(recipe)
    for start in range(0, len(samples), PROOF_BATCH):
        part = samples[start : start + PROOF_BATCH]
        watch.advance(len(part))
        frames = [view.middle_frame(read_image(sample.image, bits=recipe.data.bits)) for sample in part]
        yield np.stack(frames), [sample.defective for sample in part]


def _public(recipe: Recipe) -> dict[str, Any]:
    """What goes into the artifact: neither folders of the machine that trained it nor its teachers' names."""
    content: dict[str, Any] = recipe.model_dump(mode="json")
    for key in ("teachers", "unlabelled", "labelled", "start"):
        del content["distill"][key]
    del content["teach"]["labelled"]
    return content


def _teachers_licences(taught_by: Mapping[str, Any]) -> dict[str, str]:
    """Of weights that are not in the artifact, but which its own follow from."""
    return {
        f"taught by {source}": licence for told in taught_by.values() for source, licence in told["licences"].items()
    }


def _data_licence(data: DataSet) -> dict[str, str]:
    return {f"data {data.name}": data.manifest.licence.name} if data.manifest else {}


def make_report(
    folder: RunFolder,
    recipe: Recipe,
    data: DataSet,
    calibration: Calibration,
    evaluation: Evaluation | None,
    facts: dict[str, Any],
    watch: Watch,
) -> None:
    """report.html and report.json, with pictures made by the artifact itself."""
    artifact = folder.artifact()
    examples = {}
    if evaluation:
        chosen = choose(evaluation, calibration)
        watch.phase("report", sum(map(len, chosen.values())))
        # Made and proved by this very process: nothing in it is a stranger's.
        model = Inspector(artifact, threads=2, quarantine=False)
        root = common_root([verdict.sample for verdict in chain(*chosen.values())])
        for heading, verdicts in chosen.items():
            examples[heading] = [make_example(verdict, model, root, recipe.data.bits) for verdict in verdicts]
            watch.advance(len(verdicts))
    report = Report(
        title=folder.path.name,
        artifact=artifact.name,
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
        environment=json.loads(folder.environment.read_text(encoding="utf-8")),
        facts=facts,
    )
    write_json(folder.report_data, report_json(report))
    write_report(report, folder.report)


def _counts(data: DataSet, category: str) -> dict[str, int]:
    counts = {str(split): len(data.select(split, category)) for split in Split}
    return counts | {"defective": sum(sample.defective for sample in data.select(Split.TEST, category))}
