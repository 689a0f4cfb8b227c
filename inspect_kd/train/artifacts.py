"""A run's artifacts: one for each deployment that its recipe names, and others on request, each proved on its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd import registry, zoo
from inspect_kd.calibrate import Calibration, limits_on
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.images import read_image
from inspect_kd.errors import GateFailed, InspectKDError, UsageError
from inspect_kd.evaluate import common_root, predict_samples
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion, Deployment, Material, load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.verify import Images, Truth
from inspect_kd.models.base import Student, Teacher
from inspect_kd.report.conversion import write_conversion
from inspect_kd.resize import RESIZE
from inspect_kd.train.early_stop import SyntheticGap, spread_over
from inspect_kd.train.manifest import read_manifest
from inspect_kd.train.run import (
    PACKAGES,
    FinishedRun,
    RunFolder,
    hold_run,
    holdout_of,
    load_run,
    now,
    sources_of,
    view_of,
    write_json,
)
from inspect_kd.types import Model, Progress, Sample, Split
from inspect_kd.versions import installed

PROOF_BATCH = 8


def export_all(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    model: Student | Teacher,
    calibration: Calibration,
    progress: Progress,
    *,
    taught_by: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every deployment that the recipe names: parity figures of those that passed, and why the others did not.

    A failed export must not lose the training: the caller completes the run without that artifact.
    """
    parities, refused = {}, {}
    for name in recipe.export:
        to = artifact_of(folder, load_deployment(name))
        # After a failed proof no file must be taken for this training's artifact: an old one, or a stranger's.
        to.unlink(missing_ok=True)
        try:
            conversion = _export(recipe, data, model, calibration, name, to, progress, taught_by)
            complaint = (
                f"{to.name} differs from the trained model: {conversion.complaint()}" if conversion.missed else ""
            )
        except InspectKDError as error:
            complaint = str(error)
        if complaint:
            refused[name] = complaint
            progress.note(f"no artifact: {complaint}")
        else:
            parities[name] = conversion.parity.to_json()
    return parities, refused


def require_artifacts(run: Path) -> None:
    """Raise where a complete run lacks an artifact that its recipe names."""
    refused: dict[str, str] = read_manifest(RunFolder(run).manifest).get("refused", {})
    if refused:
        raise GateFailed(
            f"{' | '.join(refused.values())}. The run {run} is complete but for this; "
            f"`inspect-kd export {run} --to {','.join(refused)}` tries again"
        )


def export_run(
    run: Path, deployment: str, *, data: str | None, output: Path | None, progress: Progress
) -> tuple[Path, Conversion]:
    """Export a complete run again, or for another target. Its conversion report lies beside the artifact."""
    finished = load_run(run)
    data_set = open_dataset(
        data or _own_source(run, finished.manifest["data"].get("source")),
        holdout=holdout_of(finished.recipe),
        categories=finished.recipe.data.categories or None,
        group=finished.recipe.data.group,
    )
    return convert(finished, data_set, deployment, output=output, progress=progress)


def _own_source(run: Path, source: str | None) -> str:
    """A run's own data set: images, a CSV or a shipped manifest. Not any other manifest: it may say where to write."""
    place = Path(source or "")
    if source in zoo.names("datasets") or (
        source and (place.is_dir() or (place.suffix.lower() == ".csv" and place.is_file()))
    ):
        return source
    if source and place.suffix.lower() in {".yaml", ".yml"} and place.exists():
        raise UsageError(f"{run}: its data set is the manifest {source}; if you trust that file, name it with --data")
    raise UsageError(f"{run}: its data set is not at {source}; name one with --data, the proof needs real images")


def convert(
    finished: FinishedRun, data: DataSet, deployment: str, *, output: Path | None = None, progress: Progress
) -> tuple[Path, Conversion]:
    """The artifact's place, and what became of the student on the way into it."""
    to = output or artifact_of(finished.folder, load_deployment(deployment))
    taught_by = finished.manifest.get("taught_by", {})
    conversion = _export(
        finished.recipe, data, finished.model, finished.calibration, deployment, to, progress, taught_by, report=True
    )
    if deployment in finished.manifest.get("refused", {}) and not conversion.missed and output is None:
        _note_success(finished.folder, deployment, conversion)
    return to, conversion


def _note_success(folder: RunFolder, deployment: str, conversion: Conversion) -> None:
    """In the manifest as it is now: another export may have written its own success into it since this one began."""
    with hold_run(folder, may_be_complete=True):
        manifest = read_manifest(folder.manifest)
        manifest.get("refused", {}).pop(deployment, None)
        manifest.setdefault("parity", {})[deployment] = conversion.parity.to_json()
        write_json(folder.manifest, manifest)


def artifact_of(folder: RunFolder, deployment: Deployment) -> Path:
    """Where a run's artifact of one deployment lies."""
    suffix: str = registry.load("export", f"to_{deployment.target}").SUFFIX
    return folder.artifact(deployment.name, deployment.target, suffix)


def _export(
    recipe: Recipe,
    data: DataSet,
    model: Student | Teacher,
    calibration: Calibration,
    deployment_name: str,
    to: Path,
    progress: Progress,
    taught_by: Mapping[str, Any],
    *,
    report: bool = False,
) -> Conversion:
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
    samples = proof_samples(data, deployment.proof)
    to.parent.mkdir(parents=True, exist_ok=True)
    conversion = make_artifact(
        ArtifactGraph(model.eval().cpu(), calibration.scale),
        to,
        card=card,
        deployment=deployment,
        material=Material(
            real=_told(samples, recipe, progress),
            sound=lambda: _frames(data.select(Split.TRAIN), recipe, deployment.quantise.sound),
            checked=lambda: _checked(data, recipe, deployment.quantise.checked),
            recalibrate=lambda one: _recalibrated(one, calibration, recipe, data, progress),
            progress=progress,
        ),
    )
    if report or conversion.missed:
        write_conversion(conversion, to, card)
    return conversion


def _frames(samples: Sequence[Sample], recipe: Recipe, most: int) -> Images:
    """Of so many parts, evenly taken from all categories, the middle frame."""
    view = view_of(recipe)
    chosen = [samples[i] for i in spread_over(len(samples), most)]
    return np.stack([view.middle_frame(read_image(sample.image, bits=recipe.data.bits)) for sample in chosen])


def _checked(data: DataSet, recipe: Recipe, parts: int) -> Images:
    """Sound parts and their damaged twins, in turn: those of the early stop, which no optimiser has seen."""
    samples = data.select(Split.VALIDATION) or data.select(Split.CALIBRATION)
    chosen = [samples[i] for i in spread_over(len(samples), parts)]
    store = ImageStore(chosen, view_of(recipe), bits=recipe.data.bits, budget_mb=recipe.data.cache_mb)
    return np.stack(SyntheticGap(store, recipe.fit.seed).parts)


def _recalibrated(
    model: Model, calibration: Calibration, recipe: Recipe, data: DataSet, progress: Progress
) -> Calibration:
    """A file that answers a little otherwise promises by its own scores."""
    scores = scores_of(model, recipe, data.select(Split.CALIBRATION), progress)
    return limits_on(calibration.scale, scores, **recipe.calibration.model_dump())


def proof_samples(data: DataSet, most: int) -> list[Sample]:
    """Real parts, sound and defective, every category among them; evenly from the test and the calibration parts."""
    pool = data.select(Split.TEST) + data.select(Split.CALIBRATION)
    pool.sort(key=lambda s: (s.category, s.kind, s.image.name))
    if len(pool) <= most:
        return pool
    return [pool[i] for i in np.linspace(0, len(pool) - 1, most).round().astype(int)]


def _told(samples: Sequence[Sample], recipe: Recipe, progress: Progress) -> Iterator[tuple[Images, Sequence[Truth]]]:
    """Of a tiled image one tile: what is proved is that both runtimes say the same of it."""
    view = view_of(recipe)
    progress.phase("prove", len(samples))
    root = common_root(samples)
    for start in range(0, len(samples), PROOF_BATCH):
        part = samples[start : start + PROOF_BATCH]
        progress.advance(len(part))
        frames = [view.middle_frame(read_image(sample.image, bits=recipe.data.bits)) for sample in part]
        yield (
            np.stack(frames),
            [Truth(sample.defective, sample.category, str(sample.image.relative_to(root))) for sample in part],
        )


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


def as_model(model: Student | Teacher, scale: float, recipe: Recipe) -> TorchModel:
    return TorchModel(ArtifactGraph(model, scale), recipe.data.size)


def scores_of(model: Model, recipe: Recipe, samples: Sequence[Sample], progress: Progress) -> dict[str, list[float]]:
    """Scores of held-out parts by category."""
    progress.phase("calibrate", len(samples))
    scores: dict[str, list[float]] = {}
    for seen in predict_samples(model, samples, view_of(recipe), bits=recipe.data.bits):
        scores.setdefault(seen.sample.category, []).append(seen.score)
        progress.advance()
    return scores
