"""Our students in a comparison: trained like `inspect-kd train`, timed as the artifact that it writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from inspect_kd.bench.cost import count_gflop
from inspect_kd.bench.entries import Entry
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.training import pipeline
from inspect_kd.training.artifacts import require_artifacts
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, load_run
from inspect_kd.types import Progress


def run_entry(entry: Entry, data: DataSet, folder: Path, minutes: float, progress: Progress) -> dict[str, Any]:
    run = RunFolder(folder / "run")
    if not run.is_complete:
        # The compared models take whole images, and so do the measured times.
        recipe = load_recipe(entry.model, ["data.tile=null"])
        job = Job(recipe=recipe, data=data, folder=run, hardware=Hardware(), progress=progress)
        pipeline.train(job, resume=run.checkpoint.is_file())
    require_artifacts(run.path)
    complete_run = load_run(run.path)
    shutil.copyfile(run.path / f"{run.path.name}.onnx", folder / "model.onnx")
    return {
        "metrics": complete_run.manifest.get("metrics", {}),
        "train_seconds": complete_run.manifest["train_seconds"],
        "gflop": count_gflop(ArtifactGraph(complete_run.model, 1.0), complete_run.recipe.data.size),
        "note": "",
    }
