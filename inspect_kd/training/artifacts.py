"""Export a run's artifacts: one for each deployment of its recipe, others on request, each verified on the run's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inspect_kd import registry, zoo
from inspect_kd.calibrate import Calibration, calibrate, calibrate_scaled
from inspect_kd.chunks import chunks, evenly_spread
from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet, open_for_recipe
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.fit_presentation import replace_zones
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.read_sample import read_sample
from inspect_kd.datasets.view import Frame, stack_weights
from inspect_kd.errors import GateFailed, InspectKDError, UsageError
from inspect_kd.evaluate import common_root
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion, Deployment, VerificationData, load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.export.verify import LabelledImages, Truth, WeightedImages
from inspect_kd.models.base import Student, Teacher
from inspect_kd.report.conversion import write_conversion
from inspect_kd.resize import RESIZE
from inspect_kd.training.early_stop import SyntheticPairs
from inspect_kd.training.prepare_images import training_images
from inspect_kd.training.run import (
    PACKAGES,
    FinishedRun,
    RunFolder,
    hold_run,
    load_run,
    now,
    sources_of,
    write_json,
)
from inspect_kd.training.run.manifest import read_manifest
from inspect_kd.training.scores import build_torch_model, calibration_scores
from inspect_kd.types import Model, Progress, Sample, Split
from inspect_kd.versions import installed_versions

VERIFICATION_BATCH = 8


def require_artifacts(run: Path) -> None:
    """Raise where a complete run lacks an artifact that its recipe names."""
    refused: dict[str, str] = read_manifest(RunFolder(run).manifest).get("refused", {})
    if refused:
        raise GateFailed(
            f"{' | '.join(refused.values())}. The run {run} is complete but for this; "
            f"`inspect-kd export {run} --to {','.join(refused)}` tries again"
        )


def export_run(
    run: Path, deployment: str, *, data: str | None, output: Path | None, progress: Progress, zones: str | None = None
) -> tuple[Path, Conversion]:
    """Export a complete run again, or for another target, and write the conversion report beside the artifact.

    `zones`: a file of other zones than those of the run; the artifact gets them, and thresholds that are calibrated with them.
    """
    if zones is not None and output is None:
        raise UsageError(
            "--zones: the artifact's zones and thresholds differ from those of the run; name its file with --output"
        )
    finished = load_run(run)
    source = data or _recorded_source(run, finished.manifest["data"].get("source"))
    data_set = open_for_recipe(source, finished.recipe)
    if zones is not None:
        finished = with_zones(finished, zones, data_set, progress)
    return convert(finished, data_set, deployment, output=output, progress=progress)


def with_zones(finished: FinishedRun, zones: str, data: DataSet, progress: Progress) -> FinishedRun:
    """Give a loaded run other zones, and calibrate its thresholds with them on the calibration split; nothing is trained."""
    recipe = finished.recipe
    if not recipe.student:
        raise UsageError("--zones: only students have zones, and this run is a teacher's")
    if data.digest != finished.manifest["data"]["digest"]:
        raise UsageError(
            "--zones: thresholds are calibrated on the run's own held-out parts, and this data set is another, or was split "
            "otherwise; name the run's data set with --data"
        )
    presentations = replace_zones(finished.presentations, zones, training_images(data), recipe.data.bits)
    model = build_torch_model(finished.model, recipe)
    scores = calibration_scores(model, data, presentations, progress, bits=recipe.data.bits)
    calibration = calibrate(scores, **recipe.calibration.model_dump())
    for category in data.categories:
        progress.note(f"{category}: {calibration.for_category(category).describe()}")
    return replace(finished, presentations=presentations, calibration=calibration)


def _recorded_source(run: Path, source: str | None) -> str:
    """The data set that a run records: a folder, a CSV or a shipped data set.

    Other data set manifests are refused: one that came with the run could name any folder to write images to.
    """
    path = Path(source or "")
    is_csv = path.suffix.lower() == ".csv" and path.is_file()
    if source and (source in zoo.names("datasets") or path.is_dir() or is_csv):
        return source
    if source and path.suffix.lower() in {".yaml", ".yml"} and path.exists():
        raise UsageError(f"{run}: its data set is the manifest {source}; if you trust that file, name it with --data")
    raise UsageError(f"{run}: its data set is not at {source}; name one with --data, verification needs real images")


def convert(
    finished: FinishedRun, data: DataSet, deployment: str, *, output: Path | None = None, progress: Progress
) -> tuple[Path, Conversion]:
    """Export a loaded run: the artifact's path, and the measurements of the conversion."""
    exporter = Exporter(
        folder=finished.folder,
        recipe=finished.recipe,
        data=data,
        model=finished.model,
        calibration=finished.calibration,
        presentations=finished.presentations,
        taught_by=finished.manifest.get("taught_by", {}),
        progress=progress,
    )
    to = output or artifact_path(finished.folder, load_deployment(deployment))
    conversion = exporter.export(deployment, to, report=True)
    if deployment in finished.manifest.get("refused", {}) and not conversion.exceeded_limits and output is None:
        _record_success(finished.folder, deployment, conversion)
    return to, conversion


def _record_success(folder: RunFolder, deployment: str, conversion: Conversion) -> None:
    """Record a verified artifact. The manifest is read anew, as another export may have changed it meanwhile."""
    with hold_run(folder, may_be_complete=True):
        manifest = read_manifest(folder.manifest)
        manifest.get("refused", {}).pop(deployment, None)
        manifest.setdefault("parity", {})[deployment] = conversion.parity.to_json()
        write_json(folder.manifest, manifest)


def artifact_path(folder: RunFolder, deployment: Deployment) -> Path:
    suffix: str = registry.load("export", f"to_{deployment.target}").SUFFIX
    return folder.artifact(deployment.name, deployment.target, suffix)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exporter:
    """Exports one calibrated model; holds the data for verification and for the artifact cards."""

    folder: RunFolder
    recipe: Recipe
    data: DataSet
    model: Student | Teacher
    calibration: Calibration
    presentations: Presentations
    taught_by: Mapping[str, Any]
    """The manifest's entry: by teacher, the licences of its weights and the cost of its predictions."""
    progress: Progress

    def export_all(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Export every deployment of the recipe: parity of those that passed, complaints about the others.

        A failed export does not raise: the caller completes the run without that artifact.
        """
        parities, refused = {}, {}
        for name in self.recipe.export:
            to = artifact_path(self.folder, load_deployment(name))
            # After a failed verification no older or foreign file may be taken for this training's artifact.
            to.unlink(missing_ok=True)
            try:
                conversion = self.export(name, to)
                complaint = (
                    f"{to.name} differs from the trained model: {conversion.describe_exceeded_limits()}"
                    if conversion.exceeded_limits
                    else ""
                )
            except InspectKDError as error:
                complaint = str(error)
            if complaint:
                refused[name] = complaint
                self.progress.note(f"no artifact: {complaint}")
            else:
                parities[name] = conversion.parity.to_json()
        return parities, refused

    def export(self, deployment_name: str, to: Path, *, report: bool = False) -> Conversion:
        """Write one artifact if it passes verification; the conversion report is written on request, or if it fails."""
        deployment = load_deployment(deployment_name)
        card = self._card(to.stem, deployment)
        samples = verification_samples(self.data, deployment.proof)
        to.parent.mkdir(parents=True, exist_ok=True)
        conversion = make_artifact(
            ArtifactGraph(self.model.eval().cpu(), self.calibration.scale),
            to,
            card=card,
            deployment=deployment,
            verification=VerificationData(
                real=self._verification_batches(samples),
                sound=lambda: self._sound_frames(deployment.quantise.sound),
                checked=lambda: self._synthetic_pairs(deployment.quantise.checked),
                recalibrate=self._recalibrate,
                progress=self.progress,
            ),
        )
        if report or conversion.exceeded_limits:
            write_conversion(conversion, to, card)
        return conversion

    def _card(self, name: str, deployment: Deployment) -> ArtifactCard:
        settings, data, common_view = self.recipe.data, self.data, self.presentations.common_view
        licences = {source.name: source.licence for source in sources_of(self.model)}
        return ArtifactCard(
            name=name,
            target=deployment.target,
            size=settings.size,
            tile=common_view.tile if common_view else None,
            overlap=common_view.overlap if common_view else settings.overlap,
            presentations=None if common_view else self.presentations,
            resize=RESIZE,
            bits=settings.bits,
            categories=tuple(data.categories),
            calibration=self.calibration,
            recipe=_public_recipe(self.recipe),
            recipe_digest=self.recipe.digest(),
            data={"name": data.name, "digest": data.digest},
            licences=licences | _teacher_licences(self.taught_by) | _data_licence(data),
            versions=installed_versions(PACKAGES),
            created=now(),
        )

    def _verification_batches(self, samples: Sequence[Sample]) -> LabelledImages:
        """Yield batches of frames with their labels. One tile of a tiled image is enough to compare two runtimes on equal input."""
        self.progress.phase("prove", len(samples))
        root = common_root(samples)
        for batch in chunks(samples, VERIFICATION_BATCH):
            self.progress.advance(len(batch))
            truths = [Truth(sample.defective, sample.category, str(sample.image.relative_to(root))) for sample in batch]
            images_NHW3, weights = stack_frames([self._middle_frame(sample) for sample in batch])
            yield (images_NHW3, truths) if weights is None else (images_NHW3, truths, weights)

    def _sound_frames(self, limit: int) -> WeightedImages:
        """Middle frames of training parts, evenly spread over all categories."""
        samples = self.data.select(Split.TRAIN)
        return stack_frames([self._middle_frame(samples[i]) for i in evenly_spread(len(samples), limit)])

    def _synthetic_pairs(self, parts: int) -> WeightedImages:
        """Sound images, each followed by its copy with a synthetic defect; nothing was trained on these parts."""
        samples = self.data.select(Split.VALIDATION) or self.data.select(Split.CALIBRATION)
        chosen = [samples[i] for i in evenly_spread(len(samples), parts)]
        settings = self.recipe.data
        store = ImageStore(chosen, self.presentations, bits=settings.bits, budget_mb=settings.cache_mb)
        pairs = SyntheticPairs(store, self.recipe.fit.seed)
        weights = [None] * len(pairs.images) if self._weights_side is None else pairs.grid_weights(self._weights_side)
        return stack_frames(list(map(Frame, pairs.images, weights)))

    @property
    def _weights_side(self) -> int | None:
        """Side of the zones' weights; None without zones."""
        if not (self.presentations.has_zones and isinstance(self.model, Student)):
            return None
        return self.model.weights_side(self.recipe.data.size)

    def _middle_frame(self, sample: Sample) -> Frame:
        image = read_sample(sample, self.presentations, self.recipe.data.bits)
        return self.presentations.prepare(image, sample.category).middle_frame(self._weights_side)

    def _recalibrate(self, model: Model) -> Calibration:
        """New thresholds for an artifact whose scores differ a little from the trained model's."""
        bits = self.recipe.data.bits
        scores = calibration_scores(model, self.data, self.presentations, self.progress, bits=bits)
        return calibrate_scaled(self.calibration.scale, scores, **self.recipe.calibration.model_dump())


def stack_frames(frames: Sequence[Frame]) -> WeightedImages:
    return WeightedImages(
        np.stack([frame.image for frame in frames]), stack_weights([frame.weights for frame in frames])
    )


def verification_samples(data: DataSet, limit: int) -> list[Sample]:
    """Sound and defective parts of every category; evenly from the test and calibration splits."""
    samples = data.select(Split.TEST) + data.select(Split.CALIBRATION)
    samples.sort(key=lambda s: (s.category, s.kind, s.image.name))
    if len(samples) <= limit:
        return samples
    return [samples[i] for i in np.linspace(0, len(samples) - 1, limit).round().astype(int)]


def _public_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe for the artifact card: without folders of the training machine and names of teachers."""
    content: dict[str, Any] = recipe.model_dump(mode="json")
    for key in ("teachers", "unlabelled", "labelled", "start"):
        del content["distill"][key]
    del content["teach"]["labelled"], content["data"]["zones"]
    return content


def _teacher_licences(taught_by: Mapping[str, Any]) -> dict[str, str]:
    """Licences of the teachers' weights, which are not in the artifact, but from which its own were trained."""
    return {
        f"taught by {source}": licence
        for teacher in taught_by.values()
        for source, licence in teacher["licences"].items()
    }


def _data_licence(data: DataSet) -> dict[str, str]:
    return {f"data {data.name}": data.manifest.licence.name} if data.manifest else {}
