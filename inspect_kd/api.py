"""The Python API: train, evaluate and export from a script or a notebook. The command line is built on it.

run = inspect_kd.train("my_parts/", model="omni_ad")
print(run.metrics["mean"]["image_auroc"])
inspector = inspect_kd.Inspector(run.export("openvino"))
print(inspector("part.png").decision)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_kd.errors import BadInput, GateFailed, UsageError, name_file_in_errors
from inspect_kd.progress_display import show_progress
from inspect_kd.types import Progress, Split

if TYPE_CHECKING:
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet
    from inspect_kd.evaluate import Evaluation
    from inspect_kd.export.deploy import Conversion
    from inspect_kd.inspector import Inspector
    from inspect_kd.training.hardware import Hardware
    from inspect_kd.training.run import RunFolder

Settings = Mapping[str, Any] | Sequence[str]
"""Changes to a recipe: `{"fit.steps": 200}`, or `["fit.steps=200"]` as on the command line."""


def train(
    data: str | Path,
    *,
    model: str | None = None,
    settings: Settings = (),
    teachers: Sequence[str] = (),
    unlabelled: str | Path | None = None,
    labelled: str | Path | None = None,
    start: str | Path | None = None,
    out: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    fetch: bool = False,
    hardware: Hardware | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train on a data set and return the complete run. Everything but the data has a default.

    `data`: a data set's name, a manifest, a CSV or any folder of images. `model`: a recipe's name or file. `teachers`, `unlabelled`,
    `labelled` and `start` are those of `inspect-kd train`. `fetch=True` accepts the licence of a named data set whose images are not
    on this machine, and downloads them. Raises GateFailed if an artifact does not match the trained model; the run is complete even
    then.
    """
    recipe = plan_recipe(
        model or choose_model(), settings, teachers=teachers, unlabelled=unlabelled, labelled=labelled, start=start
    )
    if fetch:
        fetch_missing(list_sources(data, recipe), progress=progress)
    data_set = open_data(data, recipe)
    folder = choose_run_folder(Path(out), name or f"{data_set.name}-{recipe.name}", resume=resume)
    run = run_training(recipe, data_set, folder, resume=resume, hardware=hardware, progress=progress)
    run.require_artifacts()
    return run


def open_run(path: str | Path) -> Run:
    """Open the folder of a complete run."""
    run = Run(Path(path))
    run.manifest  # noqa: B018  (raises if the folder holds no complete run)
    return run


@dataclass(frozen=True, slots=True)
class Run:
    """A complete run: its folder, its metrics, and the export of its model."""

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of `run.json`."""
        from inspect_kd.training.run import RunFolder
        from inspect_kd.training.run.manifest import read_manifest

        return read_manifest(RunFolder(self.path).manifest)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        from inspect_kd.config import read_recipe

        return read_recipe(self.path / "recipe.yaml")

    @property
    def metrics(self) -> dict[str, dict[str, float | str | None]]:
        """The seven metrics on the test parts, by category and for `mean`; empty if there were no test parts."""
        metrics: dict[str, dict[str, float | str | None]] = self.manifest.get("metrics", {})
        return metrics

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def artifact(self, deployment: str = "onnx") -> Path:
        """Return the path of a deployment's artifact, which `export` writes."""
        from inspect_kd.export.deploy import load_deployment
        from inspect_kd.training.artifacts import artifact_path
        from inspect_kd.training.run import RunFolder

        return artifact_path(RunFolder(self.path), load_deployment(deployment))

    def require_artifacts(self) -> None:
        """Raise GateFailed if an artifact of the recipe failed its verification at the end of the training."""
        from inspect_kd.training.artifacts import require_artifacts

        require_artifacts(self.path)

    def evaluate(self, data: str | Path | None = None, *, progress: Progress | None = None) -> Evaluation:
        """Measure the ONNX artifact on the test parts of a data set; by default on those that the training held out."""
        from inspect_kd.datasets import open_dataset, open_for_recipe
        from inspect_kd.inspector import Inspector

        if data is None:
            source = self.manifest["data"].get("source")
            if not source:
                raise UsageError(f"{self.path}: its manifest names no data set; pass one as `data`")
            samples = open_for_recipe(source, self.recipe)
        else:
            samples = open_dataset(str(data))
        return evaluate_artifact(Inspector(self.artifact()), samples, progress=progress)

    def export(
        self,
        deployment: str = "onnx",
        *,
        data: str | Path | None = None,
        output: str | Path | None = None,
        zones: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Write and verify an artifact, and return its path. Raises GateFailed if it does not match the trained model.

        `zones`: a file of other zones than those of the run; thresholds are calibrated with them, nothing is trained.
        """
        artifact, conversion = self.convert(deployment, data=data, output=output, zones=zones, progress=progress)
        if conversion.exceeded_limits:
            raise GateFailed(describe_refused_artifacts([f"{artifact.name}: {conversion.describe_exceeded_limits()}"]))
        return artifact

    def convert(
        self,
        deployment: str = "onnx",
        *,
        data: str | Path | None = None,
        output: str | Path | None = None,
        zones: str | Path | None = None,
        progress: Progress | None = None,
    ) -> tuple[Path, Conversion]:
        """Export without raising GateFailed; the Conversion says how the artifact differs and which limits it exceeds."""
        from inspect_kd.training.artifacts import export_run

        target = None if output is None else Path(output)
        with _display_unless(progress) as display, name_file_in_errors(target or self.path):
            return export_run(
                self.path,
                deployment,
                data=str(data) if data else None,
                output=target,
                progress=display,
                zones=str(zones) if zones else None,
            )


def describe_refused_artifacts(complaints: Sequence[str]) -> str:
    """Return the message about artifacts that failed their verification."""
    return (
        f"the predictions differ from the student's, no artifact was written: {' | '.join(complaints)}. "
        "The *.conversion.html in the artifact's folder has the details"
    )


def choose_model() -> str:
    """Return the default recipe's name, or, if weights of its encoder are missing, the name of the fallback, which needs no download."""
    from inspect_kd.config import default_recipe
    from inspect_kd.models.encoders import weights_available

    return default_recipe(weights_available)


def plan_training(
    data: str | Path,
    model: str,
    settings: Settings = (),
    *,
    teachers: Sequence[str] = (),
    unlabelled: str | Path | None = None,
    labelled: str | Path | None = None,
    start: str | Path | None = None,
) -> tuple[Recipe, DataSet]:
    """Resolve the recipe with its changes, and open the data set with the recipe's splits."""
    recipe = plan_recipe(model, settings, teachers=teachers, unlabelled=unlabelled, labelled=labelled, start=start)
    return recipe, open_data(data, recipe)


def plan_recipe(
    model: str,
    settings: Settings = (),
    *,
    teachers: Sequence[str] = (),
    unlabelled: str | Path | None = None,
    labelled: str | Path | None = None,
    start: str | Path | None = None,
) -> Recipe:
    """Resolve the recipe with its changes."""
    from inspect_kd.config import load_recipe
    from inspect_kd.training.presets import distillation_changes

    changes = distillation_changes(
        load_recipe(model), teachers=teachers, unlabelled=unlabelled, labelled=labelled, start=start
    )
    if isinstance(settings, Mapping):
        settings = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return load_recipe(model, [*changes, *settings])


def open_data(data: str | Path, recipe: Recipe) -> DataSet:
    """Open the data set with the recipe's splits."""
    from inspect_kd.datasets import open_for_recipe

    return open_for_recipe(str(data), recipe)


def list_sources(data: str | Path, recipe: Recipe) -> list[str]:
    """List the data sets that a training opens: its own, and the one with real defects that the recipe may name."""
    return [str(data), *([recipe.distill.labelled] if recipe.distill.labelled else [])]


def fetch_missing(sources: Sequence[str], *, progress: Progress | None = None) -> None:
    """Download those data sets that are not on this machine, after showing their licences."""
    from inspect_kd.datasets import find_missing
    from inspect_kd.datasets.fetch import get

    for manifest in find_missing(sources).values():
        with _display_unless(progress) as display:
            for line in manifest.describe_download():
                display.note(line)
            get(manifest, display)


def choose_run_folder(out: Path, name: str, *, resume: bool) -> RunFolder:
    """Choose the folder to train into; in a multi-device training rank 0 chooses it for all processes."""
    from inspect_kd.training.run import RUN_FOLDER_VARIABLE, RunFolder, choose_folder, is_started_by_rank_zero

    if is_started_by_rank_zero():
        return RunFolder(Path(os.environ[RUN_FOLDER_VARIABLE]))
    folder = choose_folder(out, name, resume=resume)
    os.environ[RUN_FOLDER_VARIABLE] = str(folder.path)
    return folder


def run_training(
    recipe: Recipe,
    data: DataSet,
    folder: RunFolder,
    *,
    resume: bool = False,
    hardware: Hardware | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train into a folder. The run is complete even if artifacts were refused (`Run.require_artifacts`)."""
    from inspect_kd.training import pipeline
    from inspect_kd.training.hardware import Hardware
    from inspect_kd.training.job import Job
    from inspect_kd.training.run import is_started_by_rank_zero

    with _display_unless(progress, quiet=is_started_by_rank_zero()) as display, name_file_in_errors(folder.path):
        display.note(summarise(data))
        _note_left_out(recipe, data, display)
        job = Job(recipe=recipe, data=data, folder=folder, hardware=hardware or Hardware(), progress=display)
        pipeline.train(job, resume=resume)
    return Run(folder.path)


def evaluate_artifact(inspector: Inspector, data: DataSet, *, progress: Progress | None = None) -> Evaluation:
    """Measure an open artifact on the test parts of a data set."""
    from inspect_kd.evaluate import evaluate

    with _display_unless(progress) as display:
        return evaluate(
            inspector,
            data.select(Split.TEST),
            inspector.card.calibration,
            display,
            presentations=inspector.presentations,
            bits=inspector.card.bits,
        )


def summarise(data: DataSet) -> str:
    """Describe a data set in one line."""
    counts = ", ".join(f"{len(data.select(split))} {split}" for split in Split)
    defects = sum(sample.defective for sample in data.samples)
    categories = f"{len(data.categories)} categor{'y' if len(data.categories) == 1 else 'ies'}"
    return f"{data.name} ({data.layout}): {categories} ({', '.join(data.categories)}); {counts}; {defects} defective"


def _note_left_out(recipe: Recipe, data: DataSet, progress: Progress) -> None:
    """Note images that the data set's layout does not read, so that the user knows that they are not trained on."""
    from inspect_kd.datasets.check import find_left_out

    if recipe.data.categories:
        return  # other categories are left out on purpose
    try:
        for finding in find_left_out(data):
            progress.note(f"{finding.text}; `inspect-kd data check` lists them")
    except BadInput as error:
        progress.note(f"images may be left out: {error}")


def _display_unless(progress: Progress | None, *, quiet: bool = False) -> AbstractContextManager[Progress]:
    """Use the caller's progress; without one, show it on the terminal."""
    return show_progress(quiet=quiet) if progress is None else nullcontext(progress)
